/**
 * A broker in a process of its own that strikes itself in the middle of a request.
 *
 *     fragile_broker.ts DIRECTORY OPERATION NTH SIGKILL|SIGSTOP
 *
 * Once it was told to `arm` (no operation of the protocol's, and refused) and has taken in a request of that operation, it makes NTH more calls of the C library and is then struck, in the
 * middle of the next one: after the kernel has done it, before the broker knows. It says `survived` when it was done with
 * the request before that. It says `serving` when it listens.
 *
 * @module
 */

import { interposeLibc } from "../../../ffi/libc.ts";
import { seqpacketPair } from "../../../ffi/unix_socket.ts";
import { LocalServer } from "../../../src/fabric/local/local_server.ts";
import { RunDirectory } from "../../../src/fabric/local/run_directory.ts";
import { nativeKill, prepareKill } from "./native_kill.ts";
import type { Blow } from "./stage.ts";

const [path, operation, nth, blow] = Deno.args as [string, string, string, Blow];

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`! ${line}\n`));
}

/** The operation in a packet that recvmsg has just brought: `struct msghdr` points to `struct iovec` to the bytes. */
function operationIn(header: DataView, length: number): unknown {
  const vector = Deno.UnsafePointer.create(header.getBigUint64(16, true))!;
  const bytes = Deno.UnsafePointer.create(new Deno.UnsafePointerView(vector).getBigUint64(0))!;
  const text = new TextDecoder().decode(Deno.UnsafePointerView.getArrayBuffer(bytes, length));
  return (JSON.parse(text) as { op?: unknown }).op;
}

prepareKill();
const directory = new RunDirectory(path);
const lock = directory.tryLock();
if (lock === undefined) throw new Error("another broker holds the lock");
const [, connection] = seqpacketPair();
const server = new LocalServer({
  kind: "embedded",
  directory: path,
  lock,
  sockets: [],
  connection,
  quota: undefined,
  state: undefined,
  policy: undefined,
  audit: undefined,
});

let armed = false;
let left = -1;
interposeLibc((name, call) => (...args) => {
  if (name === "epoll_wait" && left >= 0) {
    left = -1;
    say("survived");
  }
  const result = call(...args);
  if (left >= 0) {
    if (left-- === 0) nativeKill(blow);
  } else if (name === "recvmsg" && (result as number) > 0) {
    const received = operationIn(args[1] as DataView, result as number);
    if (received === "arm") {
      armed = true;
    } else if (armed && received === operation) {
      armed = false;
      left = Number(nth);
      if (left-- === 0) nativeKill(blow);
    }
  }
  return result;
});
say("serving");
server.run();

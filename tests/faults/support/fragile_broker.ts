/**
 * A broker in a process of its own that strikes itself in the middle of what it does.
 *
 * It begins when a line comes on its standard input, `embedded DIRECTORY` or `daemon SOCKET`, and says `serving` when it
 * listens. A client that asks it to `arm`
 * (no operation of the protocol's, and refused) says where it is struck: just before or just after the n-th call of the
 * C library that it makes from then on; the first is the wait for what comes next. Asked to `disarm`, it says how many
 * calls it made before it last waited, and is struck no more.
 *
 * @module
 */

import { errno, interposeLibc, setErrno } from "../../../ffi/libc.ts";
import { seqpacketPair } from "../../../ffi/unix_socket.ts";
import type { BrokerThreadConfig } from "../../../src/fabric/local/broker_thread_config.ts";
import { LocalServer } from "../../../src/fabric/local/local_server.ts";
import { RunDirectory } from "../../../src/fabric/local/run_directory.ts";
import { ServedSocket } from "../../../src/fabric/local/served_socket.ts";
import { nativeKill, now, prepareKill } from "./native_kill.ts";
import type { Strike } from "./stage.ts";

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`! ${line}\n`));
}

/** The message that recvmsg has just brought: `struct msghdr` points to `struct iovec`, which points to the bytes. */
function messageIn(header: DataView, length: number): { readonly op?: unknown; readonly args?: unknown } {
  const vector = Deno.UnsafePointer.create(header.getBigUint64(16, true))!;
  const bytes = Deno.UnsafePointer.create(new Deno.UnsafePointerView(vector).getBigUint64(0))!;
  return JSON.parse(new TextDecoder().decode(Deno.UnsafePointerView.getArrayBuffer(bytes, length)));
}

/** What a thread would be told; nobody else uses the connection. */
function configure(kind: string, path: string): BrokerThreadConfig {
  const connection = seqpacketPair()[1];
  const common = { connection, quota: undefined, spins: false, policy: undefined, audit: undefined };
  if (kind === "embedded") {
    const lock = new RunDirectory(path).tryLock();
    return { ...common, kind, directory: path, lock, sockets: [], state: undefined };
  }
  const state = RunDirectory.make(`${path}.state`);
  const lock = state.tryLock();
  const descriptor = ServedSocket.listen(path).descriptor;
  const sockets = [{ descriptor, context: undefined }];
  return { ...common, kind: "daemon", directory: undefined, lock, sockets, state: state.path };
}

let strike: Strike | undefined;
/** What was asked for, from the next wait on. */
let next: Strike | undefined;
let calls = -1;
/** The number of the last wait. */
let idle = -1;

function step(at: Strike["at"]): void {
  if (strike?.at !== at || strike.nth !== calls) return;
  const { blow } = strike;
  strike = undefined;
  say(`struck ${now()}`);
  nativeKill(blow);
}

prepareKill();
const line = new Uint8Array(4096);
const length = await Deno.stdin.read(line) ?? 0;
const [kind = "", path = ""] = new TextDecoder().decode(line.subarray(0, length)).trim().split(" ");
const config = configure(kind, path);
if (config.lock === undefined) throw new Error("another broker holds the lock");
const server = new LocalServer(config);
interposeLibc((name, call) => (...args) => {
  if (name === "epoll_wait") {
    if (next !== undefined) {
      [strike, next] = [next, undefined];
      calls = 0;
      say("armed");
    }
    idle = calls;
  }
  step("call");
  const result = call(...args);
  // Whoever stops here goes on to look at errno.
  const error = errno();
  step("called");
  if (calls >= 0) calls++;
  if (name === "recvmsg" && (result as number) > 0) {
    const message = messageIn(args[1] as DataView, result as number);
    if (message.op === "arm") {
      next = message.args as Strike;
    } else if (message.op === "disarm") {
      say(`survived ${idle}`);
      calls = -1;
      strike = undefined;
    }
  }
  setErrno(error);
  return result;
});
say("serving");
server.run();

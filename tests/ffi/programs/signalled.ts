// Waits while SIGUSR1 comes again and again, until it has been interrupted three times; ends with its input.
import { Errno, errno, interposeLibc, setErrno } from "../../../ffi/libc.ts";
import { ringBell, streamPair, waitReadable } from "../../../ffi/unix_socket.ts";

Deno.addSignalListener("SIGUSR1", () => {});
const [end, other] = streamPair();
let interruptions = 0;
interposeLibc((name, call) => (...args) => {
  const result = call(...args);
  const error = errno();
  if (name === "poll" && result === -1 && error === Errno.EINTR) {
    console.log("interrupted");
    if (++interruptions === 3) ringBell(other);
  }
  setErrno(error);
  return result;
});
console.log("waiting");
const ready = waitReadable([end], -1);
interposeLibc(undefined);
console.log(ready === 1);
console.log("done");
for await (const _ of Deno.stdin.readable);
Deno.exit(0);

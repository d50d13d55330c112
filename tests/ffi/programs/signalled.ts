// Waits 600 ms while SIGUSR1 comes again and again; tells how often it was interrupted and how long it waited.
import { Errno, errno, interposeLibc } from "../../../ffi/libc.ts";
import { streamPair, waitReadable } from "../../../ffi/unix_socket.ts";

Deno.addSignalListener("SIGUSR1", () => {});
const [end] = streamPair();
let interruptions = 0;
interposeLibc((_name, call) => (...args) => {
  const result = call(...args);
  if (result === -1 && errno() === Errno.EINTR) interruptions++;
  return result;
});
console.log("waiting");
const start = performance.now();
waitReadable([end], 600);
console.log(JSON.stringify({ interruptions, waitedMs: performance.now() - start }));
Deno.exit(0);

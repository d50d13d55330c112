// The very first call that this process makes of some code fails: nothing is compiled yet.
import type { SystemError } from "../../../ffi/libc.ts";
import { connectSeqpacket } from "../../../ffi/unix_socket.ts";

try {
  connectSeqpacket("/nonexistent/socket");
} catch (error) {
  console.log((error as SystemError).code, (error as SystemError).call);
}

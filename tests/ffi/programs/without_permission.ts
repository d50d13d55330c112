// Imports everything and then calls twice, without any permission.
import "../../../ffi/descriptor.ts";
import "../../../ffi/epoll.ts";
import "../../../ffi/file.ts";
import "../../../ffi/file_lock.ts";
import "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";
import { userId } from "../../../ffi/process.ts";
import "../../../ffi/unix_socket.ts";

for (const call of [userId, () => createMemfd("refused", 1)]) {
  try {
    call();
  } catch (error) {
    console.log((error as Error).name);
  }
}

// Holds a file and its byte 5 until it is killed.
import { openFile, OpenFlag } from "../../../ffi/file.ts";
import { tryLockByte, tryLockFile } from "../../../ffi/file_lock.ts";

const fd = openFile(Deno.args[0]!, OpenFlag.RDWR);
console.log(tryLockFile(fd) && tryLockByte(fd, 5) ? "locked" : "refused");
setInterval(() => {}, 1000);

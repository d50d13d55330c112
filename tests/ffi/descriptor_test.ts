import { assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, describe, describePath, duplicate, type FileStatus } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { Errno, type LibcCall, setErrno, SystemError } from "../../ffi/libc.ts";
import { createMemfd } from "../../ffi/memfd.ts";
import { seqpacketPair } from "../../ffi/unix_socket.ts";
import { countDescriptors, descriptorFlags, inDirectory, NOT_OPEN, test, withSymbol } from "./support.ts";

/** What Deno says about a file, in the same words. */
function asDenoSees(info: Deno.FileInfo, kind: FileStatus["kind"]): FileStatus {
  const { mode, uid, gid, size, ino, dev } = info;
  // Deno gives the kernel's dev_t: 12 bits of major number from bit 8 on, 20 of minor around it.
  const major = BigInt(dev >> 8 & 0xfff);
  const minor = BigInt(dev & 0xff | dev >> 12 & 0xfff00);
  return {
    kind,
    mode: mode! & 0o7777,
    uid: uid!,
    gid: gid!,
    size,
    inode: BigInt(ino!),
    device: major << 32n | minor,
  };
}

test("a closed descriptor is gone, and to close what is not open is an error", () => {
  const fd = createMemfd("closed", 1);
  const before = countDescriptors();
  closeDescriptor(fd);
  assertEquals(countDescriptors(), before - 1);
  const error = assertThrows(() => closeDescriptor(NOT_OPEN), SystemError);
  assertEquals([error.code, error.call], ["EBADF", "close"]);
});

test("an interrupted close has closed and is not made again", () => {
  const fd = createMemfd("interrupted", 1);
  let calls = 0;
  const interrupt: (call: LibcCall) => LibcCall = (call) => (...args) => {
    calls++;
    call(...args);
    setErrno(Errno.EINTR);
    return -1;
  };
  withSymbol("close", interrupt, () => closeDescriptor(fd));
  assertEquals(calls, 1);
});

test("a duplicate is close-on-exec and outlives what it was made of", () => {
  const fd = createMemfd("duplicated", 10);
  const copy = duplicate(fd);
  closeDescriptor(fd);
  assertEquals([describe(copy).size, descriptorFlags(copy).closeOnExec], [10, true]);
  closeDescriptor(copy);
  assertThrows(() => duplicate(NOT_OPEN), SystemError, "EBADF");
});

test("describe and describePath agree with Deno about files, directories, links and sockets", () => {
  inDirectory((directory) => {
    Deno.writeFileSync(`${directory}/file`, new Uint8Array(1234), { mode: 0o640 });
    Deno.symlinkSync("nowhere", `${directory}/link`);
    Deno.chmodSync(directory, 0o1711);
    const directoryFd = openFile(directory, OpenFlag.RDONLY | OpenFlag.DIRECTORY);

    assertEquals(describePath(`${directory}/file`), asDenoSees(Deno.lstatSync(`${directory}/file`), "file"));
    assertEquals(describePath(`${directory}/link`), asDenoSees(Deno.lstatSync(`${directory}/link`), "symlink"));
    assertEquals(describePath(directory), asDenoSees(Deno.lstatSync(directory), "directory"));
    assertEquals(describe(directoryFd), asDenoSees(Deno.lstatSync(directory), "directory"));
    assertEquals(describePath("/dev/null")?.kind, "other");
    closeDescriptor(directoryFd);
  });
  const ends = seqpacketPair();
  assertEquals(ends.map((fd) => describe(fd).kind), ["socket", "socket"]);
  ends.forEach(closeDescriptor);
});

test("a size above 4 GiB is whole", () => {
  inDirectory((directory) => {
    Deno.createSync(`${directory}/sparse`).close();
    Deno.truncateSync(`${directory}/sparse`, 5 * 2 ** 30 + 1);
    assertEquals(describePath(`${directory}/sparse`)?.size, 5 * 2 ** 30 + 1);
  });
});

test("describePath knows nothing from what it cannot look at", () => {
  assertEquals(describePath("/nonexistent/path"), undefined);
  const error = assertThrows(() => describePath("/dev/null/path"), SystemError);
  assertEquals([error.code, error.call], ["ENOTDIR", "statx"]);
  assertThrows(() => describe(-1), SystemError, "EBADF");
});

import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, describe, describePath } from "../../ffi/descriptor.ts";
import {
  changeMode,
  makeDirectory,
  openFile,
  OpenFlag,
  readAt,
  readText,
  removeFile,
  renameFile,
  truncateFile,
  writeAt,
} from "../../ffi/file.ts";
import { Errno, type LibcCall, setErrno, SystemError } from "../../ffi/libc.ts";
import { descriptorFlags, failEveryCall, inDirectory, NOT_OPEN, test, withFailures, withSymbol } from "./support.ts";

const { CREAT, DIRECTORY, EXCL, NOFOLLOW, NONBLOCK, RDONLY, RDWR, TRUNC, WRONLY } = OpenFlag;

test("a file is made for its owner alone, close-on-exec, and only once with EXCL", () => {
  inDirectory((directory) => {
    const path = `${directory}/file`;
    const fd = openFile(path, RDWR | CREAT | EXCL);
    assertEquals([describe(fd).mode, descriptorFlags(fd).closeOnExec], [0o600, true]);
    assertEquals(assertThrows(() => openFile(path, RDWR | CREAT | EXCL), SystemError).code, "EEXIST");
    closeDescriptor(fd);
    const other = openFile(`${directory}/other`, WRONLY | CREAT | NONBLOCK, 0o400);
    assertEquals([describe(other).mode, descriptorFlags(other).nonBlocking], [0o400, true]);
    closeDescriptor(other);
  });
});

test("the flags whose numbers differ between machines mean what they say", () => {
  inDirectory((directory) => {
    Deno.writeTextFileSync(`${directory}/file`, "text");
    Deno.symlinkSync("file", `${directory}/link`);
    assertEquals(assertThrows(() => openFile(`${directory}/file`, DIRECTORY), SystemError).code, "ENOTDIR");
    assertEquals(assertThrows(() => openFile(`${directory}/link`, NOFOLLOW), SystemError).code, "ELOOP");
    closeDescriptor(openFile(directory, DIRECTORY | NOFOLLOW));
    closeDescriptor(openFile(`${directory}/link`, RDONLY));
    closeDescriptor(openFile(`${directory}/file`, WRONLY | TRUNC));
    assertEquals(describePath(`${directory}/file`)?.size, 0);
  });
});

test("bytes are read and written where one says", () => {
  inDirectory((directory) => {
    const fd = openFile(`${directory}/file`, RDWR | CREAT);
    assertEquals(writeAt(fd, new Uint8Array([1, 2, 3]), 2 ** 33), 3);
    const into = new Uint8Array(8);
    assertEquals([readAt(fd, into, 2 ** 33 + 1), into[0], into[1], into[2]], [2, 2, 3, 0]);
    assertEquals(readAt(fd, into, 2 ** 33 + 3), 0);
    assertEquals(readAt(fd, into.subarray(0, 1), 2 ** 33), 1);
    assertEquals([...into], [1, 3, 0, 0, 0, 0, 0, 0]);
    assertEquals([readAt(fd, new Uint8Array(0), 0), writeAt(fd, new Uint8Array(0), 0)], [0, 0]);

    truncateFile(fd, 10);
    assertEquals(describe(fd).size, 10);
    truncateFile(fd, 20);
    assertEquals([describe(fd).size, readAt(fd, new Uint8Array(100), 0)], [20, 20]);
    closeDescriptor(fd);
    assertEquals(assertThrows(() => readAt(NOT_OPEN, into, 0), SystemError).call, "pread");
    assertEquals(assertThrows(() => writeAt(NOT_OPEN, into, 0), SystemError).call, "pwrite");
    assertEquals(assertThrows(() => truncateFile(NOT_OPEN, 0), SystemError).call, "ftruncate");
  });
});

test("what the kernel moves in pieces is read and written whole", () => {
  inDirectory((directory) => {
    const fd = openFile(`${directory}/file`, RDWR | CREAT);
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
    let calls = 0;
    const short = (call: LibcCall): LibcCall => (fd, buffer, count, offset) => {
      calls++;
      return call(fd, buffer, (count as bigint) / 2n + 1n, offset);
    };
    assertEquals(withSymbol("pwrite", short, () => writeAt(fd, bytes, 5)), 100);
    const into = new Uint8Array(200);
    assertEquals(withSymbol("pread", short, () => readAt(fd, into, 5)), 100);
    assertEquals(into.subarray(0, 100), bytes);
    assert(calls > 4, String(calls));
    // The disk is full in the middle of it.
    const full = (call: LibcCall): LibcCall => (...args) => {
      if (calls++ > 0) return setErrno(28), -1;
      return call(args[0], args[1], 10n, args[3]);
    };
    calls = 0;
    assertEquals(
      assertThrows(() => withSymbol("pwrite", full, () => writeAt(fd, bytes, 0)), SystemError).code,
      "ENOSPC",
    );
    closeDescriptor(fd);
  });
});

test("text is read to its end or the bound, also from /proc and in pieces", () => {
  inDirectory((directory) => {
    const path = `${directory}/text`;
    Deno.writeTextFileSync(path, "Grüße, 3 words");
    assertEquals([readText(path, 100), readText(path, 16), readText(path, 3)], [
      "Grüße, 3 words",
      "Grüße, 3 words",
      "Gr\u{fffd}",
    ]);
    const oneByOne = withSymbol(
      "pread",
      (call) => (fd, into, _count, offset) => call(fd, into, 1n, offset),
      () => readText(path, 100),
    );
    assertEquals(oneByOne, "Grüße, 3 words");
    assertEquals(readText("/proc/self/comm", 64), Deno.readTextFileSync("/proc/self/comm"));
    assertEquals(readText("/proc/self/maps", 1 << 20).includes("libc.so.6"), true);
    assertEquals(assertThrows(() => readText(`${directory}/none`, 1), SystemError).code, "ENOENT");
  });
});

test("whichever call fails, readText throws it and leaves nothing open", () => {
  const failed = failEveryCall(5, (nth) => {
    if (nth <= 4) assertEquals(assertThrows(() => readText("/proc/self/comm", 64), SystemError).code, "EIO");
    else readText("/proc/self/comm", 64);
  });
  assertEquals(failed, ["open", "pread", "pread", "close"]);
});

test("directories and names: what was there already, or is not there, is no error", () => {
  inDirectory((directory) => {
    const path = `${directory}/run`;
    assertEquals([makeDirectory(path, 0o700), makeDirectory(path, 0o700)], [true, false]);
    assertEquals([describePath(path)?.kind, describePath(path)?.mode], ["directory", 0o700]);
    const fd = openFile(path, RDONLY);
    changeMode(fd, 0o1777);
    closeDescriptor(fd);
    assertEquals(describePath(path)?.mode, 0o1777);

    Deno.writeTextFileSync(`${path}/new`, "new");
    Deno.writeTextFileSync(`${path}/old`, "old");
    renameFile(`${path}/new`, `${path}/old`);
    assertEquals([readText(`${path}/old`, 10), describePath(`${path}/new`)], ["new", undefined]);
    assertEquals([removeFile(`${path}/old`), removeFile(`${path}/old`)], [true, false]);

    assertEquals(assertThrows(() => makeDirectory(`${directory}/a/b`, 0o700), SystemError).call, "mkdir");
    assertEquals(assertThrows(() => removeFile(path), SystemError).call, "unlink");
    assertEquals(assertThrows(() => renameFile(`${path}/x`, `${path}/y`), SystemError).call, "rename");
    assertEquals(assertThrows(() => changeMode(-1, 0), SystemError).call, "fchmod");
  });
});

test("interrupted calls are made again", () => {
  const fd = withFailures("open", Errno.EINTR, 2, () => openFile("/proc/self/comm", RDONLY));
  assertEquals(withFailures("pread", Errno.EINTR, 2, () => readAt(fd, new Uint8Array(1), 0)), 1);
  closeDescriptor(fd);
});

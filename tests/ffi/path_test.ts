import { assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, describe } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { setErrno, SystemError } from "../../ffi/libc.ts";
import { Access, changeOwner, listDirectory, mayAccess, readLink, realPath, syncFile } from "../../ffi/path.ts";
import { inDirectory, NOT_OPEN, test, withSymbol } from "./support.ts";

test("a directory's names are all there, sorted, however many", () => {
  inDirectory((directory) => {
    assertEquals(listDirectory(directory), []);
    const names = Array.from({ length: 700 }, (_, i) => `${i} ${"ü".repeat(i % 100)}`);
    for (const name of names) Deno.writeTextFileSync(`${directory}/${name}`, "");
    assertEquals(listDirectory(directory), names.sort());
    assertEquals(assertThrows(() => listDirectory(`${directory}/none`), SystemError).code, "ENOENT");
    assertEquals(assertThrows(() => listDirectory(`${directory}/0 `), SystemError).code, "ENOTDIR");
  });
});

test("a directory that cannot be read to its end is an error, not a short list, and is closed", () => {
  inDirectory((directory) => {
    Deno.writeTextFileSync(`${directory}/a`, "");
    let calls = 0;
    const error = withSymbol(
      "readdir",
      (call) => (...args) => {
        if (++calls < 3) return call(...args);
        setErrno(5);
        return null;
      },
      () => assertThrows(() => listDirectory(directory), SystemError),
    );
    assertEquals([error.code, error.call], ["EIO", "readdir"]);
  });
});

test("links are read and followed", () => {
  inDirectory((directory) => {
    Deno.writeTextFileSync(`${directory}/file`, "");
    Deno.symlinkSync("file", `${directory}/link`);
    assertEquals(readLink(`${directory}/link`), "file");
    assertEquals([readLink(`${directory}/file`), readLink(`${directory}/none`)], [undefined, undefined]);
    assertEquals(realPath(`${directory}/./link`), Deno.realPathSync(`${directory}/file`));
    assertEquals(assertThrows(() => realPath(`${directory}/none`), SystemError).code, "ENOENT");
    assertEquals(assertThrows(() => readLink(`${directory}/file/x`), SystemError).code, "ENOTDIR");
  });
});

test("what may be done with a file", () => {
  inDirectory((directory) => {
    Deno.writeTextFileSync(`${directory}/file`, "");
    assertEquals(mayAccess(`${directory}/file`, Access.READ | Access.WRITE), true);
    assertEquals(mayAccess(`${directory}/none`, Access.READ), false);
    assertEquals(mayAccess("/proc/self/comm", Access.READ), true);
    assertEquals(mayAccess("/proc/version/x", Access.READ), false);
  });
});

test("a file and its directory go to the disk, and a file to its owner", () => {
  inDirectory((directory) => {
    const file = openFile(`${directory}/file`, OpenFlag.RDWR | OpenFlag.CREAT);
    const folder = openFile(directory, OpenFlag.DIRECTORY);
    syncFile(file);
    syncFile(folder);
    const { uid, gid } = describe(file);
    changeOwner(file, uid, gid);
    closeDescriptor(file);
    closeDescriptor(folder);
    assertEquals(assertThrows(() => syncFile(NOT_OPEN), SystemError).call, "fsync");
    assertEquals(assertThrows(() => changeOwner(NOT_OPEN, uid, gid), SystemError).call, "fchown");
  });
});

import { assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, duplicate } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { isByteLocked, tryLockByte, tryLockFile, unlockByte, unlockFile } from "../../ffi/file_lock.ts";
import { Errno, SystemError } from "../../ffi/libc.ts";
import { inDirectory, NOT_OPEN, program, test, withFailures } from "./support.ts";

const { CREAT, RDONLY, RDWR } = OpenFlag;

test("a file has one holder, whose duplicates share it, until it lets go or the last of them is closed", () => {
  inDirectory((directory) => {
    const path = `${directory}/lock`;
    const holder = openFile(path, RDWR | CREAT);
    const other = openFile(path, RDWR);
    assertEquals([tryLockFile(holder), tryLockFile(other), tryLockFile(holder)], [true, false, true]);
    unlockFile(holder);
    assertEquals([tryLockFile(other), tryLockFile(holder)], [true, false]);

    const copy = duplicate(other);
    closeDescriptor(other);
    assertEquals([tryLockFile(copy), tryLockFile(holder)], [true, false]);
    closeDescriptor(copy);
    assertEquals(tryLockFile(holder), true);
    closeDescriptor(holder);
  });
});

test("each byte has its own holder, and only the others see it as locked", () => {
  inDirectory((directory) => {
    const path = `${directory}/roster`;
    const one = openFile(path, RDWR | CREAT);
    const two = openFile(path, RDWR);
    const watcher = openFile(path, RDONLY);
    assertEquals([tryLockByte(one, 0), tryLockByte(two, 0), tryLockByte(two, 1)], [true, false, true]);
    assertEquals([isByteLocked(one, 0), isByteLocked(one, 1), isByteLocked(one, 2)], [false, true, false]);
    assertEquals([isByteLocked(watcher, 0), isByteLocked(watcher, 1), isByteLocked(watcher, 2)], [true, true, false]);

    unlockByte(one, 0);
    assertEquals([isByteLocked(two, 0), tryLockByte(two, 0)], [false, true]);
    closeDescriptor(two);
    assertEquals([isByteLocked(one, 0), isByteLocked(one, 1)], [false, false]);
    assertEquals(tryLockByte(one, 2 ** 40), true);
    assertEquals(isByteLocked(watcher, 2 ** 40), true);
    [one, watcher].forEach(closeDescriptor);
  });
});

test("closing another descriptor of the same file lets nothing go", () => {
  inDirectory((directory) => {
    const path = `${directory}/roster`;
    const holder = openFile(path, RDWR | CREAT);
    const watcher = openFile(path, RDONLY);
    tryLockByte(holder, 0);
    closeDescriptor(openFile(path, RDWR));
    assertEquals(isByteLocked(watcher, 0), true);
    [holder, watcher].forEach(closeDescriptor);
  });
});

test("locks on what cannot be locked are errors", () => {
  inDirectory((directory) => {
    const fd = openFile(`${directory}/file`, RDWR | CREAT);
    assertEquals(withFailures("flock", Errno.EINTR, 2, () => tryLockFile(fd)), true);
    assertThrows(() => withFailures("flock", 37, 1, () => tryLockFile(fd)), SystemError, "flock failed");
    withFailures("flock", Errno.EINTR, 2, () => unlockFile(fd));
    closeDescriptor(fd);
    for (const use of [tryLockFile, unlockFile]) {
      const error = assertThrows(() => use(NOT_OPEN), SystemError);
      assertEquals([error.code, error.call], ["EBADF", "flock"]);
    }
    for (const use of [tryLockByte, unlockByte, isByteLocked]) {
      const error = assertThrows(() => use(NOT_OPEN, 0), SystemError);
      assertEquals([error.code, error.call], ["EBADF", "fcntl"]);
    }
  });
});

Deno.test("a process that is killed holds nothing any more", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "vmci-ffi-" });
  const path = `${directory}/roster`;
  const watcher = openFile(path, RDWR | CREAT);
  const child = program("hold_locks.ts", ["--allow-ffi"], [path]).spawn();
  const reader = child.stdout.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value), "locked\n");
  assertEquals([tryLockFile(watcher), tryLockByte(watcher, 5), isByteLocked(watcher, 5)], [false, false, true]);

  child.kill("SIGKILL");
  await child.status;
  assertEquals([isByteLocked(watcher, 5), tryLockFile(watcher), tryLockByte(watcher, 5)], [false, true, true]);
  await reader.cancel();
  await child.stderr.cancel();
  await child.stdin.close();
  closeDescriptor(watcher);
  Deno.removeSync(directory, { recursive: true });
});

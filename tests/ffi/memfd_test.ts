import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, describe, duplicate } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag, truncateFile, writeAt } from "../../ffi/file.ts";
import { Errno, SystemError } from "../../ffi/libc.ts";
import { mapPrivate, mapReadOnly, mapShared } from "../../ffi/mapping.ts";
import { addSeals, createMemfd, Seal, seals } from "../../ffi/memfd.ts";
import { streamPair } from "../../ffi/unix_socket.ts";
import { descriptorFlags, failEveryCall, NOT_OPEN, test, withFailures } from "./support.ts";

test("a memfd is zeroed, close-on-exec, unsealed, of the size asked for, and has all its pages", () => {
  const fd = createMemfd("fresh", 10_000);
  const info = Deno.statSync(`/proc/self/fd/${fd}`);
  assertEquals([info.size, describe(fd).size, seals(fd), descriptorFlags(fd).closeOnExec], [10_000, 10_000, 0, true]);
  assert(info.blocks! * 512 >= 10_000, "not all pages are there");
  assert(Deno.readLinkSync(`/proc/self/fd/${fd}`).startsWith("/memfd:fresh"));
  const mapping = mapShared(fd, 10_000);
  assert(new Uint8Array(mapping.buffer).every((byte) => byte === 0));
  mapping.close();
  closeDescriptor(fd);
});

test("what cannot be allocated is an error and leaves nothing open", () => {
  assertEquals(assertThrows(() => createMemfd("empty", 0), SystemError).code, "EINVAL");
  const error = assertThrows(() => createMemfd("huge", 2 ** 63), SystemError);
  assertEquals(error.call, "fallocate");
  assertEquals(assertThrows(() => createMemfd("n".repeat(250), 1), SystemError).call, "memfd_create");
});

test("an interrupted allocation is made again", () => {
  closeDescriptor(withFailures("fallocate", Errno.EINTR, 2, () => createMemfd("interrupted", 4096)));
});

test("whichever call fails, createMemfd throws it and leaves nothing open", () => {
  const made: number[] = [];
  const failed = failEveryCall(Errno.ENOMEM, (nth) => {
    const create = () => createMemfd("failing", 4096);
    if (nth <= 3) assertEquals(assertThrows(create, SystemError).code, "ENOMEM");
    else made.push(create());
  });
  assertEquals([failed, made.length], [["getrlimit", "memfd_create", "fallocate"], 1]);
  made.forEach(closeDescriptor);
});

test("with FUTURE_WRITE nobody maps or writes any more, and the writable mapping there is stays so", () => {
  const fd = createMemfd("region", 8192);
  const writer = mapShared(fd, 8192);
  addSeals(fd, Seal.SHRINK | Seal.GROW | Seal.FUTURE_WRITE);
  addSeals(fd, Seal.SEAL);
  assertEquals(seals(fd), Seal.SHRINK | Seal.GROW | Seal.FUTURE_WRITE | Seal.SEAL);

  const copy = duplicate(fd);
  const reopened = openFile(`/proc/self/fd/${fd}`, OpenFlag.RDWR);
  for (const holder of [fd, copy, reopened]) {
    const error = assertThrows(() => mapShared(holder, 8192), SystemError);
    assertEquals([error.code, error.call], ["EPERM", "mmap"]);
    assertEquals(assertThrows(() => writeAt(holder, new Uint8Array(1), 0), SystemError).code, "EPERM");
    assertEquals(assertThrows(() => truncateFile(holder, 4096), SystemError).code, "EPERM");
    assertEquals(assertThrows(() => truncateFile(holder, 16384), SystemError).code, "EPERM");
    assertEquals(assertThrows(() => addSeals(holder, Seal.WRITE), SystemError).code, "EPERM");
  }

  const readers = [mapReadOnly(copy, 8192), mapPrivate(reopened, 8192)];
  Atomics.store(new Int32Array(writer.buffer), 1500, 42);
  for (const reader of readers) {
    assertEquals(Atomics.load(new Int32Array(reader.buffer), 1500), 42);
    reader.close();
  }
  writer.close();
  [fd, copy, reopened].forEach(closeDescriptor);
});

test("WRITE is refused while there is a writable mapping, and keeps all from writing after it", () => {
  const fd = createMemfd("written", 4096);
  const writer = mapShared(fd, 4096);
  assertEquals(assertThrows(() => addSeals(fd, Seal.WRITE), SystemError).code, "EBUSY");
  writer.close();
  addSeals(fd, Seal.WRITE);
  assertEquals(assertThrows(() => mapShared(fd, 4096), SystemError).code, "EPERM");
  closeDescriptor(fd);
});

test("seals tells what cannot be sealed from what is not open", () => {
  const ends = streamPair();
  assertEquals(seals(ends[0]), undefined);
  ends.forEach(closeDescriptor);
  assertEquals(assertThrows(() => seals(NOT_OPEN), SystemError).code, "EBADF");
});

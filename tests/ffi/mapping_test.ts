import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { Errno, interposeLibc, setErrno, SystemError } from "../../ffi/libc.ts";
import { type Mapping, mapPrivate, mapReadOnly, mapShared, unmapPages } from "../../ffi/mapping.ts";
import { createMemfd } from "../../ffi/memfd.ts";
import { NOT_OPEN, runProgram, test, withFailures } from "./support.ts";

/** The line of /proc/self/maps that begins where a mapping does. */
function mappedAt(mapping: Mapping): string | undefined {
  const start = mapping.address.toString(16);
  return Deno.readTextFileSync("/proc/self/maps").split("\n").find((line) => line.startsWith(`${start}-`));
}

test("a mapping is exactly as long as asked for, and shared with every other", () => {
  const fd = createMemfd("shared", 5001);
  const mappings = [mapShared(fd, 5001), mapShared(fd, 5001), mapReadOnly(fd, 100), mapPrivate(fd, 1)];
  closeDescriptor(fd);
  assertEquals(mappings.map(({ byteLength }) => byteLength), [5001, 5001, 100, 1]);
  assertEquals(mappings.map(({ buffer }) => buffer.byteLength), [5001, 5001, 100, 1]);
  assertEquals(new Set(mappings.map(({ address }) => address)).size, 4);

  const [first, ...others] = mappings.map(({ buffer }) => new Uint8Array(buffer));
  first![0] = 7;
  assertEquals(others.map((bytes) => bytes[0]), [7, 7, 7]);
  first![5000] = 8;
  assertEquals(others[0]![5000], 8);
  assertEquals(mappings.map((mapping) => mapping.close()), [true, true, true, true]);
});

test("a store to a private mapping is its own, page by page, and freezes that page", () => {
  const fd = createMemfd("private", 2 * 65536);
  const shared = mapShared(fd, 2 * 65536);
  const own = mapPrivate(fd, 2 * 65536);
  closeDescriptor(fd);
  const there = new Int32Array(shared.buffer);
  const here = new Int32Array(own.buffer);

  here[0] = -1;
  there[1] = 5; // on the page that is private now
  there[16384] = 6; // on one 64 KiB further, another page everywhere
  assertEquals([there[0], here[0], here[1], here[16384]], [0, -1, 0, 6]);
  own.close();
  shared.close();
});

test("closing empties every view, unmaps, and does so once", () => {
  const fd = createMemfd("closed", 4096);
  const mapping = mapShared(fd, 4096);
  closeDescriptor(fd);
  const bytes = new Uint8Array(mapping.buffer, 10);
  const view = new DataView(mapping.buffer);
  assert(mappedAt(mapping)!.includes("memfd:closed"));

  assertEquals(mapping.close(), true);
  assertEquals([mapping.buffer.byteLength, mapping.byteLength, bytes.length, bytes[0]], [0, 4096, 0, undefined]);
  assertThrows(() => view.getInt8(0), TypeError);
  assert(!mappedAt(mapping)?.includes("memfd:closed"));
  assertEquals(mapping.close(), true);
});

test("what cannot be mapped is an error", () => {
  const fd = createMemfd("unmappable", 4096);
  assertEquals(assertThrows(() => mapShared(fd, 0), SystemError).code, "EINVAL");
  assertEquals(assertThrows(() => mapReadOnly(fd, 2 ** 60), SystemError).code, "ENOMEM");
  closeDescriptor(fd);
  const error = assertThrows(() => mapPrivate(NOT_OPEN, 4096), SystemError);
  assertEquals([error.code, error.call], ["EBADF", "mmap"]);
});

test("what cannot be given back for want of memory is given back at a later closing", () => {
  const fd = createMemfd("stubborn", 4096);
  const [transferred, closed, later] = [mapShared(fd, 4096), mapShared(fd, 4096), mapShared(fd, 4096)];
  closeDescriptor(fd);
  new Uint8Array(transferred.buffer)[0] = 5;
  const moved = transferred.buffer.transfer();
  const bytes = new Uint8Array(closed.buffer);
  let without = true;
  const fail = () => (setErrno(Errno.ENOMEM), -1);
  interposeLibc((_name, call) => (...args) => without ? fail() : call(...args));
  try {
    assertEquals([transferred.close(), closed.close()], [false, true]);
    assertEquals([bytes.length, new Uint8Array(moved)[0]], [0, 5]);
    without = false;
    assertEquals(later.close(), true);
  } finally {
    interposeLibc(undefined);
  }
  assertEquals(new Uint8Array(moved)[0], 0);
  assert(!mappedAt(closed)?.includes("memfd:stubborn"));
  assert(!mappedAt(transferred)?.includes("memfd:stubborn"));
});

test("closing fails only for what is no mapping", () => {
  const fd = createMemfd("misfit", 4096);
  const mapping = mapShared(fd, 4096);
  closeDescriptor(fd);
  const { address } = mapping;
  withFailures("munmap", Errno.EINVAL, 1, () => {
    assertEquals(assertThrows(() => mapping.close(), SystemError).call, "munmap");
  });
  unmapPages(address, 4096);
});

test("a thousand mappings are no more at the end than at the start", () => {
  const fd = createMemfd("many", 65536);
  const count = () => Deno.readTextFileSync("/proc/self/maps").split("memfd:many").length - 1;
  const kept = mapShared(fd, 65536);
  for (let round = 0; round < 1000; round++) mapShared(fd, 65536).close();
  assertEquals(count(), 1);
  kept.close();
  assertEquals(count(), 0);
  closeDescriptor(fd);
});

Deno.test("a buffer that was transferred away is cut off, stays harmless, and is told", async () => {
  const { code, signal, output, errors } = await runProgram("transferred.ts", ["--allow-ffi"]);
  assertEquals([code, signal, output], [0, null, "false 0 7 false\n"], errors);
});

Deno.test("another thread that holds the buffer survives its closing", async () => {
  const { code, signal, output, errors } = await runProgram("posted.ts", ["--allow-ffi"]);
  assertEquals([code, signal, output], [0, null, "false 0\n"], errors);
});

Deno.test("the kernel ends a process that stores through a read-only mapping", async () => {
  const { code } = await runProgram("store_read_only.ts", ["--allow-ffi"]);
  assertEquals(code, 139);
});

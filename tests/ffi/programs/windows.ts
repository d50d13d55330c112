// Mappings without raw pointers; started with libc's path alone.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { readText } from "../../../ffi/file.ts";
import { LentMapping } from "../../../ffi/lent_mapping.ts";
import { Errno, errno, interposeLibc, libc, rawPointers, setErrno, SystemError } from "../../../ffi/libc.ts";
import { type Mapping, mapPrivate, mapReadOnly, mapShared } from "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";
import { listDirectory } from "../../../ffi/path.ts";
import { environment } from "../../../ffi/process.ts";

const { gc } = globalThis as unknown as { gc(): void };

/** How often something is mapped now. */
function count(name: string): number {
  return readText("/proc/self/maps", 1 << 20).split(`memfd:${name}`).length - 1;
}

/** Lets the engine find out, as often as it takes, that nobody can see something any more. */
async function collected(name: string, left: number): Promise<void> {
  for (let tries = 0; tries < 1000 && count(name) !== left; tries++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals(count(name), left);
}

const parts: Record<string, () => void | Promise<void>> = {
  "raw pointers are refused"() {
    void libc.close;
    assertEquals(rawPointers(), false);
    assertThrows(() => Deno.UnsafePointer.of(new Uint8Array(1)), Deno.errors.NotCapable);
  },

  "errno is right after every failed call, while the heap is busy"() {
    let garbage: unknown[] = [];
    for (let round = 0; round < 20_000; round++) {
      libc.close(-1);
      assert(errno() === Errno.EBADF);
      libc.send(0, null, 0n, -1);
      assert(errno() === 88); // ENOTSOCK
      garbage.push(new Array(10).fill(round));
      if (garbage.length > 1000) garbage = [];
    }
    setErrno(Errno.EPIPE);
    assertEquals(errno(), Errno.EPIPE);
  },

  "text of C's: the environment, names in a directory"() {
    assertEquals(environment("VMCI_TEST"), "Grüße");
    assertEquals(environment("VMCI_TEST_NOT"), undefined);
    assert(listDirectory("/proc/self").includes("environ"));
  },

  "mappings are shared with every other, at any length, and what is behind them is private and zero"() {
    const fd = createMemfd("shared", 200_000);
    const mappings = [mapShared(fd, 200_000), mapShared(fd, 5001), mapReadOnly(fd, 100), mapPrivate(fd, 1)];
    closeDescriptor(fd);
    assertEquals(mappings.map(({ byteLength }) => byteLength), [200_000, 5001, 100, 1]);
    assertEquals(mappings.map(({ buffer }) => buffer.byteLength / 65536), [4, 1, 1, 1]);
    const [first, second, ...others] = mappings.map(({ buffer }) => new Uint8Array(buffer));
    first![0] = 7;
    assertEquals([second!, ...others].map((bytes) => bytes[0]), [7, 7, 7]);
    first!.fill(9, 4096);
    assertEquals([second![5000], second![8191], second![8192], second![65535]], [9, 9, 0, 0]);
    const third = new Int32Array(mappings[3]!.buffer);
    third[0] = -1;
    assertEquals(first![0], 7);
    for (const mapping of mappings) assertEquals(mapping.close(), true);
    assertEquals([first!.length, third.length, count("shared")], [0, 0, 0]);
  },

  "a window that was closed opens with other pages, never with what was there"() {
    const address = new Set<bigint>();
    for (let round = 0; round < 100; round++) {
      const fd = createMemfd("again", 65536);
      const mapping = mapShared(fd, 4096);
      closeDescriptor(fd);
      const bytes = new Uint8Array(mapping.buffer);
      assertEquals([bytes.length, bytes.find((byte) => byte !== 0)], [65536, undefined]);
      bytes.fill(round + 1);
      address.add(mapping.address);
      assertEquals(mapping.close(), true);
      assertEquals([mapping.close(), bytes.length], [true, 0]);
    }
    assertEquals(count("again"), 0);
    assert(address.size < 10, `${address.size} windows for 100 mappings, one at a time`);
  },

  "what cannot be mapped is an error and leaves nothing mapped"() {
    const fd = createMemfd("unmappable", 4096);
    assertEquals(assertThrows(() => mapShared(fd, 0), SystemError).code, "EINVAL");
    assertEquals(assertThrows(() => mapReadOnly(fd, 2 ** 60), SystemError).code, "ENOMEM");
    closeDescriptor(fd);
    const error = assertThrows(() => mapPrivate(0x7fffffff, 4096), SystemError);
    assertEquals([error.code, error.call, count("unmappable")], ["EBADF", "mmap", 0]);
  },

  "what cannot be replaced for want of memory is replaced at a later closing"() {
    const fd = createMemfd("stubborn", 4096);
    const [closed, later] = [mapShared(fd, 4096), mapShared(fd, 4096)];
    closeDescriptor(fd);
    const bytes = new Uint8Array(closed.buffer);
    interposeLibc((name, call) => (...args) => name === "mmap" ? (setErrno(Errno.ENOMEM), -1) : call(...args));
    try {
      assertEquals([closed.close(), bytes.length], [true, 0]);
    } finally {
      interposeLibc(undefined);
    }
    assertEquals(count("stubborn"), 2);
    later.close();
    assertEquals(count("stubborn"), 0);
  },

  async "what is lent and forgotten is given back, and lent again with what is in it"() {
    const fd = createMemfd("lent", 4096);
    const lent = new LentMapping(mapShared(fd, 4096), true);
    closeDescriptor(fd);
    new Uint8Array(lent.buffer)[0] = 5;
    assertEquals(count("lent"), 2);
    await collected("lent", 1);
    const again = lent.buffer;
    assertEquals(new Uint8Array(again)[0], 5);
    assertEquals([lent.close(), again.byteLength, lent.buffer.byteLength, count("lent")], [true, 0, 0, 0]);
  },

  async "what is forgotten and then closed leaves nothing, and touches nobody's addresses"() {
    const fd = createMemfd("forgotten", 4096);
    const lent = [new LentMapping(mapShared(fd, 4096), true), new LentMapping(mapPrivate(fd, 4096), false)];
    await collected("forgotten", 1);
    const others: Mapping[] = [];
    for (let i = 0; i < 300; i++) others.push(mapShared(fd, 4096));
    closeDescriptor(fd);
    new Uint8Array(others[0]!.buffer)[1] = 6;
    assertEquals(lent.map((mapping) => mapping.close()), [true, true]);
    assertEquals(count("forgotten"), 300);
    assert(others.every(({ buffer }) => new Uint8Array(buffer)[1] === 6));
    for (const mapping of others) mapping.close();
    assertEquals(count("forgotten"), 0);
  },

  async "mappings that nobody closed go with their buffers"() {
    const fd = createMemfd("leaked", 4096);
    for (let i = 0; i < 50; i++) mapShared(fd, 4096);
    closeDescriptor(fd);
    await collected("leaked", 0);
  },
};

for (const [name, part] of Object.entries(parts)) {
  try {
    await part();
  } catch (error) {
    console.log(`${name}: ${(error as Error).stack}`);
  }
}
console.log(Object.keys(parts).length, "parts");

/** /dev/vmci: queue pairs by themselves, and the driver's rules for them. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type QueuePair,
  queuePairMemorySize,
  type QueuePairOptions,
  type VmciDevice,
  VmciError,
} from "@vmci/vmci/device";
import { createMemfd } from "../../../ffi/memfd.ts";
import { type Mapping, mapShared } from "../../../ffi/mapping.ts";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { guestTest } from "./support/guest.ts";
import { codeOf, context, int, pattern, raw, structure } from "./support/raw.ts";

const HOST_CONTEXT = 2;
const ALLOC = 0x7a8;
const DETACH = 0x7aa;
const SMALL = { produceSize: 4096, consumeSize: 4096 };
const MIB = 1 << 20;

/** Memory that is shared, as a queue pair's must be. */
function sharedMemory(size: number): Mapping {
  const fd = createMemfd("hub", size);
  const mapping = mapShared(fd, size);
  closeDescriptor(fd);
  return mapping;
}

/** Opens and closes a queue pair: the code of the error, or "opened". */
function opening(device: VmciDevice, options: QueuePairOptions): string {
  const result = codeOf(() => device.openQueuePair(options));
  if (typeof result === "string") return result;
  result.close();
  return "opened";
}

/** Allocates by hand: the driver's result, or the name of its error. */
function rawAllocate(
  device: VmciDevice,
  fields: { resource?: number; peer?: number; flags?: number; size?: number; address?: bigint; pages?: number },
): number | string {
  const size = fields.size ?? 4096;
  const request = structure(
    56,
    [0, 4, device.context!],
    [4, 4, fields.resource ?? 70000],
    [8, 4, fields.peer ?? 0xffffffff],
    [12, 4, fields.flags ?? 0],
    [16, 8, size],
    [24, 8, size],
    [32, 8, fields.address ?? 0n],
    [40, 8, fields.pages ?? 4],
    [52, 4, 0xB0000],
  );
  const returned = raw(device, ALLOC, request);
  return returned === 0 ? int(request, 48) : returned;
}

guestTest("vmci queue pairs: made over own memory, unmapped, mapped again, and detached once", () => {
  using device = context(100);
  const pair = device.openQueuePair(SMALL);
  assertEquals(pair.handle.context, 100);
  assertEquals([pair.room, pair.available, pair.unread, pair.peer], [4095, 0, 0, "none"]);
  assertEquals(pair.tryWrite(pattern(5000)), 4095);
  assertEquals([pair.room, pair.unread, pair.tryWrite(pattern(1))], [0, 4095, 0]);
  assertEquals(pair.tryRead(new Uint8Array(10)), 0);
  pair.setMapped(false);
  pair.setMapped(true);
  pair.close();
  pair.close();
  assertEquals(pair.closed, true);
  assertEquals(codeOf(() => pair.room), "INVALID_RESOURCE");
  assertEquals(codeOf(() => pair.setMapped(true)), "INVALID_RESOURCE");
  const request = structure(16, [0, 4, 100], [4, 4, pair.handle.resource]);
  assertEquals([raw(device, DETACH, request), int(request, 8)], [0, -21]);
});

guestTest("vmci queue pairs: who may be the peer, and what a handle may be", () => {
  using device = context(100);
  using _other = context(101);
  assertEquals(opening(device, { ...SMALL, peer: HOST_CONTEXT }), "opened");
  assertEquals(opening(device, { ...SMALL, peer: 0xffffffff }), "opened");
  assertEquals(opening(device, { ...SMALL, peer: 100 }), "DST_UNREACHABLE");
  assertEquals(opening(device, { ...SMALL, peer: 101 }), "DST_UNREACHABLE");
  assertEquals(opening(device, { ...SMALL, handle: { context: 2, resource: 70000 }, peer: 2 }), "opened");
  assert(opening(device, { ...SMALL, handle: { context: 101, resource: 70000 } }) !== "opened");
  const handle = { context: 100, resource: 70000 };
  using _pair = device.openQueuePair({ ...SMALL, handle });
  assertEquals(opening(device, { ...SMALL, handle }), "ALREADY_EXISTS");
  assertEquals(opening(device, { ...SMALL, handle: { context: -1, resource: 1 } }), "INVALID_ARGS");
});

guestTest("vmci queue pairs: sizes, flags and memory that cannot be", () => {
  using device = context(100);
  assertEquals(opening(device, { produceSize: 0, consumeSize: 0 }), "INVALID_ARGS");
  assertEquals(opening(device, { produceSize: 1, consumeSize: 0 }), "opened");
  assertEquals(opening(device, { produceSize: 16 * MIB, consumeSize: 16 * MIB }), "opened");
  assertEquals(opening(device, { produceSize: 64 * MIB, consumeSize: 64 * MIB + 4096 }), "NO_RESOURCES");
  for (const produceSize of [-1, 1.5, NaN, 2 ** 31]) {
    assertEquals(opening(device, { produceSize, consumeSize: 1 }), "INVALID_SIZE", `${produceSize}`);
  }
  assertEquals(opening(device, { ...SMALL, attach: true }), "NOT_FOUND");
  assertEquals(rawAllocate(device, { flags: 2 }), -2, "local");
  assertEquals(rawAllocate(device, { address: 0x10000n }), -3, "memory that is not there");
  assertEquals(rawAllocate(device, { resource: 0xffffffff }), -3, "the same, with a resource that the driver chooses");
  const mapping = sharedMemory(queuePairMemorySize(4096, 4096) + 4096);
  assertEquals(rawAllocate(device, { address: mapping.address, pages: 1 }), -2, "too few pages for two headers");
  const aligned = new Uint8Array(mapping.buffer);
  assertEquals(opening(device, { ...SMALL, memory: aligned }), "opened");
  assertEquals(opening(device, { ...SMALL, memory: aligned.subarray(4096) }), "opened");
  assertEquals(opening(device, { ...SMALL, memory: aligned.subarray(8) }), "NOT_PAGE_ALIGNED");
  assertEquals(opening(device, { ...SMALL, memory: aligned.subarray(0, 4 * 4096 - 1) }), "INVALID_SIZE");
  const resizable = new Uint8Array(new ArrayBuffer(65536, { maxByteLength: 65536 }));
  assertEquals(opening(device, { ...SMALL, memory: resizable }), "INVALID_SIZE");
  assertEquals(opening(device, { ...SMALL, memory: null }), "INVALID_ARGS");
  const own = new Uint8Array(new ArrayBuffer(65536));
  const skew = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(own)) % 4096n);
  assertEquals(opening(device, { ...SMALL, memory: own.subarray((4096 - skew) % 4096) }), "INVALID_ARGS");
  mapping.close();
});

guestTest(
  "vmci queue pairs: the driver looks neither at an address' alignment nor tells which resource it chose",
  () => {
    const mapping = sharedMemory(queuePairMemorySize(4096, 4096) + 4096);
    {
      using device = context(100);
      assertEquals(rawAllocate(device, { address: mapping.address + 8n, pages: 2 }), 0);
      const detach = structure(16, [0, 4, 100], [4, 4, 70000]);
      assertEquals([raw(device, DETACH, detach), int(detach, 8)], [0, 0]);
      const chosen = structure(
        56,
        [0, 4, 100],
        [4, 4, 0xffffffff],
        [8, 4, 2],
        [16, 8, 4096],
        [24, 8, 4096],
        [32, 8, mapping.address],
        [40, 8, 4],
        [52, 4, 0xB0000],
      );
      assertEquals([raw(device, ALLOC, chosen), int(chosen, 48), int(chosen, 4)], [0, 0, -1]);
    }
    mapping.close();
  },
);

guestTest("vmci queue pairs: no other context can attach to one that has its memory", () => {
  using device = context(100);
  using other = context(101);
  using wellKnown = context(1);
  using pair = device.openQueuePair(SMALL);
  const attach = { ...SMALL, handle: pair.handle, peer: 100, attach: true };
  assertEquals(opening(other, attach), "DST_UNREACHABLE");
  assertEquals(opening(wellKnown, attach), "INVALID_ARGS");
});

guestTest("vmci queue pairs: before 11.0 memory is given afterwards, and results tell who made it", () => {
  using device = context(100, { version: 0x90000 });
  using pair = device.openQueuePair(SMALL);
  const made = structure(72, [0, 4, 100], [4, 4, 70000], [8, 4, 0xffffffff], [16, 8, 4096], [24, 8, 4096]);
  assertEquals([raw(device, ALLOC, made), int(made, 64)], [0, 4], "created");
  const detached = structure(16, [0, 4, 100], [4, 4, 70000]);
  assertEquals([raw(device, DETACH, detached), int(detached, 8)], [0, 3], "the last one detached");
  assertEquals(codeOf(() => pair.setMapped(false)), "OBSOLETE");
  using old = context(101, { version: 0x80000 });
  assertEquals(opening(old, SMALL), "OBSOLETE");
});

/** A queue pair of the well-known context, without memory, to which two others can attach. */
function hub(peer?: number): { device: VmciDevice; made: QueuePair } & Disposable {
  const device = context(1, { version: 0xA0000 });
  const handle = { context: 1, resource: 80000 };
  const made = device.openQueuePair({ ...SMALL, handle, peer, memory: null });
  return { device, made, [Symbol.dispose]: () => device.close() };
}

guestTest("vmci queue pairs: contexts meet on the well-known context's, in memory they share themselves", async () => {
  using both = hub();
  const { device, made } = both;
  const mapping = sharedMemory(queuePairMemorySize(4096, 4096));
  const memory = new Uint8Array(mapping.buffer);
  using first = context(100);
  const pair = first.openQueuePair({ ...SMALL, handle: made.handle, peer: 1, attach: true, memory });
  assertEquals(await device.nextEvent({ timeout: 60000 }), {
    type: "peer-attached",
    handle: made.handle,
    context: 100,
  });
  assertEquals(made.peer, "attached");
  using second = context(101);
  assertEquals(opening(second, { ...SMALL, handle: made.handle, peer: 1, attach: true }), "UNAVAILABLE");
  assertEquals(codeOf(() => made.tryWrite(pattern(1))), "INVALID_RESOURCE", "it has no memory of its own");
  pair.close();
  assertEquals((await device.nextEvent({ timeout: 60000 })).type, "peer-detached");
  assertEquals(made.peer, "detached");
  first.close();
  device.close();
  assertEquals(made.closed, true);
  mapping.close();
});

guestTest("vmci queue pairs: another size is a mismatch, and one that closes is told", async () => {
  using both = hub();
  const { device, made } = both;
  using first = context(100);
  const attach = { handle: made.handle, peer: 1, attach: true };
  assertEquals(opening(first, { ...attach, produceSize: 8192, consumeSize: 4096 }), "QUEUEPAIR_MISMATCH");
  first.openQueuePair({ ...SMALL, ...attach });
  await device.nextEvent({ timeout: 60000 });
  first.close();
  assertEquals(await device.nextEvent({ timeout: 60000 }), {
    type: "peer-detached",
    handle: made.handle,
    context: 100,
  });
});

guestTest("vmci queue pairs: the death of who is attached is told", async () => {
  using both = hub();
  const { device, made: { handle } } = both;
  const options = { ...SMALL, handle, peer: 1, attach: true };
  const program = `import { VmciDevice } from ${JSON.stringify(import.meta.resolve("@vmci/vmci/device"))};
    const device = VmciDevice.open();
    device.initContext({ context: 100, exact: true });
    device.openQueuePair(${JSON.stringify(options)});
    await new Promise((resolve) => setTimeout(resolve, 100000));`;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--no-lock",
      "--cached-only",
      `data:text/javascript,${encodeURIComponent(program)}`,
    ],
  }).spawn();
  try {
    assertEquals(await device.nextEvent({ timeout: 60000 }), { type: "peer-attached", handle, context: 100 });
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
  assertEquals(await device.nextEvent({ timeout: 60000 }), { type: "peer-detached", handle, context: 100 });
});

guestTest("vmci queue pairs: the hypervisor's id can be a hub too, and is told nothing", () => {
  using device = context(0, { version: 0xA0000 });
  const handle = { context: 0, resource: 80001 };
  device.openQueuePair({ ...SMALL, handle, memory: null });
  using first = context(100);
  assertEquals(opening(first, { ...SMALL, handle, peer: 0, attach: true }), "opened");
  assertEquals(device.tryNextEvent(), undefined);
});

guestTest("vmci queue pairs: one that was made for another peer is not to be had", () => {
  using both = hub(101);
  using first = context(100);
  using second = context(101);
  const attach = { ...SMALL, handle: both.made.handle, peer: 1, attach: true };
  assertEquals(opening(first, attach), "NO_ACCESS");
  assertEquals(opening(second, attach), "opened");
});

guestTest("vmci queue pairs: closing the device closes them, and waits end", async () => {
  using device = context(100);
  const pair = device.openQueuePair(SMALL);
  const reading = assertRejects(() => pair.read(new Uint8Array(1)), VmciError);
  assertEquals((await assertRejects(() => pair.read(new Uint8Array(1), { timeout: 5 }), VmciError)).code, "TIMEOUT");
  const reason = new Error("enough");
  const controller = new AbortController();
  const writing = pair.write(pattern(5000), { signal: controller.signal }).catch((error) => error);
  controller.abort(reason);
  assertEquals(await writing, reason);
  device.close();
  assertEquals((await reading).code, "INVALID_RESOURCE");
  assertEquals(pair.closed, true);
});

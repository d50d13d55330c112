/** The rings of a queue pair, on plain memory. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { queuePairMemorySize, QueueRing } from "../../src/device/queue_ring.ts";
import { failsSync } from "../support/failure.ts";

const PAGE = 4096;
const HANDLE = { context: 100, resource: 7 };

/** Both sides of a queue pair. Each has a copy of the memory, the other side with the two queues in the other order. */
function pair(
  produceSize: number,
  consumeSize: number,
): { memory: Uint8Array<ArrayBuffer>; one: QueueRing; other: QueueRing } {
  const size = queuePairMemorySize(produceSize, consumeSize);
  const first = queuePairMemorySize(produceSize, 0) - PAGE;
  const memory = new Uint8Array(2 * size);
  const one = new QueueRing(memory.subarray(0, size), produceSize, consumeSize);
  one.initialize(HANDLE);
  const other = new QueueRing(mirrored(memory, size, first), consumeSize, produceSize);
  return { memory, one, other };
}

/** Copies the memory with its two queues exchanged. */
function mirrored(memory: Uint8Array<ArrayBuffer>, size: number, first: number): Uint8Array<ArrayBuffer> {
  const mirror = memory.subarray(size, 2 * size);
  mirror.set(memory.subarray(first, size), 0);
  mirror.set(memory.subarray(0, first), size - first);
  return mirror;
}

/** Lets each side see what the other wrote: that is its own header and its own queue, and nothing else. */
function exchange(memory: Uint8Array<ArrayBuffer>, produceSize: number, consumeSize: number): void {
  const size = queuePairMemorySize(produceSize, consumeSize);
  const first = queuePairMemorySize(produceSize, 0) - PAGE;
  const mine = memory.slice(0, first);
  const theirs = memory.slice(size, size + (size - first));
  memory.set(theirs, first);
  memory.set(mine, size + (size - first));
}

Deno.test("queue ring: what is written on one side is read on the other, whatever the steps", () => {
  const steps = fc.array(fc.tuple(fc.boolean(), fc.boolean(), fc.nat(300)), { maxLength: 100 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 200 }), steps, (p, c, moves) => {
      const { memory, one, other } = pair(p, c);
      const sent = [0, 0];
      const got = [0, 0];
      for (const [first, write, count] of moves) {
        const ring = first ? one : other;
        const to = first ? 0 : 1;
        if (write) {
          const bytes = Uint8Array.from({ length: count }, (_, i) => sent[to]! + i);
          const room = ring.room;
          assertEquals(ring.write(bytes), Math.min(room, count));
          sent[to]! += Math.min(room, count);
        } else {
          const into = new Uint8Array(count);
          const read = ring.read(into);
          const from = 1 - to;
          for (let i = 0; i < read; i++) assertEquals(into[i], got[from]! + i & 0xff);
          got[from]! += read;
          assert(got[from]! <= sent[from]!);
        }
        exchange(memory, p, c);
        assertEquals([one.unread, one.available], [sent[0]! - got[0]!, sent[1]! - got[1]!]);
        assertEquals([one.room, other.room], [p - 1 - one.unread, c - 1 - other.unread]);
        assertEquals([one.peersRoom, other.peersRoom], [other.room, one.room]);
      }
    }),
    { seed: 16 },
  );
});

Deno.test("queue ring: a queue of no bytes takes and gives none, one of a single byte neither", () => {
  for (const size of [0, 1]) {
    const { one } = pair(size, size);
    assertEquals([one.room, one.available, one.unread, one.peersRoom], [0, 0, 0, 0]);
    assertEquals([one.write(new Uint8Array(5)), one.read(new Uint8Array(5))], [0, 0]);
  }
});

Deno.test("queue ring: headers have the handle, and positions where drivers look for them", () => {
  const { memory, one } = pair(100, 5000);
  one.write(new Uint8Array(42));
  const view = new DataView(memory.buffer);
  assertEquals([view.getUint32(0, true), view.getUint32(4, true)], [100, 7]);
  assertEquals([view.getBigUint64(8, true), view.getBigUint64(16, true)], [42n, 0n]);
  assertEquals([view.getUint32(2 * PAGE, true), view.getUint32(2 * PAGE + 4, true)], [100, 7]);
  assertEquals(queuePairMemorySize(100, 5000), 5 * PAGE);
});

Deno.test("queue ring: whatever the peer writes into its header, nothing outside the queues is touched", () => {
  for (const position of [100n, 101n, 0xffffffffn, 0x80000000n, 0x1_0000_0000n, 0xffffffff_ffffffffn]) {
    for (const offset of [8, 16]) {
      const { memory, one } = pair(100, 100);
      new DataView(memory.buffer).setBigUint64(2 * PAGE + offset, position, true);
      const before = memory.slice();
      const act = offset === 8 ? () => one.read(new Uint8Array(10)) : () => one.write(new Uint8Array(10));
      const error = failsSync("GENERIC", act, { handle: HANDLE });
      assert(error.message.includes("spoiled"), error.message);
      assertEquals(memory, before);
    }
  }
});

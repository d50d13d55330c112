/** Numbered datagrams over a way that loses, doubles and reorders: a simulation with seeds. */

import { assert, assertEquals } from "@std/assert";
import { IncomingFlow } from "../../src/device/incoming_flow.ts";
import {
  canBegin,
  decodeFrame,
  encodeFrame,
  encodeRefusal,
  FrameKind,
  MAX_FRAME_PAYLOAD,
  ReliableReceiver,
  ReliableSender,
} from "../../src/device/reliable.ts";
import { LANE_SIZE } from "../../src/lane/ring.ts";

/** Numbers from 0 to 1 that follow from a seed. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function payloadOf(number: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 + (number % 40 === 7 ? 69604 : (number * 7919) % 2000)).fill(number);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

interface Way {
  /** How likely a frame is lost, comes twice, or is overtaken. */
  readonly lost: number;
  readonly doubled: number;
  readonly overtaken: number;
  /** How likely the receiver's queue is full when it is offered something. */
  readonly full: number;
}

/** Sends so many datagrams over a bad way; gives what arrived, and how many frames were repeated. */
function simulate(seed: number, count: number, way: Way): { arrived: Uint8Array[]; repeated: number; rounds: number } {
  const chance = random(seed);
  const sender = new ReliableSender(seed, 0);
  const receiver = new ReliableReceiver(seed);
  const arrived: Uint8Array[] = [];
  const there: Uint8Array<ArrayBuffer>[] = [];
  const back: Uint8Array<ArrayBuffer>[] = [];
  const put = (queue: Uint8Array<ArrayBuffer>[], frame: Uint8Array<ArrayBuffer>) => {
    if (chance() < way.lost) return;
    const at = chance() < way.overtaken ? Math.floor(chance() * (queue.length + 1)) : queue.length;
    queue.splice(at, 0, frame);
    if (chance() < way.doubled) queue.push(frame);
  };
  let pushed = 0;
  let now = 0;
  let rounds = 0;
  while (arrived.length < count || !sender.idle) {
    if (++rounds > 200_000) throw new Error(`seed ${seed}: ${arrived.length} of ${count} arrived, and nothing goes on`);
    now += chance() * 3;
    sender.tick(now);
    while (pushed < count && sender.open) sender.push(payloadOf(pushed++), now);
    for (let frame = sender.next(); frame !== undefined; frame = sender.next()) {
      put(there, frame);
      sender.didSend(now);
    }
    for (let take = Math.floor(chance() * 20); take > 0 && there.length > 0; take--) {
      receiver.accept(decodeFrame(there.shift()!)!);
    }
    let room = true;
    for (let next = receiver.peek(); next !== undefined; next = receiver.peek()) {
      room = chance() >= way.full;
      if (!room) break;
      arrived.push(next);
      receiver.take();
    }
    const acknowledgement = receiver.acknowledgement(room);
    if (acknowledgement !== undefined) put(back, acknowledgement);
    for (let take = Math.floor(chance() * 5); take > 0 && back.length > 0; take--) {
      const frame = decodeFrame(back.shift()!)!;
      sender.acknowledge(frame.number, frame.flag, now);
    }
  }
  return { arrived, repeated: sender.repeated, rounds };
}

const ways: Readonly<Record<string, Way>> = {
  "a perfect way": { lost: 0, doubled: 0, overtaken: 0, full: 0 },
  "a way that loses every third": { lost: 0.33, doubled: 0, overtaken: 0, full: 0 },
  "a way that doubles": { lost: 0, doubled: 0.5, overtaken: 0, full: 0 },
  "a way on which frames overtake": { lost: 0, doubled: 0, overtaken: 0.5, full: 0 },
  "a slow receiver": { lost: 0, doubled: 0, overtaken: 0, full: 0.5 },
  "everything at once": { lost: 0.2, doubled: 0.1, overtaken: 0.3, full: 0.3 },
};

for (const [name, way] of Object.entries(ways)) {
  Deno.test(`reliable: over ${name}, all arrives once and in order`, () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { arrived } = simulate(seed, 300, way);
      assertEquals(arrived.length, 300, `seed ${seed}`);
      for (const [i, payload] of arrived.entries()) assertEquals(payload, payloadOf(i), `seed ${seed}, datagram ${i}`);
    }
  });
}

Deno.test("reliable: what arrives at once is sent once", () => {
  const sender = new ReliableSender(1, 0);
  const receiver = new ReliableReceiver(1);
  for (let i = 0; i < 1000; i++) {
    sender.push(payloadOf(i % 7), i);
    for (let frame = sender.next(); frame !== undefined; frame = sender.next()) {
      receiver.accept(decodeFrame(frame)!);
      sender.didSend(i);
    }
    assertEquals(receiver.peek(), payloadOf(i % 7));
    receiver.take();
    const { number, flag } = decodeFrame(receiver.acknowledgement(true)!)!;
    sender.acknowledge(number, flag, i);
    sender.tick(i);
  }
  assertEquals([sender.repeated, sender.idle, sender.outstanding, sender.due], [0, true, 0, Infinity]);
});

Deno.test("reliable: the window holds the sender, and silence is counted from the last word", () => {
  const sender = new ReliableSender(1, 0);
  let count = 0;
  while (sender.open) sender.push(new Uint8Array(100), 10 + count++);
  assertEquals(count, 63);
  for (let frame = sender.next(); frame !== undefined; frame = sender.next()) sender.didSend(80);
  assertEquals([sender.silence(5000), sender.due], [4990, 100]);
  sender.acknowledge(0, false, 4000);
  assertEquals([sender.silence(5000), sender.next()], [1000, undefined]);
  // Nobody takes what was not sent.
  sender.acknowledge(64, true, 4100);
  assertEquals(sender.silence(5000), 1000);
  sender.acknowledge(63, true, 4200);
  assertEquals([sender.silence(9999), sender.idle], [0, true]);
});

Deno.test("reliable: frames, byte by byte", () => {
  const frame = encodeFrame(FrameKind.DATA, true, 0x01020304, 5, new Uint8Array([9, 8]));
  assertEquals(frame.toHex(), "564d4352" + "01" + "01" + "0000" + "04030201" + "05000000" + "0908");
  const decoded = decodeFrame(frame)!;
  assertEquals({ ...decoded, payload: [...decoded.payload] }, {
    kind: 1,
    flag: true,
    first: false,
    epoch: 0x01020304,
    number: 5,
    payload: [9, 8],
  });
  assertEquals(encodeRefusal(7, -7).toHex(), "564d4352" + "03" + "00" + "0000" + "07000000" + "f9ffffff");
  for (const bytes of [frame.slice(0, 15), new Uint8Array(16), frame.with(6, 1)]) {
    assertEquals(decodeFrame(bytes), undefined);
  }
  assertEquals(MAX_FRAME_PAYLOAD, 69592);
  const first = decodeFrame(frame.with(5, 3))!;
  assertEquals([first.flag, first.first], [true, true]);
  assert(canBegin({ ...first, number: 63 }));
  assert(!canBegin({ ...first, number: 64 }));
  assert(!canBegin({ ...decoded, number: 63 }), "somebody has taken something of it");
});

Deno.test("reliable: a row of numbers goes on after its largest", () => {
  const chance = random(5);
  const receiver = new ReliableReceiver(1);
  // What is far ahead or behind is no frame of the window, and takes no memory.
  for (let i = 0; i < 1000; i++) {
    receiver.accept({
      kind: FrameKind.DATA,
      flag: true,
      first: true,
      epoch: 1,
      number: 128 + Math.floor(chance() * (2 ** 32 - 128)),
      payload: new Uint8Array(1),
    });
  }
  assertEquals(receiver.peek(), undefined);
  const { number } = decodeFrame(receiver.acknowledgement(true)!)!;
  assertEquals([number, receiver.acknowledgement(true)], [0, undefined]);
});

Deno.test("reliable: what is sent after something was taken is for nobody but who took it", () => {
  const sender = new ReliableSender(1, 0);
  const next = () => {
    const frame = decodeFrame(sender.next()!)!;
    sender.didSend(0);
    return frame;
  };
  for (let i = 0; i < 3; i++) sender.push(payloadOf(i), 0);
  assertEquals([next(), next()].map(canBegin), [true, true]);
  sender.acknowledge(1, true, 1);
  assertEquals(canBegin(next()), false);
  sender.tick(100);
  const repeated = next();
  assertEquals([repeated.number, canBegin(repeated)], [1, false]);
});

Deno.test("reliable: what is left of earlier ways ends no later one", () => {
  const flow = new IncomingFlow(1, { context: 3, resource: 3 }, new ArrayBuffer(LANE_SIZE));
  const come = (epoch: number, number: number) =>
    flow.accept(decodeFrame(encodeFrame(FrameKind.DATA, true, epoch, number, payloadOf(number)))!);
  for (const epoch of [1, 2, 3]) come(epoch, 0);
  for (const epoch of [1, 2]) for (const number of [0, 1]) come(epoch, number);
  assertEquals(flow.epoch, 3);
  come(3, 1);
  const { number } = decodeFrame(flow.acknowledgement()!)!;
  assertEquals([flow.epoch, number], [3, 2]);
});

/** A lane's ring: order, wrap, gaps, budget, padding; and what a hostile end can do to the other: nothing. */

import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { DATAGRAM_HEADER_SIZE, DATAGRAM_QUEUE_SIZE, MAX_PAYLOAD_SIZE } from "../mod.ts";
import { ReceiveBuffer } from "../src/lane/receive_buffer.ts";
import { LANE_SIZE, LaneConsumer, LaneProducer } from "../src/lane/ring.ts";

/** The layout, said once more: four kilobytes of counters, then the ring. */
const RING_START = 4096;
const RING_SIZE = LANE_SIZE - RING_START;
const [CONSUMED, ROOM_WANTED] = [0, 32];
const GAP = -1;

/** A byte that the tests never send: where it is left, nothing was written. */
const UNTOUCHED = 0xAA;

/** A lane whose ring is full of old garbage, but for the word that is looked at first. */
function lane(): { words: Int32Array; bytes: Uint8Array; producer: LaneProducer; consumer: LaneConsumer } {
  const buffer = new ArrayBuffer(LANE_SIZE);
  const bytes = new Uint8Array(buffer);
  bytes.fill(UNTOUCHED, RING_START + 4);
  return {
    words: new Int32Array(buffer),
    bytes,
    producer: new LaneProducer(buffer),
    consumer: new LaneConsumer(buffer),
  };
}

/** An empty lane whose next record begins at a certain place. */
function laneAt(place: number): ReturnType<typeof lane> {
  const made = lane();
  for (let left = place; left > 0; left -= 65536) {
    made.producer.offer(new Uint8Array(Math.min(left, 65536) - 8));
    next(made.consumer);
  }
  return made;
}

/** Where a record with so many bytes of payload goes when the next one would begin at `at`, and where the one after it. */
function placeOf(at: number, length: number): { start: number; end: number } {
  const size = 8 + Math.ceil(length / 8) * 8;
  const start = size > RING_SIZE - at ? 0 : at;
  return { start: RING_START + start, end: RING_START + start + size };
}

/** Bytes that follow from a number; none is {@linkcode UNTOUCHED}. */
function payloadOf(number: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (number + i) % UNTOUCHED;
  return bytes;
}

/** The next datagram. */
function next(consumer: LaneConsumer): Uint8Array {
  const into = new Uint8Array(consumer.peek()).fill(UNTOUCHED);
  consumer.take(ReceiveBuffer.of(into));
  return into;
}

/** Random numbers that are the same each time. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    // The low bits of this generator are poor.
    return Math.floor((state >>> 0) / 2 ** 32 * below);
  };
}

describe("ring", () => {
  it("is empty at first, and when all was taken", () => {
    const { producer, consumer } = lane();
    assertEquals([consumer.peek(), producer.queued], [-1, 0]);
    producer.offer(new Uint8Array(5));
    assertEquals([consumer.peek(), consumer.peek(), producer.queued], [5, 5, 29]);
    next(consumer);
    assertEquals([consumer.peek(), producer.queued], [-1, 0]);
  });

  it("carries payloads of every length, and fills them up with zeroes", () => {
    const { words, bytes, producer, consumer } = lane();
    const choose = random(1);
    const lengths = [...Array(301).keys(), 4095, 4096, 4097, MAX_PAYLOAD_SIZE - 1, MAX_PAYLOAD_SIZE];
    for (let i = 0; i < 200; i++) lengths.push(choose(MAX_PAYLOAD_SIZE + 1));
    let at = 0;
    for (const [number, length] of lengths.entries()) {
      const payload = payloadOf(number, length);
      const { start, end } = placeOf(at, length);
      at = (end - RING_START) % RING_SIZE;
      assert(producer.offer(payload));
      assertEquals([words[start >> 2], words[(start >> 2) + 1], words[(RING_START + at) >> 2]], [length + 1, 0, 0]);
      assert(bytes.subarray(start + 8 + length, end).every((byte) => byte === 0), `padding of ${length}`);
      assertEquals(next(consumer), payload);
    }
  });

  it("keeps order through wraps and gaps, whoever is faster", () => {
    const choose = random(2);
    const { words, producer, consumer } = lane();
    const queue: Uint8Array[] = [];
    let [gaps, at] = [0, 0];
    for (let number = 0; number < 20_000; number++) {
      const payload = payloadOf(number, choose(choose(8) === 0 ? MAX_PAYLOAD_SIZE : 2000));
      if (producer.offer(payload)) {
        queue.push(payload);
        if (words[(RING_START + at) >> 2] === GAP) gaps++;
        at = (placeOf(at, payload.length).end - RING_START) % RING_SIZE;
      }
      for (let reads = choose(3); reads > 0 && queue.length > 0; reads--) assertEquals(next(consumer), queue.shift());
      assertEquals(consumer.peek(), queue[0]?.length ?? -1);
    }
    assert(gaps > 20, `${gaps} gaps`);
  });

  it("goes on when its counters have gone around", () => {
    const { words, producer, consumer } = lane();
    const payload = new Uint8Array(MAX_PAYLOAD_SIZE);
    const number = new DataView(payload.buffer);
    const into = new Uint8Array(MAX_PAYLOAD_SIZE);
    let around = 0;
    for (let i = 0; around < 2; i++) {
      const before = words[CONSUMED]!;
      number.setInt32(0, i);
      assert(producer.offer(payload));
      assertEquals(consumer.peek(), MAX_PAYLOAD_SIZE);
      consumer.take(ReceiveBuffer.of(into));
      if (words[CONSUMED]! < before) around++;
      assertEquals(new DataView(into.buffer).getInt32(0), i);
    }
    assertEquals([producer.queued, consumer.peek()], [0, -1]);
  });

  it("takes what the budget allows, to the byte, and nothing more", () => {
    const length = fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: MAX_PAYLOAD_SIZE }), fc.constant(MAX_PAYLOAD_SIZE));
    const steps = fc.array(fc.oneof(length, fc.constant("take" as const)), { maxLength: 60, size: "max" });
    fc.assert(
      fc.property(steps, (steps) => {
        const { producer, consumer } = lane();
        const queue: number[] = [];
        for (const step of steps) {
          const queued = queue.reduce((sum, length) => sum + DATAGRAM_HEADER_SIZE + length, 0);
          assertEquals(producer.queued, queued);
          if (step === "take") {
            assertEquals(consumer.peek(), queue[0] ?? -1);
            if (queue.shift() !== undefined) next(consumer);
          } else {
            const fits = queued + DATAGRAM_HEADER_SIZE + step < DATAGRAM_QUEUE_SIZE;
            assertEquals(producer.hasRoom(step), fits);
            assertEquals(producer.offer(new Uint8Array(step)), fits);
            if (fits) queue.push(step);
          }
        }
      }),
      { numRuns: 200, seed: 16 },
    );
  });

  it("is never full before its budget, wherever it begins", () => {
    const { producer, consumer } = lane();
    for (let start = 0; start < RING_SIZE; start += 12_000) {
      producer.offer(payloadOf(1, 11_992));
      next(consumer);
      // The budget in many small ones and one large one: as much as ever is in the ring at once.
      const lengths = [...Array(2901).fill(0), MAX_PAYLOAD_SIZE];
      for (const [number, length] of lengths.entries()) assert(producer.offer(payloadOf(number, length)));
      assert(!producer.offer(new Uint8Array(24)));
      for (const [number, length] of lengths.entries()) assertEquals(next(consumer), payloadOf(number, length));
    }
  });

  it("leaves no gap behind a record that ends where the ring ends", () => {
    const { words, bytes, producer, consumer } = laneAt(RING_SIZE - 72);
    producer.offer(payloadOf(1, 64));
    assertEquals(words[RING_START >> 2], 0);
    assert(!bytes.subarray(0, RING_START).includes(UNTOUCHED));
    producer.offer(payloadOf(2, 3));
    assertEquals([next(consumer), next(consumer)], [payloadOf(1, 64), payloadOf(2, 3)]);
  });

  it("says whether the producer waits for room", () => {
    const { producer, consumer } = lane();
    const into = new Uint8Array(1);
    const taken = [false, true, true, false].map((wanted) => {
      producer.wantRoom(wanted);
      producer.offer(into);
      consumer.peek();
      return consumer.take(ReceiveBuffer.of(into));
    });
    assertEquals(taken, [false, true, true, false]);
  });

  it("gives what was there when it was sealed, and nothing after", () => {
    const { producer, consumer } = lane();
    for (let i = 0; i < 3; i++) producer.offer(payloadOf(i, 10 + i));
    assertEquals(next(consumer).length, 10);
    consumer.seal();
    producer.offer(new Uint8Array(99));
    consumer.seal();
    assertEquals([next(consumer), next(consumer)], [payloadOf(1, 11), payloadOf(2, 12)]);
    assertEquals(consumer.peek(), -1);
  });
});

describe("ring: a hostile producer", () => {
  /** Words with which one producer or the other may have spoiled a lane. */
  const nonsense: Readonly<Record<string, (words: Int32Array) => void>> = {
    "a negative length": (words) => words[RING_START >> 2] = -2,
    "a length that no datagram has": (words) => words[RING_START >> 2] = MAX_PAYLOAD_SIZE + 2,
    "the largest word": (words) => words[RING_START >> 2] = 0x7FFFFFFF,
    "the smallest word": (words) => words[RING_START >> 2] = -0x80000000,
    "a gap over the whole ring": (words) => words[RING_START >> 2] = GAP,
  };
  for (const [what, spoil] of Object.entries(nonsense)) {
    it(`${what} is said`, () => {
      for (const sealed of [false, true]) {
        const { words, producer, consumer } = lane();
        producer.offer(new Uint8Array(16));
        spoil(words);
        if (sealed) consumer.seal();
        assertEquals(consumer.peek(), -2);
      }
    });
  }

  it("two gaps in a row, and a gap without the whole record behind it, are said", () => {
    for (const behind of [GAP, 1_000_000, 0]) {
      const { words, producer, consumer } = laneAt(RING_SIZE - 72);
      producer.offer(new Uint8Array(100));
      assertEquals([words[(RING_SIZE - 72 + RING_START) >> 2], words[RING_START >> 2]], [GAP, 101]);
      words[RING_START >> 2] = behind;
      assertEquals(consumer.peek(), -2);
    }
  });

  it("a record that runs over the ring's end is said", () => {
    const { words, producer, consumer } = laneAt(RING_SIZE - 72);
    producer.offer(new Uint8Array(100));
    words[(RING_START + RING_SIZE - 72) >> 2] = 101;
    assertEquals(consumer.peek(), -2);
  });

  it("cannot put more into a lane that was sealed by making longer what is in it", () => {
    for (const word of [18, 1000, GAP]) {
      const { words, producer, consumer } = lane();
      for (let i = 0; i < 2; i++) producer.offer(payloadOf(i, 16));
      consumer.seal();
      producer.offer(payloadOf(2, 16));
      assertEquals(next(consumer), payloadOf(0, 16));
      words[(RING_START + 24) >> 2] = word;
      assertEquals(consumer.peek(), -2);
    }
  });

  it("cannot change what was looked at already", () => {
    const { words, producer, consumer } = lane();
    producer.offer(payloadOf(1, 50));
    assertEquals(consumer.peek(), 50);
    words[RING_START >> 2] = MAX_PAYLOAD_SIZE;
    assertEquals(next(consumer), payloadOf(1, 50));
    assertEquals([words[CONSUMED], consumer.peek()], [74, -1]);
  });

  it("a million random words spoil nothing but its own lane", () => {
    const choose = random(3);
    const into = new Uint8Array(MAX_PAYLOAD_SIZE);
    const outcomes = { nothing: 0, nonsense: 0, taken: 0 };
    const buffer = new ArrayBuffer(LANE_SIZE);
    const words = new Int32Array(buffer);
    let [producer, consumer, consumed] = [new LaneProducer(buffer), new LaneConsumer(buffer), 0];
    /** Where the consumer looks next, as long as there was no gap. */
    let at = 0;
    /** Any word, or one that matters, with any value, or one that nearly makes sense. */
    const scribble = () => {
      const places = [
        choose(words.length),
        choose(RING_START) >> 2,
        (RING_START + at) >> 2,
        RING_START >> 2,
      ];
      const values = [choose(2 ** 32) | 0, 1 + choose(64), 8 * choose(8), choose(RING_SIZE), GAP];
      words[places[choose(4)]!] = values[choose(5)]! & 0x7F7F7F7F | (choose(8) === 0 ? -1 : 0);
    };
    for (let step = 0; step < 1_000_000; step++) {
      if (choose(4) === 0) producer.offer(into.subarray(0, choose(200)).fill(1));
      scribble();
      const length = consumer.peek();
      if (length < 0) {
        if (length === -1) {
          outcomes.nothing++;
        } else {
          assertEquals(length, -2);
          outcomes.nonsense++;
          // The lane is dropped. There is another one, whose ring is as the spoiled one was left.
          words.fill(0, 0, (RING_START >> 2) + 1);
          [producer, consumer, consumed] = [new LaneProducer(buffer), new LaneConsumer(buffer), 0];
          at = 0;
        }
        continue;
      }
      assert(length <= MAX_PAYLOAD_SIZE);
      scribble();
      const target = into.subarray(0, length).fill(UNTOUCHED);
      consumer.take(ReceiveBuffer.of(target));
      at = (at + 8 + Math.ceil(length / 8) * 8) % RING_SIZE;
      consumed = (consumed + DATAGRAM_HEADER_SIZE + length) | 0;
      assertEquals(Atomics.load(words, CONSUMED), consumed);
      outcomes.taken++;
    }
    assert(Math.min(...Object.values(outcomes)) > 5_000, Deno.inspect(outcomes));
  });
});

describe("ring: a hostile consumer", () => {
  it("can get less sent to it, or nonsense, but cannot make the producer write elsewhere", () => {
    const choose = random(4);
    const { words, bytes, producer } = lane();
    const outcomes = { refused: 0, sent: 0 };
    const counters = words.slice(0, RING_START >> 2);
    let [cost, at] = [0, 0];
    for (let step = 0; step < 200_000; step++) {
      if (choose(3) === 0) {
        const values = [choose(2 ** 32) | 0, cost, cost - choose(DATAGRAM_QUEUE_SIZE), cost + choose(100)];
        words[CONSUMED] = values[choose(4)]!;
      }
      const length = choose(choose(16) === 0 ? MAX_PAYLOAD_SIZE + 1 : 100);
      const promised = producer.hasRoom(length);
      const sent = producer.offer(bytes.subarray(0, length));
      assertEquals(sent, promised);
      outcomes[sent ? "sent" : "refused"]++;
      if (sent) {
        cost += DATAGRAM_HEADER_SIZE + length;
        at = (placeOf(at, length).end - RING_START) % RING_SIZE;
      }
      assertEquals(words[(RING_START + at) >> 2], 0);
      assert(producer.queued >= 0 && producer.queued < 2 ** 32);
    }
    for (const own of [CONSUMED, ROOM_WANTED]) counters[own] = words[own]!;
    assertEquals(words.slice(0, RING_START >> 2), counters);
    assert(Math.min(...Object.values(outcomes)) > 10_000, Deno.inspect(outcomes));
  });
});

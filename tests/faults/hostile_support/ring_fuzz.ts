/**
 * A sender that scribbles over its lane between any two looks of the receiver, and a receiver that does so to its sender:
 * what each end does is compared with what another reading of the memory, made at the same moment, says.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { DATAGRAM_HEADER_SIZE, DATAGRAM_QUEUE_SIZE, MAX_PAYLOAD_SIZE } from "../../../src/limits.ts";
import { ReceiveBuffer } from "../../../src/lane/receive_buffer.ts";
import { LANE_SIZE, LaneConsumer, LaneProducer } from "../../../src/lane/ring.ts";
import { type Choose, random } from "./random.ts";

/** What was done, and what came of it. */
export interface RingFigures {
  /** Scribbles, looks, takes and offers. */
  steps: number;
  /** Datagrams that were taken out, all of them from within the ring. */
  taken: number;
  /** Lanes that were dropped for nonsense. */
  dropped: number;
  /** Datagrams that were put in under a lying counter, all of them within the ring. */
  offered: number;
}

/** The layout, said once more: a page of counters, then the ring. */
const RING_START = 4096;
const RING_SIZE = LANE_SIZE - RING_START;
const [CONSUMED, ROOM_WANTED] = [0, 32];
const [NOTHING, GAP] = [0, -1];

/** A byte of the page of counters that no counter is on. */
const CANARY = 0xEE;

/** Where nothing of a datagram was put. */
const UNTOUCHED = 0xAA;

/** Scribbles over lanes; `steps` in all. */
export function ringFuzz({ steps, seed }: { readonly steps: number; readonly seed: number }): RingFigures {
  const figures: RingFigures = { steps: 0, taken: 0, dropped: 0, offered: 0 };
  const choose = random(seed);
  fuzzConsumer(Math.ceil(steps * 0.8), choose, figures);
  fuzzProducer(figures.steps + Math.floor(steps * 0.2), choose, figures);
  return figures;
}

/** The bytes of a record. */
function sizeOf(length: number): number {
  return 8 + Math.ceil(length / 8) * 8;
}

/** First words of a record that are wrong in every way one can be, or right. */
function someWord(choose: Choose): number {
  switch (choose(8)) {
    case 0:
      return GAP;
    case 1:
      return MAX_PAYLOAD_SIZE + choose(4) - 1;
    case 2:
      return choose(2 ** 32) | 0;
    case 3:
      return -choose(1 << 20);
    case 4:
      return RING_SIZE - choose(64);
    case 5:
      return NOTHING;
    default:
      return choose(choose(4) === 0 ? MAX_PAYLOAD_SIZE : 200);
  }
}

/** The receiver's view of a lane, read anew at each look: where it is, and what it must answer. */
class Reading {
  position = 0;
  /** What was found and not taken yet. */
  length = -1;
  /** Bytes that still count; without a bound while it is not sealed. */
  left = Infinity;

  constructor(readonly words: Int32Array) {}

  /** What the next look must find. */
  look(): number {
    if (this.length >= 0) return this.length;
    if (this.left === 0) return -1;
    let word = this.words[(RING_START + this.position) / 4]!;
    if (word === NOTHING) return -1;
    if (word === GAP) {
      const gap = RING_SIZE - this.position;
      word = this.words[RING_START / 4]!;
      if (this.position === 0 || gap >= this.left || word === GAP || word === NOTHING) return -2;
      this.position = 0;
      this.left -= gap;
    }
    const length = word - 1;
    if (length < 0 || length > MAX_PAYLOAD_SIZE) return -2;
    const size = sizeOf(length);
    if (this.position + size > RING_SIZE || size > this.left) return -2;
    return this.length = length;
  }

  /** Where the datagram that was found is; it is taken. */
  take(): number {
    const start = RING_START + this.position + 8;
    const size = sizeOf(this.length);
    this.position = (this.position + size) % RING_SIZE;
    this.left -= size;
    this.length = -1;
    return start;
  }

  /** Only what is there now counts from now on. */
  seal(): void {
    if (this.left !== Infinity) return;
    const ahead = new Reading(this.words);
    ahead.position = this.position;
    ahead.left = RING_SIZE;
    let found = ahead.look();
    for (; found >= 0; found = ahead.look()) ahead.take();
    this.left = found === -1 ? RING_SIZE - ahead.left : RING_SIZE;
  }
}

function fuzzConsumer(steps: number, choose: Choose, figures: RingFigures): void {
  const buffer = new ArrayBuffer(LANE_SIZE);
  const words = new Int32Array(buffer);
  const bytes = new Uint8Array(buffer);
  for (let i = 0; i < bytes.length; i++) bytes[i] = i < RING_START ? CANARY : choose(256);
  // Receiving into one's own buffer, at any alignment, and into a new one.
  const own = Array.from(
    { length: 3 },
    (_, i) => ReceiveBuffer.of(new Uint8Array(new ArrayBuffer(MAX_PAYLOAD_SIZE + 68), i)),
  );
  for (const { bytes } of own) bytes.fill(UNTOUCHED);
  while (figures.steps < steps) {
    words[CONSUMED] = words[ROOM_WANTED] = 0;
    const consumer = new LaneConsumer(buffer);
    const reading = new Reading(words);
    for (let alive = true; alive && figures.steps < steps;) {
      figures.steps++;
      const found = reading.look();
      const peeked = consumer.peek();
      if (peeked !== found) throw new Error(`step ${figures.steps}: it found ${peeked}, and there was ${found}`);
      if (found === -2) {
        figures.dropped++;
        alive = false;
      }
      // Between the look and the taking everything may change: what was found counts.
      scribble(words, bytes, reading, choose);
      if (choose(200) === 0) {
        reading.seal();
        consumer.seal();
        scribble(words, bytes, reading, choose);
      }
      // A lane that was sealed and is read to its end is closed.
      if (found === -1 && reading.left <= 0) alive = false;
      if (found < 0 || choose(8) === 0) continue;
      take(consumer, reading, bytes, own[choose(3)]!, found, choose);
      figures.steps++;
      figures.taken++;
      if (choose(2) === 0) scribble(words, bytes, reading, choose);
    }
  }
  checkCounters(bytes);
}

/** Nobody writes to the page of counters where there is none. */
function checkCounters(bytes: Uint8Array): void {
  for (let i = 0; i < RING_START; i++) {
    if (i >> 2 !== CONSUMED && i >> 2 !== ROOM_WANTED) assertEquals(bytes[i], CANARY, `byte ${i}`);
  }
}

/** Takes a datagram out, and looks whether it is the bytes that were in its place, and no others. */
function take(
  consumer: LaneConsumer,
  reading: Reading,
  bytes: Uint8Array,
  to: ReceiveBuffer,
  length: number,
  choose: Choose,
): void {
  const start = reading.take();
  const end = start + length;
  assert(start >= RING_START && end <= LANE_SIZE, `${start} to ${end}`);
  consumer.take(to);
  const into = to.bytes;
  const middle = length === 0 ? 0 : choose(length);
  for (const at of length === 0 ? [] : [0, middle, length - 1]) {
    if (into[at] !== bytes[start + at]) throw new Error(`byte ${at} of ${length} is ${into[at]}`);
  }
  if (into[length] !== UNTOUCHED || into[length + 63] !== UNTOUCHED) throw new Error(`more than ${length} bytes came`);
  into.fill(UNTOUCHED, 0, length);
}

/** Does something to the lane that its sender could do; often something nearly right, to get further. */
function scribble(words: Int32Array, bytes: Uint8Array, reading: Reading, choose: Choose): void {
  const at = (RING_START + reading.position) >> 2;
  switch (choose(10)) {
    case 0:
      words[at] = someWord(choose);
      return;
    case 1:
      words[(RING_START >> 2) + choose(RING_SIZE >> 2)] = someWord(choose);
      return;
    case 2:
      words[[CONSUMED, ROOM_WANTED][choose(2)]!] = choose(2 ** 32) | 0;
      return;
    case 3:
      bytes[RING_START + choose(RING_SIZE)] = choose(256);
      return;
    case 4:
      // A gap as it should be, with a record behind it.
      words[RING_START >> 2] = 1 + choose(100);
      words[at] = GAP;
      return;
    default: {
      // A record as it should be, if there is room for it, with nothing behind it, or with whatever is there.
      const length = choose(choose(16) === 0 ? MAX_PAYLOAD_SIZE + 1 : 300);
      const next = (reading.position + sizeOf(length)) % RING_SIZE;
      if (choose(2) === 0) words[(RING_START + next) >> 2] = NOTHING;
      words[at] = length + 1;
    }
  }
}

function fuzzProducer(steps: number, choose: Choose, figures: RingFigures): void {
  const buffer = new ArrayBuffer(LANE_SIZE);
  const words = new Int32Array(buffer);
  const bytes = new Uint8Array(buffer);
  bytes.fill(CANARY, 0, RING_START);
  words[CONSUMED] = words[ROOM_WANTED] = 0;
  const producer = new LaneProducer(buffer);
  const payload = new Uint8Array(MAX_PAYLOAD_SIZE).fill(UNTOUCHED);
  let tail = 0;
  let sent = 0;
  while (figures.steps < steps) {
    figures.steps++;
    if (choose(3) > 0) {
      // Often a number that lets more in than there is room for: that spoils this lane, and nothing else.
      words[CONSUMED] = choose(2) === 0 ? sent - choose(200_000) | 0 : choose(2 ** 32) | 0;
    }
    const length = choose(choose(8) === 0 ? MAX_PAYLOAD_SIZE + 1 : 200);
    const queued = producer.queued;
    assert(queued >= 0 && queued < 2 ** 32);
    const fits = queued + DATAGRAM_HEADER_SIZE + length < DATAGRAM_QUEUE_SIZE;
    const offered = producer.offer(payload.subarray(0, length));
    if (offered !== fits) throw new Error(`step ${figures.steps}: offered ${offered} with ${queued} queued`);
    if (!offered) continue;
    figures.offered++;
    sent = (sent + DATAGRAM_HEADER_SIZE + length) | 0;
    const size = sizeOf(length);
    const wraps = tail + size > RING_SIZE;
    const start = wraps ? 0 : tail;
    const next = (start + size) % RING_SIZE;
    const word = (place: number) => words[(RING_START + place) >> 2];
    if (word(start) !== length + 1 || (wraps && word(tail) !== GAP) || word(next) !== NOTHING) {
      throw new Error(`step ${figures.steps}: a record of ${length} is not at ${start}`);
    }
    tail = next;
  }
  checkCounters(bytes);
}

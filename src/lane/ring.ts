/**
 * A lane's memory: a ring of whole datagrams from one producer to one consumer, on any ArrayBuffer that both can see.
 *
 * One page of counters, each on a cache line of its own, then the ring. A record is a word that says what is there, a
 * word of zero and the payload, filled up with zeroes to 8 bytes. The first word is the payload's length plus one, or -1:
 * then the next record begins at the ring's start; or 0: nothing is there yet. It is stored last, when the word of the
 * record after it is 0 already, so that the consumer waits for the very cache line that brings it the datagram. Every
 * word that orders something is read and written by Atomics only.
 *
 * The budget decides whether a datagram fits, not the ring: with less than 139,264 bytes of datagrams (headers of 24
 * counted, the ring's own are 8) and one gap before the ring's end of less than 69,624 the ring of 262,144 is never full.
 * So the producer needs to know only how much was *consumed*, and neither trusts the other: each checks its one copy of
 * what it read.
 *
 * @module
 */

import { DATAGRAM_HEADER_SIZE, DATAGRAM_QUEUE_SIZE, MAX_PAYLOAD_SIZE } from "../limits.ts";
import type { ReceiveBuffer } from "./receive_buffer.ts";

const COUNTERS_SIZE = 4096;
const RING_SIZE = 262144;

/** Where the ring begins. While it is empty all of it from there on may be made zero: by the producer, nobody else. */
export const RING_START: number = COUNTERS_SIZE;

/** The size of a lane's memory in bytes. */
export const LANE_SIZE: number = COUNTERS_SIZE + RING_SIZE;

/** Up to here, a loop is faster than copying a view; and with more, so many records fit into the ring at most. */
const SMALL = 128;

/** Two records with a payload that is not small are at least so far from each other: a power of two. */
const VIEW_PITCH = 128;

const RING_MASK = RING_SIZE - 1;
/** The size of a cache line. */
const LINE = 64;
const RECORD_HEADER = 8;
const NOTHING = 0;
const GAP = -1;

// Word indices; 128 bytes apart, since processors fetch cache lines in pairs.
const CONSUMED = 0;
const ROOM_WANTED = 32;

/** The producer's end of a lane. */
export class LaneProducer {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  #tail = 0;
  #sent = 0;
  #consumed = 0;
  /** Where the ring has a word that was made 0 early, in bytes from its start; -1 for nowhere. */
  #cleared = -1;

  /** @param buffer The lane's memory, of {@linkcode LANE_SIZE} bytes, zero at first. */
  constructor(buffer: ArrayBuffer) {
    this.#words = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
  }

  /** How many bytes were ever sent, headers included, modulo 2^32. */
  get sent(): number {
    return this.#sent;
  }

  /** Bytes of the budget that the consumer has not given back, headers of 24 bytes included. */
  get queued(): number {
    this.#consumed = Atomics.load(this.#words, CONSUMED);
    return this.#outstanding();
  }

  /**
   * Puts a datagram in.
   *
   * @param payload At most 69,608 bytes: the caller has checked.
   * @returns `false` when the budget does not allow it, or the consumer's counter makes no sense.
   */
  offer(payload: Uint8Array): boolean {
    const length = payload.length;
    const cost = DATAGRAM_HEADER_SIZE + length;
    if (!this.#affords(cost)) return false;
    const words = this.#words;
    const size = recordSize(length);
    const tail = this.#tail;
    const at = size > RING_SIZE - tail ? 0 : tail;
    const start = COUNTERS_SIZE + at;
    const end = start + size;
    const next = (at + size) & RING_MASK;
    if (next !== this.#cleared) words[(COUNTERS_SIZE + next) >> 2] = NOTHING;
    words[(start >> 2) + 1] = 0;
    if (length > 0) {
      words[(end >> 2) - 2] = 0;
      words[(end >> 2) - 1] = 0;
      this.#bytes.set(payload, start + RECORD_HEADER);
    }
    this.#tail = next;
    this.#sent = (this.#sent + cost) | 0;
    Atomics.store(words, start >> 2, length + 1);
    if (at !== tail) Atomics.store(words, (COUNTERS_SIZE + tail) >> 2, GAP);
    this.#clearAhead(next, size);
    return true;
  }

  /**
   * Makes the word after the next record 0, if that is as long as this one: its cache line then comes over from the
   * consumer while this side does something else, and not while a record is being published. Shorter records share
   * lines with those that the consumer is about to read, and longer ones have others that must come over anyway.
   */
  #clearAhead(next: number, size: number): void {
    const cleared = next + size;
    if (size < LINE || size > 2 * LINE || cleared > RING_SIZE - size) this.#cleared = -1;
    else {
      this.#cleared = cleared;
      this.#words[(COUNTERS_SIZE + cleared) >> 2] = NOTHING;
    }
  }

  /**
   * Whether a datagram would fit now.
   *
   * @param length Bytes of payload.
   */
  hasRoom(length: number): boolean {
    return this.#affords(DATAGRAM_HEADER_SIZE + length);
  }

  /** Asks the consumer to ring when it has made room, or takes that back. Check for room again after asking. */
  wantRoom(wanted: boolean): void {
    Atomics.store(this.#words, ROOM_WANTED, wanted ? 1 : 0);
  }

  #affords(cost: number): boolean {
    // The consumer's cache line is looked at only when what is known of it does not suffice.
    if (this.#outstanding() + cost < DATAGRAM_QUEUE_SIZE) return true;
    this.#consumed = Atomics.load(this.#words, CONSUMED);
    return this.#outstanding() + cost < DATAGRAM_QUEUE_SIZE;
  }

  #outstanding(): number {
    return (this.#sent - this.#consumed) >>> 0;
  }
}

/** The consumer's end of a lane. */
export class LaneConsumer {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  /**
   * Views of payloads that are not small by where they begin: to make one leaves garbage, and who sends datagrams of one
   * size uses the same places in each round of the ring.
   */
  #views: (Uint8Array | undefined)[] | undefined;
  /** Where the next record begins, in bytes from the ring's start. */
  #position = 0;
  #consumed = 0;
  /** The length of the datagram at the position: the one copy of it that is used. */
  #length = -1;
  #sealed = false;
  /** Bytes of the ring that still count once it is sealed. */
  #left = 0;

  /** @param buffer The lane's memory, of {@linkcode LANE_SIZE} bytes. */
  constructor(buffer: ArrayBuffer) {
    this.#words = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
  }

  /**
   * Looks at the next datagram without taking it.
   *
   * @returns The length of its payload in bytes, -1 when there is none, -2 when the producer wrote nonsense: then the
   * lane must not be used any more.
   */
  peek(): number {
    if (this.#length >= 0) return this.#length;
    if (this.#sealed && this.#left === 0) return -1;
    const word = Atomics.load(this.#words, (COUNTERS_SIZE + this.#position) >> 2);
    return word === NOTHING ? -1 : this.#open(word);
  }

  /**
   * Takes the datagram that {@linkcode LaneConsumer.peek} found.
   *
   * @param into Where its payload goes; at least as long.
   * @returns Whether the producer waits for room and wants to be rung.
   */
  take(into: ReceiveBuffer): boolean {
    const length = this.#length;
    const from = COUNTERS_SIZE + this.#position + RECORD_HEADER;
    if (length <= SMALL) this.#copySmall(from, length, into);
    else into.bytes.set(this.#view(from, length));
    this.#length = -1;
    this.#advance(recordSize(length));
    this.#consumed = (this.#consumed + DATAGRAM_HEADER_SIZE + length) | 0;
    Atomics.store(this.#words, CONSUMED, this.#consumed);
    return Atomics.load(this.#words, ROOM_WANTED) !== 0;
  }

  /** From now on only what is in the lane already counts: the producer has lost the right to it, or is gone. */
  seal(): void {
    if (this.#sealed) return;
    const position = this.#position;
    const length = this.#length;
    // Goes over what is there, and back. Of what makes no sense nothing counts but that it is there.
    this.#sealed = true;
    this.#left = RING_SIZE;
    this.#length = -1;
    let found = this.peek();
    while (found >= 0) {
      this.#length = -1;
      this.#advance(recordSize(found));
      found = this.peek();
    }
    this.#left = found === -1 ? RING_SIZE - this.#left : RING_SIZE;
    this.#position = position;
    this.#length = length;
  }

  #copySmall(from: number, length: number, { bytes, words, first }: ReceiveBuffer): void {
    const count = words.length === 0 ? 0 : length >> 2;
    const source = from >> 2;
    for (let i = 0; i < count; i++) words[first + i] = this.#words[source + i]!;
    for (let i = count << 2; i < length; i++) bytes[i] = this.#bytes[from + i]!;
  }

  #view(from: number, length: number): Uint8Array {
    const views = this.#views ??= new Array(RING_SIZE / VIEW_PITCH).fill(undefined);
    const place = Math.floor((from - COUNTERS_SIZE) / VIEW_PITCH);
    const known = views[place];
    if (known !== undefined && known.byteOffset === from && known.length === length) return known;
    return views[place] = this.#bytes.subarray(from, from + length);
  }

  /** Checks the record at the position and remembers its length. */
  #open(word: number): number {
    if (word === GAP) {
      const gap = RING_SIZE - this.#position;
      // A producer publishes a gap only together with the record behind it.
      word = Atomics.load(this.#words, COUNTERS_SIZE >> 2);
      if (gap === RING_SIZE || (this.#sealed && gap >= this.#left) || word === GAP || word === NOTHING) return -2;
      this.#advance(gap);
    }
    const length = word - 1;
    if (length < 0 || length > MAX_PAYLOAD_SIZE) return -2;
    const size = recordSize(length);
    if (size > RING_SIZE - this.#position || (this.#sealed && size > this.#left)) return -2;
    return this.#length = length;
  }

  #advance(size: number): void {
    this.#position = (this.#position + size) & RING_MASK;
    if (this.#sealed) this.#left -= size;
  }
}

function recordSize(length: number): number {
  return RECORD_HEADER + ((length + 7) & ~7);
}

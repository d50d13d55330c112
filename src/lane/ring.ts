/**
 * A lane's memory: a ring of whole datagrams from one producer to one consumer, on any ArrayBuffer that both can see.
 *
 * One page of counters, each on a cache line of its own, then the ring. A record is a word with the payload's length, a
 * word of zero and the payload, filled up with zeroes to 8 bytes; a length of -1 says that the next record begins at the
 * ring's start. Every word that orders something is read and written by Atomics only.
 *
 * The budget decides whether a datagram fits, not the ring: with less than 139,264 bytes of datagrams (headers of 24
 * counted, the ring's own are 8) and one gap before the ring's end of less than 69,624 the ring of 262,144 is never full.
 * So the producer needs to know only how much was *consumed*, the consumer only where the *tail* is, and neither trusts
 * the other: each checks its one copy of what it read.
 *
 * @module
 */

import { DATAGRAM_HEADER_SIZE, DATAGRAM_QUEUE_SIZE, MAX_PAYLOAD_SIZE } from "../limits.ts";

const COUNTERS_SIZE = 4096;
const RING_SIZE = 262144;

/** The size of a lane's memory in bytes. */
export const LANE_SIZE: number = COUNTERS_SIZE + RING_SIZE;

/** Up to here, a loop over bytes is faster than making a view. */
const SMALL = 96;

const RING_MASK = RING_SIZE - 1;
const RECORD_HEADER = 8;
const GAP = -1;

// Word indices; 128 bytes apart, since processors fetch cache lines in pairs.
const TAIL = 0;
const CONSUMED = 32;
const ROOM_WANTED = 64;

/** The producer's end of a lane. */
export class LaneProducer {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  #tail = 0;
  #sent = 0;
  #consumed = 0;

  /** @param buffer The lane's memory, of {@linkcode LANE_SIZE} bytes, zero at first. */
  constructor(buffer: ArrayBuffer) {
    this.#words = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
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
    const size = recordSize(length);
    let at = this.#tail & RING_MASK;
    if (size > RING_SIZE - at) {
      this.#words[(COUNTERS_SIZE + at) >> 2] = GAP;
      this.#tail = (this.#tail + RING_SIZE - at) | 0;
      at = 0;
    }
    const start = COUNTERS_SIZE + at;
    const end = start + size;
    this.#words[start >> 2] = length;
    this.#words[(start >> 2) + 1] = 0;
    if (length > 0) {
      this.#words[(end >> 2) - 2] = 0;
      this.#words[(end >> 2) - 1] = 0;
      this.#bytes.set(payload, start + RECORD_HEADER);
    }
    this.#tail = (this.#tail + size) | 0;
    this.#sent = (this.#sent + cost) | 0;
    Atomics.store(this.#words, TAIL, this.#tail);
    return true;
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
  #position = 0;
  #tail = 0;
  #consumed = 0;
  /** The length of the datagram at the position: the one copy of it that is used. */
  #length = -1;
  #sealed = false;

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
    if (this.#position === this.#tail) {
      if (this.#sealed) return -1;
      this.#tail = Atomics.load(this.#words, TAIL);
      if (this.#position === this.#tail) return -1;
    }
    return this.#open();
  }

  /**
   * Takes the datagram that {@linkcode LaneConsumer.peek} found.
   *
   * @param into Where its payload goes; at least as long.
   * @returns Whether the producer waits for room and wants to be rung.
   */
  take(into: Uint8Array): boolean {
    const length = this.#length;
    const from = COUNTERS_SIZE + (this.#position & RING_MASK) + RECORD_HEADER;
    if (length <= SMALL) {
      for (let i = 0; i < length; i++) into[i] = this.#bytes[from + i]!;
    } else {
      into.set(this.#bytes.subarray(from, from + length));
    }
    this.#length = -1;
    this.#position = (this.#position + recordSize(length)) | 0;
    this.#consumed = (this.#consumed + DATAGRAM_HEADER_SIZE + length) | 0;
    Atomics.store(this.#words, CONSUMED, this.#consumed);
    return Atomics.load(this.#words, ROOM_WANTED) !== 0;
  }

  /** From now on only what is in the lane already counts: the producer has lost the right to it, or is gone. */
  seal(): void {
    if (this.#sealed) return;
    this.#tail = Atomics.load(this.#words, TAIL);
    this.#sealed = true;
  }

  /** Checks the record at the position and remembers its length. */
  #open(): number {
    const available = (this.#tail - this.#position) >>> 0;
    if (available > RING_SIZE || (this.#tail & 7) !== 0) return -2;
    let at = this.#position & RING_MASK;
    let left = available;
    let length = this.#words[(COUNTERS_SIZE + at) >> 2]!;
    if (length === GAP) {
      const gap = RING_SIZE - at;
      // A producer publishes a gap only together with the record behind it.
      if (gap >= left) return -2;
      left -= gap;
      at = 0;
      length = this.#words[COUNTERS_SIZE >> 2]!;
      this.#position = (this.#position + gap) | 0;
    }
    if (length < 0 || length > MAX_PAYLOAD_SIZE) return -2;
    const size = recordSize(length);
    if (size > left || size > RING_SIZE - at) return -2;
    return this.#length = length;
  }
}

function recordSize(length: number): number {
  return RECORD_HEADER + ((length + 7) & ~7);
}

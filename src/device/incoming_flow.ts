/**
 * The way from where datagrams come to the lane that their receiver reads.
 *
 * @module
 */

import type { Handle } from "../handle.ts";
import { LaneProducer } from "../lane/ring.ts";
import { type Frame, ReliableReceiver } from "./reliable.ts";

/** So many ways before the one that is are remembered; each had a sender that gave up, or closed. */
const MOST_PAST = 16;

/** See the module's comment. */
export class IncomingFlow {
  /** The lane's number. */
  readonly lane: number;
  /** Where its datagrams come from. */
  readonly source: Handle;
  readonly #producer: LaneProducer;
  #receiver: ReliableReceiver | undefined;
  /** The epochs of the ways before, the last ones: what is left of those on its way here is nobody's. */
  readonly #past: number[] = [];
  /** What found no room in the lane. */
  #held: Uint8Array<ArrayBuffer> | undefined;
  #full = false;

  constructor(lane: number, source: Handle, buffer: ArrayBuffer) {
    this.lane = lane;
    this.source = source;
    this.#producer = new LaneProducer(buffer);
  }

  /** Whether it waits for room, and takes nothing more until there is some. */
  get full(): boolean {
    return this.#full;
  }

  /** Whether nothing in it is unread. */
  get idle(): boolean {
    return !this.#full && this.#producer.queued === 0;
  }

  /** The epoch of the numbered way that it is the end of. */
  get epoch(): number | undefined {
    return this.#receiver?.epoch;
  }

  /** Takes a datagram in; not while it is full. */
  deliver(payload: Uint8Array<ArrayBuffer>): void {
    this.#held = payload;
    this.drain();
  }

  /** Takes a piece of a numbered way in. */
  accept(frame: Frame): void {
    if (this.#receiver?.epoch !== frame.epoch) {
      if (this.#past.includes(frame.epoch)) return;
      if (this.#receiver !== undefined && this.#past.push(this.#receiver.epoch) > MOST_PAST) this.#past.shift();
      this.#receiver = new ReliableReceiver(frame.epoch);
    }
    this.#receiver.accept(frame);
    this.drain();
  }

  /** Puts into the lane what finds room there. */
  drain(): void {
    if (this.#held !== undefined) {
      if (!this.#offer(this.#held)) return;
      this.#held = undefined;
    }
    const receiver = this.#receiver;
    if (receiver === undefined) return;
    for (let next = receiver.peek(); next !== undefined; next = receiver.peek()) {
      if (!this.#offer(next)) return;
      receiver.take();
    }
  }

  /** What is to be said to the sender, if anything. */
  acknowledgement(): Uint8Array<ArrayBuffer> | undefined {
    return this.#receiver?.acknowledgement(!this.#full);
  }

  /** Offers a datagram; if there is no room, has the reader ring when there is. */
  #offer(payload: Uint8Array): boolean {
    let took = this.#producer.offer(payload);
    if (!took) {
      this.#producer.wantRoom(true);
      // It may have been read just before.
      took = this.#producer.offer(payload);
      this.#full = true;
    }
    if (took && this.#full) this.#producer.wantRoom(false);
    this.#full = !took;
    return took;
  }
}

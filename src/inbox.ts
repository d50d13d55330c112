/**
 * The lanes into one handle, served in turn.
 *
 * @module
 */

import { type Handle, handlesEqual, INVALID_HANDLE } from "./handle.ts";
import type { ReceiveBuffer } from "./lane/receive_buffer.ts";
import { LaneConsumer } from "./lane/ring.ts";
import type { SharedPages } from "./fabric/medium.ts";
import type { Nudgeable } from "./fabric/peer.ts";

/** One lane, seen from its receiver. */
export class IncomingLane {
  readonly number: number;
  readonly source: Handle;
  /** The number of the client that sends. */
  readonly sender: number;
  readonly consumer: LaneConsumer;
  /** Who sends, if it can be rung. */
  readonly peer: Nudgeable | undefined;
  /** What proves to the next broker that this client receives here. */
  readonly ticket: string;
  /** The sender is gone or has lost the right: what is queued is delivered, nothing more. */
  ended = false;
  /** The lane that the same sender had before for the same source, as long as something may be left in it. */
  before: IncomingLane | undefined;
  readonly #pages: SharedPages;

  constructor(
    number: number,
    source: Handle,
    sender: number,
    pages: SharedPages,
    peer: Nudgeable | undefined,
    ticket: string,
  ) {
    this.number = number;
    this.source = source;
    this.sender = sender;
    this.consumer = new LaneConsumer(pages.buffer);
    this.peer = peer;
    this.ticket = ticket;
    this.#pages = pages;
  }

  /** Nothing more may come. */
  end(): void {
    this.ended = true;
    this.consumer.seal();
  }

  /** Gives its pages back. */
  close(): void {
    this.#pages.close();
  }
}

/**
 * A lane delivers at most so many datagrams in a row: fair enough, and going on to the next lane after each of them would
 * touch other cache lines each time.
 */
const TURN = 8;

/** Called when a lane is done with; `shut` when that is because its endpoint is. */
export type LaneDone = (lane: IncomingLane, shut: boolean) => void;

/** See the module's comment. */
export class Inbox {
  /** The source of the datagram taken last. */
  source: Handle = INVALID_HANDLE;
  /** How many datagrams were ever taken. */
  taken = 0;
  readonly #laneDone: LaneDone;
  readonly #lanes: IncomingLane[] = [];
  #closed = false;
  /** The lane that is looked at first: the one that delivered last, or when its turn is over the one after it. */
  #turn = 0;
  /** How many datagrams it may still deliver in this turn. */
  #left = TURN;

  constructor(laneDone: LaneDone) {
    this.#laneDone = laneDone;
  }

  /** A lane was opened. */
  add(lane: IncomingLane): void {
    if (this.#closed) return this.#drop(lane);
    lane.before = this.#lanes.findLast(({ sender, source }) =>
      sender === lane.sender && handlesEqual(source, lane.source)
    );
    this.#lanes.push(lane);
  }

  /** The lanes that still carry. */
  carrying(): IncomingLane[] {
    return this.#lanes.filter((lane) => !lane.ended);
  }

  /** The first lane, in turn, that has a datagram; it stays the first until that is taken. */
  next(): IncomingLane | undefined {
    const lanes = this.#lanes;
    for (let left = lanes.length; left > 0; left--) {
      if (this.#turn >= lanes.length) this.#turn = 0;
      const lane = lanes[this.#turn]!;
      // What is left of the lane before it comes first.
      if (lane.before?.ended === true) {
        this.#pass();
        continue;
      }
      const size = lane.consumer.peek();
      if (size >= 0) return lane;
      if (size === -1 && !lane.ended) {
        this.#pass();
        continue;
      }
      // Who waited for this one may have been passed over.
      if (this.#remove(this.#turn)) left = lanes.length + 1;
    }
    return undefined;
  }

  /** Nothing more may come through a lane: if there is nothing left in it either, it goes at once, whoever reads when. */
  end(lane: IncomingLane): void {
    lane.end();
    const place = this.#lanes.indexOf(lane);
    if (place >= 0 && lane.consumer.peek() === -1) this.#remove(place);
  }

  /** Takes a lane out that is read to its end, or broken; says whether another one waited for that. */
  #remove(place: number): boolean {
    const lane = this.#lanes[place]!;
    this.#lanes.splice(place, 1);
    if (place < this.#turn) this.#turn--;
    else if (place === this.#turn) this.#left = TURN;
    let awaited = false;
    for (const next of this.#lanes) {
      if (next.before !== lane) continue;
      next.before = lane.before;
      awaited = true;
    }
    this.#laneDone(lane, false);
    lane.close();
    return awaited;
  }

  /**
   * Takes the datagram at the head of a lane.
   *
   * @param lane The lane that {@linkcode Inbox.next} found.
   * @param into Where the payload goes; long enough for it.
   */
  take(lane: IncomingLane, into: ReceiveBuffer): void {
    this.source = lane.source;
    this.taken++;
    if (--this.#left === 0) this.#pass();
    if (lane.consumer.take(into)) lane.peer?.nudge();
  }

  /** The turn is the next lane's. */
  #pass(): void {
    this.#turn++;
    this.#left = TURN;
  }

  /** Drops what is queued. */
  close(): void {
    this.#closed = true;
    for (const lane of this.#lanes.splice(0)) this.#drop(lane);
  }

  #drop(lane: IncomingLane): void {
    this.#laneDone(lane, true);
    lane.close();
  }
}

/**
 * Another client of the fabric, seen from here: how to ring it.
 *
 * @module
 */

import type { Bell, SharedWord } from "./medium.ts";

/** Whoever can be rung: another client, or this session itself. */
export interface Nudgeable {
  /** Rings if it is parked. Call after storing what it should see. */
  nudge(): void;
}

/** One client that this one shares a lane or a region with. */
export class Peer implements Nudgeable {
  /** Its number. */
  readonly number: number;
  #bell: Bell;
  #attention: SharedWord;
  /** The word itself, one property away on the hot path. */
  #word: Int32Array;
  /** Whether the bell is listened to. */
  #listening = false;
  #closed = false;

  /**
   * @param number Its number.
   * @param bell This client's end of the bell between the two.
   * @param attention The word it raises when it is parked.
   */
  constructor(number: number, bell: Bell, attention: SharedWord) {
    this.number = number;
    this.#bell = bell;
    this.#attention = attention;
    this.#word = attention.word;
  }

  /** Its bell. */
  get bell(): Bell {
    return this.#bell;
  }

  nudge(): void {
    // A bell whose other end is gone is found out by whoever drains it.
    if (!this.#closed && Atomics.load(this.#word, 0) !== 0) this.#bell.ring();
  }

  /** Has another bell and word from now on; whoever rings this peer rings that bell. */
  renew(bell: Bell, attention: SharedWord): void {
    this.#bell.close();
    this.#attention.close();
    this.#bell = bell;
    this.#attention = attention;
    this.#word = attention.word;
    this.#listening = false;
  }

  /** Has the event loop watch the bell. */
  listen(rung: () => void, ended: () => void): void {
    if (this.#listening || this.#closed) return;
    this.#listening = true;
    this.#bell.listen(rung, ended);
  }

  /** Gives bell and word back. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#bell.close();
    this.#attention.close();
  }
}

/**
 * Letting a stream gather. Who takes datagrams faster than they are sent keeps looking at the very cache line that the
 * sender is about to fill, and so takes it away from the sender each time: both get slower. Who stays away for a
 * microsecond finds several datagrams in lines that the sender is done with.
 *
 * @module
 */

import { AdaptiveSpin } from "./adaptive_spin.ts";

/**
 * How long to stay away: a few datagrams' time. A pause of the processor's is 25 ns or twice that, on x86. Looking at the
 * clock would make garbage.
 */
const PAUSES = 64;

/** A pause has paid when so many datagrams were then taken without waiting. In a ping-pong it is one. */
const WORTH = 2;

/** After pauses in vain so many waits do without, at most: then a ping-pong loses a nanosecond by each on average. */
const MOST_SKIPPED = 1023;

/** What one receiver has learnt. */
export class Gathering {
  readonly #adaptive = new AdaptiveSpin(MOST_SKIPPED);
  /** How many datagrams had been taken when it paused last; `undefined` when the last wait did without. */
  #before: number | undefined;

  /**
   * Nothing is there, and it is going to be waited for: stays away for a moment, if that has paid lately.
   *
   * @param taken How many datagrams were ever taken.
   */
  pause(taken: number): void {
    if (this.#before !== undefined) {
      if (taken - this.#before >= WORTH) this.#adaptive.found();
      else this.#adaptive.missed();
      this.#before = undefined;
    }
    if (!this.#adaptive.pays) return this.#adaptive.skipped();
    this.#before = taken;
    for (let i = 0; i < PAUSES; i++) Atomics.pause();
  }
}

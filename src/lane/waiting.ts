/**
 * Waiting: look, spin while that has paid lately, then park until a bell rings.
 *
 * To park is to raise the attention word and look once more; who changes something stores it and then loads the word.
 * Both do so by Atomics, or with a fence between the two, so at least one of them sees the other.
 *
 * A wait as a promise never holds the event loop for long: it spins for a slice, lets the loop turn, spins again, and
 * after a few turns without anything it parks. Whether it spins at all it has learnt ({@linkcode AdaptiveSpin}).
 *
 * @module
 */

import type { Subject } from "../subject.ts";
import { AdaptiveSpin } from "./adaptive_spin.ts";
import { closedMeanwhile, LONG, type Look, Waiters, type WaitOptions } from "./waiters.ts";

type Timer = ReturnType<typeof setTimeout>;

/** What waiting needs of the one who waits. */
export interface Parking {
  /** The word that says to others: ring me. */
  readonly attention: Int32Array;
  /** Takes in what the broker said; called before every look. */
  refresh(): void;
  /** Makes sure that every bell calls {@linkcode Waiting.wake} from the event loop. */
  listen(): void;
  /** Blocks the thread until a bell rings or so many milliseconds are over. */
  block(timeout: number): void;
}

/** A thread that blocks looks at the connection at least so often, in milliseconds. */
const BLOCK_SLICE = 1000;

/** So many looks between two looks at the clock, which costs as much as a few of them; at first, none is taken at it. */
const LOOKS_PER_CLOCK = 32;

/** What a look takes in milliseconds, about. */
const LOOK_TIME = 0.00003;

/** After so many waits in a row that found at once what they waited for, the event loop turns: others wait for it too. */
const MOST_UNTURNED = 4096;

/** Turns of the event loop that a wait spins in without anything having come, before it parks. */
const TURNS = 4;

/** With more waits than this, rings that come while one of them spins are cheaper than looking for all of them again. */
const FEW = 8;

/** All waits of one session. */
export class Waiting {
  readonly #parking: Parking;
  /** Milliseconds that may be spun in one turn of the event loop, and by one call that blocks. */
  readonly #slice: number;
  readonly #waiters = new Waiters(() => this.#settleDown());
  readonly #settle = (): true | undefined => this.#waiters.settle() || undefined;
  #keepAlive: Timer | undefined;
  #closed = false;
  /** How many calls are blocking: what one looks at may block as well. */
  #blocking = 0;
  /** Whether those who wait look again as soon as this thread has done what it does. */
  #soon = false;
  /** Those who wait look again in the next turn. */
  #later: ReturnType<typeof setImmediate> | undefined;
  /** Milliseconds of spinning left in this turn. */
  #allowance: number;
  /** Milliseconds that the last spin took, about. */
  #spun = 0;
  /** The next turn, when somebody waits for it. */
  #nextTurn: ReturnType<typeof setImmediate> | undefined;
  /** Turns left before those who wait park. */
  #turns = 0;
  /** How many waits ended at once since the event loop was last seen to turn. */
  #unturned = 0;
  readonly #adaptive = new AdaptiveSpin();

  /**
   * @param parking Whose waits these are.
   * @param spin Microseconds that may be spun in one turn of the event loop; 0 turns spinning off.
   */
  constructor(parking: Parking, spin: number) {
    this.#parking = parking;
    this.#slice = spin / 1000;
    this.#allowance = this.#slice;
  }

  /**
   * Waits without turning the event loop.
   *
   * @param look Looks for the result.
   * @param timeout Milliseconds, or -1 without end.
   * @returns The result, or `undefined` when the time was over, or the look has closed this.
   */
  block<T>(look: Look<T>, timeout: number): T | undefined {
    const found = this.#look(look) ?? this.#spin(look, this.#slice);
    if (found !== undefined || timeout === 0) return found;
    if (this.#closed) return undefined;
    const end = timeout < 0 ? Infinity : performance.now() + timeout;
    let slept = false;
    this.#blocking++;
    Atomics.store(this.#parking.attention, 0, 1);
    try {
      for (;;) {
        const result = this.#look(look);
        if (result !== undefined) return result;
        const left = end - performance.now();
        if (left <= 0 || this.#closed) return undefined;
        slept = true;
        this.#parking.block(Math.ceil(Math.min(left, BLOCK_SLICE)));
      }
    } finally {
      this.#blocking--;
      this.#settleDown();
      // The bells were heard here, and tell those who wait for a promise no more.
      if (slept) this.nudge();
    }
  }

  /**
   * Waits as a promise. The process stays alive meanwhile.
   *
   * @param subject What it is about.
   * @param look Looks for the result.
   * @param options How the wait may end.
   * @returns The result.
   */
  park<T>(subject: Subject, look: Look<T>, options: WaitOptions | undefined): Promise<T> {
    try {
      options?.signal?.throwIfAborted();
      let found = this.#look(look);
      const hot = this.#slice > 0 && (this.#nextTurn !== undefined || this.#adaptive.pays);
      if (found === undefined && hot) found = this.#spinInTurn(look);
      // The look may have closed this.
      if (found === undefined && this.#closed) throw closedMeanwhile(subject);
      if (found !== undefined) return ++this.#unturned < MOST_UNTURNED ? Promise.resolve(found) : this.#turned(found);
      const promise = this.#waiters.add(subject, () => this.#look(look), options);
      if (hot) this.#linger();
      else this.#raise();
      if (!hot) this.#adaptive.skipped();
      return promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** A bell rang: everybody looks again. */
  wake(): void {
    // Looks that have each other look would have no end.
    if (this.#waiters.looking) this.nudge();
    else this.#waiters.during(this.#settle);
  }

  /** This thread changed something: those who wait look again when it has done what it does. */
  nudge(): void {
    if (this.#closed || this.#waiters.size === 0) return;
    if (this.#waiters.looking) {
      // A look that changes something each time would hold up the event loop for ever.
      this.#later ??= setImmediate(() => {
        this.#later = undefined;
        this.wake();
      });
    } else if (!this.#soon) {
      this.#soon = true;
      queueMicrotask(() => {
        this.#soon = false;
        this.wake();
      });
    }
  }

  /** Ends every wait with an error. */
  failAll(makeError: (subject: Subject) => unknown): void {
    this.#waiters.failAll(makeError);
  }

  /** Gives the timers back. A wait that follows, or looks just now, fails unless its look finds or throws something. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#keepAlive);
    clearImmediate(this.#nextTurn);
    clearImmediate(this.#later);
    this.#keepAlive = this.#nextTurn = this.#later = undefined;
  }

  #look<T>(look: Look<T>): T | undefined {
    this.#parking.refresh();
    return look();
  }

  // --- Parking --------------------------------------------------------------------------------------------------------

  /** Parks those who wait: from now on a bell tells. */
  #raise(): void {
    if (this.#closed || this.#waiters.size === 0) return;
    if (this.#keepAlive === undefined) this.#keepAlive = setInterval(() => {}, LONG);
    else this.#keepAlive.ref();
    this.#parking.listen();
    Atomics.store(this.#parking.attention, 0, 1);
    this.wake();
  }

  /** Nobody needs to be rung when nobody waits. */
  #settleDown(): void {
    if (this.#closed || this.#waiters.size > 0) return;
    if (this.#blocking === 0) Atomics.store(this.#parking.attention, 0, 0);
    this.#keepAlive?.unref();
  }

  // --- Spinning -------------------------------------------------------------------------------------------------------

  /** Looks again and again for so long; counts what that takes in {@linkcode Waiting.#spun}. */
  #spin<T>(look: Look<T>, milliseconds: number): T | undefined {
    this.#spun = 0;
    if (milliseconds <= 0) return undefined;
    let start = 0;
    do {
      for (let i = 1; i <= LOOKS_PER_CLOCK; i++) {
        const result = this.#look(look);
        if (result === undefined) continue;
        this.#spun += i * LOOK_TIME;
        return result;
      }
      const now = performance.now();
      if (start === 0) start = now - LOOKS_PER_CLOCK * LOOK_TIME;
      this.#spun = now - start;
    } while (this.#spun < milliseconds);
    return undefined;
  }

  /** The result, when the event loop has turned. */
  #turned<T>(result: T): Promise<T> {
    this.#unturned = 0;
    return new Promise((resolve) => setImmediate(() => resolve(result)));
  }

  /** Spins as long as this turn allows. */
  #spinInTurn<T>(look: Look<T>): T | undefined {
    if (this.#allowance <= 0 || this.#closed) return undefined;
    const parked = this.#blocking === 0 && this.#waiters.size > 0 && this.#waiters.size <= FEW;
    // Who looks need not be rung; those parked look again afterwards.
    if (parked) Atomics.store(this.#parking.attention, 0, 0);
    try {
      const result = this.#spin(look, this.#allowance);
      if (result !== undefined) this.#adaptive.found();
      return result;
    } finally {
      // Also when looking fails: those parked must be rung again.
      this.#allowance -= this.#spun;
      if (parked && this.#turns === 0) this.#raise();
      this.#turnOnce();
    }
  }

  /** Those who wait look again in the next turns of the event loop, before they park. */
  #linger(): void {
    this.#turns = TURNS;
    this.#turnOnce();
  }

  #turnOnce(): void {
    if (!this.#closed) this.#nextTurn ??= setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#nextTurn = undefined;
    this.#allowance = this.#slice;
    this.#unturned = 0;
    if (this.#turns === 0 || this.#waiters.size === 0) {
      this.#turns = 0;
      return;
    }
    const came = this.#waiters.during(() => this.#spinInTurn(this.#settle));
    this.#turns = came ? TURNS : this.#turns - 1;
    if (this.#turns > 0) return;
    this.#adaptive.missed();
    this.#raise();
  }
}

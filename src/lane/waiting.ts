/**
 * Waiting: look, spin a little where that has paid lately, then park until a bell rings.
 *
 * To park is to raise the attention word and look once more; who changes something stores it and then loads the word.
 * Both do so by Atomics, so at least one of them sees the other.
 *
 * @module
 */

import { VmciError } from "../error.ts";

type Timer = ReturnType<typeof setTimeout>;

/** How a waiting call may be ended from outside. */
export interface WaitOptions {
  /** Ends the wait; the call then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds to wait at most; the call then throws TIMEOUT. Without it, the wait has no end. */
  readonly timeout?: number | undefined;
}

/** What waiting needs of the one who waits. */
export interface Parking {
  /** The word that says to others: ring me. */
  readonly attention: Int32Array;
  /** Takes in what the broker said; called before every look. */
  refresh(): void;
  /** Makes sure that every bell calls {@linkcode Waiting.wake} from the event loop. */
  listen(): void;
  /** Blocks the thread until a bell rings or so many milliseconds are over; -1 has no end. */
  block(timeout: number): void;
}

/** Looks whether what is waited for is there: the result, or `undefined` when it is not. It may throw. */
export type Look<T> = () => T | undefined;

interface Waiter {
  /** Looks, and settles the promise if there is something; says whether it did. */
  readonly settle: () => boolean;
  /** Settles the promise with an error. */
  readonly fail: (error: unknown) => void;
}

/** A thread that blocks looks at the connection at least so often, in milliseconds. */
const BLOCK_SLICE = 1000;

/** So many looks between two looks at the clock. */
const LOOKS_PER_CLOCK = 16;

/** At most so many waits in a row park without having spun. */
const MAX_BACKOFF = 63;

/** A timer that never fires in practice; it keeps the process alive while something is awaited. */
const LONG = 0x7FFF_FFFF;

/** All waits of one session. */
export class Waiting {
  readonly #parking: Parking;
  /** Milliseconds a wait may spin, and a turn of the event loop may spin in all. */
  readonly #spin: number;
  readonly #waiters = new Set<Waiter>();
  #keepAlive: Timer | undefined;
  /** How many waits still park at once, since spinning did not pay; doubled each time it fails again. */
  #skip = 0;
  #backoff = 0;
  /** Milliseconds of spinning left in this turn of the event loop. */
  #allowance: number;
  #nextTurn: Timer | undefined;

  /**
   * @param parking Whose waits these are.
   * @param spin Microseconds a wait may spin before it parks; 0 turns spinning off.
   */
  constructor(parking: Parking, spin: number) {
    this.#parking = parking;
    this.#spin = spin / 1000;
    this.#allowance = this.#spin;
  }

  /**
   * Waits without turning the event loop.
   *
   * @param look Looks for the result.
   * @param timeout Milliseconds, or -1 without end.
   * @returns The result, or `undefined` when the time was over.
   */
  block<T>(look: Look<T>, timeout: number): T | undefined {
    const found = this.#look(look) ?? this.#spinFor(look, this.#spin);
    if (found !== undefined || timeout === 0) return found;
    const end = timeout < 0 ? Infinity : performance.now() + timeout;
    Atomics.store(this.#parking.attention, 0, 1);
    try {
      for (;;) {
        const result = this.#look(look);
        if (result !== undefined) return result;
        const left = end - performance.now();
        if (left <= 0) return undefined;
        this.#parking.block(Math.ceil(Math.min(left, BLOCK_SLICE)));
      }
    } finally {
      this.#lower();
    }
  }

  /**
   * Waits as a promise. The process stays alive meanwhile.
   *
   * @param operation The call, for the error's text.
   * @param look Looks for the result.
   * @param options How the wait may end.
   * @returns The result.
   */
  park<T>(operation: string, look: Look<T>, options: WaitOptions | undefined): Promise<T> {
    try {
      options?.signal?.throwIfAborted();
      const found = this.#look(look) ?? this.#spinInTurn(look);
      return found === undefined ? this.#enqueue(operation, look, options) : Promise.resolve(found);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** A bell rang: everybody looks again. */
  wake(): void {
    for (const waiter of [...this.#waiters]) waiter.settle();
  }

  /** Ends every wait with an error. */
  failAll(makeError: () => unknown): void {
    for (const waiter of [...this.#waiters]) waiter.fail(makeError());
  }

  #enqueue<T>(operation: string, look: Look<T>, options: WaitOptions | undefined): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const { signal, timeout } = options ?? {};
    let timer: Timer | undefined;
    const abort = () => waiter.fail(signal?.reason);
    const leave = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#waiters.delete(waiter);
      this.#lower();
    };
    const waiter: Waiter = {
      settle: () => {
        // An earlier waiter's continuation may have ended this one.
        if (!this.#waiters.has(waiter)) return true;
        try {
          const result = this.#look(look);
          if (result === undefined) return false;
          leave();
          resolve(result);
        } catch (error) {
          leave();
          reject(error);
        }
        return true;
      },
      fail: (error) => {
        leave();
        reject(error);
      },
    };
    this.#waiters.add(waiter);
    Atomics.store(this.#parking.attention, 0, 1);
    this.#stayAlive();
    this.#parking.listen();
    if (waiter.settle()) return promise;
    signal?.addEventListener("abort", abort, { once: true });
    if (timeout !== undefined) {
      timer = setTimeout(() => {
        if (!waiter.settle()) waiter.fail(timedOut(operation, timeout));
      }, timeout);
    }
    return promise;
  }

  #look<T>(look: Look<T>): T | undefined {
    this.#parking.refresh();
    return look();
  }

  /** Lowers the flag when nobody waits any more. */
  #lower(): void {
    if (this.#waiters.size > 0) return;
    Atomics.store(this.#parking.attention, 0, 0);
    this.#keepAlive?.unref();
  }

  #stayAlive(): void {
    if (this.#keepAlive === undefined) this.#keepAlive = setInterval(() => {}, LONG);
    else this.#keepAlive.ref();
  }

  /** Gives the timers back; no wait may follow. */
  close(): void {
    clearInterval(this.#keepAlive);
    clearTimeout(this.#nextTurn);
    this.#keepAlive = this.#nextTurn = undefined;
  }

  #spinFor<T>(look: Look<T>, milliseconds: number): T | undefined {
    if (milliseconds <= 0) return undefined;
    const end = performance.now() + milliseconds;
    do {
      for (let i = 0; i < LOOKS_PER_CLOCK; i++) {
        const result = this.#look(look);
        if (result !== undefined) return result;
      }
    } while (performance.now() < end);
    return undefined;
  }

  /** Spins if that has paid lately, and if this turn of the event loop has not spun enough. */
  #spinInTurn<T>(look: Look<T>): T | undefined {
    if (this.#allowance <= 0 || this.#skip-- > 0) return undefined;
    const start = performance.now();
    const result = this.#spinFor(look, this.#allowance);
    this.#allowance -= performance.now() - start;
    this.#backoff = result === undefined ? Math.min(2 * this.#backoff + 1, MAX_BACKOFF) : 0;
    this.#skip = this.#backoff;
    this.#nextTurn ??= setTimeout(() => {
      this.#nextTurn = undefined;
      this.#allowance = this.#spin;
    }, 0);
    return result;
  }
}

/** The error of a wait that took too long. */
export function timedOut(operation: string, timeout: number): VmciError {
  return new VmciError("TIMEOUT", { operation, reason: `nothing came within ${timeout} ms` });
}

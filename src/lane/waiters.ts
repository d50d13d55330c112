/**
 * Those who wait for a promise. Each looks again when it is told to, until it finds something, is aborted or out of time.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import type { Subject } from "../subject.ts";

/** How a waiting call may be ended from outside. */
export interface WaitOptions {
  /** Ends the wait; the call then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds to wait at most; the call then throws TIMEOUT. Without it, the wait has no end. */
  readonly timeout?: number | undefined;
}

/** Looks whether what is waited for is there: the result, or `undefined` when it is not. It may throw. */
export type Look<T> = () => T | undefined;

interface Waiter {
  /** What it is about. */
  readonly subject: Subject;
  /** Looks, and settles the promise if there is something; says whether anything came of it. */
  readonly settle: () => boolean;
  /** Settles the promise with an error. */
  readonly fail: (error: unknown) => void;
}

/** The longest time that a timer counts, in milliseconds. Nobody waits that long. */
export const LONG = 0x7FFF_FFFF;

/** See the module's comment. */
export class Waiters {
  readonly #waiters = new Set<Waiter>();
  readonly #left: () => void;
  /** Whether some of them are looking just now. A look may have others look. */
  #looking = false;

  /** @param left Called when one of them waits no longer. */
  constructor(left: () => void) {
    this.#left = left;
  }

  /** How many there are. */
  get size(): number {
    return this.#waiters.size;
  }

  /** Whether one of them is looking just now. */
  get looking(): boolean {
    return this.#looking;
  }

  /**
   * One more.
   *
   * @param subject What it is about.
   * @param look Looks for the result; not now, but when {@linkcode Waiters.settle} is called.
   * @param options How the wait may end.
   * @returns The result.
   */
  add<T>(subject: Subject, look: Look<T>, options: WaitOptions | undefined): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const { signal, timeout } = options ?? {};
    let timer: ReturnType<typeof setTimeout> | undefined;
    const abort = () => waiter.fail(signal?.reason);
    const leave = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#waiters.delete(waiter);
      this.#left();
    };
    const waiter: Waiter = {
      subject,
      settle: () => {
        // Whoever looked before may have ended this one.
        if (!this.#waiters.has(waiter)) return true;
        try {
          const result = look();
          if (result === undefined) return false;
          // So may the look itself.
          if (!this.#waiters.has(waiter)) return true;
          leave();
          resolve(result);
        } catch (error) {
          waiter.fail(error);
        }
        return true;
      },
      fail: (error) => {
        if (!this.#waiters.has(waiter)) return;
        leave();
        reject(error);
      },
    };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", abort, { once: true });
    if (timeout !== undefined && timeout < LONG) {
      timer = setTimeout(() => {
        if (!this.during(waiter.settle)) waiter.fail(timedOut(subject, timeout));
      }, timeout);
    }
    // Whoever looked last, before there was anybody to listen, may have aborted it.
    if (signal?.aborted) abort();
    return promise;
  }

  /** Does something of which looks are a part; not within another such thing. */
  during<T>(act: () => T): T {
    this.#looking = true;
    try {
      return act();
    } finally {
      this.#looking = false;
    }
  }

  /** Everybody looks; says whether anybody found something. */
  settle(): boolean {
    let settled = false;
    for (const waiter of this.#waiters) if (waiter.settle()) settled = true;
    return settled;
  }

  /** Ends every wait with an error. */
  failAll(makeError: (subject: Subject) => unknown): void {
    for (const waiter of this.#waiters) waiter.fail(makeError(waiter.subject));
  }
}

/** The error of a wait whose session was closed. */
export function closedMeanwhile(subject: Subject): VmciError {
  return new VmciError("INVALID_RESOURCE", { ...subject, reason: "this Vmci was closed meanwhile" });
}

/** The error of a wait that took too long. */
export function timedOut(subject: Subject, timeout: number): VmciError {
  return new VmciError("TIMEOUT", { ...subject, reason: `nothing came within ${timeout} ms` });
}

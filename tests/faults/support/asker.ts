/**
 * Asking a broker that may die or stop at any moment.
 *
 * @module
 */

import { now } from "./native_kill.ts";

/** Something that was not as it should be. */
export interface Fault {
  readonly what: string;
  /** When, by a clock that all processes share, in milliseconds. */
  readonly at: number;
  /** The context of whom it was about, if it was about somebody: that one may have been dead, and then it is none. */
  readonly about: number | null;
}

/** How somebody who asks is doing. */
export interface AskerReport {
  readonly faults: readonly Fault[];
  /** Calls that ended, since this was asked before. */
  readonly calls: number;
  /** Calls that ended with UNAVAILABLE, and were repeated. */
  readonly repeated: number;
  /** Milliseconds that one of them took at most. */
  readonly longestCall: number;
  /** The handles that were given. */
  readonly handles: readonly number[];
}

/** See the module's comment. */
export class Asker {
  /** The contexts that it was told are no more. */
  readonly gone: Set<number> = new Set();
  /** Calls that nobody answered in time, ever. */
  unanswered = 0;
  readonly #faults: Fault[] = [];
  readonly #handles: number[] = [];
  #calls = 0;
  #repeated = 0;
  #longestCall = 0;

  /** Notes something. */
  fault(what: string, about: number | null = null): void {
    this.#faults.push({ what, at: now(), about });
  }

  /** Notes a handle that was given. */
  given(resource: number): void {
    this.#handles.push(resource);
  }

  /**
   * Calls, and calls again when nobody answered in time, for as long as it is about somebody who is there.
   *
   * @param what What, for people.
   * @param action The call.
   * @param about The context of whom it is about.
   * @param done Codes that say that what was asked for before had been done.
   * @returns What it answers; `undefined` when it fails, which is noted.
   */
  async call<T>(
    what: string,
    action: () => T,
    about: number | null = null,
    done: readonly string[] = [],
  ): Promise<T | undefined> {
    for (let repeated = false;; repeated = true) {
      const begun = performance.now();
      try {
        return action();
      } catch (error) {
        const { code } = error as { code?: string };
        if (code !== "UNAVAILABLE") {
          if (!repeated || !done.includes(code!)) this.fault(`${what}: ${error}`, about);
          return undefined;
        }
        this.unanswered++;
      } finally {
        this.#calls++;
        this.#longestCall = Math.max(this.#longestCall, performance.now() - begun);
      }
      if (about !== null && this.gone.has(about)) return undefined;
      this.#repeated++;
      // Others are heard meanwhile.
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  /** How it is doing. */
  report(): AskerReport {
    const report = {
      faults: [...this.#faults],
      calls: this.#calls,
      repeated: this.#repeated,
      longestCall: this.#longestCall,
      handles: [...this.#handles],
    };
    this.#calls =
      this.#repeated =
      this.#longestCall =
      this.#handles.length =
        0;
    return report;
  }
}

/**
 * A queue that the library fills and a program reads as an async iterable.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import type { Session } from "./fabric/session.ts";
import type { WaitOptions } from "./lane/waiters.ts";

/** A program that reads nothing may fall so far behind; then reading fails instead of memory. */
const MOST = 65536;

const ENDED: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined });

/** See the module's comment. */
export class EventQueue<T> {
  readonly #session: Session;
  readonly #operation: string;
  readonly #items: T[] = [];
  #dropped = 0;
  #failure: VmciError | undefined;

  constructor(session: Session, operation: string) {
    this.#session = session;
    this.#operation = operation;
  }

  /** Puts an item in; whoever waits gets it. */
  push(item: T): void {
    if (this.#failure !== undefined) return;
    if (this.#items.length < MOST) this.#items.push(item);
    else this.#dropped++;
    this.#session.self.nudge();
  }

  /** There is nothing more to be put in: once all items are read, reading fails. */
  fail(error: VmciError): void {
    this.#failure = error;
    this.#session.self.nudge();
  }

  /** The items as they come, until the session is closed or the signal aborted; `done` is called once, at the end. */
  read(options: WaitOptions | undefined, done: () => void): AsyncIterableIterator<T, undefined> {
    const session = this.#session;
    let open = true;
    const end = (): IteratorReturnResult<undefined> => {
      if (open) {
        open = false;
        done();
        // Whoever waits for the next one waits no more.
        if (!session.closed) session.self.nudge();
      }
      return ENDED;
    };
    const look = () => open ? this.#next() : ENDED;
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async () => {
        if (!open || session.closed) return end();
        try {
          return await session.wait<IteratorResult<T, undefined>>({ operation: this.#operation }, look, options);
        } catch (error) {
          end();
          if (session.closed) return ENDED;
          throw error;
        }
      },
      return: () => Promise.resolve(end()),
    };
  }

  #next(): IteratorYieldResult<T> | undefined {
    const value = this.#shift();
    return value === undefined ? undefined : { done: false, value };
  }

  #shift(): T | undefined {
    const item = this.#items.shift();
    if (item !== undefined) return item;
    if (this.#dropped === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      return undefined;
    }
    const dropped = this.#dropped;
    this.#dropped = 0;
    throw new VmciError("NO_RESOURCES", {
      operation: this.#operation,
      reason: `${dropped} events were dropped, since ${MOST} were not read`,
    });
  }
}

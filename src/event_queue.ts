/**
 * A queue that the library fills and a program reads as an async iterable.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import type { Session } from "./fabric/session.ts";
import type { WaitOptions } from "./lane/waiting.ts";

/** A program that reads nothing may fall so far behind; then reading fails instead of memory. */
const MOST = 65536;

/** See the module's comment. */
export class EventQueue<T> {
  readonly #session: Session;
  readonly #operation: string;
  readonly #items: T[] = [];
  #dropped = 0;

  constructor(session: Session, operation: string) {
    this.#session = session;
    this.#operation = operation;
  }

  /** Puts an item in; whoever waits gets it. */
  push(item: T): void {
    if (this.#items.length < MOST) this.#items.push(item);
    else this.#dropped++;
    this.#session.self.nudge();
  }

  /** The items as they come, until the session is closed or the signal aborted; `done` is called at the end. */
  async *read(options: WaitOptions | undefined, done: () => void): AsyncIterableIterator<T> {
    try {
      while (!this.#session.closed) {
        let item: T;
        try {
          item = await this.#session.wait({ operation: this.#operation }, () => this.#shift(), options);
        } catch (error) {
          if (this.#session.closed) return;
          throw error;
        }
        yield item;
      }
    } finally {
      done();
    }
  }

  #shift(): T | undefined {
    const item = this.#items.shift();
    if (item !== undefined || this.#dropped === 0) return item;
    const dropped = this.#dropped;
    this.#dropped = 0;
    throw new VmciError("NO_RESOURCES", {
      operation: this.#operation,
      reason: `${dropped} events were dropped, since ${MOST} were not read`,
    });
  }
}

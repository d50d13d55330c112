/**
 * Requests that were given up before they were answered: the broker may have done them, or may still.
 *
 * @module
 */

import type { Operation } from "./protocol.ts";

/** What undoes something, or must not be done twice: the next broker is told that the one before may have done it. */
const REPEATABLE: ReadonlySet<Operation> = new Set<Operation>([
  "register",
  "unregister",
  "destroy",
  "revoke",
  "revoke_all",
  "remove_member",
]);

/** So many are remembered when a broker goes. */
const MOST_DOUBTFUL = 256;

/** A request as the program made it, by which it is known when the program makes it again. */
export interface Asked {
  /** The request. */
  readonly op: Operation;
  /** What it carries. */
  readonly args: unknown;
}

/** Whether a request that may have been done is to say so when it is made again. */
export function isRepeatable(op: Operation): boolean {
  return REPEATABLE.has(op);
}

/** See the module's comment. */
export class Unanswered {
  /** By id, as long as their replies may still come. */
  readonly #overdue = new Map<number, Asked>();
  /** Those that a broker never answered which is gone, as text. */
  readonly #doubtful: string[] = [];

  /** How many may still be answered. */
  get size(): number {
    return this.#overdue.size;
  }

  /** Adds one that was given up. */
  add(id: number, asked: Asked): void {
    this.#overdue.set(id, asked);
  }

  /** The one that this is the late reply to, which is answered then. */
  answered(id: number): Asked | undefined {
    const asked = this.#overdue.get(id);
    this.#overdue.delete(id);
    return asked;
  }

  /**
   * Whether the same was given up before: it may have been done, and the program, which was told that it may not, asks
   * for it again. What it did is not undone when its reply comes: it is what this request is to do.
   */
  claim({ op, args }: Asked): boolean {
    if (!isRepeatable(op)) return false;
    const text = textOf({ op, args });
    for (const [id, overdue] of this.#overdue) {
      if (textOf(overdue) === text) return this.#overdue.delete(id);
    }
    const place = this.#doubtful.indexOf(text);
    if (place >= 0) this.#doubtful.splice(place, 1);
    return place >= 0;
  }

  /** No reply comes any more. */
  brokerGone(): void {
    for (const asked of this.#overdue.values()) if (isRepeatable(asked.op)) this.#doubtful.push(textOf(asked));
    this.#doubtful.splice(0, this.#doubtful.length - MOST_DOUBTFUL);
    this.#overdue.clear();
  }
}

function textOf({ op, args }: Asked): string {
  return `${op} ${JSON.stringify(args)}`;
}

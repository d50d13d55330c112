/**
 * Watches of names, for a service that tells nothing unasked: they look now and then, and tell what has changed.
 *
 * @module
 */

import type { Notices } from "../fabric/protocol.ts";
import { PAGE_LENGTH } from "../fabric/protocol.ts";
import { type Handle, handlesEqual } from "../handle.ts";
import { PUBLIC_GROUP_NAME } from "../limits.ts";
import type { DsClient, FoundName } from "./ds_client.ts";

/** Milliseconds between two looks. */
const LOOK = 250;

interface Watch {
  readonly number: number;
  readonly prefix: string;
  readonly exact: boolean;
  readonly present: Map<string, Handle>;
  /** Whether it is looking. */
  looking: boolean;
  lookedAt: number;
}

/** See the module's comment. */
export class NameWatches {
  readonly #watches = new Map<number, Watch>();
  readonly #tell: (notice: Notices["name"]) => void;

  constructor(tell: (notice: Notices["name"]) => void) {
    this.#tell = tell;
  }

  /** When something is to be done next, in milliseconds; `Infinity` when nothing is. */
  get due(): number {
    let due = Infinity;
    for (const { looking, lookedAt } of this.#watches.values()) if (!looking) due = Math.min(due, lookedAt + LOOK);
    return due;
  }

  /** Begins a watch with the names that are there. */
  add(number: number, prefix: string, exact: boolean, found: readonly FoundName[]): void {
    const watch = { number, prefix, exact, present: new Map(), looking: false, lookedAt: performance.now() };
    this.#watches.set(number, watch);
    this.#apply(watch, found);
  }

  /** Ends a watch. */
  remove(number: number): void {
    this.#watches.delete(number);
  }

  /** Looks, when it is time. */
  work(client: DsClient, now: number): void {
    for (const watch of this.#watches.values()) {
      if (watch.looking || now - watch.lookedAt < LOOK) continue;
      watch.looking = true;
      client.look(watch.prefix, watch.exact, (found) => {
        watch.looking = false;
        watch.lookedAt = performance.now();
        // Without an answer nobody knows; the next look may.
        if (found !== undefined && this.#watches.get(watch.number) === watch) this.#apply(watch, found);
      });
    }
  }

  #apply({ number, present }: Watch, found: readonly FoundName[]): void {
    const now = new Map(found.map(({ name, handle }) => [name, handle]));
    const gone = [...present].filter(([name, handle]) => !same(now.get(name), handle));
    this.#say(number, "removed", gone);
    for (const [name] of gone) present.delete(name);
    const come = [...now].filter(([name]) => !present.has(name));
    this.#say(number, "added", come);
    for (const [name, handle] of come) present.set(name, handle);
  }

  #say(watch: number, change: "added" | "removed", names: readonly (readonly [string, Handle])[]): void {
    for (let at = 0; at < names.length; at += PAGE_LENGTH) {
      this.#tell({
        watch,
        change,
        entries: names.slice(at, at + PAGE_LENGTH).map(([name, handle]) => entry(name, handle)),
      });
    }
  }
}

/** A name as the protocol of the fabric has it. */
export function entry(name: string, handle: Handle): Notices["name"]["entries"][number] {
  return { name, handle, type: name === PUBLIC_GROUP_NAME ? "GROUP" : "DATAGRAM" };
}

function same(a: Handle | undefined, b: Handle): boolean {
  return a !== undefined && handlesEqual(a, b);
}

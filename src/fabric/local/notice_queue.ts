/**
 * What a client that does not read has not been told yet. A client may compute for minutes while others attach, detach
 * and name things: once much waits, what cancels or replaces something that it has not been told is not kept twice.
 *
 * @module
 */

import { formatHandle, type Handle } from "../../handle.ts";
import type { Message } from "../protocol.ts";

/** One packet that waits. */
export interface Waiting {
  /** The message. */
  readonly message: Message;
  /** The descriptors that go with it; the queue's. */
  readonly descriptors: readonly number[];
  /** Whether to ring for it. */
  readonly notify: boolean;
}

/** What becomes of an older notice about the same thing when a newer one comes. */
type Merge = (older: Message, newer: Message) => "both" | "newer" | "none";

interface Mergeable {
  /** What it is about. */
  readonly about: string;
  readonly merge: Merge;
  /** What need not be told any more, by what that is about. */
  readonly cancels?: string;
}

/** So many packets are all told: a moment without memory or room costs a client nothing of what it is told. */
const FEW = 64;

/** The newer one says all that is to be known. */
const replaces: Merge = () => "newer";

/** See the module's comment. */
export class NoticeQueue {
  readonly #waiting = new Map<number, Waiting>();
  readonly #latest = new Map<string, number>();
  #count = 0;
  #descriptors = 0;

  /** How many descriptors wait. */
  get descriptors(): number {
    return this.#descriptors;
  }

  /** How many packets wait. */
  get length(): number {
    return this.#waiting.size;
  }

  /** Adds a packet. */
  push(packet: Waiting): void {
    const mergeable = this.length >= FEW && packet.descriptors.length === 0 ? mergeableOf(packet.message) : undefined;
    if (mergeable !== undefined) {
      const { about, merge, cancels } = mergeable;
      if (cancels !== undefined) this.#drop(cancels);
      const older = this.#waiting.get(this.#latest.get(about) ?? -1);
      const kept = older === undefined ? "both" : merge(older.message, packet.message);
      if (kept !== "both") this.#drop(about);
      if (kept === "none") return;
      this.#latest.set(about, this.#count);
    }
    this.#waiting.set(this.#count++, packet);
    this.#descriptors += packet.descriptors.length;
  }

  #drop(about: string): void {
    const place = this.#latest.get(about);
    if (place === undefined) return;
    this.#waiting.delete(place);
    this.#latest.delete(about);
  }

  /** The packet that has waited longest. */
  first(): Waiting | undefined {
    for (const packet of this.#waiting.values()) return packet;
    return undefined;
  }

  /** Takes the first packet out. */
  shift(): void {
    for (const [place, { message, descriptors }] of this.#waiting) {
      this.#waiting.delete(place);
      this.#descriptors -= descriptors.length;
      const about = mergeableOf(message)?.about;
      if (about !== undefined && this.#latest.get(about) === place) this.#latest.delete(about);
      return;
    }
  }

  /** All that wait. */
  [Symbol.iterator](): Iterator<Waiting> {
    return this.#waiting.values();
  }
}

/** What a notice is about, and how it gets along with an older one about the same. */
function mergeableOf(message: Message): Mergeable | undefined {
  const { notice } = message;
  const handle = message.handle as Handle | undefined;
  const about = (...what: unknown[]) => `${notice} ${what.join(" ")}`;
  switch (notice) {
    case "region_peer":
      // Who came and went again was never there. (Who went and came again is told so: it may be another.)
      return {
        about: about(formatHandle(handle!), message.context),
        merge: (older, newer) => older.attached && !newer.attached ? "none" : "both",
      };
    case "name": {
      const [entry, ...others] = message.entries as { name: string }[];
      if (entry === undefined || others.length > 0) return undefined;
      return {
        about: about(message.watch, entry.name),
        merge: (older, newer) => older.change === "added" && newer.change === "removed" ? "none" : "both",
      };
    }
    case "context_added":
      return { about: `context ${message.context} added`, merge: replaces };
    case "context_removed":
      // Told in any case: who heard from it waits for that.
      return {
        about: `context ${message.context} removed`,
        merge: replaces,
        cancels: `context ${message.context} added`,
      };
    case "keep_grant":
      return {
        about: about(message.type, formatHandle(handle!), formatHandle((message.entry as { client: Handle }).client)),
        merge: replaces,
      };
    case "keep_name":
      return { about: about(message.type, formatHandle(handle!), message.name), merge: replaces };
    case "keep_member":
      return { about: about(formatHandle(handle!), (message.member as { context: number }).context), merge: replaces };
    case "region_peers":
      return { about: about(formatHandle(handle!)), merge: replaces };
  }
  return undefined;
}

/**
 * What a client that does not read has not been told yet. A client may compute for minutes while others attach, detach
 * and name things: once much waits, what cancels or replaces something that it has not been told is not kept twice, and
 * of names and contexts that come and go no more than so many.
 *
 * @module
 */

import { formatHandle, type Handle } from "../../handle.ts";
import { encodeMessage } from "./packet_codec.ts";
import type { AccessEntry, Message, NoticeName } from "../protocol.ts";

/** One packet that waits. */
export interface Waiting {
  /** The message. */
  readonly message: Message;
  /** The descriptors that go with it; the queue's. */
  readonly descriptors: readonly number[];
  /** Whether to ring for it. */
  readonly notify: boolean;
}

/** How a notice gets along with older ones. Each is named by what it is about. */
interface Mergeable {
  /** The newer one about the same replaces the older one. */
  readonly about: string;
  /** But of these both are told, as one. */
  readonly counted?: boolean;
  /** What it undoes: where that was not told yet, neither is. */
  readonly undoes?: string;
  /** What need not be told any more. */
  readonly cancels?: string;
}

/** A packet in its place. */
interface Placed {
  readonly packet: Waiting;
  /** What it is about, if it can be merged. */
  readonly about: string | undefined;
  /** Its bytes, if nothing else bounds it; 0 otherwise. */
  readonly caused: number;
}

/** So many packets are all told: a moment without memory or room costs a client nothing of what it is told. */
const FEW = 64;

/** What comes and goes without end, and what is said in place of more than so many of those. */
const MISSED: ReadonlyMap<unknown, NoticeName> = new Map<NoticeName, NoticeName>([
  ["name", "names_missed"],
  ["context_added", "contexts_missed"],
  ["context_removed", "contexts_missed"],
]);

/** So many packets of each. */
const MOST_OF_EACH = 1024;

/** Those that wait. */
interface Crowd {
  readonly places: Set<number>;
  /** Where it waits that there were too many. */
  missed: number | undefined;
}

/**
 * What others cause, but never more of it than what the client has makes possible: it is merged or missed here, or is
 * told once of each lane, peer, entry or resource, of which others can make no more while it does not read.
 */
const BOUNDED: ReadonlySet<unknown> = new Set<NoticeName>([
  "name",
  "names_missed",
  "context_added",
  "context_removed",
  "contexts_missed",
  "region_peer",
  "region_peers",
  "watcher",
  "keep_name",
  "lane_closed",
  "peer_gone",
  "resource_gone",
  "destroyed",
]);

/** See the module's comment. */
export class NoticeQueue {
  readonly #waiting = new Map<number, Placed>();
  readonly #latest = new Map<string, number>();
  readonly #crowds = new Map([...MISSED.values()].map((missed): [unknown, Crowd] => [
    missed,
    { places: new Set(), missed: undefined },
  ]));
  #count = 0;
  #caused = 0;
  #causedBytes = 0;
  #descriptors = 0;
  /** How often it was said who is attached: what comes and goes after that is not merged with what did before. */
  #attachedSaid = 0;

  /** How many descriptors wait. */
  get descriptors(): number {
    return this.#descriptors;
  }

  /** How many packets wait. */
  get length(): number {
    return this.#waiting.size;
  }

  /** How many of them nothing else bounds: as a rule the client caused them itself. */
  get caused(): number {
    return this.#caused;
  }

  /** How many bytes those have. */
  get causedBytes(): number {
    return this.#causedBytes;
  }

  /** Adds a packet. */
  push(packet: Waiting): void {
    const { notice } = packet.message;
    const crowd = this.#crowdOf(notice);
    // That some were missed says this too: it is not read yet, so what there is will be looked at later.
    if (crowd?.missed !== undefined) return;
    if (notice === "region_peers") this.#attachedSaid++;
    const mergeable = this.length >= FEW && packet.descriptors.length === 0
      ? this.#mergeableOf(packet.message)
      : undefined;
    // What takes something back is bounded as that is.
    const replaced = mergeable === undefined ? undefined : this.#latestOf(mergeable.about);
    const isBounded = BOUNDED.has(notice) || (takes(packet.message) && !replaced?.caused);
    if (mergeable !== undefined && this.#isMerged(mergeable)) return;
    const place = this.#count++;
    if (mergeable !== undefined) this.#latest.set(mergeable.about, place);
    const caused = isBounded ? 0 : encodeMessage(packet.message).length;
    this.#waiting.set(place, { packet, about: mergeable?.about, caused });
    this.#descriptors += packet.descriptors.length;
    this.#causedBytes += caused;
    if (caused > 0) this.#caused++;
    crowd?.places.add(place);
    if (crowd !== undefined && crowd.places.size > MOST_OF_EACH) this.#miss(crowd, MISSED.get(notice)!);
  }

  /** Merges a packet with those that wait; answers whether that is all that becomes of it. */
  #isMerged({ about, counted, undoes, cancels }: Mergeable): boolean {
    if (cancels !== undefined) this.#dropLatest(cancels);
    if (undoes !== undefined && this.#latest.has(undoes)) {
      this.#countLatest(undoes, -1);
      return true;
    }
    if (counted && this.#latest.has(about)) {
      this.#countLatest(about, 1);
      return true;
    }
    this.#dropLatest(about);
    return false;
  }

  /** Has what waits say that it was so many times more. */
  #countLatest(about: string, more: number): void {
    const place = this.#latest.get(about)!;
    const placed = this.#waiting.get(place)!;
    const { packet } = placed;
    const times = (packet.message.times as number | undefined ?? 1) + more;
    if (times === 0) this.#drop(place);
    else this.#waiting.set(place, { ...placed, packet: { ...packet, message: { ...packet.message, times } } });
  }

  #latestOf(about: string): Placed | undefined {
    const place = this.#latest.get(about);
    return place === undefined ? undefined : this.#waiting.get(place);
  }

  #dropLatest(about: string): void {
    const place = this.#latest.get(about);
    if (place !== undefined) this.#drop(place);
  }

  #crowdOf(notice: unknown): Crowd | undefined {
    return this.#crowds.get(MISSED.get(notice));
  }

  /** Says in place of the first of them that there were too many. */
  #miss(crowd: Crowd, notice: NoticeName): void {
    const [first, ...others] = crowd.places;
    others.forEach((place) => this.#drop(place));
    this.#drop(first!, { notice });
    crowd.missed = first;
  }

  /** Takes a packet out; something else may be told in its place. */
  #drop(place: number, instead?: Message): void {
    const { packet, about, caused } = this.#waiting.get(place)!;
    const { message, descriptors } = packet;
    if (instead === undefined) this.#waiting.delete(place);
    else this.#waiting.set(place, { packet: { ...packet, message: instead }, about: undefined, caused: 0 });
    this.#descriptors -= descriptors.length;
    this.#causedBytes -= caused;
    if (caused > 0) this.#caused--;
    this.#crowdOf(message.notice)?.places.delete(place);
    const missed = this.#crowds.get(message.notice);
    if (place === missed?.missed) missed.missed = undefined;
    if (about !== undefined && this.#latest.get(about) === place) this.#latest.delete(about);
  }

  /** The packet that has waited longest. */
  first(): Waiting | undefined {
    for (const { packet } of this.#waiting.values()) return packet;
    return undefined;
  }

  /** Takes the first packet out. */
  shift(): void {
    for (const place of this.#waiting.keys()) return this.#drop(place);
  }

  /** All that wait. */
  *[Symbol.iterator](): Iterator<Waiting> {
    for (const { packet } of this.#waiting.values()) yield packet;
  }

  /** What a notice is about, and how it gets along with older ones. */
  #mergeableOf(message: Message): Mergeable | undefined {
    const { notice } = message;
    const handle = message.handle as Handle | undefined;
    const about = (...what: unknown[]) => `${notice} ${what.join(" ")}`;
    switch (notice) {
      case "region_peer": {
        // Who came and went again was never there. (Who went and came again is told so: it may be another.)
        const whose = (attached: unknown) =>
          about(formatHandle(handle!), message.context, attached, this.#attachedSaid);
        const came = whose(true);
        return message.attached ? { about: came, counted: true } : { about: whose(false), counted: true, undoes: came };
      }
      case "name": {
        const [entry, ...others] = message.entries as { name: string }[];
        if (entry === undefined || others.length > 0) return undefined;
        const came = about(message.watch, "added", entry.name);
        return message.change === "added"
          ? { about: came }
          : { about: about(message.watch, "removed", entry.name), undoes: came };
      }
      case "peer_gone":
        return { about: about(message.peer) };
      case "watcher":
        return { about: about(formatHandle(handle!), message.peer) };
      case "context_added":
        return { about: `context ${message.context} added` };
      case "context_removed":
        // Told in any case: who heard from it waits for that.
        return { about: `context ${message.context} removed`, cancels: `context ${message.context} added` };
      case "keep_grant":
        return { about: about(message.type, formatHandle(handle!), formatHandle(clientOf(message))) };
      case "keep_name": {
        // What was given and taken again is as if it had never been. (Taken and given again it is another one.)
        const whose = (present: boolean) => about(message.type, formatHandle(handle!), present, message.name);
        return message.present ? { about: whose(true) } : { about: whose(false), undoes: whose(true) };
      }
      case "keep_member":
        return { about: about(formatHandle(handle!), (message.member as { context: number }).context) };
      case "region_peers":
        return { about: about(formatHandle(handle!)) };
    }
    return undefined;
  }
}

/** Whether it says that the client has something no more: of that there is no more than it has. */
function takes({ notice, present, entry }: Message): boolean {
  if (notice === "keep_member") return present === false;
  return notice === "keep_grant" && Object.keys((entry as AccessEntry).states).length === 0;
}

function clientOf({ entry }: Message): Handle {
  return (entry as AccessEntry).client;
}

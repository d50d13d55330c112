/**
 * What a client has made, with all that the next broker must know of it: a broker forgets everything when it dies, and
 * is told again by those whose it is.
 *
 * @module
 */

import { type ContextId, formatHandle, type Handle, handlesEqual } from "../handle.ts";
import type { ResourceTypeName } from "../privilege.ts";
import { PUBLIC_GROUP } from "./broker.ts";
import type { Share } from "./medium.ts";
import { type AccessEntry, type GroupMember, type Notices, PAGE_LENGTH, type Requests } from "./protocol.ts";

/** A resource that a client made. */
export interface Holding {
  /** What it is. */
  readonly type: ResourceTypeName;
  /** Its handle. */
  readonly handle: Handle;
  /** A region's size; else 0. */
  readonly size: number;
  /** Whether only its creator writes a region. */
  readonly creatorOnly: boolean;
  /** What proves to the next broker that this client has it. */
  readonly ticket: string;
  /** A region's memory. */
  readonly share: Share | undefined;
  /** Called when the broker says that somebody else destroyed it, or a new broker refused it. */
  readonly gone: () => void;
}

/** Something that the next broker is told, and what proves it. */
interface Proven<T> {
  readonly it: T;
  readonly ticket: string;
}

interface Kept extends Holding {
  readonly grants: Map<string, Proven<AccessEntry>>;
  readonly names: Map<string, Proven<string>>;
  readonly members: Map<ContextId, Proven<GroupMember>>;
}

/** See the module's comment. */
export class Holdings implements Iterable<Holding> {
  readonly #kept = new Map<string, Kept>();
  /** What is granted on something from the start: that is told before the reply that it was made. */
  #early: Notices["keep_grant"][] = [];
  /** Whether this client's context is in the public group, if that was ever changed. */
  #public: Notices["keep_member"] | undefined;

  /** Adds a resource. */
  keep(holding: Holding): void {
    this.#kept.set(key(holding.type, holding.handle), {
      ...holding,
      grants: new Map(),
      names: new Map(),
      members: new Map(),
    });
    const early = this.#early;
    this.#early = [];
    for (const grant of early) if (this.get(grant.type, grant.handle) !== undefined) this.keepGrant(grant);
  }

  /** The resource of that handle. */
  get(type: ResourceTypeName, handle: Handle): Holding | undefined {
    return this.#kept.get(key(type, handle));
  }

  /** Takes a resource out. */
  forget(type: ResourceTypeName, handle: Handle): void {
    this.#kept.delete(key(type, handle));
  }

  /** Whether others can find a resource by a name, so that it is in use though the program forgot it. */
  isNamed(type: ResourceTypeName, handle: Handle): boolean {
    return (this.#kept.get(key(type, handle))?.names.size ?? 0) > 0;
  }

  /** The broker changed what a client may do. */
  keepGrant(notice: Notices["keep_grant"]): void {
    const { type, handle, entry, ticket } = notice;
    const grants = this.#kept.get(key(type, handle))?.grants;
    if (grants === undefined) this.#early.push(notice);
    else if (Object.keys(entry.states).length > 0) grants.set(formatHandle(entry.client), { it: entry, ticket });
    else grants.delete(formatHandle(entry.client));
  }

  /** The broker gave a name, or took it. */
  keepName({ type, handle, name, present, ticket }: Notices["keep_name"]): void {
    if (!present) return this.loseName(type, handle, name);
    this.#kept.get(key(type, handle))?.names.set(name, { it: name, ticket });
  }

  /** A name is another's now. */
  loseName(type: ResourceTypeName, handle: Handle, name: string): void {
    this.#kept.get(key(type, handle))?.names.delete(name);
  }

  /** The broker put a context into a group, or out of it. */
  keepMember(notice: Notices["keep_member"]): void {
    const { handle, member, present, ticket } = notice;
    if (handlesEqual(handle, PUBLIC_GROUP)) this.#public = notice;
    const members = this.#kept.get(key("GROUP", handle))?.members;
    if (present) members?.set(member.context, { it: member, ticket });
    else members?.delete(member.context);
  }

  /** All that is to be said of a resource, in packets that are not too long. */
  *entries({ type, handle }: Holding): Iterable<Requests["announce_entries"]> {
    const { grants, names, members } = this.#kept.get(key(type, handle))!;
    const nothing = { type, handle, grants: [], names: [], members: [] };
    for (const page of pages([...grants.values()])) {
      yield { ...nothing, grants: page.map(said), tickets: page.map(proof) };
    }
    for (const page of pages([...names.values()])) {
      yield { ...nothing, names: page.map(said), tickets: page.map(proof) };
    }
    for (const page of pages([...members.values()])) {
      yield { ...nothing, members: page.map(said), tickets: page.map(proof) };
    }
  }

  /** What is to be said of the public group, if there is something. */
  publicEntries(): Requests["announce_entries"] | undefined {
    if (this.#public === undefined) return undefined;
    const { handle, member, present } = this.#public;
    return { type: "GROUP", handle, grants: [], names: [], members: present ? [member] : [], tickets: [] };
  }

  /** All resources. */
  [Symbol.iterator](): Iterator<Holding> {
    return this.#kept.values();
  }
}

/** Cuts a list into pieces that fit into a packet. */
export function* pages<T>(items: readonly T[]): Iterable<T[]> {
  for (let i = 0; i < items.length; i += PAGE_LENGTH) yield items.slice(i, i + PAGE_LENGTH);
}

function said<T>({ it }: Proven<T>): T {
  return it;
}

function proof({ ticket }: Proven<unknown>): string {
  return ticket;
}

function key(type: ResourceTypeName, handle: Handle): string {
  return `${type} ${formatHandle(handle)}`;
}

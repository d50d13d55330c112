/**
 * What the broker knows: contexts, clients, resources and lanes, and how they hang together.
 *
 * @module
 */

import { type ContextId, formatHandle, type Handle } from "../../handle.ts";
import type { ResourceTypeName } from "../../privilege.ts";
import { AccessList } from "../access_list.ts";
import type { RegionAccess, Share } from "../medium.ts";
import type { ContextSet } from "../policy.ts";
import type { GroupMember } from "../protocol.ts";
import type { Quota } from "../quota.ts";

const PAGE = 4096;

/** Who is at the other end of a connection, as the medium knows it; never from a message. */
export interface Identity {
  /** The process. */
  readonly pid: number;
  /** Its user. */
  readonly uid: number;
  /** Which contexts it may be: by the socket it came through, or by policy. */
  readonly contexts: ContextSet;
  /** Whether it may see everything and call itself TRUSTED: it has the broker's own user. */
  readonly privileged: boolean;
}

/** A virtual machine, or the host: where processes belong. */
export class Context {
  /** Its processes. */
  readonly clients: Set<Client> = new Set();
  /** Its groups: it leaves them when it goes. */
  readonly groups: Set<Group> = new Set();
  /** What it may hold. */
  quota: Quota;
  /** How many resources its processes have. */
  resources = 0;
  /** How many of them are regions. */
  regions = 0;
  /** How many bytes their regions have, in whole pages. */
  regionBytes = 0;
  /** How many attachments they have. */
  attachments = 0;
  /** How many names they have. */
  names = 0;
  /** How many entries the access lists of those resources have. */
  grants = 0;

  /**
   * @param id Its id.
   * @param chosenFlags The flags that its first process gave it, in force where no policy says others.
   * @param flags The flags in force.
   * @param quota What it may hold.
   */
  constructor(readonly id: ContextId, public chosenFlags: number, public flags: number, quota: Quota) {
    this.quota = quota;
  }
}

/** One connection: a process, or one of several `openVmci` in it. */
export class Client {
  /** Its number, once it said hello. */
  number = 0;
  /** Its context, once it said hello. */
  context: Context | undefined;
  /** What a new broker expects it by, once it said hello; `undefined` when none does. */
  survivor: string | undefined;
  /** Whether it only looks. */
  observer = false;
  /** Whether it says that it lived under the broker before. */
  returned = false;
  /** Whether it has not announced all that it had then. */
  announcing = false;
  /** How many packets wait for it to read them, as the medium counts them. */
  unread = 0;
  /** Its questions whether somebody turns his loop, that are not answered yet: of whom each was asked. */
  readonly pings: Map<number, Client> = new Map();
  /** Whether it wants to know of contexts that go. */
  subscribed = false;
  /** Its attention word, to be handed to its peers. */
  attention: Share | undefined;
  /** What it made. */
  readonly resources: Set<Resource> = new Set();
  /** What it is attached to, and how often. */
  readonly attachments: Map<Region, number> = new Map();
  /** The lanes into it. */
  readonly incoming: Set<Lane> = new Set();
  /** The numbers of those that are over, and where they ended, until it says that it has read what was left in them. */
  readonly leftover: Map<number, Endpoint> = new Map();
  /** The lanes out of it. */
  readonly outgoing: Set<Lane> = new Set();
  /** Where it sent to until the bell between them was lost. */
  readonly lost: Set<Endpoint> = new Set();
  /** The numbers of those it has a bell with. */
  readonly peers: Set<number> = new Set();
  /** Those of them that it has announced itself, or got from this broker, as long as it announces. */
  readonly ownPeers: Set<number> = new Set();
  /** The names it watches, by its own number for the watch. */
  readonly watches: Map<number, NameWatch> = new Map();

  constructor(readonly identity: Identity) {}
}

/** What a client wants to know of names. */
export interface NameWatch {
  /** How they begin, or the whole name. */
  readonly prefix: string;
  /** Whether it is the whole name. */
  readonly exact: boolean;
}

abstract class ResourceBase {
  abstract readonly type: ResourceTypeName;
  /** Who may do what. */
  readonly access: AccessList = new AccessList();
  /** The names registered for it, each with the number of the fabric as which it was: of two owners the later one has it. */
  readonly names: Map<string, number> = new Map();

  /**
   * @param handle Its handle.
   * @param ownerContext The context that may do everything with it.
   * @param owner The process that made it; `undefined` when it is gone, or for what the broker made.
   */
  constructor(readonly handle: Handle, readonly ownerContext: ContextId, public owner: Client | undefined) {}
}

/** A datagram handle. */
export class Endpoint extends ResourceBase {
  readonly type = "DATAGRAM";
  /** The lanes that end here. */
  readonly lanes: Set<Lane> = new Set();
  /** The numbers of those that are over, until what was left in them is read. */
  readonly leftover: Set<number> = new Set();
  /** Who sent here until the bell between them was lost: it may be the first sign that this goes, and they are told. */
  readonly lost: Set<Client> = new Set();

  /** @param serial Which number of the fabric it is, if it is well-known: of two owners the later one has it. */
  constructor(handle: Handle, ownerContext: ContextId, owner: Client, readonly serial: number = 0) {
    super(handle, ownerContext, owner);
  }
}

/** A shared-memory region. */
export class Region extends ResourceBase {
  readonly type = "SHAREDMEM";
  /** Who is attached, and how often. */
  readonly attachments: Map<Client, number> = new Map();
  /** Who wants to be rung when it changes. */
  readonly watchers: Set<Client> = new Set();

  /**
   * @param share Its memory, as long as its creator is attached.
   * @param size The size asked for in bytes.
   * @param writers Who may write.
   */
  constructor(
    handle: Handle,
    ownerContext: ContextId,
    owner: Client | undefined,
    public share: Share | undefined,
    readonly size: number,
    readonly writers: RegionAccess,
  ) {
    super(handle, ownerContext, owner);
  }
}

/** A group of contexts. */
export class Group extends ResourceBase {
  readonly type = "GROUP";
  /** Its members by context id. */
  readonly members: Map<ContextId, GroupMember> = new Map();
}

/** Any resource. */
export type Resource = Endpoint | Region | Group;

/** A way from one source to one destination. */
export interface Lane {
  /** Its number. */
  readonly number: number;
  /** The handle that its datagrams come from, or the invalid handle. */
  readonly source: Handle;
  /** Who sends. */
  readonly sender: Client;
  /** Where they go. */
  readonly destination: Endpoint;
}

/** The resources, keyed by type and handle: two of different type may share a handle. */
export class ResourceTable {
  readonly #byType: Readonly<Record<ResourceTypeName, Map<string, Resource>>> = {
    GROUP: new Map(),
    DATAGRAM: new Map(),
    SHAREDMEM: new Map(),
  };

  /** Puts a resource in. */
  add(resource: Resource): void {
    this.#byType[resource.type].set(formatHandle(resource.handle), resource);
  }

  /** Takes a resource out. */
  remove(resource: Resource): void {
    this.#byType[resource.type].delete(formatHandle(resource.handle));
  }

  /** The endpoint of that handle. */
  endpoint(handle: Handle): Endpoint | undefined {
    return this.#byType.DATAGRAM.get(formatHandle(handle)) as Endpoint | undefined;
  }

  /** The region of that handle. */
  region(handle: Handle): Region | undefined {
    return this.#byType.SHAREDMEM.get(formatHandle(handle)) as Region | undefined;
  }

  /** The group of that handle. */
  group(handle: Handle): Group | undefined {
    return this.#byType.GROUP.get(formatHandle(handle)) as Group | undefined;
  }

  /** The resource of that type and handle. */
  get(type: ResourceTypeName, handle: Handle): Resource | undefined {
    return this.#byType[type].get(formatHandle(handle));
  }

  /** The resource of that handle, whatever its type. */
  find(handle: Handle): Resource | undefined {
    return this.group(handle) ?? this.endpoint(handle) ?? this.region(handle);
  }

  /** All of them. */
  *[Symbol.iterator](): Iterator<Resource> {
    for (const table of Object.values(this.#byType)) yield* table.values();
  }
}

/** A client's context. One without a context is refused everything but hello, before anything else is looked at. */
export function contextOf(client: Client): Context {
  return client.context!;
}

/** What a region of that size takes in bytes. */
export function wholePages(size: number): number {
  return Math.ceil(size / PAGE) * PAGE;
}

/**
 * What clients and the broker say to each other: JSON objects, each in one packet. Every field that arrives is checked
 * against the tables here and copied into a fresh object; what is not in the table is not looked at.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { type Handle, isHandle, isId } from "../handle.ts";
import { type ErrorCodeName, ResultCode, type ResultCodeName } from "../result_code.ts";
import { Privilege, type PrivilegeName, ResourceType, type ResourceTypeName } from "../privilege.ts";
import { MAX_NAME_SIZE } from "../limits.ts";

/** The version of this protocol. Both sides must have the same. */
export const PROTOCOL_VERSION = 1;

/** The most entries that one packet lists: names of 276 bytes, each escaped, must fit into 64 KiB. */
export const PAGE_LENGTH = 32;

/** One message: a JSON object. */
export type Message = Readonly<Record<string, unknown>>;

/** The state of one privilege in an entry of an access list. */
export type PrivilegeState = "ALLOW" | "DENY";

/** One client's entry in a resource's access list. */
export interface AccessEntry {
  /** A context (`resource` 0) or a group. */
  readonly client: Handle;
  /** What is set. */
  readonly states: Readonly<Partial<Record<PrivilegeName, PrivilegeState>>>;
}

/** One member of a group. */
export interface GroupMember {
  /** The member's context. */
  readonly context: number;
  /** Whether it may name the group in its own grants. */
  readonly canAssign: boolean;
  /** Members joined in this order. */
  readonly order: number;
}

/** One name and what it stands for. */
export interface NameEntry {
  /** The name. */
  readonly name: string;
  /** The handle registered under it. */
  readonly handle: Handle;
  /** What kind of resource it is. */
  readonly type: ResourceTypeName;
}

/** What can be listed with `inspect`. */
export type InspectTopic = "contexts" | "resources" | "attachments" | "lanes";

/** A request that must not fail because the broker before did it and died before it said so. */
export interface Repeatable {
  /** Whether it was sent before, to a broker that died. */
  readonly repeated?: boolean;
}

/** The requests by name, with what each carries. Shares that go with it are named in the comment. */
export interface Requests {
  /** The first one. Share: the attention word. Reply's shares: the notice word, the broker's bell. */
  hello: {
    protocol: number;
    version: string;
    context: number | null;
    flags: number;
    slot: number;
    client: number | null;
    ticket: string | null;
    observer: boolean;
  };
  /** To a new broker: an endpoint, a region (share: its memory) or a group that is mine. */
  announce_resource: {
    type: ResourceTypeName;
    handle: Handle;
    size: number;
    creatorOnly: boolean;
    ticket: string | null;
  };
  /** To a new broker: what belongs to such a resource, or my context in the public group. */
  announce_entries: {
    type: ResourceTypeName;
    handle: Handle;
    grants: AccessEntry[];
    names: string[];
    members: GroupMember[];
    /** What proves each of these, in this order. */
    tickets: string[];
  };
  /** To a new broker: a region I am attached to. */
  announce_attachment: {
    handle: Handle;
    count: number;
    size: number;
    creatorOnly: boolean;
    ticket: string | null;
  };
  /** To a new broker: one end of a lane. */
  announce_lane: { lane: number; source: Handle; destination: Handle; sender: boolean; ticket: string };
  /** To a new broker: the clients I have a bell with. */
  announce_peers: { peers: number[] };
  /** To a new broker: that was all. */
  announced: Record<never, never>;
  /** Makes a datagram handle. */
  create_endpoint: { resource: number | null; wellKnown: boolean };
  /** Makes a region. Share: its memory. */
  create_region: { size: number; creatorOnly: boolean };
  /** Makes a group. */
  create_group: Record<never, never>;
  /** Destroys an endpoint or a group. */
  destroy: { type: ResourceTypeName; handle: Handle } & Repeatable;
  /** Opens the way from a source to a destination. Reply's shares: the lane; if `fresh`, bell and peer's attention. */
  open_lane: { source: Handle; destination: Handle };
  /** The bell between me and this client is gone: there are no lanes between us, and the next one needs a new bell. */
  forget_peer: { peer: number };
  /**
   * Closes a lane: its sender is done with it, or its receiver found nonsense in it, or cannot have it. Of one that ended,
   * its receiver says so that nothing is left in it: until then it counts.
   */
  close_lane: { lane: number };
  /** The size of a region. */
  query: { handle: Handle };
  /** Attaches. Reply's share: the memory. */
  attach: { handle: Handle };
  /** Detaches. */
  detach: { handle: Handle };
  /** Asks the writers of a region to ring when they change it. */
  watch_region: { handle: Handle };
  /** Sets privileges. */
  grant: { resource: Handle; client: Handle; allow: PrivilegeName[]; deny: PrivilegeName[] };
  /** Unsets privileges. */
  revoke: { resource: Handle; client: Handle; privileges: PrivilegeName[] } & Repeatable;
  /** Removes an entry. */
  revoke_all: { resource: Handle; client: Handle } & Repeatable;
  /** What a client may do, and which entry says so. */
  check: { resource: Handle; client: Handle; privilege: PrivilegeName };
  /** Adds a context to a group. */
  add_member: { group: Handle; member: number; canAssign: boolean };
  /** Removes a context from a group. */
  remove_member: { group: Handle; member: number } & Repeatable;
  /** Whether a context is in a group. */
  is_member: { group: Handle; member: number };
  /** Registers a name. */
  register: { name: string; handle: Handle } & Repeatable;
  /** Looks a name up. */
  lookup: { name: string };
  /** Removes a name. */
  unregister: { name: string } & Repeatable;
  /** Lists names by prefix, a page at a time, in byte order. */
  list: { prefix: string; after: string | null };
  /** Asks to be told of names that come and go; those that are there are told first, before the reply. */
  watch_names: { watch: number; prefix: string; exact: boolean };
  /** Enough of that. */
  unwatch_names: { watch: number };
  /** Asks to be told of contexts that come and go, and which there are. */
  subscribe: Record<never, never>;
  /** Lists what the broker knows, a page at a time. */
  inspect: { topic: InspectTopic; after: number };
  /** Asks whether the process behind a handle turns its event loop. */
  ping: { handle: Handle; token: number };
  /** It does. */
  pong: { client: number; token: number };
  /** The last one: this client is about to close. */
  bye: Record<never, never>;
}

/** The name of a request. */
export type Operation = keyof Requests;

/** What each request is answered with. */
export interface Results {
  hello: {
    client: number;
    context: number;
    flags: number;
    version: string;
    pid: number;
    kind: string;
    ticket: string;
  };
  announce_resource: { accepted: boolean };
  announce_entries: { refused: string[] };
  announce_attachment: { accepted: boolean };
  announce_lane: { accepted: boolean };
  announce_peers: Record<never, never>;
  announced: Record<never, never>;
  create_endpoint: { handle: Handle; ticket: string };
  create_region: { handle: Handle; ticket: string; attachment: string };
  create_group: { handle: Handle; ticket: string };
  destroy: Record<never, never>;
  open_lane: { lane: number; peer: number; fresh: boolean; ticket: string };
  forget_peer: Record<never, never>;
  close_lane: Record<never, never>;
  query: { size: number };
  attach: {
    size: number;
    creatorOnly: boolean;
    writable: boolean;
    attachment: string;
    /** The contexts of the other processes attached, when this is the first attachment of this one. */
    peers: number[] | null;
  };
  detach: { last: boolean };
  watch_region: Record<never, never>;
  grant: Record<never, never>;
  revoke: Record<never, never>;
  revoke_all: Record<never, never>;
  check: { code: ResultCodeName; decidedBy: Handle | null; via: "owner" | "own" | "group" | "flags" | "nothing" };
  add_member: Record<never, never>;
  remove_member: Record<never, never>;
  is_member: { member: boolean };
  register: Record<never, never>;
  lookup: { handle: Handle };
  unregister: Record<never, never>;
  list: { entries: NameEntry[]; more: boolean };
  watch_names: Record<never, never>;
  unwatch_names: Record<never, never>;
  subscribe: { contexts: number[] };
  inspect: { entries: Message[]; next: number | null };
  ping: { pid: number };
  pong: Record<never, never>;
  bye: { last: boolean };
}

/** What the broker says unasked. Shares that go with it are named in the comment. */
export interface Notices {
  /** Somebody sends to you. Shares: the lane; if `fresh`, bell and sender's attention. */
  lane: { lane: number; source: Handle; destination: Handle; peer: number; fresh: boolean; ticket: string };
  /** A lane is closed, seen from its sender (`revoked`, `gone`) or its receiver (`revoked`, `ended`). */
  lane_closed: { lane: number; cause: "revoked" | "gone" | "ended" };
  /** A client is gone. */
  peer_gone: { peer: number };
  /** You have a bell with this client now. Shares: bell, its attention word. */
  peer: { peer: number };
  /** This client wants to be rung when you change the region. */
  watcher: { handle: Handle; peer: number };
  /** Somebody destroyed your resource. */
  destroyed: { type: ResourceTypeName; handle: Handle };
  /** Keep this for the next broker: an entry of your resource's access list; nothing set means it is gone. */
  keep_grant: { type: ResourceTypeName; handle: Handle; entry: AccessEntry; ticket: string };
  /** Keep this for the next broker: a name of your resource. */
  keep_name: { type: ResourceTypeName; handle: Handle; name: string; present: boolean; ticket: string };
  /** Keep this for the next broker: a member of your group, or your context in or out of the public group. */
  keep_member: { handle: Handle; member: GroupMember; present: boolean; ticket: string };
  /** Watched names came or went. */
  name: { watch: number; change: "added" | "removed"; entries: NameEntry[] };
  /** More watched names came or went than were kept for you: list what there is. */
  names_missed: Record<never, never>;
  /** Everybody who lived under the broker before has announced, or will not. To subscribers: the contexts there are. */
  settled: { contexts: number[] };
  /** A context is new. */
  context_added: { context: number };
  /** A context is gone. */
  context_removed: { context: number };
  /** More contexts came or went than were kept for you: subscribe again. */
  contexts_missed: Record<never, never>;
  /** A resource you use is gone. */
  resource_gone: { type: ResourceTypeName; handle: Handle };
  /** Somebody attached to or detached from a region of yours; so many times, unless once. */
  region_peer: { handle: Handle; context: number; attached: boolean; times?: number };
  /** Who else is attached to a region of yours, under a new broker: the context of each process. */
  region_peers: { handle: Handle; contexts: number[] };
  /** Answers a ping. */
  ping: { client: number; token: number };
  /** The process you pinged turned its loop. */
  pong: { token: number };
}

/** The name of a notice. */
export type NoticeName = keyof Notices;

/**
 * What a client may tell without waiting for an answer, by the id 0. It is given none: answers that nobody reads would be
 * in the way of notices.
 */
export const TOLD: ReadonlySet<unknown> = new Set<Operation>([
  "close_lane",
  "forget_peer",
  "detach",
  "destroy",
  "unregister",
  "unwatch_names",
  "pong",
]);

/** Notices that nobody is held up by: who sleeps may be woken for several of them at once. */
export const UNHURRIED: ReadonlySet<unknown> = new Set<NoticeName>([
  "keep_grant",
  "keep_name",
  "keep_member",
  "region_peer",
  "region_peers",
]);

type Field<T> = (value: unknown) => T;

/** Thrown by a field; its message completes "the field x". */
class Misfit extends Error {}

function id(value: unknown): number {
  if (!isId(value)) throw new Misfit("must be an unsigned 32-bit number");
  return value;
}

function integer(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw new Misfit("must be a whole number");
  return value as number;
}

function boolean(value: unknown): boolean {
  if (typeof value !== "boolean") throw new Misfit("must be true or false");
  return value;
}

function text(value: unknown): string {
  if (typeof value !== "string" || value.length > 4096) throw new Misfit("must be a text of at most 4096 characters");
  return value;
}

function handle(value: unknown): Handle {
  if (!isHandle(value)) throw new Misfit("must be a handle");
  return { context: value.context, resource: value.resource };
}

function name(value: unknown): string {
  const reason = typeof value === "string" ? nameFault(value) : "must be a text";
  if (reason !== undefined) throw new Misfit(reason);
  return value as string;
}

function oneOf<T extends string>(...allowed: readonly T[]): Field<T> {
  return (value) => {
    if (!allowed.includes(value as T)) throw new Misfit(`must be one of ${allowed.join(", ")}`);
    return value as T;
  };
}

function orNull<T>(field: Field<T>): Field<T | null> {
  return (value) => value === null ? null : field(value);
}

/** A field that may be left out: null then. */
function orMissing<T>(field: Field<T>): Field<T | null> {
  return (value) => value === null || value === undefined ? null : field(value);
}

/** A field that may be left out: false then. */
function flag(value: unknown): boolean {
  return value === undefined ? false : boolean(value);
}

function listOf<T>(field: Field<T>, most = PAGE_LENGTH): Field<T[]> {
  return (value) => {
    if (!Array.isArray(value) || value.length > most) throw new Misfit(`must be a list of at most ${most}`);
    return value.map(field);
  };
}

function record<T>(fields: { readonly [K in keyof T]-?: Field<T[K]> }): Field<T> {
  return (value) => {
    if (typeof value !== "object" || value === null) throw new Misfit("must be an object");
    return copyFields(fields, value as Message) as T;
  };
}

const privilege = oneOf(...Object.keys(Privilege) as PrivilegeName[]);
const resourceType = oneOf(...Object.keys(ResourceType) as ResourceTypeName[]);
const privilegeState = oneOf<PrivilegeState>("ALLOW", "DENY");

function states(value: unknown): AccessEntry["states"] {
  if (typeof value !== "object" || value === null) throw new Misfit("must be an object");
  const result: Partial<Record<PrivilegeName, PrivilegeState>> = {};
  for (const [key, state] of Object.entries(value)) result[privilege(key)] = privilegeState(state);
  return result;
}

const accessEntry = record<AccessEntry>({ client: handle, states });
const groupMember = record<GroupMember>({ context: id, canAssign: boolean, order: id });

const requests: { readonly [O in Operation]: { readonly [K in keyof Requests[O]]-?: Field<Requests[O][K]> } } = {
  hello: {
    protocol: integer,
    version: text,
    context: orNull(id),
    flags: id,
    slot: integer,
    client: orNull(id),
    ticket: orMissing(text),
    observer: boolean,
  },
  announce_resource: { type: resourceType, handle, size: id, creatorOnly: boolean, ticket: orMissing(text) },
  announce_entries: {
    type: resourceType,
    handle,
    grants: listOf(accessEntry),
    names: listOf(name),
    members: listOf(groupMember),
    tickets: listOf(text),
  },
  announce_attachment: { handle, count: id, size: id, creatorOnly: boolean, ticket: orMissing(text) },
  announce_lane: { lane: id, source: handle, destination: handle, sender: boolean, ticket: text },
  announce_peers: { peers: listOf(id) },
  announced: {},
  create_endpoint: { resource: orNull(id), wellKnown: boolean },
  create_region: { size: id, creatorOnly: boolean },
  create_group: {},
  destroy: { type: resourceType, handle, repeated: flag },
  open_lane: { source: handle, destination: handle },
  forget_peer: { peer: id },
  close_lane: { lane: id },
  query: { handle },
  attach: { handle },
  detach: { handle },
  watch_region: { handle },
  grant: { resource: handle, client: handle, allow: listOf(privilege), deny: listOf(privilege) },
  revoke: { resource: handle, client: handle, privileges: listOf(privilege), repeated: flag },
  revoke_all: { resource: handle, client: handle, repeated: flag },
  check: { resource: handle, client: handle, privilege },
  add_member: { group: handle, member: id, canAssign: boolean },
  remove_member: { group: handle, member: id, repeated: flag },
  is_member: { group: handle, member: id },
  register: { name, handle, repeated: flag },
  lookup: { name },
  unregister: { name, repeated: flag },
  list: { prefix: name, after: orNull(name) },
  watch_names: { watch: id, prefix: name, exact: boolean },
  unwatch_names: { watch: id },
  subscribe: {},
  inspect: { topic: oneOf<InspectTopic>("contexts", "resources", "attachments", "lanes"), after: integer },
  ping: { handle, token: id },
  pong: { client: id, token: id },
  bye: {},
};

/** One request, checked. */
export type CheckedRequest = {
  [O in Operation]: { readonly id: number; readonly op: O; readonly args: Requests[O] };
}[Operation];

/**
 * Checks a message that should be a request.
 *
 * @param message What arrived.
 * @returns The request, every field copied.
 * @throws {VmciError} INVALID_ARGS with the field that does not fit.
 */
export function checkRequest(message: Message): CheckedRequest {
  const op = message.op;
  if (typeof op !== "string" || !Object.hasOwn(requests, op)) {
    throw new VmciError("INVALID_ARGS", { operation: "read a request", reason: `there is no operation ${show(op)}` });
  }
  try {
    const args = typeof message.args === "object" && message.args !== null ? message.args as Message : {};
    return { id: requestId(message), op, args: copyFields(requests[op as Operation], args) } as CheckedRequest;
  } catch (error) {
    if (!(error instanceof Misfit)) throw error;
    throw new VmciError("INVALID_ARGS", { operation: op, reason: error.message });
  }
}

/** The id of a request, or 0 when it has none: so much can be read even of a request that does not fit. */
export function requestId(message: Message): number {
  return isId(message.id) ? message.id : 0;
}

/** A failure as it travels. */
export interface WireError {
  /** The SDK's name of the code. */
  readonly code: ErrorCodeName;
  /** Why. */
  readonly reason: string;
}

/** Reads the failure in a reply, or `undefined` when it is not one. */
export function replyError(message: Message): WireError | undefined {
  const error = message.error as Partial<WireError> | undefined;
  if (error === undefined) return undefined;
  const code = typeof error.code === "string" && Object.hasOwn(ResultCode, error.code) ? error.code : "GENERIC";
  return { code: code as ErrorCodeName, reason: String(error.reason) };
}

/**
 * What is wrong with a name, if anything.
 *
 * @param value The name.
 * @returns A phrase that completes "the name", or `undefined` when it can be registered.
 */
export function nameFault(value: string): string | undefined {
  if (value.includes("\0")) return "must not contain a NUL character";
  if (!value.isWellFormed()) return "must be well-formed Unicode: it has half of a surrogate pair";
  const size = new TextEncoder().encode(value).length;
  return size > MAX_NAME_SIZE ? `must have at most ${MAX_NAME_SIZE} bytes of UTF-8: it has ${size}` : undefined;
}

function copyFields(fields: Readonly<Record<string, Field<unknown>>>, from: Message): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(fields)) {
    try {
      result[key] = field(from[key]);
    } catch (error) {
      if (!(error instanceof Misfit)) throw error;
      throw new Misfit(`the field '${key}' ${error.message}`);
    }
  }
  return result;
}

function show(value: unknown): string {
  return typeof value === "string" ? `'${value.slice(0, 64)}'` : typeof value;
}

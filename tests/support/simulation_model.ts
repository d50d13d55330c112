/**
 * What a broker should answer, and whom it should tell what, said once more and as simply as can be: lists are searched,
 * nothing is counted before it is asked for, and what nobody may any more is looked for everywhere after each request.
 *
 * A broker that dies takes all of it along. What comes back is what each client says it was told; until all have said
 * so, nobody is told no, and no lane is closed for want of a right that may yet be announced.
 *
 * @module
 */

import type { ErrorCodeName, Handle, PrivilegeName, ResourceTypeName } from "../../mod.ts";
import type { AccessEntry, GroupMember, NameEntry, NoticeName, Notices } from "../../src/fabric/protocol.ts";
import type { Quota } from "../../src/fabric/quota.ts";

/** A client that said hello. */
export interface Person {
  readonly pid: number;
  readonly context: number;
  readonly number: number;
  readonly slot: number;
  readonly privileged: boolean;
  subscribed: boolean;
  /** Those it has a bell with, by number. */
  readonly bells: Set<number>;
  /** The bells that it said it has, or got meanwhile; as long as it announces. */
  vouched: Set<number> | undefined;
  /** What it asked by ping and was not answered yet, and whom. */
  pings: { readonly token: number; readonly asked: Person }[];
  readonly watches: Map<number, { readonly prefix: string; readonly exact: boolean }>;
}

/** A resource. Its owner is undefined when only others are attached to it. */
export interface Thing {
  readonly type: ResourceTypeName;
  readonly handle: Handle;
  /** The context that may do everything with it. */
  readonly context: number;
  readonly size: number;
  readonly creatorOnly: boolean;
  owner: Person | undefined;
}

interface Entry {
  readonly thing: Thing;
  readonly client: Handle;
  readonly privilege: PrivilegeName;
  readonly state: "ALLOW" | "DENY";
}

interface Member extends GroupMember {
  readonly group: Thing;
}

interface Attachment {
  readonly person: Person;
  readonly region: Thing;
  count: number;
  watches: boolean;
}

interface Lane {
  readonly number: number;
  readonly source: Handle;
  readonly sender: Person;
  readonly destination: Thing;
}

interface HalfLane {
  readonly person: Person;
  readonly lane: number;
  readonly source: Handle;
  readonly destination: Handle;
  readonly sender: boolean;
}

interface ContextState {
  /** What its first process said of it. */
  chosen: number;
  flags: number;
  quota: Quota;
}

/** What holds for contexts: the fabric's, or a policy's. */
export interface Rules {
  quotaOf(context: number): Quota;
  flagsOf(context: number): number | undefined;
  /** What is granted on a new resource. */
  readonly grants: readonly { readonly type: ResourceTypeName; readonly privilege: PrivilegeName }[];
}

/** One request of a client. */
export interface Request {
  readonly id: number;
  readonly op: string;
  // deno-lint-ignore no-explicit-any
  readonly args: any;
}

/** An answer to a request. */
export interface Answer {
  readonly person: Person;
  readonly id: number;
  readonly outcome: { readonly result: unknown } | { readonly code: ErrorCodeName };
}

/** One thing that somebody should be told. */
export interface Told {
  readonly person: Person;
  readonly notice: NoticeName;
  readonly body: unknown;
}

/** Numbers that only the broker can choose: they are taken from its answer. */
export interface Made {
  readonly handle?: Handle;
  readonly lane?: number;
  readonly client?: number;
}

/** What the model refuses, by its code. */
class Refused extends Error {
  constructor(readonly code: ErrorCodeName) {
    super(code);
  }
}

export const PUBLIC: Handle = { context: 2, resource: 1024 };
const PUBLIC_NAME = "vmci public group";
const [RESTRICTED, TRUSTED] = [1, 2];
const HOST = 2;
const WELL_KNOWN = 1;

/** The privileges of each kind of resource. */
export const VALID: Readonly<Record<ResourceTypeName, readonly PrivilegeName[]>> = {
  DATAGRAM: ["CH_PRIV", "DESTROY_RESOURCE", "DG_SEND"],
  SHAREDMEM: ["CH_PRIV", "DESTROY_RESOURCE", "SM_ATTACH"],
  GROUP: ["CH_PRIV", "DESTROY_RESOURCE", "ASSIGN_CLIENT"],
};

/** Waits for all to have announced even where the answer would be yes. */
const NEEDS_ALL = new Set(["register", "list", "detach", "is_member", "check"]);
/** Never waits. */
const NEVER_WAITS = new Set([
  "hello",
  "announce_resource",
  "announce_entries",
  "announce_attachment",
  "announce_lane",
  "announce_peers",
  "announced",
  "create_region",
  "subscribe",
  "watch_names",
  "unwatch_names",
  "pong",
]);

function refuse(when: boolean, code: ErrorCodeName): void {
  if (when) throw new Refused(code);
}

export function same(a: Handle, b: Handle): boolean {
  return a.context === b.context && a.resource === b.resource;
}

/** What a region takes of its context's quota. */
export function pages(size: number): number {
  return Math.ceil(size / 4096) * 4096;
}

/** See the module's comment. */
export class SimulationModel {
  people: Person[] = [];
  things: Thing[] = [];
  entries: Entry[] = [];
  members: Member[] = [];
  names: { readonly name: string; readonly thing: Thing }[] = [];
  attachments: Attachment[] = [];
  lanes: Lane[] = [];
  /** Those that are over, until their receivers say that nothing is left in them. */
  unread: Lane[] = [];
  readonly contexts: Map<number, ContextState> = new Map();
  /** The slots of those who have not announced all. */
  readonly awaited: Set<number> = new Set();
  /** What the step under way answers. */
  answers: Answer[] = [];
  /** What the step under way tells. */
  told: Told[] = [];
  /** What the medium refuses in the step under way. */
  failing: "makeLane" | "makeBell" | undefined;
  /** The numbers the broker chose in the step under way, by client and request. */
  made: (person: Person, id: number) => Made = () => ({});
  #halfLanes: HalfLane[] = [];
  /** Who sent where until the bell between them was lost. */
  #bereft: { readonly person: Person; readonly destination: Thing }[] = [];
  #waiting: { readonly person: Person; readonly request: Request }[] = [];
  /** What joins under this broker comes after whatever joined under those before, whose numbers are smaller. */
  #order = 2 ** 32;
  readonly #public: Thing = {
    type: "GROUP",
    handle: PUBLIC,
    context: 0,
    size: 0,
    creatorOnly: false,
    owner: undefined,
  };

  constructor(public rules: Rules) {
    this.restart([]);
  }

  /** Whether somebody has not announced yet. */
  get recovering(): boolean {
    return this.awaited.size > 0;
  }

  /** How many shares the broker must hold. */
  get held(): number {
    return this.people.length + this.things.filter(({ type, owner }) => type === "SHAREDMEM" && owner).length;
  }

  // --- Steps ----------------------------------------------------------------------------------------------------------

  /** A request of one who said hello. */
  request(person: Person, request: Request): void {
    this.#step(() => this.#answer(person, request));
  }

  /** One who lived under no broker, or under the one before, says hello. */
  hello(pid: number, privileged: boolean, request: Request): Person | undefined {
    let person: Person | undefined;
    this.#step(() => {
      const nobody = { pid, number: 0 } as Person;
      try {
        person = this.#hello(pid, privileged, request.args, () => this.made(nobody, request.id).client!);
        const result = { client: person.number, flags: this.contexts.get(person.context)!.chosen };
        this.answers.push({ person: nobody, id: request.id, outcome: { result } });
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.answers.push({ person: nobody, id: request.id, outcome: { code: error.code } });
      }
    });
    return person;
  }

  /** A client is gone. */
  leave(person: Person): void {
    this.#step(() => {
      this.#waiting = this.#waiting.filter((it) => it.person !== person);
      this.#halfLanes = this.#halfLanes.filter((it) => it.person !== person);
      this.#bereft = this.#bereft.filter((it) => it.person !== person);
      for (const other of this.people) this.#drop(other.pings, ({ asked }) => asked === person);
      this.people = this.people.filter((it) => it !== person);
      for (const lane of this.lanes.filter(({ sender }) => sender === person)) this.#endLane(lane, "ended");
      for (const it of this.attachments.filter((it) => it.person === person)) this.#detach(it, it.count);
      for (const thing of this.things.filter(({ owner }) => owner === person)) this.#destroy(thing);
      for (const other of this.people) {
        if (person.bells.has(other.number) && other.bells.delete(person.number)) {
          this.#tell(other, "peer_gone", { peer: person.number });
        }
      }
      const { context } = person;
      if (this.people.some((it) => it.context === context)) return;
      this.contexts.delete(context);
      // Another process of the context may still come back.
      if (!this.recovering) this.#dropMembers((member) => member.context === context);
      for (const other of this.people) if (other.subscribed) this.#tell(other, "context_removed", { context });
    });
  }

  /** One of those who are awaited will not come. */
  expectNoMore(slot: number): void {
    this.#step(() => this.#expectNoMore(slot));
  }

  /** Nobody is awaited any more. */
  endRecovery(): void {
    this.#step(() => {
      for (const slot of [...this.awaited]) this.#expectNoMore(slot);
    });
  }

  /** Other rules hold. */
  setRules(rules: Rules): void {
    this.#step(() => {
      this.rules = rules;
      for (const [id, context] of this.contexts) {
        context.quota = rules.quotaOf(id);
        context.flags = rules.flagsOf(id) ?? context.chosen;
      }
    });
  }

  /** Another broker decides, and knows nothing yet. */
  restart(slots: Iterable<number>): void {
    this.people = [];
    this.things = [this.#public];
    this.entries = [];
    this.members = [];
    this.names = [{ name: PUBLIC_NAME, thing: this.#public }];
    this.attachments = [];
    this.lanes = [];
    this.unread = [];
    this.contexts.clear();
    this.#halfLanes = [];
    this.#bereft = [];
    this.#waiting = [];
    this.awaited.clear();
    for (const slot of slots) this.awaited.add(slot);
  }

  #step(act: () => void): void {
    this.answers = [];
    this.told = [];
    act();
    this.#closeLanes();
    if (this.recovering) return;
    for (const { person, request } of this.#waiting.splice(0)) this.#answer(person, request);
  }

  #answer(person: Person, request: Request): void {
    const { id, op, args } = request;
    const mayWait = this.recovering && !NEVER_WAITS.has(op);
    if (mayWait && NEEDS_ALL.has(op)) return void this.#waiting.push({ person, request });
    const handler = this.#handlers[op]!;
    try {
      const result = handler(person, args, () => this.made(person, id));
      this.#closeLanes();
      this.answers.push({ person, id, outcome: { result } });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (mayWait) return void this.#waiting.push({ person, request });
      this.answers.push({ person, id, outcome: { code: error.code } });
    }
  }

  #tell<N extends NoticeName>(person: Person, notice: N, body: Partial<Notices[N]>): void {
    this.told.push({ person, notice, body });
  }

  // --- Who is there ---------------------------------------------------------------------------------------------------

  // deno-lint-ignore no-explicit-any
  #hello(pid: number, privileged: boolean, args: any, number: () => number): Person {
    const { context, slot, client } = args;
    const returns = client !== null;
    const decreed = this.rules.flagsOf(context);
    let flags: number = args.flags;
    if ((flags & TRUSTED) !== 0 && !privileged) {
      refuse(!returns, "NO_ACCESS");
      flags &= ~TRUSTED;
    }
    refuse(!returns && decreed !== undefined && flags !== 0 && flags !== decreed, "NO_ACCESS");
    const known = this.contexts.get(context);
    if (known === undefined) {
      const quota = this.rules.quotaOf(context);
      refuse(!returns && this.contexts.size >= quota.contexts, "NO_RESOURCES");
      this.contexts.set(context, { chosen: flags, flags: decreed ?? flags, quota });
    } else {
      refuse(!returns && flags !== 0 && flags !== known.flags, "INVALID_ARGS");
      const there = this.people.filter((it) => it.context === context).length;
      refuse(!returns && there >= known.quota.clients, "NO_RESOURCES");
    }
    const person: Person = {
      pid,
      context,
      number: client ?? number(),
      slot,
      privileged,
      subscribed: false,
      bells: new Set(),
      vouched: returns ? new Set() : undefined,
      pings: [],
      watches: new Map(),
    };
    this.people.push(person);
    if (known === undefined) {
      for (const other of this.people) if (other.subscribed) this.#tell(other, "context_added", { context });
      this.#drop(this.members, (it) => it.group === this.#public && it.context === context);
      this.members.push({ group: this.#public, context, canAssign: true, order: 0 });
    }
    const belongs = this.members.find((it) => it.group === this.#public && it.context === context);
    if (belongs?.order !== 0) {
      const member = { context, canAssign: true, order: 0 };
      this.#tell(person, "keep_member", { handle: PUBLIC, member, present: belongs !== undefined });
    }
    if (returns && privileged) {
      const state = this.contexts.get(context)!;
      state.chosen = args.flags;
      state.flags = decreed ?? args.flags;
    }
    if (!returns) this.#expectNoMore(slot);
    return person;
  }

  #expectNoMore(slot: number): void {
    if (!this.awaited.delete(slot) || this.recovering) return;
    const gone: HalfLane[] = [];
    for (const half of this.#halfLanes.splice(0)) {
      const { person, lane, sender, destination } = half;
      const endpoint = this.#find(destination, "DATAGRAM");
      const known = endpoint?.owner !== undefined && endpoint.owner.vouched === undefined;
      const revoked = sender && known && !this.#may(person, endpoint, "DG_SEND");
      this.#tell(person, "lane_closed", { lane, cause: revoked ? "revoked" : sender ? "gone" : "ended" });
      if (!sender || revoked) continue;
      if (endpoint !== undefined) {
        this.#bereft.push({ person, destination: endpoint });
        continue;
      }
      // It went with the broker before; that is told once.
      if (gone.some((it) => it.person === person && same(it.destination, destination))) continue;
      gone.push(half);
      this.#tell(person, "resource_gone", { type: "DATAGRAM", handle: destination });
    }
    this.#dropMembers(({ context }) => !this.contexts.has(context));
    for (const region of this.things.filter(({ type, owner }) => type === "SHAREDMEM" && owner === undefined)) {
      const { type, handle } = region;
      for (const { person } of this.#attachedTo(region)) this.#tell(person, "resource_gone", { type, handle });
    }
    this.#closeLanes();
    for (const person of this.people) if (person.vouched === undefined) this.#tellSettled(person);
  }

  #tellSettled(person: Person): void {
    for (const { region } of this.attachments.filter((it) => it.person === person)) this.#tellWhoElse(person, region);
    this.#tell(person, "settled", { contexts: person.subscribed ? [...this.contexts.keys()] : [] });
  }

  #dropMembers(which: (member: Member) => boolean): void {
    for (const { group, ...member } of this.#drop(this.members, which)) this.#keepMember(group, member, false);
  }

  /** Takes out of a list what fits, and gives it. */
  #drop<T>(list: T[], which: (item: T) => boolean): T[] {
    const dropped = list.filter(which);
    if (dropped.length > 0) list.splice(0, list.length, ...list.filter((item) => !which(item)));
    return dropped;
  }

  // --- Access ---------------------------------------------------------------------------------------------------------

  /** Whether a context or a group may do something with a resource, and what says so. */
  decide(
    client: Handle,
    thing: Thing,
    privilege: PrivilegeName,
  ): { code: string; decidedBy: Handle | null; via: string } {
    const isContext = client.resource === 0;
    if (isContext && client.context === thing.context) {
      return { code: "SUCCESS_ACCESS_GRANTED", decidedBy: client, via: "owner" };
    }
    const flags = isContext ? this.contexts.get(client.context)?.flags : undefined;
    const other = thing.owner === undefined ? undefined : this.contexts.get(thing.owner.context)!.flags;
    if (flags !== undefined && other !== undefined) {
      const apart = (flags & RESTRICTED && !(other & TRUSTED)) || (other & RESTRICTED && !(flags & TRUSTED));
      if (apart) return { code: "NO_ACCESS", decidedBy: null, via: "flags" };
    }
    const here = this.contexts.has(client.context);
    const own = isContext ? this.members.filter(({ context }) => context === client.context) : [];
    const groups = here || !isContext
      ? own.sort((a, b) => a.order - b.order).map(({ group }) => group.handle)
      : [PUBLIC];
    for (const candidate of [client, ...groups]) {
      const isIt = (it: Entry) => it.thing === thing && it.privilege === privilege && same(it.client, candidate);
      let state = this.entries.find(isIt)?.state;
      if (state === undefined && privilege === "ASSIGN_CLIENT" && candidate === client && isContext) {
        const member = own.find(({ group }) => group === thing);
        if (member !== undefined) state = member.canAssign ? "ALLOW" : "DENY";
      }
      if (state === undefined) continue;
      const code = state === "ALLOW" ? "SUCCESS_ACCESS_GRANTED" : "NO_ACCESS";
      return { code, decidedBy: candidate, via: candidate === client ? "own" : "group" };
    }
    return { code: "INVALID_PRIV", decidedBy: null, via: "nothing" };
  }

  #may({ context }: Person, thing: Thing, privilege: PrivilegeName): boolean {
    return this.decide({ context, resource: 0 }, thing, privilege).code === "SUCCESS_ACCESS_GRANTED";
  }

  #demand(person: Person, thing: Thing, privilege: PrivilegeName): void {
    // What would deny it may not have been announced yet.
    refuse(this.recovering && thing.context !== person.context, "NO_ACCESS");
    refuse(!this.#may(person, thing, privilege), "NO_ACCESS");
  }

  /** What its owner has not announced all of cannot be changed: he would bring back what it was. */
  #demandAnnounced({ owner }: Thing): void {
    refuse(this.recovering && (owner === undefined || this.awaited.has(owner.slot)), "UNAVAILABLE");
  }

  #find(handle: Handle, type?: ResourceTypeName): Thing | undefined {
    return this.things.find((it) => same(it.handle, handle) && (type === undefined || it.type === type));
  }

  #changeable(person: Person, handle: Handle, privileges: readonly PrivilegeName[]): Thing {
    const thing = this.#find(handle);
    refuse(thing === undefined, "INVALID_ARGS");
    this.#demandAnnounced(thing!);
    this.#demand(person, thing!, "CH_PRIV");
    refuse(privileges.some((it) => !VALID[thing!.type].includes(it)), "INVALID_PRIV");
    return thing!;
  }

  #isClient(client: Handle): boolean {
    return client.resource === 0 || this.#find(client, "GROUP") !== undefined;
  }

  #set(thing: Thing, client: Handle, privilege: PrivilegeName, state: "ALLOW" | "DENY"): void {
    this.#unset(thing, client, [privilege]);
    this.entries.push({ thing, client, privilege, state });
  }

  #unset(thing: Thing, client: Handle, privileges: readonly PrivilegeName[]): void {
    this.#drop(
      this.entries,
      (it) => it.thing === thing && same(it.client, client) && privileges.includes(it.privilege),
    );
  }

  /** What is set for a client. */
  entryOf(thing: Thing, client: Handle): AccessEntry {
    const set = this.entries.filter((it) => it.thing === thing && same(it.client, client));
    return { client, states: Object.fromEntries(set.map(({ privilege, state }) => [privilege, state])) };
  }

  /** The clients for which something is set. */
  listed(thing: Thing): Handle[] {
    const clients: Handle[] = [];
    for (const { client } of this.entries.filter((it) => it.thing === thing)) {
      if (!clients.some((it) => same(it, client))) clients.push(client);
    }
    return clients;
  }

  #keepGrant(thing: Thing, client: Handle): void {
    const { type, handle, owner } = thing;
    if (owner !== undefined) this.#tell(owner, "keep_grant", { type, handle, entry: this.entryOf(thing, client) });
  }

  #keepMember(group: Thing, member: GroupMember, present: boolean): void {
    const { handle, owner } = group;
    const members = this.people.filter(({ context }) => context === member.context);
    for (const keeper of group === this.#public ? members : [owner]) {
      if (keeper !== undefined) this.#tell(keeper, "keep_member", { handle, member, present });
    }
  }

  #keepName({ type, handle, owner }: Thing, name: string, present: boolean): void {
    if (owner !== undefined) this.#tell(owner, "keep_name", { type, handle, name, present });
  }

  // --- Resources ------------------------------------------------------------------------------------------------------

  #quota({ context }: Person): Quota {
    return this.contexts.get(context)!.quota;
  }

  /** What the processes of a context own. */
  ownedIn(context: number): Thing[] {
    return this.things.filter(({ owner }) => owner?.context === context);
  }

  /** How many attachments the processes of a context have. */
  attachmentsIn(context: number): number {
    return this.attachments.filter(({ person }) => person.context === context).reduce((n, { count }) => n + count, 0);
  }

  #mayCreate(person: Person): void {
    refuse(this.ownedIn(person.context).length >= this.#quota(person).resources, "NO_RESOURCES");
  }

  #create(person: Person, type: ResourceTypeName, handle: Handle, size = 0, creatorOnly = false): { handle: Handle } {
    const thing = { type, handle, context: person.context, size, creatorOnly, owner: person };
    this.things.push(thing);
    if (type === "SHAREDMEM") this.attachments.push({ person, region: thing, count: 1, watches: false });
    for (const { privilege } of this.rules.grants.filter((it) => it.type === type)) {
      this.#set(thing, PUBLIC, privilege, "ALLOW");
      this.#keepGrant(thing, PUBLIC);
    }
    return { handle };
  }

  #destroy(thing: Thing): void {
    const { type, handle, owner } = thing;
    for (const { name } of this.names.filter((it) => it.thing === thing)) this.#removeName(name);
    const users = new Set<Person>();
    for (const { person } of this.#drop(this.#bereft, ({ destination }) => destination === thing)) users.add(person);
    for (const lane of this.lanes.filter(({ destination }) => destination === thing)) {
      users.add(lane.sender);
      this.#endLane(lane, "gone");
    }
    for (const lane of this.lanes.filter(({ sender, source }) => sender === owner && same(source, handle))) {
      if (type === "DATAGRAM") this.#endLane(lane, "ended");
    }
    this.#drop(this.unread, ({ destination }) => destination === thing);
    // Ends of lanes that were announced, and whose other ends are not yet.
    this.#drop(
      this.#halfLanes,
      (it) => type === "DATAGRAM" && it.person === owner && same(it.sender ? it.source : it.destination, handle),
    );
    for (const { person } of this.#attachedTo(thing)) users.add(person);
    thing.owner = undefined;
    this.#drop(this.entries, (it) => it.thing === thing);
    this.#drop(this.members, ({ group }) => group === thing);
    if (this.#attachedTo(thing).length === 0) this.#remove(thing);
    for (const user of users) {
      if (user !== owner) this.#tell(user, "resource_gone", { type, handle });
    }
  }

  #remove(thing: Thing): void {
    this.#drop(this.things, (it) => it === thing);
    this.#drop(this.entries, (it) => it.thing === thing);
  }

  #attachedTo(region: Thing): Attachment[] {
    return this.attachments.filter((it) => it.region === region);
  }

  #attachment(person: Person, region: Thing): Attachment | undefined {
    return this.attachments.find((it) => it.person === person && it.region === region);
  }

  #region(handle: Handle): Thing {
    const region = this.#find(handle, "SHAREDMEM");
    refuse(region === undefined, "NOT_FOUND");
    return region!;
  }

  #detach(attachment: Attachment, count: number): boolean {
    const { person, region } = attachment;
    attachment.count -= count;
    if (attachment.count > 0) return false;
    this.#drop(this.attachments, (it) => it === attachment);
    const others = this.#attachedTo(region);
    const { context } = person;
    for (const it of others) {
      this.#tell(it.person, "region_peer", { handle: region.handle, context, attached: false });
    }
    if (region.owner === person) this.#destroy(region);
    else if (others.length === 0 && region.owner === undefined) this.#remove(region);
    return others.length === 0;
  }

  #tellWhoElse(person: Person, region: Thing): void {
    const others = this.#attachedTo(region).filter((it) => it.person !== person);
    this.#tell(person, "region_peers", { handle: region.handle, contexts: others.map((it) => it.person.context) });
  }

  /** Each writer learns of its watcher, and has a bell with it. */
  #introduce(region: Thing, pairs: (readonly [watcher: Person, writer: Person])[]): void {
    const rung = pairs.filter(([watcher, writer]) =>
      watcher !== writer && (!region.creatorOnly || region.owner === writer)
    );
    const strangers = rung.filter(([watcher, writer]) => !watcher.bells.has(writer.number));
    refuse(strangers.length > 0 && this.failing === "makeBell", "NO_RESOURCES");
    for (const [watcher, writer] of strangers) {
      this.#befriend(watcher, writer);
      this.#tell(watcher, "peer", { peer: writer.number });
      this.#tell(writer, "peer", { peer: watcher.number });
    }
    for (const [watcher, writer] of rung) {
      this.#tell(writer, "watcher", { handle: region.handle, peer: watcher.number });
    }
  }

  #introduceAgain(a: Person, b: Person): void {
    for (const { region } of this.attachments.filter((it) => it.person === a)) {
      for (const [watcher, writer] of [[a, b], [b, a]] as const) {
        if (!this.#attachment(watcher, region)?.watches || this.#attachment(writer, region) === undefined) continue;
        try {
          this.#introduce(region, [[watcher, writer]]);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
        }
      }
    }
  }

  #befriend(a: Person, b: Person): void {
    a.bells.add(b.number);
    b.bells.add(a.number);
    a.vouched?.add(b.number);
    b.vouched?.add(a.number);
  }

  // --- Names and lanes ------------------------------------------------------------------------------------------------

  #addName(name: string, thing: Thing): void {
    this.names.push({ name, thing });
    this.#tellWatchers(name, thing, "added");
  }

  #removeName(name: string): void {
    for (const { thing } of this.#drop(this.names, (it) => it.name === name)) {
      this.#tellWatchers(name, thing, "removed");
    }
  }

  #tellWatchers(name: string, thing: Thing, change: "added" | "removed"): void {
    for (const person of this.people) {
      for (const [watch, { prefix, exact }] of person.watches) {
        if (exact ? name !== prefix : !name.startsWith(prefix)) continue;
        this.#tell(person, "name", { watch, change, entries: [nameEntry(name, thing)] });
      }
    }
  }

  /** All names that begin so, in order. */
  listedNames(prefix: string): NameEntry[] {
    const fitting = this.names.filter(({ name }) => name.startsWith(prefix));
    // None of the names has a character beyond U+FFFF: the order of units is that of bytes.
    return fitting.map(({ name, thing }) => nameEntry(name, thing)).sort((a, b) => a.name < b.name ? -1 : 1);
  }

  #endLane(lane: Lane, cause: "ended" | "gone" | "revoked" | "lost"): void {
    const { number, sender, destination } = lane;
    this.#drop(this.lanes, (it) => it === lane);
    if (cause === "lost") this.#bereft.push({ person: sender, destination });
    if (cause !== "ended") {
      this.#tell(sender, "lane_closed", { lane: number, cause: cause === "lost" ? "gone" : cause });
    }
    if (cause !== "gone") {
      this.unread.push(lane);
      this.#tell(destination.owner!, "lane_closed", { lane: number, cause: cause === "lost" ? "ended" : cause });
    }
  }

  /** A lane lives as long as its sender may send. */
  #closeLanes(): void {
    if (this.recovering) return;
    for (const lane of [...this.lanes]) {
      if (!this.#may(lane.sender, lane.destination, "DG_SEND")) this.#endLane(lane, "revoked");
    }
  }

  // --- Requests -------------------------------------------------------------------------------------------------------

  // deno-lint-ignore no-explicit-any
  readonly #handlers: Record<string, (person: Person, args: any, made: () => Made) => unknown> = {
    create_endpoint: (person, { wellKnown, resource }, made) => {
      this.#mayCreate(person);
      if (!wellKnown) return this.#create(person, "DATAGRAM", made().handle!);
      const { flags } = this.contexts.get(person.context)!;
      refuse((flags & RESTRICTED) !== 0, "NO_ACCESS");
      refuse(resource < 1024 && (flags & TRUSTED) === 0, "NO_ACCESS");
      const handle = { context: WELL_KNOWN, resource };
      refuse(this.#find(handle, "DATAGRAM") !== undefined || this.recovering, "DUPLICATE_ENTRY");
      return this.#create(person, "DATAGRAM", handle);
    },
    create_group: (person, _args, made) => {
      this.#mayCreate(person);
      return this.#create(person, "GROUP", made().handle!);
    },
    create_region: (person, { size, creatorOnly }, made) => {
      this.#mayCreate(person);
      const { context } = person;
      const own = this.ownedIn(context);
      refuse(own.filter(({ type }) => type === "SHAREDMEM").length >= this.#quota(person).regions, "NO_RESOURCES");
      const bytes = own.reduce((sum, it) => sum + pages(it.size), 0);
      refuse(bytes + pages(size) > this.#quota(person).regionBytes, "NO_RESOURCES");
      refuse(this.attachmentsIn(context) >= this.#quota(person).attachments, "NO_RESOURCES");
      return this.#create(person, "SHAREDMEM", made().handle!, size, creatorOnly);
    },
    destroy: (person, { type, handle, repeated }) => {
      const thing = this.#find(handle, type);
      if (thing === undefined && repeated && !this.recovering) return {};
      refuse(thing === undefined, "NOT_FOUND");
      refuse(type === "SHAREDMEM", "INVALID_RESOURCE");
      this.#demandAnnounced(thing!);
      this.#demand(person, thing!, "DESTROY_RESOURCE");
      if (thing!.owner !== undefined && thing!.owner !== person) {
        this.#tell(thing!.owner, "destroyed", { type, handle });
      }
      this.#destroy(thing!);
      return {};
    },
    query: (_person, { handle }) => ({ size: this.#region(handle).size }),
    attach: (person, { handle }) => {
      const region = this.#region(handle);
      refuse(region.owner === undefined, "UNAVAILABLE");
      this.#demand(person, region, "SM_ATTACH");
      refuse(this.attachmentsIn(person.context) >= this.#quota(person).attachments, "NO_RESOURCES");
      const others = this.#attachedTo(region);
      this.#introduce(region, others.filter((it) => it.watches).map((it) => [it.person, person]));
      const attachment = this.#attachment(person, region);
      if (attachment === undefined) {
        for (const it of others) {
          this.#tell(it.person, "region_peer", { handle, context: person.context, attached: true });
        }
        this.attachments.push({ person, region, count: 1, watches: false });
      } else attachment.count++;
      const { size, creatorOnly, owner } = region;
      const peers = attachment === undefined ? others.map((it) => it.person.context) : null;
      return { size, creatorOnly, writable: !creatorOnly || owner === person, peers };
    },
    detach: (person, { handle }) => {
      const attachment = this.#attachment(person, this.#region(handle));
      refuse(attachment === undefined, "INVALID_ARGS");
      return { last: this.#detach(attachment!, 1) };
    },
    watch_region: (person, { handle }) => {
      const region = this.#region(handle);
      const attachment = this.#attachment(person, region);
      refuse(attachment === undefined, "INVALID_ARGS");
      if (attachment!.watches) return {};
      this.#introduce(region, this.#attachedTo(region).map((it) => [person, it.person]));
      attachment!.watches = true;
      return {};
    },
    open_lane: (person, { source, destination: handle }, made) => {
      if (source.resource !== 0xffffffff) {
        const from = this.#find(source, "DATAGRAM");
        if (source.context === WELL_KNOWN) refuse(from === undefined, "INVALID_RESOURCE");
        else refuse(source.context === person.context && from === undefined, "INVALID_ARGS");
        refuse(from?.context !== person.context, "NO_ACCESS");
      }
      const destination = this.#find(handle, "DATAGRAM");
      refuse(destination === undefined, handle.context === WELL_KNOWN ? "DST_UNREACHABLE" : "INVALID_ARGS");
      const receiver = destination!.owner!;
      this.#demand(person, destination!, "DG_SEND");
      const into = [...this.lanes, ...this.unread].filter((it) => it.destination.owner === receiver);
      refuse(into.length >= this.#quota(receiver).lanes, "NO_RESOURCES");
      const fresh = person !== receiver && !person.bells.has(receiver.number);
      refuse(this.failing === "makeLane" || (fresh && this.failing === "makeBell"), "NO_RESOURCES");
      const isOld = (it: Lane) => it.sender === person && it.destination === destination && same(it.source, source);
      for (const old of this.lanes.filter(isOld)) this.#endLane(old, "ended");
      this.#drop(
        this.#halfLanes,
        (it) => it.person === person && it.sender && same(it.destination, handle) && same(it.source, source),
      );
      const lane = made().lane!;
      this.lanes.push({ number: lane, source, sender: person, destination: destination! });
      this.#tell(receiver, "lane", { lane, source, destination: handle, peer: person.number, fresh });
      if (fresh) this.#befriend(person, receiver);
      return { lane, peer: receiver.number, fresh };
    },
    close_lane: (person, { lane: number }) => {
      this.#drop(this.#halfLanes, (it) => it.person === person && it.lane === number);
      const lane = this.lanes.find((it) => it.number === number);
      if (lane?.sender === person) this.#endLane(lane, "ended");
      else {
        if (lane?.destination.owner === person) this.#endLane(lane, "revoked");
        this.#drop(this.unread, (it) => it.number === number && it.destination.owner === person);
      }
      return {};
    },
    forget_peer: (person, { peer: number }) => {
      const peer = this.people.find((it) => it.number === number);
      if (peer === undefined || !person.bells.delete(number)) return {};
      if (peer.bells.delete(person.number)) this.#tell(peer, "peer_gone", { peer: person.number });
      const between = this.lanes.filter(({ sender, destination: { owner } }) =>
        (sender === person && owner === peer) || (sender === peer && owner === person)
      );
      for (const lane of between) this.#endLane(lane, "lost");
      this.#introduceAgain(person, peer);
      return {};
    },
    grant: (person, { resource, client, allow, deny }) => {
      const thing = this.#changeable(person, resource, [...allow, ...deny]);
      refuse(allow.length + deny.length === 0, "INVALID_ARGS");
      refuse(!this.#isClient(client), "INVALID_ARGS");
      refuse(thing.owner === undefined, "UNAVAILABLE");
      const isListed = this.listed(thing).some((it) => same(it, client));
      const granted = this.ownedIn(thing.owner!.context).reduce((n, own) => n + this.listed(own).length, 0);
      refuse(!isListed && granted >= this.#quota(thing.owner!).grants, "NO_RESOURCES");
      if (client.resource !== 0) this.#demand(person, this.#find(client, "GROUP")!, "ASSIGN_CLIENT");
      for (const privilege of allow) this.#set(thing, client, privilege, "ALLOW");
      for (const privilege of deny) this.#set(thing, client, privilege, "DENY");
      this.#keepGrant(thing, client);
      return {};
    },
    revoke: (person, { resource, client, privileges, repeated }) => {
      const thing = this.#changeable(person, resource, privileges);
      refuse(privileges.length === 0, "INVALID_ARGS");
      return this.#revoke(thing, client, privileges, repeated);
    },
    revoke_all: (person, { resource, client, repeated }) => {
      const thing = this.#changeable(person, resource, []);
      return this.#revoke(thing, client, VALID[thing.type], repeated);
    },
    check: (_person, { resource, client, privilege }) => {
      const thing = this.#find(resource);
      refuse(thing === undefined, "INVALID_ARGS");
      refuse(!VALID[thing!.type].includes(privilege), "INVALID_PRIV");
      refuse(!this.#isClient(client), "INVALID_ARGS");
      return this.decide(client, thing!, privilege);
    },
    add_member: (person, { group: handle, member: context, canAssign }) => {
      const group = this.#group(handle);
      const isPublic = group === this.#public;
      if (!isPublic) this.#demandAnnounced(group);
      if (isPublic) refuse(context !== person.context, "NO_ACCESS");
      else this.#demand(person, group, "CH_PRIV");
      refuse(!this.contexts.has(context), "INVALID_ARGS");
      const [old] = this.#drop(this.members, (it) => it.group === group && it.context === context);
      const member = { context, canAssign: isPublic || canAssign, order: old?.order ?? ++this.#order };
      this.members.push({ group, ...member });
      this.#keepMember(group, member, true);
      return {};
    },
    remove_member: (person, { group: handle, member: context, repeated }) => {
      const group = this.#group(handle);
      if (context !== person.context) this.#demand(person, group, "CH_PRIV");
      if (group !== this.#public) this.#demandAnnounced(group);
      const isIt = (it: Member) => it.group === group && it.context === context;
      if (!this.members.some(isIt) && repeated && !this.recovering) return {};
      refuse(!this.members.some(isIt), "INVALID_ARGS");
      this.#dropMembers(isIt);
      return {};
    },
    is_member: (_person, { group: handle, member: context }) => {
      const group = this.#group(handle);
      return { member: this.members.some((it) => it.group === group && it.context === context) };
    },
    register: (person, { name, handle, repeated }) => {
      const thing = this.#find(handle);
      refuse(thing === undefined, "INVALID_ARGS");
      refuse(thing!.context !== person.context, "NO_ACCESS");
      const taken = this.names.find((it) => it.name === name);
      if (repeated && taken?.thing === thing) return {};
      refuse(taken !== undefined, "ALREADY_EXISTS");
      refuse(thing!.owner === undefined, "UNAVAILABLE");
      const own = this.names.filter((it) => it.thing.context === person.context);
      refuse(own.length >= this.#quota(person).names, "NO_RESOURCES");
      this.#addName(name, thing!);
      this.#keepName(thing!, name, true);
      return {};
    },
    lookup: (_person, { name }) => {
      const found = this.names.find((it) => it.name === name);
      refuse(found === undefined, "NOT_FOUND");
      return { handle: found!.thing.handle };
    },
    unregister: (person, { name, repeated }) => {
      const found = this.names.find((it) => it.name === name);
      if (found === undefined && repeated && !this.recovering) return {};
      refuse(found === undefined, "NOT_FOUND");
      const { thing } = found!;
      refuse(thing === this.#public || (thing.context !== person.context && person.context !== HOST), "NO_ACCESS");
      this.#removeName(name);
      this.#keepName(thing, name, false);
      return {};
    },
    list: (_person, { prefix }) => ({ entries: this.listedNames(prefix), more: false }),
    watch_names: (person, { watch, prefix, exact }) => {
      const those = this.people.filter((it) => it.context === person.context);
      const all = those.reduce((n, it) => n + it.watches.size, 0);
      refuse(!person.watches.has(watch) && all >= this.#quota(person).watches, "NO_RESOURCES");
      person.watches.set(watch, { prefix, exact });
      const entries = this.listedNames(prefix).filter(({ name }) => !exact || name === prefix);
      if (entries.length > 0) this.#tell(person, "name", { watch, change: "added", entries });
      return {};
    },
    unwatch_names: (person, { watch }) => {
      person.watches.delete(watch);
      return {};
    },
    subscribe: (person) => {
      person.subscribed = true;
      return { contexts: [...this.contexts.keys()] };
    },
    ping: (person, { handle, token }) => {
      const thing = this.#find(handle);
      refuse(thing === undefined, "NOT_FOUND");
      refuse(thing!.owner === undefined, "UNAVAILABLE");
      person.pings = [...person.pings.filter((it) => it.token !== token), { token, asked: thing!.owner! }];
      this.#tell(thing!.owner!, "ping", { client: person.number, token });
      return { pid: thing!.owner!.pid };
    },
    pong: (person, { client, token }) => {
      const asker = this.people.find((it) => it.number === client);
      const question = asker?.pings.find((it) => it.token === token);
      if (question === undefined) return {};
      refuse(question.asked !== person, "NO_ACCESS");
      this.#drop(asker!.pings, (it) => it === question);
      this.#tell(asker!, "pong", { token });
      return {};
    },

    announce_resource: (person, { type, handle, size, creatorOnly }) => {
      const known = this.#find(handle, type);
      if (known !== undefined) known.owner = person;
      else this.things.push({ type, handle, context: person.context, size, creatorOnly, owner: person });
      return { accepted: true };
    },
    announce_entries: (person, { type, handle, grants, names, members }) => {
      const thing = this.#find(handle, type)!;
      if (thing === this.#public) {
        const { context } = person;
        const isIt = (it: Member) => it.group === thing && it.context === context;
        const [said] = members as GroupMember[];
        const known = this.members.find(isIt);
        if (said === undefined && known === undefined) return { refused: [] };
        if (said !== undefined && known !== undefined && (known.order > 0 || said.order === 0)) return { refused: [] };
        this.#drop(this.members, isIt);
        const member = said ?? { context, canAssign: true, order: 0 };
        if (said !== undefined) this.members.push({ group: thing, ...member });
        this.#keepMember(thing, member, said !== undefined);
        return { refused: [] };
      }
      for (const { client, states } of grants) {
        for (const [privilege, state] of Object.entries(states)) {
          this.#set(thing, client, privilege as PrivilegeName, state as "ALLOW" | "DENY");
        }
      }
      for (const member of members) {
        this.#drop(this.members, (it) => it.group === thing && it.context === member.context);
        this.members.push({ group: thing, ...member });
      }
      for (const name of names) if (!this.names.some((it) => it.name === name)) this.#addName(name, thing);
      return { refused: [] };
    },
    announce_attachment: (person, { handle, count, size, creatorOnly }) => {
      let region = this.#find(handle, "SHAREDMEM");
      if (region === undefined) {
        region = { type: "SHAREDMEM", handle, context: handle.context, size, creatorOnly, owner: undefined };
        this.things.push(region);
      }
      const watching = this.#attachedTo(region).filter((it) => it.watches);
      this.attachments.push({ person, region, count, watches: false });
      for (const it of watching) {
        try {
          this.#introduce(region, [[it.person, person]]);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
        }
      }
      return { accepted: true };
    },
    announce_lane: (person, half) => {
      const [other] = this.#drop(this.#halfLanes, (it) => it.lane === half.lane && it.sender !== half.sender);
      if (other === undefined) {
        this.#halfLanes.push({ ...half, person });
        return { accepted: true };
      }
      const [sender, receiver] = half.sender ? [person, other.person] : [other.person, person];
      const destination = this.#find(half.destination, "DATAGRAM");
      const accepted = destination?.owner === receiver;
      if (!accepted) {
        if (destination !== undefined) this.#bereft.push({ person: sender, destination });
        this.#tell(sender, "lane_closed", { lane: half.lane, cause: "gone" });
        this.#tell(receiver, "lane_closed", { lane: half.lane, cause: "ended" });
      } else this.lanes.push({ number: half.lane, source: half.source, sender, destination: destination! });
      return { accepted };
    },
    announce_peers: (person, { peers }) => {
      for (const number of peers) {
        const other = this.people.find((it) => it.number === number);
        const denies = other !== undefined && other.vouched === undefined && !other.bells.has(person.number);
        if (denies) {
          this.#tell(person, "peer_gone", { peer: number });
          continue;
        }
        person.bells.add(number);
        person.vouched?.add(number);
        other?.bells.add(person.number);
      }
      return {};
    },
    announced: (person) => {
      const begins = person.vouched !== undefined;
      const vouched = person.vouched ?? new Set();
      person.vouched = undefined;
      for (const other of this.people) {
        if (vouched.has(other.number) || !other.bells.delete(person.number)) continue;
        person.bells.delete(other.number);
        this.#tell(other, "peer_gone", { peer: person.number });
        this.#introduceAgain(person, other);
      }
      for (const lane of begins ? [...this.lanes] : []) {
        const ends = [lane.sender, lane.destination.owner!];
        const other = ends.find((it) => it !== person);
        if (!ends.includes(person) || other === undefined || other.vouched !== undefined) continue;
        if (!person.bells.has(other.number)) this.#endLane(lane, "lost");
      }
      this.#expectNoMore(person.slot);
      if (!this.recovering) this.#tellSettled(person);
      return {};
    },
  };

  #group(handle: Handle): Thing {
    const group = this.#find(handle, "GROUP");
    refuse(group === undefined, "INVALID_ARGS");
    return group!;
  }

  #revoke(thing: Thing, client: Handle, privileges: readonly PrivilegeName[], repeated: boolean): unknown {
    const isListed = this.listed(thing).some((it) => same(it, client));
    if (!isListed && repeated && !this.recovering) return {};
    refuse(!isListed, "INVALID_ARGS");
    this.#unset(thing, client, privileges);
    this.#keepGrant(thing, client);
    return {};
  }
}

function nameEntry(name: string, { handle, type }: Thing): NameEntry {
  return { name, handle, type };
}

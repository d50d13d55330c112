/**
 * A broker and its model side by side in random lives: clients come, ask, go and die, brokers die between any two
 * packets, survivors announce in any order, policies change. After every step the two must have answered and told alike.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { contextHandle, type Handle, INVALID_HANDLE, type PrivilegeName, type ResourceTypeName } from "../../mod.ts";
import { Broker, clientSurvivor, type Outcome, slotSurvivor, type Tickets } from "../../src/fabric/broker.ts";
import type { Client } from "../../src/fabric/broker/entities.ts";
import type { BrokerMedium, Share } from "../../src/fabric/medium.ts";
import { Policy } from "../../src/fabric/policy.ts";
import {
  type AccessEntry,
  type GroupMember,
  type InspectTopic,
  type Message,
  PROTOCOL_VERSION,
} from "../../src/fabric/protocol.ts";
import type { Quota } from "../../src/fabric/quota.ts";
import {
  type Made,
  pages,
  type Person,
  PUBLIC,
  type Request,
  type Rules,
  same,
  SimulationModel,
  type Thing,
  VALID,
} from "./simulation_model.ts";
import { Random } from "./simulation_random.ts";

/** How long a simulation runs, and how much of it is looked at. */
export interface SimulationOptions {
  /** How many steps. */
  readonly steps: number;
  /** Everything that can be inspected is compared after every so many steps. */
  readonly inspectEvery: number;
}

/** What was done. */
export interface SimulationFigures {
  steps: number;
  requests: number;
  refused: number;
  deferred: number;
  notices: number;
  restarts: number;
  /** Restarts in the middle of delivering what a step brought. */
  crashes: number;
  deaths: number;
  inspected: number;
}

/** Small, so that each is reached. */
const QUOTA: Quota = {
  contexts: 4,
  clients: 3,
  resources: 6,
  regions: 3,
  regionBytes: 5 * 4096,
  attachments: 6,
  lanes: 5,
  names: 3,
  watches: 2,
  grants: 5,
};

const CONTEXTS = [2, 16, 17, 18, 19];
const NAMES = ["a", "ab", "b", "ä", ""];
const MOST_PEOPLE = 8;

/** How often each is done. */
const WEIGHTS = {
  join: 6,
  leave: 3,
  restart: 1,
  policy: 1,
  create_endpoint: 6,
  create_region: 5,
  create_group: 4,
  destroy: 4,
  query: 1,
  attach: 8,
  detach: 5,
  watch_region: 3,
  open_lane: 14,
  close_lane: 8,
  forget_peer: 1,
  grant: 16,
  revoke: 4,
  revoke_all: 2,
  check: 6,
  add_member: 8,
  remove_member: 4,
  is_member: 2,
  register: 7,
  lookup: 2,
  unregister: 3,
  list: 1,
  watch_names: 2,
  unwatch_names: 1,
  subscribe: 1,
  ping: 1,
  pong: 1,
};
type Op = keyof typeof WEIGHTS;
const DRAWN: readonly Op[] = Object.entries(WEIGHTS).flatMap(([op, weight]) => new Array<Op>(weight).fill(op as Op));

/** A share with its fate. */
class SimulatedShare {
  released = false;
  constructor(readonly what: string, readonly size = 0, readonly access = "") {}
}

/** Makes nothing, and keeps the books. */
class SimulatedMedium implements BrokerMedium {
  /** Shares that were made or handed in, and not given back. */
  live = 0;
  mark = 0;
  failing: "makeLane" | "makeBell" | undefined;

  share(what: string, size?: number, access?: string): SimulatedShare {
    this.live++;
    return new SimulatedShare(what, size, access);
  }

  makeLane(): Share {
    if (this.failing === "makeLane") throw new Error("no lane");
    return this.share("lane");
  }

  makeBell(): readonly [Share, Share] {
    if (this.failing === "makeBell") throw new Error("no bell");
    return [this.share("bell"), this.share("bell")];
  }

  checkRegion(share: Share, size: number, access: string): void {
    const region = share as SimulatedShare;
    assert(region.what === "region" && region.size === size && region.access === access);
  }

  checkAttention(share: Share): void {
    assert((share as SimulatedShare).what === "attention");
  }

  reserveNumbers(mark: number): void {
    assert(mark > this.mark, "the mark advances");
    this.mark = mark;
  }

  release(share: Share): void {
    const known = share as SimulatedShare;
    assert(!known.released, `a ${known.what} is released once`);
    known.released = true;
    this.live--;
  }
}

/** What a client was told of what it owns. */
interface Held {
  readonly type: ResourceTypeName;
  readonly handle: Handle;
  readonly size: number;
  readonly creatorOnly: boolean;
  readonly ticket: string;
  readonly grants: Map<number, AccessEntry>;
  readonly names: Set<string>;
  readonly members: Map<number, GroupMember>;
  /** What proves each of these, by what it is about. */
  readonly proofs: Map<unknown, string>;
}

interface HeldAttachment {
  /** Whether it is watched. */
  watched?: boolean;
  readonly handle: Handle;
  readonly size: number;
  readonly creatorOnly: boolean;
  readonly ticket: string;
  count: number;
}

interface HeldLane {
  readonly lane: number;
  readonly source: Handle;
  readonly destination: Handle;
  readonly sender: boolean;
  readonly ticket: string;
}

/** One client: it remembers what the broker tells it, as a session does, and nothing else. */
class SimulatedClient {
  client!: Client;
  person!: Person;
  number = 0;
  flags = 0;
  ticket = "";
  subscribed = false;
  readonly things = new Map<number, Held>();
  /** What it is told to keep of what it does not know yet, as a creation that is under way. */
  readonly early: Message[] = [];
  /** What it is told of its context and the public group. */
  belongs: { readonly member: GroupMember; readonly present: boolean } | undefined;
  readonly attachments = new Map<number, HeldAttachment>();
  readonly lanes = new Map<string, HeldLane>();
  /** Lanes into it that are over, until it says that it has read them. */
  readonly unread = new Set<number>();
  readonly watches = new Map<number, { prefix: string; exact: boolean }>();
  bells: readonly number[] = [];
  /** What was asked and not answered. */
  readonly pending = new Map<number, Request>();
  /** What is still to be said to a new broker; undefined when it has not even said hello. */
  announcing: (() => void)[] | undefined = [];
  requests = 0;

  constructor(readonly pid: number, readonly context: number, readonly slot: number, readonly privileged: boolean) {}
}

/** One number for a handle. */
function key({ context, resource }: Handle): number {
  return context * 2 ** 32 + resource;
}

/** What is left out of a comparison: what only the broker can know. */
/** From here on: the slots of those who have no byte in the roster. */
const NO_SLOT = 1_000_000;

const UNKNOWABLE = new Set(["ticket", "order"]);

/** The same text for what means the same. */
function canonical(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) {
    const items = value.map(canonical);
    return `[${typeof value[0] === "number" ? items.sort() : items}]`;
  }
  let text = "";
  for (const name of Object.keys(value).sort()) {
    if (!UNKNOWABLE.has(name)) text += `${name}:${canonical((value as Message)[name])} `;
  }
  return `{${text}}`;
}

/** Tickets that say what they are for. */
const TICKETS: Tickets = {
  issue: (claim) => `issued for ${claim}`,
  isGenuine: (claim, ticket) => ticket === `issued for ${claim}`,
};

/** See the module's comment. */
export class Simulation {
  readonly figures: SimulationFigures = {
    steps: 0,
    requests: 0,
    refused: 0,
    deferred: 0,
    notices: 0,
    restarts: 0,
    crashes: 0,
    deaths: 0,
    inspected: 0,
  };
  readonly #random: Random;
  readonly #options: SimulationOptions;
  readonly #tickets: Tickets | undefined;
  readonly #model: SimulationModel;
  readonly #clients: SimulatedClient[] = [];
  readonly #byConnection = new Map<Client, SimulatedClient>();
  /** What the broker expects each survivor of the one before by, by its slot. */
  readonly #survivors = new Map<number, string>();
  /** The slots of clients that died before they announced anything, of which the broker has not heard. */
  #deadSlots: number[] = [];
  #medium = new SimulatedMedium();
  #broker!: Broker;
  #observer!: Client;
  #policy: Policy | undefined;
  #pids = 1000;
  #watches = 0;
  #wellKnown = 2 ** 31;
  /** Every handle there ever was: the dead are asked for, too. */
  readonly #handles: { readonly type: ResourceTypeName; readonly handle: Handle }[] = [{
    type: "GROUP",
    handle: PUBLIC,
  }];
  #highest = PUBLIC.resource;
  #doing = "nothing";

  constructor(readonly seed: number, options: SimulationOptions) {
    this.#random = new Random(seed);
    this.#options = options;
    this.#tickets = this.#random.oneIn(2) ? TICKETS : undefined;
    this.#model = new SimulationModel(this.#chooseRules(true));
    this.#startBroker([]);
  }

  /** Lives it to the end. */
  run(): SimulationFigures {
    const { steps, inspectEvery } = this.#options;
    try {
      while (this.figures.steps++ < steps) {
        this.#live();
        this.#checkShares();
        if (this.figures.steps % inspectEvery === 0) this.#inspect();
        else this.#sample();
      }
      this.figures.steps = steps;
      this.#end();
    } catch (error) {
      const { steps } = this.figures;
      throw new Error(`seed ${this.seed}, step ${steps} (${this.#doing}): ${(error as Error).message}`, {
        cause: error,
      });
    }
    return this.figures;
  }

  // --- What happens ---------------------------------------------------------------------------------------------------

  #live(): void {
    const random = this.#random;
    if (this.#model.recovering && !random.oneIn(3)) return this.#recover();
    const op = random.pick(DRAWN)!;
    this.#doing = op;
    switch (op) {
      case "join":
        return this.#join();
      case "leave":
        return random.oneIn(3) ? this.#leave(this.#someone()) : undefined;
      case "restart":
        return random.oneIn(2) ? this.#restart() : undefined;
      case "policy":
        if (random.oneIn(4)) this.#setPolicy();
        return;
    }
    const client = this.#someone();
    // A session asks nothing before it has announced all, and has few calls under way.
    if (client === undefined || client.announcing?.length !== 0 || client.pending.size > 2) return;
    const args = this.#argumentsOf(op, client);
    if (args === undefined) return;
    this.#medium.failing = this.#model.failing = random.oneIn(40) ? random.of("makeLane", "makeBell") : undefined;
    const request = { id: ++client.requests, op, args };
    if (random.oneIn(150)) this.#crash(client, request);
    else this.#ask(client, request);
    this.#medium.failing = this.#model.failing = undefined;
  }

  #someone(): SimulatedClient | undefined {
    return this.#random.pick(this.#clients);
  }

  /** One of those who know that there is a new broker goes on telling it; or the end of one of them is noticed. */
  #recover(): void {
    const random = this.#random;
    const left = this.#clients.filter(({ announcing }) => announcing?.length !== 0);
    const client = random.pick(left);
    if (client === undefined || (this.#deadSlots.length > 0 && random.oneIn(4))) {
      this.#doing = "a survivor is gone";
      const slot = random.pick(this.#deadSlots);
      if (slot === undefined || (client === undefined && random.oneIn(4))) {
        this.#deadSlots = [];
        this.#both(() => this.#broker.endRecovery(), () => this.#model.endRecovery());
        return;
      }
      this.#deadSlots = this.#deadSlots.filter((it) => it !== slot);
      this.#both(() => this.#broker.survivorGone(this.#survivors.get(slot)!), () => this.#model.expectNoMore(slot));
      return;
    }
    if (random.oneIn(40)) return this.#leave(client);
    if (client.announcing === undefined) return this.#return(client);
    this.#doing = "announce";
    client.announcing.shift()!();
  }

  #join(): void {
    const random = this.#random;
    if (this.#clients.length >= MOST_PEOPLE) return;
    const context = random.of(...CONTEXTS);
    const privileged = this.#tickets === undefined || !random.oneIn(3);
    // The roster's bytes are given again; one whose holder died is held by another at once. Who has none is known by a
    // number of its own.
    const taken = new Set(this.#clients.map(({ slot }) => slot));
    let slot = privileged ? 0 : NO_SLOT + this.#pids;
    while (taken.has(slot)) slot++;
    const client = new SimulatedClient(++this.#pids, context, slot, privileged);
    const flags = random.oneIn(4) ? random.of(1, 2) : 0;
    if (this.#hello(client, flags)) this.#deadSlots = this.#deadSlots.filter((it) => it !== slot);
  }

  /** Whether it was let in. */
  #hello(client: SimulatedClient, flags: number): boolean {
    const { context, slot, pid, privileged } = client;
    const before = client.number === 0 ? null : client.number;
    client.client = this.#broker.connect({ pid, uid: 1000, contexts: "all", privileged });
    this.#byConnection.set(client.client, client);
    const ticket = before === null ? null : client.ticket;
    const args = {
      protocol: PROTOCOL_VERSION,
      version: "0",
      context,
      flags,
      slot,
      client: before,
      ticket,
      observer: false,
    };
    const request = { id: ++client.requests, op: "hello", args };
    const shares = [this.#medium.share("attention")];
    let person: Person | undefined;
    this.#both(
      () => this.#broker.handle(client.client, { message: { ...request }, shares }),
      () => person = this.#model.hello(pid, privileged, request),
    );
    if (person === undefined) {
      this.#byConnection.delete(client.client);
      if (before !== null) this.#gone(client);
      return false;
    }
    client.person = person;
    if (before === null) this.#clients.push(client);
    assertEquals(client.number, person.number);
    return true;
  }

  #leave(client: SimulatedClient | undefined): void {
    if (client === undefined) return;
    this.#doing = "leave";
    this.figures.deaths++;
    this.#gone(client);
    if (this.#model.awaited.has(client.slot)) this.#deadSlots.push(client.slot);
    // It may have died before the new broker ever heard of it.
    if (client.announcing === undefined) return;
    this.#byConnection.delete(client.client);
    this.#both(() => this.#broker.disconnect(client.client), () => this.#model.leave(client.person));
  }

  #gone(client: SimulatedClient): void {
    const at = this.#clients.indexOf(client);
    if (at >= 0) this.#clients.splice(at, 1);
  }

  // --- Brokers come and go --------------------------------------------------------------------------------------------

  #startBroker(survivors: Iterable<string>): void {
    const { mark } = this.#medium;
    this.#medium = new SimulatedMedium();
    this.#medium.mark = mark;
    this.#broker = new Broker(this.#medium, {
      pid: 1,
      kind: "simulated",
      version: "0",
      quota: QUOTA,
      firstNumber: mark,
      survivors,
      ...this.#policy === undefined ? {} : { policy: this.#policy },
      ...this.#tickets === undefined ? {} : { tickets: this.#tickets },
    });
    this.#byConnection.clear();
    this.#observer = this.#broker.connect({ pid: 0, uid: 0, contexts: "all", privileged: true });
    const args = { protocol: PROTOCOL_VERSION, version: "0", context: 2, flags: 0, slot: -1, observer: true };
    const message = { id: 1, op: "hello", args: { ...args, client: null, ticket: null } };
    this.#broker.handle(this.#observer, { message, shares: [this.#medium.share("attention")] });
  }

  /** The broker dies, and another begins. */
  #restart(): void {
    this.#doing = "restart";
    for (const client of this.#clients) {
      if (client.announcing?.length !== 0) continue;
      assertEquals(this.#toldEstate(client), this.#modelEstate(client.person), `what ${client.pid} was told it has`);
    }
    this.#begin();
  }

  /** The broker dies when it has decided, and has told some of those it has to. */
  #crash(asking: SimulatedClient, request: Request): void {
    this.#doing = `crash in ${request.op}`;
    this.figures.crashes++;
    const all = this.#clients.filter(({ announcing }) => announcing?.length === 0);
    const before = new Map(all.map((client) => [client, this.#modelEstate(client.person)]));
    const { outgoing } = this.#send(asking, request);
    this.#model.made = this.#oracle(outgoing);
    this.#model.request(asking.person, request);
    const after = new Map(all.map((client) => [client, this.#modelEstate(client.person)]));
    asking.pending.set(request.id, request);
    for (const it of outgoing.slice(0, this.#random.below(outgoing.length + 1))) this.#arrive(it);
    // All of what one thing has is as it was, or as it was to be.
    for (const client of all) {
      const told = this.#toldEstate(client);
      const [old, young] = [before.get(client)!, after.get(client)!];
      for (const thing of told.things) {
        if (!old.things.includes(thing) && !young.things.includes(thing)) assertEquals(thing, "", `${old.things}`);
      }
      for (const thing of old.things) {
        if (!young.things.includes(thing)) continue;
        assert(told.things.includes(thing), `${thing} is forgotten`);
      }
    }
    this.#begin();
  }

  #begin(): void {
    this.figures.restarts++;
    for (const client of this.#clients) {
      client.announcing = undefined;
      if (client.person !== undefined) client.bells = [...client.person.bells];
    }
    // Some die at the same moment, and one of their slots may be found locked still.
    while (this.#clients.length > 0 && this.#random.oneIn(3)) this.#gone(this.#someone()!);
    this.#deadSlots = [];
    this.#survivors.clear();
    for (const { slot, number } of this.#clients) {
      this.#survivors.set(slot, slot < NO_SLOT ? slotSurvivor(slot) : clientSurvivor(number));
    }
    if (this.#random.oneIn(4)) {
      const slot = Math.max(-1, ...[...this.#survivors.keys()].filter((it) => it < NO_SLOT)) + 1;
      this.#deadSlots.push(slot);
      this.#survivors.set(slot, slotSurvivor(slot));
    }
    this.#model.restart(this.#survivors.keys());
    this.#startBroker(this.#survivors.values());
  }

  /** A survivor says hello to the new broker, and makes ready what it has to say. */
  #return(client: SimulatedClient): void {
    this.#doing = "return";
    if (!this.#hello(client, client.flags)) throw new Error("a survivor is not let in");
    const say = (op: string, args: unknown, shares: () => SimulatedShare[] = () => []) => () => {
      this.#ask(client, { id: ++client.requests, op, args }, shares());
    };
    client.announcing = [];
    for (const { type, handle, size, creatorOnly, ticket, grants, names, members, proofs } of client.things.values()) {
      const shares = () => type === "SHAREDMEM" ? [this.#regionShare(size, creatorOnly)] : [];
      client.announcing.push(say("announce_resource", { type, handle, size, creatorOnly, ticket }, shares));
      const entries = { grants: [...grants.values()], names: [...names], members: [...members.values()] };
      const tickets = [...grants.keys(), ...names, ...members.keys()].map((about) => proofs.get(about));
      client.announcing.push(say("announce_entries", { type, handle, ...entries, tickets }));
    }
    if (client.belongs !== undefined) {
      const { member, present } = client.belongs;
      const nothing = { grants: [], names: [], tickets: [] };
      const entries = { type: "GROUP", handle: PUBLIC, ...nothing, members: present ? [member] : [] };
      client.announcing.push(say("announce_entries", entries));
    }
    const peers = say("announce_peers", { peers: client.bells });
    const first = this.#random.oneIn(2);
    if (first) client.announcing.push(peers);
    for (const { watched, ...attachment } of client.attachments.values()) {
      client.announcing.push(say("announce_attachment", attachment));
      if (watched) client.announcing.push(say("watch_region", { handle: attachment.handle }));
    }
    for (const lane of client.lanes.values()) client.announcing.push(say("announce_lane", lane));
    for (const [watch, it] of client.watches) client.announcing.push(say("watch_names", { watch, ...it }));
    if (client.subscribed) client.announcing.push(say("subscribe", {}));
    if (!first) client.announcing.push(peers);
    client.announcing.push(say("announced", {}));
    // What was under way is asked again.
    for (const request of [...client.pending.values()]) {
      const again = { ...request, id: ++client.requests, args: { ...request.args as Message, repeated: true } };
      client.pending.delete(request.id);
      client.announcing.push(() => this.#ask(client, again));
    }
    client.pending.clear();
  }

  #setPolicy(): void {
    this.#doing = "policy";
    const rules = this.#chooseRules(false);
    this.#both(() => this.#broker.setPolicy(this.#policy!), () => this.#model.setRules(rules));
  }

  /** Chooses a policy, and says once more what it says. */
  #chooseRules(none: boolean): Rules {
    const random = this.#random;
    const flags = new Map<number, number>();
    const quotas = new Map<number, Partial<Record<keyof Quota, number>>>();
    const grants: { type: ResourceTypeName; privilege: PrivilegeName }[] = [];
    let text = "allow any context all\n";
    for (const context of CONTEXTS) {
      if (!none && random.oneIn(3)) {
        flags.set(context, random.below(3));
        text += `flags ${["none", "restricted", "trusted"][flags.get(context)!]} context ${context}\n`;
      }
      if (!none && random.oneIn(3)) {
        const name = random.of(...Object.keys(QUOTA) as (keyof Quota)[]);
        const value = random.below(QUOTA[name]) + 1;
        quotas.set(context, { [name]: value });
        text += `quota ${name} ${value} context ${context}\n`;
      }
    }
    for (const [type, privilege] of [["DATAGRAM", "DG_SEND"], ["SHAREDMEM", "SM_ATTACH"]] as const) {
      if (none || !random.oneIn(3)) continue;
      grants.push({ type, privilege });
      text += `grant ${privilege} on ${type} to public\n`;
    }
    this.#policy = none ? undefined : Policy.parse(text, "policy");
    return {
      quotaOf: (context) => ({ ...QUOTA, ...quotas.get(context) }),
      flagsOf: (context) => flags.get(context),
      grants,
    };
  }

  // --- Requests -------------------------------------------------------------------------------------------------------

  /** A handle: as a rule of what is there and of that kind. */
  #some(...types: ResourceTypeName[]): Handle {
    const fitting = this.#model.things.filter(({ type }) => types.length === 0 || types.includes(type));
    const thing = this.#random.oneIn(12) ? undefined : this.#random.pick(fitting);
    return (thing ?? this.#random.pick(this.#handles)!).handle;
  }

  /** A handle of one's own as a rule. */
  #own(client: SimulatedClient, ...types: ResourceTypeName[]): Handle {
    const own = [...client.things.values()].filter(({ type }) => types.length === 0 || types.includes(type));
    return this.#random.oneIn(4) || own.length === 0 ? this.#some(...types) : this.#random.pick(own)!.handle;
  }

  #typeOf(handle: Handle): ResourceTypeName {
    return (this.#model.things.find((it) => same(it.handle, handle)) ??
      this.#handles.find((it) => same(it.handle, handle)))?.type ?? "DATAGRAM";
  }

  #privileges(type: ResourceTypeName): PrivilegeName[] {
    const count = this.#random.below(3);
    const all = [...VALID[type], ...this.#random.oneIn(20) ? ["DG_CREATE" as const] : []];
    return Array.from({ length: count }, () => this.#random.pick(all)!);
  }

  #other(): Handle {
    const groups = this.#model.things.filter(({ type }) => type === "GROUP").map(({ handle }) => handle);
    const random = this.#random;
    return random.oneIn(20) ? this.#some() : random.oneIn(2) ? random.pick(groups)! : this.#contextOfSomebody();
  }

  #contextOfSomebody(): Handle {
    return contextHandle(this.#random.of(...CONTEXTS));
  }

  #argumentsOf(op: Op, client: SimulatedClient): unknown {
    const random = this.#random;
    switch (op) {
      case "create_endpoint": {
        if (!random.oneIn(5)) return { wellKnown: false, resource: null };
        const resource = random.oneIn(3) ? random.below(2) + 7 : ++this.#wellKnown;
        return { wellKnown: true, resource };
      }
      case "create_region":
        return { size: 1 + random.below(8193), creatorOnly: random.oneIn(2) };
      case "destroy": {
        const handle = this.#own(client, "DATAGRAM", "GROUP");
        return { type: this.#typeOf(handle), handle, repeated: false };
      }
      case "query":
      case "attach":
        return { handle: this.#some("SHAREDMEM") };
      case "detach":
      case "watch_region": {
        const attached = random.pick([...client.attachments.values()]);
        return { handle: random.oneIn(5) || attached === undefined ? this.#some("SHAREDMEM") : attached.handle };
      }
      case "open_lane": {
        const source = random.oneIn(2) ? INVALID_HANDLE : this.#own(client, "DATAGRAM");
        return { source, destination: this.#some("DATAGRAM") };
      }
      case "close_lane": {
        const [read] = client.unread;
        if (read !== undefined && !random.oneIn(3)) return { lane: read };
        const own = random.pick([...client.lanes.values()]);
        const lane = random.oneIn(5) ? random.pick(this.#model.lanes)?.number : own?.lane;
        return lane === undefined ? undefined : { lane };
      }
      case "forget_peer":
        return { peer: random.pick([...client.person.bells]) ?? client.number };
      case "grant": {
        const resource = this.#own(client);
        const type = this.#typeOf(resource);
        return {
          resource,
          client: this.#other(),
          allow: this.#privileges(type),
          deny: random.oneIn(3) ? this.#privileges(type) : [],
        };
      }
      case "revoke":
      case "revoke_all": {
        const resource = this.#own(client);
        const held = client.things.get(key(resource));
        const other = random.pick([...held?.grants.values() ?? []])?.client ?? this.#other();
        const common = { resource, client: other, repeated: false };
        return op === "revoke_all" ? common : { ...common, privileges: this.#privileges(this.#typeOf(resource)) };
      }
      case "check": {
        const resource = this.#some();
        return { resource, client: this.#other(), privilege: random.pick(VALID[this.#typeOf(resource)]) };
      }
      case "add_member":
        if (random.oneIn(8)) return { group: PUBLIC, member: client.context, canAssign: true };
        return {
          group: this.#own(client, "GROUP"),
          member: this.#contextOfSomebody().context,
          canAssign: random.oneIn(2),
        };
      case "remove_member":
        if (random.oneIn(4)) return { group: PUBLIC, member: client.context, repeated: false };
        return { group: this.#own(client, "GROUP"), member: this.#contextOfSomebody().context, repeated: false };
      case "is_member":
        return { group: this.#some("GROUP"), member: this.#contextOfSomebody().context };
      case "register":
        return { name: random.of(...NAMES), handle: this.#own(client), repeated: false };
      case "lookup":
        return { name: random.of(...NAMES) };
      case "unregister":
        return { name: random.of(...NAMES), repeated: false };
      case "list":
        return { prefix: random.of("", "a", "b"), after: null };
      case "watch_names":
        return { watch: ++this.#watches, prefix: random.of(...NAMES), exact: random.oneIn(2) };
      case "unwatch_names":
        return { watch: random.pick([...client.watches.keys()]) ?? 0 };
      case "ping":
        return { handle: this.#some(), token: random.below(8) };
      case "pong":
        return { client: random.pick(this.#model.people)?.number ?? 0, token: random.below(8) };
      default:
        return {};
    }
  }

  #regionShare(size: number, creatorOnly: boolean): SimulatedShare {
    return this.#medium.share("region", size, creatorOnly ? "creator" : "everybody");
  }

  /** Asks both. */
  #ask(client: SimulatedClient, request: Request, shares?: SimulatedShare[]): void {
    this.figures.requests++;
    client.pending.set(request.id, request);
    this.#both(() => this.#send(client, request, shares), () => this.#model.request(client.person, request));
    if (client.pending.has(request.id)) this.figures.deferred++;
  }

  #send(client: SimulatedClient, { id, op, args }: Request, shares: SimulatedShare[] = []): Outcome {
    if (op === "create_region") shares = [this.#regionShare(args.size, args.creatorOnly)];
    return this.#broker.handle(client.client, { message: { id, op, args }, shares });
  }

  /** Does the same with both, and compares what comes of it. */
  #both(act: () => Outcome, actInModel: () => void): void {
    const { outgoing, spent } = act();
    this.#model.made = this.#oracle(outgoing);
    actInModel();
    const { answers, told } = this.#model;
    const pids = new Set([...this.#byConnection.values()].map(({ pid }) => pid));
    const expectedTold = told.filter(({ person }) => pids.has(person.pid))
      .map(({ person, notice, body }) => `${person.pid} is told ${notice} ${canonical(body)}`);
    const actualTold: string[] = [];
    const replies = new Map<string, Message>();
    for (const it of outgoing) {
      const to = this.#byConnection.get(it.to);
      if (to === undefined) continue;
      const { notice, ...body } = it.message;
      if (it.kind === "notice") actualTold.push(`${to.pid} is told ${notice} ${canonical(body)}`);
      else replies.set(`${to.pid} ${it.message.id}`, it.message);
      this.#arrive(it);
    }
    this.figures.notices += actualTold.length;
    assertAlike(actualTold, expectedTold);
    for (const { person: { pid }, id, outcome } of answers) {
      const reply = replies.get(`${pid} ${id}`);
      assert(reply !== undefined, `${pid} should have been answered ${Deno.inspect(outcome)}`);
      replies.delete(`${pid} ${id}`);
      const error = reply.error as { code: string } | undefined;
      if ("code" in outcome) {
        this.figures.refused++;
        assertEquals(error?.code, outcome.code, `instead of ${canonical(reply)}`);
        continue;
      }
      assertEquals(error, undefined, `instead of ${canonical(outcome.result)}`);
      for (const [name, value] of Object.entries(outcome.result as Message)) {
        const actual = (reply.result as Message)[name];
        if (canonical(actual) !== canonical(value)) assertEquals(actual, value, `the answer's ${name}`);
      }
    }
    for (const [to, reply] of replies) throw new Error(`${to} should not have been answered ${Deno.inspect(reply)}`);
    for (const share of spent) this.#medium.release(share);
  }

  /** The numbers that the broker chose. */
  #oracle(outgoing: Outcome["outgoing"]): (person: Person, id: number) => Made {
    return ({ pid }, id) => {
      const reply = outgoing.find(({ to, kind, message }) =>
        kind !== "notice" && message.id === id && this.#byConnection.get(to)?.pid === pid
      );
      const made = reply?.message.result as Made | undefined;
      if (made === undefined) throw new Error(`it should not have been refused: ${Deno.inspect(reply?.message)}`);
      for (const number of [made.handle?.resource, made.lane, made.client]) {
        if (number === undefined || made.handle?.context === 1) continue;
        assert(number > this.#highest, `${number} was given before`);
        this.#highest = number;
      }
      return made;
    };
  }

  // --- What a client makes of what it is told -------------------------------------------------------------------------

  #arrive({ to, kind, message, shares }: Outcome["outgoing"][number]): void {
    const client = this.#byConnection.get(to);
    if (client === undefined) return;
    const { notice } = message;
    const request = kind === "notice" ? undefined : client.pending.get(message.id as number);
    const result = message.result as Message | undefined;
    const { fresh } = kind === "notice" ? message : result ?? {};
    const due = SHARES[(request?.op ?? notice) as string] ?? (() => 0);
    assertEquals(shares.length, result === undefined && request !== undefined ? 0 : due(fresh === true));
    for (const share of shares as SimulatedShare[]) assert(!share.released, "it is handed on before it is given back");
    if (kind === "notice") return this.#hear(client, notice as string, message);
    if (kind === "welcome") {
      const { client: number, flags, ticket } = result as { client: number; flags: number; ticket: string };
      Object.assign(client, { number, flags, ticket });
      return;
    }
    if (request === undefined) return;
    client.pending.delete(request.id);
    if (result !== undefined) this.#answered(client, request, result);
  }

  // deno-lint-ignore no-explicit-any
  #hear(client: SimulatedClient, notice: string, body: any): void {
    switch (notice) {
      case "keep_grant":
      case "keep_name":
      case "keep_member": {
        if (same(body.handle, PUBLIC)) return void (client.belongs = body);
        const held = client.things.get(key(body.handle));
        if (held === undefined) client.early.push(body);
        else keep(held, body);
        return;
      }
      case "destroyed":
        return this.#lose(client, body.handle);
      case "lane":
        client.lanes.set(`${body.lane} received`, { ...body, sender: false });
        return;
      case "lane_closed":
        if (body.cause !== "gone" && client.lanes.delete(`${body.lane} received`)) client.unread.add(body.lane);
        if (body.cause !== "ended") client.lanes.delete(`${body.lane} sent`);
    }
  }

  // deno-lint-ignore no-explicit-any
  #answered(client: SimulatedClient, { op, args }: Request, result: any): void {
    switch (op) {
      case "create_endpoint":
      case "create_region":
      case "create_group": {
        const type = op === "create_region" ? "SHAREDMEM" : op === "create_group" ? "GROUP" : "DATAGRAM";
        const { handle, ticket, attachment } = result;
        const { size = 0, creatorOnly = false } = args;
        const held = {
          type,
          handle,
          size,
          creatorOnly,
          ticket,
          grants: new Map(),
          names: new Set(),
          members: new Map(),
          proofs: new Map(),
        };
        client.things.set(key(handle), held as Held);
        if (type === "SHAREDMEM") {
          client.attachments.set(key(handle), { handle, size, creatorOnly, ticket: attachment, count: 1 });
        }
        for (const it of client.early) if (same(it.handle as Handle, handle)) keep(held as Held, it);
        client.early.length = 0;
        if (!this.#handles.some((it) => same(it.handle, handle))) this.#handles.push({ type, handle });
        if (this.#handles.length > 64) this.#handles.splice(1, 1);
        return;
      }
      case "destroy":
        return this.#lose(client, args.handle);
      case "attach": {
        const { size, creatorOnly, attachment: ticket } = result;
        const known = client.attachments.get(key(args.handle));
        if (known === undefined) {
          client.attachments.set(key(args.handle), { handle: args.handle, size, creatorOnly, ticket, count: 1 });
        } else known.count++;
        return;
      }
      case "watch_region":
        client.attachments.get(key(args.handle))!.watched = true;
        return;
      case "detach": {
        const attachment = client.attachments.get(key(args.handle))!;
        if (--attachment.count > 0) return;
        client.attachments.delete(key(args.handle));
        client.things.delete(key(args.handle));
        return;
      }
      case "open_lane": {
        const { source, destination } = args;
        for (const [name, lane] of client.lanes) {
          if (lane.sender && same(lane.source, source) && same(lane.destination, destination)) {
            client.lanes.delete(name);
          }
        }
        const { lane, ticket } = result;
        client.lanes.set(`${lane} sent`, { lane, source, destination, sender: true, ticket });
        return;
      }
      case "close_lane":
        client.lanes.delete(`${args.lane} sent`);
        client.lanes.delete(`${args.lane} received`);
        client.unread.delete(args.lane);
        return;
      case "watch_names":
        client.watches.set(args.watch, { prefix: args.prefix, exact: args.exact });
        return;
      case "unwatch_names":
        client.watches.delete(args.watch);
        return;
      case "subscribe":
        client.subscribed = true;
    }
  }

  /** A resource is gone, and what went from it and into it. */
  #lose(client: SimulatedClient, handle: Handle): void {
    const held = client.things.get(key(handle));
    if (held === undefined) return;
    client.things.delete(key(handle));
    for (const [name, lane] of client.lanes) {
      if (same(lane.sender ? lane.source : lane.destination, handle)) client.lanes.delete(name);
    }
  }

  // --- Comparisons ----------------------------------------------------------------------------------------------------

  /** What a client was told that it has. */
  #toldEstate(client: SimulatedClient): Estate {
    return {
      things: [...client.things.values()].map(({ type, handle, size, creatorOnly, grants, names, members }) =>
        describe(type, handle, size, creatorOnly, [...grants.values()], [...names], [...members.values()])
      ).sort(),
      attachments: [...client.attachments.values()].map(({ handle, count }) => `${canonical(handle)} ${count}`).sort(),
      lanes: this.#model.recovering ? [] : [...client.lanes.keys()].sort(),
    };
  }

  /** What a client has. */
  #modelEstate(person: Person): Estate {
    const { things, entries, names, members, attachments, lanes, recovering } = this.#model;
    const ofThing = (thing: Thing) => {
      const clients = this.#model.listed(thing);
      const grants = entries.length === 0 ? [] : clients.map((client) => this.#model.entryOf(thing, client));
      const { type, handle, size, creatorOnly } = thing;
      const own = names.filter((it) => it.thing === thing).map(({ name }) => name);
      return describe(type, handle, size, creatorOnly, grants, own, members.filter(({ group }) => group === thing));
    };
    return {
      things: things.filter(({ owner }) => owner === person).map(ofThing).sort(),
      attachments: attachments.filter((it) => it.person === person)
        .map(({ region, count }) => `${canonical(region.handle)} ${count}`).sort(),
      lanes: recovering ? [] : lanes.flatMap(({ number, sender, destination }) => [
        ...sender === person ? [`${number} sent`] : [],
        ...destination.owner === person ? [`${number} received`] : [],
      ]).sort(),
    };
  }

  #checkShares(): void {
    assertEquals(this.#medium.live, this.#model.held + 1, "shares that the broker holds");
  }

  /** What somebody may, as the broker says to whoever asks. */
  #sample(): void {
    const { things, recovering } = this.#model;
    if (recovering) return;
    const thing = this.#random.pick(things)!;
    const privilege = this.#random.pick(VALID[thing.type])!;
    const client = this.#random.oneIn(4)
      ? this.#random.pick(things.filter(({ type }) => type === "GROUP"))!.handle
      : this.#contextOfSomebody();
    const actual = this.#look("check", { resource: thing.handle, client, privilege });
    const expected = this.#model.decide(client, thing, privilege);
    if (canonical(actual) !== canonical(expected)) assertEquals(actual as unknown, expected);
  }

  #look(op: string, args: Message): Message {
    const { outgoing, spent } = this.#broker.handle(this.#observer, { message: { id: 1, op, args }, shares: [] });
    assertEquals([outgoing.length, spent.length], [1, 0]);
    return outgoing[0]!.message.result as Message;
  }

  #inspected(topic: InspectTopic): string[] {
    const all: string[] = [];
    for (let after: number | null = 0; after !== null;) {
      const page: Message = this.#look("inspect", { topic, after });
      all.push(...(page.entries as Message[]).map(canonical));
      after = page.next as number | null;
    }
    return all;
  }

  /** All that can be seen of the broker is what the model says there is. */
  #inspect(): void {
    const model = this.#model;
    if (model.recovering) return;
    this.figures.inspected++;
    const contexts = [...model.contexts].map(([context, { flags }]) => {
      const people = model.people.filter((it) => it.context === context);
      return {
        context,
        flags,
        processes: people.map(({ pid }) => ({ pid, uid: 1000 })),
        clients: people.length,
        resources: model.ownedIn(context).length,
        regionBytes: model.ownedIn(context).reduce((sum, { size }) => sum + pages(size), 0),
        names: model.names.filter(({ thing }) => thing.context === context).length,
      };
    });
    assertAlike(this.#inspected("contexts"), contexts.map(canonical));
    const resources = model.things.map((thing) => {
      const { type, handle, owner, size, creatorOnly } = thing;
      const own = model.names.filter((it) => it.thing === thing).map(({ name }) => name);
      const common = {
        type,
        handle,
        pid: owner?.pid ?? null,
        names: own.slice(0, 1),
        grants: model.listed(thing).length,
      };
      if (type === "SHAREDMEM") {
        const attachments = model.attachments.filter((it) => it.region === thing).length;
        return { ...common, size, writers: creatorOnly ? "creator" : "everybody", attachments };
      }
      if (type === "GROUP") return { ...common, members: model.members.filter(({ group }) => group === thing).length };
      return { ...common, lanes: model.lanes.filter(({ destination }) => destination === thing).length };
    });
    assertAlike(this.#inspected("resources"), resources.map(canonical));
    const attachments = model.attachments.map(({ person: { context, pid }, region: { handle }, count }) =>
      canonical({ handle, context, pid, count })
    );
    assertAlike(this.#inspected("attachments"), attachments);
    const lanes = model.lanes.map(({ source, sender: { context, pid }, destination: { handle, owner } }) =>
      canonical({ source, destination: handle, context, pid, receiver: owner!.pid })
    );
    assertAlike(this.#inspected("lanes"), lanes);
    assertEquals(canonical(this.#look("list", { prefix: "", after: null }).entries), canonical(model.listedNames("")));
  }

  /** Everybody leaves: nothing is left. */
  #end(): void {
    for (const client of [...this.#clients]) this.#leave(client);
    this.#both(() => this.#broker.endRecovery(), () => this.#model.endRecovery());
    assertEquals(this.#model.held, 0);
    this.#checkShares();
    this.#inspect();
  }
}

/** What hangs on one client, as text. */
interface Estate {
  readonly things: readonly string[];
  readonly attachments: readonly string[];
  readonly lanes: readonly string[];
}

/** How many shares come with what. */
const SHARES: Readonly<Record<string, (fresh: boolean) => number>> = {
  lane: (fresh) => fresh ? 3 : 1,
  open_lane: (fresh) => fresh ? 3 : 1,
  peer: () => 2,
  attach: () => 1,
};

// deno-lint-ignore no-explicit-any
function keep({ grants, names, members, proofs }: Held, { notice, entry, name, member, present, ticket }: any): void {
  proofs.set(name ?? member?.context ?? key(entry.client), ticket);
  if (notice === "keep_grant") {
    if (Object.keys(entry.states).length === 0) grants.delete(key(entry.client));
    else grants.set(key(entry.client), entry);
  } else if (notice === "keep_name") names[present ? "add" : "delete"](name);
  else if (present) members.set(member.context, member);
  else members.delete(member.context);
}

function describe(
  type: string,
  handle: Handle,
  size: number,
  creatorOnly: boolean,
  grants: readonly AccessEntry[],
  names: readonly string[],
  members: readonly GroupMember[],
): string {
  const joined = members.toSorted((a, b) => a.order - b.order).map((it) => `${it.context} ${it.canAssign}`);
  return [
    type,
    canonical(handle),
    size,
    creatorOnly,
    grants.map(canonical).sort(),
    names.map(canonical).toSorted(),
    joined,
  ].join(" ");
}

/** The same texts in any order. */
function assertAlike(actual: string[], expected: string[]): void {
  if (actual.length === expected.length) {
    if (actual.length === 0) return;
    actual.sort();
    expected.sort();
    if (actual.every((text, i) => text === expected[i])) return;
  }
  assertEquals(actual.toSorted(), expected.toSorted());
}

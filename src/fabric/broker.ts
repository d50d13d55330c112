/**
 * The broker: it plays the hypervisor. It decides about contexts, resources, privileges, groups, names and quotas, and is
 * on the way only when something is created, attached, looked up, granted or closed.
 *
 * It is a state machine without clock, randomness or I/O of its own: a packet of a client goes in, packets to clients
 * come out. What it needs made - a lane's pages, a bell - it asks of the medium before it changes anything, so that a
 * failure leaves nothing half done.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import {
  contextHandle,
  type ContextId,
  FIRST_DYNAMIC_RESOURCE,
  FIRST_VM_CONTEXT,
  formatHandle,
  type Handle,
  handlesEqual,
  HOST_CONTEXT,
  HYPERVISOR_CONTEXT,
  INVALID_ID,
  isInvalidHandle,
  WELL_KNOWN_CONTEXT,
} from "../handle.ts";
import { PUBLIC_GROUP_NAME } from "../limits.ts";
import {
  flagsPermit,
  PrivilegeFlags,
  type PrivilegeName,
  type ResourceTypeName,
  validPrivileges,
} from "../privilege.ts";
import type { ErrorCodeName } from "../result_code.ts";
import { Client, Context, Endpoint, Group, type Identity, type Lane, Region, ResourceTable } from "./broker_state.ts";
import type { Resource } from "./broker_state.ts";
import type { BrokerMedium, Packet, RegionAccess, Share } from "./medium.ts";
import { nameEntry, NameTable } from "./name_table.ts";
import { formatContexts, includesContext, type Policy } from "./policy.ts";
import {
  type CheckedRequest,
  checkRequest,
  type GroupMember,
  type Message,
  type NoticeName,
  type Notices,
  type Operation,
  PAGE_LENGTH,
  type PrivilegeState,
  PROTOCOL_VERSION,
  requestId,
  type Requests,
  type Results,
} from "./protocol.ts";
import { DEFAULT_QUOTA, type Quota } from "./quota.ts";

/** One packet that the broker wants sent. */
export interface Outgoing {
  /** To whom. */
  readonly to: Client;
  /** A `welcome` is the reply to hello, to which the server adds what belongs to the connection. */
  readonly kind: "reply" | "notice" | "welcome";
  /** The message. */
  readonly message: Message;
  /** What goes with it. */
  readonly shares: readonly Share[];
  /** The request that it is the reply to, if that could be read. */
  readonly request?: CheckedRequest;
}

/** What came of one step. */
export interface Outcome {
  /** What to send, in this order. */
  readonly outgoing: readonly Outgoing[];
  /** What to release once all of it was sent. */
  readonly spent: readonly Share[];
}

/** How a broker starts. */
export interface BrokerOptions {
  /** The process that runs it. */
  readonly pid: number;
  /** `embedded`, `daemon` or `memory`. */
  readonly kind: string;
  /** The version of this library. */
  readonly version: string;
  /** What each may hold. */
  readonly quota?: Quota;
  /** The first number that was never given. */
  readonly firstNumber?: number;
  /** Who may be what; without it, whoever the medium lets in. */
  readonly policy?: Policy;
  /** How claims of what was had under the broker before are proven; without it, its own user is believed. */
  readonly tickets?: Tickets;
  /** Those who lived under the broker before, and must announce themselves. */
  readonly survivors?: Iterable<string>;
}

/** What a broker says of itself in a claim, so that the next one can trust it. */
export interface Tickets {
  /** A ticket for a claim. */
  issue(claim: string): string;
  /** Whether a ticket was issued for that claim. */
  isGenuine(claim: string, ticket: string): boolean;
}

/** What a new broker expects the holder of a byte of the roster by. */
export function slotSurvivor(slot: number): string {
  return `slot ${slot}`;
}

/** What a new broker expects a client without a byte of the roster by. */
export function clientSurvivor(client: number): string {
  return `client ${client}`;
}

/** The handle of the group of all contexts: the same in every life of every fabric. */
export const PUBLIC_GROUP: Handle = Object.freeze({ context: HOST_CONTEXT, resource: FIRST_DYNAMIC_RESOURCE });

/** Numbers are reserved in blocks of so many before the first of them is used. */
const NUMBER_BLOCK = 1024;

/** Of more processes attached to one region nobody is told who they all are. */
const MOST_REGION_PEERS = 4096;

const PAGE = 4096;

/** What must not be answered from incomplete knowledge even where the answer would be yes. */
const needsEverything: ReadonlySet<Operation> = new Set<Operation>([
  "register",
  "list",
  "detach",
  "inspect",
  "is_member",
  "check",
]);

/** What a client says before the broker knows everything. */
const neverDeferred: ReadonlySet<Operation> = new Set<Operation>([
  "hello",
  "announce_resource",
  "announce_entries",
  "announce_attachment",
  "announce_lane",
  "announce_peers",
  "announced",
  "subscribe",
  "watch_names",
  "unwatch_names",
  "pong",
  "bye",
]);

/** What one who only looks may ask. */
const forObservers: ReadonlySet<Operation> = new Set<Operation>([
  "hello",
  "announced",
  "query",
  "check",
  "is_member",
  "lookup",
  "list",
  "watch_names",
  "unwatch_names",
  "subscribe",
  "inspect",
  "ping",
  "bye",
]);

type Handlers = {
  readonly [O in Operation]: (client: Client, args: Requests[O], shares: Share[]) => Results[O];
};

/** See the module's comment. */
export class Broker {
  readonly #medium: BrokerMedium;
  readonly #options: BrokerOptions;
  #policy: Policy | undefined;
  readonly #contexts = new Map<ContextId, Context>();
  readonly #clients = new Map<number, Client>();
  /** Those that watch names. */
  readonly #watching = new Set<Client>();
  readonly #resources = new ResourceTable();
  readonly #names = new NameTable();
  readonly #lanes = new Map<number, Lane>();
  readonly #publicGroup: Group;
  #ended = false;
  #nextNumber: number;
  #reserved = 0;

  /** Those that have not announced yet. */
  readonly #survivors: Set<string>;
  /** One end of each lane that was announced, until the other end is too. */
  readonly #halfLanes = new Map<number, Requests["announce_lane"] & { readonly client: Client }>();
  #deferred: { readonly client: Client; readonly request: CheckedRequest; readonly shares: Share[] }[] = [];

  /** What the step under way wants sent and released. */
  #outgoing: Outgoing[] = [];
  #spent: Share[] = [];
  /** Shares of the reply under way. */
  #replyShares: Share[] = [];

  constructor(medium: BrokerMedium, options: BrokerOptions) {
    this.#medium = medium;
    this.#options = options;
    this.#policy = options.policy;
    this.#nextNumber = Math.max(options.firstNumber ?? 0, PUBLIC_GROUP.resource + 1);
    this.#survivors = new Set(options.survivors);
    this.#publicGroup = new Group(PUBLIC_GROUP, HYPERVISOR_CONTEXT, undefined);
    this.#resources.add(this.#publicGroup);
    this.#names.add(PUBLIC_GROUP_NAME, this.#publicGroup);
    this.#publicGroup.names.add(PUBLIC_GROUP_NAME);
  }

  /** Whether clients of the broker before are still expected to announce themselves. */
  get recovering(): boolean {
    return this.#survivors.size > 0;
  }

  /** Those that are expected. */
  get survivors(): ReadonlySet<string> {
    return this.#survivors;
  }

  /** Whether the last client said that it leaves: nobody new can be taken in. */
  get ended(): boolean {
    return this.#ended;
  }

  /** How many clients said hello. */
  get clientCount(): number {
    return this.#clients.size;
  }

  /** A connection was made. */
  connect(identity: Identity): Client {
    return new Client(identity);
  }

  /** A packet came. Its shares are the broker's from here on. */
  handle(client: Client, packet: Packet): Outcome {
    return this.#step(() => {
      const shares = [...packet.shares];
      try {
        this.#answer(client, checkRequest(packet.message), shares);
      } catch (error) {
        this.#refuse(client, requestId(packet.message), error);
      }
      this.#spent.push(...shares);
    });
  }

  /** A connection ended: all that its client had goes. */
  disconnect(client: Client): Outcome {
    return this.#step(() => this.#remove(client));
  }

  /** A survivor died before it announced anything. */
  survivorGone(survivor: string): Outcome {
    return this.#step(() => this.#expectNoMore(survivor));
  }

  /** The time to announce is over. */
  endRecovery(): Outcome {
    return this.#step(() => {
      for (const survivor of [...this.#survivors]) this.#expectNoMore(survivor);
    });
  }

  /** There is another policy: it holds for whoever comes from now on, and its flags and quotas at once for all. */
  setPolicy(policy: Policy): Outcome {
    return this.#step(() => {
      this.#policy = policy;
      for (const context of this.#contexts.values()) {
        context.quota = this.#quotaOf(context.id);
        context.flags = policy.flagsOf(context.id) ?? context.chosenFlags;
      }
      this.#recheckLanes(this.#lanes.values());
    });
  }

  #step(act: () => void): Outcome {
    this.#outgoing = [];
    this.#spent = [];
    act();
    return { outgoing: this.#outgoing, spent: this.#spent };
  }

  /** Runs a request and replies to it; takes out of `shares` what it keeps. */
  #answer(client: Client, request: CheckedRequest, shares: Share[]): void {
    if (client.number === 0 && request.op !== "hello") {
      return this.#refuse(client, request.id, refusal("INVALID_ARGS", "say hello first"), request);
    }
    if (client.observer && !forObservers.has(request.op)) {
      return this.#refuse(client, request.id, refusal("NO_ACCESS", "an observer only looks"), request);
    }
    const deferrable = this.recovering && !neverDeferred.has(request.op);
    if (deferrable && needsEverything.has(request.op)) return this.#defer(client, request, shares);
    // Answering one request may be what others have waited for: each has shares of its own.
    const outer = this.#replyShares;
    this.#replyShares = [];
    try {
      const handler = this.#handlers[request.op] as (client: Client, args: unknown, shares: Share[]) => unknown;
      const result = handler(client, request.args, shares);
      const kind = request.op === "hello" ? "welcome" : "reply";
      const message = { id: request.id, result };
      this.#outgoing.push({ to: client, kind, message, shares: this.#replyShares, request });
    } catch (error) {
      if (deferrable && error instanceof VmciError) return this.#defer(client, request, shares);
      this.#refuse(client, request.id, error, request);
    } finally {
      this.#replyShares = outer;
    }
  }

  #defer(client: Client, request: CheckedRequest, shares: Share[]): void {
    this.#deferred.push({ client, request, shares: shares.splice(0) });
  }

  #refuse(client: Client, id: number, error: unknown, request?: CheckedRequest): void {
    const code = error instanceof VmciError ? error.code : "NO_RESOURCES";
    const reason = error instanceof VmciError ? error.reason : `the broker failed: ${(error as Error).message}`;
    const reply = { to: client, kind: "reply", message: { id, error: { code, reason } }, shares: [] } as const;
    this.#outgoing.push(request === undefined ? reply : { ...reply, request });
  }

  #notify<N extends NoticeName>(to: Client, notice: N, body: Notices[N], shares: readonly Share[] = []): void {
    this.#outgoing.push({ to, kind: "notice", message: { notice, ...body }, shares });
  }

  // --- Who asks -----------------------------------------------------------------------------------------------------

  readonly #handlers: Handlers = {
    hello: (client, args, shares) => {
      if (client.number !== 0) fail("INVALID_ARGS", "hello was said before");
      if (args.protocol !== PROTOCOL_VERSION) {
        fail(
          "UNAVAILABLE",
          `the broker (process ${this.#options.pid}, version ${this.#options.version}) speaks protocol ` +
            `${PROTOCOL_VERSION}, this program (version ${args.version}) protocol ${args.protocol}: use one version`,
        );
      }
      const context = this.#contextFor(client.identity, args);
      const [attention] = shares;
      if (attention === undefined) fail("INVALID_ARGS", "an attention word belongs to hello");
      this.#medium.checkAttention(attention);
      const { client: before } = args;
      const reclaims = before !== null && before > PUBLIC_GROUP.resource && before < this.#nextNumber &&
        !this.#clients.has(before) &&
        this.#believes(client, ["client", before, context.id], args.ticket);
      client.number = reclaims ? before : this.#number();
      client.survivor = args.slot >= 0 ? slotSurvivor(args.slot) : clientSurvivor(client.number);
      client.observer = args.observer;
      client.context = context;
      client.attention = shares.shift()!;
      this.#clients.set(client.number, client);
      if (!client.observer) this.#enter(client, context);
      if (before !== null && client.identity.privileged && !client.observer) this.#restoreFlags(context, args.flags);
      // Who lived under no broker before has nothing to announce.
      if (before === null) this.#expectNoMore(client.survivor);
      const { pid, kind, version } = this.#options;
      const ticket = this.#ticket("client", client.number, context.id);
      return { client: client.number, context: context.id, flags: context.chosenFlags, version, pid, kind, ticket };
    },

    announce_resource: (client, args, shares) => {
      const context = contextOf(client);
      const { type, handle } = args;
      const wellKnown = type === "DATAGRAM" && handle.context === WELL_KNOWN_CONTEXT;
      const known = this.#resources.get(type, handle);
      const claim = resourceClaim(context.id, type, handle, args.size, args.creatorOnly);
      // It may have been told before, if its announcing was broken off.
      if (known?.owner === client) return { accepted: true };
      if ((handle.context !== context.id && !wellKnown) || known?.owner !== undefined) return { accepted: false };
      if (!wellKnown && !this.#wasGiven(handle.resource)) return { accepted: false };
      if (!this.#believes(client, claim, args.ticket)) return { accepted: false };
      if (type === "SHAREDMEM") {
        const region = this.#announcedRegion(client, args, shares);
        if (region === undefined) return { accepted: false };
        this.#own(client, region);
      } else if (known === undefined) {
        this.#own(
          client,
          type === "GROUP" ? new Group(handle, context.id, client) : new Endpoint(handle, context.id, client),
        );
      }
      return { accepted: known === undefined || type === "SHAREDMEM" };
    },

    announce_entries: (client, args) => {
      const resource = this.#resources.get(args.type, args.handle);
      if (resource === undefined || resource.owner !== client) fail("NOT_FOUND", `no such resource of yours`);
      for (const { client: other, states } of args.grants) {
        const set = Object.entries(states) as [PrivilegeName, string][];
        const valid = set.filter(([privilege]) => validPrivileges[args.type].includes(privilege));
        resource.access.set(
          other,
          valid.filter(([, state]) => state === "ALLOW").map(([privilege]) => privilege),
          valid.filter(([, state]) => state === "DENY").map(([privilege]) => privilege),
        );
      }
      if (resource instanceof Group) {
        // One who may still come back is waited for; one who comes later is another.
        const members = args.members.filter(({ context }) => this.recovering || this.#contexts.has(context));
        for (const member of members) this.#join(resource, member);
      }
      const refused = args.names.filter((name) => (this.#names.get(name) ?? resource) !== resource);
      for (const name of args.names) {
        if (this.#names.get(name) === undefined) this.#addName(name, resource);
      }
      return { refused };
    },

    announce_attachment: (client, args) => {
      const claim = attachmentClaim(contextOf(client).id, args.handle, args.size, args.creatorOnly);
      if (!this.#believes(client, claim, args.ticket)) return { accepted: false };
      // If its creator has not announced yet, or is gone, nobody new can attach.
      const region = this.#resources.region(args.handle) ??
        new Region(args.handle, args.handle.context, undefined, undefined, args.size, writers(args));
      if (region.size !== args.size || args.count === 0 || !this.#wasGiven(args.handle.resource)) {
        return { accepted: false };
      }
      this.#resources.add(region);
      if (!this.recovering && !client.attachments.has(region)) {
        // The others were told that it is gone.
        const { id } = contextOf(client);
        for (const other of region.attachments.keys()) {
          this.#notify(other, "region_peer", { handle: region.handle, context: id, attached: true });
        }
      }
      this.#attach(client, region, args.count - (client.attachments.get(region) ?? 0));
      return { accepted: true };
    },

    announce_lane: (client, args) => {
      if (!this.#wasGiven(args.lane)) {
        this.#notify(client, "lane_closed", { lane: args.lane, cause: args.sender ? "gone" : "ended" });
        return {};
      }
      const known = this.#lanes.get(args.lane);
      if (known !== undefined && (args.sender ? known.sender : known.destination.owner) === client) return {};
      const other = this.#halfLanes.get(args.lane);
      if (other === undefined || other.sender === args.sender) {
        this.#halfLanes.set(args.lane, { ...args, client });
        if (!this.recovering) this.#closeHalfLanes();
        return {};
      }
      this.#halfLanes.delete(args.lane);
      const [sender, receiver] = args.sender ? [client, other.client] : [other.client, client];
      const destination = this.#resources.endpoint(args.destination);
      const agreed = handlesEqual(other.source, args.source) && handlesEqual(other.destination, args.destination);
      if (!agreed || destination?.owner !== receiver || this.#lanes.has(args.lane)) {
        this.#notify(sender, "lane_closed", { lane: args.lane, cause: "gone" });
        this.#notify(receiver, "lane_closed", { lane: args.lane, cause: "ended" });
        return {};
      }
      this.#addLane({ number: args.lane, source: args.source, sender, destination });
      // Whether it is still allowed is looked at when all have announced what they granted.
      return {};
    },

    announce_peers: (client, args) => {
      for (const number of args.peers) {
        client.peers.add(number);
        this.#clients.get(number)?.peers.add(client.number);
      }
      return {};
    },

    announced: (client) => {
      this.#expectNoMore(client.survivor);
      if (!this.recovering) this.#tellSettled(client);
      return {};
    },

    // --- Datagrams --------------------------------------------------------------------------------------------------

    create_endpoint: (client, args) => {
      const context = this.#roomForResource(client);
      let handle: Handle;
      if (args.wellKnown) {
        handle = this.#wellKnownHandle(context, args.resource);
      } else {
        if (args.resource !== null) {
          fail("INVALID_ARGS", "only a well-known handle has an id of one's own choice; leave the id out");
        }
        handle = { context: context.id, resource: this.#number() };
      }
      const endpoint = new Endpoint(handle, context.id, client);
      this.#own(client, endpoint);
      this.#grantDefaults(endpoint);
      return { handle, ticket: this.#ticket(...resourceClaim(context.id, "DATAGRAM", handle, 0, false)) };
    },

    destroy: (client, args) => {
      const resource = this.#resources.get(args.type, args.handle);
      if (resource === undefined) {
        if (this.#wasDone(args)) return {};
        fail("NOT_FOUND", `there is no ${args.type} resource ${formatHandle(args.handle)}`);
      }
      if (resource instanceof Region) fail("INVALID_RESOURCE", "a region is not destroyed: detach from it");
      this.#demand(client, resource, "DESTROY_RESOURCE");
      if (resource.owner !== undefined && resource.owner !== client) {
        this.#notify(resource.owner, "destroyed", { type: resource.type, handle: resource.handle });
      }
      this.#destroy(resource);
      return {};
    },

    open_lane: (client, args) => {
      const context = contextOf(client);
      if (!isInvalidHandle(args.source)) this.#checkSource(context, args.source);
      const destination = this.#reach(args.destination);
      const receiver = destination.owner!;
      this.#demand(client, destination, "DG_SEND");
      if (receiver.incoming.size >= contextOf(receiver).quota.lanes) {
        fail("NO_RESOURCES", `the receiver has its quota of ${contextOf(receiver).quota.lanes} lanes`);
      }
      const known = client === receiver || client.peers.has(receiver.number);
      const number = this.#number();
      const pages = this.#make(() => this.#medium.makeLane());
      let bell: readonly [Share, Share] | undefined;
      if (!known) {
        try {
          bell = this.#make(() => this.#medium.makeBell());
        } catch (error) {
          this.#medium.release(pages);
          throw error;
        }
      }
      const lane: Lane = { number, source: args.source, sender: client, destination };
      // A sender that asks again has lost the lane it had.
      for (const old of client.outgoing) {
        if (old.destination === destination && handlesEqual(old.source, args.source)) this.#endLane(old, "ended");
      }
      this.#addLane(lane);
      this.#spent.push(pages, ...bell ?? []);
      const fresh = bell !== undefined;
      this.#notify(
        receiver,
        "lane",
        { lane: lane.number, source: lane.source, destination: destination.handle, peer: client.number, fresh },
        bell === undefined ? [pages] : [pages, bell[1], client.attention!],
      );
      this.#replyShares = bell === undefined ? [pages] : [pages, bell[0], receiver.attention!];
      if (fresh) this.#befriend(client, receiver);
      return { lane: lane.number, peer: receiver.number, fresh };
    },

    forget_peer: (client, args) => {
      const peer = this.#clients.get(args.peer);
      if (peer === undefined || !client.peers.delete(peer.number)) return {};
      peer.peers.delete(client.number);
      for (const [sender, receiver] of [[client, peer], [peer, client]] as const) {
        for (const lane of [...sender.outgoing]) {
          if (lane.destination.owner === receiver) this.#endLane(lane, "lost");
        }
      }
      return {};
    },

    close_lane: (client, args) => {
      const lane = this.#lanes.get(args.lane);
      // It may have been closed from the other end just now.
      if (lane?.sender === client) this.#endLane(lane, "ended");
      else if (lane?.destination.owner === client) this.#endLane(lane, "revoked");
      return {};
    },

    // --- Shared memory ----------------------------------------------------------------------------------------------

    create_region: (client, args, shares) => {
      const context = this.#roomForResource(client);
      if (args.size < 1) fail("INVALID_SIZE", "a region has at least 1 byte");
      const pages = wholePages(args.size);
      if (context.regionBytes + pages > context.quota.regionBytes) {
        fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.regionBytes} bytes of regions`);
      }
      if (context.attachments >= context.quota.attachments) this.#noAttachmentsLeft(context);
      const [share] = shares;
      if (share === undefined) fail("INVALID_ARGS", "a region's memory belongs to the request");
      this.#medium.checkRegion(share, args.size, writers(args));
      const handle = { context: context.id, resource: this.#number() };
      const region = new Region(handle, context.id, client, shares.shift()!, args.size, writers(args));
      context.regionBytes += pages;
      this.#own(client, region);
      this.#attach(client, region, 1);
      this.#grantDefaults(region);
      return {
        handle,
        ticket: this.#ticket(...resourceClaim(context.id, "SHAREDMEM", handle, args.size, args.creatorOnly)),
        attachment: this.#ticket(...attachmentClaim(context.id, handle, args.size, args.creatorOnly)),
      };
    },

    query: (_client, args) => ({ size: this.#region(args.handle).size }),

    attach: (client, args) => {
      const context = contextOf(client);
      const region = this.#region(args.handle);
      if (region.share === undefined || region.owner === undefined) {
        fail("UNAVAILABLE", "its creator is gone: nobody new can attach");
      }
      this.#demand(client, region, "SM_ATTACH");
      if (context.attachments >= context.quota.attachments) this.#noAttachmentsLeft(context);
      this.#introduceWatchers(region, [...region.watchers].map((watcher) => [watcher, client]));
      if (!region.attachments.has(client)) {
        for (const other of region.attachments.keys()) {
          this.#notify(other, "region_peer", { handle: region.handle, context: context.id, attached: true });
        }
        this.#tellRegionPeers(client, region);
      }
      this.#attach(client, region, 1);
      this.#replyShares = [region.share];
      const writable = region.writers === "everybody" || region.owner === client;
      const creatorOnly = region.writers === "creator";
      const attachment = this.#ticket(...attachmentClaim(context.id, region.handle, region.size, creatorOnly));
      return { size: region.size, creatorOnly, writable, attachment };
    },

    detach: (client, args) => {
      const region = this.#region(args.handle);
      if (!client.attachments.has(region)) fail("INVALID_ARGS", "you are not attached to this region");
      return { last: this.#detach(client, region, 1) };
    },

    watch_region: (client, args) => {
      const region = this.#region(args.handle);
      if (!client.attachments.has(region)) fail("INVALID_ARGS", "you are not attached to this region");
      if (region.watchers.has(client)) return {};
      this.#introduceWatchers(region, [...region.attachments.keys()].map((other) => [client, other]));
      region.watchers.add(client);
      return {};
    },

    // --- Access control ---------------------------------------------------------------------------------------------

    grant: (client, args) => {
      const resource = this.#changeable(client, args.resource, args.client, [...args.allow, ...args.deny]);
      if (args.allow.length + args.deny.length === 0) fail("INVALID_ARGS", "no privilege was named");
      if (args.client.resource !== 0 && this.#resources.group(args.client) === undefined) {
        fail("INVALID_ARGS", `${formatHandle(args.client)} is neither a context nor a group`);
      }
      const known = Object.keys(resource.access.entry(args.client).states).length > 0;
      if (!known && resource.access.size >= contextOf(client).quota.grants) {
        fail("NO_RESOURCES", `the resource has its quota of ${contextOf(client).quota.grants} clients`);
      }
      if (args.client.resource !== 0) this.#checkAssign(contextOf(client), args.client);
      resource.access.set(args.client, args.allow, args.deny);
      this.#accessChanged(resource, args.client);
      return {};
    },

    revoke: (client, args) => {
      const resource = this.#changeable(client, args.resource, args.client, args.privileges);
      if (args.privileges.length === 0) fail("INVALID_ARGS", "no privilege was named");
      if (!resource.access.unset(args.client, args.privileges)) {
        if (this.#wasDone(args)) return {};
        fail("INVALID_ARGS", "that client has no entry");
      }
      this.#accessChanged(resource, args.client);
      return {};
    },

    revoke_all: (client, args) => {
      const resource = this.#changeable(client, args.resource, args.client, []);
      if (!resource.access.remove(args.client)) {
        if (this.#wasDone(args)) return {};
        fail("INVALID_ARGS", "that client has no entry");
      }
      this.#accessChanged(resource, args.client);
      return {};
    },

    check: (_client, args) => {
      const resource = this.#resources.find(args.resource);
      if (resource === undefined) fail("INVALID_ARGS", `there is no resource ${formatHandle(args.resource)}`);
      if (!validPrivileges[resource.type].includes(args.privilege)) {
        fail("INVALID_PRIV", `${args.privilege} is no privilege of a ${resource.type} resource`);
      }
      const isContext = args.client.resource === 0;
      if (!isContext && this.#resources.group(args.client) === undefined) {
        fail("INVALID_ARGS", `${formatHandle(args.client)} is neither a context nor a group`);
      }
      return this.#decide(args.client, resource, args.privilege);
    },

    create_group: (client) => {
      const context = this.#roomForResource(client);
      const handle = { context: context.id, resource: this.#number() };
      const group = new Group(handle, context.id, client);
      this.#own(client, group);
      this.#grantDefaults(group);
      return { handle, ticket: this.#ticket(...resourceClaim(context.id, "GROUP", handle, 0, false)) };
    },

    add_member: (client, args) => {
      const group = this.#group(args.group);
      if (group === this.#publicGroup) {
        if (args.member !== contextOf(client).id) fail("NO_ACCESS", "a context joins the public group by itself");
      } else {
        this.#demand(client, group, "CH_PRIV");
      }
      if (!this.#contexts.has(args.member)) fail("INVALID_ARGS", `there is no context ${args.member}`);
      const old = group.members.get(args.member);
      const canAssign = group === this.#publicGroup || args.canAssign;
      const member = { context: args.member, canAssign, order: old?.order ?? this.#number() };
      this.#join(group, member);
      this.#keepMember(group, member, true);
      return {};
    },

    remove_member: (client, args) => {
      const group = this.#group(args.group);
      // A context may leave by itself; who puts another one out needs the right.
      if (args.member !== contextOf(client).id) this.#demand(client, group, "CH_PRIV");
      const member = group.members.get(args.member);
      if (member === undefined) {
        if (this.#wasDone(args)) return {};
        fail("INVALID_ARGS", `context ${args.member} is not in the group`);
      }
      group.members.delete(args.member);
      this.#contexts.get(args.member)?.groups.delete(group);
      this.#keepMember(group, member, false);
      this.#recheckLanesFrom(args.member);
      return {};
    },

    is_member: (_client, args) => ({ member: this.#group(args.group).members.has(args.member) }),

    // --- Discovery --------------------------------------------------------------------------------------------------

    register: (client, args) => {
      const context = contextOf(client);
      if (isInvalidHandle(args.handle)) fail("INVALID_ARGS", "the invalid handle cannot have a name");
      const resource = this.#resources.find(args.handle);
      if (resource === undefined) fail("INVALID_ARGS", `there is no resource ${formatHandle(args.handle)}`);
      if (resource.ownerContext !== context.id) {
        fail("NO_ACCESS", `it belongs to context ${resource.ownerContext}, and a context names its own only`);
      }
      const taken = this.#names.get(args.name);
      if (taken !== undefined) {
        if (args.repeated && taken === resource) return {};
        fail("ALREADY_EXISTS", `'${args.name}' stands for ${formatHandle(taken.handle)}`);
      }
      if (resource.owner === undefined) fail("UNAVAILABLE", "its creator is gone");
      if (context.names >= context.quota.names) {
        fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.names} names`);
      }
      this.#addName(args.name, resource);
      this.#keepName(resource, args.name, true);
      return {};
    },

    lookup: (_client, args) => {
      const resource = this.#names.get(args.name);
      if (resource === undefined) fail("NOT_FOUND", `nothing is registered as '${args.name}'`);
      return { handle: resource.handle };
    },

    unregister: (client, args) => {
      const resource = this.#names.get(args.name);
      if (resource === undefined) {
        if (this.#wasDone(args)) return {};
        fail("NOT_FOUND", `nothing is registered as '${args.name}'`);
      }
      const { id } = contextOf(client);
      if ((resource.ownerContext !== id && id !== HOST_CONTEXT) || resource === this.#publicGroup) {
        fail("NO_ACCESS", `it was registered by context ${resource.ownerContext}`);
      }
      this.#removeName(args.name, resource);
      this.#keepName(resource, args.name, false);
      return {};
    },

    list: (_client, args) => this.#names.page(args.prefix, args.after, PAGE_LENGTH),

    watch_names: (client, args) => {
      if (client.watches.size >= contextOf(client).quota.watches) {
        fail("NO_RESOURCES", `this process has its quota of ${contextOf(client).quota.watches} name watches`);
      }
      client.watches.set(args.watch, { prefix: args.prefix, exact: args.exact });
      this.#watching.add(client);
      const matches = args.exact ? this.#names.only(args.prefix) : this.#names.all(args.prefix);
      for (const entries of matches) this.#notify(client, "name", { watch: args.watch, change: "added", entries });
      return {};
    },

    unwatch_names: (client, args) => {
      client.watches.delete(args.watch);
      if (client.watches.size === 0) this.#watching.delete(client);
      return {};
    },

    // --- Looking around ---------------------------------------------------------------------------------------------

    subscribe: (client) => {
      client.subscribed = true;
      return { contexts: [...this.#contexts.keys()] };
    },

    inspect: (client, args) => {
      if (!client.identity.privileged) fail("NO_ACCESS", "only the broker's own user may look at everything");
      const all = [...this.#inspect(args.topic)];
      const end = args.after + PAGE_LENGTH;
      return { entries: all.slice(args.after, end), next: end < all.length ? end : null };
    },

    ping: (client, args) => {
      const resource = this.#resources.find(args.handle);
      if (resource === undefined) fail("NOT_FOUND", `there is no resource ${formatHandle(args.handle)}`);
      if (resource.owner === undefined) fail("UNAVAILABLE", "no process stands behind it");
      this.#notify(resource.owner, "ping", { client: client.number, token: args.token });
      return { pid: resource.owner.identity.pid };
    },

    pong: (_client, args) => {
      const asker = this.#clients.get(args.client);
      if (asker !== undefined) this.#notify(asker, "pong", { token: args.token });
      return {};
    },

    bye: (client) => {
      const last = this.#clients.size === 1 && this.#clients.has(client.number);
      this.#ended = last && !this.recovering;
      return { last: this.#ended };
    },
  };

  *#inspect(topic: Requests["inspect"]["topic"]): Iterable<Message> {
    switch (topic) {
      case "contexts":
        for (const { id, flags, clients, resources, regionBytes, names } of this.#contexts.values()) {
          const processes = [...clients].map(({ identity: { pid, uid } }) => ({ pid, uid }));
          // A page must fit into a packet; the count says how many there are.
          yield {
            context: id,
            flags,
            processes: processes.slice(0, 16),
            clients: clients.size,
            resources,
            regionBytes,
            names,
          };
        }
        return;
      case "resources":
        for (const resource of this.#resources) {
          const { type, handle, owner, names } = resource;
          const common = {
            type,
            handle,
            pid: owner?.identity.pid ?? null,
            names: [...names].slice(0, 1),
            grants: resource.access.size,
          };
          if (resource instanceof Region) {
            const { size, writers, attachments } = resource;
            yield { ...common, size, writers, attachments: attachments.size };
          } else if (resource instanceof Group) {
            yield { ...common, members: resource.members.size };
          } else {
            yield { ...common, lanes: resource.lanes.size };
          }
        }
        return;
      case "attachments":
        for (const resource of this.#resources) {
          if (!(resource instanceof Region)) continue;
          for (const [client, count] of resource.attachments) {
            yield { handle: resource.handle, context: contextOf(client).id, pid: client.identity.pid, count };
          }
        }
        return;
      case "lanes":
        for (const { source, sender, destination } of this.#lanes.values()) {
          yield {
            source,
            destination: destination.handle,
            context: contextOf(sender).id,
            pid: sender.identity.pid,
            receiver: destination.owner?.identity.pid ?? null,
          };
        }
    }
  }

  // --- Contexts and clients -------------------------------------------------------------------------------------------

  #contextFor(identity: Identity, args: Requests["hello"]): Context {
    const { contexts } = identity;
    const first = contexts === "all" ? undefined : contexts[0];
    const id = args.context ??
      (first !== undefined && !includesContext(contexts, HOST_CONTEXT) ? first[0] : HOST_CONTEXT);
    if (!includesContext(contexts, id)) {
      fail(
        "NO_ACCESS",
        `user ${identity.uid} (process ${identity.pid}) that comes this way may not be context ${id}; it may be ` +
          formatContexts(contexts),
      );
    }
    if (id !== HOST_CONTEXT && (id < FIRST_VM_CONTEXT || id === INVALID_ID)) {
      fail("INVALID_ARGS", `context ${id} is reserved: the host is 2, virtual machines have 16 and up`);
    }
    const { RESTRICTED, TRUSTED } = PrivilegeFlags;
    if ((args.flags & ~(RESTRICTED | TRUSTED)) !== 0) fail("INVALID_ARGS", `there are no flags ${args.flags}`);
    const decreed = this.#policy?.flagsOf(id);
    // Who was in it under the broker before names the flags it had, and must find a place again whatever they are.
    const rejoins = args.client !== null;
    let { flags } = args;
    if ((flags & TRUSTED) !== 0 && !identity.privileged) {
      if (!rejoins) fail("NO_ACCESS", "only the broker's own user may call itself TRUSTED");
      flags &= ~TRUSTED;
    }
    if (!rejoins && decreed !== undefined && flags !== PrivilegeFlags.NONE && flags !== decreed) {
      fail("NO_ACCESS", `the policy gives context ${id} the flags ${decreed}, not ${flags}`);
    }
    const known = this.#contexts.get(id);
    if (known === undefined) {
      const quota = this.#quotaOf(id);
      if (this.#contexts.size >= quota.contexts && !args.observer) {
        fail("NO_RESOURCES", `the fabric has its quota of ${quota.contexts} contexts`);
      }
      return new Context(id, flags, decreed ?? flags, quota);
    }
    if (!rejoins && flags !== PrivilegeFlags.NONE && flags !== known.flags) {
      fail("INVALID_ARGS", `context ${id} has the flags ${known.flags} already, not ${flags}`);
    }
    if (known.clients.size >= known.quota.clients && !args.observer) {
      fail("NO_RESOURCES", `context ${id} has its quota of ${known.quota.clients} processes`);
    }
    return known;
  }

  /** One of the broker's own user gives its context back the flags that it had under the broker before. */
  #restoreFlags(context: Context, flags: number): void {
    context.chosenFlags = flags;
    context.flags = this.#policy?.flagsOf(context.id) ?? flags;
    // While others still announce what they granted, nobody can say; they are looked at when all have.
    if (!this.recovering) this.#recheckLanes(this.#lanes.values());
  }

  #enter(client: Client, context: Context): void {
    context.clients.add(client);
    if (this.#contexts.has(context.id)) return;
    this.#contexts.set(context.id, context);
    this.#tellSubscribers("context_added", context.id);
    this.#join(this.#publicGroup, { context: context.id, canAssign: true, order: 0 });
    // Groups announced before this member came back.
    for (const resource of this.#resources) {
      if (resource instanceof Group && resource.members.has(context.id)) context.groups.add(resource);
    }
  }

  #remove(client: Client): void {
    this.#deferred = this.#deferred.filter((deferred) => {
      if (deferred.client === client) this.#spent.push(...deferred.shares);
      return deferred.client !== client;
    });
    if (client.attention !== undefined) this.#spent.push(client.attention);
    const { context } = client;
    if (context === undefined) return;
    this.#clients.delete(client.number);
    this.#watching.delete(client);
    for (const [number, half] of this.#halfLanes) {
      if (half.client === client) this.#halfLanes.delete(number);
    }
    for (const lane of [...client.outgoing]) this.#endLane(lane, "ended");
    for (const [region, count] of [...client.attachments]) this.#detach(client, region, count);
    for (const resource of [...client.resources]) this.#destroy(resource);
    for (const number of client.peers) {
      const peer = this.#clients.get(number);
      if (peer?.peers.delete(client.number)) this.#notify(peer, "peer_gone", { peer: client.number });
    }
    context.clients.delete(client);
    if (client.observer || context.clients.size > 0) return;
    this.#contexts.delete(context.id);
    for (const group of context.groups) {
      const member = group.members.get(context.id)!;
      group.members.delete(context.id);
      this.#keepMember(group, member, false);
    }
    this.#tellSubscribers("context_removed", context.id);
  }

  #tellSubscribers(notice: "context_added" | "context_removed", context: ContextId): void {
    for (const other of this.#clients.values()) {
      if (other.subscribed) this.#notify(other, notice, { context });
    }
  }

  /** Two clients got a bell. */
  #befriend(a: Client, b: Client): void {
    a.peers.add(b.number);
    b.peers.add(a.number);
  }

  // --- Resources ------------------------------------------------------------------------------------------------------

  #roomForResource(client: Client): Context {
    const context = contextOf(client);
    if (context.resources >= context.quota.resources) {
      fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.resources} resources`);
    }
    return context;
  }

  #own(client: Client, resource: Resource): void {
    this.#resources.add(resource);
    client.resources.add(resource);
    contextOf(client).resources++;
  }

  /** Grants on a new resource what the policy grants on all. */
  #grantDefaults(resource: Resource): void {
    for (
      const { client = PUBLIC_GROUP, privilege } of this.#policy?.grantsFor(resource.type, resource.ownerContext) ?? []
    ) {
      resource.access.set(client, [privilege], []);
      this.#accessChanged(resource, client);
    }
  }

  #quotaOf(context: ContextId): Quota {
    const common = this.#options.quota ?? DEFAULT_QUOTA;
    return this.#policy?.quotaOf(context, common) ?? common;
  }

  /**
   * Whether a request finds undone what it undoes because the broker before did it and died before it said so. While
   * others still announce what they have, nobody can say: the request then fails, and is put off.
   */
  #wasDone({ repeated }: { readonly repeated?: boolean }): boolean {
    return repeated === true && !this.recovering;
  }

  // --- Claims ---------------------------------------------------------------------------------------------------------

  #ticket(...claim: readonly unknown[]): string {
    return this.#options.tickets?.issue(JSON.stringify(claim)) ?? "";
  }

  /** Whether a client had, under the broker before, what it says it had. */
  #believes(client: Client, claim: readonly unknown[], ticket: string | null): boolean {
    const { tickets } = this.#options;
    if (tickets === undefined) return client.identity.privileged;
    return ticket !== null && tickets.isGenuine(JSON.stringify(claim), ticket);
  }

  #wellKnownHandle(context: Context, resource: number | null): Handle {
    if (resource === null || resource === INVALID_ID) {
      fail("INVALID_ARGS", "a well-known handle needs an explicit id");
    }
    if ((context.flags & PrivilegeFlags.RESTRICTED) !== 0) {
      fail("NO_ACCESS", `context ${context.id} is RESTRICTED, and such claim no well-known handles`);
    }
    if (resource < FIRST_DYNAMIC_RESOURCE && (context.flags & PrivilegeFlags.TRUSTED) === 0) {
      fail("NO_ACCESS", `ids below ${FIRST_DYNAMIC_RESOURCE} are reserved, and context ${context.id} is not TRUSTED`);
    }
    const handle = { context: WELL_KNOWN_CONTEXT, resource };
    const owner = this.#resources.endpoint(handle);
    if (owner !== undefined) {
      fail("DUPLICATE_ENTRY", `context ${owner.ownerContext} (process ${owner.owner?.identity.pid}) has that id`);
    }
    // Its owner may be about to announce it; this answer waits until all have.
    if (this.recovering) fail("DUPLICATE_ENTRY", "its owner may not have come back yet");
    return handle;
  }

  #destroy(resource: Resource): void {
    const { handle, type, owner } = resource;
    const users = new Set<Client>();
    for (const name of [...resource.names]) this.#removeName(name, resource);
    if (owner !== undefined) {
      owner.resources.delete(resource);
      contextOf(owner).resources--;
    }
    if (resource instanceof Endpoint) {
      for (const lane of [...resource.lanes]) {
        users.add(lane.sender);
        this.#endLane(lane, "gone");
      }
      for (const lane of [...owner?.outgoing ?? []]) {
        if (handlesEqual(lane.source, handle)) this.#endLane(lane, "ended");
      }
    } else if (resource instanceof Group) {
      for (const member of resource.members.keys()) {
        const context = this.#contexts.get(member);
        context?.groups.delete(resource);
        this.#recheckLanesFrom(member);
      }
    } else {
      for (const attached of resource.attachments.keys()) users.add(attached);
      if (owner !== undefined) contextOf(owner).regionBytes -= wholePages(resource.size);
      if (resource.share !== undefined) this.#spent.push(resource.share);
      resource.share = undefined;
    }
    resource.owner = undefined;
    // A region lives on in those attached to it; it only cannot be attached to any more.
    if (!(resource instanceof Region) || resource.attachments.size === 0) this.#resources.remove(resource);
    for (const user of users) {
      if (user !== owner) this.#notify(user, "resource_gone", { type, handle });
    }
  }

  #group(handle: Handle): Group {
    const group = this.#resources.group(handle);
    if (group === undefined) fail("INVALID_ARGS", `there is no group ${formatHandle(handle)}`);
    return group;
  }

  // --- Lanes ----------------------------------------------------------------------------------------------------------

  #checkSource(context: Context, source: Handle): void {
    const endpoint = this.#resources.endpoint(source);
    if (source.context === WELL_KNOWN_CONTEXT) {
      if (endpoint === undefined) fail("INVALID_RESOURCE", `nobody owns the source ${formatHandle(source)}`);
    } else if (source.context === context.id && endpoint === undefined) {
      fail("INVALID_ARGS", `there is no source ${formatHandle(source)}`);
    }
    if (endpoint?.ownerContext !== context.id) {
      fail("NO_ACCESS", `the source ${formatHandle(source)} is not of context ${context.id}`);
    }
  }

  #reach(handle: Handle): Endpoint {
    if (handle.context === HYPERVISOR_CONTEXT) fail("DST_UNREACHABLE", "the hypervisor takes no datagrams");
    const endpoint = this.#resources.endpoint(handle);
    if (endpoint === undefined) {
      if (handle.context === WELL_KNOWN_CONTEXT) fail("DST_UNREACHABLE", "nobody owns that well-known handle");
      fail(
        "INVALID_ARGS",
        this.#contexts.has(handle.context)
          ? `context ${handle.context} has no datagram handle ${formatHandle(handle)}`
          : `there is no context ${handle.context}`,
      );
    }
    return endpoint;
  }

  #addLane(lane: Lane): void {
    this.#lanes.set(lane.number, lane);
    lane.destination.lanes.add(lane);
    lane.sender.outgoing.add(lane);
    lane.destination.owner!.incoming.add(lane);
  }

  /** Closes a lane: `ended` by its sender, `gone` with its receiver, `revoked`, or `lost` with the bell between them. */
  #endLane(lane: Lane, cause: "ended" | "gone" | "revoked" | "lost"): void {
    const receiver = lane.destination.owner;
    this.#lanes.delete(lane.number);
    lane.destination.lanes.delete(lane);
    lane.sender.outgoing.delete(lane);
    receiver?.incoming.delete(lane);
    const seenBySender = cause === "lost" ? "gone" : cause;
    const seenByReceiver = cause === "lost" ? "ended" : cause;
    if (cause !== "ended") this.#notify(lane.sender, "lane_closed", { lane: lane.number, cause: seenBySender });
    if (cause === "gone" || receiver === undefined) return;
    this.#notify(receiver, "lane_closed", { lane: lane.number, cause: seenByReceiver });
  }

  #recheckLanes(lanes: Iterable<Lane>): void {
    for (const lane of [...lanes]) {
      if (!this.#permits(contextOf(lane.sender), lane.destination, "DG_SEND")) this.#endLane(lane, "revoked");
    }
  }

  #recheckLanesFrom(context: ContextId): void {
    for (const client of this.#contexts.get(context)?.clients ?? []) this.#recheckLanes(client.outgoing);
  }

  // --- Regions --------------------------------------------------------------------------------------------------------

  #region(handle: Handle): Region {
    const region = this.#resources.region(handle);
    if (region === undefined) fail("NOT_FOUND", `there is no region ${formatHandle(handle)}`);
    return region;
  }

  /** The region its creator announces; somebody attached to it may have announced that before. */
  #announcedRegion(client: Client, args: Requests["announce_resource"], shares: Share[]): Region | undefined {
    const [share] = shares;
    if (share === undefined) fail("INVALID_ARGS", "a region's memory belongs to the request");
    this.#medium.checkRegion(share, args.size, writers(args));
    const context = contextOf(client);
    const region = this.#resources.region(args.handle) ??
      new Region(args.handle, context.id, undefined, undefined, args.size, writers(args));
    if (region.size !== args.size || region.writers !== writers(args)) return undefined;
    region.owner = client;
    region.share = shares.shift()!;
    context.regionBytes += wholePages(args.size);
    return region;
  }

  #attach(client: Client, region: Region, count: number): void {
    const total = (client.attachments.get(region) ?? 0) + count;
    client.attachments.set(region, total);
    region.attachments.set(client, total);
    contextOf(client).attachments += count;
  }

  /** Takes `count` attachments off; `true` when they were the region's last. */
  #detach(client: Client, region: Region, count: number): boolean {
    const context = contextOf(client);
    const left = (client.attachments.get(region) ?? 0) - count;
    context.attachments -= count;
    if (left > 0) {
      client.attachments.set(region, left);
      region.attachments.set(client, left);
      return false;
    }
    client.attachments.delete(region);
    region.attachments.delete(client);
    region.watchers.delete(client);
    for (const other of region.attachments.keys()) {
      this.#notify(other, "region_peer", { handle: region.handle, context: context.id, attached: false });
    }
    const last = region.attachments.size === 0;
    if (region.owner === client) this.#destroy(region);
    else if (last && region.owner === undefined) this.#resources.remove(region);
    return last;
  }

  /** Sees to it that each writer can ring its watcher when it changes the region. */
  #introduceWatchers(region: Region, all: readonly (readonly [watcher: Client, writer: Client])[]): void {
    const pairs = all.filter(([watcher, writer]) =>
      watcher !== writer && (region.writers === "everybody" || region.owner === writer)
    );
    const bells = this.#makeBells(pairs.filter(([watcher, writer]) => !watcher.peers.has(writer.number)).length);
    for (const [watcher, writer] of pairs) {
      if (!watcher.peers.has(writer.number)) {
        const [one, other] = bells.pop()!;
        this.#spent.push(one, other);
        this.#befriend(watcher, writer);
        this.#notify(watcher, "peer", { peer: writer.number }, [one, writer.attention!]);
        this.#notify(writer, "peer", { peer: watcher.number }, [other, watcher.attention!]);
      }
      this.#notify(writer, "watcher", { handle: region.handle, peer: watcher.number });
    }
  }

  /** Makes so many bells, or none. */
  #makeBells(count: number): (readonly [Share, Share])[] {
    const bells: (readonly [Share, Share])[] = [];
    try {
      while (bells.length < count) bells.push(this.#make(() => this.#medium.makeBell()));
      return bells;
    } catch (error) {
      for (const share of bells.flat()) this.#medium.release(share);
      throw error;
    }
  }

  #noAttachmentsLeft(context: Context): never {
    fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.attachments} attachments`);
  }

  // --- Access ---------------------------------------------------------------------------------------------------------

  #groupsOf(client: Handle): Handle[] {
    if (client.resource !== 0) return [];
    const context = this.#contexts.get(client.context);
    // Who is not there yet will be in the public group when it comes.
    const groups = [...context?.groups ?? [this.#publicGroup]];
    const order = (group: Group) => group.members.get(client.context)?.order ?? 0;
    return groups.sort((a, b) => order(a) - order(b)).map((group) => group.handle);
  }

  /** Whether a client may do something, and what says so. This is the one place where that is decided. */
  #decide(client: Handle, resource: Resource, privilege: PrivilegeName): Results["check"] {
    const isContext = client.resource === 0;
    if (isContext && client.context === resource.ownerContext) {
      return { code: "SUCCESS_ACCESS_GRANTED", decidedBy: client, via: "owner" };
    }
    const context = isContext ? this.#contexts.get(client.context) : undefined;
    const owner = resource.owner?.context;
    if (context !== undefined && owner !== undefined && !flagsPermit(context.flags, owner.flags)) {
      return { code: "NO_ACCESS", decidedBy: null, via: "flags" };
    }
    const member = isContext && privilege === "ASSIGN_CLIENT" ? memberState(resource, client.context) : undefined;
    const { state, client: decidedBy } = resource.access.decide(client, this.#groupsOf(client), privilege, member);
    if (decidedBy === undefined) return { code: "INVALID_PRIV", decidedBy: null, via: "nothing" };
    return {
      code: state === "ALLOW" ? "SUCCESS_ACCESS_GRANTED" : "NO_ACCESS",
      decidedBy,
      via: handlesEqual(decidedBy, client) ? "own" : "group",
    };
  }

  #permits(context: Context, resource: Resource, privilege: PrivilegeName): boolean {
    return this.#decide(contextHandle(context.id), resource, privilege).code === "SUCCESS_ACCESS_GRANTED";
  }

  #demand(client: Client, resource: Resource, privilege: PrivilegeName): void {
    const { id } = contextOf(client);
    const { code, via, decidedBy } = this.#decide(contextHandle(id), resource, privilege);
    if (code === "SUCCESS_ACCESS_GRANTED") return;
    if (via === "flags") fail("NO_ACCESS", "one side is RESTRICTED and the other is not TRUSTED");
    const why = decidedBy === null
      ? `context ${resource.ownerContext} can grant it`
      : `it is denied to ${formatHandle(decidedBy)}`;
    fail("NO_ACCESS", `context ${id} does not have ${privilege} on ${formatHandle(resource.handle)}; ${why}`);
  }

  #changeable(client: Client, handle: Handle, other: Handle, privileges: readonly PrivilegeName[]): Resource {
    const resource = this.#resources.find(handle);
    if (resource === undefined) fail("INVALID_ARGS", `there is no resource ${formatHandle(handle)}`);
    this.#demand(client, resource, "CH_PRIV");
    if (isInvalidHandle(other)) fail("INVALID_ARGS", "the client is the invalid handle");
    for (const privilege of privileges) {
      if (!validPrivileges[resource.type].includes(privilege)) {
        fail("INVALID_PRIV", `${privilege} is no privilege of a ${resource.type} resource`);
      }
    }
    return resource;
  }

  /** A context may name a group in its grants if the group is its own or it may assign it. */
  #checkAssign(context: Context, handle: Handle): void {
    if (!this.#permits(context, this.#group(handle), "ASSIGN_CLIENT")) {
      fail("NO_ACCESS", `context ${context.id} does not have ASSIGN_CLIENT on the group ${formatHandle(handle)}`);
    }
  }

  #accessChanged(resource: Resource, client: Handle): void {
    if (resource.owner !== undefined) {
      const { type, handle } = resource;
      this.#notify(resource.owner, "keep_grant", { type, handle, entry: resource.access.entry(client) });
    }
    if (resource instanceof Endpoint) this.#recheckLanes(resource.lanes);
  }

  // --- Groups and names -----------------------------------------------------------------------------------------------

  #join(group: Group, member: GroupMember): void {
    group.members.set(member.context, member);
    this.#contexts.get(member.context)?.groups.add(group);
  }

  #keepMember(group: Group, member: GroupMember, present: boolean): void {
    if (group.owner !== undefined) this.#notify(group.owner, "keep_member", { handle: group.handle, member, present });
  }

  #keepName(resource: Resource, name: string, present: boolean): void {
    const { type, handle, owner } = resource;
    if (owner !== undefined) this.#notify(owner, "keep_name", { type, handle, name, present });
  }

  #addName(name: string, resource: Resource): void {
    this.#names.add(name, resource);
    resource.names.add(name);
    const context = this.#contexts.get(resource.ownerContext);
    if (context !== undefined) context.names++;
    this.#tellWatchers(name, resource, "added");
  }

  #removeName(name: string, resource: Resource): void {
    this.#names.remove(name);
    resource.names.delete(name);
    const context = this.#contexts.get(resource.ownerContext);
    if (context !== undefined) context.names--;
    this.#tellWatchers(name, resource, "removed");
  }

  #tellWatchers(name: string, resource: Resource, change: "added" | "removed"): void {
    for (const client of this.#watching) {
      for (const [watch, { prefix, exact }] of client.watches) {
        if (exact ? name !== prefix : !name.startsWith(prefix)) continue;
        this.#notify(client, "name", { watch, change, entries: [nameEntry(name, resource)] });
      }
    }
  }

  // --- Recovery -------------------------------------------------------------------------------------------------------

  #expectNoMore(survivor: string | undefined): void {
    if (survivor === undefined || !this.#survivors.delete(survivor) || this.recovering) return;
    this.#closeHalfLanes();
    for (const resource of [...this.#resources]) {
      if (resource instanceof Group) this.#dropMissingMembers(resource);
      if (!(resource instanceof Region) || resource.owner !== undefined) continue;
      // Its creator went with the broker before, or earlier: whoever knows that already is told again.
      const { type, handle } = resource;
      for (const attached of resource.attachments.keys()) this.#notify(attached, "resource_gone", { type, handle });
      if (resource.attachments.size === 0) this.#resources.remove(resource);
    }
    this.#recheckLanes(this.#lanes.values());
    for (const client of this.#clients.values()) this.#tellSettled(client);
    const deferred = this.#deferred;
    this.#deferred = [];
    for (const { client, request, shares } of deferred) {
      this.#answer(client, request, shares);
      this.#spent.push(...shares);
    }
  }

  /** Contexts that went with the broker before are members no more: who comes later under their ids is another. */
  #dropMissingMembers(group: Group): void {
    for (const member of [...group.members.values()]) {
      if (this.#contexts.has(member.context)) continue;
      group.members.delete(member.context);
      this.#keepMember(group, member, false);
    }
  }

  #tellSettled(client: Client): void {
    for (const region of client.attachments.keys()) this.#tellRegionPeers(client, region);
    this.#notify(client, "settled", { contexts: client.subscribed ? [...this.#contexts.keys()] : [] });
  }

  /** Tells a client who else is attached to a region, if they fit into a packet. */
  #tellRegionPeers(client: Client, region: Region): void {
    if (region.attachments.size > MOST_REGION_PEERS) return;
    const others = [...region.attachments.keys()].filter((other) => other !== client);
    const contexts = others.map((other) => contextOf(other).id);
    this.#notify(client, "region_peers", { handle: region.handle, contexts });
  }

  /** Lanes of which one end was never announced. */
  #closeHalfLanes(): void {
    for (const { lane, sender, client } of this.#halfLanes.values()) {
      this.#notify(client, "lane_closed", { lane, cause: sender ? "gone" : "ended" });
    }
    this.#halfLanes.clear();
  }

  // --- Numbers --------------------------------------------------------------------------------------------------------

  #number(): number {
    if (this.#nextNumber >= INVALID_ID) fail("NO_HANDLE", "all 4294967294 numbers of this fabric are used up");
    if (this.#nextNumber >= this.#reserved) {
      const mark = Math.min(this.#nextNumber + NUMBER_BLOCK, INVALID_ID);
      this.#make(() => this.#medium.reserveNumbers(mark));
      this.#reserved = mark;
    }
    return this.#nextNumber++;
  }

  /** Whether a number may have been given: one that was not would be given to somebody else. */
  #wasGiven(number: number): boolean {
    return number < this.#nextNumber;
  }

  /** Asks the medium for something; where the operating system refuses it is NO_RESOURCES. */
  #make<T>(make: () => T): T {
    try {
      return make();
    } catch (error) {
      if (error instanceof VmciError) throw error;
      throw new VmciError("NO_RESOURCES", {
        operation: "make",
        reason: `the broker cannot make what this needs: ${(error as Error).message}`,
        cause: error,
      });
    }
  }
}

function refusal(code: ErrorCodeName, reason: string): VmciError {
  return new VmciError(code, { operation: "decide", reason });
}

function fail(code: ErrorCodeName, reason: string): never {
  throw refusal(code, reason);
}

function contextOf(client: Client): Context {
  // A client without a context is refused everything but hello, before any handler runs.
  return client.context!;
}

/** A member has ASSIGN_CLIENT or is denied it, as whoever added it said. */
function memberState(resource: Resource, context: ContextId): PrivilegeState | undefined {
  const member = resource instanceof Group ? resource.members.get(context) : undefined;
  return member === undefined ? undefined : member.canAssign ? "ALLOW" : "DENY";
}

function writers(args: { readonly creatorOnly: boolean }): RegionAccess {
  return args.creatorOnly ? "creator" : "everybody";
}

function resourceClaim(
  context: ContextId,
  type: ResourceTypeName,
  { context: owner, resource }: Handle,
  size: number,
  creatorOnly: boolean,
): readonly unknown[] {
  return ["resource", context, type, owner, resource, size, creatorOnly];
}

function attachmentClaim(
  context: ContextId,
  { context: owner, resource }: Handle,
  size: number,
  creatorOnly: boolean,
): readonly unknown[] {
  return ["attachment", context, owner, resource, size, creatorOnly];
}

function wholePages(size: number): number {
  return Math.ceil(size / PAGE) * PAGE;
}

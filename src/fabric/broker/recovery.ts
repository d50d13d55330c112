/**
 * What those who lived under the broker before announce, and the end of that.
 *
 * @module
 */

import { formatHandle, handlesEqual, WELL_KNOWN_CONTEXT } from "../../handle.ts";
import { type PrivilegeName, validPrivileges } from "../../privilege.ts";
import type { Share } from "../medium.ts";
import type { Requests } from "../protocol.ts";
import { DEFAULT_QUOTA } from "../quota.ts";
import { changeAccess } from "./access.ts";
import {
  attachmentClaim,
  type Claim,
  grantClaim,
  laneClaim,
  memberClaim,
  nameClaim,
  resourceClaim,
  splitTicket,
  wellKnownClaim,
} from "./claims.ts";
import { type Client, type Context, contextOf, Endpoint, Group, Region, wholePages } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { announcedPublic, joinGroup, keepMember } from "./groups.ts";
import { addLane, endLane, loseDestination, recheckLanes } from "./lanes.ts";
import { announcedName } from "./names.ts";
import { fail } from "./refusal.ts";
import { permits } from "./rights.ts";
import { attach, detach, tellRegionPeers, writers } from "./regions.ts";
import { destroy, own } from "./resources.ts";
import { introduceAgain, introduceReturned } from "./watchers.ts";

/** What a new broker expects the holder of a byte of the roster by. */
export function slotSurvivor(slot: number): string {
  return `slot ${slot}`;
}

/** What a new broker expects a client without a byte of the roster by. */
export function clientSurvivor(client: number): string {
  return `client ${client}`;
}

/** The most clients that one can have a bell with. */
const MOST_PEERS = 65536;

/** Requests of those who were there before. */
export const recoveryHandlers: Handlers<
  "announce_resource" | "announce_entries" | "announce_attachment" | "announce_lane" | "announce_peers" | "announced"
> = {
  announce_resource: (fabric, client, args, shares) => {
    const context = contextOf(client);
    const { type, handle } = args;
    if (type === "DATAGRAM" && handle.context === WELL_KNOWN_CONTEXT) {
      return { accepted: announcedWellKnown(fabric, client, args) };
    }
    const known = fabric.resources.get(type, handle);
    const claim = resourceClaim(context.id, type, handle, args.size, args.creatorOnly);
    // It may have been told before, if its announcing was broken off.
    if (known?.owner === client) return { accepted: true };
    if (handle.context !== context.id || known?.owner !== undefined) return { accepted: false };
    if (!fabric.wasGiven(handle.resource)) return { accepted: false };
    if (!fabric.believes(client, claim, args.ticket)) return { accepted: false };
    if (!fits(fabric, context, "resources", 1)) return { accepted: false };
    if (type === "SHAREDMEM") {
      const room = fits(fabric, context, "regions", 1) && fits(fabric, context, "regionBytes", wholePages(args.size));
      if (!room) return { accepted: false };
      const region = announcedRegion(fabric, client, args, shares);
      if (region === undefined) return { accepted: false };
      own(fabric, client, region);
    } else if (known === undefined) {
      own(
        fabric,
        client,
        type === "GROUP" ? new Group(handle, context.id, client) : new Endpoint(handle, context.id, client),
      );
    }
    return { accepted: known === undefined || type === "SHAREDMEM" };
  },

  announce_entries: (fabric, client, args) => {
    demandReturned(client);
    const resource = fabric.resources.get(args.type, args.handle);
    if (resource === fabric.publicGroup) {
      announcedPublic(fabric, client, args.members);
      return { refused: args.names };
    }
    if (resource === undefined || resource.owner !== client) fail("NOT_FOUND", `no such resource of yours`);
    const context = contextOf(client);
    const { type, handle } = args;
    const tickets = [...args.tickets];
    const believes = (claim: Claim, ticket: string | null) => fabric.believes(client, claim, ticket);
    for (const { client: other, states } of args.grants) {
      const ticket = tickets.shift() ?? null;
      if (!resource.access.has(other) && roomFor(context, "grants", context.grants) === 0) continue;
      // What denies needs no proof.
      const mayAllow = other.resource === 0 || believes(grantClaim(type, handle, other), ticket);
      const set = Object.entries(states) as [PrivilegeName, string][];
      const valid = set.filter(([privilege, state]) =>
        validPrivileges[type].includes(privilege) && (mayAllow || state === "DENY")
      );
      const those = (state: string) => valid.filter(([, it]) => it === state).map(([privilege]) => privilege);
      changeAccess(resource, (access) => access.set(other, those("ALLOW"), those("DENY")));
    }
    const refused = args.names.filter((name) => {
      const { serial, ticket } = splitTicket(tickets.shift() ?? null);
      const isProven = fabric.wasGiven(serial) && believes(nameClaim(serial, type, handle, name), ticket);
      // What it has it keeps, when it is said again.
      const fits = fabric.names.get(name) === resource || roomFor(context, "names", context.names) > 0;
      return !isProven || !fits || !announcedName(fabric, name, resource, serial);
    });
    if (resource instanceof Group) {
      for (const member of args.members) {
        const isProven = fabric.wasGiven(member.order) &&
          believes(memberClaim(handle, member), tickets.shift() ?? null);
        // One who may still come back is waited for; one who comes later is another.
        const isExpected = fabric.recovering || fabric.contexts.has(member.context);
        if (isProven && isExpected && !resource.members.has(member.context)) joinGroup(fabric, resource, member);
      }
    }
    return { refused };
  },

  announce_attachment: (fabric, client, args) => {
    const claim = attachmentClaim(contextOf(client).id, args.handle, args.size, args.creatorOnly);
    if (!fabric.believes(client, claim, args.ticket)) return { accepted: false };
    const known = fabric.resources.region(args.handle);
    const before = known === undefined ? 0 : client.attachments.get(known) ?? 0;
    if (args.count < before) {
      // It was said before that there are more, and then could not be said that they are gone.
      detach(fabric, client, known!, before - args.count);
      return { accepted: args.count > 0 };
    }
    // If its creator has not announced yet, or is gone, nobody new can attach.
    const region = known ??
      new Region(args.handle, args.handle.context, undefined, undefined, args.size, writers(args));
    if (region.size !== args.size || args.count === 0 || !fabric.wasGiven(args.handle.resource)) {
      return { accepted: false };
    }
    const more = args.count - before;
    if (more > 0 && !fits(fabric, contextOf(client), "attachments", more)) return { accepted: false };
    fabric.resources.add(region);
    if (!fabric.recovering && !client.attachments.has(region)) {
      // The others were told that it is gone.
      const { id } = contextOf(client);
      for (const other of region.attachments.keys()) {
        // Who has not heard of that is told who is there when it has announced.
        if (other.announcing) continue;
        fabric.notify(other, "region_peer", { handle: region.handle, context: id, attached: true });
      }
    }
    const isBack = !client.attachments.has(region);
    attach(client, region, more);
    if (isBack) introduceReturned(fabric, region, client);
    if (!fabric.recovering && region.owner === undefined) tellOrphaned(fabric, client, region);
    return { accepted: true };
  },

  announce_lane: (fabric, client, args) => {
    const claim = laneClaim(client.number, args.lane, args.source, args.destination, args.sender);
    if (!fabric.wasGiven(args.lane) || !fabric.believes(client, claim, args.ticket)) {
      fabric.notify(client, "lane_closed", { lane: args.lane, cause: args.sender ? "gone" : "ended" });
      return { accepted: false };
    }
    const known = fabric.lanes.get(args.lane);
    if (known !== undefined && (args.sender ? known.sender : known.destination.owner) === client) {
      return { accepted: true };
    }
    const other = fabric.halfLanes.get(args.lane);
    if (other === undefined || other.sender === args.sender) {
      fabric.halfLanes.set(args.lane, { ...args, client });
      if (!fabric.recovering) closeHalfLanes(fabric);
      return { accepted: true };
    }
    fabric.halfLanes.delete(args.lane);
    const [sender, receiver] = args.sender ? [client, other.client] : [other.client, client];
    const destination = fabric.resources.endpoint(args.destination);
    const agreed = handlesEqual(other.source, args.source) && handlesEqual(other.destination, args.destination);
    if (!agreed || destination?.owner !== receiver || fabric.lanes.has(args.lane)) {
      if (destination !== undefined) loseDestination(sender, destination);
      fabric.notify(sender, "lane_closed", { lane: args.lane, cause: "gone" });
      fabric.notify(receiver, "lane_closed", { lane: args.lane, cause: "ended" });
      return { accepted: false };
    }
    addLane(fabric, { number: args.lane, source: args.source, sender, destination });
    // Whether it is still allowed is looked at when all have announced what they granted.
    return { accepted: true };
  },

  // Who calls somebody a peer who is none is not rung by him: that harms nobody else, and needs no ticket.
  announce_peers: (fabric, client, args) => {
    demandReturned(client);
    for (const number of args.peers) {
      if (!fabric.wasGiven(number) || client.peers.size >= MOST_PEERS) continue;
      const other = fabric.clients.get(number);
      // There is a bell if both say so.
      if (other !== undefined && !other.announcing && !other.peers.has(client.number)) {
        fabric.notify(client, "peer_gone", { peer: number });
        continue;
      }
      client.peers.add(number);
      client.ownPeers.add(number);
      other?.peers.add(client.number);
    }
    return {};
  },

  announced: (fabric, client) => {
    for (const other of client.announcing ? fabric.clients.values() : []) {
      if (client.ownPeers.has(other.number) || !other.peers.delete(client.number)) continue;
      client.peers.delete(other.number);
      fabric.notify(other, "peer_gone", { peer: client.number });
      introduceAgain(fabric, client, other);
    }
    if (client.announcing) loseLanesWithoutBell(fabric, client);
    client.announcing = false;
    client.ownPeers.clear();
    expectNoMore(fabric, client.survivor);
    if (!fabric.recovering) tellSettled(fabric, client);
    return {};
  },
};

/** A survivor has announced, or will not. After the last one the broker knows everything. */
export function expectNoMore(fabric: FabricState, survivor: string | undefined): void {
  if (survivor === undefined || !fabric.survivors.delete(survivor) || fabric.recovering) return;
  closeHalfLanes(fabric);
  for (const resource of [...fabric.resources]) {
    if (resource instanceof Group) dropMissingMembers(fabric, resource);
    if (!(resource instanceof Region) || resource.owner !== undefined) continue;
    // Its creator went with the broker before, or earlier: whoever knows that already is told again.
    for (const attached of resource.attachments.keys()) tellOrphaned(fabric, attached, resource);
    if (resource.attachments.size === 0) fabric.resources.remove(resource);
  }
  recheckLanes(fabric, fabric.lanes.values());
  // Who still announces has not said what it wants to know: it is told when it has.
  for (const client of fabric.clients.values()) if (!client.announcing) tellSettled(fabric, client);
}

function tellOrphaned(fabric: FabricState, attached: Client, { type, handle }: Region): void {
  fabric.notify(attached, "resource_gone", { type, handle });
}

/** Refuses what proves itself by nothing: only who lived under the broker before may say it. (Twice, if need be.) */
function demandReturned({ returned }: Client): void {
  if (!returned) fail("NO_ACCESS", "you have nothing to announce: you came under this broker");
}

/**
 * How many more a context may announce: what the policy allows now may be less than what it had, and no denial must be
 * lost; but nothing is without end.
 */
function roomFor({ quota }: Context, what: "grants" | "names", used: number): number {
  return Math.max(0, Math.max(quota[what], DEFAULT_QUOTA[what]) - used);
}

/**
 * Whether a context may have so much more than it has announced. A ticket says what it had once, not that it did not give
 * it back: who collects them must not get more by them than by asking. While all announce, a policy that allows less now
 * takes nothing away.
 */
function fits(
  { recovering }: FabricState,
  context: Context,
  what: "resources" | "regions" | "regionBytes" | "attachments",
  more: number,
): boolean {
  const { quota } = context;
  return context[what] + more <= (recovering ? Math.max(quota[what], DEFAULT_QUOTA[what]) : quota[what]);
}

/** Whether a well-known handle is its announcer's. Of all who ever had it, it is the last one's. */
function announcedWellKnown(fabric: FabricState, client: Client, args: Requests["announce_resource"]): boolean {
  const { type, handle, size, creatorOnly } = args;
  const known = fabric.resources.endpoint(handle);
  if (known?.owner === client) return true;
  const context = contextOf(client);
  const { serial, ticket } = splitTicket(args.ticket);
  const claim = wellKnownClaim(serial, context.id, type, handle, size, creatorOnly);
  if (!fabric.wasGiven(serial) || !fabric.believes(client, claim, ticket)) return false;
  if (known !== undefined) {
    if (serial <= known.serial) return false;
    if (known.owner !== undefined) fabric.notify(known.owner, "destroyed", { type, handle });
    destroy(fabric, known);
  }
  if (!fits(fabric, context, "resources", 1)) return false;
  own(fabric, client, new Endpoint(handle, context.id, client, serial));
  return true;
}

/** The region its creator announces; somebody attached to it may have announced that before. */
function announcedRegion(
  fabric: FabricState,
  client: Client,
  args: Requests["announce_resource"],
  shares: Share[],
): Region | undefined {
  const [share] = shares;
  if (share === undefined) fail("INVALID_ARGS", "a region's memory belongs to the request");
  fabric.medium.checkRegion(share, args.size, writers(args));
  const context = contextOf(client);
  const region = fabric.resources.region(args.handle) ??
    new Region(args.handle, context.id, undefined, undefined, args.size, writers(args));
  if (region.size !== args.size || region.writers !== writers(args)) return undefined;
  region.owner = client;
  region.share = shares.shift()!;
  return region;
}

/** Contexts that went with the broker before are members no more: who comes later under their ids is another. */
function dropMissingMembers(fabric: FabricState, group: Group): void {
  for (const member of [...group.members.values()]) {
    if (fabric.contexts.has(member.context)) continue;
    group.members.delete(member.context);
    keepMember(fabric, group, member, false);
  }
}

/** Who has found out that a bell is gone uses its lanes no more, whatever the other end thinks of them. */
function loseLanesWithoutBell(fabric: FabricState, client: Client): void {
  for (const lane of [...client.outgoing, ...client.incoming]) {
    const other = lane.sender === client ? lane.destination.owner! : lane.sender;
    if (other !== client && !other.announcing && !client.peers.has(other.number)) endLane(fabric, lane, "lost");
  }
}

function tellSettled(fabric: FabricState, client: Client): void {
  for (const region of client.attachments.keys()) tellRegionPeers(fabric, client, region);
  fabric.notify(client, "settled", { contexts: client.subscribed ? [...fabric.contexts.keys()] : [] });
}

/** Lanes of which one end was never announced. */
function closeHalfLanes(fabric: FabricState): void {
  const told = new Map<Client, Set<string>>();
  for (const { lane, sender, client, destination } of fabric.halfLanes.values()) {
    const endpoint = fabric.resources.endpoint(destination);
    // The broker before may have told its receiver alone that it was revoked.
    const isRevoked = sender && endpoint?.owner?.announcing === false &&
      !permits(fabric, contextOf(client), endpoint, "DG_SEND");
    fabric.notify(client, "lane_closed", { lane, cause: isRevoked ? "revoked" : sender ? "gone" : "ended" });
    if (!sender || isRevoked) continue;
    if (endpoint !== undefined) {
      loseDestination(client, endpoint);
      continue;
    }
    // It went with the broker before.
    const gone = told.get(client) ?? new Set();
    told.set(client, gone);
    if (!gone.has(formatHandle(destination))) {
      fabric.notify(client, "resource_gone", { type: "DATAGRAM", handle: destination });
    }
    gone.add(formatHandle(destination));
  }
  fabric.halfLanes.clear();
}

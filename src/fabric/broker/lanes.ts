/**
 * Ways from one source to one destination, and the bells beside them.
 *
 * @module
 */

import {
  type ContextId,
  formatHandle,
  type Handle,
  handlesEqual,
  HYPERVISOR_CONTEXT,
  isInvalidHandle,
  WELL_KNOWN_CONTEXT,
} from "../../handle.ts";
import type { Share } from "../medium.ts";
import { befriend } from "./bells.ts";
import { laneClaim } from "./claims.ts";
import { type Client, type Context, contextOf, type Endpoint, type Group, type Lane } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { fail } from "./refusal.ts";
import { demand, demandReading, permits } from "./rights.ts";
import { introduceAgain } from "./watchers.ts";

/** Requests about lanes. */
export const laneHandlers: Handlers<"open_lane" | "close_lane" | "forget_peer"> = {
  open_lane: (fabric, client, args) => {
    const context = contextOf(client);
    if (!isInvalidHandle(args.source)) checkSource(fabric, context, args.source);
    const destination = reach(fabric, args.destination);
    const receiver = destination.owner!;
    demand(fabric, client, destination, "DG_SEND");
    demandReading(receiver, client);
    const { lanes } = contextOf(receiver).quota;
    if (receiver.incoming.size + receiver.leftover.size >= lanes) {
      fail("NO_RESOURCES", `the receiver has its quota of ${lanes} lanes, with those that ended and were not read yet`);
    }
    const known = client === receiver || client.peers.has(receiver.number);
    const number = fabric.number();
    const pages = fabric.make(() => fabric.medium.makeLane());
    let bell: readonly [Share, Share] | undefined;
    if (!known) {
      try {
        bell = fabric.make(() => fabric.medium.makeBell());
      } catch (error) {
        fabric.medium.release(pages);
        throw error;
      }
    }
    // A sender that asks again has lost the lane it had.
    for (const old of client.outgoing) {
      if (old.destination === destination && handlesEqual(old.source, args.source)) endLane(fabric, old, "ended");
    }
    for (const [half, it] of fabric.halfLanes) {
      const isOld = it.client === client && it.sender && handlesEqual(it.source, args.source);
      if (isOld && handlesEqual(it.destination, args.destination)) fabric.halfLanes.delete(half);
    }
    addLane(fabric, { number, source: args.source, sender: client, destination });
    fabric.spent.push(pages, ...bell ?? []);
    const fresh = bell !== undefined;
    const { handle } = destination;
    fabric.notify(
      receiver,
      "lane",
      {
        lane: number,
        source: args.source,
        destination: handle,
        peer: client.number,
        fresh,
        ticket: fabric.ticket(laneClaim(receiver.number, number, args.source, handle, false)),
      },
      bell === undefined ? [pages] : [pages, bell[1], client.attention!],
    );
    fabric.replyShares = bell === undefined ? [pages] : [pages, bell[0], receiver.attention!];
    if (fresh) befriend(client, receiver);
    const ticket = fabric.ticket(laneClaim(client.number, number, args.source, handle, true));
    return { lane: number, peer: receiver.number, fresh, ticket };
  },

  close_lane: (fabric, client, args) => {
    const lane = fabric.lanes.get(args.lane);
    if (fabric.halfLanes.get(args.lane)?.client === client) fabric.halfLanes.delete(args.lane);
    if (lane?.sender === client) {
      endLane(fabric, lane, "ended");
      return {};
    }
    // It may have been closed from the other end, just now or long ago.
    if (lane?.destination.owner === client) endLane(fabric, lane, "revoked");
    forgetLeftover(client, args.lane);
    return {};
  },

  forget_peer: (fabric, client, args) => {
    const peer = fabric.clients.get(args.peer);
    if (peer === undefined || !client.peers.delete(peer.number)) return {};
    // Its end of the bell is of no use, and nothing may make it look there.
    if (peer.peers.delete(client.number)) fabric.notify(peer, "peer_gone", { peer: client.number });
    for (const [sender, receiver] of [[client, peer], [peer, client]] as const) {
      for (const lane of [...sender.outgoing]) {
        if (lane.destination.owner === receiver) endLane(fabric, lane, "lost");
      }
    }
    introduceAgain(fabric, client, peer);
    return {};
  },
};

/** Puts a lane between its sender and its receiver. */
export function addLane(fabric: FabricState, lane: Lane): void {
  fabric.lanes.set(lane.number, lane);
  lane.destination.lanes.add(lane);
  lane.sender.outgoing.add(lane);
  lane.destination.owner!.incoming.add(lane);
}

/** Closes a lane: `ended` by its sender, `gone` with its receiver, `revoked`, or `lost` with the bell between them. */
export function endLane(fabric: FabricState, lane: Lane, cause: "ended" | "gone" | "revoked" | "lost"): void {
  const receiver = lane.destination.owner;
  fabric.lanes.delete(lane.number);
  lane.destination.lanes.delete(lane);
  lane.sender.outgoing.delete(lane);
  receiver?.incoming.delete(lane);
  if (cause === "lost") loseDestination(lane.sender, lane.destination);
  const seenBySender = cause === "lost" ? "gone" : cause;
  const seenByReceiver = cause === "lost" ? "ended" : cause;
  if (cause !== "ended") fabric.notify(lane.sender, "lane_closed", { lane: lane.number, cause: seenBySender });
  if (cause === "gone" || receiver === undefined) return;
  // What is left in it is still to be read: until then the receiver has its memory.
  receiver.leftover.set(lane.number, lane.destination);
  lane.destination.leftover.add(lane.number);
  fabric.notify(receiver, "lane_closed", { lane: lane.number, cause: seenByReceiver });
}

/** Somebody has no lane any more to where he sent, and is told when that goes. */
export function loseDestination(sender: Client, destination: Endpoint): void {
  destination.lost.add(sender);
  sender.lost.add(destination);
}

/** A receiver has nothing any more of a lane that is over. */
export function forgetLeftover(receiver: Client, lane: number): void {
  receiver.leftover.get(lane)?.leftover.delete(lane);
  receiver.leftover.delete(lane);
}

/** Closes those lanes that are not allowed any more. */
export function recheckLanes(fabric: FabricState, lanes: Iterable<Lane>): void {
  // What allows them may not have been announced yet; they are looked at when all have.
  if (fabric.recovering) return;
  for (const lane of [...lanes]) {
    if (!permits(fabric, contextOf(lane.sender), lane.destination, "DG_SEND")) endLane(fabric, lane, "revoked");
  }
}

/** Closes those lanes out of contexts that are not allowed any more, now that these are not in these groups. */
export function recheckLanesFrom(fabric: FabricState, contexts: Iterable<ContextId>, groups: Iterable<Group>): void {
  const left = new Set(Array.from(groups, ({ handle }) => formatHandle(handle)));
  for (const context of contexts) {
    for (const client of fabric.contexts.get(context)?.clients ?? []) {
      recheckLanes(fabric, [...client.outgoing].filter(({ destination }) => destination.access.mentions(left)));
    }
  }
}

function checkSource(fabric: FabricState, context: Context, source: Handle): void {
  const endpoint = fabric.resources.endpoint(source);
  if (source.context === WELL_KNOWN_CONTEXT) {
    if (endpoint === undefined) fail("INVALID_RESOURCE", `nobody owns the source ${formatHandle(source)}`);
  } else if (source.context === context.id && endpoint === undefined) {
    fail("INVALID_ARGS", `there is no source ${formatHandle(source)}`);
  }
  if (endpoint?.ownerContext !== context.id) {
    fail("NO_ACCESS", `the source ${formatHandle(source)} is not of context ${context.id}`);
  }
}

function reach(fabric: FabricState, handle: Handle): Endpoint {
  if (handle.context === HYPERVISOR_CONTEXT) fail("DST_UNREACHABLE", "the hypervisor takes no datagrams");
  const endpoint = fabric.resources.endpoint(handle);
  if (endpoint === undefined) {
    if (handle.context === WELL_KNOWN_CONTEXT) fail("DST_UNREACHABLE", "nobody owns that well-known handle");
    fail(
      "INVALID_ARGS",
      fabric.contexts.has(handle.context)
        ? `context ${handle.context} has no datagram handle ${formatHandle(handle)}`
        : `there is no context ${handle.context}`,
    );
  }
  return endpoint;
}

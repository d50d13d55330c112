/**
 * What all resources have in common: who owns them, how many there may be, and how they end.
 *
 * @module
 */

import { formatHandle, handlesEqual } from "../../handle.ts";
import { accessChanged, changeAccess } from "./access.ts";
import {
  type Client,
  type Context,
  contextOf,
  Endpoint,
  Group,
  Region,
  type Resource,
  wholePages,
} from "./entities.ts";
import { type FabricState, type Handlers, PUBLIC_GROUP } from "./fabric_state.ts";
import { endLane, recheckLanesFrom } from "./lanes.ts";
import { removeName } from "./names.ts";
import { fail } from "./refusal.ts";
import { demand, demandAnnounced } from "./rights.ts";

/** Requests about resources of any type. */
export const resourceHandlers: Handlers<"destroy"> = {
  destroy: (fabric, client, args) => {
    const resource = fabric.resources.get(args.type, args.handle);
    if (resource === undefined) {
      if (fabric.wasDone(args)) return {};
      fail("NOT_FOUND", `there is no ${args.type} resource ${formatHandle(args.handle)}`);
    }
    if (resource instanceof Region) fail("INVALID_RESOURCE", "a region is not destroyed: detach from it");
    demandAnnounced(fabric, resource);
    demand(fabric, client, resource, "DESTROY_RESOURCE");
    if (resource.owner !== undefined && resource.owner !== client) {
      fabric.notify(resource.owner, "destroyed", { type: resource.type, handle: resource.handle });
    }
    destroy(fabric, resource);
    return {};
  },
};

/** The context of a client that may make one more resource. */
export function roomForResource(client: Client): Context {
  const context = contextOf(client);
  if (context.resources >= context.quota.resources) {
    fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.resources} resources`);
  }
  return context;
}

/** A resource is made, or announced again, by a client. */
export function own(fabric: FabricState, client: Client, resource: Resource): void {
  fabric.resources.add(resource);
  client.resources.add(resource);
  const context = contextOf(client);
  context.resources++;
  if (!(resource instanceof Region)) return;
  context.regions++;
  context.regionBytes += wholePages(resource.size);
}

/** Grants on a new resource what the policy grants on all. */
export function grantDefaults(fabric: FabricState, resource: Resource): void {
  for (
    const { client = PUBLIC_GROUP, privilege } of fabric.policy?.grantsFor(resource.type, resource.ownerContext) ?? []
  ) {
    changeAccess(resource, (access) => access.set(client, [privilege], []));
    accessChanged(fabric, resource, client);
  }
}

/** Ends a resource, and all that hangs on it. */
export function destroy(fabric: FabricState, resource: Resource): void {
  destroyAll(fabric, [resource]);
}

/** Ends resources, and all that hangs on them. */
export function destroyAll(fabric: FabricState, resources: readonly Resource[]): void {
  const groups = resources.filter((resource) => resource instanceof Group);
  for (const resource of resources) end(fabric, resource);
  // Each member's lanes are looked at once, however many of its groups went.
  recheckLanesFrom(fabric, new Set(groups.flatMap(({ members }) => [...members.keys()])), groups);
}

function end(fabric: FabricState, resource: Resource): void {
  const { handle, type, owner } = resource;
  const users = new Set<Client>();
  for (const name of [...resource.names.keys()]) removeName(fabric, name, resource);
  if (owner !== undefined) {
    const context = contextOf(owner);
    owner.resources.delete(resource);
    context.resources--;
    if (resource instanceof Region) {
      context.regions--;
      context.regionBytes -= wholePages(resource.size);
    }
  }
  if (resource instanceof Endpoint) {
    for (const [number, half] of fabric.halfLanes) {
      const end = half.sender ? half.source : half.destination;
      if (half.client === owner && handlesEqual(end, handle)) fabric.halfLanes.delete(number);
    }
    for (const sender of resource.lost) {
      users.add(sender);
      sender.lost.delete(resource);
    }
    for (const lane of [...resource.lanes]) {
      users.add(lane.sender);
      endLane(fabric, lane, "gone");
    }
    for (const lane of [...owner?.outgoing ?? []]) {
      if (handlesEqual(lane.source, handle)) endLane(fabric, lane, "ended");
    }
    // Its owner drops what it had not read.
    for (const lane of resource.leftover) owner?.leftover.delete(lane);
  } else if (resource instanceof Group) {
    for (const member of resource.members.keys()) fabric.contexts.get(member)?.groups.delete(resource);
  } else {
    for (const attached of resource.attachments.keys()) users.add(attached);
    if (resource.share !== undefined) fabric.spent.push(resource.share);
    resource.share = undefined;
  }
  // Nobody new can attach to a region without its creator: who might have, does not matter any more.
  changeAccess(resource, (access) => access.clear());
  resource.owner = undefined;
  // A region lives on in those attached to it; it only cannot be attached to any more.
  if (!(resource instanceof Region) || resource.attachments.size === 0) fabric.resources.remove(resource);
  for (const user of users) {
    if (user !== owner) fabric.notify(user, "resource_gone", { type, handle });
  }
}

/**
 * Grants, denials, and questions about them.
 *
 * @module
 */

import { formatHandle, type Handle, isInvalidHandle } from "../../handle.ts";
import { type PrivilegeName, validPrivileges } from "../../privilege.ts";
import type { AccessList } from "../access_list.ts";
import { grantClaim } from "./claims.ts";
import { type Client, type Context, contextOf, Endpoint, type Group, type Resource } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { recheckLanes } from "./lanes.ts";
import { fail } from "./refusal.ts";
import { decide, demand, demandAnnounced, demandReading, MOST_UNREAD_CHANGES, permits } from "./rights.ts";

/** Requests about privileges. */
export const accessHandlers: Handlers<"grant" | "revoke" | "revoke_all" | "check"> = {
  grant: (fabric, client, args) => {
    const resource = changeable(fabric, client, args.resource, args.client, [...args.allow, ...args.deny]);
    if (args.allow.length + args.deny.length === 0) fail("INVALID_ARGS", "no privilege was named");
    const group = groupOf(fabric, args.client);
    if (resource.owner === undefined) fail("UNAVAILABLE", "its creator is gone");
    const { id, grants, quota } = contextOf(resource.owner);
    const isNew = !resource.access.has(args.client);
    if (isNew) {
      if (grants >= quota.grants) {
        fail("NO_RESOURCES", `context ${id} has its quota of ${quota.grants} entries in access lists`);
      }
    }
    // What changes an entry replaces what waits; each new one is one packet more.
    demandReading(resource.owner, client, isNew ? undefined : MOST_UNREAD_CHANGES);
    if (group !== undefined) checkAssign(fabric, contextOf(client), group);
    changeAccess(resource, (access) => access.set(args.client, args.allow, args.deny));
    accessChanged(fabric, resource, args.client);
    return {};
  },

  revoke: (fabric, client, args) => {
    const resource = changeable(fabric, client, args.resource, args.client, args.privileges);
    if (args.privileges.length === 0) fail("INVALID_ARGS", "no privilege was named");
    if (resource.owner !== undefined) demandReading(resource.owner, client, MOST_UNREAD_CHANGES);
    if (!changeAccess(resource, (access) => access.unset(args.client, args.privileges))) {
      if (fabric.wasDone(args)) return {};
      fail("INVALID_ARGS", "that client has no entry");
    }
    accessChanged(fabric, resource, args.client);
    return {};
  },

  revoke_all: (fabric, client, args) => {
    const resource = changeable(fabric, client, args.resource, args.client, []);
    if (!changeAccess(resource, (access) => access.remove(args.client))) {
      if (fabric.wasDone(args)) return {};
      fail("INVALID_ARGS", "that client has no entry");
    }
    accessChanged(fabric, resource, args.client);
    return {};
  },

  check: (fabric, _client, args) => {
    const resource = fabric.resources.find(args.resource);
    if (resource === undefined) fail("INVALID_ARGS", `there is no resource ${formatHandle(args.resource)}`);
    if (!validPrivileges[resource.type].includes(args.privilege)) {
      fail("INVALID_PRIV", `${args.privilege} is no privilege of a ${resource.type} resource`);
    }
    groupOf(fabric, args.client);
    return decide(fabric, args.client, resource, args.privilege);
  },
};

/** Changes the access list of a resource, and counts what its owner's context has in such lists. */
export function changeAccess<T>({ access, owner }: Resource, change: (access: AccessList) => T): T {
  const before = access.size;
  const result = change(access);
  if (owner !== undefined) contextOf(owner).grants += access.size - before;
  return result;
}

/** Who may do what with a resource has changed for a client. */
export function accessChanged(fabric: FabricState, resource: Resource, client: Handle): void {
  if (resource.owner !== undefined) {
    const { type, handle } = resource;
    // Any context may be named in a grant; a group, by who may assign it.
    const ticket = client.resource === 0 ? "" : fabric.ticket(grantClaim(type, handle, client));
    fabric.notify(resource.owner, "keep_grant", { type, handle, entry: resource.access.entry(client), ticket });
  }
  if (resource instanceof Endpoint) recheckLanes(fabric, resource.lanes);
}

function changeable(
  fabric: FabricState,
  client: Client,
  handle: Handle,
  other: Handle,
  privileges: readonly PrivilegeName[],
): Resource {
  const resource = fabric.resources.find(handle);
  if (resource === undefined) fail("INVALID_ARGS", `there is no resource ${formatHandle(handle)}`);
  demandAnnounced(fabric, resource);
  demand(fabric, client, resource, "CH_PRIV");
  if (isInvalidHandle(other)) fail("INVALID_ARGS", "the client is the invalid handle");
  for (const privilege of privileges) {
    if (!validPrivileges[resource.type].includes(privilege)) {
      fail("INVALID_PRIV", `${privilege} is no privilege of a ${resource.type} resource`);
    }
  }
  return resource;
}

/** The group that a privilege is for; `undefined` when it is for a context. */
function groupOf(fabric: FabricState, client: Handle): Group | undefined {
  if (client.resource === 0) return undefined;
  const group = fabric.resources.group(client);
  if (group === undefined) fail("INVALID_ARGS", `${formatHandle(client)} is neither a context nor a group`);
  return group;
}

/** A context may name a group in its grants if the group is its own or it may assign it. */
function checkAssign(fabric: FabricState, context: Context, group: Group): void {
  if (!permits(fabric, context, group, "ASSIGN_CLIENT")) {
    fail("NO_ACCESS", `context ${context.id} does not have ASSIGN_CLIENT on the group ${formatHandle(group.handle)}`);
  }
}

/**
 * Who may do what: the one place where that is decided.
 *
 * @module
 */

import { contextHandle, type ContextId, formatHandle, type Handle, handlesEqual } from "../../handle.ts";
import { flagsPermit, type PrivilegeName } from "../../privilege.ts";
import type { PrivilegeState, Results } from "../protocol.ts";
import { type Client, type Context, contextOf, Group, type Resource } from "./entities.ts";
import type { FabricState } from "./fabric_state.ts";
import { fail } from "./refusal.ts";

/** With more packets than this waiting for it, a client is not told what others want of it. */
const MOST_UNREAD = 64;

/** And with more than this not what they change of what it has; that they take it all is told in any case. */
export const MOST_UNREAD_CHANGES = 2048;

/** Whether a client may do something, and what says so. */
export function decide(
  fabric: FabricState,
  client: Handle,
  resource: Resource,
  privilege: PrivilegeName,
): Results["check"] {
  const isContext = client.resource === 0;
  if (isContext && client.context === resource.ownerContext) {
    return { code: "SUCCESS_ACCESS_GRANTED", decidedBy: client, via: "owner" };
  }
  const context = isContext ? fabric.contexts.get(client.context) : undefined;
  const owner = resource.owner?.context;
  if (context !== undefined && owner !== undefined && !flagsPermit(context.flags, owner.flags)) {
    return { code: "NO_ACCESS", decidedBy: null, via: "flags" };
  }
  const member = isContext && privilege === "ASSIGN_CLIENT" ? memberState(resource, client.context) : undefined;
  const joined = (group: Handle) => isContext ? placeIn(fabric, group, client.context) : undefined;
  const { state, client: decidedBy } = resource.access.decide(client, joined, privilege, member);
  if (decidedBy === undefined) return { code: "INVALID_PRIV", decidedBy: null, via: "nothing" };
  return {
    code: state === "ALLOW" ? "SUCCESS_ACCESS_GRANTED" : "NO_ACCESS",
    decidedBy,
    via: handlesEqual(decidedBy, client) ? "own" : "group",
  };
}

/** Whether a context may do something. */
export function permits(fabric: FabricState, context: Context, resource: Resource, privilege: PrivilegeName): boolean {
  // What would deny it may not have been announced yet.
  if (fabric.recovering && resource.ownerContext !== context.id) return false;
  return decide(fabric, contextHandle(context.id), resource, privilege).code === "SUCCESS_ACCESS_GRANTED";
}

/** Refuses a client what it may not do, and says why. */
export function demand(fabric: FabricState, client: Client, resource: Resource, privilege: PrivilegeName): void {
  const context = contextOf(client);
  const { id } = context;
  if (permits(fabric, context, resource, privilege)) return;
  const { via, decidedBy } = decide(fabric, contextHandle(id), resource, privilege);
  if (via === "flags") fail("NO_ACCESS", "one side is RESTRICTED and the other is not TRUSTED");
  const why = decidedBy === null
    ? `context ${resource.ownerContext} can grant it`
    : `it is denied to ${formatHandle(decidedBy)}`;
  fail("NO_ACCESS", `context ${id} does not have ${privilege} on ${formatHandle(resource.handle)}; ${why}`);
}

/**
 * What its owner has not announced all of cannot be changed: he would bring back what it was. This is put off until he
 * has.
 */
export function demandAnnounced(fabric: FabricState, { owner }: Resource): void {
  const announced = owner !== undefined && !fabric.survivors.has(owner.survivor ?? "");
  if (fabric.recovering && !announced) fail("UNAVAILABLE", "its owner has not announced it yet");
}

/**
 * Refuses what somebody who does not read would have to be told: nobody makes others' packets pile up until they are
 * dropped for it.
 */
export function demandReading({ unread, identity }: Client, asker: Client, most: number = MOST_UNREAD): void {
  // What a process does to itself is its own affair.
  if (unread <= most || identity.pid === asker.identity.pid) return;
  fail("NO_RESOURCES", `process ${identity.pid} is busy: ${unread} packets wait for it; try again later`);
}

/** When a context joined a group, among its groups; `undefined` if it is not in it. */
function placeIn(fabric: FabricState, handle: Handle, context: ContextId): number | undefined {
  const group = fabric.resources.group(handle);
  if (fabric.contexts.has(context)) return group?.members.get(context)?.order;
  // Who is not there yet will be in the public group when it comes.
  return group === fabric.publicGroup ? 0 : undefined;
}

/** A member has ASSIGN_CLIENT or is denied it, as whoever added it said. */
function memberState(resource: Resource, context: ContextId): PrivilegeState | undefined {
  const member = resource instanceof Group ? resource.members.get(context) : undefined;
  return member === undefined ? undefined : member.canAssign ? "ALLOW" : "DENY";
}

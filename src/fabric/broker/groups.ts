/**
 * Groups of contexts.
 *
 * @module
 */

import { type ContextId, formatHandle, type Handle } from "../../handle.ts";
import type { GroupMember } from "../protocol.ts";
import { memberClaim, resourceClaim } from "./claims.ts";
import { type Client, contextOf, Group } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { recheckLanesFrom } from "./lanes.ts";
import { fail } from "./refusal.ts";
import { grantDefaults, own, roomForResource } from "./resources.ts";
import { demand, demandAnnounced, demandReading, MOST_UNREAD_CHANGES } from "./rights.ts";

/** Requests about groups. */
export const groupHandlers: Handlers<"create_group" | "add_member" | "remove_member" | "is_member"> = {
  create_group: (fabric, client) => {
    const context = roomForResource(client);
    const handle = { context: context.id, resource: fabric.number() };
    const group = new Group(handle, context.id, client);
    own(fabric, client, group);
    grantDefaults(fabric, group);
    return { handle, ticket: fabric.ticket(resourceClaim(context.id, "GROUP", handle)) };
  },

  add_member: (fabric, client, args) => {
    const group = groupOf(fabric, args.group);
    if (group === fabric.publicGroup) {
      if (args.member !== contextOf(client).id) fail("NO_ACCESS", "a context joins the public group by itself");
    } else {
      demandAnnounced(fabric, group);
      demand(fabric, client, group, "CH_PRIV");
    }
    if (!fabric.contexts.has(args.member)) fail("INVALID_ARGS", `there is no context ${args.member}`);
    const old = group.members.get(args.member);
    // What changes a member replaces what waits; each new one is one packet more.
    if (group.owner !== undefined) {
      demandReading(group.owner, client, old === undefined ? undefined : MOST_UNREAD_CHANGES);
    }
    const canAssign = group === fabric.publicGroup || args.canAssign;
    const member = { context: args.member, canAssign, order: old?.order ?? fabric.number() };
    joinGroup(fabric, group, member);
    keepMember(fabric, group, member, true);
    return {};
  },

  remove_member: (fabric, client, args) => {
    const group = groupOf(fabric, args.group);
    // A context may leave by itself; who puts another one out needs the right.
    if (args.member !== contextOf(client).id) demand(fabric, client, group, "CH_PRIV");
    if (group !== fabric.publicGroup) demandAnnounced(fabric, group);
    const member = group.members.get(args.member);
    if (member === undefined) {
      if (fabric.wasDone(args)) return {};
      fail("INVALID_ARGS", `context ${args.member} is not in the group`);
    }
    leaveGroup(fabric, group, args.member);
    keepMember(fabric, group, member, false);
    return {};
  },

  is_member: (fabric, _client, args) => ({ member: groupOf(fabric, args.group).members.has(args.member) }),
};

/** A context is in a group from now on. */
export function joinGroup(fabric: FabricState, group: Group, member: GroupMember): void {
  group.members.set(member.context, member);
  fabric.contexts.get(member.context)?.groups.add(group);
}

function leaveGroup(fabric: FabricState, group: Group, context: ContextId): void {
  group.members.delete(context);
  fabric.contexts.get(context)?.groups.delete(group);
  recheckLanesFrom(fabric, [context], [group]);
}

/** Tells a group's owner what a later broker must know. The public group has none: its members know it themselves. */
export function keepMember(fabric: FabricState, group: Group, member: GroupMember, present: boolean): void {
  const { handle, owner } = group;
  // What a context says of itself in the public group needs none.
  const ticket = present && owner !== undefined ? fabric.ticket(memberClaim(handle, member)) : "";
  const keepers = group === fabric.publicGroup ? fabric.contexts.get(member.context)?.clients ?? [] : [owner];
  for (const keeper of keepers) {
    if (keeper !== undefined) fabric.notify(keeper, "keep_member", { handle, member, present, ticket });
  }
}

/** How every context begins in the public group. */
export function publicMember(context: ContextId): GroupMember {
  return { context, canAssign: true, order: 0 };
}

/**
 * A context is in the public group as it says it was under the broker before, or is not. It can go in and out as it
 * likes, so that needs no ticket.
 */
export function announcedPublic(fabric: FabricState, client: Client, members: readonly GroupMember[]): void {
  const { publicGroup } = fabric;
  const context = contextOf(client);
  const known = publicGroup.members.get(context.id);
  const said = members.find((member) => member.context === context.id);
  // Another process of it may have said so before, or gone in since.
  const isKnown = said === undefined
    ? known === undefined
    : known !== undefined && (known.order > 0 || said.order === 0);
  if (isKnown) return;
  const member = { ...publicMember(context.id), order: said?.order ?? 0 };
  if (said !== undefined) joinGroup(fabric, publicGroup, member);
  else leaveGroup(fabric, publicGroup, context.id);
  keepMember(fabric, publicGroup, member, said !== undefined);
}

function groupOf(fabric: FabricState, handle: Handle): Group {
  const group = fabric.resources.group(handle);
  if (group === undefined) fail("INVALID_ARGS", `there is no group ${formatHandle(handle)}`);
  return group;
}

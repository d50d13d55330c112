/**
 * Claims: what a client says that it had under the broker before. The broker gives a ticket for each, with which the next
 * one can tell that it is true.
 *
 * @module
 */

import type { ContextId, Handle } from "../../handle.ts";
import type { ResourceTypeName } from "../../privilege.ts";
import type { GroupMember } from "../protocol.ts";

/** A claim: what it says, in a fixed order. */
export type Claim = readonly unknown[];

/** What a broker says of itself in a claim, so that the next one can trust it. */
export interface Tickets {
  /** A ticket for a claim. */
  issue(claim: string): string;
  /** Whether a ticket was issued for that claim. */
  isGenuine(claim: string, ticket: string): boolean;
}

/** To be that client, in that context. */
export function clientClaim(client: number, context: ContextId): Claim {
  return ["client", client, context];
}

/** To have made that resource. */
export function resourceClaim(
  context: ContextId,
  type: ResourceTypeName,
  { context: owner, resource }: Handle,
  size = 0,
  creatorOnly = false,
): Claim {
  return ["resource", context, type, owner, resource, size, creatorOnly];
}

/** To have made that well-known handle, as which number of the fabric: others may have had it before. */
export function wellKnownClaim(serial: number, ...made: Parameters<typeof resourceClaim>): Claim {
  return [...resourceClaim(...made), serial];
}

/** To have registered that name for that resource, as which number of the fabric: others may have had it before. */
export function nameClaim(serial: number, type: ResourceTypeName, handle: Handle, name: string): Claim {
  return ["name", type, handle.context, handle.resource, name, serial];
}

/** To have been allowed to name that group in the grants of that resource. */
export function grantClaim(type: ResourceTypeName, handle: Handle, group: Handle): Claim {
  return ["grant", type, handle.context, handle.resource, group.context, group.resource];
}

/** To have that member in that group, joined in that order. */
export function memberClaim(group: Handle, { context, canAssign, order }: GroupMember): Claim {
  return ["member", group.context, group.resource, context, canAssign, order];
}

/** A ticket that says its number. */
export function numberTicket(serial: number, ticket: string): string {
  return `${serial} ${ticket}`;
}

/** The number of a ticket, 0 if it has none, and the ticket without it. */
export function splitTicket(numbered: string | null): { readonly serial: number; readonly ticket: string | null } {
  const [, serial, ticket] = /^(\d{1,10}) (.*)$/.exec(numbered ?? "") ?? [];
  return serial === undefined ? { serial: 0, ticket: numbered } : { serial: Number(serial), ticket: ticket! };
}

/** To be at one end of that lane. */
export function laneClaim(client: number, lane: number, source: Handle, destination: Handle, sender: boolean): Claim {
  const ends = [source.context, source.resource, destination.context, destination.resource];
  return ["lane", client, lane, ...ends, sender ? "sender" : "receiver"];
}

/** To be attached to that region. */
export function attachmentClaim(
  context: ContextId,
  { context: owner, resource }: Handle,
  size: number,
  creatorOnly: boolean,
): Claim {
  return ["attachment", context, owner, resource, size, creatorOnly];
}

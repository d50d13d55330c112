/**
 * Datagram handles.
 *
 * @module
 */

import { FIRST_DYNAMIC_RESOURCE, type Handle, INVALID_ID, WELL_KNOWN_CONTEXT } from "../../handle.ts";
import { PrivilegeFlags } from "../../privilege.ts";
import { numberTicket, resourceClaim, wellKnownClaim } from "./claims.ts";
import { type Context, Endpoint } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { fail } from "./refusal.ts";
import { grantDefaults, own, roomForResource } from "./resources.ts";

/** Requests about datagram handles. */
export const endpointHandlers: Handlers<"create_endpoint"> = {
  create_endpoint: (fabric, client, args) => {
    const context = roomForResource(client);
    let handle: Handle;
    if (args.wellKnown) {
      handle = wellKnownHandle(fabric, context, args.resource);
    } else {
      if (args.resource !== null) {
        fail("INVALID_ARGS", "only a well-known handle has an id of one's own choice; leave the id out");
      }
      handle = { context: context.id, resource: fabric.number() };
    }
    const serial = args.wellKnown ? fabric.number() : 0;
    const endpoint = new Endpoint(handle, context.id, client, serial);
    own(fabric, client, endpoint);
    grantDefaults(fabric, endpoint);
    const ticket = args.wellKnown
      ? numberTicket(serial, fabric.ticket(wellKnownClaim(serial, context.id, "DATAGRAM", handle)))
      : fabric.ticket(resourceClaim(context.id, "DATAGRAM", handle));
    return { handle, ticket };
  },
};

function wellKnownHandle(fabric: FabricState, context: Context, resource: number | null): Handle {
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
  const owner = fabric.resources.endpoint(handle);
  if (owner !== undefined) {
    fail("DUPLICATE_ENTRY", `context ${owner.ownerContext} (process ${owner.owner?.identity.pid}) has that id`);
  }
  // Its owner may be about to announce it; this answer waits until all have.
  if (fabric.recovering) fail("DUPLICATE_ENTRY", "its owner may not have come back yet");
  return handle;
}

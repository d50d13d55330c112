/**
 * A look at everything, for the broker's own user.
 *
 * @module
 */

import { type Message, PAGE_LENGTH, type Requests } from "../protocol.ts";
import { contextOf, Group, Region } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { fail } from "./refusal.ts";

/** Requests of those who look. */
export const inspectionHandlers: Handlers<"inspect"> = {
  inspect: (fabric, client, args) => {
    if (!client.identity.privileged) fail("NO_ACCESS", "only the broker's own user may look at everything");
    const all = [...inspected(fabric, args.topic)];
    const end = args.after + PAGE_LENGTH;
    return { entries: all.slice(args.after, end), next: end < all.length ? end : null };
  },
};

function* inspected(fabric: FabricState, topic: Requests["inspect"]["topic"]): Iterable<Message> {
  switch (topic) {
    case "contexts":
      for (const { id, flags, clients, resources, regionBytes, names } of fabric.contexts.values()) {
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
      for (const resource of fabric.resources) {
        const { type, handle, owner, names } = resource;
        const common = {
          type,
          handle,
          pid: owner?.identity.pid ?? null,
          names: [...names.keys()].slice(0, 1),
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
      for (const resource of fabric.resources) {
        if (!(resource instanceof Region)) continue;
        for (const [client, count] of resource.attachments) {
          yield { handle: resource.handle, context: contextOf(client).id, pid: client.identity.pid, count };
        }
      }
      return;
    case "lanes":
      for (const { source, sender, destination } of fabric.lanes.values()) {
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

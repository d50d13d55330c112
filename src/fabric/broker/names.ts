/**
 * The names of resources: the discovery service.
 *
 * @module
 */

import { formatHandle, HOST_CONTEXT, isInvalidHandle } from "../../handle.ts";
import { nameEntry } from "../name_table.ts";
import { PAGE_LENGTH } from "../protocol.ts";
import { nameClaim, numberTicket } from "./claims.ts";
import { type Client, contextOf, type Resource } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { fail } from "./refusal.ts";

/** Requests about names. */
export const nameHandlers: Handlers<"register" | "lookup" | "unregister" | "list" | "watch_names" | "unwatch_names"> = {
  register: (fabric, client, args) => {
    const context = contextOf(client);
    if (isInvalidHandle(args.handle)) fail("INVALID_ARGS", "the invalid handle cannot have a name");
    const resource = fabric.resources.find(args.handle);
    if (resource === undefined) fail("INVALID_ARGS", `there is no resource ${formatHandle(args.handle)}`);
    if (resource.ownerContext !== context.id) {
      fail("NO_ACCESS", `it belongs to context ${resource.ownerContext}, and a context names its own only`);
    }
    const taken = fabric.names.get(args.name);
    if (taken !== undefined) {
      if (args.repeated && taken === resource) return {};
      fail("ALREADY_EXISTS", `'${args.name}' stands for ${formatHandle(taken.handle)}`);
    }
    if (resource.owner === undefined) fail("UNAVAILABLE", "its creator is gone");
    if (context.names >= context.quota.names) {
      fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.names} names`);
    }
    addName(fabric, args.name, resource, fabric.number());
    keepName(fabric, resource, args.name, true);
    return {};
  },

  lookup: (fabric, _client, args) => {
    const resource = fabric.names.get(args.name);
    if (resource === undefined) fail("NOT_FOUND", `nothing is registered as '${args.name}'`);
    return { handle: resource.handle };
  },

  unregister: (fabric, client, args) => {
    const resource = fabric.names.get(args.name);
    if (resource === undefined) {
      if (fabric.wasDone(args)) return {};
      fail("NOT_FOUND", `nothing is registered as '${args.name}'`);
    }
    const { id } = contextOf(client);
    if ((resource.ownerContext !== id && id !== HOST_CONTEXT) || resource === fabric.publicGroup) {
      fail("NO_ACCESS", `it was registered by context ${resource.ownerContext}`);
    }
    removeName(fabric, args.name, resource);
    keepName(fabric, resource, args.name, false);
    return {};
  },

  list: (fabric, _client, args) => fabric.names.page(args.prefix, args.after, PAGE_LENGTH),

  watch_names: (fabric, client, args) => {
    // A client may say twice what it watches, when its announcing was broken off.
    if (!client.watches.has(args.watch)) demandRoomForWatch(client);
    client.watches.set(args.watch, { prefix: args.prefix, exact: args.exact });
    fabric.watching.add(client);
    const matches = args.exact ? fabric.names.only(args.prefix) : fabric.names.all(args.prefix);
    for (const entries of matches) fabric.notify(client, "name", { watch: args.watch, change: "added", entries });
    return {};
  },

  unwatch_names: (fabric, client, args) => {
    client.watches.delete(args.watch);
    if (client.watches.size === 0) fabric.watching.delete(client);
    return {};
  },
};

/** Gives a resource a name, as that number of the fabric. */
export function addName(fabric: FabricState, name: string, resource: Resource, serial: number): void {
  fabric.names.add(name, resource);
  resource.names.set(name, serial);
  const context = fabric.contexts.get(resource.ownerContext);
  if (context !== undefined) context.names++;
  tellWatchers(fabric, name, resource, "added");
}

/** Takes a name from a resource. */
export function removeName(fabric: FabricState, name: string, resource: Resource): void {
  fabric.names.remove(name);
  resource.names.delete(name);
  const context = fabric.contexts.get(resource.ownerContext);
  if (context !== undefined) context.names--;
  tellWatchers(fabric, name, resource, "removed");
}

/**
 * A name that its owner had under the broker before. Of all who ever had it, it is the last one's.
 *
 * @returns Whether it is the resource's now.
 */
export function announcedName(fabric: FabricState, name: string, resource: Resource, serial: number): boolean {
  const known = fabric.names.get(name);
  if (known === resource) return true;
  if (known !== undefined) {
    if (serial <= known.names.get(name)!) return false;
    keepName(fabric, known, name, false);
    removeName(fabric, name, known);
  }
  addName(fabric, name, resource, serial);
  return true;
}

function demandRoomForWatch(client: Client): void {
  const { id, quota, clients } = contextOf(client);
  let watches = 0;
  for (const other of client.observer ? [client] : clients) watches += other.watches.size;
  if (watches >= quota.watches) fail("NO_RESOURCES", `context ${id} has its quota of ${quota.watches} name watches`);
}

function keepName(fabric: FabricState, resource: Resource, name: string, present: boolean): void {
  const { type, handle, owner, names } = resource;
  if (owner === undefined) return;
  const serial = names.get(name) ?? 0;
  const ticket = present ? numberTicket(serial, fabric.ticket(nameClaim(serial, type, handle, name))) : "";
  fabric.notify(owner, "keep_name", { type, handle, name, present, ticket });
}

function tellWatchers(fabric: FabricState, name: string, resource: Resource, change: "added" | "removed"): void {
  for (const client of fabric.watching) {
    for (const [watch, { prefix, exact }] of client.watches) {
      if (exact ? name !== prefix : !name.startsWith(prefix)) continue;
      fabric.notify(client, "name", { watch, change, entries: [nameEntry(name, resource)] });
    }
  }
}

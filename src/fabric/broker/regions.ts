/**
 * Regions of shared memory.
 *
 * @module
 */

import { formatHandle, type Handle } from "../../handle.ts";
import type { RegionAccess } from "../medium.ts";
import { attachmentClaim, resourceClaim } from "./claims.ts";
import { type Client, type Context, contextOf, Region, wholePages } from "./entities.ts";
import type { FabricState, Handlers } from "./fabric_state.ts";
import { fail } from "./refusal.ts";
import { destroy, grantDefaults, own, roomForResource } from "./resources.ts";
import { demand } from "./rights.ts";
import { introduceWatchers } from "./watchers.ts";

/** Of more processes attached to one region nobody is told who they all are. */
const MOST_REGION_PEERS = 4096;

/** Requests about regions. */
export const regionHandlers: Handlers<"create_region" | "query" | "attach" | "detach" | "watch_region"> = {
  create_region: (fabric, client, args, shares) => {
    const context = roomForResource(client);
    if (args.size < 1) fail("INVALID_SIZE", "a region has at least 1 byte");
    const { regions } = context.quota;
    if (context.regions >= regions) fail("NO_RESOURCES", `context ${context.id} has its quota of ${regions} regions`);
    const pages = wholePages(args.size);
    if (context.regionBytes + pages > context.quota.regionBytes) {
      fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.regionBytes} bytes of regions`);
    }
    if (context.attachments >= context.quota.attachments) noAttachmentsLeft(context);
    const [share] = shares;
    if (share === undefined) fail("INVALID_ARGS", "a region's memory belongs to the request");
    fabric.medium.checkRegion(share, args.size, writers(args));
    const handle = { context: context.id, resource: fabric.number() };
    const region = new Region(handle, context.id, client, shares.shift()!, args.size, writers(args));
    own(fabric, client, region);
    attach(client, region, 1);
    grantDefaults(fabric, region);
    return {
      handle,
      ticket: fabric.ticket(resourceClaim(context.id, "SHAREDMEM", handle, args.size, args.creatorOnly)),
      attachment: fabric.ticket(attachmentClaim(context.id, handle, args.size, args.creatorOnly)),
    };
  },

  query: (fabric, _client, args) => ({ size: regionOf(fabric, args.handle).size }),

  attach: (fabric, client, args) => {
    const context = contextOf(client);
    const region = regionOf(fabric, args.handle);
    if (region.share === undefined || region.owner === undefined) {
      fail("UNAVAILABLE", "its creator is gone: nobody new can attach");
    }
    demand(fabric, client, region, "SM_ATTACH");
    if (context.attachments >= context.quota.attachments) noAttachmentsLeft(context);
    introduceWatchers(fabric, region, [...region.watchers].map((watcher) => [watcher, client]));
    const first = !region.attachments.has(client);
    const peers = first ? othersAttached(client, region) : null;
    if (first) {
      for (const other of region.attachments.keys()) {
        fabric.notify(other, "region_peer", { handle: region.handle, context: context.id, attached: true });
      }
    }
    attach(client, region, 1);
    fabric.replyShares = [region.share];
    const writable = region.writers === "everybody" || region.owner === client;
    const creatorOnly = region.writers === "creator";
    const attachment = fabric.ticket(attachmentClaim(context.id, region.handle, region.size, creatorOnly));
    return { size: region.size, creatorOnly, writable, attachment, peers };
  },

  detach: (fabric, client, args) => {
    const region = regionOf(fabric, args.handle);
    if (!client.attachments.has(region)) fail("INVALID_ARGS", "you are not attached to this region");
    return { last: detach(fabric, client, region, 1) };
  },

  watch_region: (fabric, client, args) => {
    const region = regionOf(fabric, args.handle);
    if (!client.attachments.has(region)) fail("INVALID_ARGS", "you are not attached to this region");
    if (region.watchers.has(client)) return {};
    introduceWatchers(fabric, region, [...region.attachments.keys()].map((other) => [client, other]));
    region.watchers.add(client);
    return {};
  },
};

/** Counts so many attachments more. */
export function attach(client: Client, region: Region, count: number): void {
  const total = (client.attachments.get(region) ?? 0) + count;
  client.attachments.set(region, total);
  region.attachments.set(client, total);
  contextOf(client).attachments += count;
}

/** Takes `count` attachments off; `true` when they were the region's last. */
export function detach(fabric: FabricState, client: Client, region: Region, count: number): boolean {
  const context = contextOf(client);
  const left = (client.attachments.get(region) ?? 0) - count;
  context.attachments -= count;
  if (left > 0) {
    client.attachments.set(region, left);
    region.attachments.set(client, left);
    return false;
  }
  client.attachments.delete(region);
  region.attachments.delete(client);
  region.watchers.delete(client);
  for (const other of region.attachments.keys()) {
    fabric.notify(other, "region_peer", { handle: region.handle, context: context.id, attached: false });
  }
  const last = region.attachments.size === 0;
  if (region.owner === client) destroy(fabric, region);
  else if (last && region.owner === undefined) fabric.resources.remove(region);
  return last;
}

/** Tells a client of a region that it is attached to who else is. */
export function tellRegionPeers(fabric: FabricState, client: Client, region: Region): void {
  const contexts = othersAttached(client, region);
  if (contexts !== null) fabric.notify(client, "region_peers", { handle: region.handle, contexts });
}

/** The contexts of the others that are attached; `null` when they do not fit into a packet. */
function othersAttached(client: Client, region: Region): number[] | null {
  if (region.attachments.size > MOST_REGION_PEERS) return null;
  return [...region.attachments.keys()].filter((other) => other !== client).map((other) => contextOf(other).id);
}

/** Who may write, as a request says it. */
export function writers(args: { readonly creatorOnly: boolean }): RegionAccess {
  return args.creatorOnly ? "creator" : "everybody";
}

function regionOf(fabric: FabricState, handle: Handle): Region {
  const region = fabric.resources.region(handle);
  if (region === undefined) fail("NOT_FOUND", `there is no region ${formatHandle(handle)}`);
  return region;
}

function noAttachmentsLeft(context: Context): never {
  fail("NO_RESOURCES", `context ${context.id} has its quota of ${context.quota.attachments} attachments`);
}

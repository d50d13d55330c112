/**
 * Who comes and goes: clients and the contexts they are in.
 *
 * @module
 */

import { type ContextId, FIRST_VM_CONTEXT, formatHandle, HOST_CONTEXT, INVALID_ID } from "../../handle.ts";
import { PrivilegeFlags } from "../../privilege.ts";
import { formatContexts, includesContext } from "../policy.ts";
import { PROTOCOL_VERSION, type Requests } from "../protocol.ts";
import { DEFAULT_QUOTA, type Quota } from "../quota.ts";
import { clientClaim } from "./claims.ts";
import { type Client, Context, Group } from "./entities.ts";
import { type FabricState, type Handlers, PUBLIC_GROUP } from "./fabric_state.ts";
import { joinGroup, keepMember, publicMember } from "./groups.ts";
import { endLane, recheckLanes } from "./lanes.ts";
import { clientSurvivor, expectNoMore, slotSurvivor } from "./recovery.ts";
import { fail } from "./refusal.ts";
import { detach } from "./regions.ts";
import { destroyAll } from "./resources.ts";
import { demandReading } from "./rights.ts";

/** So many questions of one client may be unanswered. */
const MOST_PINGS = 1024;

/** So many observers of one user, unless it is the broker's own. */
const MOST_OBSERVERS = 64;

/** Requests of coming and going. */
export const clientHandlers: Handlers<"hello" | "bye" | "subscribe" | "ping" | "pong"> = {
  hello: (fabric, client, args, shares) => {
    if (client.number !== 0) fail("INVALID_ARGS", "hello was said before");
    if (args.protocol !== PROTOCOL_VERSION) {
      fail(
        "UNAVAILABLE",
        `the broker (process ${fabric.options.pid}, version ${fabric.options.version}) speaks protocol ` +
          `${PROTOCOL_VERSION}, this program (version ${args.version}) protocol ${args.protocol}: use one version`,
      );
    }
    const context = contextFor(fabric, client, args);
    const [attention] = shares;
    if (attention === undefined) fail("INVALID_ARGS", "an attention word belongs to hello");
    fabric.medium.checkAttention(attention);
    const { client: before } = args;
    const reclaims = before !== null && before > PUBLIC_GROUP.resource && fabric.wasGiven(before) &&
      !fabric.clients.has(before) &&
      fabric.believes(client, clientClaim(before, context.id), args.ticket);
    client.number = reclaims ? before : fabric.number();
    // Only the broker's own user has places in a roster; whoever else says so is expected by its number.
    const hasSlot = args.slot >= 0 && client.identity.privileged;
    client.survivor = hasSlot ? slotSurvivor(args.slot) : clientSurvivor(client.number);
    client.observer = args.observer;
    client.returned = client.announcing = before !== null;
    client.context = context;
    client.attention = shares.shift()!;
    fabric.clients.set(client.number, client);
    if (!client.observer) enter(fabric, client, context);
    if (before !== null && client.identity.privileged && !client.observer) restoreFlags(fabric, context, args.flags);
    // Who lived under no broker before has nothing to announce.
    if (before === null) expectNoMore(fabric, client.survivor);
    const { pid, kind, version } = fabric.options;
    const ticket = fabric.ticket(clientClaim(client.number, context.id));
    return { client: client.number, context: context.id, flags: context.chosenFlags, version, pid, kind, ticket };
  },

  bye: (fabric, client) => {
    const last = fabric.clients.size === 1 && fabric.clients.has(client.number);
    fabric.ended = last && !fabric.recovering;
    return { last: fabric.ended };
  },

  subscribe: (fabric, client) => {
    client.subscribed = true;
    return { contexts: [...fabric.contexts.keys()] };
  },

  ping: (fabric, client, args) => {
    const resource = fabric.resources.find(args.handle);
    if (resource === undefined) fail("NOT_FOUND", `there is no resource ${formatHandle(args.handle)}`);
    if (resource.owner === undefined) fail("UNAVAILABLE", "no process stands behind it");
    demandReading(resource.owner, client);
    if (client.pings.size >= MOST_PINGS) fail("NO_RESOURCES", `${MOST_PINGS} of your questions are not answered yet`);
    client.pings.set(args.token, resource.owner);
    fabric.notify(resource.owner, "ping", { client: client.number, token: args.token });
    return { pid: resource.owner.identity.pid };
  },

  pong: (fabric, client, args) => {
    const asker = fabric.clients.get(args.client);
    const asked = asker?.pings.get(args.token);
    // Who asked may have gone meanwhile.
    if (asker === undefined || asked === undefined) return {};
    if (asked !== client) fail("NO_ACCESS", "somebody else was asked that");
    asker.pings.delete(args.token);
    fabric.notify(asker, "pong", { token: args.token });
    return {};
  },
};

/** A client is gone: all that it had goes. */
export function removeClient(fabric: FabricState, client: Client): void {
  if (client.attention !== undefined) fabric.spent.push(client.attention);
  const { context } = client;
  if (context === undefined) return;
  fabric.clients.delete(client.number);
  fabric.watching.delete(client);
  for (const [number, half] of fabric.halfLanes) {
    if (half.client === client) fabric.halfLanes.delete(number);
  }
  for (const { pings } of fabric.clients.values()) {
    for (const [token, asked] of pings) {
      if (asked === client) pings.delete(token);
    }
  }
  for (const endpoint of client.lost) endpoint.lost.delete(client);
  for (const lane of [...client.outgoing]) endLane(fabric, lane, "ended");
  for (const [region, count] of [...client.attachments]) detach(fabric, client, region, count);
  // Groups last: who sent to what goes with them is told that it is gone, not that he may not.
  const groups = Map.groupBy(client.resources, (resource) => resource instanceof Group);
  destroyAll(fabric, [...groups.get(false) ?? [], ...groups.get(true) ?? []]);
  for (const number of client.peers) {
    const peer = fabric.clients.get(number);
    if (peer?.peers.delete(client.number)) fabric.notify(peer, "peer_gone", { peer: client.number });
  }
  context.clients.delete(client);
  if (client.observer || context.clients.size > 0) return;
  fabric.contexts.delete(context.id);
  // Another of its processes may still come back; who does not is no member any more when all have announced.
  for (const group of fabric.recovering ? [] : context.groups) {
    const member = group.members.get(context.id)!;
    group.members.delete(context.id);
    keepMember(fabric, group, member, false);
  }
  tellSubscribers(fabric, "context_removed", context.id);
}

function contextFor(fabric: FabricState, client: Client, args: Requests["hello"]): Context {
  const { identity } = client;
  const { contexts } = identity;
  const first = contexts === "all" ? undefined : contexts[0];
  const id = args.context ??
    (first !== undefined && !includesContext(contexts, HOST_CONTEXT) ? first[0] : HOST_CONTEXT);
  if (!includesContext(contexts, id)) {
    fail(
      "NO_ACCESS",
      `user ${identity.uid} (process ${identity.pid}) that comes this way may not be context ${id}; it may be ` +
        formatContexts(contexts),
    );
  }
  if (id !== HOST_CONTEXT && (id < FIRST_VM_CONTEXT || id === INVALID_ID)) {
    fail("INVALID_ARGS", `context ${id} is reserved: the host is 2, virtual machines have 16 and up`);
  }
  const { RESTRICTED, TRUSTED } = PrivilegeFlags;
  if ((args.flags & ~(RESTRICTED | TRUSTED)) !== 0) fail("INVALID_ARGS", `there are no flags ${args.flags}`);
  const decreed = fabric.policy?.flagsOf(id);
  // Who was in it under the broker before names the flags it had, and must find a place again whatever they are.
  const rejoins = args.client !== null;
  let { flags } = args;
  if ((flags & TRUSTED) !== 0 && !identity.privileged) {
    if (!rejoins) fail("NO_ACCESS", "only the broker's own user may call itself TRUSTED");
    flags &= ~TRUSTED;
  }
  if (!rejoins && decreed !== undefined && flags !== PrivilegeFlags.NONE && flags !== decreed) {
    fail("NO_ACCESS", `the policy gives context ${id} the flags ${decreed}, not ${flags}`);
  }
  // Others may have come before, or the policy may say less now: who had a place keeps it.
  const hadPlace = args.client !== null && fabric.believes(client, clientClaim(args.client, id), args.ticket);
  // But nothing is without end: a client may have left and kept its ticket, again and again. As many as may be there had a
  // place before; more only if the policy allowed more then.
  const mostOf = (what: "contexts" | "clients", quota: Quota) =>
    hadPlace ? Math.max(2 * quota[what], fabric.recovering ? DEFAULT_QUOTA[what] : 0) : quota[what];
  if (args.observer && !identity.privileged) demandFewObservers(fabric, client);
  const known = fabric.contexts.get(id);
  if (known === undefined) {
    const quota = fabric.quotaOf(id);
    if (fabric.contexts.size >= mostOf("contexts", quota) && !args.observer) {
      fail("NO_RESOURCES", `the fabric has its quota of ${quota.contexts} contexts`);
    }
    return new Context(id, flags, decreed ?? flags, quota);
  }
  if (!rejoins && flags !== PrivilegeFlags.NONE && flags !== known.flags) {
    fail("INVALID_ARGS", `context ${id} has the flags ${known.flags} already, not ${flags}`);
  }
  if (known.clients.size >= mostOf("clients", known.quota) && !args.observer) {
    fail("NO_RESOURCES", `context ${id} has its quota of ${known.quota.clients} processes`);
  }
  return known;
}

/** Observers are in no context that has a quota of them: a user other than the broker's own may have so many. */
function demandFewObservers(fabric: FabricState, { identity: { uid } }: Client): void {
  let observers = 0;
  for (const other of fabric.clients.values()) {
    if (other.observer && other.identity.uid === uid) observers++;
  }
  if (observers >= MOST_OBSERVERS) fail("NO_RESOURCES", `user ${uid} has ${observers} observers already`);
}

/** One of the broker's own user gives its context back the flags that it had under the broker before. */
function restoreFlags(fabric: FabricState, context: Context, flags: number): void {
  context.chosenFlags = flags;
  context.flags = fabric.policy?.flagsOf(context.id) ?? flags;
  // While others still announce what they granted, nobody can say; they are looked at when all have.
  if (!fabric.recovering) recheckLanes(fabric, fabric.lanes.values());
}

function enter(fabric: FabricState, client: Client, context: Context): void {
  context.clients.add(client);
  if (fabric.contexts.has(context.id)) {
    const member = fabric.publicGroup.members.get(context.id);
    if (member?.order === 0) return;
    const { handle } = fabric.publicGroup;
    const present = member !== undefined;
    fabric.notify(client, "keep_member", { handle, member: member ?? publicMember(context.id), present, ticket: "" });
    return;
  }
  fabric.contexts.set(context.id, context);
  tellSubscribers(fabric, "context_added", context.id);
  joinGroup(fabric, fabric.publicGroup, publicMember(context.id));
  // Groups announced before this member came back.
  for (const resource of fabric.resources) {
    if (resource instanceof Group && resource.members.has(context.id)) context.groups.add(resource);
  }
}

function tellSubscribers(fabric: FabricState, notice: "context_added" | "context_removed", context: ContextId): void {
  for (const other of fabric.clients.values()) {
    if (other.subscribed) fabric.notify(other, notice, { context });
  }
}

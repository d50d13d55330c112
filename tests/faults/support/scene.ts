/**
 * Who is there when somebody dies: a partner that has to do with the victim in every way, and two strangers with traffic
 * of their own.
 *
 * The functions travel to players as text: they see nothing but their arguments.
 *
 * @module
 */

import type { Handle } from "../../../mod.ts";
import type { Surroundings } from "../operations.ts";
import type { Player } from "./player.ts";
import type { Stage, Told } from "./stage.ts";

/** What a partner lets every victim use. */
export type Lent = Pick<Surroundings, "endpoint" | "region" | "group">;

/** What a victim has. */
export interface Belongings {
  readonly endpoint: Handle;
  readonly region: Handle;
  readonly group: Handle;
  /** The context it is in. */
  readonly context: number;
}

/** What the partner found when the victim was gone. */
export interface Findings {
  /** What it was told, but the coming of peers. */
  readonly told: readonly Told[];
  /** The datagrams that came from the victim: how many under each number, and what was wrong with them. */
  readonly received: readonly { readonly who: number; readonly count: number; readonly faults: readonly string[] }[];
  /** What became of calls that need the victim. */
  readonly outcomes: Readonly<Record<string, string>>;
  /** Whether the last record that was published is whole. */
  readonly whole: boolean;
}

// --- The partner ------------------------------------------------------------------------------------------------------

/** The partner comes, and has what victims may use. */
export async function comePartner(s: Stage, device: string, timeout: number): Promise<Lent> {
  const { access, datagrams, sharedMemory, discovery } = await s.open({ device, contextId: 16, timeout });
  s.endpoint = datagrams.create();
  s.region = sharedMemory.create(8192);
  s.group = access.createGroup();
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  access.addClientPrivileges(s.region.handle, access.publicGroup, { allow: ["SM_ATTACH"] });
  access.addClientPrivileges(s.group.handle, access.publicGroup, { allow: ["CH_PRIV"] });
  discovery.register("partner", s.endpoint.handle);
  s.follow();
  s.collect(s.endpoint);
  return { endpoint: s.endpoint.handle, region: s.region.handle, group: s.group.handle };
}

/** The partner uses what the victim has: two datagrams it has not read, an attachment, and a watch of its name. */
export async function meet(s: Stage, victim: Belongings, crowded: boolean): Promise<void> {
  const { datagrams, sharedMemory, discovery } = s.vmci;
  // What it did to come here is the last that is told of what was before.
  await s.told({ type: "peer-attached", handle: s.region.handle, context: victim.context });
  s.events.length = 0;
  s.kept.attached = sharedMemory.attach(victim.region);
  s.kept.sender = datagrams.create();
  const payload = new Uint8Array(crowded ? 69_000 : 6);
  for (let i = 0; i < 2; i++) s.kept.sender.sendTo(victim.endpoint, payload);
  s.kept.room = crowded ? s.outcome(() => s.kept.sender.room(victim.endpoint, payload.length)) : "not crowded";
  s.kept.changes = [];
  s.kept.watch = discovery.watch(`name ${victim.context}`);
  const follow = async () => {
    for await (const { change } of s.kept.watch) s.kept.changes.push(change);
  };
  s.kept.watching = follow();
  // Everything that it sent before is here.
  await s.until(() => s.received.get(2 * victim.context)?.next === 3);
}

/** The victim is stopped: what the partner does with it goes on all the same. */
export async function carryOn(s: Stage, victim: Belongings): Promise<Record<string, string>> {
  const { sharedMemory, discovery } = s.vmci;
  return {
    send: await s.outcome(() => s.kept.sender.sendTo(victim.endpoint, new Uint8Array(6))),
    lookup: await s.outcome(() => discovery.lookup(`name ${victim.context}`)),
    query: await s.outcome(() => sharedMemory.query(victim.region)),
    attach: await s.outcome(() => sharedMemory.attach(victim.region).detach()),
  };
}

/** The victim is gone: the partner is told so, and gives back what it had of it. */
export async function bury(s: Stage, victim: Belongings): Promise<Findings> {
  const { datagrams, sharedMemory, discovery, access } = s.vmci;
  await s.told({ type: "context-removed", context: victim.context });
  await s.told({ type: "peer-detached", handle: victim.region });
  await s.told({ type: "resource-gone", handle: victim.region });
  await s.told({ type: "peer-detached", handle: s.region.handle });
  await s.until(() => s.kept.changes.includes("removed"));
  const { outcome } = s;
  const outcomes = {
    room: await s.kept.room,
    lookup: await outcome(() => discovery.lookup(`name ${victim.context}`)),
    "lookup more": await outcome(() => discovery.lookup(`more ${victim.context}`)),
    send: await outcome(() => s.kept.sender.sendTo(victim.endpoint, new Uint8Array(6))),
    "send anonymously": await outcome(() => datagrams.sendTo(victim.endpoint, new Uint8Array(6))),
    attach: await outcome(() => sharedMemory.attach(victim.region)),
    group: await outcome(() => access.isGroupMember(victim.group, 16)),
    detach: String(s.kept.attached.detach()),
    query: await outcome(() => sharedMemory.query(victim.region)),
  };
  s.kept.sender.close();
  await s.kept.watch.return();
  await s.kept.watching;
  const record = s.region.record(0, 256).read();
  const received = [];
  for (const who of [2 * victim.context, 2 * victim.context + 1]) {
    const numbers = s.received.get(who);
    if (numbers !== undefined) received.push({ who, count: numbers.next, faults: numbers.faults });
    s.received.delete(who);
  }
  return {
    told: s.events.filter(({ event }) => event.type !== "peer-attached"),
    received,
    outcomes,
    whole: record === undefined || record.every((byte) => byte === record[0]),
  };
}

// --- The victim -------------------------------------------------------------------------------------------------------

/** The victim comes, and has to do with its partner in every way. */
export async function comeVictim(s: Stage, around: Surroundings): Promise<Belongings> {
  const { context, device, region, endpoint, timeout } = around;
  const { access, datagrams, sharedMemory, discovery } = await s.open({ device, contextId: context, timeout });
  s.endpoint = datagrams.create();
  s.region = sharedMemory.create(8192);
  s.group = access.createGroup();
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  access.addClientPrivileges(s.region.handle, access.publicGroup, { allow: ["SM_ATTACH"] });
  discovery.register(`name ${context}`, s.endpoint.handle);
  s.kept.theirs = sharedMemory.attach(region);
  for (let i = 0; i < 3; i++) s.endpoint.sendTo(endpoint, s.numbered(2 * context, i));
  return { endpoint: s.endpoint.handle, region: s.region.handle, group: s.group.handle, context };
}

// --- The strangers ----------------------------------------------------------------------------------------------------

/** One of them receives. */
export async function comeReceiver(s: Stage, device: string, timeout: number): Promise<Handle> {
  const { access, datagrams } = await s.open({ device, timeout });
  s.endpoint = datagrams.create();
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  s.follow();
  s.collect(s.endpoint);
  return s.endpoint.handle;
}

/** The other one sends, about a thousand datagrams a second, until it leaves. */
export async function comeSender(s: Stage, device: string, to: Handle, timeout: number): Promise<void> {
  const { datagrams } = await s.open({ device, contextId: 17, timeout });
  s.endpoint = datagrams.create();
  const { endpoint } = s;
  let number = 0;
  const send = () => {
    if (endpoint.closed || s.kept.over) return clearInterval(timer);
    if (endpoint.hasRoom(to, 8)) endpoint.sendTo(to, s.numbered(1, number++));
    s.sent.set(1, number);
  };
  const timer = setInterval(send, 1);
  send();
}

/** How many were sent. */
export function sentSoFar(s: Stage): number {
  return s.sent.get(1)!;
}

/** Waits for more than those; answers what was wrong, and the longest pause. */
export async function goesOn(s: Stage, sent: number): Promise<{ faults: readonly string[]; pause: number }> {
  await s.until(() => (s.received.get(1)?.next ?? 0) > sent);
  const numbers = s.received.get(1)!;
  const pause = numbers.longestPause;
  numbers.longestPause = 0;
  return { faults: numbers.faults, pause };
}

/** Datagrams as each side counted them. */
export interface Traffic {
  readonly sent: number;
  readonly checked: number;
}

/** The one sends no more; when all it had sent is with the other one, what each of them counted. */
export async function trafficBetween(sender: Player, receiver: Player): Promise<Traffic> {
  const sent = await sender.run((s) => {
    s.kept.over = true;
    return s.sent.get(1)!;
  });
  const checked = await receiver.run(async (s, sent) => {
    await s.until(() => (s.received.get(1)?.next ?? 0) >= sent);
    return s.received.get(1)!.next;
  }, sent);
  return { sent, checked };
}

// --- Anybody ----------------------------------------------------------------------------------------------------------

/** Founds a fabric where there is none, uses it and ends it. */
export async function found(s: Stage, device: string): Promise<void> {
  await using vmci = await s.lib.openVmci({ device });
  using endpoint = vmci.datagrams.create();
  endpoint.sendTo(endpoint.handle, new Uint8Array(1));
  await endpoint.receive();
}

/**
 * Processes under load: workers in a ring, each of which sends to the next one and reads what the one before it writes
 * to its region; and clerks, who ask the broker for everything all the time. Traders, who change all the time what they
 * have to do with each other, are in `trade.ts`.
 *
 * Nobody is told before somebody dies. Whatever is found that is not as it should be is noted with the time, and the test
 * knows whether the one it is about was dead by then.
 *
 * The functions travel to players as text: they see nothing but their arguments.
 *
 * @module
 */

import type { Handle } from "../../../mod.ts";
import type { AskerReport, Fault } from "./asker.ts";
import type { Stage } from "./stage.ts";

/** What a worker has. */
export interface Desk {
  readonly context: number;
  readonly endpoint: Handle;
  readonly region: Handle;
}

/** How a worker is doing. */
export interface WorkReport {
  readonly faults: readonly Fault[];
  /** How many datagrams came, by the context of the sender. */
  readonly received: Readonly<Record<number, number>>;
  /** Milliseconds between two of them at most, since it was asked before. */
  readonly pauses: Readonly<Record<number, number>>;
}

/** What the next worker found of one that died. */
export interface Books {
  /** What is wrong. */
  readonly faults: readonly string[];
  /** How many datagrams the dead one had noted as accepted. */
  readonly accepted: number;
  /** How many of its datagrams came. */
  readonly came: number;
  /** How many datagrams it had noted as received from the one before it. */
  readonly taken: number;
}

/** A worker comes: it receives and writes to its region, and does not send yet. */
export async function comeWorker(s: Stage, device: string, context: number, timeout: number): Promise<Desk> {
  const { access, datagrams, sharedMemory, discovery } = await s.openAtLast({ device, contextId: context, timeout });
  const { asker } = s;
  s.endpoint = datagrams.create();
  s.region = sharedMemory.create(8192);
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  access.addClientPrivileges(s.region.handle, access.publicGroup, { allow: ["SM_ATTACH"] });
  discovery.register(`endpoint ${context}`, s.endpoint.handle);
  discovery.register(`region ${context}`, s.region.handle);
  s.follow();
  // The words beside the record say how many datagrams were accepted, and how many were taken from the one before it.
  const accepted = s.region.word(4096);
  const taken = s.region.word(4100);
  s.collect(s.endpoint, { taken: () => taken.store(s.received.get(s.kept.before?.context)?.next ?? 0) });
  const record = s.region.record(0, 256);
  s.kept.number = 0;
  s.kept.version = 0;
  const send = () => {
    const { target } = s.kept;
    for (let i = 0; target !== undefined && i < 16; i++) {
      const number = s.kept.number;
      const size = 8 + (number * 37) % 1500;
      if (!s.endpoint.hasRoom(target.endpoint, size)) return;
      s.endpoint.sendTo(target.endpoint, s.numbered(context, number, size));
      s.kept.number = number + 1;
      accepted.store(number + 1);
    }
  };
  const read = () => {
    const { before } = s.kept;
    const bytes: Uint8Array | undefined = before?.region.record(0, 256).read();
    if (bytes === undefined) return;
    const version = new DataView(bytes.buffer).getUint32(0);
    if (version < s.kept.version) asker.fault(`version ${version} of a record came after ${s.kept.version}`);
    s.kept.version = version;
    const torn = bytes.subarray(4).some((byte) => byte !== version % 256);
    if (torn) asker.fault(`version ${version} of a record is torn`);
  };
  let version = 0;
  const publish = () => {
    const bytes = new Uint8Array(256).fill(++version % 256);
    new DataView(bytes.buffer).setUint32(0, version);
    record.publish(bytes);
  };
  const work = () => {
    if (s.vmci.closed) return clearInterval(s.kept.working);
    try {
      publish();
      read();
      send();
    } catch (error) {
      asker.fault(String(error), s.kept.target?.context ?? null);
      s.kept.target = undefined;
    }
  };
  s.kept.working = setInterval(work, 2);
  return { context, endpoint: s.endpoint.handle, region: s.region.handle };
}

/** From now on it sends to that one, numbered from 0; nobody: it stops. */
export function sendToNext(s: Stage, next: Desk | null): void {
  s.kept.number = 0;
  s.region.word(4096).store(0);
  s.kept.target = next ?? undefined;
}

/** It stops sending: how many were accepted. */
export function sendNoMore(s: Stage): number {
  s.kept.target = undefined;
  return s.kept.number;
}

/** Whom it sends to died: waits until it was told so, or was refused; what it had sent, and how much of it was lost. */
export async function missNext(s: Stage, next: Desk): Promise<{ sent: number; lost: number }> {
  await s.told({ type: "resource-gone", handle: next.endpoint });
  s.kept.target = undefined;
  const lost = s.events.filter(({ event }) =>
    event.type === "datagrams-lost" && JSON.stringify(event.destination) === JSON.stringify(next.endpoint)
  );
  return { sent: s.kept.number, lost: lost.reduce((sum, { event }) => sum + (event as { bytes: number }).bytes, 0) };
}

/** From now on it reads what that one writes. */
export function readBefore(s: Stage, before: Desk): void {
  s.kept.version = 0;
  s.region.word(4100).store(0);
  s.kept.before = { context: before.context, region: s.vmci.sharedMemory.attach(before.region) };
}

/** The one before it died: waits until all that was accepted from it is here, and gives its region back. */
export async function closeBooks(s: Stage, context: number): Promise<Books> {
  const { region } = s.kept.before;
  s.kept.before = undefined;
  await s.told({ type: "context-removed", context });
  const accepted: number = region.word(4096).load();
  const taken: number = region.word(4100).load();
  await s.until(() => (s.received.get(context)?.next ?? 0) >= accepted);
  const came = s.received.get(context)?.next ?? 0;
  const record: Uint8Array | undefined = region.record(0, 256).read();
  const version = record === undefined ? 0 : new DataView(record.buffer).getUint32(0);
  const faults: string[] = [];
  // It may have died between the datagram and the note that it was accepted.
  if (came > accepted + 1) faults.push(`${came} datagrams came of ${accepted} that were accepted`);
  if (record?.subarray(4).some((byte) => byte !== version % 256)) faults.push("its last record is torn");
  region.detach();
  return { faults, accepted, came, taken };
}

/** How a worker is doing. */
export function reportWork(s: Stage): WorkReport {
  const received: Record<number, number> = {};
  const faults = [...s.asker.report().faults];
  const pauses: Record<number, number> = {};
  for (const [who, numbers] of s.received) {
    received[who] = numbers.next;
    pauses[who] = numbers.longestPause;
    numbers.longestPause = 0;
    for (const what of numbers.faults) faults.push({ what: `from ${who}: ${what}`, at: 0, about: null });
  }
  return { faults, received, pauses };
}

/** Waits until so many have come from somebody. */
export async function hasReceived(s: Stage, context: number, count: number): Promise<void> {
  await s.until(() => (s.received.get(context)?.next ?? 0) >= count);
}

/** Waits until it was told of so many new brokers; when, and whatever they did not take back. */
export async function hasSeenBrokers(s: Stage, count: number): Promise<{ at: number; lost: number }> {
  const changes = () => s.events.filter(({ event }) => event.type === "broker-changed");
  await s.until(() => changes().length >= count);
  const { event, at } = changes()[count - 1]!;
  return { at, lost: event.type === "broker-changed" ? event.lost.length : 0 };
}

/** A clerk comes. */
export async function comeClerk(s: Stage, device: string, context: number, timeout: number): Promise<Handle> {
  await s.openAtLast({ device, contextId: context, timeout });
  s.follow();
  const { vmci, asker } = s;
  const { access, datagrams, sharedMemory, discovery } = vmci;
  const me = s.lib.contextHandle(context);
  s.kept.desks = [];
  s.endpoint = datagrams.create();
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  discovery.register(`endpoint ${context}`, s.endpoint.handle);
  const call = asker.call.bind(asker);
  const same = (what: string, found: Handle | undefined, wanted: Handle, about: number | null = null) => {
    if (about !== null && asker.gone.has(about)) return;
    if (JSON.stringify(found) !== JSON.stringify(wanted)) asker.fault(`${what} is ${JSON.stringify(found)}`, about);
  };
  const round = async (number: number) => {
    const own = await call("look up its own name", () => discovery.lookup(`endpoint ${context}`));
    same("its own name", own, s.endpoint.handle);
    for (const desk of s.kept.desks as Desk[]) {
      const about = desk.context;
      if (asker.gone.has(about)) continue;
      const name = `endpoint ${about}`;
      same(name, await call(`look up ${name}`, () => discovery.lookup(name), about), desk.endpoint, about);
      const right = await call("check", () => access.checkClientPrivilege(desk.endpoint, me, "DG_SEND"), about);
      if (right?.granted === false) asker.fault(`the grant on ${name} is ${right.code}`, about);
      (await call("attach", () => sharedMemory.attach(desk.region), about))?.detach();
    }
    const name = `clerk ${context} ${number}`;
    const fresh = await call("create an endpoint", () => datagrams.create());
    const region = await call("create a region", () => sharedMemory.create(100));
    const group = await call("create a group", () => access.createGroup());
    for (const made of [fresh, region, group]) if (made !== undefined) asker.given(made.handle.resource);
    if (fresh === undefined || region === undefined || group === undefined) return;
    await call("register", () => discovery.register(name, fresh.handle), null, ["ALREADY_EXISTS"]);
    same(name, await call("look up a new name", () => discovery.lookup(name)), fresh.handle);
    await call("grant", () => access.addClientPrivileges(region.handle, group.handle, { allow: ["SM_ATTACH"] }));
    await call("add", () => group.add(context));
    if (await call("ask for a member", () => group.has(context)) !== true) asker.fault("a member is gone");
    await call("remove", () => group.remove(context), null, ["INVALID_ARGS"]);
    await call("revoke", () => access.removeAllClientPrivileges(region.handle, group.handle), null, ["INVALID_ARGS"]);
    await call("unregister", () => discovery.unregister(name), null, ["NOT_FOUND"]);
    await call("close a group", () => group.close());
    await call("detach", () => region.detach());
    await call("close an endpoint", () => fresh.close());
    const gone = await call("list", () => discovery.list(name));
    if (gone?.length !== 0) asker.fault(`${name} is there still`);
  };
  const work = async () => {
    for (let number = 0; !s.kept.idle && !vmci.closed; number++) {
      await round(number);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  s.kept.working = work();
  return s.endpoint.handle;
}

/** Which workers a clerk may ask for from now on. */
export function knowDesks(s: Stage, desks: readonly Desk[]): void {
  s.kept.desks = desks;
}

/** Somebody is no more, and is not asked for any more. */
export function knowGone(s: Stage, context: number): void {
  s.asker.gone.add(context);
}

/** A clerk ends what it is about, and begins nothing else. */
export async function rest(s: Stage): Promise<void> {
  s.kept.idle = true;
  await s.kept.working;
}

/** How a clerk is doing. */
export function reportClerk(s: Stage): AskerReport {
  return s.asker.report();
}

/** Waits until so many more of its calls nobody has answered in time. */
export async function givesUp(s: Stage, more: number): Promise<void> {
  const count = s.asker.unanswered + more;
  await s.until(() => s.asker.unanswered >= count);
}

/** Somebody who never was there comes to a broker that does not answer: what he is told. */
export async function comeInVain(s: Stage, device: string, timeout: number): Promise<string> {
  return await s.outcome(() => s.lib.openVmci({ device, timeout }));
}

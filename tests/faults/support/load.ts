/**
 * Processes under load: workers in a ring, each of which sends to the next one and reads what the one before it writes
 * to its region; and clerks, who ask the broker for everything all the time.
 *
 * The functions travel to players as text: they see nothing but their arguments.
 *
 * @module
 */

import type { Handle } from "../../../mod.ts";
import type { Stage } from "./stage.ts";

/** What a worker has. */
export interface Desk {
  readonly context: number;
  readonly endpoint: Handle;
  readonly region: Handle;
}

/** How a worker is doing. */
export interface WorkReport {
  /** What was wrong: never anything. */
  readonly faults: readonly string[];
  /** How many datagrams came, by the context of the sender. */
  readonly received: Readonly<Record<number, number>>;
  /** How many were accepted for whom it sends to now. */
  readonly sent: number;
  readonly longestPause: number;
}

/** How a clerk is doing. */
export interface ClerkReport {
  readonly faults: readonly string[];
  /** Calls that were answered. */
  readonly calls: number;
  /** Calls that ended with UNAVAILABLE, and were repeated. */
  readonly repeated: number;
  /** Milliseconds that a call took at most. */
  readonly longestCall: number;
  /** The handles it was given since it was asked before. */
  readonly handles: readonly number[];
}

/** A worker comes: it receives and writes to its region, and does not send yet. */
export async function comeWorker(s: Stage, device: string, context: number, timeout: number): Promise<Desk> {
  const { access, datagrams, sharedMemory, discovery } = await s.open({ device, contextId: context, timeout });
  s.endpoint = datagrams.create();
  s.region = sharedMemory.create(8192);
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  access.addClientPrivileges(s.region.handle, access.publicGroup, { allow: ["SM_ATTACH"] });
  discovery.register(`endpoint ${context}`, s.endpoint.handle);
  discovery.register(`region ${context}`, s.region.handle);
  s.follow();
  s.collect(s.endpoint);
  const faults: string[] = s.kept.faults = [];
  // The word beside the record says how many datagrams were accepted.
  const accepted = s.region.word(4096);
  const record = s.region.record(0, 256);
  s.kept.number = 0;
  s.kept.version = 0;
  const send = () => {
    const { target } = s.kept;
    for (let i = 0; target !== undefined && i < 16; i++) {
      const number = s.kept.number;
      const size = 8 + (number * 37) % 1500;
      if (!s.endpoint.hasRoom(target, size)) return;
      s.endpoint.sendTo(target, s.numbered(context, number, size));
      s.kept.number = number + 1;
      accepted.store(number + 1);
    }
  };
  const read = () => {
    const bytes: Uint8Array | undefined = s.kept.before?.record(0, 256).read();
    if (bytes === undefined) return;
    const version = new DataView(bytes.buffer).getUint32(0);
    if (version < s.kept.version) faults.push(`version ${version} of a record came after ${s.kept.version}`);
    s.kept.version = version;
    const torn = bytes.subarray(4).some((byte) => byte !== version % 256);
    if (torn) faults.push(`version ${version} of a record is torn`);
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
      faults.push(String(error));
      s.kept.target = undefined;
    }
  };
  s.kept.working = setInterval(work, 2);
  return { context, endpoint: s.endpoint.handle, region: s.region.handle };
}

/** From now on it sends to that one, numbered from 0; nobody: it stops. */
export function sendToNext(s: Stage, next: Handle | null): void {
  s.kept.number = 0;
  s.region.word(4096).store(0);
  s.kept.target = next ?? undefined;
}

/** From now on it reads what that one writes. */
export function readBefore(s: Stage, before: Handle): void {
  s.kept.version = 0;
  s.kept.before = s.vmci.sharedMemory.attach(before);
}

/**
 * The one before it died: waits until all that was accepted from it is here, and gives its region back.
 *
 * @returns What is wrong.
 */
export async function closeBooks(s: Stage, context: number): Promise<string[]> {
  const { before } = s.kept;
  s.kept.before = undefined;
  await s.told({ type: "context-removed", context });
  const accepted: number = before.word(4096).load();
  await s.until(() => (s.received.get(context)?.next ?? 0) >= accepted);
  const count = s.received.get(context)?.next ?? 0;
  const record: Uint8Array | undefined = before.record(0, 256).read();
  const version = record === undefined ? 0 : new DataView(record.buffer).getUint32(0);
  const faults: string[] = [];
  // It may have died between the datagram and the note that it was accepted.
  if (count > accepted + 1) faults.push(`${count} datagrams came of ${accepted} that were accepted`);
  if (record?.subarray(4).some((byte) => byte !== version % 256)) faults.push("its last record is torn");
  before.detach();
  return faults;
}

/** How a worker is doing. */
export function reportWork(s: Stage): WorkReport {
  const received: Record<number, number> = {};
  const faults = [...s.kept.faults as string[]];
  let longestPause = 0;
  for (const [who, numbers] of s.received) {
    received[who] = numbers.next;
    longestPause = Math.max(longestPause, numbers.longestPause);
    faults.push(...numbers.faults.map((it) => `from ${who}: ${it}`));
  }
  return { faults, received, sent: s.kept.number, longestPause };
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
export async function comeClerk(s: Stage, device: string, context: number, timeout: number): Promise<void> {
  await s.open({ device, contextId: context, timeout });
  s.follow();
  const { vmci } = s;
  const { access, datagrams, sharedMemory, discovery } = vmci;
  const me = s.lib.contextHandle(context);
  const state = s.kept.state = {
    faults: [] as string[],
    calls: 0,
    repeated: 0,
    longestCall: 0,
    handles: [] as number[],
  };
  s.kept.desks = [];
  s.endpoint = datagrams.create();
  access.addClientPrivileges(s.endpoint.handle, access.publicGroup, { allow: ["DG_SEND"] });
  discovery.register(`endpoint ${context}`, s.endpoint.handle);
  /** Calls, and calls again when nobody answered in time. */
  const call = <T>(what: string, action: () => T, done: readonly string[] = []): T | undefined => {
    for (let repeated = false;; repeated = true) {
      const begun = performance.now();
      try {
        return action();
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === "UNAVAILABLE") {
          state.repeated++;
          continue;
        }
        // What was asked for before may have been done after all.
        if (!repeated || !done.includes(code!)) state.faults.push(`${what}: ${error}`);
        return undefined;
      } finally {
        state.calls++;
        state.longestCall = Math.max(state.longestCall, performance.now() - begun);
      }
    }
  };
  const same = (what: string, found: Handle | undefined, wanted: Handle) => {
    if (JSON.stringify(found) !== JSON.stringify(wanted)) state.faults.push(`${what} is ${JSON.stringify(found)}`);
  };
  const round = (number: number) => {
    same(
      "its own name",
      call("look up its own name", () => discovery.lookup(`endpoint ${context}`)),
      s.endpoint.handle,
    );
    for (const desk of s.kept.desks as Desk[]) {
      const name = `endpoint ${desk.context}`;
      same(name, call(`look up ${name}`, () => discovery.lookup(name)), desk.endpoint);
      const right = call("check", () => access.checkClientPrivilege(desk.endpoint, me, "DG_SEND"));
      if (right?.granted !== true) state.faults.push(`the grant on ${name} is ${right?.code}`);
      call("attach", () => sharedMemory.attach(desk.region))?.detach();
    }
    const name = `clerk ${context} ${number}`;
    const fresh = call("create an endpoint", () => datagrams.create());
    const region = call("create a region", () => sharedMemory.create(100));
    const group = call("create a group", () => access.createGroup());
    for (const made of [fresh, region, group]) {
      if (made !== undefined) state.handles.push(made.handle.resource);
    }
    if (fresh === undefined || region === undefined || group === undefined) return;
    call("register", () => discovery.register(name, fresh.handle), ["ALREADY_EXISTS"]);
    same(name, call("look up a new name", () => discovery.lookup(name)), fresh.handle);
    call("grant", () => access.addClientPrivileges(region.handle, group.handle, { allow: ["SM_ATTACH"] }));
    call("add", () => group.add(context));
    if (call("ask for a member", () => group.has(context)) !== true) state.faults.push("a member is gone");
    call("remove", () => group.remove(context), ["INVALID_ARGS"]);
    call("revoke", () => access.removeAllClientPrivileges(region.handle, group.handle), ["INVALID_ARGS"]);
    call("unregister", () => discovery.unregister(name), ["NOT_FOUND"]);
    call("close a group", () => group.close());
    call("detach", () => region.detach());
    call("close an endpoint", () => fresh.close());
    const gone = call("list", () => discovery.list(name));
    if (gone?.length !== 0) state.faults.push(`${name} is there still`);
  };
  let number = 0;
  const work = () => {
    if (vmci.closed) return clearInterval(working);
    if (s.kept.idle !== true) round(number++);
  };
  const working = setInterval(work, 5);
}

/** Which workers a clerk may ask for from now on. */
export function knowDesks(s: Stage, desks: readonly Desk[]): void {
  s.kept.desks = desks;
}

/** How a clerk is doing. */
export function reportClerk(s: Stage): ClerkReport {
  const { state } = s.kept;
  const report = { ...state, handles: [...state.handles] };
  state.handles.length = state.calls = state.repeated = 0;
  return report;
}

/**
 * What a process may be doing when it dies: an operation for every step of every role, made of the public API.
 *
 * The functions travel to the process as text: they see nothing but their arguments.
 *
 * @module
 */

import type { Handle } from "../../mod.ts";
import type { Act, Stage } from "./support/stage.ts";

/** What a process is to those that survive it. */
export type Role =
  | "region creator"
  | "attacher"
  | "sender"
  | "receiver"
  | "name owner"
  | "waiter"
  | "grantor"
  | "member";

/** What a victim knows of its surroundings. */
export interface Surroundings {
  readonly device: string;
  /** Its own context. */
  readonly context: number;
  /** Its partner's. */
  readonly endpoint: Handle;
  readonly region: Handle;
  readonly group: Handle;
  /** Milliseconds that its calls may take. */
  readonly timeout: number;
  /** A directory without a fabric. */
  readonly elsewhere: string;
}

/** One operation. */
export interface Operation {
  readonly role: Role;
  /** What is done before, while all is well. */
  readonly prepare?: (s: Stage, around: Surroundings) => unknown;
  /** The operation itself. */
  readonly act: (s: Stage, around: Surroundings) => unknown;
  /** Whether it waits for what does not come. */
  readonly waits?: true;
  /** Whether the lane to the victim is full, and its partner waits for room in it. */
  readonly crowded?: true;
  /** Whether it may take the first of two datagrams that its partner has sent, or revoke the right to send them. */
  readonly fate?: "taken" | "revoked";
}

/** All operations by name. */
export const operations: Readonly<Record<string, Operation>> = {
  // --- Membership ---
  "open again": {
    role: "member",
    act: (s, { device, context }) => s.open({ device, contextId: context }),
  },
  "open where nobody is": {
    role: "member",
    act: async (s, { elsewhere }) => s.kept.founded = await s.lib.openVmci({ device: elsewhere }),
  },
  "close": { role: "member", act: (s) => s.vmci.close() },
  "dispose": { role: "member", act: (s) => s.vmci[Symbol.asyncDispose]() },
  "events": { role: "member", act: (s) => s.follow() },

  // --- Regions ---
  "create a region": { role: "region creator", act: (s) => s.kept.more = s.vmci.sharedMemory.create(100_000) },
  "create a region, only to be read": {
    role: "region creator",
    act: (s) => s.kept.more = s.vmci.sharedMemory.create(100, { writers: "creator" }),
  },
  "detach one's own region": { role: "region creator", act: (s) => s.region.detach() },
  "write and notify": {
    role: "region creator",
    act: (s) => {
      s.region.bytes.fill(1);
      s.region.notify();
    },
  },
  "query": { role: "attacher", act: (s, { region }) => s.vmci.sharedMemory.query(region) },
  "attach again": {
    role: "attacher",
    act: (s, { region }) => s.kept.again = s.vmci.sharedMemory.attach(region),
  },
  "detach one of two": {
    role: "attacher",
    prepare: (s, { region }) => s.kept.again = s.vmci.sharedMemory.attach(region),
    act: (s) => s.kept.again.detach(),
  },
  "detach": { role: "attacher", act: (s) => s.kept.theirs.detach() },
  "publish a record": {
    role: "attacher",
    act: (s, { context }) => s.kept.theirs.record(0, 256).publish(new Uint8Array(256).fill(context)),
  },
  "read a record": { role: "attacher", act: (s) => s.kept.theirs.record(0, 256).read() },
  "add to a word": { role: "attacher", act: (s) => s.kept.theirs.word(4096).add(1) },

  // --- Datagrams ---
  "send first": {
    role: "sender",
    prepare: (s) => s.kept.fresh = s.vmci.datagrams.create(),
    act: (s, { endpoint, context }) => s.kept.fresh.sendTo(endpoint, s.numbered(2 * context + 1, 0)),
  },
  "send next": {
    role: "sender",
    act: (s, { endpoint, context }) => s.endpoint.sendTo(endpoint, s.numbered(2 * context, 3)),
  },
  "send the largest": {
    role: "sender",
    act: (s, { endpoint, context }) => s.endpoint.sendTo(endpoint, s.numbered(2 * context, 3, s.lib.MAX_PAYLOAD_SIZE)),
  },
  "send anonymously": {
    role: "sender",
    act: (s, { endpoint, context }) => s.vmci.datagrams.sendTo(endpoint, s.numbered(2 * context + 1, 0)),
  },
  "wait for room": {
    role: "sender",
    waits: true,
    prepare: (s) => {
      s.kept.unread = s.vmci.datagrams.create();
      s.endpoint.sendTo(s.kept.unread.handle, new Uint8Array(69_000));
      s.endpoint.sendTo(s.kept.unread.handle, new Uint8Array(69_000));
    },
    act: (s) => s.endpoint.room(s.kept.unread.handle, 69_000),
  },
  "create an endpoint": { role: "receiver", act: (s) => s.kept.fresh = s.vmci.datagrams.create() },
  "create a well-known endpoint": {
    role: "receiver",
    act: (s, { context }) => s.kept.fresh = s.vmci.datagrams.create({ wellKnown: context }),
  },
  "receive": { role: "receiver", fate: "taken", act: (s) => s.endpoint.receive() },
  "receive without turning": { role: "receiver", fate: "taken", act: (s) => s.endpoint.receiveSync() },
  "receive where somebody waits for room": {
    role: "receiver",
    crowded: true,
    fate: "taken",
    act: (s) => s.endpoint.receive(),
  },
  "close an endpoint": { role: "receiver", crowded: true, act: (s) => s.endpoint.close() },

  // --- Names ---
  "register": {
    role: "name owner",
    act: (s, { context }) => s.vmci.discovery.register(`more ${context}`, s.region.handle),
  },
  "unregister": { role: "name owner", act: (s, { context }) => s.vmci.discovery.unregister(`name ${context}`) },
  "look up": { role: "name owner", act: (s, { context }) => s.vmci.discovery.lookup(`name ${context}`) },
  "list": { role: "name owner", act: (s) => s.vmci.discovery.list() },

  // --- Waiting ---
  "wait for a name": { role: "waiter", waits: true, act: (s) => s.vmci.discovery.wait("never") },
  "wait for a name that is there": {
    role: "waiter",
    act: (s, { context }) => s.vmci.discovery.wait(`name ${context}`),
  },
  "watch names": { role: "waiter", act: (s) => s.vmci.discovery.watch("").next() },
  "wait for a datagram": {
    role: "waiter",
    waits: true,
    prepare: (s) => s.kept.fresh = s.vmci.datagrams.create(),
    act: (s) => s.kept.fresh.receive(),
  },
  "wait for a datagram without turning": {
    role: "waiter",
    prepare: (s) => s.kept.fresh = s.vmci.datagrams.create(),
    act: (s) => s.kept.fresh.receiveSync(10),
  },
  "wait for a word": { role: "waiter", waits: true, act: (s) => s.kept.theirs.word(4100).wait(0) },
  "wait for a word without turning": { role: "waiter", act: (s) => s.kept.theirs.word(4100).waitSync(0, 10) },
  "wait for a record": {
    role: "waiter",
    waits: true,
    act: (s) => {
      const record = s.kept.theirs.record(0, 256);
      return record.wait(record.version);
    },
  },
  "wait for a region": { role: "waiter", waits: true, act: (s) => s.kept.theirs.waitUntil(() => false) },

  // --- Access ---
  "grant": {
    role: "grantor",
    act: (s) => s.vmci.access.addClientPrivileges(s.region.handle, s.lib.contextHandle(17), { deny: ["SM_ATTACH"] }),
  },
  "revoke": {
    role: "grantor",
    fate: "revoked",
    act: (s) => s.vmci.access.removeClientPrivileges(s.endpoint.handle, s.vmci.access.publicGroup, ["DG_SEND"]),
  },
  "revoke all": {
    role: "grantor",
    fate: "revoked",
    act: (s) => s.vmci.access.removeAllClientPrivileges(s.endpoint.handle, s.vmci.access.publicGroup),
  },
  "check": {
    role: "grantor",
    act: (s, { region }) => s.vmci.access.checkClientPrivilege(region, s.lib.contextHandle(16), "SM_ATTACH"),
  },
  "create a group": { role: "grantor", act: (s) => s.kept.more = s.vmci.access.createGroup() },
  "add to a group": { role: "grantor", act: (s) => s.group.add(17) },
  "remove from a group": { role: "grantor", prepare: (s) => s.group.add(17), act: (s) => s.group.remove(17) },
  "close a group": { role: "grantor", act: (s) => s.group.close() },
  "join a group": { role: "grantor", act: (s, { group }) => s.vmci.access.joinGroup(group) },
  "leave a group": {
    role: "grantor",
    prepare: (s, { group }) => s.vmci.access.joinGroup(group),
    act: (s, { group }) => s.vmci.access.leaveGroup(group),
  },
};

/** An operation as it travels to who does it. */
export function actOf(name: string): Act {
  const { act, waits = false } = operations[name]!;
  return { code: act.toString(), waits };
}

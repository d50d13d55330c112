/** The broker dies, or is stopped, at every step of every request: after each call of the C library it makes for it. */

import { assertEquals } from "@std/assert";
import type { Handle } from "../../mod.ts";
import { FabricDirectory, Player } from "./support/player.ts";
import { lookAtAll, type Scene, SetScene } from "./support/scene.ts";
import type { Blow, Stage } from "./support/stage.ts";

/** One request, made by a program's call. */
interface Case {
  /** The operation as the protocol names it. */
  readonly op: string; readonly skip?: boolean;
  /** What is done before, while the broker is whole. */
  readonly prepare?: (s: Stage, scene: Scene) => unknown;
  /** The call; what it gives is compared with what it gives without any fault. */
  readonly act: (s: Stage, scene: Scene) => unknown;
  /** Who does it. */
  readonly by?: "host" | "guest";
}

const cases: Readonly<Record<string, Case>> = {
  "openVmci": {
    skip: true, op: "hello", act: (s, { region }) => s.open({ device: s.vmci.device, contextId: 17 }).then(() => s.vmci.sharedMemory.query(region)) },
  "datagrams.create": { op: "create_endpoint", act: (s) => void s.endpoints.push(s.vmci.datagrams.create()) },
  "datagrams.create, well-known": {
    op: "create_endpoint",
    act: (s) => s.endpoints.push(s.vmci.datagrams.create({ wellKnown: 5000 })) && s.endpoints[0]!.handle,
  },
  "endpoint.close": { op: "destroy", act: (s) => s.endpoint.close() },
  "datagrams.destroy of another's": { op: "destroy", act: (s, { endpoint }) => s.vmci.datagrams.destroy(endpoint) },
  "the first sendTo": { op: "open_lane", act: (s, { endpoint }) => s.vmci.datagrams.sendTo(endpoint, new Uint8Array(9)) },
  "the first sendTo to the first of a process": {
    op: "open_lane",
    by: "host",
    act: (s, { guestEndpoint }) => s.endpoint.sendTo(guestEndpoint, new Uint8Array(9)),
  },
  "sharedMemory.create": { op: "create_region", act: (s) => void s.regions.push(s.vmci.sharedMemory.create(100)) },
  "sharedMemory.create, creator only": {
    op: "create_region",
    act: (s) => void s.regions.push(s.vmci.sharedMemory.create(100, { writers: "creator" })),
  },
  "sharedMemory.query": { op: "query", act: (s, { region }) => s.vmci.sharedMemory.query(region) },
  "sharedMemory.attach": {
    op: "attach",
    act: (s, { region }) => {
      const attached = s.vmci.sharedMemory.attach(region);
      attached.bytes[0]! += 1;
      return attached.bytes[0];
    },
  },
  "region.detach, one of two": { op: "detach", act: (s) => s.regions[1]!.detach() },
  "region.detach, the last of two": { op: "detach", prepare: (s) => s.regions[1]!.detach(), act: (s) => s.region.detach() },
  "region.detach, the creator": { op: "detach", by: "host", act: (s) => s.region.detach() },
  "region.detach, the last of all": {
    op: "detach",
    prepare: (s) => void s.endpoints.push(s.vmci.sharedMemory.create(100) as never),
    act: (s) => (s.endpoints.pop() as never as { detach(): number }).detach(),
  },
  "region.waitUntil": {
    op: "watch_region",
    act: (s) => s.region.waitUntil(() => true),
  },
  "addClientPrivileges": {
    op: "grant",
    by: "host",
    act: (s) => s.vmci.access.addClientPrivileges(s.region.handle, { context: 20, resource: 0 }, { deny: ["SM_ATTACH"] }),
  },
  "removeClientPrivileges": {
    op: "revoke",
    by: "host",
    act: (s) => s.vmci.access.removeClientPrivileges(s.endpoint.handle, { context: 16, resource: 0 }, ["DG_SEND"]),
  },
  "removeAllClientPrivileges": {
    op: "revoke_all",
    by: "host",
    act: (s) => s.vmci.access.removeAllClientPrivileges(s.endpoint.handle, { context: 16, resource: 0 }),
  },
  "removeAllClientPrivileges of another's": {
    op: "revoke_all",
    act: (s, { endpoint }) => s.vmci.access.removeAllClientPrivileges(endpoint, { context: 16, resource: 0 }),
  },
  "checkClientPrivilege": {
    op: "check",
    act: (s, { region }) => s.vmci.access.checkClientPrivilege(region, { context: 16, resource: 0 }, "SM_ATTACH").code,
  },
  "createGroup": { op: "create_group", act: (s) => void s.vmci.access.createGroup() },
  "group.close": { op: "destroy", by: "host", act: (s) => s.group.close() },
  "group.add": { op: "add_member", by: "host", act: (s) => s.group.add(2) },
  "group.remove": { op: "remove_member", by: "host", act: (s) => s.group.remove(16) },
  "leaveGroup": { op: "remove_member", act: (s, { group }) => s.vmci.access.leaveGroup(group) },
  "isGroupMember": { op: "is_member", act: (s, { group }) => s.vmci.access.isGroupMember(group, 16) },
  "discovery.register": { op: "register", act: (s) => s.vmci.discovery.register("new", s.endpoint.handle) },
  "discovery.unregister": { op: "unregister", act: (s) => s.vmci.discovery.unregister("guest") },
  "discovery.unregister of another's": { op: "unregister", by: "host", act: (s) => s.vmci.discovery.unregister("guest") },
  "discovery.lookup": { op: "lookup", act: (s, { endpoint }) => JSON.stringify(s.vmci.discovery.lookup("host")) === JSON.stringify(endpoint) },
  "discovery.lookup of nothing": { op: "lookup", act: (s) => s.vmci.discovery.lookup("nothing") },
  "discovery.list": { op: "list", act: (s) => s.vmci.discovery.list().map(({ name }) => name) },
  "discovery.wait": { op: "watch_names", act: async (s) => (await s.vmci.discovery.wait("region")).context },
  "discovery.wait, its end": { op: "unwatch_names", act: async (s) => (await s.vmci.discovery.wait("region")).context },
  "events": { op: "subscribe", act: (s) => void s.vmci.events() },
};

/** What must be as it was in any case, and goes on: called after the fault. */
async function assertWhole({ host, guest }: SetScene): Promise<void> {
  for (const player of [host, guest]) await player.run((s) => s.vmci.discovery.lookup("vmci public group"));
}

async function faulted(
  directory: FabricDirectory,
  host: Player,
  guest: Player,
  { op, prepare, act, by = "guest" }: Case,
  nth: number,
  blow: Blow,
  timeout?: number,
) {
  await using broker = new Player({ program: "fragile_broker.ts", args: [directory.path, op, String(nth), blow] });
  await broker.heard("serving");
  await using set = await SetScene.make(directory, host, guest, timeout);
  const actor = by === "host" ? host : guest;
  if (prepare !== undefined) await actor.run(prepare, set.scene);
  let outcome: unknown;
  try {
    outcome = ["ok", await actor.run(act, set.scene)];
  } catch (error) {
    outcome = (error as { code?: string }).code ?? String(error);
  }
  return { broker, outcome, set };
}

Deno.test("the broker dies after every step of every request", async () => {
  await using directory = new FabricDirectory();
  await using host = new Player();
  await using guest = new Player();
  const given = new Set<string>();
  let count = 0;
  for (const [name, one] of Object.entries(cases)) { if (one.skip) continue;
    const { op, prepare, act, by = "guest" } = one;
    let reference: { outcome: unknown; state: string[] } | undefined;
    const results: [number, unknown, string[]][] = [];
    for (let nth = 0;; nth++) {
      await using broker = new Player({ program: "fragile_broker.ts", args: [directory.path, op, String(nth), "SIGKILL"] });
      await broker.heard("serving");
      await using set = await SetScene.make(directory, host, guest);
      for (const handle of Object.values(set.scene)) {
        const text = JSON.stringify(handle);
        if (given.has(text)) throw new Error(`${text} was given twice`);
        given.add(text);
      }
      const actor = by === "host" ? host : guest;
      if (prepare !== undefined) await actor.run(prepare, set.scene);
      await actor.run((s, socket) => s.raw(socket).ask("arm", {}), directory.socket);
      let outcome: unknown;
      try {
        outcome = ["ok", await actor.run(act, set.scene)];
      } catch (error) {
        outcome = (error as { code?: string }).code ?? String(error);
      }
      const survived = await broker.nextLine() === "survived";
      await assertWhole(set);
      const state = await host.run(lookAtAll, directory.socket);
      count++;
      if (survived) {
        reference = { outcome, state };
        break;
      }
      results.push([nth, outcome, state]);
    }
    for (const [nth, outcome, state] of results) {
      const missing = reference!.state.filter((it) => !state.includes(it));
      const surplus = state.filter((it) => !reference!.state.includes(it));
      if (missing.length + surplus.length > 0 || JSON.stringify(outcome) !== JSON.stringify(reference!.outcome)) console.log(`## ${name} after ${nth}:`, outcome, reference!.outcome, { missing, surplus });
    }
    console.log(name, results.length);
  }
  console.log(count);
  assertEquals(host.complaints + guest.complaints, "");
});
void faulted; void (0 as unknown as Handle);

/**
 * A fabric in which something of every kind is in use, and a look at all that its broker knows.
 *
 * @module
 */

import type { Handle } from "../../../mod.ts";
import { FabricDirectory, Player } from "./player.ts";
import type { Stage } from "./stage.ts";

/** What the scene has. */
export interface Scene {
  /** Of the host. */
  readonly endpoint: Handle;
  readonly region: Handle;
  readonly group: Handle;
  /** Of the guest. */
  readonly guestEndpoint: Handle;
}

/** The host joins and makes its half: an endpoint and a region that the guest may use, and a group it is in. */
export async function setHost(s: Stage, device: string, timeout: number): Promise<Omit<Scene, "guestEndpoint">> {
  await s.open({ device, timeout });
  const { vmci, lib } = s;
  s.endpoint = vmci.datagrams.create();
  s.region = vmci.sharedMemory.create(4096);
  s.group = vmci.access.createGroup();
  for (const [name, { handle }] of [["host", s.endpoint], ["region", s.region]] as const) {
    vmci.discovery.register(name, handle);
  }
  const guest = lib.contextHandle(16);
  const all = ["CH_PRIV", "DESTROY_RESOURCE"] as const;
  vmci.access.addClientPrivileges(s.endpoint.handle, guest, { allow: [...all, "DG_SEND"] });
  vmci.access.addClientPrivileges(s.region.handle, guest, { allow: ["SM_ATTACH"] });
  vmci.access.addClientPrivileges(s.group.handle, guest, { allow: [...all, "ASSIGN_CLIENT"] });
  return { endpoint: s.endpoint.handle, region: s.region.handle, group: s.group.handle };
}

/** The guest joins, attaches twice, and sends one datagram that is not received yet. */
export async function setGuest(
  s: Stage,
  device: string,
  host: Omit<Scene, "guestEndpoint">,
  timeout: number,
): Promise<Handle> {
  await s.open({ device, timeout, contextId: 16 });
  const { vmci, lib } = s;
  s.endpoint = vmci.datagrams.create();
  vmci.discovery.register("guest", s.endpoint.handle);
  vmci.access.addClientPrivileges(s.endpoint.handle, lib.contextHandle(2), { allow: ["DG_SEND"] });
  vmci.access.joinGroup(host.group);
  s.regions.splice(0);
  s.endpoints.splice(0);
  s.region = vmci.sharedMemory.attach(host.region);
  s.regions.push(s.region, vmci.sharedMemory.attach(host.region));
  s.endpoint.sendTo(host.endpoint, new Uint8Array([1]));
  return s.endpoint.handle;
}

/** A fabric with that scene in two processes; the broker is whoever came first. */
export class SetScene implements AsyncDisposable {
  private constructor(
    readonly directory: FabricDirectory,
    readonly host: Player,
    readonly guest: Player,
    readonly scene: Scene,
  ) {}

  /** `patience` says how long the calls of each may take, in milliseconds. */
  static async make(
    directory: FabricDirectory,
    host: Player,
    guest: Player,
    patience: (player: Player) => number = () => 20_000,
  ): Promise<SetScene> {
    const half = await host.run(setHost, directory.path, patience(host));
    const guestEndpoint = await guest.run(setGuest, directory.path, half, patience(guest));
    return new SetScene(directory, host, guest, { ...half, guestEndpoint });
  }

  /** Everybody leaves. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest.run((s) => s.leave());
    await this.host.run((s) => s.leave());
  }
}

/** What a broker knows, as text that is the same for the same state whatever the numbers in it are. */
export function lookAtAll(s: Stage, socket: string): string[] {
  const raw = s.raw(socket);
  try {
    raw.hello({ observer: true });
    const rows: string[] = [];
    const numbers = new Map<number, string>();
    const listed = (topic: string) => {
      const entries: Record<string, unknown>[] = [];
      for (let after: number | null = 0; after !== null;) {
        const reply = raw.ask("inspect", { topic, after });
        if (reply.result === undefined) throw new Error(`inspect: ${reply.code}: ${reply.reason}`);
        entries.push(...reply.result.entries as Record<string, unknown>[]);
        after = reply.result.next as number | null;
      }
      return entries;
    };
    const show = (topic: string, entry: Record<string, unknown>) => {
      const text = JSON.stringify(entry, (key, value) => {
        if (key === "pid" || key === "receiver") return typeof value === "number" ? "alive" : value;
        // What was granted on a region that nobody can attach to any more is of no interest.
        if (key === "grants" && entry.pid === null) return 0;
        if (key === "processes") return (value as unknown[]).length;
        if (key === "resource" && typeof value === "number" && value > 1024) return numbers.get(value) ?? "unknown";
        return value;
      });
      rows.push(`${topic} ${text}`);
    };
    const resources = listed("resources");
    // Resources are made in a fixed order, so their numbers, sorted, can be replaced by their ranks.
    const known = resources.map(({ handle }) => (handle as Handle).resource).filter((it) => it > 1024).sort((a, b) =>
      a - b
    );
    for (const [rank, number] of known.entries()) numbers.set(number, `#${rank}`);
    for (const entry of resources) show("resource", entry);
    for (const topic of ["contexts", "attachments", "lanes"]) for (const entry of listed(topic)) show(topic, entry);
    const names = raw.ask("list", { prefix: "", after: null }).result!.entries as Record<string, unknown>[];
    for (const entry of names) show("name", entry);
    return rows.sort();
  } finally {
    raw.close();
    s.raws.splice(s.raws.indexOf(raw), 1);
  }
}

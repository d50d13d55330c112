/**
 * Everything that can be opened is opened and closed a hundred thousand times under a daemon, or as often as there is time;
 * with `--all` so often whatever time that takes. Descriptors, mappings and memory are counted before and after at both
 * ends, and so is all the broker can say of itself.
 */

import { assert, assertEquals } from "@std/assert";
import { openVmci, type Vmci } from "../../mod.ts";
import { inspect, listNames, observe } from "../../src/cli/inspect.ts";
import "../ffi/support.ts";
import { dropAll } from "../support/dropped.ts";
import { failsSync } from "../support/failure.ts";
import { House } from "../support/house.ts";
import { type Figures, left, type SoakOptions, type SoakPiece } from "./piece.ts";

const TIMES = 100_000;
/** Milliseconds that a call may take: among a million of them some meet a machine that is busy with something else. */
const PATIENCE = 60_000;
/** More closings than mappings linger after they were closed. */
const WARM_UP = 2_000;
/** How much a process' memory may differ for what the collectors have not given back: some hundred bytes each time. */
const SLACK = 64 * 2 ** 20;
/** After so many times the collectors have made their heaps as large as they want them. */
const FIRST_WARM_UP = 10_000;
const DROPPED_AT_ONCE = 250;
const DROPPED = 10_000;

const collect = (globalThis as unknown as { gc?: () => void }).gc;

/** What a process holds of the kernel. */
function kernelsView(pid: number | "self"): { readonly descriptors: number; readonly mappings: number } {
  const maps = Deno.readTextFileSync(`/proc/${pid}/maps`).split("\n").filter((line) => line.includes("memfd:vmci"));
  return { descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length, mappings: maps.length };
}

/** What this process holds for its program; how much its heap keeps in reserve beside that is the collector's affair. */
function heapBytes(collect: () => void): number {
  collect();
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}

function residentBytes(pid: number): number {
  const [, kilobytes] = /VmRSS:\s+(\d+) kB/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))!;
  return Number(kilobytes) * 1024;
}

interface Scene {
  readonly host: Vmci;
  readonly guest: Vmci;
  readonly device: string;
  readonly turn: number;
}

const bytes = new Uint8Array(8);

/** Each opens and closes one thing, and what hangs on it. */
const OBJECTS: Readonly<Record<string, (scene: Scene) => unknown>> = {
  openVmci: async ({ device }) => (await openVmci({ device, contextId: 17, timeout: PATIENCE })).close(),
  endpoint: ({ host }) => host.datagrams.create().close(),
  "well-known endpoint": ({ host, turn }) => host.datagrams.create({ wellKnown: 5000 + turn % 7 }).close(),
  lane: ({ host, guest }) => {
    using to = host.datagrams.create();
    using from = guest.datagrams.create();
    host.access.addClientPrivileges(to.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    from.sendTo(to.handle, bytes);
    assertEquals(to.receiveSync(5000).payload.length, bytes.length);
  },
  "region that everybody writes": ({ host, guest }) => openRegion(host, guest, "everybody"),
  "region that its creator writes": ({ host, guest }) => openRegion(host, guest, "creator"),
  group: ({ host, guest }) => {
    using group = host.access.createGroup();
    group.add(guest.contextId);
  },
  name: ({ host, guest }) => {
    using group = host.access.createGroup();
    host.discovery.register("soak", group.handle);
    assertEquals(guest.discovery.lookup("soak"), group.handle);
    host.discovery.unregister("soak");
  },
  watch: async ({ host, guest }) => {
    using group = host.access.createGroup();
    const changes = guest.discovery.watch("soak");
    host.discovery.register("soaked", group.handle);
    assertEquals((await changes.next()).value?.name, "soaked");
    await changes.return?.();
  },
  "event iterator": async ({ host }) => {
    await host.events().return?.();
  },
  "wait for a datagram": async ({ host, turn }) => {
    using endpoint = host.datagrams.create();
    if (turn % 2 === 0) {
      failsSync("TIMEOUT", () => endpoint.receiveSync(0.001));
      return;
    }
    const stop = new AbortController();
    const waiting = endpoint.receive({ signal: stop.signal });
    stop.abort();
    await waiting.then(() => assert(false), (error) => assertEquals(error, stop.signal.reason));
  },
  "wait for a region": async ({ host }) => {
    using region = host.sharedMemory.create(4096);
    const waiting = region.waitUntil(() => region.bytes[0] === 1);
    region.bytes[0] = 1;
    region.notify();
    await waiting;
  },
};

function openRegion(host: Vmci, guest: Vmci, writers: "everybody" | "creator"): void {
  using region = host.sharedMemory.create(8192, { writers });
  host.access.addClientPrivileges(region.handle, host.access.publicGroup, { allow: ["SM_ATTACH"] });
  using attached = guest.sharedMemory.attach(region.handle);
  region.bytes[8191] = 7;
  assertEquals(attached.bytes[8191], 7);
}

/** See the module's comment. */
export const leaks: SoakPiece = {
  name: "leaks",
  share: 12,
  async run(options: SoakOptions): Promise<Figures> {
    assert(collect !== undefined, "run with --v8-flags=--expose-gc, as the task does");
    await using house = await House.serving();
    const device = house.main;
    const { pid } = house.daemon;
    const figures: Record<string, number> = {};
    const watching = await observe(device);
    await using _ = { [Symbol.asyncDispose]: () => watching.close() };
    await using host = await openVmci({ device, timeout: PATIENCE });
    await using guest = await openVmci({ device, contextId: 16, timeout: PATIENCE });
    const brokersView = () => [
      ...(["contexts", "resources", "attachments", "lanes"] as const).map((topic) => inspect(watching, topic)),
      listNames(watching),
    ];
    const all = Object.entries(OBJECTS);
    for (let turn = 0; turn < FIRST_WARM_UP; turn++) await OBJECTS["openVmci"]!({ host, guest, device, turn });
    for (const [i, [name, once]] of all.entries()) {
      const until = Date.now() + left(options) / (all.length + 1 - i);
      const scene = (turn: number) => ({ host, guest, device, turn });
      for (let turn = 0; turn < WARM_UP; turn++) await once(scene(turn));
      const look = () => {
        collect();
        // The broker answers before it gives back what it does not need any more.
        for (let times = 0; times < 2; times++) listNames(watching);
        return { here: kernelsView("self"), daemon: kernelsView(pid), broker: brokersView() };
      };
      const before = look();
      const memory = [heapBytes(collect), residentBytes(pid)];
      let turn = 0;
      while (turn < TIMES && (turn % 100 !== 0 || turn < WARM_UP || options.all || Date.now() < until)) {
        await once(scene(turn++));
        // What is closed is let go when the event loop turns.
        if (turn % 100 === 0) await new Promise((resolve) => setTimeout(resolve));
      }
      assertEquals(look(), before, `what is held after ${turn} times ${name}`);
      const grown = [heapBytes(collect) - memory[0]!, residentBytes(pid) - memory[1]!];
      for (const [at, more] of grown.entries()) {
        assert(
          more < SLACK,
          `${at === 0 ? "this process" : "the daemon"} has ${more} bytes more after ${turn} ${name}`,
        );
      }
      figures[`opened and closed, of ${TIMES.toLocaleString("en")}: ${name}`] = turn;
      // It takes long: what was done is said even if what comes after it fails.
      if (options.all) console.error(`${turn} of ${TIMES}: ${name}`);
    }
    const before = brokersView();
    let reported = 0;
    while (reported < DROPPED && (reported === 0 || options.all || left(options) > 0)) {
      reported += await dropAll(host, DROPPED_AT_ONCE);
    }
    assertEquals(brokersView(), before, "what was dropped is gone");
    figures[`dropped, reclaimed and reported once, of ${DROPPED.toLocaleString("en")}`] = reported;
    return { cases: all.length + 1, ...figures };
  },
};

/** Nothing is left of ten thousand of anything: no descriptor, no mapping, nothing in the broker. */

import { assert, assertEquals } from "@std/assert";
import { openVmci, type Vmci } from "../mod.ts";
import "./ffi/support.ts";
import { dropAll } from "./support/dropped.ts";
import { makeRunDirectory } from "./support/media.ts";

const TIMES = 10_000;

const THREADS = 50;

const DROPPED = 200;

/** More closings than mappings linger after they were closed. */
const WARM_UP = 1_200;

const collect = (globalThis as unknown as { gc?: () => void }).gc;

/** What this process, the broker's thread included, holds of the kernel. */
function held(): { readonly descriptors: number; readonly mappings: number } {
  const mappings = Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes("memfd:vmci"));
  return { descriptors: [...Deno.readDirSync("/proc/self/fd")].length, mappings: mappings.length };
}

/** The same, when the broker has given back what it does not need any more: it answers before it does that. */
function heldWith(host: Vmci): ReturnType<typeof held> {
  collect!();
  for (let times = 0; times < 2; times++) host.discovery.list("none");
  return held();
}

/** Runs something very often between two looks at what is held. */
async function leavesNothing(host: Vmci, once: () => void | Promise<void>): Promise<void> {
  assert(collect !== undefined, "run with --v8-flags=--expose-gc, as the test task does");
  for (let i = 0; i < WARM_UP; i++) await once();
  const before = heldWith(host);
  for (let i = 0; i < TIMES; i++) await once();
  assertEquals(heldWith(host), before, `what ${host.device} holds after ${TIMES} times`);
}

async function inFabric(test: (host: Vmci, guest: Vmci, device: string) => Promise<void>): Promise<void> {
  const device = await makeRunDirectory();
  {
    await using host = await openVmci({ device });
    await using guest = await openVmci({ device, contextId: 16 });
    await test(host, guest, device);
  }
  await Deno.remove(device, { recursive: true });
}

Deno.test("leaks: opening and closing", () =>
  inFabric(async (host, _guest, device) => {
    await leavesNothing(host, async () => (await openVmci({ device, contextId: 17 })).close());
  }));

Deno.test("leaks: starting and ending the broker's thread", async () => {
  const device = await makeRunDirectory();
  const cycle = async () => {
    await using _vmci = await openVmci({ device });
  };
  await cycle();
  const before = held();
  for (let i = 0; i < THREADS; i++) await cycle();
  // Deno gives a thread's own descriptors back a moment after it has said that the thread ended: those of the last few
  // may still be there, but not one of each.
  assert(held().descriptors - before.descriptors < THREADS);
  assertEquals(held().mappings, before.mappings);
  await Deno.remove(device, { recursive: true });
});

Deno.test("leaks: endpoints, and lanes between them", () =>
  inFabric(async (host, guest) => {
    await leavesNothing(host, () => {
      using to = host.datagrams.create();
      using from = guest.datagrams.create();
      host.access.addClientPrivileges(to.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
      from.sendTo(to.handle, new Uint8Array(8));
      assertEquals(to.tryReceive()?.payload.length, 8);
    });
  }));

Deno.test("leaks: regions of both kinds, and attachments to them", () =>
  inFabric(async (host, guest) => {
    let turn = 0;
    await leavesNothing(host, () => {
      using region = host.sharedMemory.create(8192, { writers: turn++ % 2 === 0 ? "creator" : "everybody" });
      host.access.addClientPrivileges(region.handle, host.access.publicGroup, { allow: ["SM_ATTACH"] });
      using attached = guest.sharedMemory.attach(region.handle);
      region.bytes[8191] = 7;
      assertEquals(attached.bytes[8191], 7);
    });
  }));

Deno.test("leaks: groups and names", () =>
  inFabric(async (host, guest) => {
    await leavesNothing(host, () => {
      using group = host.access.createGroup();
      group.add(guest.contextId);
      host.discovery.register("group", group.handle);
    });
    assertEquals(host.discovery.list("group"), []);
  }));

Deno.test("leaks: what is dropped is reclaimed, and reported once", () =>
  inFabric(async (host) => {
    await dropAll(host, DROPPED);
    const before = heldWith(host);
    await dropAll(host, DROPPED);
    assertEquals(heldWith(host), before);
  }));

/**
 * Makes and ends a thousand of anything and says what is left; with the path of the C library alone.
 *
 *     deno run --allow-ffi=/lib/x86_64-linux-gnu/libc.so.6 --v8-flags=--expose-gc leak_without_pointers.ts DEVICE
 *
 * @module
 */

import { readText } from "../../ffi/file.ts";
import { listDirectory } from "../../ffi/path.ts";
import { openVmci, type Vmci } from "../../mod.ts";

const { gc } = globalThis as unknown as { gc(): void };
const device = Deno.args[0]!;

/** More closings than windows linger after they were closed. */
const WARM_UP = 1_200;
const TIMES = 1_000;

/** What this process holds of the kernel: descriptors, shared mappings, and mappings altogether. */
function held(): readonly [number, number, number] {
  const lines = readText("/proc/self/maps", 1 << 22).split("\n");
  return [listDirectory("/proc/self/fd").length, lines.filter((it) => it.includes("memfd:vmci")).length, lines.length];
}

/** The same, when the broker has given back what it does not need any more: it answers before it does that. */
function heldWith(host: Vmci): ReturnType<typeof held> {
  gc();
  for (let times = 0; times < 2; times++) host.discovery.list("none");
  return held();
}

async function leavesNothing(host: Vmci, what: string, once: () => void | Promise<void>): Promise<void> {
  for (let i = 0; i < WARM_UP; i++) await once();
  const before = heldWith(host);
  for (let i = 0; i < TIMES; i++) await once();
  const after = heldWith(host);
  // The engine's own heap comes and goes; a window each time would be a thousand.
  const same = before[0] === after[0] && before[1] === after[1] && after[2] - before[2] < TIMES / 4;
  if (!same) console.log(`${what}: ${before} before, ${after} after`);
}

{
  await using host = await openVmci({ device });
  await using guest = await openVmci({ device, contextId: 16 });
  const target = guest.datagrams.create();
  guest.access.addClientPrivileges(target.handle, { context: 2, resource: 0 }, { allow: ["DG_SEND"] });

  await leavesNothing(host, "regions", () => {
    const region = host.sharedMemory.create(5000, { writers: "creator" });
    host.access.addClientPrivileges(region.handle, { context: 16, resource: 0 }, { allow: ["SM_ATTACH"] });
    const attached = guest.sharedMemory.attach(region.handle);
    attached.detach();
    region.detach();
  });
  await leavesNothing(host, "endpoints with lanes", () => {
    using endpoint = host.datagrams.create();
    endpoint.sendTo(target.handle, new Uint8Array(64));
    target.receiveSync();
  });
  await leavesNothing(host, "sessions", async () => (await openVmci({ device, contextId: 17 })).close());
}
console.log("nothing");

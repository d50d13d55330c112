/**
 * Our control operations, by a process that does not hold the broker.
 *
 * @module
 */

import { contextHandle, type Handle, openVmci, type Vmci } from "../../mod.ts";
import { summarize, type Summary } from "../../src/cli/bench_measure.ts";
import { type Job, payloadOf, say, stay } from "./part.ts";

/** Holds the broker, and has what the other party uses. */
export async function holder({ directory, count }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  const region = vmci.sharedMemory.create(4096);
  const endpoints = Array.from({ length: count }, () => vmci.datagrams.create());
  vmci.discovery.register("bench", endpoints[0]!.handle);
  say({ region: region.handle, endpoints: endpoints.map(({ handle }) => handle) });
  await stay(region, endpoints);
}

/** Measures how long the first `openVmci` of this process takes. */
export async function open({ directory }: Job): Promise<void> {
  const start = performance.now();
  const vmci = await openVmci({ device: directory });
  const took = performance.now() - start;
  await vmci[Symbol.asyncDispose]();
  say(took * 1e6);
}

/** Measures every other operation. */
export async function operations({ directory, ready, count }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  const region = ready.region as Handle;
  const endpoints = ready.endpoints as readonly Handle[];
  const results: Record<string, Summary> = tableOf(vmci, region, count);
  results["open-again"] = await opens(directory, count);
  // Each first datagram to a destination opens a lane.
  using endpoint = vmci.datagrams.create();
  const payload = payloadOf(64);
  let next = 0;
  results["first-send"] = timed(
    Math.floor(endpoints.length / 1.25),
    () => endpoint.sendTo(endpoints[next++]!, payload),
  );
  say(results);
}

/** The operations that leave nothing behind. */
function tableOf(vmci: Vmci, region: Handle, count: number): Record<string, Summary> {
  const { datagrams, sharedMemory, discovery, access } = vmci;
  using own = datagrams.create();
  const client = contextHandle(16);
  return {
    "lookup": timed(count, () => discovery.lookup("bench")),
    "create-destroy": timed(count, () => datagrams.create().close()),
    "create": created(count, vmci),
    "attach-detach": timed(count, () => sharedMemory.attach(region).detach()),
    "region-create-destroy": timed(count, () => sharedMemory.create(4096).detach()),
    "grant": timed(count, () => access.addClientPrivileges(own.handle, client, { allow: ["DG_SEND"] })),
    "register": registered(count, vmci, own.handle),
  };
}

/** The first quarter of the times does not count. */
function timed(count: number, once: () => void, after?: () => void): Summary {
  const warm = count >> 2;
  const samples = new Float64Array(count);
  for (let i = -warm; i < count; i++) {
    const start = performance.now();
    once();
    const took = performance.now() - start;
    if (i >= 0) samples[i] = took * 1e6;
    after?.();
  }
  return summarize(samples);
}

function created(count: number, { datagrams }: Vmci): Summary {
  let last = datagrams.create();
  last.close();
  return timed(count, () => last = datagrams.create(), () => last.close());
}

function registered(count: number, { discovery }: Vmci, handle: Handle): Summary {
  return timed(count, () => discovery.register("bench again", handle), () => discovery.unregister("bench again"));
}

async function opens(directory: string, count: number): Promise<Summary> {
  const samples: number[] = [];
  for (let i = -5; i < count / 4; i++) {
    const start = performance.now();
    const vmci = await openVmci({ device: directory });
    const took = performance.now() - start;
    if (i >= 0) samples.push(took * 1e6);
    await vmci[Symbol.asyncDispose]();
  }
  return summarize(samples);
}

/**
 * Our control operations, by a process that does not hold the broker.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { contextHandle, type DatagramEndpoint, type Handle, openVmci, type Vmci } from "../../mod.ts";
import { summarize, type Summary } from "../../src/cli/bench_measure.ts";
import { type Job, payloadOf, type Ready, say, stay } from "./part.ts";

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

/** Measures how long Deno takes for a thread that does nothing, of the kind that the broker runs in. */
export async function thread(): Promise<void> {
  const script = 'data:text/javascript,import{parentPort}from"node:worker_threads";parentPort.postMessage(0)';
  const start = performance.now();
  const worker = new Worker(new URL(script), { env: {} });
  await new Promise((resolve) => worker.once("message", resolve));
  const took = performance.now() - start;
  await worker.terminate();
  say(took * 1e6);
}

/** A fabric as this process has it. */
interface Fabric {
  readonly directory: string;
  readonly vmci: Vmci;
  /** What its holder has. */
  readonly region: Handle;
  readonly endpoints: readonly Handle[];
}

/** Where a fabric is, and what its holder said. */
export interface Place {
  readonly directory: string;
  readonly ready: Ready;
}

/** Measures every other operation, on each of some fabrics in turn, so that all have the same moments. */
export async function operations({ ready, count }: Job): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const fabrics: Fabric[] = [];
  for (const { directory, ready: { region, endpoints } } of ready.places as readonly Place[]) {
    const vmci = stack.use(await openVmci({ device: directory }));
    fabrics.push({ directory, vmci, region: region as Handle, endpoints: endpoints as readonly Handle[] });
  }
  say({
    ...lasting(fabrics, count),
    "open-again": await opens(fabrics, count >> 2),
    "first-send": firstSends(fabrics),
  });
}

/** The operations that leave nothing behind. */
function lasting(fabrics: readonly Fabric[], count: number): Record<string, Summary[]> {
  const each = (once: (fabric: Fabric) => () => void, after?: (fabric: Fabric) => () => void) =>
    timed(count, fabrics.map(once), after === undefined ? undefined : fabrics.map(after));
  const client = contextHandle(16);
  using stack = new DisposableStack();
  const own = new Map(fabrics.map((fabric) => [fabric, stack.use(fabric.vmci.datagrams.create())]));
  const last = new Map<Fabric, DatagramEndpoint>();
  return {
    "lookup": each(({ vmci }) => () => vmci.discovery.lookup("bench")),
    "create-destroy": each(({ vmci }) => () => vmci.datagrams.create().close()),
    "create": each(
      (fabric) => () => last.set(fabric, fabric.vmci.datagrams.create()),
      (fabric) => () => last.get(fabric)!.close(),
    ),
    "attach-detach": each(({ vmci, region }) => () => vmci.sharedMemory.attach(region).detach()),
    "region-create-destroy": each(({ vmci }) => () => vmci.sharedMemory.create(4096).detach()),
    "grant": each((fabric) => {
      const { handle } = own.get(fabric)!;
      return () => fabric.vmci.access.addClientPrivileges(handle, client, { allow: ["DG_SEND"] });
    }),
    "register": each(
      (fabric) => () => fabric.vmci.discovery.register("bench again", own.get(fabric)!.handle),
      ({ vmci }) => () => vmci.discovery.unregister("bench again"),
    ),
  };
}

/** Each first datagram to a destination opens a lane. */
function firstSends(fabrics: readonly Fabric[]): Summary[] {
  using stack = new DisposableStack();
  const payload = payloadOf(64);
  const senders = fabrics.map(({ vmci, endpoints }) => {
    const endpoint = stack.use(vmci.datagrams.create());
    let next = 0;
    return () => endpoint.sendTo(endpoints[next++]!, payload);
  });
  return timed(Math.floor(fabrics[0]!.endpoints.length / 2), senders);
}

/** As many times as count, and as many again before: for the engines on both sides to have compiled it. */
function timed(count: number, all: readonly (() => void)[], after?: readonly (() => void)[]): Summary[] {
  const samples = all.map((): number[] => []);
  for (let i = -count; i < count; i++) {
    for (const [j, once] of all.entries()) {
      const start = performance.now();
      once();
      const took = performance.now() - start;
      if (i >= 0) samples[j]!.push(took * 1e6);
      after?.[j]?.();
    }
  }
  return samples.map(summarize);
}

async function opens(fabrics: readonly Fabric[], count: number): Promise<Summary[]> {
  const samples = fabrics.map((): number[] => []);
  for (let i = -count; i < count; i++) {
    for (const [j, { directory }] of fabrics.entries()) {
      const start = performance.now();
      const vmci = await openVmci({ device: directory });
      const took = performance.now() - start;
      if (i >= 0) samples[j]!.push(took * 1e6);
      await vmci[Symbol.asyncDispose]();
    }
  }
  return samples.map(summarize);
}

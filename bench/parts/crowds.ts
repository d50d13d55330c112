/**
 * A fabric with much in it: what that costs, how fair it is, and what it does while nothing happens.
 *
 * @module
 */

import { contextHandle, type DatagramEndpoint, FIRST_VM_CONTEXT, type Handle, openVmci, type Vmci } from "../../mod.ts";
import { type Job, PATIENCE, payloadOf, say, stay, told } from "./part.ts";

/** Privilege entries are put on so many resources. */
const GRANTED = 100;

/**
 * Holds the broker of a fabric with `count` contexts, 10 times as many handles and names, and 100 times as many
 * privilege entries, and what `control.ts` uses.
 */
export async function crowd({ directory, count, size }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  const region = vmci.sharedMemory.create(4096);
  const endpoints = Array.from({ length: size }, () => vmci.datagrams.create());
  vmci.discovery.register("bench", endpoints[0]!.handle);
  const contexts: Vmci[] = [];
  for (let i = 0; i < count; i++) {
    contexts.push(await openVmci({ device: directory, contextId: FIRST_VM_CONTEXT + i }));
  }
  const handles = Array.from({ length: 10 * count }, () => vmci.datagrams.create());
  for (const [i, { handle }] of handles.entries()) vmci.discovery.register(`name ${i}`, handle);
  for (let i = 0; i < Math.min(GRANTED, 100 * count); i++) {
    for (let j = 0; j < count; j++) {
      const client = contextHandle(FIRST_VM_CONTEXT + j);
      vmci.access.addClientPrivileges(handles[i]!.handle, client, { allow: ["DG_SEND"] });
    }
  }
  say({ region: region.handle, endpoints: endpoints.map(({ handle }) => handle) });
  await stay(region, endpoints, contexts, handles);
}

/** Holds a broker and nothing else. */
export async function broker({ directory }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  const endpoint = vmci.datagrams.create();
  const region = vmci.sharedMemory.create(4096);
  say({ handle: endpoint.handle, region: region.handle });
  await stay(endpoint, region);
}

/** Makes `count` things of one kind when it is told to, and says when they are there. */
export async function maker({ directory, variant, count, ready, size }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  const kept: unknown[] = [];
  using endpoint = vmci.datagrams.create();
  const destination = ready.handle as Handle;
  const makers: Record<string, (i: number) => unknown> = {
    handle: () => vmci.datagrams.create(),
    name: (i) => vmci.discovery.register(`name ${i}`, endpoint.handle),
    privilege: (i) => {
      const client = contextHandle(FIRST_VM_CONTEXT + i);
      return vmci.access.addClientPrivileges(endpoint.handle, client, { allow: ["DG_SEND"] });
    },
    attachment: () => vmci.sharedMemory.attach(ready.region as Handle),
    lane: () => {
      const source = vmci.datagrams.create();
      source.sendTo(destination, payloadOf(size));
      return source;
    },
  };
  // What all of them need is there before the first one counts.
  for (let i = 0; i < 16; i++) kept.push(makers[variant]!(count + i));
  say({});
  await told();
  for (let i = 0; i < count; i++) kept.push(makers[variant]!(i));
  say({});
  await stay(kept, endpoint);
}

/** Waits for a timer. */
export async function waiter(): Promise<void> {
  say({});
  await stay();
}

/** Receives into many endpoints, all of them parked. */
export async function parked({ directory, count }: Job): Promise<void> {
  const vmci = await openVmci({ device: directory });
  const endpoints = Array.from({ length: count }, () => vmci.datagrams.create());
  say({ handle: endpoints[0]!.handle });
  await Promise.all([stay(vmci, endpoints), ...endpoints.map((it) => it.receive())]);
}

/** Sends from `count` endpoints to one, each in turn as long as there is room for it. */
export async function many({ directory, count, size, ready, spin }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory, spin });
  const destination = ready.handle as Handle;
  const sources: DatagramEndpoint[] = Array.from({ length: count }, () => vmci.datagrams.create());
  const payload = payloadOf(size);
  using ears = vmci.datagrams.create();
  say({ handle: ears.handle });
  const end = performance.now() + PATIENCE;
  const buffer = new Uint8Array(64);
  while (performance.now() < end && ears.tryReceiveInto(buffer) === undefined) {
    for (const source of sources) {
      for (let i = 0; i < 64 && source.hasRoom(destination, size); i++) source.sendTo(destination, payload);
    }
  }
}

/** Counts what comes from each source: datagrams a second, and the most and the least that one had of an equal share. */
export async function shares({ directory, span, spin }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory, spin });
  using endpoint = vmci.datagrams.create();
  say({ handle: endpoint.handle });
  const buffer = new Uint8Array(65536);
  // By the last bits of the number: those of sources made in a row differ. A Map would be as dear as a datagram.
  const counts = new Float64Array(65536);
  const warm = performance.now() + span.warmup;
  let start = Infinity;
  let count = 0;
  while (true) {
    for (let i = 0; i < 256; i++) {
      endpoint.receiveIntoSync(buffer, PATIENCE);
      counts[endpoint.source.resource & 0xffff]!++;
    }
    count += 256;
    const at = performance.now();
    if (at >= start + span.duration) {
      const heard = counts.filter((it) => it > 0);
      const each = heard.map((it) => it * heard.length / count);
      say({
        rate: count / ((at - start) / 1000),
        sources: heard.length,
        least: Math.min(...each),
        most: Math.max(...each),
      });
      endpoint.sendTo(endpoint.source, new Uint8Array(1));
      return;
    }
    if (at < warm || start !== Infinity) continue;
    start = at;
    count = 0;
    counts.fill(0);
  }
}

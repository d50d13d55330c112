/**
 * Our datagrams between two processes.
 *
 * @module
 */

import { type DatagramEndpoint, type Handle, MAX_PAYLOAD_SIZE, openVmci, type Vmci } from "../../mod.ts";
import { sampleAsync, sampleSync, summarize } from "../../src/cli/bench_measure.ts";
import { type Job, PATIENCE, payloadOf, say, sleep, STOP } from "./part.ts";

function join({ directory, spin }: Job): Promise<Vmci> {
  return openVmci({ device: directory, spin });
}

/** Receives into a buffer of its own, without turning the event loop. */
function receiverOf(variant: string, endpoint: DatagramEndpoint, buffer: Uint8Array): () => number {
  if (variant !== "try") return () => endpoint.receiveIntoSync(buffer, PATIENCE);
  return () => {
    for (let looks = 0;; looks++) {
      const size = endpoint.tryReceiveInto(buffer);
      if (size !== undefined) return size;
      if (looks > 1e9) throw new Error("Nothing came");
    }
  };
}

/** Sends back what comes. */
export async function echo(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  say({ handle: endpoint.handle });
  const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  const reply = buffer.subarray(0, job.size);
  if (job.variant === "await") {
    while (true) {
      const { source, payload } = await endpoint.receive();
      if (payload[0] === STOP) return;
      endpoint.sendTo(source, payload);
    }
  } else if (job.variant === "await-into") {
    while (true) {
      await endpoint.receiveInto(buffer);
      if (buffer[0] === STOP) return;
      endpoint.sendTo(endpoint.source, reply);
    }
  } else {
    const receive = receiverOf(job.variant, endpoint, buffer);
    while (true) {
      receive();
      if (buffer[0] === STOP) return;
      endpoint.sendTo(endpoint.source, reply);
    }
  }
}

/** Measures round trips. */
export async function roundTrips(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  const server = job.ready.handle as Handle;
  const payload = payloadOf(job.size);
  const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  const { variant, span, idle } = job;
  const before = idle > 0 ? () => sleep(idle) : undefined;
  if (variant === "await") {
    say(summarize(
      await sampleAsync(
        () => {
          endpoint.sendTo(server, payload);
          return endpoint.receive();
        },
        span,
        before,
      ),
    ));
  } else if (variant === "await-into") {
    say(summarize(
      await sampleAsync(
        () => {
          endpoint.sendTo(server, payload);
          return endpoint.receiveInto(buffer);
        },
        span,
        before,
      ),
    ));
  } else {
    const receive = receiverOf(variant, endpoint, buffer);
    const once = () => {
      endpoint.sendTo(server, payload);
      receive();
    };
    const samples = before === undefined
      ? sampleSync(once, span)
      : await sampleAsync(() => Promise.resolve(once()), span, before);
    say(summarize(samples));
  }
  endpoint.sendTo(server, payloadOf(job.size).fill(STOP));
}

/** Sends as fast as the receiver reads, size after size; a datagram of one byte says that the next size comes. */
export async function pour(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  const receiver = job.ready.handle as Handle;
  say({ handle: endpoint.handle });
  const told = new Uint8Array(64);
  for (const size of job.sizes) {
    const payload = payloadOf(size);
    while (endpoint.tryReceiveInto(told) === undefined) {
      for (let i = 0; i < 64; i++) {
        if (!endpoint.hasRoom(receiver, size)) endpoint.roomSync(receiver, size, PATIENCE);
        endpoint.sendTo(receiver, payload);
      }
    }
    endpoint.roomSync(receiver, 1, PATIENCE);
    endpoint.sendTo(receiver, new Uint8Array([STOP]));
  }
}

/** Counts what comes: messages a second, for each size. */
export async function drain(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  say({ handle: endpoint.handle });
  const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  const rates: number[] = [];
  for (const _size of job.sizes) {
    const rate = rateOf(() => endpoint.receiveIntoSync(buffer, PATIENCE), job);
    rates.push(rate);
    endpoint.sendTo(endpoint.source, new Uint8Array(1));
    do endpoint.receiveIntoSync(buffer, PATIENCE); while (buffer[0] !== STOP);
    buffer[0] = 0;
  }
  say(rates);
}

function rateOf(receive: () => number, { span }: Job): number {
  const warm = performance.now() + span.warmup;
  let start = Infinity;
  let count = 0;
  while (true) {
    for (let i = 0; i < 64; i++) receive();
    count += 64;
    const at = performance.now();
    if (at >= start + span.duration) return count / ((at - start) / 1000);
    if (at < warm || start !== Infinity) continue;
    start = at;
    count = 0;
  }
}

/**
 * Datagrams to be measured: one party answers or pours, the other one asks or drains.
 *
 * @module
 */

import type { DatagramEndpoint } from "../datagram_endpoint.ts";
import type { Handle } from "../handle.ts";
import { MAX_PAYLOAD_SIZE } from "../limits.ts";
import { sampleAsync, sampleSync, type Span } from "./bench_measure.ts";

/** How both parties receive: in a call that blocks, in a loop of their own, or as a promise. */
export type Manner = "sync" | "try" | "await" | "await-into";

/** The first byte of the last message. */
const STOP = 0xff;

/** Nobody waits longer than this for the other party, in milliseconds: it may be dead. */
export const PATIENCE = 20_000;

/** Looks of a party that loops, before it gives the other one up. */
const MOST_LOOKS = 1e9;

/** A payload of that size that is not the last one. */
export function payloadOf(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(size).fill(1);
}

/** Sends back what comes, until the last message. */
export async function answer(endpoint: DatagramEndpoint, manner: Manner, size: number): Promise<void> {
  const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  const reply = buffer.subarray(0, size);
  if (manner === "await") {
    while (true) {
      const { source, payload } = await endpoint.receive();
      if (payload[0] === STOP) return;
      endpoint.sendTo(source, payload);
    }
  } else if (manner === "await-into") {
    while (true) {
      await endpoint.receiveInto(buffer);
      if (buffer[0] === STOP) return;
      endpoint.sendTo(endpoint.source, reply);
    }
  } else {
    const receive = receiverOf(manner, endpoint, buffer);
    while (true) {
      receive();
      if (buffer[0] === STOP) return;
      endpoint.sendTo(endpoint.source, reply);
    }
  }
}

/**
 * Measures round trips, and lets the other party go.
 *
 * @param endpoint From where.
 * @param server Who answers.
 * @param manner How both receive.
 * @param size Bytes of a message.
 * @param span How long.
 * @param before Done before each batch, and not measured.
 * @returns Nanoseconds a round trip.
 */
export async function ask(
  endpoint: DatagramEndpoint,
  server: Handle,
  manner: Manner,
  size: number,
  span: Span,
  before?: () => Promise<void>,
): Promise<Float64Array> {
  const payload = payloadOf(size);
  const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  const samples = await sampled();
  endpoint.sendTo(server, payloadOf(size).fill(STOP));
  return samples;

  function sampled(): Promise<Float64Array> | Float64Array {
    if (manner === "await") {
      return sampleAsync(
        () => {
          endpoint.sendTo(server, payload);
          return endpoint.receive();
        },
        span,
        before,
      );
    }
    if (manner === "await-into") {
      return sampleAsync(
        () => {
          endpoint.sendTo(server, payload);
          return endpoint.receiveInto(buffer);
        },
        span,
        before,
      );
    }
    const receive = receiverOf(manner, endpoint, buffer);
    const once = () => {
      endpoint.sendTo(server, payload);
      receive();
    };
    return before === undefined ? sampleSync(once, span) : sampleAsync(() => Promise.resolve(once()), span, before);
  }
}

/** Receives into a buffer, without turning the event loop. */
function receiverOf(manner: Manner, endpoint: DatagramEndpoint, buffer: Uint8Array): () => number {
  if (manner !== "try") return () => endpoint.receiveIntoSync(buffer, PATIENCE);
  return () => {
    for (let looks = 0; looks < MOST_LOOKS; looks++) {
      const size = endpoint.tryReceiveInto(buffer);
      if (size !== undefined) return size;
    }
    throw new Error("The other party is gone");
  };
}

/** Sends as fast as the receiver reads, size after size: the receiver says when it is the next one's turn. */
export function pour(endpoint: DatagramEndpoint, receiver: Handle, sizes: readonly number[]): void {
  const told = new Uint8Array(1);
  for (const size of sizes) {
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

/**
 * Counts what comes.
 *
 * @param endpoint Where.
 * @param sizes As many as the other party pours.
 * @param span How long each size counts.
 * @returns Messages a second, for each size.
 */
export function drain(endpoint: DatagramEndpoint, sizes: readonly number[], span: Span): number[] {
  const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  return sizes.map(() => {
    const rate = rateOf(() => endpoint.receiveIntoSync(buffer, PATIENCE), span);
    endpoint.sendTo(endpoint.source, new Uint8Array(1));
    do endpoint.receiveIntoSync(buffer, PATIENCE); while (buffer[0] !== STOP);
    buffer[0] = 0;
    return rate;
  });
}

/** How often a second something can be done. */
export function rateOf(once: () => void, { warmup, duration }: Span): number {
  const warm = performance.now() + warmup;
  let start = Infinity;
  let count = 0;
  while (true) {
    for (let i = 0; i < 64; i++) once();
    count += 64;
    const at = performance.now();
    if (at >= start + duration) return count / ((at - start) / 1000);
    if (at < warm || start !== Infinity) continue;
    start = at;
    count = 0;
  }
}

/**
 * What the parties of a measurement have in common: what they are told, and how they answer.
 *
 * @module
 */

import type { Span } from "../../src/cli/bench_measure.ts";

export { PATIENCE, payloadOf } from "../../src/cli/bench_exchange.ts";

/** What a party is told. Which of it counts depends on the part. */
export interface Job {
  /** The fabric's directory; sockets go there too. */
  readonly directory: string;
  /** How long to measure. */
  readonly span: Span;
  /** Bytes of a message. */
  readonly size: number;
  /** Bytes of messages, one measurement for each. */
  readonly sizes: readonly number[];
  /** What the other party said first. */
  readonly ready: Ready;
  /** Microseconds that the session may spin in one wait; the library's own choice without it. */
  readonly spin?: number | undefined;
  /** Milliseconds in which both parties go to sleep before each message; 0 for a steady exchange. */
  readonly idle: number;
  /** How many of something. */
  readonly count: number;
  /** Which variant of the part. */
  readonly variant: string;
}

/** What a party that is spoken to says first. */
export type Ready = Readonly<Record<string, unknown>>;

/** One part. */
export type Part = (job: Job) => Promise<void> | void;

/** Prints a line for the one who started this process. */
export function say(value: unknown): void {
  let bytes = new TextEncoder().encode(`${JSON.stringify(value)}\n`);
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

/** Lets both parties go to sleep. */
export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * Stays until the process that started this one closes this one's standard input, or dies.
 *
 * @param kept What must not be forgotten meanwhile: the library closes what a program cannot reach any more.
 */
export async function stay(...kept: readonly unknown[]): Promise<never> {
  Object.assign(globalThis, { kept });
  for await (const _ of Deno.stdin.readable);
  Deno.exit(0);
}

/** Waits for a line; ends this process when the one that started it is gone. */
export async function told(): Promise<void> {
  const reader = Deno.stdin.readable.getReader();
  const { done } = await reader.read();
  if (done) Deno.exit(0);
  reader.releaseLock();
}

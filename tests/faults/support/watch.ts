/**
 * Looking at a fabric and at processes from outside.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { inspect, listNames } from "../../../src/cli/inspect.ts";
import type { Session } from "../../../src/fabric/session.ts";

/** Milliseconds after which something that should have happened long ago hangs. */
const HANGING = 15_000;

/** What becomes of a promise; an error that says what hangs when one of the things that it says it does takes too long. */
export async function inTime<T>(promise: Promise<T>, what: () => string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const watch = () => {
      const doing = what();
      timer = setTimeout(() => what() === doing ? reject(new Error(`this hangs: ${doing}`)) : watch(), 2 * HANGING);
    };
    watch();
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until something is as it should be; what is given back by processes is given back when their loops turn. */
export async function becomes<T>(look: () => T, wanted: T, what: string): Promise<void> {
  const text = JSON.stringify(wanted);
  const end = performance.now() + HANGING;
  for (let seen = look(); JSON.stringify(seen) !== text; seen = look()) {
    if (performance.now() > end) assertEquals(seen, wanted, `${what} stays as it is`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** All that a broker knows, as sorted text. */
export function stateOf(observer: Session): string[] {
  const rows = listNames(observer).map((it) => `name ${JSON.stringify(it)}`);
  for (const topic of ["contexts", "resources", "attachments", "lanes"] as const) {
    for (const entry of inspect(observer, topic)) rows.push(`${topic} ${JSON.stringify(entry)}`);
  }
  return rows.sort();
}

/** What a process has open and mapped: how many of each kind. */
export type Holdings = Readonly<Record<string, number>>;

/** Counts the descriptors of a process, and its mappings of memory that the library made. */
export function holdingsOf(pid: number): Holdings {
  const counts: Record<string, number> = {};
  const count = (kind: string) => counts[kind] = (counts[kind] ?? 0) + 1;
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      // Sockets and pipes have numbers that come and go.
      const target = Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
      // What Deno keeps of what it compiled is its own.
      if (!target.includes("_cache_")) count(target.replace(/:\[.*/, ""));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  for (const line of Deno.readTextFileSync(`/proc/${pid}/maps`).split("\n")) {
    if (line.includes("memfd:vmci")) count(`mapped ${line.replace(/.*memfd:/, "")}`);
  }
  return Object.fromEntries(Object.entries(counts).sort(([a], [b]) => a < b ? -1 : 1));
}

/** Numbers below 1 that follow from a seed. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6D2B79F5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The median and the most of some numbers, rounded to 0.1. */
export function spread(numbers: readonly number[]): { readonly p50: number; readonly max: number } {
  const sorted = numbers.toSorted((a, b) => a - b);
  const round = (value: number | undefined) => Math.round((value ?? 0) * 10) / 10;
  return { p50: round(sorted[sorted.length >> 1]), max: round(sorted.at(-1)) };
}

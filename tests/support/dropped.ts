/**
 * Endpoints and regions that a program makes and forgets.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Vmci } from "../../mod.ts";

const collect = (globalThis as unknown as { gc?: () => void }).gc;

/** Rounds of the collector that find what was dropped, one after the other. */
const MOST_ROUNDS = 1000;

/** Nothing of this is held by anybody when it returns. */
function drop(vmci: Vmci, each: number, due: Set<number>): void {
  for (let i = 0; i < each; i++) {
    due.add(vmci.datagrams.create().handle.resource);
    due.add(vmci.sharedMemory.create(4096, { writers: i % 2 === 0 ? "creator" : "everybody" }).handle.resource);
  }
}

/**
 * Drops endpoints and regions, and waits until the collector has found them: each must be reported, and once.
 *
 * @param vmci Who makes them.
 * @param each How many of each.
 * @returns How many were reported.
 */
export async function dropAll(vmci: Vmci, each: number): Promise<number> {
  assert(collect !== undefined, "run with --v8-flags=--expose-gc, as the tasks do");
  const told: number[] = [];
  const events = vmci.events();
  const reading = (async () => {
    for await (const event of events) if (event.type === "forgotten") told.push(event.handle.resource);
  })();
  const due = new Set<number>();
  drop(vmci, each, due);
  for (let round = 0; told.length < due.size && round < MOST_ROUNDS; round++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  // What is reported twice would be by now.
  collect();
  await new Promise((resolve) => setTimeout(resolve, 0));
  await events.return?.();
  await reading;
  assertEquals(new Set(told), due, "all that was dropped is reported");
  assertEquals(told.length, due.size, "each is reported once");
  return told.length;
}

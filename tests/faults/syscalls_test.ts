/** Every system call fails once: what came of it is an error or a retry, never a leak, a hang or something half made. */

import { assert, assertEquals } from "@std/assert";
import { failCalls } from "./hostile_support/syscalls_plan.ts";

/** The share that is tried; `deno task soak` tries others. */
const seed = Number(Deno.env.get("VMCI_SEED") ?? 20780);

Deno.test(`system calls: one fails within each operation, on the client's and on the broker's side (seed ${seed})`, async () => {
  const figures = await failCalls({ seed, settings: ["operations"], part: { number: 1, of: 2 } });
  assertEquals(figures.problems, []);
  assert(figures.faults > 1000, Deno.inspect(figures));
});

Deno.test(`system calls: one fails in tests of the conformance suite (seed ${seed})`, async () => {
  const figures = await failCalls({
    seed,
    settings: ["one process", "two processes", "no raw pointers"],
    deeds: 3,
    each: 2,
  });
  assertEquals(figures.problems, []);
  assert(figures.faults > 10, Deno.inspect(figures));
});

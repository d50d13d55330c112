/**
 * A process in which calls fail, and that may hang or die of it: it says each case before it begins, and then what came
 * of it.
 *
 *     syscalls_main.ts '{"seed":1,"start":0,"seconds":60,"operations":1,"bodies":10,"each":5}'
 *
 * @module
 */

import { parsePlan } from "./syscalls_plan.ts";
import { AssertionError } from "@std/assert";
import { VmciError } from "../../../mod.ts";
import { type Case, casesOf, type Verdict, World } from "./campaign.ts";
import { callsOfBody, casesOfBody, conformanceBodies, runBody } from "./bodies.ts";
import { FaultPlan } from "./faults.ts";
import { operations } from "./operations.ts";
import { random, shuffled } from "./random.ts";

const { seed, start, seconds, operations: share, bodies, each } = parsePlan(Deno.args[0]!);
const end = performance.now() + seconds * 1000;
const choose = random(seed);
const client = new FaultPlan();
client.install();

// Deno makes a pair of sockets for signals when somebody first listens to one, or by itself about a second after a
// process began. So that nobody is taken to have left it open, it is made now.
const ignore = () => {};
Deno.addSignalListener("SIGHUP", ignore);
Deno.removeSignalListener("SIGHUP", ignore);

// A test that failed had no use any more for what it had begun, and that fails when everybody leaves.
globalThis.addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof VmciError || event.reason instanceof AssertionError) event.preventDefault();
});

let index = 0;

function say(line: unknown): void {
  let bytes = new TextEncoder().encode(JSON.stringify(line) + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

/** Runs the next case, unless a process before this one did. */
async function next(one: Case, run: () => Promise<Verdict>): Promise<Verdict | undefined> {
  if (index++ < start) return undefined;
  say({ begun: index, case: one });
  const verdict = await run();
  say({ case: one, verdict });
  return verdict;
}

async function runOperations(): Promise<void> {
  let world = await World.make();
  for (const name of shuffled(Object.keys(operations), choose)) {
    for (const one of await casesOf(world, client, name)) {
      if (performance.now() > end) break;
      // As many numbers are drawn whatever is run.
      if (choose(1000) >= share * 1000) continue;
      const verdict = await next(one, () => world.run(client, one));
      if (verdict === undefined || verdict.problems.length === 0) continue;
      // What is wrong now is not held against the next one.
      await world.abandon();
      world = await World.make();
    }
  }
  await world[Symbol.asyncDispose]();
}

/** Has Deno open what it opens once: for threads, and for children. */
async function warmUp(): Promise<void> {
  const [body] = conformanceBodies().values();
  for (const side of ["client", "broker", "client"] as const) await callsOfBody(body!, side, client);
  await new Deno.Command(Deno.execPath(), { args: ["--version"] }).output();
}

async function runBodies(): Promise<void> {
  for (const [name, body] of shuffled([...conformanceBodies()], choose).slice(0, bodies)) {
    for (const side of ["client", "broker"] as const) {
      if (performance.now() > end) return;
      const cases = shuffled(casesOfBody(name, side, await callsOfBody(body, side, client)), choose);
      for (const one of cases.slice(0, each)) {
        if (performance.now() > end) return;
        await next(one, () => runBody(body, one, client));
      }
    }
  }
}

await warmUp();
if (share > 0) await runOperations();
await runBodies();
say({ done: true });
Deno.exit(0);

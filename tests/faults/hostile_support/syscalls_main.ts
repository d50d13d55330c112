/**
 * A process in which calls fail, and that may hang or die of it. Each line of its input is a deed whose calls are counted,
 * or a case that is tried; it answers with a line each.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import { VmciError } from "../../../mod.ts";
import { openWhatDenoOpens } from "../../support/deno_sockets.ts";
import { AGENT_ENDED } from "../../support/remote.ts";
import { linesOf } from "../../support/wire.ts";
import { callsOfBody, conformanceBodies, dismissGuest, runBody } from "./bodies.ts";
import { type Calls, type Case, type Deed, type Setting, type Verdict, World } from "./campaign.ts";
import { FaultPlan } from "./faults.ts";
import { operations } from "./operations.ts";

/** What it is asked. */
export type Question = { readonly count: Deed } | { readonly try: Case };

/** What it answers. */
export interface Answer {
  readonly calls?: Calls;
  readonly verdict?: Verdict;
}

const client = new FaultPlan();
let world: World | undefined;

/**
 * Has Deno open what it opens once: for threads, and for children. (What a thread had that has ended it keeps until
 * another one begins; so the thread of brokers begins before those of the embedded ones.)
 */
async function warmUp(setting: Setting): Promise<void> {
  openWhatDenoOpens();
  const names = [...conformanceBodies(setting).keys()];
  for (const facet of ["datagrams", "events"]) {
    const operation = names.find((name) => name.startsWith(`${facet}: `))!;
    for (let round = 0; round < 2; round++) await callsOfBody({ setting, operation }, client);
  }
  await new Deno.Command(Deno.execPath(), { args: ["--version"] }).output();
}

async function count(deed: Deed): Promise<Calls> {
  if (deed.setting !== "operations") return await callsOfBody(deed, client);
  world ??= await World.make();
  return await world.calls(client, operations[deed.operation]!);
}

async function attempt(one: Case): Promise<Verdict> {
  if (one.setting !== "operations") return await runBody(one, client);
  world ??= await World.make();
  const verdict = await world.run(client, one);
  if (verdict.problems.length > 0) {
    // What is wrong now is not held against the next one.
    await world.abandon();
    world = undefined;
  }
  return verdict;
}

function say(answer: Answer): void {
  let bytes = new TextEncoder().encode(JSON.stringify(answer) + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

if (import.meta.main) {
  // A test that failed had no use any more for what it had begun, and that fails when everybody leaves.
  globalThis.addEventListener("unhandledrejection", (event) => {
    const { reason } = event;
    const ended = reason instanceof Error && reason.message === AGENT_ENDED;
    if (reason instanceof VmciError || reason instanceof AssertionError || ended) event.preventDefault();
  });
  client.install();
  await warmUp(Deno.args[0] === "operations" ? "one process" : Deno.args[0] as Setting);
  for await (const line of linesOf(Deno.stdin.readable)) {
    const question = JSON.parse(line) as Question;
    say("count" in question ? { calls: await count(question.count) } : { verdict: await attempt(question.try) });
  }
  await world?.[Symbol.asyncDispose]();
  await dismissGuest();
  Deno.exit(0);
}

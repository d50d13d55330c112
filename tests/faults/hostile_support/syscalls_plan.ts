/**
 * Which failures are tried, and a process that tries them under watch.
 *
 * @module
 */

import { ROOT } from "../../tools/deno.ts";
import type { Case, Verdict } from "./campaign.ts";

/** What is tried. */
export interface SyscallsPlan {
  /** Decides about the order, and what is left out. */
  readonly seed: number;
  /** So many cases were done before. */
  readonly start: number;
  /** Seconds after which no other case begins. */
  readonly seconds: number;
  /** The share of the operations' failures, 0 to 1. */
  readonly operations: number;
  /** How many tests of the conformance suite. */
  readonly bodies: number;
  /** How many failures of each of them, on each side. */
  readonly each: number;
}

/** What came of it. */
export interface SyscallsFigures {
  /** Operations and tests that were run with a call that should fail. */
  cases: number;
  /** Calls that were made to fail. */
  faults: number;
  /** Those that succeeded all the same. */
  survived: number;
  /** What went wrong, with the case. */
  problems: string[];
}

/** Reads a plan. */
export function parsePlan(text: string): SyscallsPlan {
  return JSON.parse(text) as SyscallsPlan;
}

/** Milliseconds without a word after which a process is taken for hung; those that hang in it itself it says itself. */
const SILENCE = 120_000;

/** Has calls fail, in processes that are replaced when they die or hang. */
export async function failCalls(plan: Omit<SyscallsPlan, "start">): Promise<SyscallsFigures> {
  const figures: SyscallsFigures = { cases: 0, faults: 0, survived: 0, problems: [] };
  const end = performance.now() + plan.seconds * 1000;
  for (let start = 0; start >= 0;) {
    const seconds = Math.max(0, (end - performance.now()) / 1000);
    start = await runProcess({ ...plan, start, seconds }, figures);
  }
  return figures;
}

/** Runs one process to its end; answers how many cases are done if another must go on, or -1. */
async function runProcess(plan: SyscallsPlan, figures: SyscallsFigures): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-all",
      "--v8-flags=--expose-gc",
      `${ROOT}tests/faults/hostile_support/syscalls_main.ts`,
      JSON.stringify(plan),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let hung = false;
  const hang = () => {
    hung = true;
    child.kill("SIGKILL");
  };
  let timer = setTimeout(hang, SILENCE);
  let under: { readonly begun: number; readonly case: Case } | undefined;
  let done = false;
  const complaints = new Response(child.stderr).text();
  let rest = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    clearTimeout(timer);
    timer = setTimeout(hang, SILENCE);
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const said = JSON.parse(line) as { begun?: number; case: Case; verdict?: Verdict; done?: true };
      if (said.done) done = true;
      else if (said.begun !== undefined) under = { begun: said.begun, case: said.case };
      else under = take(said.case, said.verdict!, figures);
    }
  }
  clearTimeout(timer);
  const { code, signal } = await child.status;
  const stderr = await complaints;
  if (done && code === 0) return -1;
  const how = hung ? "it hangs" : `the process ended with ${signal ?? code}: ${stderr.slice(-2000)}`;
  if (under === undefined) throw new Error(`outside of any case ${how}`);
  figures.cases++;
  figures.problems.push(`${describe(under.case)}: ${how}`);
  return under.begun;
}

function take(one: Case, { failed, passed, problems }: Verdict, figures: SyscallsFigures): undefined {
  figures.cases++;
  if (failed !== undefined) figures.faults++;
  if (failed !== undefined && passed) figures.survived++;
  for (const problem of problems) figures.problems.push(`${describe(one)} (${failed}): ${problem}`);
}

function describe({ operation, side, nth, way }: Case): string {
  return `'${operation}', the ${side}'s call ${nth} in way ${way}`;
}

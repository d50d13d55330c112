/**
 * Which failures there are and which of them are tried, and the processes that try them under watch.
 *
 * First the calls of every operation and test are counted; each of them, in each way in which it can fail, is a case.
 * The order of the cases follows from what they are and from a seed, and so does the part that one belongs to: parts
 * that were run at different times are all there is, though a test makes a call more or less from one time to the next.
 * Each operation and test has its turn before one has its second.
 *
 * @module
 */

import { LEAST } from "../../support/least_permission.ts";
import { linesOf } from "../../support/wire.ts";
import { ROOT } from "../../tools/deno.ts";
import { conformanceBodies } from "./bodies.ts";
import { type Case, casesOf, type Deed, type Setting, type Verdict } from "./campaign.ts";
import { operations } from "./operations.ts";
import type { Answer, Question } from "./syscalls_main.ts";

/** One of so many parts of all cases, from 1. */
export interface Part {
  readonly number: number;
  readonly of: number;
}

/** What is tried. */
export interface SyscallsPlan {
  /** Decides about the order, and what is left out. */
  readonly seed: number;
  /** Where; everywhere without it. */
  readonly settings?: readonly Setting[];
  /** How many operations, or tests of the conformance suite, of each setting; all without it. */
  readonly deeds?: number;
  /** How many failures of each of them, on each side; all without it. */
  readonly each?: number;
  /** Which part of that; all of it without it. */
  readonly part?: Part;
  /** Seconds after which no other case begins; none without it. */
  readonly seconds?: number;
  /** Told of everything that is wrong at once. */
  readonly onProblem?: (problem: string) => void;
  /** Told about once a minute how far it is. */
  readonly onProgress?: (figures: SyscallsFigures) => void;
}

/** What came of it. */
export interface SyscallsFigures {
  /** How many cases there are, in the operations and tests that were chosen and in all parts. */
  there: number;
  /** How many of them were to be tried. */
  planned: number;
  /** Operations and tests that were run with a call that should fail. */
  cases: number;
  /** Calls that were made to fail; the others were not made when their cases were tried. */
  faults: number;
  /** Those that succeeded all the same. */
  survived: number;
  /** What went wrong, with the case. */
  problems: string[];
}

const SETTINGS: readonly Setting[] = ["operations", "one process", "two processes", "no raw pointers"];

/** Milliseconds without an answer after which a process is taken for hung; what hangs in it it says itself, if it can. */
const SILENCE = 300_000;

/** How many cases are tried at a time: many of them wait most of the time. */
const AT_A_TIME = 3 * navigator.hardwareConcurrency;

/** So often a case is tried in which a call was not made this time that was made when they were counted. */
const TRIES = 3;

function isMissed({ failed, problems }: Verdict): boolean {
  return failed === undefined && problems.length === 0;
}

/** Counts calls, and has them fail, in processes that are replaced when they die or hang. */
export async function failCalls(plan: SyscallsPlan): Promise<SyscallsFigures> {
  const end = performance.now() + (plan.seconds ?? Infinity) * 1000;
  const figures: SyscallsFigures = { there: 0, planned: 0, cases: 0, faults: 0, survived: 0, problems: [] };
  await using stack = new AsyncDisposableStack();
  // To start one takes longer than to try a few cases.
  const many = Math.min(AT_A_TIME, plan.deeds ?? Infinity);
  const crews = Array.from({ length: many }, () => stack.use(new Crew()));
  const cases = await casesToTry(plan, crews, figures);
  figures.planned = cases.length;
  let told = performance.now();
  await each(cases.values(), crews, async (one, crew) => {
    if (performance.now() > end) return;
    let verdict = await crew.attempt(one);
    for (let again = 1; again < TRIES && isMissed(verdict); again++) verdict = await crew.attempt(one);
    figures.cases++;
    if (performance.now() > told + 60_000) {
      told = performance.now();
      plan.onProgress?.(figures);
    }
    if (verdict.failed !== undefined) figures.faults++;
    if (verdict.failed !== undefined && verdict.passed) figures.survived++;
    for (const problem of verdict.problems) {
      figures.problems.push(`${describe(one)} (${verdict.failed}): ${problem}`);
      plan.onProblem?.(figures.problems.at(-1)!);
    }
  });
  return figures;
}

/** Counts the calls of what was chosen; gives the cases in the order in which they are to be tried. */
async function casesToTry(plan: SyscallsPlan, crews: readonly Crew[], figures: SyscallsFigures): Promise<Case[]> {
  const { seed, settings = SETTINGS, deeds = Infinity, each: most = Infinity, part } = plan;
  const chosen = settings.flatMap((setting) => {
    const names = setting === "operations" ? Object.keys(operations) : [...conformanceBodies(setting).keys()];
    return inOrder(names.map((operation): Deed => ({ setting, operation })), seed).slice(0, deeds);
  });
  const found = new Map<Deed, Case[]>();
  await each(chosen.values(), crews, async (deed, crew) => {
    try {
      const { calls } = await crew.ask(deed.setting, { count: deed });
      found.set(deed, casesOf(deed, calls!));
    } catch (error) {
      throw new Error(`${deed.setting}: '${deed.operation}', in which nothing fails: ${(error as Error).message}`);
    }
  });
  const turns: Case[][] = [];
  for (const deed of chosen) {
    const all = found.get(deed)!;
    figures.there += all.length;
    for (const side of Map.groupBy(all, ({ side }) => side).values()) {
      const mine = side.filter((one) => part === undefined || luck(one, seed) % part.of === part.number - 1);
      for (const [turn, one] of inOrder(mine, seed).slice(0, most).entries()) (turns[turn] ??= []).push(one);
    }
  }
  return turns.flatMap((turn) => inOrder(turn, seed));
}

/** Has each crew do one thing after the other, as long as there are any. */
async function each<T>(things: Iterator<T>, crews: readonly Crew[], work: (it: T, crew: Crew) => Promise<void>) {
  await Promise.all(crews.map(async (crew) => {
    for (let next = things.next(); !next.done; next = things.next()) await work(next.value, crew);
  }));
}

/** The processes in which calls fail, one for each setting. */
class Crew implements AsyncDisposable {
  readonly #workers = new Map<Setting, Worker>();

  /** Asks a question that is answered. */
  async ask(setting: Setting, question: Question): Promise<Answer> {
    let worker = this.#workers.get(setting);
    if (worker === undefined) this.#workers.set(setting, worker = new Worker(setting));
    return await worker.ask(question);
  }

  /** Tries a case, of which the process may die. */
  async attempt(one: Case): Promise<Verdict> {
    try {
      const { verdict } = await this.ask(one.setting, { try: one });
      return verdict!;
    } catch (error) {
      if (!(error instanceof WorkerGone)) throw error;
      this.#workers.delete(one.setting);
      return { failed: undefined, passed: false, problems: [error.message] };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const worker of this.#workers.values()) await worker[Symbol.asyncDispose]();
  }
}

/** A process died or hung. */
class WorkerGone extends Error {}

/** See `syscalls_main.ts`. */
class Worker implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: AsyncGenerator<string>;
  readonly #complaints: Promise<string>;

  constructor(setting: Setting) {
    // What the tests themselves need beside the library is allowed in any case.
    const allowed = setting === "no raw pointers"
      ? [...LEAST, "--allow-read", "--allow-write", "--allow-run", "--allow-env", "--allow-sys"]
      : ["--allow-all"];
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-prompt",
        ...allowed,
        "--v8-flags=--expose-gc",
        `${ROOT}tests/faults/hostile_support/syscalls_main.ts`,
        setting,
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      // A group of its own: with it end the parties that it started.
      detached: true,
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = linesOf(this.#child.stdout);
    this.#complaints = new Response(this.#child.stderr).text();
  }

  async ask(question: Question): Promise<Answer> {
    let hung = false;
    const hang = setTimeout(() => {
      hung = true;
      this.#killAll();
    }, SILENCE);
    try {
      // If it has just died, there is no answer for that.
      await this.#input.write(new TextEncoder().encode(`${JSON.stringify(question)}\n`)).catch(() => {});
      const { value, done } = await this.#output.next();
      if (!done) return JSON.parse(value) as Answer;
    } finally {
      clearTimeout(hang);
    }
    await this.#input.abort().catch(() => {});
    const { code, signal } = await this.#child.status;
    // Of what it started somebody may hold on to the pipe, and hang.
    this.#killAll();
    const complaints = (await this.#complaints).slice(-2000);
    throw new WorkerGone(hung ? "it hangs" : `the process ended with ${signal ?? code}: ${complaints}`);
  }

  #killAll(): void {
    try {
      Deno.kill(-this.#child.pid, "SIGKILL");
    } catch (error) {
      // All of them have ended.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#output.return(undefined);
    await this.#complaints;
    await this.#child.status;
  }
}

/** An order that follows from what the things are, and a seed. */
function inOrder<T extends object>(things: readonly T[], seed: number): T[] {
  return things.map((thing) => ({ thing, luck: luck(thing, ~seed) }))
    .sort((a, b) => a.luck - b.luck)
    .map(({ thing }) => thing);
}

/** A number from 0 to below 2^32. */
function luck(thing: object, seed: number): number {
  let hash = seed ^ 0x811c9dc5;
  for (const character of Object.values(thing).join("\n")) {
    hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193);
  }
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return (hash ^ hash >>> 16) >>> 0;
}

function describe({ setting, operation, side, nth, call, way }: Case): string {
  return `${setting}: '${operation}', the ${side}'s call ${nth} (${call}) in way ${way}`;
}

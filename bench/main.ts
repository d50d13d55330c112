/**
 * The benchmarks: real processes, alternating rounds, every figure beside a baseline of the same run.
 *
 *     deno task bench                     all rows, a table and the bars
 *     deno task bench --json              one line of JSON instead
 *     deno task bench --plot FILE.svg     also draws it
 *     deno task bench --rows rtt,flow/dg  only rows whose names begin so, and their baselines
 *     deno task bench --rounds N          so many rounds; 5 without it
 *     deno task bench --quick             one short round: a look, no measurement
 *     deno task bench --no-pin            lets the system move parties between cores; else each has one of its own
 *     deno task bench --first             each party before all other processes of the machine, by nice: as root
 *     deno task bench --patience N        N seconds may be spent on waiting for a quiet machine; 60 without it
 *     deno task bench --compare           says what got worse by more than 25 % since bench/recorded.json
 *     deno task bench --record            writes bench/recorded.json
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { bars } from "./bars.ts";
import { output, World } from "./bench_world.ts";
import { compare } from "./compare.ts";
import type { Run } from "./model.ts";
import { plot } from "./plot.ts";
import { probesOf } from "./probes/all.ts";
import { barTable, comparison, machineText, table } from "./report.ts";
import { choose, runRounds } from "./run.ts";

/** The run that others are compared with. */
export const RECORDED: URL = new URL("recorded.json", import.meta.url);

const ROUNDS = 5;
const PATIENCE = 60;

/** What the command line asks for. */
export interface BenchOptions {
  readonly rows: readonly string[];
  readonly rounds: number;
  readonly quick: boolean;
  readonly pin: boolean;
  readonly first: boolean;
  /** Seconds that may be spent on waiting for a quiet machine. */
  readonly patience: number;
  /** Says what is done now. */
  readonly note: (text: string) => void;
}

/**
 * Measures.
 *
 * @param options What, and how.
 * @returns The run.
 */
export async function bench({ rows, rounds, quick, pin, first, patience, note }: BenchOptions): Promise<Run> {
  await using world = new World({ quick, pin, first, note });
  const probes = choose(probesOf(world), rows);
  if (probes.length === 0) {
    throw new RangeError(`Cannot measure: no row's name begins so: ${rows.join(", ")}`);
  }
  const outcome = await runRounds(probes, { rounds, patience: patience * 1000, note });
  return { machine: await world.machine(), rounds, quick, disturbed: outcome.disturbed, rows: outcome.rows };
}

/** Says on a terminal what is done now, in one line. */
function noteOnTerminal(text: string): void {
  if (!Deno.stderr.isTerminal()) return;
  Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${text}`));
}

async function main(args: string[]): Promise<void> {
  const options = parseArgs(args, {
    string: ["plot", "rows", "rounds", "patience"],
    boolean: ["json", "quick", "no-pin", "first", "compare", "record"],
    unknown: (arg: string) => {
      throw new RangeError(`Cannot read the command line: there is no ${arg}`);
    },
  });
  const rounds = options.rounds === undefined ? (options.quick ? 1 : ROUNDS) : Number(options.rounds);
  if (!(Number.isInteger(rounds) && rounds > 0)) throw new RangeError(`Cannot run ${options.rounds} rounds`);
  const run = await bench({
    rows: (options.rows ?? "").split(",").filter((it) => it !== ""),
    rounds,
    quick: options.quick,
    pin: !options["no-pin"] && navigator.hardwareConcurrency > 1 &&
      await output("taskset", ["--version"]) !== undefined,
    first: options.first,
    patience: Number(options.patience ?? (options.quick ? 0 : PATIENCE)),
    note: noteOnTerminal,
  });
  noteOnTerminal("");
  const recorded = options.compare ? await readRecorded() : undefined;
  const worse = recorded === undefined ? undefined : compare(recorded, run);
  if (options.json) {
    console.log(JSON.stringify({ ...run, bars: bars(run.rows), ...(worse === undefined ? {} : { worse }) }));
  } else {
    console.log(`${machineText(run.machine)}\n${run.rounds} rounds, ${run.disturbed} measurements disturbed\n`);
    const whole = options.rows === undefined;
    const shown = bars(run.rows).filter(({ met }) => whole || met !== undefined);
    console.log([table(run.rows), ...(shown.length === 0 ? [] : [barTable(shown)])].join("\n\n"));
    if (worse !== undefined) console.log(`\n${comparison(worse, recorded!.machine.date.slice(0, 10))}`);
  }
  if (options.plot !== undefined) await Deno.writeTextFile(options.plot, plot(run));
  if (options.record) await Deno.writeTextFile(RECORDED, recordOf(run));
}

/** The run that others are compared with, if there is one. */
async function readRecorded(): Promise<Run | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(RECORDED)) as Run;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.error("There is nothing to compare with: deno task bench --record writes it.");
    return undefined;
  }
}

/** A run as it is kept: without the samples, numbers in a line, as the formatter leaves it. */
function recordOf({ rows, ...others }: Run): string {
  const kept = { ...others, rows: rows.map(({ histogram: _, ...row }) => row) };
  const text = JSON.stringify(kept, (_, it) => typeof it === "number" ? Number(it.toPrecision(5)) : it, 2);
  return `${text.replaceAll(/\[[\s\d.,e+null-]+\]/g, (list) => list.replaceAll(/\s+/g, "").replaceAll(",", ", "))}\n`;
}

if (import.meta.main) await main(Deno.args);

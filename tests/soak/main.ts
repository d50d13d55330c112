/**
 * Everything at length, with figures.
 *
 *     deno task soak [--minutes N] [--seed N] [--only NAME] [--part I/N] [--all] [--json]
 *
 * With `--all` what has an end is done to its end, whatever time that takes: `--only leaks --all`. Of what is too much for
 * that, `--part` takes one part of several: `--only system-calls --all --part 3/100`.
 * The first failure ends it, with the seed and how to see it again.
 */

import { parseArgs } from "@std/cli/parse-args";
import { deaths, restart, systemCalls, takeover } from "./faults.ts";
import { hostileClients, ringFuzz } from "./hostile.ts";
import { leaks } from "./leaks.ts";
import type { Figures, SoakPiece } from "./piece.ts";
import { simulation } from "./simulation.ts";
import { traffic } from "./traffic.ts";

const PIECES: readonly SoakPiece[] = [
  simulation,
  traffic,
  takeover,
  restart,
  deaths,
  systemCalls,
  ringFuzz,
  hostileClients,
  leaks,
];
/** What is said of the whole. */
const TOTALS = ["cases", "faults injected", "datagrams sent", "datagrams checked"] as const;

interface Report {
  readonly piece: string;
  readonly seed: number;
  readonly seconds: number;
  readonly figures: Figures;
}

function show(figures: Figures): void {
  const width = Math.max(...Object.keys(figures).map((name) => name.length));
  for (const [name, count] of Object.entries(figures)) {
    console.log(`  ${name.padEnd(width)}  ${count.toLocaleString("en")}`);
  }
}

/** Reads `2/10`; `null` when it is no part. */
function partOf(text: string): { readonly number: number; readonly of: number } | null {
  const [, number = 0, of = 0] = /^(\d+)\/(\d+)$/.exec(text)?.map(Number) ?? [];
  return number >= 1 && number <= of ? { number, of } : null;
}

/** Runs the pieces, and gives the exit code. */
async function soak(args: readonly string[]): Promise<number> {
  let unknown = false;
  const { minutes, seed: given, only, part: slice, all: toTheEnd, json } = parseArgs([...args], {
    string: ["minutes", "seed", "only", "part"],
    boolean: ["json", "all"],
    default: { minutes: "30" },
    unknown: () => {
      unknown = true;
    },
  });
  const seed = given === undefined ? Date.now() % 2 ** 31 : Number(given);
  const pieces = PIECES.filter(({ name }) => only === undefined || name === only);
  const part = slice === undefined ? undefined : partOf(slice);
  if (unknown || pieces.length === 0 || !(Number(minutes) > 0) || !Number.isSafeInteger(seed) || part === null) {
    const names = PIECES.map(({ name }) => name).join("|");
    console.error(`deno task soak [--minutes N] [--seed N] [--only ${names}] [--part I/N] [--all] [--json]`);
    return 2;
  }
  const until = Date.now() + Number(minutes) * 60_000;
  let shares = pieces.reduce((sum, { share }) => sum + share, 0);
  const reports: Report[] = [];
  for (const piece of pieces) {
    const begun = Date.now();
    if (!json) console.log(`${piece.name} (seed ${seed})`);
    try {
      const figures = await piece.run({
        seed,
        part,
        all: toTheEnd,
        until: begun + Math.max(0, until - begun) * piece.share / shares,
      });
      reports.push({ piece: piece.name, seed, seconds: Math.round((Date.now() - begun) / 1000), figures });
      if (!json) show({ ...figures, seconds: reports.at(-1)!.seconds });
    } catch (error) {
      console.error(error);
      const extent = [slice === undefined ? "" : ` --part ${slice}`, toTheEnd ? " --all" : ""].join("");
      console.error(`${piece.name} failed. Again: deno task soak --only ${piece.name} --seed ${seed}${extent}`);
      return 1;
    }
    shares -= piece.share;
  }
  const sum = (name: string) => reports.reduce((sum, { figures }) => sum + (figures[name] ?? 0), 0);
  // What was sent and did not come.
  const losses = sum("datagrams sent") - sum("datagrams checked");
  const all = { ...Object.fromEntries(TOTALS.map((name) => [name, sum(name)])), losses };
  if (json) console.log(JSON.stringify({ seed, pieces: reports, all }, undefined, 2));
  else {
    console.log("all");
    show(all);
  }
  return losses === 0 ? 0 : 1;
}

Deno.exit(await soak(Deno.args));

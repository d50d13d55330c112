/**
 * Runs probes in alternating rounds and sums up what they gave.
 *
 * @module
 */

import { median } from "../src/cli/bench_measure.ts";
import { groupOf, type Measure, type Measures, type Probe, type Result, type Row, Unavailable } from "./model.ts";
import { Disturbance } from "./processes.ts";

/** A measurement beside which others had more than this part of a core is taken again. */
const MOST_OTHERS = 0.1;
/** Milliseconds in which the machine is watched before a measurement. */
const LOOK = 200;

/** How to run. */
export interface RunOptions {
  readonly rounds: number;
  /** Milliseconds that may be spent in all on waiting for others, and on measuring again what they disturbed. */
  readonly patience: number;
  /** Says what is done now. */
  readonly note: (text: string) => void;
}

/** What a run gave. */
export interface Outcome {
  readonly rows: readonly Result[];
  /** How many measurements stayed disturbed. */
  readonly disturbed: number;
}

/**
 * The probes of which somebody wants a row, and those of the rows' baselines.
 *
 * @param probes All there are.
 * @param wanted How rows' names begin; none for all rows.
 * @returns Probes, in their order.
 */
export function choose(probes: readonly Probe[], wanted: readonly string[]): Probe[] {
  const chosen = new Set(
    wanted.length === 0
      ? probes
      : probes.filter(({ rows }) => rows.some(({ id }) => wanted.some((text) => id.startsWith(text)))),
  );
  for (const { rows } of chosen) {
    for (const { baseline } of rows) {
      const owner = probes.find((probe) => probe.rows.some(({ id }) => id === baseline));
      if (owner !== undefined) chosen.add(owner);
    }
  }
  return probes.filter((probe) => chosen.has(probe));
}

/**
 * Measures: every round goes through all probes, so that what is compared is measured within the same minute.
 *
 * @param probes Which.
 * @param options How.
 * @returns Every row.
 */
export async function runRounds(probes: readonly Probe[], options: RunOptions): Promise<Outcome> {
  const { rounds, note } = options;
  const machine = new QuietMachine(options.patience);
  const taken = new Map<string, (Measure | undefined)[]>();
  const reasons = new Map<string, string>();
  const skipped = new Set<Probe>();
  let disturbed = 0;
  for (let round = 0; round < rounds; round++) {
    for (const probe of probes) {
      if (round > 0 && probe.once || skipped.has(probe)) continue;
      note(`round ${round + 1} of ${rounds}: ${probe.rows[0]!.id}${probe.rows.length > 1 ? " ..." : ""}`);
      try {
        const { measures, quiet } = await machine.measure(probe);
        if (!quiet) disturbed++;
        for (const { id } of probe.rows) {
          if (!taken.has(id)) taken.set(id, []);
          taken.get(id)![round] = measures[id];
        }
      } catch (error) {
        // One that fails does not cost all others; in the next round it may not.
        if (error instanceof Unavailable) skipped.add(probe);
        const { message } = error as Error;
        const reason = error instanceof Unavailable ? message : `it failed: ${message.split("\n")[0]}`;
        for (const { id } of probe.rows) reasons.set(id, reason);
      }
    }
  }
  const rows = probes.flatMap((probe) => probe.rows);
  return { rows: rows.map((row) => resultOf(row, taken, reasons.get(row.id))), disturbed };
}

/** Waits for a quiet machine, measures, and measures again when others had the processors meanwhile. */
class QuietMachine {
  #patience: number;

  /** @param patience Milliseconds that may be spent on it in all. */
  constructor(patience: number) {
    this.#patience = patience;
  }

  /** What came out does not decide what is taken; how much others had of the processors does. */
  async measure(probe: Probe): Promise<{ readonly measures: Measures; readonly quiet: boolean }> {
    let best: { readonly measures: Measures; readonly others: number } | undefined;
    for (;;) {
      await this.#settle();
      const start = performance.now();
      const disturbance = new Disturbance();
      const measures = await probe.measure();
      const others = disturbance.others();
      if (best === undefined || others < best.others) best = { measures, others };
      const quiet = best.others <= MOST_OTHERS;
      if (quiet || this.#patience <= 0) return { measures: best.measures, quiet };
      this.#patience -= performance.now() - start;
    }
  }

  async #settle(): Promise<void> {
    while (this.#patience > 0) {
      const disturbance = new Disturbance();
      await new Promise((resolve) => setTimeout(resolve, LOOK));
      if (disturbance.others() <= MOST_OTHERS) return;
      this.#patience -= LOOK;
    }
  }
}

/**
 * Sums up the rounds of a row.
 *
 * @param row The row.
 * @param taken What every round gave, by row.
 * @param unavailable Why there is nothing.
 * @returns Its result.
 */
export function resultOf(
  row: Row,
  taken: ReadonlyMap<string, readonly (Measure | undefined)[]>,
  unavailable?: string,
): Result {
  const measures = taken.get(row.id) ?? [];
  const rounds = Array.from(measures, (it) => it?.value ?? null);
  const values = numbers(rounds);
  if (values.length === 0) return { ...row, rounds: [], unavailable: unavailable ?? "it gave no figure" };
  const baseline = row.baseline === undefined ? [] : taken.get(row.baseline) ?? [];
  const ratios = numbers(rounds.map((value, i) => ratio(value, baseline[i]?.value)));
  const result: { -readonly [K in keyof Result]: Result[K] } = { ...row, rounds, value: median(values) };
  if (ratios.length > 0) result.ratio = median(ratios);
  for (const tail of ["p99", "p999"] as const) {
    const tails = measures.map((it) => it?.[tail]).filter((it) => it !== undefined);
    if (tails.length > 0) result[tail] = median(tails);
  }
  const histogram: Record<number, number> = {};
  for (const it of measures) {
    for (const [bucket, count] of Object.entries(it?.histogram ?? {})) {
      histogram[+bucket] = (histogram[+bucket] ?? 0) + count;
    }
  }
  if (Object.keys(histogram).length > 0) result.histogram = histogram;
  return result;
}

/**
 * How two rows compare, by the rounds that have both.
 *
 * @param rows All rows.
 * @param id The row above the line.
 * @param baseline The row below it.
 * @returns The median of the rounds' ratios; `undefined` without such a round.
 */
export function ratioOf(rows: readonly Result[], id: string, baseline: string): number | undefined {
  const above = rows.find((row) => row.id === id)?.rounds ?? [];
  const below = rows.find((row) => row.id === baseline)?.rounds ?? [];
  const ratios = numbers(above.map((value, i) => ratio(value, below[i])));
  return ratios.length === 0 ? undefined : median(ratios);
}

function ratio(value: number | null, baseline: number | null | undefined): number | null {
  return value === null || baseline === null || baseline === undefined || baseline === 0 ? null : value / baseline;
}

function numbers(values: readonly (number | null)[]): number[] {
  return values.filter((it) => it !== null);
}

/** The rows of each group, in order. */
export function byGroup(rows: readonly Result[]): Map<string, Result[]> {
  return Map.groupBy(rows, groupOf);
}

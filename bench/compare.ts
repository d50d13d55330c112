/**
 * What got worse since the recorded run.
 *
 * @module
 */

import { LESS_IS_BETTER, type Result, type Run } from "./model.ts";

/** Worse by more than this part is said. */
export const TOLERANCE = 0.25;

/** A row that got worse. */
export interface Worsening {
  readonly id: string;
  readonly title: string;
  /** Whether the figures are ratios to the row's baseline. */
  readonly ratio: boolean;
  readonly before: number;
  readonly now: number;
  /** How much worse: 0.5 is half as much again, or a third less. */
  readonly by: number;
}

/**
 * Compares two runs: ratios to a baseline where there is one, since machines differ; other figures only when both runs
 * were on the same kind of processor.
 *
 * @param recorded The run before.
 * @param run This run.
 * @returns What got worse, the worst first.
 */
export function compare(recorded: Run, run: Run): Worsening[] {
  const sameMachine = recorded.machine.cpu === run.machine.cpu && recorded.machine.cores === run.machine.cores;
  const before = new Map(recorded.rows.map((row) => [row.id, row]));
  return run.rows.flatMap((row) => {
    const old = before.get(row.id);
    const found = old === undefined || isReference(row) ? undefined : worsening(old, row, sameMachine);
    return found === undefined || found.by <= TOLERANCE ? [] : [found];
  }).sort((a, b) => b.by - a.by);
}

/** Whether a row measures something else than this library. */
export function isReference({ id }: { readonly id: string }): boolean {
  return /\/(?:c-|deno-|worker|zeromq|nothing)/.test(id);
}

function worsening(old: Result, row: Result, sameMachine: boolean): Worsening | undefined {
  const ratio = row.ratio !== undefined && old.ratio !== undefined;
  const [then, now] = ratio ? [old.ratio, row.ratio] : [old.value, row.value];
  if (then === undefined || now === undefined || !ratio && !sameMachine) return undefined;
  const by = LESS_IS_BETTER[row.unit] ? growth(then, now) : growth(now, then);
  return { id: row.id, title: row.title, ratio, before: then, now, by };
}

/** By which part something grew. From nothing, anything that is more than noise is infinitely more. */
function growth(before: number, now: number): number {
  if (before > 0) return now / before - 1;
  return now >= 1 ? Infinity : 0;
}

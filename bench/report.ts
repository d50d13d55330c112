/**
 * Runs for people.
 *
 * @module
 */

import { formatTime, threeFigures } from "../src/cli/bench_measure.ts";
import type { Bar } from "./bars.ts";
import type { Worsening } from "./compare.ts";
import type { Machine, Result, Unit } from "./model.ts";
import { byGroup } from "./run.ts";

/** What the groups are called. */
const GROUPS: Readonly<Record<string, string>> = {
  "rtt": "Round trip of 64 B, steady",
  "idle-rtt": "Round trip of 64 B, both parties asleep before each",
  "flow": "One way, as fast as it goes",
  "region": "Regions",
  "control": "Control operations",
  "growth": "Control operations on a full fabric: 1,000 contexts, 10,000 handles and names, 100,000 privilege entries",
  "alloc": "Allocated on the JavaScript heap, an operation",
  "idle": "Idle",
  "fair": "Fairness",
  "memory": "Memory, for each",
  "scoped": "Least permission: --allow-ffi with the path of libc alone",
};

/** A figure for people. */
export function formatFigure(value: number | undefined, unit: Unit): string {
  if (value === undefined) return "-";
  switch (unit) {
    case "time":
      return formatTime(value);
    case "rate":
      return value >= 1e6 ? `${threeFigures(value / 1e6)} M/s` : `${threeFigures(value / 1e3)} k/s`;
    case "throughput":
      return `${threeFigures(value / 1e9)} GB/s`;
    case "bytes":
      return value >= 10_000 ? `${threeFigures(value / 1024)} KiB` : `${Math.round(value)} B`;
    case "count":
      return threeFigures(value);
  }
}

/** The table of all rows. */
export function table(rows: readonly Result[]): string {
  const sections = [...byGroup(rows)].map(([group, members]) => {
    const timed = members.some(({ p99 }) => p99 !== undefined);
    const compared = members.find(({ baseline }) => baseline !== undefined);
    const head = [
      "",
      timed ? "p50" : "",
      ...(timed ? ["p99", "p99.9"] : []),
      ...(compared === undefined ? [] : ["ratio", "to"]),
    ];
    const lines = members.map(({ id, title, unit, value, p99, p999, ratio, baseline, unavailable }) => {
      if (unavailable !== undefined) return [title, `- (${unavailable})`];
      return [
        title,
        formatFigure(value, unit),
        ...(timed ? [formatFigure(p99, unit), formatFigure(p999, unit)] : []),
        ...(compared === undefined
          ? []
          : [ratio === undefined ? "" : `${threeFigures(ratio)}x`, toText(id, baseline, ratio)]),
      ];
    });
    return `${GROUPS[group] ?? group}\n${columns([head, ...lines])}`;
  });
  return sections.join("\n\n");
}

function toText(id: string, baseline: string | undefined, ratio: number | undefined): string {
  if (baseline === undefined) return "";
  if (ratio === undefined) return "(no baseline)";
  const group = id.slice(0, id.indexOf("/") + 1);
  return baseline.startsWith(group) ? baseline.slice(group.length) : baseline;
}

/** Lines in columns; the first one to the left, the others to the right but for the last. */
export function columns(lines: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const line of lines) {
    // A line that ends early may say more than fits.
    for (const [i, cell] of line.entries()) {
      if (i < line.length - 1 || line.length === lines[0]!.length) widths[i] = Math.max(widths[i] ?? 0, cell.length);
    }
  }
  return lines.map((line) =>
    `  ${
      line.map((cell, i) =>
        i === 0 || i === line.length - 1 && /[a-z(]/i.test(cell) && !/\d (?:[num]?s|[kM]\/s|.?i?B)/.test(cell)
          ? cell.padEnd(widths[i] ?? 0)
          : cell.padStart(widths[i] ?? 0)
      ).join("  ")
    }`.trimEnd()
  ).join("\n");
}

/** The table of the bars. */
export function barTable(bars: readonly Bar[]): string {
  const lines = bars.map((
    { what, met, figure },
  ) => [what, figure, met === undefined ? "not measured" : met ? "met" : "NOT MET"]);
  return `Bars\n${columns([["", "", ""], ...lines]).slice(1).trimStart().replace(/^/, "  ")}`;
}

/** What got worse. */
export function comparison(worse: readonly Worsening[], date: string): string {
  if (worse.length === 0) return `Nothing got worse by more than 25 % since ${date}.`;
  const lines = worse.map(({ id, ratio, before, now, by }) => [
    id,
    threeFigures(before),
    threeFigures(now),
    `${ratio ? "ratio" : "figure"}, worse by ${Number.isFinite(by) ? `${Math.round(by * 100)} %` : "all"}`,
  ]);
  return `Worse by more than 25 % since ${date}\n${columns([["", "then", "now", ""], ...lines])}`;
}

/** The machine in a line. */
export function machineText({ date, cpu, cores, kernel, deno, compiler }: Machine): string {
  return `${date.slice(0, 10)}, ${cpu} (${cores} cores), Linux ${kernel}, Deno ${deno}, ${compiler ?? "no C compiler"}`;
}

/**
 * A run as an SVG: histograms of the round trips, and one-way throughput by size.
 *
 * @module
 */

import { BUCKETS_PER_OCTAVE, formatTime } from "../src/cli/bench_measure.ts";
import type { Result, Run } from "./model.ts";
import { CARRIERS, SIZES, sizeText } from "./probes/flows.ts";
import { machineText } from "./report.ts";

const WIDTH = 1010;
const PLOT = { left: 70, width: 640, height: 300 } as const;
const COLOURS = ["#0b6e4f", "#c1121f", "#1d4e89", "#e07a00", "#6a4c93", "#5c677d", "#8a5a00", "#00798c", "#d81159"];

/** A line of a plot: points in 0..1, from the lower left. */
interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** A mark on an axis, 0..1. */
interface Mark {
  readonly at: number;
  readonly text: string;
}

/**
 * Draws a run.
 *
 * @param run The run.
 * @returns An SVG document.
 */
export function plot(run: Run): string {
  const panels = [
    histogramPanel("Round trip of 64 B, steady: share of the samples", run.rows, "rtt/"),
    histogramPanel("Round trip of 64 B, both asleep before each: share of the samples", run.rows, "idle-rtt/"),
    flowPanel(run.rows),
  ].filter((it) => it !== undefined);
  const step = PLOT.height + 90;
  const height = 60 + panels.length * step;
  const body = panels.map((panel, i) => `<g transform="translate(0 ${60 + i * step})">\n${panel}\n</g>`).join("\n");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">
<rect width="${WIDTH}" height="${height}" fill="#fff"/>
<text x="${PLOT.left}" y="30" font-size="14">${escape(machineText(run.machine))}</text>
${body}
</svg>
`;
}

/** Samples by time, on a logarithmic scale. */
function histogramPanel(title: string, rows: readonly Result[], group: string): string | undefined {
  const drawn = rows.filter(({ id, histogram }) => id.startsWith(group) && histogram !== undefined);
  const buckets = drawn.flatMap(({ histogram }) => Object.keys(histogram!).map(Number));
  if (buckets.length === 0) return undefined;
  // The rarest samples would make all else small.
  const [low, high] = [Math.min(...buckets) - 1, Math.max(...drawn.map(commonMost)) + 2 * BUCKETS_PER_OCTAVE];
  const x = (bucket: number) => (bucket - low) / (high - low);
  const shares = drawn.map(({ histogram }) => sharesOf(histogram!));
  const top = Math.max(...shares.flatMap((it) => [...it.values()]));
  const lines = drawn.map(({ title }, i): Line => ({
    name: title,
    points: Array.from({ length: high - low + 1 }, (_, j) => [x(low + j), (shares[i]!.get(low + j) ?? 0) / top]),
  }));
  const marks: Mark[] = [];
  for (let time = 1; time < 1e10; time *= 10) {
    const at = x(Math.log2(time) * BUCKETS_PER_OCTAVE);
    if (at >= 0 && at <= 1) marks.push({ at, text: formatTime(time).replace(/\.0+ /, " ") });
  }
  const percent = [0, 0.25, 0.5, 0.75, 1].map((at): Mark => ({ at, text: `${Math.round(at * top * 100)} %` }));
  return panel(title, lines, marks, percent);
}

/** The bucket that 99 % of a row's samples are not above. */
function commonMost({ histogram }: Result): number {
  let sum = 0;
  for (const [bucket, share] of [...sharesOf(histogram!)].sort(([a], [b]) => a - b)) {
    sum += share;
    if (sum >= 0.99) return bucket;
  }
  return 0;
}

function sharesOf(histogram: Readonly<Record<number, number>>): Map<number, number> {
  const all = Object.values(histogram).reduce((a, b) => a + b, 0);
  return new Map(Object.entries(histogram).map(([bucket, count]) => [Number(bucket), count / all]));
}

/** Bytes a second by size, both on logarithmic scales. */
function flowPanel(rows: readonly Result[]): string | undefined {
  const rates = Object.keys(CARRIERS).map((carrier) =>
    SIZES.map((size) => {
      const value = rows.find(({ id }) => id === `flow/${carrier}/${size}`)?.value;
      return value === undefined ? undefined : value * size;
    })
  );
  const known = rates.flat().filter((it) => it !== undefined);
  if (known.length === 0) return undefined;
  const [low, high] = [Math.floor(Math.log10(Math.min(...known))), Math.ceil(Math.log10(Math.max(...known)))];
  const y = (rate: number) => (Math.log10(rate) - low) / Math.max(1, high - low);
  const x = (index: number) => index / (SIZES.length - 1);
  const lines = Object.values(CARRIERS).map((name, i): Line => ({
    name,
    points: rates[i]!.flatMap((rate, j) => rate === undefined ? [] : [[x(j), y(rate)] as const]),
  }));
  const sizes = SIZES.map((size, i): Mark => ({ at: x(i), text: sizeText(size) }));
  const marks = Array.from({ length: high - low + 1 }, (_, i): Mark => {
    const rate = 10 ** (low + i);
    return {
      at: y(rate),
      text: rate >= 1e9 ? `${rate / 1e9} GB/s` : rate >= 1e6 ? `${rate / 1e6} MB/s` : `${rate / 1e3} kB/s`,
    };
  });
  return panel("One way: bytes a second by size", lines.filter(({ points }) => points.length > 0), sizes, marks);
}

function panel(title: string, lines: readonly Line[], below: readonly Mark[], left: readonly Mark[]): string {
  const { left: x0, width, height } = PLOT;
  const x = (at: number) => (x0 + at * width).toFixed(1);
  const y = (at: number) => (height - at * height).toFixed(1);
  return [
    `<text x="${x0}" y="-10" font-size="14" font-weight="bold">${escape(title)}</text>`,
    ...left.map(({ at, text }) =>
      `<path d="M${x0} ${y(at)}h${width}" stroke="#ddd"/><text x="${x0 - 6}" y="${
        y(at)
      }" dy="4" text-anchor="end">${text}</text>`
    ),
    ...below.map(({ at, text }) =>
      `<path d="M${x(at)} 0v${height}" stroke="#eee"/><text x="${x(at)}" y="${
        height + 18
      }" text-anchor="middle">${text}</text>`
    ),
    ...lines.flatMap(({ name, points }, i) => {
      const colour = COLOURS[i % COLOURS.length];
      const dashes = i >= COLOURS.length ? ` stroke-dasharray="5 3"` : "";
      const path = points.map(([px, py]) => `${x(px)} ${y(py)}`).join("L");
      const legend = i * 18 + 12;
      return [
        `<path d="M${path}" fill="none" stroke="${colour}" stroke-width="1.5"${dashes}/>`,
        `<path d="M${x0 + width + 10} ${legend}h14" stroke="${colour}" stroke-width="3"${dashes}/>`,
        `<text x="${x0 + width + 28}" y="${legend + 4}" font-size="11">${escape(name)}</text>`,
      ];
    }),
  ].join("\n");
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

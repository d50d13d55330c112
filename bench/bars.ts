/**
 * What must be reached, and whether it is.
 *
 * @module
 */

import { formatTime, threeFigures } from "../src/cli/bench_measure.ts";
import type { Result } from "./model.ts";
import { OPERATIONS } from "./probes/control.ts";
import { REGION_SIZES } from "./probes/regions.ts";
import { ratioOf } from "./run.ts";

/** One bar. */
export interface Bar {
  /** What must be so. */
  readonly what: string;
  /** Whether it is; `undefined` when it was not measured. */
  readonly met: boolean | undefined;
  /** What was measured. */
  readonly figure: string;
}

/** Bytes a datagram may seem to allocate: what the counting itself takes. */
const ALLOCATION_NOISE = 1;

/** Timers of the machine's own may wake a process that sleeps, so often a second. */
const WAKE_UP_NOISE = 0.5;

/** Two rates that differ by less are one. */
const RATE_NOISE = 0.05;

/** A figure, how it is written, and whether it is good enough. */
type Check = [figure: number | undefined, show: (figure: number) => string, met: (figure: number) => boolean];

/**
 * Holds the rows against the bars.
 *
 * @param rows What was measured.
 * @returns Every bar.
 */
export function bars(rows: readonly Result[]): Bar[] {
  const value = (id: string) => rows.find((row) => row.id === id)?.value;
  const quotient = (id: string, baseline: string) => ratioOf(rows, id, baseline);
  const times = (figure: number) => `${threeFigures(figure)}x`;
  const atMost = (id: string, baseline: string, most: number): Check => [
    quotient(id, baseline),
    times,
    (figure) => figure <= most,
  ];
  const atLeast = (id: string, baseline: string, least: number): Check => [
    quotient(id, baseline),
    times,
    (figure) => figure >= least,
  ];
  const rate = (id: string, least: number): Check => [
    value(id),
    (figure) => `${threeFigures(figure / 1e6)} M/s`,
    (figure) => figure >= least,
  ];
  const time = (id: string, most: number): Check => [value(id), formatTime, (figure) => figure <= most];
  const count = (figure: number | undefined, most: number, unit: string): Check => [
    figure,
    (it) => `${threeFigures(it)} ${unit}`,
    (it) => it <= most,
  ];
  const worst = (all: readonly (number | undefined)[], pick: (...all: number[]) => number) => {
    const known = all.filter((it) => it !== undefined);
    return known.length === 0 ? undefined : pick(...known);
  };
  const geometricMean = (all: readonly (number | undefined)[]) => {
    const known = all.filter((it) => it !== undefined);
    return known.length === 0 ? undefined : Math.exp(known.reduce((sum, it) => sum + Math.log(it), 0) / known.length);
  };
  const hot = ["alloc/sendTo-tryReceiveInto", "alloc/sendTo-receiveIntoSync", "alloc/round-trip"];
  const copies = REGION_SIZES.flatMap((size) => ["in", "out"].map((way) => [way, size] as const));

  const all: readonly [what: string, check: Check][] = [
    ["round trip, spinning: at most 4x C's", atMost("rtt/dg-spin", "rtt/c-shm", 4)],
    ["... aim: 2x C's", atMost("rtt/dg-spin", "rtt/c-shm", 2)],
    ["... Deno's Unix socket takes at least 60x as long", atLeast("rtt/deno-unix", "rtt/dg-spin", 60)],
    ["await receive(), steady: at most 2x the spinning one", atMost("rtt/dg-await", "rtt/dg-spin", 2)],
    [
      "await receive(), parked: at most 1.3x Deno's Unix socket",
      atMost("idle-rtt/dg-await", "idle-rtt/deno-unix", 1.3),
    ],
    ["... no thread of the pool held", count(value("idle/threads"), 0, "threads")],
    ["one way, 64 B: at least 4 M/s", rate("flow/dg/64", 4e6)],
    ["... at least 10x Deno's Unix socket", atLeast("flow/dg/64", "flow/deno-unix/64", 10)],
    ["one way, 1 KiB: at least 2 M/s", rate("flow/dg/1024", 2e6)],
    ["one way, 64 KiB: at least 50 % of C's ring", atLeast("flow/dg/65536", "flow/c-ring/65536", 0.5)],
    ["bulk copy, 4 MiB blocks: at least 90 % of C's memcpy, all sizes together", [
      // One size by itself says little: about as large as the caches, it is the placing of pages that decides.
      geometricMean(
        copies.map(([way, size]) => quotient(`region/copy-${way}/${size}`, `region/c-copy-${way}/${size}`)),
      ),
      times,
      (figure) => figure >= 0.9,
    ]],
    ["record of 128 B, uncontended read: at most 100 ns", time("region/record-read", 100)],
    ["lookup: at most 2x Deno's Unix socket", atMost("control/lookup", "rtt/deno-unix", 2)],
    ["create and destroy: at most 3x", atMost("control/create-destroy", "rtt/deno-unix", 3)],
    ["attach and detach: at most 4x", atMost("control/attach-detach", "rtt/deno-unix", 4)],
    ["openVmci, again in a process: at most 15x", atMost("control/open-again", "rtt/deno-unix", 15)],
    ["openVmci, first in a process: about 25 ms", time("control/open-process", 27.5e6)],
    ["openVmci, first on the machine: about 80 ms", time("control/open-machine", 88e6)],
    ["... at most 2x a bare thread of Deno's", atMost("control/open-machine", "control/thread", 2)],
    ["allocated a datagram, own buffer: nothing", count(worst(hot.map(value), Math.max), ALLOCATION_NOISE, "B")],
    ["idle, 100 parked receivers: no wake-ups", count(value("idle/parked"), WAKE_UP_NOISE, "a second")],
    ...Object.keys(OPERATIONS).map((operation): [string, Check] => [
      `growth, ${operation}: at most 1.5x on a full fabric`,
      atMost(`growth/${operation}/full`, `growth/${operation}/empty`, 1.5),
    ]),
    ["64 senders: no less throughput than 1", atLeast("fair/64-senders", "fair/1-sender", 1 - RATE_NOISE)],
    ["... none has more than 2x an equal share", count(value("fair/most"), 2, "of it")],
    ["... none has less than half of it", [
      value("fair/least"),
      (figure) => `${threeFigures(figure)} of it`,
      (figure) => figure >= 0.5,
    ]],
  ];
  return all.map(([what, [figure, show, met]]) => ({
    what,
    met: figure === undefined ? undefined : met(figure),
    figure: figure === undefined ? "-" : show(figure),
  }));
}

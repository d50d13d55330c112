/**
 * Processes that die and system calls that fail, as `tests/faults/` has them.
 *
 * @module
 */

import { deathMatrix, type FaultFigures } from "../faults/death_matrix.ts";
import { failCalls } from "../faults/hostile_support/syscalls_plan.ts";
import { type TakeoverOptions, takeoverUnderLoad } from "../faults/takeover_under_load.ts";
import "../ffi/support.ts";
import { type Figures, left, type SoakOptions, type SoakPiece } from "./piece.ts";

/** The broker is killed so often, whatever time there is; that is what must be shown. */
const KILLS = 50;
/** The daemon too, as far as there is time, but so often at least. */
const FEWEST_RESTARTS = 20;
/** So often it is stopped, in between. */
const STOPS = 10;
/** Seconds that a process is stopped, in turn. */
const STOPPED = [1, 3, 1, 2, 1, 4];

function figuresOf(name: string, { cases, faults, sent, checked, ...told }: FaultFigures): Figures {
  return {
    cases,
    "faults injected": faults,
    "datagrams sent": sent,
    "datagrams checked": checked,
    [`ms until survivors of ${name} knew (median)`]: told.survivorsKnewMs.p50,
    [`ms until survivors of ${name} knew (most)`]: told.survivorsKnewMs.max,
    [`ms that others' traffic paused at most (${name})`]: told.longestPauseMs,
  };
}

/** Every role dies at every step, as far as there is time. */
export const deaths: SoakPiece = {
  name: "deaths",
  share: 10,
  async run(options: SoakOptions): Promise<Figures> {
    return figuresOf(
      "a death",
      await deathMatrix({ seed: options.seed, minutes: left(options) / 60_000, stopped: STOPPED }),
    );
  },
};

async function takeOver(name: string, options: TakeoverOptions): Promise<Figures> {
  const figures = await takeoverUnderLoad(options);
  return {
    ...figuresOf(name, figures),
    [`times that the broker was killed (${name})`]: figures.kills,
    [`times that the broker was stopped (${name})`]: figures.stops,
    [`calls answered (${name})`]: figures.calls,
    [`calls repeated (${name})`]: figures.repeated,
    [`ms that a call took at most (${name})`]: figures.longestCallMs,
  };
}

/** Whoever has the broker is killed under load. */
export const takeover: SoakPiece = {
  name: "takeover",
  share: 2,
  run: ({ seed }: SoakOptions): Promise<Figures> =>
    takeOver("takeover", { kills: KILLS, stops: STOPS, seed, stopped: STOPPED }),
};

/** The daemon is killed and started again under load; or stopped for a while instead. */
export const restart: SoakPiece = {
  name: "restart",
  share: 4,
  run: ({ seed, until, all }: SoakOptions): Promise<Figures> =>
    takeOver("a restart", {
      kills: KILLS,
      stops: STOPS,
      ...(all ? {} : { fewest: FEWEST_RESTARTS, until }),
      seed,
      daemon: true,
      stopped: STOPPED,
    }),
};

/**
 * Each system call fails in each way, in each operation and in each test of the conformance suite, as far as there is
 * time; `--part 2/10` is the second of ten parts that make up all there is.
 */
export const systemCalls: SoakPiece = {
  name: "system-calls",
  share: 8,
  async run(options: SoakOptions): Promise<Figures> {
    const { seed, part, all } = options;
    const { there, planned, cases, faults, survived, problems } = await failCalls({
      seed,
      ...(part === undefined ? {} : { part }),
      ...(all ? {} : { seconds: left(options) / 1000 }),
      onProblem: console.error,
      onProgress: ({ cases, planned }) => console.error(`${cases} of ${planned} tried`),
    });
    if (problems.length > 0) throw new Error(`${problems.length} failures of ${cases} did harm`);
    return {
      cases,
      "faults injected": faults,
      "system calls that failed": faults,
      "of them without harm to the call": survived,
      "failures that there are": there,
      "of them to be tried": planned,
      "of them tried": cases,
    };
  },
};

/**
 * The matrix of roles and steps: which cases there are, which of them are run, and what they gave.
 *
 * @module
 */

import { Program } from "../support/program.ts";
import { type BrokerCase, type BrokerKind, BrokerRoom, describeBrokerCase } from "./broker_deaths.ts";
import { type DeathCase, DeathRoom, describeCase } from "./deaths.ts";
import { operations } from "./operations.ts";
import { FabricDirectory } from "./support/player.ts";
import { random, spread } from "./support/watch.ts";
import type { Steps, Strike } from "./support/stage.ts";

/** How much of the matrix is run: so many cases, or as many as fit into a time, or without both each case once. */
export interface MatrixOptions {
  /** The order of the cases follows from it. */
  readonly seed: number;
  readonly cases?: number;
  readonly minutes?: number;
  /** Seconds that a process is stopped, in turn; 1 without it. */
  readonly stopped?: readonly number[];
  /** Told of every case before it is run. */
  readonly onCase?: (description: string) => void;
}

/** What was run, and what came of it. */
export interface FaultFigures {
  readonly cases: number;
  /** Processes that were killed or stopped. */
  readonly faults: number;
  /** Datagrams that were sent, as their senders say. */
  readonly sent: number;
  /** Datagrams that came, once each and in order, as their receivers say. */
  readonly checked: number;
  /** Milliseconds from the blow until a survivor was told. */
  readonly survivorsKnewMs: { readonly p50: number; readonly max: number };
  /** Milliseconds that others' traffic paused at most. */
  readonly longestPauseMs: number;
}

/** One of so many processes is stopped instead of killed. */
const STOPPED_SHARE = 12;

/** All cases of operations that take so many steps. */
export function allCases(steps: ReadonlyMap<string, Steps>): DeathCase[] {
  const all: DeathCase[] = [];
  for (const [name, { calls, stores }] of steps) {
    const add = (at: Strike["at"], nth = 0) => all.push({ name, strike: { blow: "SIGKILL", at, nth } });
    add("before");
    for (let nth = 0; nth < calls; nth++) add("call", nth);
    // Just after a call is just before the next, as long as nothing is stored between them.
    for (let nth = 0; nth < calls; nth++) add("called", nth);
    for (let nth = 0; nth < stores; nth++) add("store", nth);
    add("after");
  }
  return all;
}

/** An order in which every operation has its turn before one has its second, and which follows from a seed. */
export function inTurns(cases: readonly DeathCase[], seed: number): DeathCase[] {
  const draw = random(seed);
  const byName = Map.groupBy(cases, ({ name }) => name);
  const ranked = [...byName.values()].flatMap((group) =>
    group.map((one) => ({ one, luck: draw() })).sort((a, b) => a.luck - b.luck).map(({ one, luck }, turn) => ({
      one,
      turn,
      luck,
    }))
  );
  ranked.sort((a, b) => a.turn - b.turn || a.luck - b.luck);
  return ranked.map(({ one }, i) =>
    i % STOPPED_SHARE === STOPPED_SHARE - 1 ? { ...one, strike: { ...one.strike, blow: "SIGSTOP" } } : one
  );
}

/** Runs as much of the matrix as is asked for; see {@linkcode MatrixOptions}. */
export async function deathMatrix(options: MatrixOptions): Promise<FaultFigures> {
  const { cases, minutes } = options;
  const sum = new Sum();
  const part = (share: number): MatrixOptions => ({
    ...options,
    ...(cases === undefined ? {} : { cases: Math.round(cases * share) }),
    ...(minutes === undefined ? {} : { minutes: minutes * share }),
  });
  await clientDeaths(part(0.6), sum);
  {
    await using directory = new FabricDirectory();
    const device = `${directory.path}/daemon`;
    await using daemon = new Program("cli.ts", ["fabric", "serve", "--socket", device]);
    await daemon.printed("listening at");
    await clientDeaths(part(0.1), sum, { device, pid: daemon.pid });
  }
  await brokerDeaths("embedded", part(0.2), sum);
  await brokerDeaths("daemon", part(0.1), sum);
  return sum.figures();
}

/** Whether there is still something to do. */
class Budget {
  readonly #cases: number;
  readonly #end: number;
  /** Whether each case is run once, and no more. */
  readonly once: boolean;
  #run = 0;

  constructor({ cases, minutes }: MatrixOptions) {
    this.once = cases === undefined && minutes === undefined;
    this.#cases = cases ?? Infinity;
    this.#end = minutes === undefined ? Infinity : performance.now() + minutes * 60_000;
  }

  /** Whether another case is to be run; it is counted. */
  next(): boolean {
    return this.#run++ < this.#cases && performance.now() < this.#end;
  }
}

/** What was run so far. */
class Sum {
  #cases = 0;
  #pause = 0;
  readonly #knew: number[] = [];
  sent = 0;
  checked = 0;

  add(knew: readonly number[], pause: number): void {
    this.#cases++;
    this.#knew.push(...knew);
    this.#pause = Math.max(this.#pause, pause);
  }

  figures(): FaultFigures {
    return {
      cases: this.#cases,
      faults: this.#cases,
      sent: this.sent,
      checked: this.checked,
      survivorsKnewMs: spread(this.#knew),
      longestPauseMs: Math.round(this.#pause),
    };
  }
}

async function clientDeaths(
  options: MatrixOptions,
  sum: Sum,
  daemon?: { readonly device: string; readonly pid: number },
): Promise<void> {
  const { seed, stopped = [1], onCase } = options;
  await using room = await DeathRoom.make(daemon);
  const all = inTurns(allCases(await room.measure()), seed);
  const budget = new Budget(options);
  for (let i = 0; budget.next() && (i < all.length || !budget.once); i++) {
    const one = all[i % all.length]!;
    onCase?.(describeCase(one));
    const seconds = stopped[Math.floor(i / STOPPED_SHARE) % stopped.length]!;
    const { knew, pause } = await room.run(one, seconds);
    sum.add(knew === undefined ? [] : [knew], pause);
  }
  const { sent, checked } = await room.datagrams();
  sum.sent += sent;
  sum.checked += checked;
}

/** What is done elsewhere has another broker. */
const LEFT_OUT: readonly string[] = ["open where nobody is"];

/** So many blows to a broker at one operation are compared with one course without a blow, where not all are run. */
const BLOWS = 2;

async function brokerDeaths(kind: BrokerKind, options: MatrixOptions, sum: Sum): Promise<void> {
  const { seed, stopped = [1], onCase } = options;
  await using room = await BrokerRoom.make();
  const draw = random(seed);
  const names = Object.keys(operations).filter((name) => !LEFT_OUT.includes(name));
  const budget = new Budget(options);
  for (let i = 0, run = 0; i < names.length || !budget.once; i++) {
    const left = names.length - i % names.length;
    if (left === names.length) names.sort();
    // Drawn without putting back, round after round.
    const at = i % names.length + Math.floor(draw() * left);
    [names[i % names.length], names[at]] = [names[at]!, names[i % names.length]!];
    const name = names[i % names.length]!;
    const { calls } = await room.run({ kind, name, strike: undefined }, 0);
    const strikes = Array.from({ length: calls! }, (_, nth) => ({ at: "called" as const, nth, luck: draw() }));
    if (!budget.once) strikes.sort((a, b) => a.luck - b.luck).splice(BLOWS);
    for (const { at, nth } of strikes) {
      if (!budget.next()) return;
      const blow = ++run % STOPPED_SHARE === 0 ? "SIGSTOP" : "SIGKILL";
      const one: BrokerCase = { kind, name, strike: { blow, at, nth } };
      onCase?.(describeBrokerCase(one));
      const { knew, pause, sent, checked } = await room.run(
        one,
        stopped[Math.floor(run / STOPPED_SHARE) % stopped.length]!,
      );
      sum.add(knew, pause);
      sum.sent += sent;
      sum.checked += checked;
    }
  }
}

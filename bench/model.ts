/**
 * What is measured, and what comes out.
 *
 * @module
 */

/** What a row's figure is. */
export type Unit = "time" | "rate" | "throughput" | "bytes" | "count";

/** Whether less of it is better. */
export const LESS_IS_BETTER: Readonly<Record<Unit, boolean>> = {
  time: true,
  rate: false,
  throughput: false,
  bytes: true,
  count: true,
};

/** One line of the table. */
export interface Row {
  /** What it is called on the command line and in JSON; the part before the first slash is its group. */
  readonly id: string;
  /** What it is called in the table. */
  readonly title: string;
  /** Its figure: nanoseconds, operations a second, bytes a second, bytes, or a number. */
  readonly unit: Unit;
  /** The row that its figure is divided by. */
  readonly baseline?: string;
}

/** What one round gave for a row. */
export interface Measure {
  /** The figure; the median of the samples, where there are many. */
  readonly value: number;
  readonly p99?: number;
  readonly p999?: number;
  readonly histogram?: Readonly<Record<number, number>>;
}

/** What one round gave for the rows of a probe. */
export type Measures = Readonly<Record<string, Measure>>;

/** Measures several rows at once. */
export interface Probe {
  readonly rows: readonly Row[];
  /** Once a run, and not in every round: it takes long and what it measures is no time. */
  readonly once?: boolean;
  /**
   * Measures.
   *
   * @throws {Unavailable} When that cannot be measured here.
   */
  measure(): Promise<Measures>;
}

/** Why something cannot be measured on this machine. The table says so. */
export class Unavailable extends Error {
  override readonly name = "Unavailable";
}

/** What all rounds gave for a row. */
export interface Result extends Row {
  /** The median of the rounds' figures; absent when it could not be measured. */
  readonly value?: number;
  readonly p99?: number;
  readonly p999?: number;
  /** The figure divided by the baseline's of the same round, the median of the rounds. */
  readonly ratio?: number;
  /** Each round's figure. */
  readonly rounds: readonly (number | null)[];
  /** All rounds' samples together. */
  readonly histogram?: Readonly<Record<number, number>>;
  /** Why there is no figure. */
  readonly unavailable?: string;
}

/** The machine, and when. */
export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly deno: string;
  readonly v8: string;
  readonly compiler: string | null;
}

/** Everything that a run found: what `--json` prints, and `recorded.json` keeps. */
export interface Run {
  readonly machine: Machine;
  /** How many rounds; `disturbed` of their measurements had to share the processor with others all the same. */
  readonly rounds: number;
  readonly quick: boolean;
  readonly disturbed: number;
  readonly rows: readonly Result[];
}

/** The group that a row is in. */
export function groupOf({ id }: { readonly id: string }): string {
  return id.slice(0, id.indexOf("/"));
}

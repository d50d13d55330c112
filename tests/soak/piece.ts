/**
 * What `deno task soak` is made of.
 *
 * @module
 */

/** How one piece runs. */
export interface SoakOptions {
  /** What its choices follow from. */
  readonly seed: number;
  /** Which part of what can be enumerated; all of it without it. */
  readonly part?: { readonly number: number; readonly of: number } | undefined;
  /** Whether it goes on until all is done, whatever time that takes. */
  readonly all?: boolean | undefined;
  /** When it should end, as `Date.now()` says it; what is under way is brought to its end. */
  readonly until: number;
}

/** What was done, by name. The same name in several pieces is added up. */
export type Figures = Readonly<Record<string, number>>;

/** One piece. It throws when something is not as it should be. */
export interface SoakPiece {
  /** As `--only` names it. */
  readonly name: string;
  /** How much of the time is its own, beside the others'. */
  readonly share: number;
  /** Runs it. */
  run(options: SoakOptions): Promise<Figures>;
}

/** The time that is left in milliseconds. */
export function left({ until }: SoakOptions): number {
  return until - Date.now();
}

/**
 * What a command of the `vmci` tool is.
 *
 * @module
 */

/** The options of a command by their long names. Each command also has `--json` and `--help`. */
export interface OptionNames {
  /** Options with a value; the last one counts. */
  readonly texts: readonly string[];
  /** Options with a value that may be given many times. */
  readonly lists: readonly string[];
  /** Options without a value. */
  readonly flags: readonly string[];
  /** Short names, by the long one. */
  readonly short: Readonly<Record<string, string>>;
}

/** A command line, taken apart. */
export interface ParsedOptions {
  /** The values of `texts`; absent ones were not given. */
  readonly texts: Readonly<Record<string, string | undefined>>;
  /** The values of `lists`. */
  readonly lists: Readonly<Record<string, readonly string[]>>;
  /** The flags that were given. */
  readonly flags: ReadonlySet<string>;
  /** What is no option. */
  readonly operands: readonly string[];
  /** Options that do not exist, as they were written. */
  readonly unknown: readonly string[];
}

/** Takes a command line apart. */
export type Parser = (args: readonly string[], names: OptionNames) => ParsedOptions;

/** One command. */
export interface Command {
  /** The words that call it. */
  readonly name: string;
  /** What it is for, in half a line. */
  readonly summary: string;
  /** Everything `--help` says. */
  readonly help: string;
  /** Its options with one value, beside `--device`. */
  readonly texts?: readonly string[];
  /** Its options that may be given many times. */
  readonly lists?: readonly string[];
  /** Its options without a value, beside `--json` and `--help`. */
  readonly flags?: readonly string[];
  /**
   * Does it.
   *
   * @param options The command line.
   * @param json Whether results are to be printed as one line of JSON.
   * @returns The exit code.
   * @throws {UsageError} When the command line does not fit.
   * @throws {VmciError} When it failed.
   */
  run(options: ParsedOptions, json: boolean): Promise<number>;
}

/** The exit codes. */
export const ExitCode = {
  /** Done. */
  OK: 0,
  /** It could not be done. */
  FAILED: 1,
  /** The command line does not fit. */
  USAGE: 2,
} as const;

/** The command line does not fit; the message says how. */
export class UsageError extends Error {
  /** The name of the class. */
  override readonly name = "UsageError";
}

/** Prints a result as one line of JSON. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value));
}

/** Throws when there are operands, for commands that have none. */
export function refuseOperands({ operands }: ParsedOptions): void {
  if (operands.length > 0) throw new UsageError(`there is nothing to do with '${operands[0]}'`);
}

/**
 * Reads a number that a user wrote.
 *
 * @param what What it is, for the error.
 * @param text What was written.
 * @param least The least it may be.
 * @param most The most it may be.
 * @returns The number.
 * @throws {UsageError} When it is not such a number.
 */
export function readNumber(what: string, text: string, least: number, most: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw new UsageError(`${what} must be a whole number from ${least} to ${most}: '${text}'`);
}

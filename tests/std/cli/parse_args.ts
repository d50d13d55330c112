/**
 * A stand-in for `@std/cli/parse-args` where JSR cannot be reached. It follows the original in what it accepts, in its
 * types and in its traps:
 *
 * - A value or positional argument that looks like a number becomes one, unless the option is declared a string (`_` for
 *   positionals).
 * - `--name=` is not an empty value: it is an unknown option called `name=`.
 * - An unknown option takes the next argument as its value, unless that begins with `-`.
 *
 * Dotted names (`--a.b`) are the one thing left out: here they are names like any other.
 *
 * @module
 */

/** Names of options: one, or a list. */
type Names = string | readonly string[];

/** What {@linkcode parseArgs} is told about the options. */
export interface ParseOptions {
  /** Put what follows `--` into the result's `--`, not into `_`. */
  "--"?: boolean;
  /** Other names of an option. Each gets the same value. */
  alias?: Readonly<Record<string, Names>>;
  /** Options that take no value and are false by default; `true`: all with two hyphens and no `=`. */
  boolean?: boolean | Names;
  /** Values of options that are not given. */
  default?: Readonly<Record<string, unknown>>;
  /** Everything after the first positional argument is positional. */
  stopEarly?: boolean;
  /** Options whose value is never turned into a number. */
  string?: Names;
  /** Options that may be given many times; their value is an array, empty by default. */
  collect?: Names;
  /** Options for which `--no-NAME` means false. */
  negatable?: Names;
  /** Called for each argument that is not declared, positional ones included; `false` leaves it out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

type NamesIn<T> = T extends string ? T : T extends readonly (infer N extends string)[] ? N : never;
type Declared<O, K extends PropertyKey> = K extends keyof O ? Exclude<NamesIn<O[K]>, "_"> : never;
type Widen<T> = T extends string ? string : T extends number ? number : T extends boolean ? boolean : T;
type DefaultOf<O, N> = O extends { default: infer D } ? (N extends keyof D ? Widen<D[N]> : undefined) : undefined;
type AliasesOf<O, N> = O extends { alias: infer A } ? (N extends keyof A ? NamesIn<A[N]> : never) : never;
type Item<O, N> = N extends Declared<O, "string"> ? string : N extends Declared<O, "boolean"> ? boolean : unknown;
type Negated<O, N> = N extends Declared<O, "negatable"> ? false : never;
type Given<O, N> = N extends Declared<O, "collect"> ? Item<O, N>[] : Item<O, N>;
type DefaultNames<O> = O extends { default: infer D } ? keyof D & string : never;
type KnownNames<O> = Declared<O, "string"> | Declared<O, "boolean"> | Declared<O, "collect">;
/** Declared strings that are neither collected nor have a default may be absent. */
type AbsentNames<O> = Exclude<Declared<O, "string">, Declared<O, "collect"> | DefaultNames<O>>;
type PresentNames<O> = Exclude<KnownNames<O> | DefaultNames<O>, AbsentNames<O>>;

type Values<O> =
  & { [N in PresentNames<O> as N | AliasesOf<O, N>]: Given<O, N> | Negated<O, N> | Exclude<DefaultOf<O, N>, undefined> }
  & { [N in AbsentNames<O> as N | AliasesOf<O, N>]?: Given<O, N> | Negated<O, N> };

/** What {@linkcode parseArgs} answers with: typed as soon as a string, boolean or collected option is declared. */
export type Args<O extends ParseOptions = ParseOptions> =
  // deno-lint-ignore no-explicit-any
  & ([KnownNames<O>] extends [never] ? Record<string, any> : Record<string, unknown> & Values<O>)
  & { _: (string | number)[] }
  & (O extends { "--": true } ? { "--": string[] } : unknown);

type Value = string | number | boolean;

function list(names: boolean | Names | undefined): readonly string[] {
  return typeof names === "string" ? [names] : Array.isArray(names) ? names : [];
}

function numberIfLike(text: string): string | number {
  const value = Number(text);
  return /\S/.test(text) && Number.isFinite(value) ? value : text;
}

function isBooleanText(text: string | undefined): boolean {
  return text === "true" || text === "false";
}

/**
 * Parses command line arguments.
 *
 * @param args The arguments, as in `Deno.args`.
 * @param options What is known about the options.
 * @returns Each option under its name, and under each of its aliases; positional arguments under `_`.
 */
export function parseArgs<const O extends ParseOptions = Record<never, never>>(args: string[], options?: O): Args<O> {
  const known: ParseOptions = options ?? {};
  const result: Record<string, unknown> & { _: (string | number)[] } = { _: [] };

  // Each name of an option -> its other names.
  const others = new Map<string, readonly string[]>();
  for (const [name, given] of Object.entries(known.alias ?? {})) {
    const group = [name, ...list(given)];
    for (const one of group) others.set(one, group.filter((other) => other !== one));
  }
  const withAliases = (names: boolean | Names | undefined) =>
    new Set(list(names).filter(Boolean).flatMap((name) => [name, ...others.get(name) ?? []]));
  const booleans = withAliases(known.boolean);
  const strings = withAliases(known.string);
  const collected = withAliases(known.collect);
  const negatable = withAliases(known.negatable);
  const isBoolean = (name: string) => booleans.has(name) || (others.get(name) ?? []).some((it) => booleans.has(it));

  function set(name: string, given: Value, arg: string, collect = true): void {
    const declared = booleans.has(name) || strings.has(name) || others.has(name) ||
      (known.boolean === true && /^--[^=]+$/.test(arg));
    if (!declared && known.unknown?.(arg, name, given) === false) return;
    const value = typeof given === "string" && !strings.has(name) ? numberIfLike(given) : given;
    for (const one of [name, ...others.get(name) ?? []]) {
      if (!collect || !collected.has(one)) {
        result[one] = value;
      } else {
        const before = result[one];
        result[one] = Array.isArray(before) ? [...before, value] : before ? [before, value] : [value];
      }
    }
  }

  /** Sets `name` to what follows it, or to what its presence alone means. True if an argument was taken. */
  function setByNext(name: string, arg: string, next: string | undefined, mayTake: boolean): boolean {
    if (next && mayTake && !isBoolean(name)) set(name, next, arg);
    else if (isBooleanText(next)) set(name, next === "true", arg);
    else {
      set(name, strings.has(name) ? "" : true, arg);
      return false;
    }
    return true;
  }

  /** `--name`, `--name=value`, `--name value`, `--no-name`. True if the next argument was taken. */
  function long(arg: string, next: string | undefined): boolean {
    const [, name = "", value] = /^--(.+?)(?:=(.+))?$/s.exec(arg) ?? [];
    const positive = name.replace(/^no-(?=.)/s, "");
    if (value !== undefined) {
      set(positive, booleans.has(positive) ? value !== "false" : value, arg);
      return false;
    }
    if (positive !== name && negatable.has(positive)) {
      set(positive, false, arg, false);
      return false;
    }
    return setByNext(name, arg, next, known.boolean !== true && !next?.startsWith("-"));
  }

  /** `-a`, `-abc`, `-n5`, `-n=5`, `-n 5`. True if the next argument was taken. */
  function short(arg: string, next: string | undefined): boolean {
    for (let at = 1; at < arg.length - 1; at++) {
      const letter = arg.charAt(at);
      const rest = arg.slice(at + 1);
      if (rest === "-") {
        set(letter, rest, arg);
        continue;
      }
      const [, value] = /=(.+)/.exec(rest) ?? [];
      const isLetter = /[A-Za-z]/.test(letter);
      const ends = isLetter && value !== undefined
        ? value
        : (isLetter && /-?\d+(\.\d*)?(e-?\d+)?$/.test(rest)) || (rest.length > 1 && /^\W/.test(rest))
        ? rest
        : undefined;
      if (ends !== undefined) {
        set(letter, ends, arg);
        return false;
      }
      set(letter, strings.has(letter) ? "" : true, arg);
    }
    const last = arg.slice(-1);
    return last !== "-" && setByNext(last, arg, next, next !== undefined && !/^--?[^-]/.test(next));
  }

  const end = args.indexOf("--");
  const options_ = end < 0 ? args : args.slice(0, end);
  const after = end < 0 ? [] : args.slice(end + 1);
  for (let i = 0; i < options_.length; i++) {
    const arg = options_[i]!;
    if (/^--./s.test(arg)) {
      if (long(arg, options_[i + 1])) i++;
    } else if (/^-./s.test(arg)) {
      if (short(arg, options_[i + 1])) i++;
    } else {
      if (known.unknown?.(arg) !== false) result._.push(strings.has("_") ? arg : numberIfLike(arg));
      if (known.stopEarly) {
        result._.push(...options_.slice(i + 1));
        break;
      }
    }
  }

  for (const [name, value] of Object.entries(known.default ?? {})) {
    if (Object.hasOwn(result, name)) continue;
    for (const one of [name, ...others.get(name) ?? []]) result[one] = value;
  }
  for (const name of [...booleans, ...strings]) {
    if (Object.hasOwn(result, name)) continue;
    if (collected.has(name)) result[name] = [];
    else if (booleans.has(name)) result[name] = false;
  }
  if (known["--"]) result["--"] = after;
  else result._.push(...after);
  return result as Args<O>;
}

/**
 * The `vmci` command: serves a fabric, and looks into one that runs.
 *
 *     deno run --allow-ffi jsr:@vmci/vmci/cli --help
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import type { OptionNames, ParsedOptions } from "./src/cli/command.ts";
import { run } from "./src/cli/main.ts";

/**
 * Runs the `vmci` command.
 *
 * @param args The command line, such as `["fabric", "status", "--json"]`.
 * @returns The exit code: 0 done, 1 failed, 2 wrong usage.
 *
 * @example
 * ```ts
 * import { main } from "@vmci/vmci/cli";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await main(["--version"]), 0);
 * ```
 */
export function main(args: readonly string[]): Promise<number> {
  return run(args, parse);
}

function parse(args: readonly string[], { texts, lists, flags, short }: OptionNames): ParsedOptions {
  const unknown: string[] = [];
  const parsed: Record<string, unknown> = parseArgs([...args], {
    string: ["_", ...texts, ...lists],
    boolean: [...flags],
    collect: [...lists],
    alias: short,
    unknown: (arg: string, key?: string) => {
      if (key !== undefined) unknown.push(arg);
      return key === undefined;
    },
  });
  return {
    texts: Object.fromEntries(texts.map((name) => [name, parsed[name] as string | undefined])),
    lists: Object.fromEntries(lists.map((name) => [name, parsed[name] as string[]])),
    flags: new Set(flags.filter((name) => parsed[name] === true)),
    operands: parsed._ as string[],
    unknown,
  };
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);

/**
 * Bundles the broker's thread, with all it imports, into one string in a module of its own: the only form in which a
 * thread starts from JSR, from a bundle and from a compiled program alike.
 *
 * The module carries a digest of the sources and of the string, so whether it is fresh can be told without bundling, and
 * with another version of Deno (whose bundler may write the same program in other words).
 *
 *     deno task build:thread            write it
 *     deno task build:thread --check    only say whether it is fresh: exit code 1 when it is not
 *
 * @module
 */

import { createHash } from "node:crypto";
import { deno, moduleGraph, reachable, ROOT } from "./deno.ts";

/** The thread's program, and the module made of it. */
export const THREAD_ENTRY = "src/fabric/local/broker_thread.ts";
export const THREAD_SOURCE = "src/fabric/local/broker_thread_source.ts";

/** A digest of every source the thread is made of, and of the bundle made of them. */
async function digest(bundle: string): Promise<string> {
  const sources = reachable(await moduleGraph([THREAD_ENTRY]), THREAD_ENTRY, "code");
  if (sources.has(THREAD_SOURCE)) throw new Error(`Cannot bundle ${THREAD_ENTRY}: it imports its own bundle`);
  const hash = createHash("sha256").update(bundle);
  for (const source of [...sources].filter((it) => !it.startsWith("node:")).sort()) {
    const text = await Deno.readTextFile(ROOT + source);
    hash.update(`\0${source}\0`).update(text.replaceAll("\r\n", "\n"));
  }
  return hash.digest("hex");
}

/** The generated module's text. */
async function threadModule(): Promise<string> {
  const { ok, stdout, stderr } = await deno([
    "bundle",
    "--quiet",
    "--format=cjs",
    "--minify",
    "--keep-names",
    THREAD_ENTRY,
  ]);
  if (!ok) throw new Error(`Cannot bundle ${THREAD_ENTRY}: ${stderr}`);
  const bundle = `(function(require){"use strict";${stdout.trim()}})\n//# sourceURL=vmci-broker-thread.js`;
  const foreign = [...bundle.matchAll(/\brequire\(\s*"(?!node:)([^"]+)"/g)].map((it) => it[1]);
  if (foreign.length > 0) throw new Error(`Cannot use the bundle of ${THREAD_ENTRY}: it imports ${foreign.join(", ")}`);
  return `// Made by \`deno task build:thread\` from ${THREAD_ENTRY.split("/").at(-1)}: do not edit.
// sha256 of sources and text: ${await digest(bundle)}
// deno-fmt-ignore-file
// deno-lint-ignore-file

/** The program of the broker's thread: an expression, a function of what gives it the modules of Node. */
export const BROKER_THREAD_PROGRAM: string = ${JSON.stringify(bundle)};
`;
}

/** Why the generated module is not fresh; undefined if it is. */
export async function staleness(): Promise<string | undefined> {
  const text = await Deno.readTextFile(ROOT + THREAD_SOURCE).catch(() => undefined);
  if (text === undefined) return `${THREAD_SOURCE} is missing`;
  const [, claimed] = /^\/\/ sha256 of sources and text: ([0-9a-f]{64})$/m.exec(text) ?? [];
  const [, literal] = /^export const BROKER_THREAD_PROGRAM: string = (".*");$/m.exec(text) ?? [];
  if (claimed === undefined || literal === undefined) return `${THREAD_SOURCE} is not what build:thread writes`;
  return await digest(JSON.parse(literal)) === claimed
    ? undefined
    : `${THREAD_SOURCE} does not belong to the present sources of ${THREAD_ENTRY}`;
}

if (import.meta.main) {
  const why = await staleness();
  if (why === undefined) {
    console.log(`${THREAD_SOURCE} is fresh.`);
  } else if (Deno.args.includes("--check")) {
    console.error(`${why}. Run: deno task build:thread`);
    Deno.exit(1);
  } else {
    const text = await threadModule();
    await Deno.writeTextFile(ROOT + THREAD_SOURCE, text);
    console.log(`${THREAD_SOURCE}: ${text.length} bytes written.`);
  }
}

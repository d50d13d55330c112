/**
 * Bundles both sample applications and the `vmci` command into one file of JavaScript each, in `dist/`, that runs with
 * `deno run --allow-ffi`.
 *
 * @module
 */

import { SAMPLES } from "./compile.ts";
import { deno, ROOT, type Run } from "./deno.ts";

/** Bundles one program of the project. */
export async function bundle(entry: string, output: string): Promise<Run> {
  return await deno(["bundle", "--quiet", "--output", output, entry]);
}

if (import.meta.main) {
  await Deno.mkdir(`${ROOT}dist`, { recursive: true });
  for (const entry of [...SAMPLES.map((it) => `examples/${it}.ts`), "cli.ts"]) {
    const output = `dist/${entry.split("/").at(-1)?.replace(/\.ts$/, ".js")}`;
    const { ok, stderr } = await bundle(entry, ROOT + output);
    if (!ok) {
      console.error(`Cannot bundle ${entry}: ${stderr}`);
      Deno.exit(1);
    }
    console.log(`${output}: ${((await Deno.stat(ROOT + output)).size / 1e3).toFixed(0)} kB`);
  }
}

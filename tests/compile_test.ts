/**
 * What `deno task compile` and `deno task bundle` make of the samples. The base binary is this very Deno, as the proper
 * one cannot be had everywhere: so what a program embeds is checked, and that its bundle runs, not the program itself.
 */

import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { bundle } from "./tools/bundle.ts";
import { THREAD_SOURCE } from "./tools/build_thread.ts";
import { compile, SAMPLES } from "./tools/compile.ts";
import { deno, ROOT } from "./tools/deno.ts";

/** What Deno writes before the metadata, and after the last file. */
const MARK = new TextEncoder().encode("d3n0l4nd");

/** The metadata of a compiled program and everything after it: the embedded files and their table. */
function embedded(program: Uint8Array<ArrayBuffer>): { metadata: Metadata; files: string } {
  const bytes = Buffer.from(program.buffer);
  for (let at = bytes.indexOf(MARK); at >= 0; at = bytes.indexOf(MARK, at + 1)) {
    // The mark, the length of the JSON text as 64 bits, the text. The base binary may know the mark too.
    const start = at + MARK.length + 8;
    if (bytes[start] !== "{".charCodeAt(0)) continue;
    const end = start + Number(bytes.readBigUInt64LE(start - 8));
    assert(bytes.indexOf(MARK, end) > end, "the files end with the mark");
    return { metadata: JSON.parse(bytes.toString("utf8", start, end)), files: bytes.toString("utf8", end) };
  }
  throw new Error("Cannot find anything embedded");
}

/** The part of the metadata that is checked. */
interface Metadata {
  entrypoint_key: string;
  permissions: Record<string, unknown>;
}

for (const sample of SAMPLES) {
  Deno.test(`a compiled ${sample} holds all it needs`, async () => {
    const dir = await Deno.makeTempDir();
    try {
      const output = `${dir}/${sample}${Deno.build.os === "windows" ? ".exe" : ""}`;
      const run = await compile(sample, Deno.build.target, output, Deno.execPath());
      assert(run.ok, run.stderr);
      const { metadata, files } = embedded(await Deno.readFile(output));
      assertEquals(metadata.entrypoint_key, `examples/${sample}.ts`);
      const granted = Object.entries(metadata.permissions).filter(([name, value]) =>
        name.startsWith("allow_") && name !== "allow_import" && value !== null
      );
      assertEquals(granted, [["allow_ffi", []]]);
      assert(files.includes(await Deno.readTextFile(`${ROOT}examples/${sample}.ts`)), "the sample is embedded");
      assert(files.includes(await Deno.readTextFile(ROOT + THREAD_SOURCE)), "the broker's thread is embedded");
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });

  Deno.test(`a bundled ${sample} runs with --allow-ffi alone`, async () => {
    const dir = await Deno.makeTempDir();
    try {
      const run = await bundle(`examples/${sample}.ts`, `${dir}/${sample}.js`);
      assert(run.ok, run.stderr);
      const help = await deno(["run", "--no-prompt", "--allow-ffi", `${dir}/${sample}.js`, "-h"]);
      assert(help.ok, help.stderr);
      assert(help.stdout.includes("-d"), help.stdout);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}

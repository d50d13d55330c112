/**
 * Compiles both sample applications into programs of their own, in `dist/`.
 *
 * Deno puts the program into a base binary, `denort`, that it downloads. Where that cannot be had, this says so and goes
 * on with the next target. `DENORT_BIN` names a base binary to use instead, for the one target it is made for.
 *
 * @module
 */

import { deno, ROOT, type Run } from "./deno.ts";

/** The sample applications, and what they are compiled for. */
export const SAMPLES = ["shared_mem_app", "datagram_app"] as const;
export const TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-pc-windows-msvc"] as const;

/** Compiles one sample; `base` is the base binary, undefined to let Deno download it. */
export async function compile(sample: string, target: string, output: string, base: string | undefined): Promise<Run> {
  const args = ["compile", "--allow-ffi", "--target", target, "--output", output, `examples/${sample}.ts`];
  return await deno(args, { DENORT_BIN: base });
}

/** The target that a base binary is made for, by the head of its file. */
async function targetOf(base: string): Promise<typeof TARGETS[number] | undefined> {
  using file = await Deno.open(base);
  const head = new Uint8Array(20);
  await file.read(head);
  const text = new TextDecoder("latin1").decode(head);
  if (text.startsWith("MZ")) return "x86_64-pc-windows-msvc";
  if (!text.startsWith("\x7fELF")) return undefined;
  const machine = new DataView(head.buffer).getUint16(18, true);
  return machine === 62 ? "x86_64-unknown-linux-gnu" : machine === 183 ? "aarch64-unknown-linux-gnu" : undefined;
}

/** Why the base binary could not be had; undefined if the failure is another. */
function baseMissing({ stderr }: Run): string | undefined {
  return /(?:error sending request|Could not find denort|Invalid object|Download.*failed).*/.exec(stderr)?.[0];
}

if (import.meta.main) {
  const base = Deno.env.get("DENORT_BIN");
  const baseTarget = base === undefined ? undefined : await targetOf(base);
  if (base !== undefined && baseTarget === undefined) console.error(`DENORT_BIN is for none of the targets: ${base}`);
  let built = 0;
  for (const target of TARGETS) {
    for (const sample of SAMPLES) {
      const output = `dist/${sample}-${target}${target.includes("windows") ? ".exe" : ""}`;
      const run = await compile(sample, target, ROOT + output, target === baseTarget ? base : undefined);
      if (run.ok) {
        built++;
        console.log(`${output}: ${((await Deno.stat(ROOT + output)).size / 1e6).toFixed(1)} MB`);
        continue;
      }
      const why = baseMissing(run);
      if (why === undefined) {
        console.error(`${run.stdout}${run.stderr}`.trimEnd());
        Deno.exit(1);
      }
      console.error(`${target}: not built, as the base binary cannot be had: ${why}
  Set DENORT_BIN to the denort of Deno ${Deno.version.deno} for this target, or try again with a network.`);
      break;
    }
  }
  console.log(`${built} of ${TARGETS.length * SAMPLES.length} programs built.`);
  if (built === 0) Deno.exit(1);
}

/**
 * Everything a change must pass, up to the first failure.
 *
 *     deno task ok
 *     deno task ok --without-tests    for those who have just run them
 *
 * @module
 */

import { deno, ROOT } from "./deno.ts";

const STEPS: readonly [name: string, args: readonly string[]][] = [
  ["format", ["fmt", "--check"]],
  ["lint", ["lint"]],
  ["types", ["check"]],
  ["broker's thread", ["task", "--quiet", "build:thread", "--check"]],
  ["documentation", ["doc", "--lint", "mod.ts", "cli.ts", "src/device/mod.ts"]],
  ["tests", ["task", "--quiet", "test"]],
  ["publishing", ["publish", "--dry-run", "--allow-dirty"]],
];

/** Runs the tests where they can be watched; all else only speaks when it fails. */
async function run(name: string, args: readonly string[]): Promise<boolean> {
  if (name === "tests") {
    const child = new Deno.Command(Deno.execPath(), { args: [...args], cwd: ROOT, stdin: "null" }).spawn();
    return (await child.status).success;
  }
  const { ok, stdout, stderr } = await deno(args);
  if (!ok) console.error(`${stdout}${stderr}`.trimEnd());
  return ok;
}

for (const [name, args] of STEPS) {
  if (name === "tests" && Deno.args.includes("--without-tests")) continue;
  const start = performance.now();
  const ok = await run(name, args);
  console.log(`${name} ... ${ok ? "ok" : "FAILED"} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  if (!ok) {
    console.error(`\nNot ok: deno ${args.join(" ")}`);
    Deno.exit(1);
  }
}

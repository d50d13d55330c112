/** The rules of the house (ARCHITECTURE.md, at its end), kept by reading the sources. */

import { assertEquals } from "@std/assert";
import { staleness, THREAD_ENTRY, THREAD_SOURCE } from "./tools/build_thread.ts";
import { deno, importing, type Imports, moduleGraph, reachable, ROOT, sourceFiles } from "./tools/deno.ts";

const { publish } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`)) as { publish: { include: string[] } };
const PUBLISHED = await sourceFiles(
  ...publish.include.filter((it) => it.endsWith("/") || it.endsWith(".ts")).map((it) => it.replace(/\/$/, "")),
);
const GRAPH: ReadonlyMap<string, Imports> = await moduleGraph(PUBLISHED);

/** All that the given files import, themselves or by others, and that `refused` picks: as "file -> file". */
function found(files: readonly string[], refused: (imported: string) => boolean): string[] {
  return files.flatMap((file) => [...reachable(GRAPH, file, "all")].filter(refused).map((it) => `${file} -> ${it}`));
}

Deno.test("ffi/ knows nothing of src/", () => {
  const ffi = PUBLISHED.filter((it) => it.startsWith("ffi/"));
  assertEquals(found(ffi, (it) => !it.startsWith("ffi/") && !it.startsWith("node:")), []);
});

Deno.test("the broker's decisions and the lanes know no native library", () => {
  const pure = PUBLISHED.filter((it) => it.startsWith("src/lane/") || it.startsWith("src/fabric/broker"));
  assertEquals(found(pure, (it) => it.startsWith("ffi/")), []);
});

Deno.test("only ffi/ opens libraries", async () => {
  const opening: string[] = [];
  for (const file of PUBLISHED.filter((it) => !it.startsWith("ffi/") && it !== THREAD_SOURCE)) {
    if (/\bdlopen\s*\(/.test(await Deno.readTextFile(ROOT + file))) opening.push(file);
  }
  assertEquals(opening, []);
});

Deno.test("nothing published depends on anything but the platform, and @std/cli in cli.ts", () => {
  const own = new Set(PUBLISHED);
  const foreign = PUBLISHED.flatMap((file) =>
    (GRAPH.get(file)?.all ?? [])
      .filter((it) => !own.has(it) && !it.startsWith("node:"))
      .filter((it) => file !== "cli.ts" || !/^(?:jsr:\/?@std\/cli@|tests\/std\/cli\/)/.test(it))
      .map((it) => `${file} -> ${it}`)
  );
  assertEquals(foreign, []);
});

Deno.test("importing asks for no permission and opens nothing", async () => {
  // The thread's own program is no module to import: it starts its work.
  const main = importing(PUBLISHED.filter((it) => it !== THREAD_ENTRY));
  const dir = await Deno.makeTempDir();
  try {
    const audit = `${dir}/audit`;
    const run = await deno(["run", "--no-prompt", "--config", "deno.json", main], { DENO_AUDIT_PERMISSIONS: audit });
    assertEquals(run, { ok: true, stdout: "", stderr: "" });
    assertEquals(await Deno.readTextFile(audit).catch(() => ""), "", "what was asked for");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("the bundle of the broker's thread is fresh (deno task build:thread)", async () => {
  assertEquals(await staleness(), undefined);
});

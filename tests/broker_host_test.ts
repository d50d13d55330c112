/** What starting a broker's thread leaves behind on disk. */

import { assertLess } from "@std/assert";
import { ROOT } from "./tools/deno.ts";

/** Opens a fabric of its own, as its first client. */
const PROGRAM = `
const { openVmci } = await import("${new URL("mod.ts", `file://${ROOT}`)}");
await using _ = await openVmci({ device: Deno.args[0] });
`;

async function sizeOf(directory: string): Promise<number> {
  let size = 0;
  for await (const { name, isFile } of Deno.readDir(directory)) {
    const path = `${directory}/${name}`;
    size += isFile ? (await Deno.stat(path)).size : await sizeOf(path);
  }
  return size;
}

Deno.test("a broker that starts adds nothing to what Deno keeps of the one before", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const cache = `${directory}/cache`;
    const sizes: number[] = [];
    for (let run = 0; run < 5; run++) {
      const fabric = `${directory}/${run}`;
      await Deno.mkdir(fabric, { mode: 0o700 });
      const { success } = await new Deno.Command(Deno.execPath(), {
        args: ["eval", "--no-config", PROGRAM, fabric],
        env: { DENO_DIR: cache },
        stderr: "inherit",
      }).output();
      if (!success) throw new Error("The program failed");
      sizes.push(await sizeOf(cache));
    }
    // The first two runs are where Deno learns. The script has some 80 KB, and would be kept once more by each run.
    assertLess(sizes[4]! - sizes[1]!, 80_000, `${sizes}`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

/** A thousand clients at once: all are served, and when they have gone nothing of them is left. */

import { assertEquals } from "@std/assert";
import { openVmci } from "../mod.ts";
import "./ffi/support.ts";
import { makeRunDirectory } from "./support/media.ts";
import { Program } from "./support/program.ts";

const PROCESSES = 10;
const EACH = 100;

Deno.test("a thousand clients at once", async () => {
  const device = await makeRunDirectory();
  {
    await using host = await openVmci({ device });
    using hub = host.datagrams.create();
    host.access.addClientPrivileges(hub.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    host.discovery.register("hub", hub.handle);
    const before = descriptors();
    {
      await using crowd = new AsyncDisposableStack();
      const programs = Array.from(
        { length: PROCESSES },
        (_, i) => crowd.use(new Program("tests/programs/crowd.ts", [device, `${100 + i * EACH}`, `${EACH}`])),
      );
      await Promise.all(programs.map((program) => program.printed("all are here")));

      const contexts = new Set<number>();
      while (contexts.size < PROCESSES * EACH) {
        const { source, payload } = await hub.receive();
        assertEquals(new Uint32Array(payload.buffer, payload.byteOffset)[0], source.context);
        contexts.add(source.context);
      }
      assertEquals(host.discovery.list("crowd/").length, PROCESSES * EACH);

      // Half of them leave, half are killed.
      const gone = left(host.discovery.watch("crowd/"));
      for (const [i, program] of programs.entries()) program.kill(i % 2 === 0 ? "SIGTERM" : "SIGKILL");
      await Promise.all(programs.map((program) => program.ended));
      assertEquals(await gone, PROCESSES * EACH);
    }
    // What they had sent was read; the lanes go when the hub looks again.
    assertEquals(hub.tryReceive(), undefined);
    // The broker answers before it gives back what it does not need any more.
    for (let times = 0; times < 2; times++) host.discovery.list("crowd/");
    assertEquals(descriptors(), before);
  }
  await Deno.remove(device, { recursive: true });
});

/** Waits until every name that was there has gone; says how many there were. */
async function left(changes: AsyncIterable<{ readonly change: "added" | "removed" }>): Promise<number> {
  let there = 0;
  let all = 0;
  for await (const { change } of changes) {
    there += change === "added" ? 1 : -1;
    if (change === "added") all++;
    if (there === 0) break;
  }
  return all;
}

/** How many descriptors this process, the broker's thread included, has open. */
function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

import { openVmci } from "../../mod.ts";
import { FabricDaemon } from "../../src/fabric/local/daemon.ts";
import { DEFAULT_QUOTA } from "../../src/fabric/quota.ts";
import { assertEquals } from "@std/assert";
Deno.test({
  name: "full disk under the audit log",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const path = await Deno.makeTempDir();
    const daemon = await FabricDaemon.start({
      directory: undefined,
      socket: `${path}/s`,
      contexts: [],
      quota: DEFAULT_QUOTA,
      policy: undefined,
      audit: "/dev/full",
    });
    const ended = Promise.race([
      daemon.ended.then(() => "ended"),
      new Promise((r) => setTimeout(() => r("alive"), 2500)),
    ]);
    let said: string;
    try {
      await using v = await openVmci({ device: `${path}/s`, timeout: 1000 });
      said = `joined as ${v.contextId}`;
    } catch (e) {
      said = (e as Error).message;
    }
    console.log(said);
    const state = await ended;
    if (state === "alive") await daemon.close();
    assertEquals(state, "alive");
  },
});

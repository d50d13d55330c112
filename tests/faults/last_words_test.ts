import { openVmci } from "../../mod.ts";
import { assertEquals } from "@std/assert";
import { makeRunDirectory } from "../support/media.ts";
Deno.test({
  name: "a datagram accepted just before the broker is killed arrives, whatever its receiver does next",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await makeRunDirectory();
    const code = `import { openVmci } from ${JSON.stringify(new URL("../../mod.ts", import.meta.url).href)};
    const v = await openVmci({ device: ${
      JSON.stringify(device)
    } }); console.log("up"); await new Promise((r) => setTimeout(r, 1e6));`;
    await Deno.writeTextFile(`${device}/child.ts`, code);
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--v8-flags=--expose-gc", `${device}/child.ts`],
      stdout: "piped",
      cwd: new URL("../..", import.meta.url).pathname,
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    const host = await openVmci({ device });
    const guest = await openVmci({ device, contextId: 16 });
    const to = host.datagrams.create();
    host.access.addClientPrivileges(to.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    const from = guest.datagrams.create();
    await new Promise((r) => setTimeout(r, 200));
    // From here on the event loop does not turn.
    from.sendTo(to.handle, new Uint8Array([42]));
    Deno.kill(child.pid, "SIGKILL");
    for (;;) {
      const stat = Deno.readTextFileSync(`/proc/${child.pid}/stat`);
      if (stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z")) break;
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    host.discovery.list();
    const got: unknown[] = [];
    for (let i = 0; i < 100; i++) {
      const d = to.tryReceive();
      if (d !== undefined) got.push(d.payload[0]);
      await new Promise((r) => setTimeout(r, 10));
    }
    await guest[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
    await child.status;
    await reader.cancel();
    assertEquals(got, [42]);
  },
});

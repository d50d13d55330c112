import { assertEquals } from "@std/assert";
import { openVmci } from "../../mod.ts";
import { makeRunDirectory } from "../support/media.ts";
Deno.test({
  name: "what a receiver with a full connection cannot be told of is refused, and nothing accepted is lost",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await makeRunDirectory();
    await using host = await openVmci({ device });
    using hub = host.datagrams.create();
    host.access.addClientPrivileges(hub.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    const guests = [];
    for (let i = 0; i < 600; i++) guests.push(await openVmci({ device, contextId: 100 + i }));
    const ends = guests.map((g) => g.datagrams.create());
    let accepted = 0;
    const errors: Record<string, number> = {};
    ends.forEach((e, i) => {
      try {
        e.sendTo(hub.handle, new Uint8Array([i]));
        accepted++;
      } catch (x) {
        const c = (x as { code: string }).code;
        errors[c] = (errors[c] ?? 0) + 1;
      }
    });
    for (let got = 0; got < accepted; got++) await hub.receive();
    assertEquals(hub.tryReceive(), undefined);
    // second datagram of each
    let accepted2 = 0;
    ends.forEach((e, i) => {
      try {
        e.sendTo(hub.handle, new Uint8Array([i]));
        accepted2++;
      } catch (x) {
        const c = (x as { code: string }).code;
        errors[c] = (errors[c] ?? 0) + 1;
      }
    });
    for (let got = 0; got < accepted2; got++) await hub.receive();
    assertEquals([hub.tryReceive(), accepted2], [undefined, guests.length]);
    assertEquals(errors, { NO_RESOURCES: guests.length - accepted });
    for (const g of guests) await g[Symbol.asyncDispose]();
  },
});

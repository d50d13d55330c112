/** Hundreds send for the first time to a program that is busy. */

import { assertEquals, assertGreater } from "@std/assert";
import { openVmci, type VmciError } from "../../mod.ts";
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
    await using stack = new AsyncDisposableStack();
    const guests = [];
    for (let i = 0; i < 600; i++) guests.push(stack.use(await openVmci({ device, contextId: 100 + i })));
    const sources = guests.map(({ datagrams }) => datagrams.create());
    const accepted: number[] = [];
    while (accepted.at(-1) !== sources.length) {
      // The receiver does not turn meanwhile: this thread is its own.
      const sent = sources.filter((source, i) => {
        try {
          return source.sendTo(hub.handle, Uint8Array.of(i)) === 1;
        } catch (error) {
          assertEquals((error as VmciError).code, "NO_RESOURCES");
          return false;
        }
      });
      // Each time it reads, as many more can have their lanes as its connection takes.
      assertGreater(sent.length, accepted.at(-1) ?? 0);
      accepted.push(sent.length);
      for (let got = 0; got < sent.length; got++) await hub.receive();
      assertEquals(hub.tryReceive(), undefined);
    }
    assertGreater(accepted.length, 1, "nobody was refused");
  },
});

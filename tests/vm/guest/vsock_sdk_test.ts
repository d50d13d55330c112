/** The SDK's datagrams, access control and discovery over the host's sockets, with a context of the driver opposite. */

import { assertEquals } from "@std/assert";
import { contextHandle, openVmci, type Vmci } from "@vmci/vmci";
import { guestTest } from "./support/guest.ts";
import { NAMES, serveNames } from "./support/names.ts";
import { codeOf, codeOfAsync } from "./support/raw.ts";

const HOST = 2;
const VM = 300;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (it: string) => new TextEncoder().encode(it);

await serveNames();

/** The host, and a context of the driver. */
async function parties(options = ""): Promise<{ host: Vmci; guest: Vmci } & Disposable> {
  const host = await openVmci({ device: `vsock:${NAMES}${options}` });
  const guest = await openVmci({ device: `/dev/vmci,${NAMES}${options}`, contextId: VM });
  return {
    host,
    guest,
    [Symbol.dispose]() {
      guest.close();
      host.close();
    },
  };
}

for (const options of ["", ",reliable"]) {
  const mode = options === "" ? "plain" : "reliable";

  guestTest(`vsock sdk, ${mode}: a query and its answer, by name, both ways`, async () => {
    using both = await parties(options);
    const { host, guest } = both;
    assertEquals([host.contextId, guest.contextId], [HOST, VM]);
    for (const [server, client] of [[host, guest], [guest, host]] as const) {
      using service = server.datagrams.create();
      server.access.addClientPrivileges(service.handle, server.access.publicGroup, { allow: ["DG_SEND"] });
      server.discovery.register("HOST INFO", service.handle);
      const found = client.discovery.lookup("HOST INFO");
      assertEquals(found, service.handle);
      using mine = client.datagrams.create();
      client.access.addClientPrivileges(mine.handle, contextHandle(server.contextId), { allow: ["DG_SEND"] });
      assertEquals(mine.sendTo(found, bytes("HELLO, SERVER!")), 14);
      const query = await service.receive({ timeout: 5000 });
      assertEquals([query.source, text(query.payload)], [mine.handle, "HELLO, SERVER!"]);
      service.sendTo(query.source, bytes("HELLO, CLIENT!"));
      assertEquals(text((await mine.receive({ timeout: 5000 })).payload), "HELLO, CLIENT!");
      server.discovery.unregister("HOST INFO");
      assertEquals(codeOf(() => client.discovery.lookup("HOST INFO")), "NOT_FOUND");
    }
  });

  guestTest(`vsock sdk, ${mode}: without turning the event loop`, async () => {
    using both = await parties(options);
    const { host, guest } = both;
    using a = host.datagrams.create();
    using b = guest.datagrams.create();
    host.access.addClientPrivileges(a.handle, contextHandle(VM), { allow: ["DG_SEND"] });
    const buffer = new Uint8Array(69608);
    for (const size of [0, 1, 1000, 69608]) {
      b.sendTo(a.handle, buffer.subarray(0, size));
      assertEquals(a.receiveIntoSync(buffer, 5000), size);
      assertEquals(a.source, b.handle);
    }
    assertEquals(codeOf(() => a.receiveSync(5)), "TIMEOUT");
  });
}

guestTest("vsock sdk: what is not granted is refused at the receiver, who is told", async () => {
  using both = await parties();
  const { host, guest } = both;
  using a = host.datagrams.create();
  using b = guest.datagrams.create();
  const events = host.events();
  b.sendTo(a.handle, bytes("?"));
  b.sendTo(a.handle, bytes("?"));
  assertEquals(a.tryReceive(), undefined);
  assertEquals((await events.next()).value, {
    type: "datagram-refused",
    handle: a.handle,
    source: b.handle,
  });
});

guestTest("vsock sdk: shared memory is not to be had, and what is instead is said", async () => {
  using both = await parties();
  for (const vmci of [both.host, both.guest]) {
    const error = await codeOfAsync(() => Promise.resolve(vmci.sharedMemory.create(128)));
    assertEquals(error, "UNAVAILABLE");
    assertEquals(codeOf(() => vmci.sharedMemory.attach({ context: 2, resource: 5 })), "UNAVAILABLE");
  }
});

/** The SDK's datagrams, access control and discovery over the host's sockets, with a context of the driver opposite. */

import { assert, assertEquals } from "@std/assert";
import { contextHandle, openVmci, PrivilegeFlags, type Vmci } from "@vmci/vmci";
import { listenVsockDatagram } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { NAMES, NameService, serveNames } from "./support/names.ts";
import { codeOf, codeOfAsync, context } from "./support/raw.ts";

const HOST = 2;
const VM = 300;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (it: string) => new TextEncoder().encode(it);

await serveNames();

/** The host, and a context of the driver. */
async function parties(options = ""): Promise<{ host: Vmci; guest: Vmci } & AsyncDisposable> {
  const host = await openVmci({ device: `vsock:${NAMES}${options}` });
  const guest = await openVmci({ device: `/dev/vmci,${NAMES}${options}`, contextId: VM });
  return {
    host,
    guest,
    async [Symbol.asyncDispose]() {
      await guest[Symbol.asyncDispose]();
      await host[Symbol.asyncDispose]();
    },
  };
}

for (const options of ["", ",reliable"]) {
  const mode = options === "" ? "plain" : "reliable";

  guestTest(`vsock sdk, ${mode}: a query and its answer, by name, both ways`, async () => {
    await using both = await parties(options);
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
    await using both = await parties(options);
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
  await using both = await parties();
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

guestTest("vsock sdk: who claims a reserved id is not taken for the host itself", async () => {
  using host = await openVmci({ device: "vsock:" });
  using a = host.datagrams.create();
  for (const id of [0, 1]) {
    using claimant = context(id);
    assertEquals(claimant.send({ context: HOST, resource: a.handle.resource }, 5, bytes("?")), 1);
    assertEquals(a.tryReceive(), undefined, `${id}`);
  }
});

guestTest("vsock sdk: shared memory is not to be had, and what is instead is said", async () => {
  await using both = await parties();
  for (const vmci of [both.host, both.guest]) {
    const error = await codeOfAsync(() => Promise.resolve(vmci.sharedMemory.create(128)));
    assertEquals(error, "UNAVAILABLE");
    assertEquals(codeOf(() => vmci.sharedMemory.attach({ context: 2, resource: 5 })), "UNAVAILABLE");
  }
});

guestTest("vsock sdk: what the kernel drops is told with its number", async () => {
  await using both = await parties();
  const { host } = both;
  using a = host.datagrams.create();
  using b = host.datagrams.create();
  const events = host.events();
  const payload = new Uint8Array(1000);
  const most = 2000;
  for (let i = 0; i < most; i++) b.sendTo(a.handle, payload);
  let received = 0;
  while (a.tryReceive() !== undefined) received++;
  const { value } = await events.next();
  assertEquals(value, { type: "datagrams-dropped", handle: a.handle, count: most - received });
  assert(received > 0 && received < most);
});

guestTest("vsock sdk: a larger buffer drops nothing", async () => {
  using host = await openVmci({ device: `vsock:${NAMES},buffer=4000000` });
  using a = host.datagrams.create();
  using b = host.datagrams.create();
  for (let i = 0; i < 1000; i++) b.sendTo(a.handle, new Uint8Array(100));
  let received = 0;
  while (a.tryReceive() !== undefined) received++;
  assertEquals(received, 1000);
});

for (const [from, to] of [["host", "host"], ["guest", "host"], ["host", "guest"]] as const) {
  guestTest(`vsock sdk: reliable, nothing is lost under pressure, from ${from} to ${to}`, async () => {
    await using both = await parties(",reliable");
    using sender = both[from].datagrams.create();
    using receiver = both[to].datagrams.create();
    both[to].access.addClientPrivileges(receiver.handle, contextHandle(both[from].contextId), { allow: ["DG_SEND"] });
    const count = 600;
    const sending = (async () => {
      for (let i = 0; i < count; i++) {
        const payload = numbered(i);
        await sender.room(receiver.handle, payload.length);
        sender.sendTo(receiver.handle, payload);
      }
    })();
    // It falls behind again and again, so that all queues are full.
    for (let i = 0; i < count; i++) {
      if (i % 200 === 0) await new Promise((resolve) => setTimeout(resolve, 100));
      const { source, payload } = await receiver.receive();
      assertEquals(source, sender.handle);
      assertEquals(payload, numbered(i));
    }
    await sending;
    assertEquals(receiver.tryReceive(), undefined);
  });
}

guestTest("vsock sdk: reliable, a sender that may not send learns it", async () => {
  await using both = await parties(",reliable");
  const { host, guest } = both;
  using a = host.datagrams.create();
  using b = guest.datagrams.create();
  const events = guest.events();
  b.sendTo(a.handle, bytes("?"));
  const waiting = a.receive().catch((error) => error.code);
  assertEquals((await events.next()).value, { type: "lane-revoked", destination: a.handle });
  // Granted, and withdrawn.
  host.access.addClientPrivileges(a.handle, contextHandle(VM), { allow: ["DG_SEND"] });
  b.sendTo(a.handle, bytes("!"));
  assertEquals(text((await waiting as { payload: Uint8Array }).payload), "!");
  host.access.removeAllClientPrivileges(a.handle, contextHandle(VM));
  b.sendTo(a.handle, bytes("?"));
  const again = a.receive().catch((error) => error.code);
  assertEquals((await events.next()).value, { type: "lane-revoked", destination: a.handle });
  a.close();
  assertEquals(await again, "INVALID_RESOURCE");
});

guestTest("vsock sdk: a right that is withdrawn lets nothing more in", async () => {
  await using both = await parties();
  const { host, guest } = both;
  using a = host.datagrams.create();
  using b = guest.datagrams.create();
  using friends = host.access.createGroup();
  friends.add(VM);
  host.access.addClientPrivileges(a.handle, friends.handle, { allow: ["DG_SEND"] });
  b.sendTo(a.handle, bytes("in"));
  assertEquals(text(a.receiveSync(5000).payload), "in");
  friends.remove(VM);
  b.sendTo(a.handle, bytes("out"));
  assertEquals(a.tryReceive(), undefined);
  host.access.addClientPrivileges(a.handle, contextHandle(VM), { allow: ["DG_SEND"] });
  b.sendTo(a.handle, bytes("again"));
  assertEquals(text(a.receiveSync(5000).payload), "again");
});

guestTest("vsock sdk: where a datagram cannot go", async () => {
  await using both = await parties();
  const { host, guest } = both;
  using a = host.datagrams.create();
  using b = guest.datagrams.create();
  const gone = host.datagrams.create();
  gone.close();
  const send = (from: typeof a, context: number, resource: number) =>
    codeOf(() => from.sendTo({ context, resource }, bytes("?")));
  assertEquals([send(a, 2, gone.handle.resource), send(b, 2, gone.handle.resource)], ["INVALID_ARGS", "INVALID_ARGS"]);
  assertEquals([send(a, 4711, 5000), send(b, 4711, 5000)], ["INVALID_ARGS", "DST_UNREACHABLE"]);
  for (const from of [a, b]) {
    assertEquals([send(from, 0, 5), send(from, 1, 5000)], ["DST_UNREACHABLE", "DST_UNREACHABLE"]);
    assertEquals([send(from, 2, 0), send(from, 0xFFFFFFFF, 0xFFFFFFFF)], ["INVALID_ARGS", "INVALID_ARGS"]);
    assertEquals(codeOf(() => from.sendTo(from.handle, new Uint8Array(69609))), "INVALID_ARGS");
  }
  // And on it goes.
  assertEquals(a.sendTo(a.handle, bytes("me")), 2);
  assertEquals(text(a.receiveSync(5000).payload), "me");
});

guestTest("vsock sdk: a port of one's own choice, which a plain socket can send to", async () => {
  using host = await openVmci({ device: "vsock:" });
  using service = host.datagrams.create({ wellKnown: 9000 });
  assertEquals(service.handle, { context: HOST, resource: 9000 });
  assertEquals(codeOf(() => host.datagrams.create({ wellKnown: 9000 })), "DUPLICATE_ENTRY");
  using socket = listenVsockDatagram();
  await socket.send(bytes("plain"), { cid: HOST, port: 9000 });
  const { source, payload } = await service.receive();
  assertEquals([text(payload), source], ["plain", { context: HOST, resource: socket.addr.port }]);
  service.sendTo(source, bytes("answer"));
  assertEquals(text((await socket.receive())[0]), "answer");
});

guestTest("vsock sdk: a context's full queue holds the sender back, and nothing is lost", async () => {
  await using both = await parties();
  const { host, guest } = both;
  using a = host.datagrams.create();
  using b = guest.datagrams.create();
  guest.access.addClientPrivileges(b.handle, contextHandle(HOST), { allow: ["DG_SEND"] });
  const payload = new Uint8Array(60000);
  let sent = 0;
  // The driver's queue, and then the sender's own.
  while (a.hasRoom(b.handle, payload.length)) {
    a.sendTo(b.handle, payload);
    sent++;
  }
  assertEquals(codeOf(() => a.sendTo(b.handle, payload)), "NO_RESOURCES");
  for (let i = 0; i < sent; i++) assertEquals((await b.receive({ timeout: 10000 })).payload.length, 60000);
  assertEquals(b.tryReceive(), undefined);
  assert(sent >= 4);
});

guestTest("vsock sdk: a restricted context and the host's programs of its own user", async () => {
  using host = await openVmci({ device: "vsock:" });
  using guest = await openVmci({
    device: "/dev/vmci",
    contextId: 301,
    privilegeFlags: PrivilegeFlags.RESTRICTED,
  });
  using a = host.datagrams.create();
  using b = guest.datagrams.create();
  host.access.addClientPrivileges(a.handle, contextHandle(301), { allow: ["DG_SEND"] });
  b.sendTo(a.handle, bytes("in"));
  assertEquals(text(a.receiveSync(5000).payload), "in");
  // The program's own flags hold as well: what comes from who is not TRUSTED is refused.
  guest.access.addClientPrivileges(b.handle, contextHandle(HOST), { allow: ["DG_SEND"] });
  a.sendTo(b.handle, bytes("out"));
  assertEquals(b.tryReceive(), undefined);
});

guestTest("vsock sdk: what cannot be opened says why", async () => {
  const open = (device: string, contextId?: number) =>
    codeOfAsync(async () => (await openVmci({ device, contextId })).close());
  assertEquals(await open("vsock:", 17), "INVALID_ARGS");
  assertEquals(await open("/dev/vmci", 2), "INVALID_ARGS");
  assertEquals(await open("/dev/vmci,fast"), "INVALID_ARGS");
  using taken = await openVmci({ device: "/dev/vmci", contextId: 302 });
  const descriptors = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  const before = descriptors();
  assertEquals(await open("/dev/vmci", 302), "ALREADY_EXISTS");
  assertEquals(await open("/dev/vmci", 2), "INVALID_ARGS");
  assertEquals(descriptors(), before);
  assertEquals(taken.device, "/dev/vmci");
  using other = await openVmci({ device: "/dev/vmci" });
  assert(other.contextId >= 16);
  const error = codeOf(() => other.discovery.lookup("nobody serves names there"));
  assertEquals(error, "UNAVAILABLE");
});

guestTest("vsock sdk: names come back after the service was killed, and go with who kept them", async () => {
  const service = await NameService.start(90001);
  const device = "ds=2:90001";
  using host = await openVmci({ device: `vsock:${device}` });
  using guest = await openVmci({ device: `/dev/vmci,${device}`, contextId: VM });
  using a = host.datagrams.create();
  host.discovery.register("a", a.handle);
  assertEquals(guest.discovery.lookup("a"), a.handle);
  await service.kill();
  const lost = await codeOfAsync(() => Promise.resolve(guest.discovery.lookup("a")));
  assertEquals(lost, "UNAVAILABLE");
  await using _next = await NameService.start(90001);
  assertEquals(await guest.discovery.wait("a"), a.handle);
  a.close();
  assertEquals(codeOf(() => guest.discovery.lookup("a")), "NOT_FOUND");
});

guestTest("vsock sdk: a killed program's name and way are gone", async () => {
  await using both = await parties(",reliable");
  const { guest } = both;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--no-lock", "--cached-only", "-", NAMES],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(bytes(`
    import { openVmci } from "/app/mod.ts";
    const vmci = await openVmci({ device: "vsock:${NAMES},reliable" });
    const endpoint = vmci.datagrams.create();
    vmci.access.addClientPrivileges(endpoint.handle, vmci.access.publicGroup, { allow: ["DG_SEND"] });
    vmci.discovery.register("victim", endpoint.handle);
    console.log("ready");
    await endpoint.receive();
    console.log("received");
    setInterval(() => {}, 1000);`));
  await writer.close();
  const reader = child.stdout.getReader();
  await reader.read();
  const victim = guest.discovery.lookup("victim");
  using mine = guest.datagrams.create();
  mine.sendTo(victim, bytes("hello"));
  const arrived = reader.read();
  const told = mine.receive({ timeout: 20000 }).catch(() => {});
  assertEquals(text((await arrived).value!), "received\n");
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  assertEquals(codeOf(() => guest.discovery.lookup("victim")), "NOT_FOUND");
  assertEquals(codeOf(() => mine.sendTo(victim, bytes("?"))), "INVALID_ARGS");
  mine.close();
  await told;
});

guestTest("vsock sdk: a killed context is gone for who sends to it", async () => {
  await using both = await parties();
  const { host } = both;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--no-lock", "--cached-only", "-", NAMES],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(bytes(`
    import { openVmci } from "/app/mod.ts";
    const vmci = await openVmci({ device: "/dev/vmci,${NAMES}", contextId: 303 });
    const endpoint = vmci.datagrams.create();
    vmci.access.addClientPrivileges(endpoint.handle, vmci.access.publicGroup, { allow: ["DG_SEND"] });
    console.log(endpoint.handle.resource);
    await endpoint.receive();
    console.log("received");
    setInterval(() => {}, 1000);`));
  await writer.close();
  const reader = child.stdout.getReader();
  const victim = { context: 303, resource: Number(text((await reader.read()).value!)) };
  using mine = host.datagrams.create();
  mine.sendTo(victim, bytes("hello"));
  assertEquals(text((await reader.read()).value!), "received\n");
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  assertEquals(codeOf(() => mine.sendTo(victim, bytes("?"))), "INVALID_ARGS");
});

/** A payload that says its number and whose length follows from it. */
function numbered(number: number): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(4 + (number * 7919) % (number % 50 === 0 ? 69604 : 3000)).fill(number);
  new DataView(payload.buffer).setUint32(0, number);
  return payload;
}

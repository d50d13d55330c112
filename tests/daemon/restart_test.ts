/** A daemon that is killed and started again: what its clients had is theirs again, and nobody else's. */

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { contextHandle, type DatagramEndpoint, type Handle, openVmci, type VmciEvent } from "../../mod.ts";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { addSeals, createMemfd, Seal } from "../../ffi/memfd.ts";
import { fails } from "../support/failure.ts";
import { asRoot, House, NOBODY, ONE_USER } from "../support/house.ts";
import { RawClient } from "../support/raw_client.ts";
import type { Remote } from "../support/remote.ts";

const FLOOD = 200;

/** The context of who asks meanwhile. */
const ASKER = 18;

/** Waits for an event. */
async function until(
  events: Remote<AsyncIterator<VmciEvent>> | AsyncIterator<VmciEvent>,
  fits: (event: VmciEvent) => boolean,
): Promise<VmciEvent> {
  for (;;) {
    const { value } = await (events as AsyncIterator<VmciEvent>).next();
    if (fits(value)) return value;
  }
}

/** Waits until somebody is back, and gives what it lost. */
async function comesBack(
  events: Remote<AsyncIterator<VmciEvent>> | AsyncIterator<VmciEvent>,
  daemon: number,
): Promise<readonly Handle[]> {
  const event = await until(events, (it) => it.type === "broker-changed" && it.pid === daemon);
  return event.type === "broker-changed" ? event.lost : [];
}

/** Sends numbers in a row. */
async function count(
  from: DatagramEndpoint | Remote<DatagramEndpoint>,
  to: Handle,
  first: number,
): Promise<void> {
  for (let i = first; i < first + FLOOD; i++) await (from as DatagramEndpoint).sendTo(to, numbered(i));
}

function numbered(i: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(i).buffer);
}

function numberIn(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0, true);
}

Deno.test(`killed and started again: ${ONE_USER ? "one user (a second one needs root)" : "two users"}`, async (t) => {
  const policy = ONE_USER ? "" : `allow uid ${NOBODY} context 17\n`;
  await using house = await House.serving({ contexts: [16], policy });
  const newcomer = () => ONE_USER ? Promise.resolve(house.agent()) : house.stranger();
  // One at the main socket, one at a context's, and another user at the main socket.
  const [bound, allowed, asking] = [await newcomer(), await newcomer(), house.agent()];
  using host = await openVmci({ device: house.main });
  const guest = await bound.scenes.open({ device: house.socket(16) });
  const third = await allowed.scenes.open({ device: house.main, contextId: 17 });
  assertEquals([await guest.contextId, await third.contextId], [16, 17]);

  using endpoint = host.datagrams.create();
  using wellKnown = host.datagrams.create({ wellKnown: 5000 });
  using region = host.sharedMemory.create(8192);
  using sealed = host.sharedMemory.create(4096, { writers: "creator" });
  using group = host.access.createGroup();
  const theirs = await guest.datagrams.create();
  const thirds = await third.datagrams.create();
  const theirRegion = await guest.sharedMemory.create(4096);
  group.add(16, { canAssign: true });
  host.discovery.register("host's", endpoint.handle);
  host.discovery.register("host's region", region.handle);
  await guest.discovery.register("guest's", theirs.handle);
  await third.discovery.register("third's", thirds.handle);
  host.access.addClientPrivileges(endpoint.handle, group.handle, { allow: ["DG_SEND"] });
  host.access.addClientPrivileges(wellKnown.handle, contextHandle(17), { allow: ["DG_SEND"] });
  host.access.addClientPrivileges(region.handle, group.handle, { allow: ["SM_ATTACH"] });
  host.access.addClientPrivileges(sealed.handle, contextHandle(17), { allow: ["SM_ATTACH"], deny: ["CH_PRIV"] });
  await guest.access.addClientPrivileges(theirs.handle, contextHandle(2), { allow: ["DG_SEND"] });
  await guest.access.addClientPrivileges(theirRegion.handle, contextHandle(2), { allow: ["SM_ATTACH"] });
  const attached = await guest.sharedMemory.attach(region.handle);
  const reading = await third.sharedMemory.attach(sealed.handle);
  using reached = host.sharedMemory.attach(theirRegion.handle);
  const names = {
    "guest's": theirs.handle,
    "host's": endpoint.handle,
    "host's region": region.handle,
    "third's": thirds.handle,
    "vmci public group": host.access.publicGroup,
  };
  const handles = [
    endpoint.handle,
    region.handle,
    sealed.handle,
    group.handle,
    theirs.handle,
    thirds.handle,
    theirRegion.handle,
  ];
  // The lanes that will go on.
  await theirs.sendTo(endpoint.handle, numbered(0));
  endpoint.sendTo(theirs.handle, numbered(0));
  assertEquals(numberIn(endpoint.receiveSync(5000).payload), 0);
  assertEquals(numberIn((await theirs.receive()).payload), 0);

  const events = host.events();
  const guestEvents = await guest.events();
  const thirdEvents = await third.events();
  let first = 1;
  const before = new Set(handles.map(({ resource }) => resource));
  const times: number[] = [];

  for (let round = 1; round <= 3; round++) {
    await t.step(`round ${round}`, async () => {
      await house.kill();
      // Nobody is the broker: lanes go on, both ways, and so do regions.
      await count(theirs, endpoint.handle, first);
      await count(endpoint, theirs.handle, first);
      for (let i = first; i < first + FLOOD; i++) assertEquals(numberIn(endpoint.receiveSync(5000).payload), i);
      region.bytes[0] = round;
      assertEquals((await attached.bytes)[0], round);

      // Who owns a name cannot say so yet, and yet nobody is told that there is no such name.
      bound.signal("SIGSTOP");
      const { pid } = await house.start();
      const listening = performance.now();
      const asker = await asking.scenes.open({ device: house.main, contextId: ASKER });
      const found = asker.discovery.lookup("guest's");
      const listed = asker.discovery.list();
      const claim = asker.datagrams.create({ wellKnown: 5000 });
      bound.signal("SIGCONT");
      await fails("DUPLICATE_ENTRY", () => claim);
      assertEquals(await found, theirs.handle);
      assertEquals(Object.fromEntries((await listed).map(({ name, handle }) => [name, handle])), names);
      const back = await Promise.all([
        comesBack(events, pid),
        comesBack(guestEvents, pid),
        comesBack(thirdEvents, pid),
      ]);
      times.push(performance.now() - listening);
      assertEquals(back, [[], [], []]);

      for (let i = first; i < first + FLOOD; i++) assertEquals(numberIn((await theirs.receive()).payload), i);
      first += FLOOD;
      await count(theirs, endpoint.handle, first);
      for (let i = first; i < first + FLOOD; i++) assertEquals(numberIn(endpoint.receiveSync(5000).payload), i);
      endpoint.sendTo(theirs.handle, numbered(1));
      assertEquals(numberIn((await theirs.receive()).payload), 1);
      first += FLOOD;

      // Names, grants, groups, the right to attach.
      for (const [name, handle] of Object.entries(names)) assertEquals(await asker.discovery.lookup(name), handle);
      assertEquals(await asker.access.isGroupMember(group.handle, 16), true);
      const decided = async (resource: Handle, context: number, privilege: "DG_SEND" | "SM_ATTACH" | "CH_PRIV") => {
        const { code, via } = await asker.access.checkClientPrivilege(resource, contextHandle(context), privilege);
        return `${code} ${via}`;
      };
      assertEquals(await decided(endpoint.handle, 16, "DG_SEND"), "SUCCESS_ACCESS_GRANTED group");
      assertEquals(await decided(endpoint.handle, 17, "DG_SEND"), "INVALID_PRIV nothing");
      assertEquals(await decided(sealed.handle, 17, "SM_ATTACH"), "SUCCESS_ACCESS_GRANTED own");
      assertEquals(await decided(sealed.handle, 17, "CH_PRIV"), "NO_ACCESS own");
      assertEquals(await decided(theirs.handle, 2, "DG_SEND"), "SUCCESS_ACCESS_GRANTED own");
      await thirds.sendTo(wellKnown.handle, new Uint8Array([round]));
      assertEquals(wellKnown.receiveSync(5000).payload[0], round);
      await fails("NO_ACCESS", () => thirds.sendTo(endpoint.handle, new Uint8Array(1)));
      house.denied("open_lane", ({ context }) => context === 17);
      const again = await guest.sharedMemory.attach(region.handle);
      assertEquals((await again.bytes)[0], round);
      await again.detach();
      await fails("NO_ACCESS", () => third.sharedMemory.attach(region.handle));
      sealed.bytes[1] = round;
      assertEquals((await reading.bytes)[1], round);
      assertEquals(await reading.writable, false);
      const once = host.sharedMemory.attach(theirRegion.handle);
      once.bytes[2] = round;
      assertEquals(reached.bytes[2], round);
      once.detach();

      // Numbers go on upwards.
      for (let i = 0; i < 50; i++) {
        const fresh = await (i % 2 === 0 ? guest : asker).datagrams.create();
        const { resource } = fresh.handle;
        assert(!before.has(resource), `${resource} was given before`);
        before.add(resource);
        await fresh.close();
      }
      // A client that left unseen would be waited for, as its process lives: the next round begins when it was seen.
      await asking.scenes.leaveAll();
      await until(events, (event) => event.type === "context-removed" && event.context === ASKER);
    });
  }
  console.log(`      back after the daemon listened: ${times.map((it) => `${it.toFixed(0)} ms`).join(", ")}`);
});

Deno.test("who left the public group is not in it under the next daemon, until he joins it again", async () => {
  await using house = await House.serving({ contexts: [16] });
  using host = await openVmci({ device: house.main });
  using guest = await openVmci({ device: house.socket(16) });
  using sibling = await openVmci({ device: house.socket(16) });
  const { publicGroup } = host.access;
  guest.access.leaveGroup(publicGroup);
  for (const isIn of [false, true, true]) {
    assertEquals(host.access.isGroupMember(publicGroup, 16), isIn);
    await house.kill();
    await house.start();
    assertEquals(host.access.isGroupMember(publicGroup, 16), isIn);
    assertEquals(host.access.isGroupMember(publicGroup, 2), true);
    if (!isIn) sibling.access.joinGroup(publicGroup);
  }
});

Deno.test("killed twice while a client is stopped: the second daemon still waits for it", async () => {
  await using house = await House.serving({ contexts: [16] });
  const [agent, asking] = [house.agent(), house.agent()];
  const guest = await agent.scenes.open({ device: house.socket(16) });
  const endpoint = await guest.datagrams.create();
  await guest.discovery.register("guest's", endpoint.handle);
  const events = await guest.events();
  agent.signal("SIGSTOP");
  for (let i = 0; i < 3; i++) {
    await house.kill();
    await house.start();
  }
  const asker = await asking.scenes.open({ device: house.main });
  const found = asker.discovery.lookup("guest's");
  agent.signal("SIGCONT");
  assertEquals(await found, endpoint.handle);
  assertEquals(await comesBack(events, house.daemon.pid), []);
});

Deno.test("claims without a ticket, or with one for something else, are refused and logged", async () => {
  await using house = await House.serving({ contexts: [16, 17] });
  const [agent, another] = [house.agent(), house.agent()];
  const owner = await agent.scenes.open({ device: house.main });
  const guest = await another.scenes.open({ device: house.socket(16) });
  const ours = await owner.datagrams.create({ wellKnown: 5000 });
  const sealed = await owner.sharedMemory.create(4096);
  await owner.access.addClientPrivileges(sealed.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
  const theirs = await guest.datagrams.create();
  const region = await guest.sharedMemory.create(4096);
  await guest.sharedMemory.attach(sealed.handle);
  const events = [await owner.events(), await guest.events()] as const;
  // An honest ticket of context 16, for something else.
  using thief = new RawClient(house.socket(16));
  const { client, ticket } = thief.hello().result;
  const own = thief.ask("create_endpoint", { resource: null, wellKnown: false }).result;

  for (const process of [agent, another]) process.signal("SIGSTOP");
  await house.kill();
  await house.start();
  const ofOwner = (reply: { result?: { accepted: boolean } }) => reply.result?.accepted;
  const memory = createMemfd("stolen", 4096);
  addSeals(memory, Seal.SHRINK | Seal.GROW | Seal.SEAL);
  const endpoint = { type: "DATAGRAM", size: 0, creatorOnly: false };
  const wellKnown = ours.handle;
  for (const path of [house.socket(16), house.socket(17), house.main]) {
    using raw = new RawClient(path);
    // Another client's number is not had by asking for it.
    const { client: mine, context } = raw.hello({ client, ticket: "forged" }).result;
    assertNotEquals(mine, client);
    for (const forged of [undefined, "", "forged", own.ticket, ticket]) {
      const claims: [string, Record<string, unknown>, number[]][] = [
        ["announce_resource", { ...endpoint, handle: wellKnown, ticket: forged }, []],
        ["announce_resource", { ...endpoint, handle: theirs.handle, ticket: forged }, []],
        ["announce_resource", {
          type: "GROUP",
          handle: { context, resource: 2000 },
          ticket: forged,
          size: 0,
          creatorOnly: false,
        }, []],
        ["announce_resource", {
          type: "SHAREDMEM",
          handle: region.handle,
          size: 4096,
          creatorOnly: false,
          ticket: forged,
        }, [memory]],
        [
          "announce_attachment",
          { handle: sealed.handle, count: 1, size: 4096, creatorOnly: false, ticket: forged },
          [],
        ],
      ];
      for (const [op, args, shares] of claims) {
        assertEquals(ofOwner(raw.ask(op, args, shares)), false, `${op} of ${Deno.inspect(args)} through ${path}`);
      }
    }
    for (const handle of [wellKnown, theirs.handle, region.handle, sealed.handle]) {
      house.denied(
        handle === sealed.handle ? "announce_attachment" : "announce_resource",
        (it) => it.context === context && it.args.handle.resource === handle.resource,
      );
    }
    // What was not taken for theirs cannot have grants and names either.
    const entries = { grants: [], names: ["stolen"], members: [], tickets: [] };
    const { error } = raw.ask("announce_entries", { type: "DATAGRAM", handle: wellKnown, ...entries });
    assertStringIncludes(error!.reason, "no such resource of yours");
  }
  closeDescriptor(memory);
  for (const process of [agent, another]) process.signal("SIGCONT");
  for (const it of events) assertEquals(await comesBack(it, house.daemon.pid), []);
  // The thief's own ticket is good for its own handle, in its own context only.
  using honest = new RawClient(house.socket(16));
  honest.hello();
  assertEquals(ofOwner(honest.ask("announce_resource", { ...endpoint, handle: own.handle, ticket: own.ticket })), true);
  using moved = new RawClient(house.socket(17));
  moved.hello();
  assertEquals(ofOwner(moved.ask("announce_resource", { ...endpoint, handle: own.handle, ticket: own.ticket })), false);
  assert(!/ticket|forged/.test(await Deno.readTextFile(house.audit)));
});

Deno.test("what is refused while clients come back is logged as refused", async () => {
  await using house = await House.serving({ contexts: [16, 17] });
  const agent = house.agent();
  const asking = house.agent();
  const guest = await agent.scenes.open({ device: house.socket(16) });
  const region = await guest.sharedMemory.create(4096);
  agent.signal("SIGSTOP");
  await house.kill();
  await house.start();
  const asker = await asking.scenes.open({ device: house.socket(17) });
  const attaching = asker.sharedMemory.attach(region.handle);
  agent.signal("SIGCONT");
  await fails("NO_ACCESS", () => attaching);
  house.denied("attach", ({ context }) => context === 17);
  assertEquals(house.entries().filter(({ op }) => op === "attach").map(({ event }) => event), ["denied"]);
});

Deno.test("SIGTERM removes the sockets; a second daemon is refused; stale sockets are replaced", async () => {
  await using house = await House.serving({ contexts: [16] });
  const sockets = () =>
    [...Deno.readDirSync(house.path)].map(({ name }) => name).filter((it) => /^(main|vm16)$/.test(it));
  assertEquals(sockets().sort(), ["main", "vm16"]);
  const second = await house.refused("--socket", house.main);
  assertEquals({ ...second, stderr: "" }, { code: 1, signal: null, stdout: "", stderr: "" });
  assertStringIncludes(second.stderr, `process ${house.daemon.pid} serves ${house.main} already`);
  const bound = await house.refused("--socket", `${house.path}/other`, "--context", `16=${house.socket(16)}`);
  assertEquals(bound.code, 1);
  assertStringIncludes(bound.stderr, `process ${house.daemon.pid} listens at ${house.socket(16)} already`);
  (await openVmci({ device: house.main })).close();

  await house.kill();
  assertEquals(sockets().sort(), ["main", "vm16"], "nobody was there to remove them");
  await house.start();
  (await openVmci({ device: house.socket(16) })).close();
  house.daemon.kill("SIGTERM");
  assertEquals(await house.daemon.ended.then(({ code, stderr }) => ({ code, stderr })), { code: 0, stderr: "" });
  assertEquals(sockets(), []);
  await fails("UNAVAILABLE", () => openVmci({ device: house.main }));

  // What is no socket is nobody's to replace.
  await Deno.writeTextFile(house.main, "precious");
  const refused = await house.refused("--socket", house.main);
  assertEquals(refused.code, 1);
  assertStringIncludes(refused.stderr, `${house.main} is a file, not a socket`);
  assertEquals(await Deno.readTextFile(house.main), "precious");
});

Deno.test(asRoot("the daemon's key and lists are no other user's to read"), async () => {
  await using house = await House.serving({ contexts: [16] });
  const state = await Deno.stat(`${house.main}.state`);
  assertEquals([state.mode! & 0o777, state.uid], [0o700, 0]);
  for (const name of ["key", "clients", "numbers", "lock"]) {
    assertEquals((await Deno.stat(`${house.main}.state/${name}`)).mode! & 0o777, 0o600, name);
  }
});

Deno.test("what the policy grants on everything new is still granted after a restart, and lanes that need it go on", async () => {
  await using house = await House.serving({
    contexts: [16],
    policy: "grant DG_SEND on DATAGRAM of 2 to public\n",
  });
  const guest = await house.agent().scenes.open({ device: house.socket(16) });
  using host = await openVmci({ device: house.main });
  using mailbox = host.datagrams.create();
  const source = await guest.datagrams.create();
  await source.sendTo(mailbox.handle, numbered(1));
  const events = [host.events(), await guest.events()] as const;
  await house.kill();
  const { pid } = await house.start();
  for (const it of events) assertEquals(await comesBack(it, pid), []);
  await source.sendTo(mailbox.handle, numbered(2));
  assertEquals([1, 2].map(() => numberIn(mailbox.receiveSync(5000).payload)), [1, 2]);
  assert(host.access.checkClientPrivilege(mailbox.handle, contextHandle(16), "DG_SEND").granted);
});

Deno.test("a name is its owner's after a restart, whoever says before him that it is his", async () => {
  await using house = await House.serving({ contexts: [16, 17] });
  const agent = house.agent();
  const owner = await agent.scenes.open({ device: house.socket(16) });
  const mailbox = await owner.datagrams.create();
  await owner.discovery.register("db", mailbox.handle);
  const events = await owner.events();
  agent.signal("SIGSTOP");
  await house.kill();
  const { pid } = await house.start();
  using thief = new RawClient(house.socket(17));
  thief.hello({ client: 1, ticket: null });
  const mine = thief.ask("create_endpoint", { resource: null, wellKnown: false }).result.handle;
  const entries = { type: "DATAGRAM", handle: mine, grants: [], names: ["db"], members: [], tickets: ["1 forged"] };
  assertEquals(thief.ask("announce_entries", entries).result, { refused: ["db"] });
  house.denied("announce_entries", ({ context }) => context === 17);
  agent.signal("SIGCONT");
  assertEquals(await comesBack(events, pid), []);
  using host = await openVmci({ device: house.main });
  assertEquals(host.discovery.lookup("db"), await mailbox.handle);
});

Deno.test("a daemon that follows a program's broker takes over what that program's clients have", async () => {
  await using house = await House.make();
  const directory = `${house.path}/run`;
  await Deno.mkdir(directory, { mode: 0o700 });
  const [first, second] = [house.agent(), house.agent()];
  await (await first.scenes.open({ device: directory })).datagrams.create();
  const vmci = await second.scenes.open({ device: directory });
  const mailbox = await vmci.datagrams.create();
  const region = await vmci.sharedMemory.create(4096);
  await vmci.discovery.register("kept", region.handle);
  const events = await vmci.events();
  second.signal("SIGSTOP");
  await first.kill();
  const daemon = house.resident(house.launch("-d", directory));
  await daemon.printed("listening at");
  second.signal("SIGCONT");
  assertEquals(await comesBack(events, daemon.pid), []);
  using host = await openVmci({ device: directory });
  assertEquals(host.discovery.lookup("kept"), await region.handle);
  assertEquals(host.datagrams.sendTo(await mailbox.handle, numbered(1)), 4);
});

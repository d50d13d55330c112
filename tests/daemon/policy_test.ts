/** A daemon's policy, and what its audit log says: real processes, of two users where this one is root. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { contextHandle, openVmci, PrivilegeFlags } from "../../mod.ts";
import { fails } from "../support/failure.ts";
import { asRoot, House, NOBODY, OTHER_GROUP } from "../support/house.ts";
import { RawClient } from "../support/raw_client.ts";

Deno.test("a context's socket gives its context and no more, also to the daemon's own user", async () => {
  await using house = await House.serving({ contexts: [16, 17] });
  using host = await openVmci({ device: house.main });
  using endpoint = host.datagrams.create();
  using region = host.sharedMemory.create(4096);
  host.discovery.register("service", endpoint.handle);
  using guest = await openVmci({ device: house.socket(16) });
  assertEquals([host.contextId, guest.contextId], [2, 16]);

  const device = house.socket(16);
  await fails("NO_ACCESS", () => openVmci({ device, contextId: 17 }));
  await fails("NO_ACCESS", () => openVmci({ device, contextId: 2 }));
  await fails("NO_ACCESS", () => openVmci({ device, privilegeFlags: PrivilegeFlags.TRUSTED }));
  for (const context of [2, 17]) {
    const { reason } = house.denied("hello", ({ args }) => args.context === context);
    assertStringIncludes(reason!, `may not be context ${context}; it may be 16`);
  }
  house.denied("hello", ({ args }) => args.flags === PrivilegeFlags.TRUSTED);
  using raw = new RawClient(device);
  raw.hello();
  assertEquals(raw.ask("inspect", { topic: "resources", after: 0 }).error?.code, "NO_ACCESS");
  house.denied("inspect", ({ context }) => context === 16);

  using own = guest.datagrams.create();
  assertEquals(guest.discovery.lookup("service"), endpoint.handle);
  await fails("NO_ACCESS", () => own.sendTo(endpoint.handle, new Uint8Array(1)));
  await fails("NO_ACCESS", () => guest.sharedMemory.attach(region.handle));
  await fails("NO_ACCESS", () => guest.discovery.register("mine", endpoint.handle));
  await fails("NO_ACCESS", () => guest.discovery.unregister("service"));
  await fails(
    "NO_ACCESS",
    () => guest.access.addClientPrivileges(endpoint.handle, contextHandle(16), { allow: ["DG_SEND"] }),
  );
  await fails("NO_ACCESS", () => guest.datagrams.create({ wellKnown: 7 }));
  for (const op of ["open_lane", "attach", "register", "unregister", "grant", "create_endpoint"]) {
    house.denied(op, ({ context, uid, pid }) => context === 16 && uid === Deno.uid() && pid === Deno.pid);
  }

  host.access.addClientPrivileges(endpoint.handle, contextHandle(16), { allow: ["DG_SEND"] });
  host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
  assertEquals(own.sendTo(endpoint.handle, new Uint8Array([5])), 1);
  const { source, payload } = endpoint.receiveSync(5000);
  assertEquals([source, payload], [own.handle, new Uint8Array([5])]);
  using attached = guest.sharedMemory.attach(region.handle);
  attached.bytes[0] = 9;
  assertEquals(region.bytes[0], 9);
});

Deno.test(asRoot("allow: by user, by group, for all; nobody else comes in"), async () => {
  const allow = (line: string) => `# who\n\n${line} # and no more\n`;
  await using house = await House.serving({ policy: allow(`allow uid ${NOBODY} context 16-18,40`) });
  const user = await house.stranger();
  const group = await house.stranger(OTHER_GROUP);
  const device = house.main;
  const comesAs = async (agent: typeof user, contextId?: number) => {
    const vmci = await agent.scenes.open({ device, contextId });
    return await vmci.contextId;
  };

  for (const context of [16, 17, 18, 40]) assertEquals(await comesAs(user, context), context);
  assertEquals(await comesAs(user), 16);
  for (const context of [2, 19, 39]) {
    await fails("NO_ACCESS", () => comesAs(user, context));
    house.denied("hello", ({ uid, args }) => uid === NOBODY && args.context === context);
  }
  assertEquals(await comesAs(group, 17), 17);

  await house.reload(allow(`allow gid ${OTHER_GROUP} context 20`));
  assertEquals(await comesAs(group), 20);
  const refused = await fails("NO_ACCESS", () => comesAs(user, 20));
  assertMatch(refused.reason, /^this fabric is user 0's, and process \d+ is user 65534's, whom no policy lets in$/);
  house.denied("connect", ({ uid, reason }) => uid === NOBODY && reason === refused.reason);

  await house.reload(allow("allow any context 21\nallow uid 1 context 22"), 2);
  assertEquals([await comesAs(user), await comesAs(group)], [21, 21]);
  await fails("NO_ACCESS", () => comesAs(user, 22));
  await house.reload(allow("allow any context all"), 3);
  assertEquals([await comesAs(user), await comesAs(user, 4711)], [2, 4711]);
  // The daemon's own user needs no line.
  using vmci = await openVmci({ device, contextId: 99 });
  assertEquals(vmci.contextId, 99);
});

Deno.test("flags, quotas and default grants, at the start and after SIGHUP, with all clients kept", async () => {
  await using house = await House.serving({
    contexts: [16, 17],
    policy: `flags trusted context 16
quota names 1 context 16-17
grant DG_SEND on DATAGRAM of 2 to public
grant SM_ATTACH on SHAREDMEM to 17
`,
  });
  using host = await openVmci({ device: house.main });
  using trusted = await openVmci({ device: house.socket(16) });
  using plain = await openVmci({ device: house.socket(17) });

  using endpoint = host.datagrams.create();
  assertEquals(plain.datagrams.sendTo(endpoint.handle, new Uint8Array(3)), 3);
  assertEquals(trusted.access.checkClientPrivilege(endpoint.handle, contextHandle(16), "DG_SEND").via, "group");
  using foreign = trusted.datagrams.create();
  await fails("NO_ACCESS", () => plain.datagrams.sendTo(foreign.handle, new Uint8Array(3)));
  house.denied("open_lane", ({ context }) => context === 17);
  using region = trusted.sharedMemory.create(4096);
  plain.sharedMemory.attach(region.handle).detach();
  await fails("NO_ACCESS", () => host.sharedMemory.attach(region.handle));
  house.denied("attach", ({ context }) => context === 2);

  // Trust is what low well-known ids need.
  trusted.datagrams.create({ wellKnown: 7 }).close();
  await fails("NO_ACCESS", () => plain.datagrams.create({ wellKnown: 8 }));
  await fails("NO_ACCESS", () => openVmci({ device: house.socket(16), privilegeFlags: PrivilegeFlags.RESTRICTED }));
  assertMatch(house.denied("hello", ({ uid }) => uid === Deno.uid()).reason!, /the policy gives context 16 the flags/);

  plain.discovery.register("first", plain.datagrams.create().handle);
  await fails("NO_RESOURCES", () => plain.discovery.register("second", plain.datagrams.create().handle));

  await house.reload("quota names 2 context 17\nflags restricted context 17\n");
  plain.discovery.register("second", plain.datagrams.create().handle);
  await fails("NO_RESOURCES", () => plain.discovery.register("third", plain.datagrams.create().handle));
  for (const name of ["a", "b", "c"]) trusted.discovery.register(name, foreign.handle);
  // Restricted: the lane there was is closed, and none can be opened to those who are not trusted.
  await fails("NO_ACCESS", () => plain.datagrams.sendTo(endpoint.handle, new Uint8Array(3)));
  // And trust is taken back at once.
  await fails("NO_ACCESS", () => trusted.datagrams.create({ wellKnown: 9 }));
  house.denied("create_endpoint", ({ context, args }) => context === 16 && args.resource === 9);
  using ungranted = host.datagrams.create();
  await fails("NO_ACCESS", () => trusted.datagrams.sendTo(ungranted.handle, new Uint8Array(3)));
  assertEquals(trusted.datagrams.sendTo(endpoint.handle, new Uint8Array(3)), 3);

  await house.reload("", 2);
  assertEquals(plain.datagrams.sendTo(endpoint.handle, new Uint8Array(3)), 3);
  assertEquals([host, trusted, plain].map(({ closed }) => closed), [false, false, false]);
});

Deno.test("a faulty policy is refused by file, line and reason: at the start, and on SIGHUP, where the old one stays", async () => {
  await using house = await House.serving({ contexts: [16], policy: "quota names 1\n" });
  const other = ["--socket", `${house.path}/other`];
  const faulty = `${house.path}/faulty`;
  const faults: readonly (readonly [string, number, string])[] = [
    ["allow", 1, "the line ends where one of uid, gid, any should be"],
    ["\n\nallow user 5 context 16", 3, "'user' should be one of uid, gid, any"],
    ["allow uid five context 16", 1, "'five' should be a uid of at most 4294967295"],
    ["allow uid 5 contexts 16", 1, "'context' should be where 'contexts' is"],
    ["allow uid 5 context 5", 1, "'5' is no context: the host is 2, virtual machines have 16 and up"],
    ["allow any context 20-16", 1, "the range 20-16 ends before it begins"],
    ["allow any context 16-17-18", 1, "'16-17-18' should be one context or a range, as 16-31"],
    ["# fine\nflags loose context 16", 2, "'loose' should be one of none, restricted, trusted"],
    ["quota cows 3", 1, "'cows' should be one of contexts, clients, "],
    ["quota names -1", 1, "'-1' should be a number of at most"],
    ["grant SM_ATTACH on DATAGRAM to public", 1, "SM_ATTACH is no privilege of DATAGRAM: it has "],
    ["grant DG_SEND on DATAGRAM of 2 to public now", 1, "'now' is one word too many"],
    ["permit all", 1, "'permit' is no rule: there are allow, flags, quota and grant"],
  ];
  for (const [text, line, reason] of faults.filter((_, i) => i % 4 === 0)) {
    await Deno.writeTextFile(faulty, text);
    const { code, stdout, stderr } = await house.refused(...other, "--policy", faulty);
    assertEquals({ code, stdout }, { code: 1, stdout: "" });
    assertStringIncludes(stderr, `Cannot read the policy: ${faulty}:${line}: ${reason}`);
  }
  const missing = await house.refused(...other, "--policy", `${house.path}/missing`);
  assertEquals(missing.code, 1);
  assertMatch(missing.stderr, /Cannot read .*\/missing: /);
  assertEquals([...Deno.readDirSync(house.path)].filter(({ name }) => name.startsWith("other")), []);

  using guest = await openVmci({ device: house.socket(16) });
  using endpoint = guest.datagrams.create();
  guest.discovery.register("one", endpoint.handle);
  for (const [text, line, reason] of faults) {
    await house.writePolicy(text);
    house.daemon.kill("SIGHUP");
    const message = `vmci: the policy stays as it was: Cannot read the policy: ${house.policy}:${line}: ${reason}`;
    await house.daemon.printed(message);
  }
  await fails("NO_RESOURCES", () => guest.discovery.register("two", endpoint.handle));
  await house.reload("quota names 2\n");
  guest.discovery.register("two", endpoint.handle);
});

Deno.test("a policy of any size that a start accepts is read again on SIGHUP; a larger file is refused, not cut", async () => {
  const large = (names: number) => `# one of many lines\n`.repeat(50_000) + `quota names ${names}\n`;
  await using house = await House.serving({ contexts: [16], policy: large(1) });
  using guest = await openVmci({ device: house.socket(16) });
  using endpoint = guest.datagrams.create();
  guest.discovery.register("one", endpoint.handle);
  await fails("NO_RESOURCES", () => guest.discovery.register("two", endpoint.handle));
  await house.reload(large(2));
  guest.discovery.register("two", endpoint.handle);
  await house.writePolicy("#\n".repeat(1 << 19) + "quota names 3\n");
  house.daemon.kill("SIGHUP");
  await house.daemon.printed("the policy stays as it was: Cannot read ");
  await fails("NO_RESOURCES", () => guest.discovery.register("three", endpoint.handle));
  const { code, stderr } = await house.refused("--socket", `${house.path}/other`, "--policy", house.policy);
  assertEquals(code, 1);
  assertStringIncludes(stderr, `Cannot read ${house.policy}: it is longer than 1048576 bytes`);
});

Deno.test("audit: opens, grants and denials, one line of JSON each, and no tickets", async () => {
  await using house = await House.serving({ contexts: [16] });
  {
    using host = await openVmci({ device: house.main });
    using guest = await openVmci({ device: house.socket(16) });
    using endpoint = host.datagrams.create();
    using region = host.sharedMemory.create(100, { writers: "creator" });
    await fails("NO_ACCESS", () => guest.sharedMemory.attach(region.handle));
    host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
    host.access.addClientPrivileges(endpoint.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    guest.sharedMemory.attach(region.handle).detach();
    guest.datagrams.sendTo(endpoint.handle, new Uint8Array(1));
    host.discovery.register("name", endpoint.handle);
    host.access.removeAllClientPrivileges(endpoint.handle, host.access.publicGroup);
    using group = host.access.createGroup();
    group.add(16);
    group.remove(16);

    const { resource } = region.handle;
    const logged = house.entries().map(({ context, event, op }) => `${context} ${event} ${op}`);
    assertEquals(logged, [
      "2 done hello",
      "16 done hello",
      "2 done create_endpoint",
      "2 done create_region",
      "16 denied attach",
      "2 done grant",
      "2 done grant",
      "16 done attach",
      "16 done open_lane",
      "2 done register",
      "2 done revoke_all",
      "2 done create_group",
      "2 done add_member",
      "2 done remove_member",
    ]);
    const { reason, args } = house.denied("attach", () => true);
    assertEquals(args, { handle: { context: 2, resource } });
    assertEquals(reason, `context 16 does not have SM_ATTACH on 2:${resource}; context 2 can grant it`);
  }
  // A client that shows its ticket, after the daemon was replaced.
  using host = await openVmci({ device: house.main });
  using _endpoint = host.datagrams.create();
  await house.kill();
  await house.start();
  using _later = host.datagrams.create();
  const claims = house.entries().filter(({ op }) => op === "announce_resource");
  assertEquals(claims.map(({ event }) => event), ["done"]);
  for (const { time, pid, uid } of house.entries()) {
    assert(Math.abs(Date.parse(time) - Date.now()) < 600_000 && pid === Deno.pid && uid === Deno.uid());
  }
  const text = await Deno.readTextFile(house.audit);
  assert(!/ticket|[\w-]{43}/.test(text), text);
  assertEquals((await Deno.stat(house.audit)).mode! & 0o777, 0o600);
});

/** Another user of the machine: what the daemon lets it do, and what nobody lets it do. */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { contextHandle, openVmci } from "../../mod.ts";
import { fails } from "../support/failure.ts";
import { asRoot, House, NOBODY } from "../support/house.ts";
import { makeRunDirectory } from "../support/media.ts";
import { RawClient } from "../support/raw_client.ts";

/** Runs a command as another user; it must succeed. */
async function asNobody(cwd: string, command: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args, uid: NOBODY, gid: NOBODY, cwd }).output();
  assertEquals({ success, stderr: new TextDecoder().decode(stderr) }, { success: true, stderr: "" });
}

Deno.test(asRoot("without a grant another user reaches nothing; with it, what was granted"), async () => {
  await using house = await House.serving({ contexts: [16], policy: `allow uid ${NOBODY} context 17` });
  using host = await openVmci({ device: house.main });
  using endpoint = host.datagrams.create();
  using region = host.sharedMemory.create(4096);
  using group = host.access.createGroup();
  host.discovery.register("service", endpoint.handle);
  const agent = await house.stranger();
  for (const [device, context] of [[house.socket(16), 16], [house.main, 17]] as const) {
    const guest = await agent.scenes.open({ device });
    assertEquals([await guest.contextId], [context]);
    const own = await guest.datagrams.create();
    assertEquals(await guest.discovery.lookup("service"), endpoint.handle);
    await fails("NO_ACCESS", () => own.sendTo(endpoint.handle, new Uint8Array(1)));
    await fails("NO_ACCESS", () => guest.sharedMemory.attach(region.handle));
    await fails("NO_ACCESS", () => guest.discovery.register(`mine ${context}`, endpoint.handle));
    await fails("NO_ACCESS", () => guest.discovery.unregister("service"));
    await fails("NO_ACCESS", () => guest.datagrams.destroy(endpoint.handle));
    await fails(
      "NO_ACCESS",
      () => guest.access.addClientPrivileges(region.handle, contextHandle(context), { allow: ["SM_ATTACH"] }),
    );
    await fails("NO_ACCESS", () => guest.access.joinGroup(group.handle));
    const operations = ["open_lane", "attach", "register", "unregister", "destroy", "grant", "add_member"];
    for (const op of operations) house.denied(op, (it) => it.context === context && it.uid === NOBODY);

    host.access.addClientPrivileges(endpoint.handle, contextHandle(context), { allow: ["DG_SEND"] });
    host.access.addClientPrivileges(region.handle, contextHandle(context), { allow: ["SM_ATTACH"] });
    await own.sendTo(endpoint.handle, new Uint8Array([context]));
    const { source, payload } = endpoint.receiveSync(5000);
    assertEquals([source, payload[0]], [own.handle, context]);
    const attached = await guest.sharedMemory.attach(region.handle);
    region.bytes[5] = context;
    assertEquals((await attached.bytes)[5], context);
    await fails("NO_ACCESS", () => guest.discovery.register(`mine ${context}`, endpoint.handle));
  }
});

Deno.test(
  asRoot("a region of which only the creator writes cannot be written by a reader, whatever it tries"),
  async () => {
    await using house = await House.serving({ contexts: [16] });
    using host = await openVmci({ device: house.main });
    using region = host.sharedMemory.create(8192, { writers: "creator" });
    host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
    region.bytes.fill(7);
    const { context, resource } = region.handle;
    const args = [house.socket(16), context, resource, region.size].map(String);
    assertEquals(await house.runStrange("tests/programs/intruder.ts", ...args), {
      "writable": false,
      "map it to read": "done",
      "map it to write": "EPERM",
      "make the mapping writable": "EACCES",
      "write": "EPERM",
      "write at a place": "EPERM",
      "shrink": "EPERM",
      "grow": "EPERM",
      "punch a hole": "EPERM",
      "seal it more": "EPERM",
      "open it again": "refused",
      "first byte": 7,
    });
    assertEquals(region.bytes, new Uint8Array(8192).fill(7));
  },
);

Deno.test(
  asRoot("an embedded broker is its own user's, even if its directory and socket are open to all"),
  async () => {
    await using house = await House.make();
    const device = await makeRunDirectory();
    try {
      await using mine = await openVmci({ device });
      using endpoint = mine.datagrams.create();
      const agent = await house.stranger();
      const closed = await fails("NO_ACCESS", () => agent.scenes.open({ device }));
      assertEquals(
        closed.reason,
        `${device} belongs to user 0, and this is user ${NOBODY}: a fabric without a daemon is one user's alone`,
      );
      await fails("NO_ACCESS", () => agent.scenes.open({ device: `${device}/socket` }));

      await Deno.chmod(device, 0o777);
      await Deno.chmod(`${device}/socket`, 0o777);
      const open = await fails("NO_ACCESS", () => agent.scenes.open({ device: `${device}/socket` }));
      assertMatch(open.reason, /^this fabric is user 0's, and process \d+ is user 65534's, whom no policy lets in$/);
      await fails("NO_ACCESS", () => agent.scenes.open({ device }));
      const mode = await fails("NO_ACCESS", () => openVmci({ device }));
      assertEquals(mode.reason, `others may enter ${device} (mode 777): chmod 700 it`);
      await Deno.chmod(device, 0o700);
      using again = await openVmci({ device });
      assertEquals(again.access.checkClientPrivilege(endpoint.handle, contextHandle(2), "DG_SEND").granted, true);
    } finally {
      await Deno.remove(device, { recursive: true });
    }
  },
);

Deno.test(asRoot("a directory that another user prepared is refused, and says why"), async () => {
  await using house = await House.make();
  const shared = `${house.path}/tmp`;
  await Deno.mkdir(shared);
  await Deno.chmod(shared, 0o1777);
  const mine = `${shared}/mine`;
  await Deno.mkdir(mine, { mode: 0o700 });

  await asNobody(shared, "mkdir", "-m", "700", "theirs");
  await asNobody(shared, "mkdir", "-m", "777", "open");
  await asNobody(shared, "ln", "-s", mine, "to-mine");
  await asNobody(shared, "ln", "-s", `${shared}/theirs`, "to-theirs");
  await asNobody(shared, "touch", "file");
  const refusals = [
    ["theirs", "NO_ACCESS", /theirs belongs to user 65534, and this is user 0: /],
    ["open", "NO_ACCESS", /open belongs to user 65534, and this is user 0: /],
    [
      "to-mine",
      "UNAVAILABLE",
      /to-mine is a .*link, not a directory/,
    ],
    ["file", "UNAVAILABLE", /file is a file, not a directory/],
  ] as const;
  for (const [name, code, why] of refusals) {
    const { reason } = await fails(code, () => openVmci({ device: `${shared}/${name}` }));
    assertMatch(reason, why);
  }
  for (const mode of [0o701, 0o710, 0o770, 0o777]) {
    await Deno.chmod(mine, mode);
    const { reason } = await fails("NO_ACCESS", () => openVmci({ device: mine }));
    assertEquals(reason, `others may enter ${mine} (mode ${mode.toString(8)}): chmod 700 it`);
  }
  assertEquals([...Deno.readDirSync(`${shared}/theirs`), ...Deno.readDirSync(`${shared}/open`)], []);
  // A link in the place of a file of the directory is not followed.
  const precious = `${house.path}/precious`;
  for (const name of ["lock", "roster"]) {
    const trap = `${shared}/trap-${name}`;
    await Deno.mkdir(trap, { mode: 0o700 });
    await Deno.symlink(precious, `${trap}/${name}`);
    await fails("UNAVAILABLE", () => openVmci({ device: trap }));
  }
  assertEquals(await Deno.stat(precious).catch(() => undefined), undefined);
});

Deno.test(asRoot("a socket that another user listens at is no fabric of mine, and no daemon takes it"), async () => {
  await using house = await House.make();
  const shared = `${house.path}/tmp`;
  await Deno.mkdir(shared);
  await Deno.chmod(shared, 0o1777);
  await asNobody(shared, "mkdir", "-m", "700", "theirs");
  const agent = await house.stranger();
  const theirs = await agent.scenes.open({ device: `${shared}/theirs` });
  const socket = `${shared}/theirs/socket`;
  await Deno.chmod(`${shared}/theirs`, 0o777);
  await Deno.chmod(socket, 0o777);

  const { reason } = await fails("NO_ACCESS", () => openVmci({ device: socket }));
  assertMatch(reason, /^this fabric is user 65534's, and process \d+ is user 0's, whom no policy lets in$/);
  await fails("NO_ACCESS", () => openVmci({ device: `${shared}/theirs` }));
  // A link to it in my own directory leads nowhere else.
  const mine = `${shared}/mine`;
  await Deno.mkdir(mine, { mode: 0o700 });
  await Deno.symlink(socket, `${mine}/socket`);
  const linked = await fails("NO_ACCESS", () => openVmci({ device: mine }));
  assertMatch(linked.reason, /^user 65534 \(process \d+\) listens at .*mine\/socket, and this is user 0$/);
  const { code, stderr } = await house.refused("--socket", socket);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "theirs/socket");
  // Theirs goes on.
  assertEquals(await theirs.discovery.list("nothing"), []);
});

Deno.test(asRoot("a daemon's state that another user prepared is refused"), async () => {
  await using house = await House.make();
  const shared = `${house.path}/tmp`;
  await Deno.mkdir(shared);
  await Deno.chmod(shared, 0o1777);
  await asNobody(shared, "mkdir", "-m", "700", "main.state");
  const { code, stderr } = await house.refused("--socket", `${shared}/main`);
  assertEquals(code, 1);
  assertStringIncludes(stderr, `${shared}/main.state belongs to user ${NOBODY}, and this is user 0`);
});

Deno.test(asRoot("who no policy lets in is refused at its first word"), async () => {
  await using house = await House.serving();
  const { code, reason } = await house.stranger().then((agent) =>
    fails("NO_ACCESS", () => agent.scenes.open({ device: house.main }))
  );
  assertEquals(code, "NO_ACCESS");
  house.denied("connect", (it) => it.uid === NOBODY && it.reason === reason);
  // The daemon's own user is let in meanwhile.
  using raw = new RawClient(house.main);
  assertEquals(raw.hello().result.context, 2);
});

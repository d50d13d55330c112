/** What only the fabric of this machine has: where it is, what lasts beyond it, and what the kernel may refuse. */

import { assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { type AtomicWord, contextHandle, type OpenOptions, openVmci, type Vmci } from "../mod.ts";
import { withFailures } from "./ffi/support.ts";
import { text } from "./conformance/suite.ts";
import { fails, failsSync } from "./support/failure.ts";
import { makeRunDirectory } from "./support/media.ts";
import { openKept } from "./support/scenes.ts";

const ENOMEM = 12;
const ECONNRESET = 104;

/** A run directory that is removed at the end. */
async function runDirectory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await makeRunDirectory();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Runs a program that finds `openVmci` imported, with no permission but for native calls. */
async function run(
  program: string,
  env: Record<string, string>,
): Promise<{ code: number; output: string; errors: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-ffi", "-"],
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const mod = new URL("../mod.ts", import.meta.url).href;
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(`import { openVmci } from ${JSON.stringify(mod)};\n${program}`));
  await input.close();
  const { code, stdout, stderr } = await child.output();
  return { code, output: text(stdout), errors: text(stderr) };
}

/** The device and the context that a program without options finds itself in. */
async function placeOf(env: Record<string, string>, options: OpenOptions = {}): Promise<unknown> {
  const program = `await using vmci = await openVmci(${JSON.stringify(options)});
    console.log(JSON.stringify([vmci.device, vmci.contextId]));`;
  const { output, errors } = await run(program, env);
  assertEquals(errors, "");
  return JSON.parse(output);
}

Deno.test("fabric: it is named by its directory, with or without a scheme", async () => {
  await using directory = await runDirectory();
  await using first = await openVmci({ device: directory.path });
  await using second = await openVmci({ device: `fabric:${directory.path}` });
  assertEquals([first.device, second.device], [`fabric:${directory.path}`, `fabric:${directory.path}`]);
  using endpoint = first.datagrams.create();
  assertEquals(second.datagrams.sendTo(endpoint.handle, new Uint8Array(3)), 3);
});

Deno.test("fabric: the environment names the fabric and the context of who does not", async () => {
  await using directory = await runDirectory();
  await using other = await runDirectory();
  const env = { VMCI_FABRIC: directory.path, VMCI_CID: "17" };
  assertEquals(await placeOf(env), [`fabric:${directory.path}`, 17]);
  assertEquals(await placeOf(env, { contextId: 18, device: other.path }), [`fabric:${other.path}`, 18]);
  assertEquals(await placeOf({ VMCI_FABRIC: "memory:" }), ["memory:", 2]);
  const { code, errors } = await run("await openVmci();", { ...env, VMCI_CID: "seventeen" });
  assertEquals(code, 1);
  assertStringIncludes(errors, "VMCI_CID must be a context id: it is 'seventeen' (INVALID_ARGS)");
});

Deno.test("fabric: where there can be none", async () => {
  await using directory = await runDirectory();
  const file = `${directory.path}/file`;
  await Deno.writeTextFile(file, "");
  const open = (device: string) => () => openVmci({ device });
  for (const device of [`${directory.path}/none`, file, "/dev/vsock", "\\\\.\\VMCI", "tcp:1"]) {
    await fails("UNAVAILABLE", open(device), { operation: "openVmci" });
  }
  for (const device of ["a\0b", "vsock:fast", "/dev/vmci,fast"]) {
    await fails("INVALID_ARGS", open(device), { operation: "openVmci" });
  }
  await Deno.chmod(directory.path, 0o750);
  await fails("NO_ACCESS", open(directory.path), { operation: "openVmci" });
});

Deno.test("fabric: what it gave is not given again after everybody has left", async () => {
  await using directory = await runDirectory();
  let last = 0;
  for (let life = 0; life < 3; life++) {
    await using vmci = await openVmci({ device: directory.path });
    for (let i = 0; i < 3; i++) {
      using endpoint = vmci.datagrams.create();
      assertGreater(endpoint.handle.resource, last);
      last = endpoint.handle.resource;
    }
  }
});

Deno.test("fabric: a program that forgets to close ends, and what it had goes", async () => {
  await using directory = await runDirectory();
  const forgetful = `const vmci = await openVmci({ contextId: 16 });
    const endpoint = vmci.datagrams.create();
    vmci.discovery.register("forgotten", endpoint.handle);
    vmci.sharedMemory.create(4096).word(0).store(1);
    vmci.access.createGroup();
    vmci.events();
    endpoint.sendTo(endpoint.handle, new Uint8Array(1));
    await endpoint.receive();
    console.log("done");`;
  assertEquals(await run(forgetful, { VMCI_FABRIC: directory.path }), { code: 0, output: "done\n", errors: "" });
  await using host = await openVmci({ device: directory.path });
  const events = host.events();
  assertEquals(await run(forgetful, { VMCI_FABRIC: directory.path }), { code: 0, output: "done\n", errors: "" });
  assertEquals((await events.next()).value, { type: "context-removed", context: 16 });
  assertEquals(host.discovery.list("forgotten"), []);
});

/** How many lanes this process has mapped. */
async function mappedLanes(): Promise<number> {
  const maps = await Deno.readTextFile("/proc/self/maps");
  return maps.split("\n").filter((line) => line.includes("memfd:vmci-lane")).length;
}

Deno.test("fabric: a lane that was closed is unmapped on both sides, once it is read", async () => {
  await using directory = await runDirectory();
  await using host = await openVmci({ device: directory.path });
  await using guest = await openVmci({ device: directory.path, contextId: 16 });
  using mailbox = host.datagrams.create();
  const before = await mappedLanes();
  const client = contextHandle(16);
  for (let i = 0; i < 5; i++) {
    host.access.addClientPrivileges(mailbox.handle, client, { allow: ["DG_SEND"] });
    guest.datagrams.sendTo(mailbox.handle, new Uint8Array(1));
    assertEquals([mailbox.tryReceive()?.payload.length, await mappedLanes()], [1, before + 2]);
    guest.datagrams.sendTo(mailbox.handle, new Uint8Array(2));
    host.access.removeAllClientPrivileges(mailbox.handle, client);
    failsSync("NO_ACCESS", () => guest.datagrams.sendTo(mailbox.handle, new Uint8Array(1)));
    assertEquals([mailbox.tryReceive()?.payload.length, mailbox.tryReceive()], [2, undefined]);
    assertEquals(await mappedLanes(), before);
  }
});

/** How many bytes of lanes this process has in memory. */
async function residentLanes(): Promise<number> {
  const maps = (await Deno.readTextFile("/proc/self/smaps")).split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/);
  const lanes = maps.filter((map) => map.includes("memfd:vmci-lane"));
  return lanes.reduce((sum, map) => sum + 1024 * Number(/^Rss: +(\d+) kB/m.exec(map)![1]), 0);
}

Deno.test("fabric: a lane that is not used gives its memory back, and goes on where it was", async () => {
  await using directory = await runDirectory();
  await using host = await openVmci({ device: directory.path });
  await using guest = await openVmci({ device: directory.path, contextId: 16 });
  using mailbox = host.datagrams.create();
  host.access.addClientPrivileges(mailbox.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
  using sender = guest.datagrams.create();
  const send = (count: number) => {
    for (let i = 0; i < count; i++) {
      sender.sendTo(mailbox.handle, new Uint8Array(5000).fill(i));
      assertEquals(mailbox.tryReceive()?.payload, new Uint8Array(5000).fill(i));
    }
  };
  send(200);
  assertGreater(await residentLanes(), 500_000);
  // What is in it stays.
  sender.sendTo(mailbox.handle, new Uint8Array([1, 2, 3]));
  await new Promise((resolve) => setTimeout(resolve, 2500));
  assertEquals(mailbox.tryReceive()?.payload, new Uint8Array([1, 2, 3]));
  while (await residentLanes() > 100_000) await new Promise((resolve) => setTimeout(resolve, 100));
  for (let round = 0; round < 3; round++) send(70);
  assertGreater(await residentLanes(), 500_000);
});

Deno.test("fabric: a bell that is lost is made anew, and who waits for a region is rung by that one", async () => {
  await using directory = await runDirectory();
  await using host = await openKept({ device: directory.path, spin: 0 });
  await using guest = await openKept({ device: directory.path, contextId: 16, spin: 0 });
  const region = host.sharedMemory.create(4096);
  host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
  const [theirs, mine] = [region.word(0), guest.sharedMemory.attach(region.handle).word(0)];
  const goesOn = async (value: number) => {
    // Unlike a timeout, a signal has nobody look once more before it ends the wait.
    const waiting = mine.wait(value, { signal: AbortSignal.timeout(30_000) });
    theirs.store(value + 1);
    assertEquals(await waiting, value + 1);
  };
  await goesOn(0);
  // The guest hears of both its bells, the broker's and the host's, that they have ended.
  for (let lost = 1; lost <= 2; lost++) {
    failsSync(
      "TIMEOUT",
      () => withFailures("recv", ECONNRESET, lost, () => mine.waitSync(lost, 5)),
    );
    await goesOn(lost);
  }
});

Deno.test("fabric: who hears of a watcher rings it, for what it wrote without knowing of it", async () => {
  await using directory = await runDirectory();
  await using host = await openKept({ device: directory.path, spin: 0 });
  await using guest = await openKept({ device: directory.path, contextId: 16, spin: 0 });
  const share = () => {
    const region = host.sharedMemory.create(4096);
    host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
    return { region, theirs: guest.sharedMemory.attach(region.handle).word(0) };
  };
  const wait = (word: AtomicWord) => word.wait(0, { signal: AbortSignal.timeout(30_000) });
  // For this the two get a bell, and later nothing else has the guest look.
  const first = share();
  const bell = wait(first.theirs);
  first.region.word(0).store(1);
  assertEquals(await bell, 1);
  const { region, theirs } = share();
  const waiting = wait(theirs);
  // Written without a ring, as by somebody who has not heard yet that there is anybody to be rung.
  region.view(Int32Array)[0] = 5;
  assertEquals(await waiting, 5);
});

Deno.test("fabric: what a blocking call hears of is told to those who wait for a promise, too", async () => {
  await using directory = await runDirectory();
  await using host = await openKept({ device: directory.path, spin: 0 });
  await using guest = await openKept({ device: directory.path, contextId: 16, spin: 0 });
  const [mailbox, other] = [host.datagrams.create(), host.datagrams.create()];
  host.access.addClientPrivileges(mailbox.handle, contextHandle(16), { allow: ["DG_SEND"] });
  const from = guest.datagrams.create();
  // While the first of them comes the broker has more to say, which has the host look as well.
  for (let i = 0; i < 3; i++) {
    const promise = mailbox.receive({ signal: AbortSignal.timeout(30_000) });
    from.sendTo(mailbox.handle, new Uint8Array([i]));
    failsSync("TIMEOUT", () => other.receiveIntoSync(new Uint8Array(8), 5));
    assertEquals((await promise).payload, new Uint8Array([i]));
  }
});

/** What wants memory: how many mappings or allocations must fail for it to fail, and how it is done. */
const wanting: Readonly<
  Record<string, readonly [symbol: string, times: number, prepare: (vmci: Vmci, other: Vmci) => () => unknown]>
> = {
  "a region": ["fallocate", 1, (vmci) => () => vmci.sharedMemory.create(4096)],
  "a region's mapping": ["mmap", 1, (vmci) => () => vmci.sharedMemory.create(4096)],
  "an attachment": ["mmap", 1, (vmci, other) => {
    const region = other.sharedMemory.create(4096, { writers: "creator" });
    return () => vmci.sharedMemory.attach(region.handle);
  }],
  // The first of the two is the receiver's attention word: it can do without.
  "a lane": ["mmap", 2, (vmci, other) => {
    const endpoint = other.datagrams.create();
    return () => vmci.datagrams.sendTo(endpoint.handle, new Uint8Array(1));
  }],
};

for (const [what, [symbol, times, prepare]] of Object.entries(wanting)) {
  Deno.test(`fabric: without memory for ${what} it is NO_MEM, until there is some`, async () => {
    await using directory = await runDirectory();
    await using vmci = await openKept({ device: directory.path });
    await using other = await openKept({ device: directory.path });
    const act = prepare(vmci, other);
    for (let i = 0; i < 3; i++) failsSync("NO_MEM", () => withFailures(symbol, ENOMEM, times, act));
    act();
  });
}

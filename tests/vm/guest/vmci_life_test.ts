/** /dev/vmci: users, deaths, and nothing left behind. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { VmciDevice } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { codeOf, context, pattern } from "./support/raw.ts";

const ANY = 0xffffffff;

/** Starts a program that finds what is in mod.ts of the devices imported; as another user, if one is given. */
function start(program: string, uid?: number): Deno.ChildProcess {
  const source = `import { VmciDevice } from ${JSON.stringify(import.meta.resolve("@vmci/vmci/device"))};\n${program}`;
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--no-lock",
      "--cached-only",
      "--unstable-vsock",
      `data:text/javascript,${encodeURIComponent(source)}`,
    ],
    ...(uid === undefined ? {} : { uid, gid: uid, env: { DENO_DIR: `/tmp/deno-${uid}`, HOME: "/tmp" } }),
    stdin: "piped",
    stdout: "piped",
  }).spawn();
}

/** The descriptors and mappings of this process. */
function held(): { descriptors: number; mappings: number } {
  return {
    descriptors: [...Deno.readDirSync("/proc/self/fd")].length,
    mappings:
      Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes("vmci-device")).length,
  };
}

guestTest("vmci users: without a right to the node opening is NO_ACCESS, with one nobody is everybody", async () => {
  const program = `
    const attempt = () => {
      try {
        const device = VmciDevice.open();
        const context = device.initContext({ context: 1 });
        console.log(JSON.stringify([context, device.send({ context, resource: 1 }, 1, new Uint8Array(3))]));
      } catch (error) {
        console.log(JSON.stringify([error.code, error.cause.code, error.message]));
      }
    };
    attempt();
    await Deno.stdin.read(new Uint8Array(1));
    attempt();`;
  const child = start(program, 65534);
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const line = async () => JSON.parse((await lines.read()).value!);
  const [code, cause, message] = await line();
  assertEquals([code, cause], ["NO_ACCESS", "EACCES"]);
  assertStringIncludes(message, "udev");
  Deno.chmodSync("/dev/vmci", 0o666);
  try {
    await child.stdin.close();
    assertEquals(await line(), [1, 3]);
  } finally {
    Deno.chmodSync("/dev/vmci", 0o600);
  }
  await lines.cancel();
  await child.status;
});

guestTest("vmci death: a host's process that is killed ends the stream; a context's does so for the host", async () => {
  using device = context(100);
  using listener = (Deno as unknown as { listen(options: unknown): Deno.Listener<Deno.Conn> })
    .listen({ transport: "vsock", cid: ANY, port: 6011 });
  const killedContext = start(`
    const device = VmciDevice.open();
    device.initContext({ context: 101, exact: true });
    const stream = await device.connect({ port: 6011 });
    await stream.write(new Uint8Array(100));
    await new Promise((resolve) => setTimeout(resolve, 100000));`);
  const killedHost = start(`
    const listener = Deno.listen({ transport: "vsock", cid: ${ANY}, port: 6010 });
    console.log("ready");
    const connection = await listener.accept();
    await connection.write(new Uint8Array(100));
    await new Promise((resolve) => setTimeout(resolve, 100000));`);
  const ready = killedHost.stdout.getReader();
  await ready.read();
  using stream = await device.connect({ port: 6010, timeout: 60000 });
  const bytes = new Uint8Array(200);
  assertEquals(await stream.read(bytes), 100);
  killedHost.kill("SIGKILL");
  assertEquals(await stream.read(bytes), null);
  await ready.cancel();
  await killedHost.stdin.close();
  await killedHost.status;

  using connection = await listener.accept();
  assertEquals(await connection.read(bytes), 100);
  killedContext.kill("SIGKILL");
  assertEquals(await connection.read(bytes).catch(() => null), null);
  await killedContext.stdout.cancel();
  await killedContext.stdin.close();
  await killedContext.status;
  using again = context(101);
  assertEquals(again.context, 101, "the dead one's id is free");
});

guestTest("vmci leaks: ten thousand devices opened and closed leave nothing", () => {
  const cycle = () => {
    using device = VmciDevice.open();
    device.initContext({ context: 100, exact: true });
  };
  cycle();
  const before = held();
  for (let i = 0; i < 10_000; i++) cycle();
  assertEquals(held(), before);
});

guestTest("vmci leaks: devices with all they can have, and openings that fail, leave nothing", async () => {
  const cycle = async () => {
    using device = context(100);
    const pair = device.openQueuePair({ produceSize: 4096, consumeSize: 4096, peer: 2 });
    device.openQueuePair({ produceSize: 4096, consumeSize: 4096, peer: 2 }).close();
    assertEquals(codeOf(() => device.openQueuePair({ produceSize: 1, consumeSize: 1, attach: true })), "NOT_FOUND");
    pair.tryWrite(pattern(10));
    const byte = device.notifyByte();
    assertEquals(codeOf(() => device.notifyByte()), "DUPLICATE_ENTRY");
    device.ringDoorbell(device.createDoorbell(1));
    device.watchContext(2);
    device.send({ context: 100, resource: 1 }, 1, pattern(10));
    await device.receive();
    const waiting = device.receive().catch((error) => error);
    const other = codeOf(() => VmciDevice.open({ path: "/dev/null" }));
    assertEquals(other, "DEVICE_NOT_FOUND");
    device.close();
    byte.close();
    assertEquals((await waiting).code, "INVALID_RESOURCE");
  };
  await cycle();
  const before = held();
  for (let i = 0; i < 100; i++) await cycle();
  assertEquals(held(), before);
});

guestTest("vmci leaks: what was held in the kernel is free again", () => {
  const free = () => {
    const text = Deno.readTextFileSync("/proc/meminfo");
    return Number(/MemAvailable:\s+(\d+)/.exec(text)![1]);
  };
  const cycle = () => {
    using device = context(100);
    device.openQueuePair({ produceSize: 4 << 20, consumeSize: 4 << 20, peer: 2 });
  };
  cycle();
  const before = free();
  for (let i = 0; i < 16; i++) cycle();
  // Sixteen times 8 MiB would be 128 MiB; the rest is the engine's own.
  assert(before - free() < 64 * 1024, `${before} KiB before, ${free()} after`);
});

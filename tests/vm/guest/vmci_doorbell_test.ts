/** /dev/vmci: doorbells, the notify byte, watches of contexts, and state. */

import { assertEquals, assertRejects } from "@std/assert";
import { VmciError } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { codeOf, context, int, pattern, raw, structure } from "./support/raw.ts";

const SET_NOTIFY = 0x7cb;

guestTest("vmci doorbells: one is made, rung, received once and destroyed", async () => {
  using device = context(100);
  const doorbell = device.createDoorbell(7);
  assertEquals(doorbell, { context: 100, resource: 7 });
  assertEquals(device.tryReceiveDoorbells(), []);
  const waiting = device.receiveDoorbells();
  device.ringDoorbell(doorbell);
  assertEquals(await waiting, [doorbell]);
  device.ringDoorbell(doorbell);
  device.ringDoorbell(doorbell);
  assertEquals(device.tryReceiveDoorbells(), [doorbell]);
  assertEquals(device.tryReceiveDoorbells(), []);
  device.destroyDoorbell(doorbell);
  assertEquals(codeOf(() => device.ringDoorbell(doorbell)), "NOT_FOUND");
  assertEquals(codeOf(() => device.destroyDoorbell(doorbell)), "NOT_FOUND");
});

guestTest("vmci doorbells: made twice, of others, unknown and the host's", () => {
  using device = context(100);
  using other = context(101);
  device.createDoorbell(7);
  assertEquals(codeOf(() => device.createDoorbell(7)), "DUPLICATE_ENTRY");
  const foreign = other.createDoorbell(7);
  assertEquals(codeOf(() => device.ringDoorbell(foreign)), "DST_UNREACHABLE");
  assertEquals(codeOf(() => device.ringDoorbell({ context: 100, resource: 8 })), "NOT_FOUND");
  assertEquals(codeOf(() => device.ringDoorbell({ context: 2, resource: 8 })), "NOT_FOUND");
  assertEquals(codeOf(() => device.createDoorbell(-1)), "INVALID_ARGS");
  // One under another's context is taken, and of no use: nobody can ring it.
  const useless = structure(16, [0, 4, 101], [4, 4, 9], [8, 2, 1], [10, 2, 1]);
  assertEquals([raw(device, 0x7a5, useless), int(useless, 12)], [0, 0]);
  assertEquals(codeOf(() => other.ringDoorbell({ context: 101, resource: 9 })), "NOT_FOUND");
  // A queue pair as what is notified of (resource 0).
  const request = structure(16, [0, 4, 100], [4, 4, 7]);
  assertEquals([raw(device, 0x7a5, request), int(request, 12)], [0, -20]);
});

guestTest("vmci doorbells: to and from the well-known context", () => {
  using wellKnown = context(1);
  using device = context(100);
  const theirs = wellKnown.createDoorbell(7);
  const mine = device.createDoorbell(9);
  device.ringDoorbell(theirs);
  wellKnown.ringDoorbell(mine);
  assertEquals([wellKnown.tryReceiveDoorbells(), device.tryReceiveDoorbells()], [[theirs], [mine]]);
  using hypervisor = context(0);
  hypervisor.ringDoorbell(mine);
  assertEquals(device.tryReceiveDoorbells(), [mine]);
});

guestTest("vmci doorbells: 4096 of them, all rung, come in one go; too small a buffer leaves them", () => {
  using device = context(100);
  const all = Array.from({ length: 4096 }, (_, i) => device.createDoorbell(10000 + i));
  assertEquals(codeOf(() => device.createDoorbell(1)), "NO_MEM");
  for (const doorbell of all) device.ringDoorbell(doorbell);
  const buffer = new Uint8Array(new ArrayBuffer(64));
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
  const request = structure(40, [0, 8, address], [8, 8, 64]);
  assertEquals([raw(device, 0x7a6, request), int(request, 32)], [0, -5]);
  const rung = device.tryReceiveDoorbells();
  assertEquals(rung.map(({ resource }) => resource).sort((a, b) => a - b), all.map(({ resource }) => resource));
});

guestTest("vmci notify byte: set while something waits, and once it is read no more", () => {
  using device = context(100);
  const self = { context: 100, resource: 7 };
  device.send(self, 1, pattern(1));
  const byte = device.notifyByte();
  assertEquals(byte.pending, true, "a datagram waits already");
  device.tryReceive();
  assertEquals(byte.pending, false);
  const doorbell = device.createDoorbell(3);
  device.ringDoorbell(doorbell);
  assertEquals(byte.pending, true);
  device.tryReceiveDoorbells();
  assertEquals(byte.pending, false);
  assertEquals(codeOf(() => device.notifyByte()), "DUPLICATE_ENTRY");
  byte.close();
  byte.close();
  using again = device.notifyByte();
  assertEquals(again.pending, false);
  assertEquals(byte.pending, false);
});

guestTest("vmci notify byte: a bad address is refused, and a closed device leaves the byte readable", () => {
  const device = context(100);
  const request = structure(16, [0, 8, 0x10n]);
  assertEquals([raw(device, SET_NOTIFY, request), int(request, 8)], [0, -13]);
  const byte = device.notifyByte();
  device.close();
  assertEquals(byte.pending, false);
  byte.close();
});

guestTest("vmci notify byte: it is the driver's after a fork, which the engine's own memory would not be", async () => {
  using device = context(100);
  using other = context(101);
  const byte = device.notifyByte();
  const page = new Uint8Array(new ArrayBuffer(8192));
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(page));
  const at = 4096 - Number(address % 4096n);
  const request = structure(16, [0, 8, address + BigInt(at)]);
  assertEquals([raw(other, SET_NOTIFY, request), int(request, 8)], [0, 0]);
  other.send({ context: 101, resource: 7 }, 1, pattern(1));
  assertEquals([byte.pending, page[at]], [false, 1]);
  // A child of another user is forked, not spawned.
  await new Deno.Command("true", { uid: 1001, gid: 1001 }).output();
  page[at + 1] = 1;
  other.tryReceive();
  device.send({ context: 100, resource: 7 }, 1, pattern(1));
  assertEquals(
    [byte.pending, page[at]],
    [true, 1],
    "the driver has taken it back, in a page that is not here any more",
  );
  raw(other, SET_NOTIFY, structure(16));
});

guestTest("vmci watches: who may watch whom", () => {
  using device = context(100);
  using _other = context(101);
  using restricted = context(102, { restricted: true });
  assertEquals(codeOf(() => device.watchContext(101)), "DST_UNREACHABLE");
  for (const id of [0, 1, 2]) assertEquals(codeOf(() => device.watchContext(id)), undefined, `${id}`);
  assertEquals(codeOf(() => device.watchContext(2)), "ALREADY_EXISTS");
  assertEquals(codeOf(() => restricted.watchContext(2)), "NO_ACCESS");
  device.unwatchContext(2);
  assertEquals(codeOf(() => device.unwatchContext(2)), "NOT_FOUND");
  assertEquals(codeOf(() => device.watchContext(-1)), "INVALID_ARGS");
});

guestTest("vmci watches: a watched context that goes is told, closed or killed", async () => {
  using watcher = context(1);
  const other = context(100);
  watcher.watchContext(100);
  watcher.watchContext(300);
  assertEquals(watcher.tryNextEvent(), undefined);
  const event = watcher.nextEvent();
  other.close();
  assertEquals(await event, { type: "context-removed", context: 100 });
  const program = `import { VmciDevice } from ${JSON.stringify(import.meta.resolve("@vmci/vmci/device"))};
    const device = VmciDevice.open();
    device.initContext({ context: 300, exact: true });
    console.log("ready");
    await new Promise((resolve) => setTimeout(resolve, 100000));`;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--no-lock",
      "--cached-only",
      `data:text/javascript,${encodeURIComponent(program)}`,
    ],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  child.kill("SIGKILL");
  assertEquals(await watcher.nextEvent(), { type: "context-removed", context: 300 });
  await reader.cancel();
  await child.status;
  const none = await assertRejects(() => watcher.nextEvent({ timeout: 10 }), VmciError);
  assertEquals(none.code, "TIMEOUT");
});

guestTest("vmci state: watches and doorbells are read, watches are restored", () => {
  using device = context(1);
  assertEquals([device.checkpointState("watches"), device.checkpointState("doorbells")], [[], []]);
  const many = Array.from({ length: 20 }, (_, i) => 500 + i);
  for (const id of many) device.watchContext(id);
  for (const id of many) device.createDoorbell(id);
  assertEquals(device.checkpointState("watches").sort(), many);
  assertEquals(device.checkpointState("doorbells").sort(), many);
  using restored = context(100);
  assertEquals(codeOf(() => restored.restoreCheckpoint("watches", [0, 1, 2])), undefined);
  assertEquals(restored.checkpointState("watches").sort(), [0, 1, 2]);
  assertEquals(codeOf(() => restored.restoreCheckpoint("doorbells", [7])), "INVALID_ARGS");
  // A part that no driver has, and a buffer that is too small.
  const buffer = new Uint8Array(new ArrayBuffer(64));
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
  const part = (kind: number, size: number) => {
    const request = structure(24, [0, 8, address], [8, 4, kind], [12, 4, size]);
    return [raw(device, 0x7b1, request), int(request, 16), int(request, 12)];
  };
  assertEquals(part(99, 64), [0, -2, 64]);
  assertEquals(part(1, 4), [0, -5, 80]);
});

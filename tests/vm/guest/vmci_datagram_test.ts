/** /dev/vmci: who reaches whom, sizes, queues, order and waiting. */

import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type Handle, type VmciDevice, VmciError } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { HostSocket } from "./support/host_socket.ts";
import { codeOf, context, int, pattern, raw, structure } from "./support/raw.ts";

const SEND = 0x7ab;
const RECEIVE = 0x7ac;
const INVALID = 0xffffffff;

/** What sending an empty datagram gives. */
function sent(from: VmciDevice, to: Handle, source: number | Handle = 1): number | string {
  return codeOf(() => from.send(to, source, new Uint8Array()));
}

/** Sends by hand; the driver's result, or the name of its error. */
function rawSend(device: VmciDevice, length: number, payloadSize: number): number | string {
  const datagram = new Uint8Array(new ArrayBuffer(70000));
  datagram.set(structure(24, [0, 4, 100], [4, 4, 7], [8, 4, 100], [12, 4, 8], [16, 8, payloadSize]));
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(datagram));
  const request = structure(16, [0, 8, address], [8, 4, length]);
  const returned = raw(device, SEND, request);
  return returned === 0 ? int(request, 12) : returned;
}

guestTest("vmci datagrams: a context reaches itself, and the payload comes back as it was", () => {
  using device = context(100);
  for (const size of [0, 1, 23, 24, 4096, 69608]) {
    const payload = pattern(size, size);
    assertEquals(device.send({ context: 100, resource: 7 }, 8, payload), size);
    assertEquals(device.tryReceive(), {
      destination: { context: 100, resource: 7 },
      source: { context: 100, resource: 8 },
      payload,
    });
  }
  assertEquals(device.tryReceive(), undefined);
});

guestTest("vmci datagrams: another context, an absent one, the hypervisor and the reserved ids are not reached", () => {
  using device = context(100);
  using _other = context(101);
  for (const id of [101, 102, 0, 1]) {
    assertEquals(sent(device, { context: id, resource: 7 }), "DST_UNREACHABLE", `${id}`);
  }
  assertEquals(sent(device, { context: INVALID, resource: 7 }), "INVALID_ARGS");
});

guestTest("vmci datagrams: the hypervisor's and the well-known id reach contexts, where they are claimed", () => {
  using hypervisor = context(0);
  using wellKnown = context(1);
  using device = context(100);
  using restricted = context(101, { restricted: true });
  assertEquals(sent(wellKnown, { context: 100, resource: 7 }, 5), 0);
  assertEquals(device.tryReceive()?.source, { context: 1, resource: 5 });
  assertEquals(sent(hypervisor, { context: 100, resource: 7 }, 5), 0);
  assertEquals(device.tryReceive()?.source, { context: 0, resource: 5 });
  assertEquals(sent(hypervisor, { context: 1, resource: 7 }), 0);
  assertEquals(sent(wellKnown, { context: 1, resource: 7 }), 0);
  assertEquals(sent(wellKnown, { context: 0, resource: 7 }), "DST_UNREACHABLE");
  assertEquals(sent(hypervisor, { context: 0, resource: 7 }), "DST_UNREACHABLE");
  assertEquals(sent(wellKnown, { context: 101, resource: 7 }), "NO_ACCESS");
  assertEquals(sent(hypervisor, { context: 101, resource: 7 }), 0);
  assertEquals(sent(restricted, { context: 101, resource: 7 }), 0);
});

guestTest("vmci datagrams: the source's context must be the own one, its resource may be any", () => {
  using device = context(100);
  const self = { context: 100, resource: 7 };
  assertEquals(sent(device, { context: 2, resource: 1 }, { context: 101, resource: 1 }), "NO_ACCESS");
  assertEquals(
    sent(device, self, { context: 101, resource: 1 }),
    "DST_UNREACHABLE",
    "where it goes is looked at first",
  );
  assertEquals(sent(device, self, { context: INVALID, resource: 1 }), "INVALID_ARGS");
  for (const resource of [0, 1, 1023, 1024, INVALID]) {
    assertEquals(sent(device, self, resource), 0);
    assertEquals(device.tryReceive()?.source, { context: 100, resource });
  }
});

guestTest("vmci datagrams: between a context and the host's sockets, both ways", () => {
  using device = context(100);
  using socket = new HostSocket();
  assertEquals(device.send({ context: 2, resource: socket.port }, 9, pattern(5)), 5);
  assertEquals(socket.receive(), { from: { context: 100, port: 9 }, payload: pattern(5) });
  assertEquals(socket.send({ context: 100, port: 11 }, pattern(69608)), 69608);
  assertEquals(device.tryReceive(), {
    destination: { context: 100, resource: 11 },
    source: { context: 2, resource: socket.port },
    payload: pattern(69608),
  });
  const error = codeOf(() => device.send({ context: 2, resource: socket.port + 1 }, 9, pattern(5)));
  assertEquals(error, "INVALID_RESOURCE");
});

guestTest("vmci datagrams: lengths that cannot be are refused by the library and by the driver", () => {
  using device = context(100);
  const self = { context: 100, resource: 7 };
  const error = codeOf(() => device.send(self, 8, new Uint8Array(69609)));
  assertEquals(error, "INVALID_ARGS");
  assertEquals(rawSend(device, 23, 0), "EINVAL");
  assertEquals(rawSend(device, 69633, 69609), "EINVAL");
  assertEquals(rawSend(device, 24, 1), "EINVAL");
  assertEquals(rawSend(device, 32, 0), "EINVAL");
  assertEquals(rawSend(device, 24, 0), 24);
  assertEquals(rawSend(device, 69632, 69608), 69632);
  assertEquals(codeOf(() => device.send({ context: 100, resource: -1 }, 8, new Uint8Array())), "INVALID_ARGS");
  assertEquals(codeOf(() => device.send(self, 1.5, new Uint8Array())), "INVALID_ARGS");
});

guestTest("vmci datagrams: a full queue is NO_RESOURCES, and what was accepted is delivered in order", () => {
  using device = context(100);
  const self = { context: 100, resource: 7 };
  let count = 0;
  while (codeOf(() => device.send(self, 8, new Uint8Array(new Uint32Array([count, 0]).buffer))) === 8) count++;
  assertEquals(count, 4351);
  assertEquals(codeOf(() => device.send(self, 8, new Uint8Array(8))), "NO_RESOURCES");
  const numbers: number[] = [];
  for (let next = device.tryReceive(); next !== undefined; next = device.tryReceive()) {
    numbers.push(new Uint32Array(next.payload.buffer)[0]!);
  }
  assertEquals(numbers.join(), Array.from({ length: count }, (_, i) => i).join());
  let empty = 0;
  while (sent(device, self) === 0) empty++;
  assertEquals(empty, 5802);
});

guestTest("vmci datagrams: one of the largest fits beside less, not beside another", () => {
  using device = context(100);
  const self = { context: 100, resource: 7 };
  assertEquals(device.send(self, 8, pattern(69608)), 69608);
  assertEquals(codeOf(() => device.send(self, 8, pattern(69608))), "NO_RESOURCES");
  assertEquals(device.send(self, 8, pattern(69607)), 69607);
  assertEquals(sent(device, self), "NO_RESOURCES");
  assertEquals([device.tryReceive()?.payload.length, device.tryReceive()?.payload.length], [69608, 69607]);
});

guestTest("vmci datagrams: a buffer that is too short leaves the datagram, an empty queue says so", () => {
  using device = context(100);
  const buffer = new Uint8Array(new ArrayBuffer(69632));
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
  const receive = (length: number) => {
    const request = structure(16, [0, 8, address], [8, 4, length]);
    return [raw(device, RECEIVE, request), int(request, 12), int(request, 8)];
  };
  assertEquals(receive(69632), [0, -6, 69632]);
  device.send({ context: 100, resource: 7 }, 8, pattern(10));
  device.send({ context: 100, resource: 7 }, 8, pattern(20));
  assertEquals(receive(43), [0, -3, 43], "the length is not told");
  assertEquals(receive(44), [0, 34, 44], "the last one first, and the next one's size");
  assertEquals(buffer.subarray(24, 44), pattern(20));
  assertEquals(receive(69632), [0, 0, 69632]);
});

guestTest("vmci datagrams: a wait ends with what comes, with the time, the signal and the device", async () => {
  const device = context(100);
  using socket = new HostSocket();
  const three = [device.receive(), device.receive(), device.receive({ timeout: 60000 })];
  await new Promise((resolve) => setTimeout(resolve, 5));
  for (let i = 1; i <= 3; i++) {
    assertEquals(socket.send({ context: 100, port: 1000 }, pattern(i)), i);
    assertEquals((await three[i - 1]!).payload.length, i);
  }
  const timeout = await assertRejects(() => device.receive({ timeout: 10 }), VmciError);
  assertEquals([timeout.code, timeout.operation], ["TIMEOUT", "receive"]);
  const reason = new Error("enough");
  const controller = new AbortController();
  const aborted = device.receive({ signal: controller.signal });
  controller.abort(reason);
  assertEquals(await aborted.catch((error) => error), reason);
  assertEquals(await device.receive({ signal: AbortSignal.abort(reason) }).catch((error) => error), reason);
  const pending = assertRejects(() => device.receive(), VmciError);
  device.close();
  assertEquals((await pending).code, "INVALID_RESOURCE");
});

guestTest("vmci datagrams: a blocking wait ends with what comes and with the time", async () => {
  using device = context(100);
  assertEquals(codeOf(() => device.receiveSync(1)), "TIMEOUT");
  const program = `import { HostSocket } from ${JSON.stringify(import.meta.resolve("./support/host_socket.ts"))};
    using socket = new HostSocket();
    socket.send({ context: 100, port: 3 }, new Uint8Array([1, 2, 3]));
    postMessage("sent");`;
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, { type: "module" });
  const sent = new Promise((resolve) => worker.onmessage = resolve);
  assertEquals(device.receiveSync().payload, new Uint8Array([1, 2, 3]));
  await sent;
  worker.terminate();
});

guestTest("vmci datagrams: many waits of many devices are served by one thread of the pool", async () => {
  const devices = Array.from({ length: 40 }, (_, i) => context(200 + i));
  const received = devices.map((device) => device.receive());
  // More waits than the pool has threads, and the pool still works.
  assertStringIncludes(await Deno.readTextFile("/proc/version"), "Linux");
  using socket = new HostSocket();
  devices.forEach((_, i) => socket.send({ context: 200 + i, port: 1 }, pattern(i)));
  const sizes = (await Promise.all(received)).map(({ payload }) => payload.length);
  assertEquals(sizes, devices.map((_, i) => i));
  for (const device of devices) device.close();
});

guestTest("vmci datagrams: restricted contexts and the host's sockets of another user", async () => {
  using restricted = context(100, { restricted: true });
  using free = context(101);
  using socket = new HostSocket();
  const port = { context: 2, resource: socket.port };
  // The same user: root made both.
  assertEquals(sent(restricted, port), 0);
  assertEquals(socket.send({ context: 100, port: 1 }, pattern(1)), 1);
  const program = `import { HostSocket } from ${JSON.stringify(import.meta.resolve("./support/host_socket.ts"))};
    using socket = new HostSocket();
    console.log(JSON.stringify([100, 101].map((context) => socket.send({ context, port: 1 }, new Uint8Array(1)))));
    console.log(socket.port);
    await Deno.stdin.read(new Uint8Array(1));`;
  const other = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--no-lock",
      "--cached-only",
      `data:text/javascript,${encodeURIComponent(program)}`,
    ],
    uid: 1001,
    gid: 1001,
    env: { DENO_DIR: "/tmp/deno-one", HOME: "/tmp" },
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  let output = "";
  for await (const text of other.stdout.pipeThrough(new TextDecoderStream())) {
    output += text;
    if (output.split("\n").length > 2) break;
  }
  const [results, otherPort] = output.split("\n");
  assertEquals(JSON.parse(results!), [-1, 1], "EPERM for the restricted one");
  assertEquals(sent(restricted, { context: 2, resource: Number(otherPort) }), "NO_ACCESS");
  assertEquals(sent(free, { context: 2, resource: Number(otherPort) }), 0);
  await other.stdin.close();
  await other.status;
});

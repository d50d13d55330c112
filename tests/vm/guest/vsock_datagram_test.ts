/** Datagram sockets of the host: who reaches whom, what is refused and how, what is lost. */

import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import {
  listenVsockDatagram,
  localVsockContext,
  VmciError,
  type VsockDatagramSocket,
  vsockFamily,
  vsockVersion,
} from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { HostSocket } from "./support/host_socket.ts";
import { codeOf, codeOfAsync, context } from "./support/raw.ts";

const HOST = 2;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (it: string) => new TextEncoder().encode(it);

guestTest("vsock: the family is Linux's own, whose version is not told", () => {
  assertEquals(vsockFamily(), { number: 40, generation: "linux" });
  assertEquals(vsockVersion(), undefined);
});

guestTest("vsock: this machine has a context id as soon as somebody is a context of the driver", () => {
  using _device = context(200);
  assertEquals(localVsockContext(), HOST);
});

guestTest("vsock datagrams: what is sent to the host's port arrives with its sender, in order", async () => {
  using a = listenVsockDatagram({ port: 7000 });
  using b = listenVsockDatagram();
  assertEquals(a.addr.port, 7000);
  assertGreater(b.addr.port, 1023);
  for (const word of ["one", "two", "three"]) {
    assertEquals(await b.send(bytes(word), { cid: HOST, port: 7000 }), word.length);
  }
  const from = { transport: "vsock", cid: HOST, port: b.addr.port };
  for (const word of ["one", "two", "three"]) {
    const [payload, sender] = await a.receive();
    assertEquals([text(payload), sender], [word, from]);
  }
  assertEquals(a.tryReceive(), undefined);
  await b.send(bytes("back"), { cid: 0xFFFFFFFF, port: 7000 });
  assertEquals(text(a.receiveSync(1000)[0]), "back");
});

guestTest("vsock datagrams: a payload has 0 to 69608 bytes", async () => {
  using a = listenVsockDatagram({ port: 7000 });
  const largest = new Uint8Array(69608).fill(7);
  assertEquals(await a.send(new Uint8Array(0), { cid: HOST, port: 7000 }), 0);
  assertEquals(await a.send(largest, { cid: HOST, port: 7000 }), 69608);
  assertEquals((await a.receive())[0].length, 0);
  assertEquals((await a.receive())[0], largest);
  assertEquals(codeOf(() => a.trySend(new Uint8Array(69609), { cid: HOST, port: 7000 })), "INVALID_ARGS");
});

guestTest("vsock: a socket that is forgotten is closed, and its port is free", async () => {
  let forgotten: VsockDatagramSocket | undefined = listenVsockDatagram({ port: 7001 });
  const port = forgotten.addr.port;
  forgotten = undefined;
  const isTaken = () => codeOf(() => listenVsockDatagram({ port }).close()) === "DUPLICATE_ENTRY";
  // The collector may take its time to say so.
  for (let i = 0; i < 100 && isTaken(); i++) {
    (globalThis as unknown as { gc(): void }).gc();
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals([isTaken(), forgotten], [false, undefined]);
});

guestTest("vsock datagrams: too small a buffer loses nothing", async () => {
  using a = listenVsockDatagram({ port: 7000 });
  await a.send(bytes("hello"), { cid: HOST, port: 7000 });
  assertEquals(await codeOfAsync(() => a.receive(new Uint8Array(4))), "NO_MEM");
  assertEquals(codeOf(() => a.tryReceive(new Uint8Array(0))), "NO_MEM");
  const buffer = new Uint8Array(8);
  const [payload] = await a.receive(buffer);
  assertEquals([text(payload), payload.buffer], ["hello", buffer.buffer]);
});

guestTest("vsock datagrams: what was too large for one who waits is another's who waits too", async () => {
  using a = listenVsockDatagram({ port: 7000 });
  const waiting = a.receive(undefined, { timeout: 20000 });
  const small = a.receive(new Uint8Array(1), { timeout: 20000 }).catch((error) => error.code);
  a.trySend(bytes("hello"), { cid: HOST, port: 7000 });
  assertEquals(codeOf(() => a.tryReceive(new Uint8Array(1))), "NO_MEM");
  assertEquals(text((await waiting)[0]), "hello");
  a.trySend(bytes("again"), { cid: HOST, port: 7000 });
  assertEquals(await small, "NO_MEM");
  assertEquals(text(a.tryReceive()![0]), "again");
});

guestTest("vsock datagrams: where none can go", () => {
  using device = context(201);
  using a = listenVsockDatagram({ port: 7000 });
  const send = (cid: number, port: number) => codeOf(() => a.trySend(bytes("?"), { cid, port }));
  assertEquals(send(HOST, 7999), "INVALID_RESOURCE");
  assertEquals(send(0, 7000), "DST_UNREACHABLE");
  assertEquals(send(1, 7000), "DST_UNREACHABLE");
  assertEquals(send(4711, 7000), "DST_UNREACHABLE");
  assertEquals(send(-1, 7000), "INVALID_ARGS");
  assertEquals(send(HOST, 2 ** 32), "INVALID_ARGS");
  assertEquals(send(201, 5), 1);
  assertEquals(text(device.receiveSync(1000).payload), "?");
});

guestTest("vsock datagrams: which addresses can be had", () => {
  using _device = context(202);
  using taken = listenVsockDatagram({ port: 7001 });
  const code = (cid: number | undefined, port: number) => codeOf(() => listenVsockDatagram({ cid, port }).close());
  assertEquals(code(undefined, taken.addr.port), "DUPLICATE_ENTRY");
  assertEquals(code(HOST, 7002), undefined);
  assertEquals(code(202, 7002), "INVALID_ARGS");
  assertEquals(code(undefined, 1.5), "INVALID_ARGS");
  assertEquals(code(undefined, 1000), undefined);
  assertEquals(code(undefined, 1), "DUPLICATE_ENTRY", "where the kernel handles the control of streams");
});

guestTest("vsock datagrams: the kernel's own error numbers, whatever the library thinks of them", () => {
  using socket = new HostSocket();
  const send = (context: number, port: number, size = 1) => socket.send({ context, port }, new Uint8Array(size));
  assertEquals([send(1, socket.port), send(0, socket.port), send(4711, socket.port)], [-22, -22, -22]);
  assertEquals(send(HOST, 7999), -113);
  assertEquals([send(HOST, socket.port, 69609), send(HOST, socket.port, 69608)], [-90, 69608]);
  const device = context(206);
  for (let i = 0; i < 2; i++) assertEquals(send(206, 1, 60000), 60000);
  assertEquals(send(206, 1, 60000), -105);
  device.close();
});

guestTest("vsock datagrams: looking without taking, a length that is not told, and a fixed destination", () => {
  const PEEK = 2;
  const TRUNC = 0x20;
  using a = new HostSocket();
  using b = new HostSocket();
  b.connect({ context: HOST, port: a.port });
  for (const word of ["first", "second"]) assertEquals(b.send(undefined, bytes(word)), word.length);
  assertEquals([1, 2].map(() => text(a.receive(100, PEEK)!.payload)), ["first", "first"]);
  assertEquals(text(a.receive(2, PEEK | TRUNC)!.payload), "fi");
  assertEquals(a.receive(2, TRUNC)?.payload.length, 2, "neither is the rest kept");
  assertEquals(a.receive(), { from: { context: HOST, port: b.port }, payload: bytes("second") });
  assertEquals(a.receive(), undefined);
});

guestTest("vsock datagrams: a context's full queue is the sender's error", () => {
  using device = context(203);
  using a = listenVsockDatagram();
  let sent = 0;
  let code: unknown;
  while (typeof (code = codeOf(() => a.trySend(new Uint8Array(1000), { cid: 203, port: 1 }))) === "number") sent++;
  assertEquals(code, "NO_RESOURCES");
  let received = 0;
  while (device.tryReceive() !== undefined) received++;
  assertEquals([received, sent], [Math.floor(139263 / 1024), received]);
});

guestTest("vsock datagrams: what a full buffer drops is counted", async () => {
  using a = listenVsockDatagram({ port: 7000 });
  using b = listenVsockDatagram();
  assertEquals(a.dropped, 0);
  for (let i = 0; i < 2000; i++) await b.send(new Uint8Array(1000), { cid: HOST, port: 7000 });
  let received = 0;
  while (a.tryReceive() !== undefined) received++;
  assert(received < 2000);
  assertEquals(received + a.dropped!, 2000);
});

guestTest("vsock datagrams: a larger buffer keeps more", async () => {
  using a = listenVsockDatagram({ port: 7000, receiveBuffer: 4_000_000 });
  assertEquals(a.receiveBuffer, 8_000_000);
  for (let i = 0; i < 2000; i++) await a.send(new Uint8Array(1000), { cid: HOST, port: 7000 });
  let received = 0;
  while (a.tryReceive() !== undefined) received++;
  assertEquals([received, a.dropped], [2000, 0]);
});

guestTest("vsock datagrams: waits end by time, signal and close", async () => {
  using a = listenVsockDatagram();
  const timedOut = await assertRejects(() => a.receive(undefined, { timeout: 1 }), VmciError);
  assertEquals(timedOut.code, "TIMEOUT");
  assertEquals(codeOf(() => a.receiveSync(1)), "TIMEOUT");
  const controller = new AbortController();
  const aborted = a.receive(undefined, { signal: controller.signal });
  controller.abort(new RangeError("enough"));
  await assertRejects(() => aborted, RangeError, "enough");
  await assertRejects(() => a.receive(undefined, { signal: controller.signal }), RangeError);
  const closed = codeOfAsync(() => a.receive());
  const iterated = Array.fromAsync(a);
  a.close();
  a.close();
  assertEquals(await closed, "INVALID_RESOURCE");
  assertEquals(await iterated, []);
  assertEquals(codeOf(() => a.tryReceive()), "INVALID_RESOURCE");
  assertEquals(codeOf(() => a.receiveBuffer), "INVALID_RESOURCE");
});

guestTest("vsock datagrams: several wait for one socket, and each gets one", async () => {
  using a = listenVsockDatagram();
  const waits = [a.receive(), a.receive(), a.receive()];
  for (const word of ["1", "2", "3"]) await a.send(bytes(word), { cid: HOST, port: a.addr.port });
  const got = (await Promise.all(waits)).map(([payload]) => text(payload));
  assertEquals(got.toSorted(), ["1", "2", "3"]);
});

guestTest("vsock datagrams: a restricted context and the host's sockets of its own user reach each other", async () => {
  using device = context(204, { restricted: true });
  using a = listenVsockDatagram({ port: 7000 });
  a.trySend(bytes("in"), { cid: 204, port: 9 });
  assertEquals(text(device.receiveSync(1000).payload), "in");
  device.send({ context: HOST, resource: 7000 }, 9, bytes("out"));
  const [payload, from] = await a.receive();
  assertEquals([text(payload), from.cid, from.port], ["out", 204, 9]);
});

guestTest("vsock datagrams: another user has no ports below 1024, and no way to a restricted context", async () => {
  using _device = context(205, { restricted: true });
  const program = `
    import { listenVsockDatagram } from "../../../src/device/vsock_datagram.ts";
    const told = (act) => { try { return act(); } catch (error) { return error.code + " " + error.cause.code; } };
    using a = listenVsockDatagram({ port: 1024 });
    console.log(told(() => listenVsockDatagram({ port: 1023 })));
    console.log(told(() => a.trySend(new Uint8Array(1), { cid: 205, port: 9 })));`;
  assertEquals(await asNobody(program), "NO_ACCESS EACCES\nNO_ACCESS EPERM\n");
});

guestTest("vsock datagrams: 300 sockets opened and closed leave no descriptor", () => {
  const open = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  listenVsockDatagram().close();
  const before = open();
  for (let i = 0; i < 300; i++) listenVsockDatagram().close();
  assertEquals(open(), before);
});

/** What a program prints that another user runs. */
async function asNobody(source: string): Promise<string> {
  const path = await Deno.makeTempFile({ dir: "/app/tests/vm/guest", suffix: ".ts" });
  try {
    await Deno.writeTextFile(path, source);
    await Deno.chmod(path, 0o644);
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--no-lock", "--cached-only", path],
      uid: 65534,
      gid: 65534,
      env: { DENO_DIR: "/tmp/deno-nobody", HOME: "/tmp" },
    }).output();
    return text(stdout) + text(stderr);
  } finally {
    await Deno.remove(path);
  }
}

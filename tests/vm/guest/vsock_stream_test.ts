/** Streams and packets between sockets, over the loopback and to a context of the driver; and the sockets' options. */

import { createHash } from "node:crypto";
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  connectVsock,
  listenVsock,
  listenVsockDatagram,
  VmciError,
  type VsockConn,
  type VsockConnType,
  type VsockOptionName,
} from "@vmci/vmci/device";
import { interposeLibc, setErrno } from "../../../ffi/libc.ts";
import { withFailures } from "../../ffi/support.ts";
import { guestTest } from "./support/guest.ts";
import { codeOf, codeOfAsync, context, pattern } from "./support/raw.ts";

const LOCAL = 1;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (it: string) => new TextEncoder().encode(it);

let loaded = false;

/**
 * Loads the loopback first, which these sockets need beside VMCI's own transport. It stays: as long as sockets of it die,
 * it cannot be taken away.
 */
function loopbackTest(name: string, run: () => Promise<void>): void {
  guestTest(name, async () => {
    for (const module of loaded ? [] : ["vmw_vsock_virtio_transport_common", "vsock_loopback"]) {
      const args = [`/lib/modules/${module}.ko`];
      const { success, stderr } = await new Deno.Command("insmod", { args }).output();
      assert(success, text(stderr));
    }
    loaded = true;
    await run();
  });
}

async function pair(type: VsockConnType, port: number): Promise<[VsockConn, VsockConn]> {
  using listener = listenVsock({ port, type });
  const accepted = listener.accept();
  const client = await connectVsock({ cid: LOCAL, port, type, timeout: 5000 });
  return [client, await accepted];
}

async function sum(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    size += chunk.length;
  }
  return `${size} ${hash.digest("hex")}`;
}

function* chunks(seed: number): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < 20; at++) yield pattern(100_000, seed + at);
}

guestTest("vsock streams: without a transport, listening works and connecting says what to load", async () => {
  using listener = listenVsock({ port: 8000 });
  assertEquals(listener.addr.port, 8000);
  const error = await assertRejects(() => connectVsock({ cid: LOCAL, port: 8000 }), VmciError);
  assertEquals([error.code, (error.cause as { code: string }).code], ["UNAVAILABLE", "ENODEV"]);
  assert(error.message.includes("modprobe vsock_loopback"));
  using packets = listenVsock({ port: 8001, type: "seqpacket" });
  assertEquals(packets.addr.port, 8001);
  const neither = await assertRejects(() => connectVsock({ cid: LOCAL, port: 8001, type: "seqpacket" }), VmciError);
  assertEquals([neither.code, (neither.cause as { code: string }).code], ["UNAVAILABLE", "ENODEV"]);
  assertEquals(codeOf(() => listenVsock({ port: 8000 }).close()), "DUPLICATE_ENTRY");
});

loopbackTest("vsock streams: over the loopback, bytes go both ways at once and end", async () => {
  const [client, server] = await pair("stream", 8000);
  using _client = client;
  using _server = server;
  assertEquals(client.remoteAddr, { transport: "vsock", cid: LOCAL, port: 8000 });
  assertEquals([server.remoteAddr.cid, server.remoteAddr.port], [LOCAL, client.localAddr.port]);
  const expected = await Promise.all([sum(ReadableStream.from(chunks(1))), sum(ReadableStream.from(chunks(2)))]);
  const [there, back] = await Promise.all([
    sum(server.readable),
    sum(client.readable),
    ReadableStream.from(chunks(1)).pipeTo(client.writable),
    ReadableStream.from(chunks(2)).pipeTo(server.writable),
  ]);
  assertEquals([there, back], expected);
  assertEquals(await client.read(new Uint8Array(1)), null);
});

loopbackTest("vsock streams: over the loopback, messages keep their bounds", async () => {
  const [client, server] = await pair("seqpacket", 8000);
  using _client = client;
  using _server = server;
  for (const size of [1, 1000, 60000]) await client.writeAll(pattern(size, size));
  const buffer = new Uint8Array(65536);
  for (const size of [1, 1000, 60000]) {
    const count = await server.read(buffer);
    assertEquals(buffer.subarray(0, count!), pattern(size, size));
  }
  await client.closeWrite();
  assertEquals(await server.read(buffer), null);
});

loopbackTest(
  "vsock streams: over the loopback, the host's id leads here as well, and the peer has the loopback's",
  async () => {
    for (const type of ["stream", "seqpacket"] as const) {
      using listener = listenVsock({ port: 8000, type });
      const accepted = listener.accept();
      using client = await connectVsock({ cid: 2, port: 8000, type, timeout: 5000 });
      using server = await accepted;
      await client.writeAll(bytes("hello"));
      const buffer = new Uint8Array(10);
      assertEquals(text(buffer.subarray(0, (await server.read(buffer))!)), "hello");
      assertEquals([client.remoteAddr.cid, server.remoteAddr.cid], [2, LOCAL]);
    }
  },
);

loopbackTest("vsock streams: a large message comes whole, as a stream too", async () => {
  const [client, server] = await pair("seqpacket", 8000);
  using _client = client;
  using _server = server;
  const message = pattern(200_000);
  const written = client.writeAll(message).then(() => client.closeWrite());
  const chunks = await Array.fromAsync(server.readable);
  await written;
  assertEquals(chunks, [message]);
});

loopbackTest("vsock streams: whichever call fails that makes a connection, nothing of it stays open", async () => {
  const open = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  using listener = listenVsock({ port: 8000 });
  const calls = ["socket", "setsockopt", "connect", "getsockname", "getpeername"];
  // What waits for the first connection stays open.
  (await connectVsock({ cid: LOCAL, port: 8000, timeout: 5000 })).close();
  (await listener.accept()).close();
  for (const name of calls) {
    const before = open();
    interposeLibc((symbol, call) => symbol === name ? () => (setErrno(12), -1) : call);
    const code = await codeOfAsync(() => connectVsock({ cid: LOCAL, port: 8000, timeout: 5000 }));
    interposeLibc(undefined);
    assertEquals([code, open()], ["NO_MEM", before], name);
    // It may have come to a connection.
    while (await codeOfAsync(async () => (await listener.accept({ timeout: 50 })).close()) !== "TIMEOUT");
  }
  for (const name of ["accept4_from", "getsockname"]) {
    using _client = await connectVsock({ cid: LOCAL, port: 8000, timeout: 5000 });
    const before = open();
    const code = await codeOfAsync(() => withFailures(name, 12, 1, () => listener.accept({ timeout: 5000 })));
    assertEquals([code, open()], ["NO_MEM", before], name);
  }
});

loopbackTest("vsock streams: what a connection meets", async () => {
  const connect = (options: { cid: number; port: number; type?: VsockConnType; timeout?: number }) =>
    codeOfAsync(async () => (await connectVsock(options)).close());
  assertEquals(await connect({ cid: LOCAL, port: 8999 }), "NOT_FOUND");
  assertEquals(await connect({ cid: LOCAL, port: -1 }), "INVALID_ARGS");
  using _device = context(210);
  // To a context of the driver: streams only, and nobody answers for it.
  assertEquals(await connect({ cid: 210, port: 1, type: "seqpacket" }), "UNAVAILABLE");
  assertEquals(await connect({ cid: 210, port: 1, timeout: 20 }), "TIMEOUT");
  // The kernel's own patience.
  const unanswered = await assertRejects(() => connectVsock({ cid: 210, port: 1 }), VmciError);
  assertEquals([unanswered.code, (unanswered.cause as { code: string }).code], ["TIMEOUT", "ETIMEDOUT"]);
  const controller = new AbortController();
  const aborted = connectVsock({ cid: 210, port: 1, signal: controller.signal });
  controller.abort(new RangeError("enough"));
  await assertRejects(() => aborted, RangeError, "enough");
  await assertRejects(
    () => connectVsock({ cid: 210, port: 1, signal: AbortSignal.abort(new RangeError("before")) }),
    RangeError,
  );
});

loopbackTest("vsock streams: death of the other end", async () => {
  const [client, server] = await pair("stream", 8000);
  using _client = client;
  const reading = client.read(new Uint8Array(1));
  server.close();
  assertEquals(await reading, null);
  const writes = await codeOfAsync(async () => {
    for (;;) await client.write(new Uint8Array(1000));
  });
  assertEquals(writes, "DST_UNREACHABLE");
});

loopbackTest("vsock streams: waits end by time, signal and close", async () => {
  const [client, server] = await pair("stream", 8000);
  using _server = server;
  const buffer = new Uint8Array(1);
  assertEquals(await codeOfAsync(() => client.read(buffer, { timeout: 1 })), "TIMEOUT");
  const aborted = client.read(buffer, { signal: AbortSignal.timeout(1) });
  await assertRejects(() => aborted, DOMException);
  // Until both buffers are full.
  const full = await codeOfAsync(async () => {
    for (;;) await client.write(new Uint8Array(65536), { timeout: 50 });
  });
  assertEquals(full, "TIMEOUT");
  assertEquals(await codeOfAsync(() => client.read(new Uint8Array(0))), "INVALID_ARGS");
  const closed = codeOfAsync(() => client.read(buffer));
  client.close();
  assertEquals(await closed, "INVALID_RESOURCE");
  assertEquals(await codeOfAsync(() => client.write(buffer)), "INVALID_RESOURCE");
  assertEquals(await codeOfAsync(() => client.closeWrite()), "INVALID_RESOURCE");
  using listener = listenVsock({ port: 8001 });
  assertEquals(await codeOfAsync(() => listener.accept({ timeout: 1 })), "TIMEOUT");
  const accepting = codeOfAsync(() => listener.accept());
  const iterated = Array.fromAsync(listener);
  listener.close();
  assertEquals([await accepting, await iterated], ["INVALID_RESOURCE", []]);
});

guestTest("vsock streams: with a context of the driver, over a queue pair", async () => {
  using device = context(211);
  using listener = listenVsock({ port: 8002 });
  const accepted = listener.accept();
  using guest = await device.connect({ port: 8002, timeout: 20000 });
  using host = await accepted;
  assertEquals([host.remoteAddr.cid, host.type], [211, "stream"]);
  const [there] = await Promise.all([
    sum(host.readable),
    ReadableStream.from(chunks(3)).pipeTo(guest.writable),
  ]);
  assertEquals(there, await sum(ReadableStream.from(chunks(3))));
  using second = device.listen({ port: 8003 });
  const incoming = second.accept();
  using out = await connectVsock({ cid: 211, port: 8003, bufferSize: 16384, timeout: 20000 });
  using taken = await incoming;
  await out.writeAll(bytes("from the host"));
  const buffer = new Uint8Array(64);
  const count = await taken.read(buffer);
  assertEquals(text(buffer.subarray(0, count!)), "from the host");
  assertEquals(out.getOption("bufferSize"), 16384);
});

guestTest("vsock options: those of Linux have the values its kernel starts with, and keep what is set", () => {
  using listener = listenVsock({ port: 8004 });
  const get = (name: VsockOptionName) => codeOf(() => listener.getOption(name));
  assertEquals(["bufferSize", "bufferMinSize", "bufferMaxSize"].map((name) => get(name as VsockOptionName)), [
    262144,
    128,
    262144,
  ]);
  assertEquals([get("connectTimeout"), get("connectTimeoutNew")], [2000, 2000]);
  listener.setOption("bufferMaxSize", 1048576);
  listener.setOption("bufferSize", 524288);
  listener.setOption("connectTimeout", 1500);
  assertEquals([get("bufferSize"), get("connectTimeout")], [524288, 1500]);
  listener.setOption("connectTimeoutNew", 2500.5);
  // The kernel counts in its own ticks.
  assert(Math.abs((get("connectTimeout") as number) - 2500.5) <= 10);
  listener.setOption("bufferSize", 16);
  assertEquals(get("bufferSize"), 128);
});

guestTest("vsock options: those of others are named, and what cannot be set is refused", () => {
  using listener = listenVsock({ port: 8004 });
  const get = (name: string) => codeOf(() => listener.getOption(name as VsockOptionName));
  const set = (name: string, value: number | string) =>
    codeOf(() => listener.setOption(name as VsockOptionName, value));
  for (const name of ["serviceLabel", "disconnectCause", "peerLimitRate", "peerPrivLimit", "peerBurstLevel"]) {
    assertEquals(get(name), "UNAVAILABLE");
  }
  for (const name of ["peerHostVmId", "trusted"]) {
    assertEquals([get(name), set(name, 1)], ["UNAVAILABLE", "UNAVAILABLE"]);
  }
  assertEquals([get("nonsense"), get("toString")], ["INVALID_ARGS", "INVALID_ARGS"]);
  for (const value of [-1, 1.5, NaN, "1"]) assertEquals(set("bufferSize", value), "INVALID_ARGS");
  assertEquals(set("connectTimeout", -1), "INVALID_ARGS");
  using datagrams = listenVsockDatagram();
  assertEquals(codeOf(() => datagrams.getOption("bufferSize")), "UNAVAILABLE");
});

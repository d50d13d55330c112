/** Streams between a context of the driver and the host's sockets, which are Deno's own. */

import { createHash } from "node:crypto";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { listenVsock, VmciError } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { context, pattern } from "./support/raw.ts";

const ANY = 0xffffffff;
const TEN_MB = 10_000_000;
const CHUNK = 100_000;

/** Deno's sockets, whose types are among the unstable ones. */
const sockets = Deno as unknown as {
  listen(options: { transport: "vsock"; cid: number; port: number }): Deno.Listener<Deno.Conn>;
  connect(options: { transport: "vsock"; cid: number; port: number }): Promise<Deno.Conn>;
};

/** Ten million bytes in chunks. */
function* chunks(seed: number): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < TEN_MB; at += CHUNK) yield pattern(CHUNK, seed + at / CHUNK);
}

/** What the bytes of a stream come to. */
async function sum(stream: AsyncIterable<Uint8Array>): Promise<{ bytes: number; hash: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { bytes, hash: hash.digest("hex") };
}

/** What a connection reads. Its own stream would close it at the end, while it is still written to. */
async function* reads(connection: Deno.Conn): AsyncGenerator<Uint8Array> {
  const bytes = new Uint8Array(65536);
  for (;;) {
    const count = await connection.read(bytes);
    if (count === null) return;
    yield bytes.subarray(0, count);
  }
}

async function expected(seed: number): Promise<{ bytes: number; hash: string }> {
  return await sum(ReadableStream.from(chunks(seed)));
}

guestTest("vmci streams: ten million bytes each way at once, by streams, arrive as they were", async () => {
  using device = context(100);
  using listener = sockets.listen({ transport: "vsock", cid: ANY, port: 6000 });
  const accepted = listener.accept();
  using stream = await device.connect({ port: 6000, timeout: 60000 });
  assertEquals(stream.localAddr.cid, 100);
  assertEquals(stream.remoteAddr, { transport: "vsock", cid: 2, port: 6000 });
  using host = await accepted;
  const [toHost, toContext] = await Promise.all([
    sum(reads(host)),
    sum(stream.readable),
    ReadableStream.from(chunks(1)).pipeTo(stream.writable),
    ReadableStream.from(chunks(2)).pipeTo(host.writable, { preventClose: true }).then(() => host.closeWrite()),
  ]);
  assertEquals(toHost, await expected(1));
  assertEquals(toContext, await expected(2));
});

guestTest("vmci streams: a small queue that is full all the time loses nothing", async () => {
  using device = context(100);
  using listener = sockets.listen({ transport: "vsock", cid: ANY, port: 6001 });
  const accepted = listener.accept();
  using stream = await device.connect({ port: 6001, bufferSize: 4096, timeout: 60000 });
  using host = await accepted;
  const bytes = pattern(100_000);
  const echoed = host.readable.pipeTo(host.writable);
  const writing = stream.write(bytes);
  const received = new Uint8Array(bytes.length);
  for (let at = 0; at < received.length;) {
    const count = await stream.read(received.subarray(at), { timeout: 60000 });
    assert(count !== null);
    at += count;
  }
  assertEquals(await writing, bytes.length);
  assertEquals(received, bytes);
  await stream.closeWrite();
  await echoed;
  assertEquals(await stream.read(new Uint8Array(1)), null);
});

guestTest("vmci streams: the host connects, and is accepted", async () => {
  using device = context(100);
  const listener = device.listen({ port: 6002 });
  const accepted = listener.accept({ timeout: 60000 });
  using host = await sockets.connect({ transport: "vsock", cid: 100, port: 6002 });
  using stream = await accepted;
  assertEquals(stream.localAddr, { transport: "vsock", cid: 100, port: 6002 });
  await host.write(pattern(10));
  const bytes = new Uint8Array(20);
  assertEquals(await stream.read(bytes), 10);
  assertEquals(bytes.subarray(0, 10), pattern(10));
  assertEquals(await stream.write(pattern(20)), 20);
  assertEquals(await host.read(bytes), 20);
  assertEquals(bytes, pattern(20));
  const waiting = assertRejects(() => listener.accept(), VmciError);
  listener.close();
  assertEquals((await waiting).code, "INVALID_RESOURCE");
});

guestTest("vmci streams: nobody listens here or there", async () => {
  using device = context(100);
  const refused = await assertRejects(() => device.connect({ port: 6003, timeout: 60000 }), VmciError);
  assertEquals([refused.code, refused.handle], ["NOT_FOUND", { context: 2, resource: 6003 }]);
  // Somebody must take in what comes, for the host to be told.
  const looking = device.receive({ timeout: 60000 }).catch((error) => error);
  await assertRejects(() => sockets.connect({ transport: "vsock", cid: 100, port: 6003 }), Error, "reset");
  const reason = new Error("enough");
  assertEquals(await device.connect({ port: 1, signal: AbortSignal.abort(reason) }).catch((error) => error), reason);
  for (const port of [-1, 1.5, 2 ** 32]) {
    assertEquals((await assertRejects(() => device.connect({ port }), VmciError)).code, "INVALID_ARGS");
  }
  const size = await assertRejects(() => device.connect({ port: 1, bufferSize: 1 }), VmciError);
  assertEquals(size.code, "INVALID_SIZE");
  device.close();
  assertEquals((await looking).code, "INVALID_RESOURCE");
});

guestTest("vmci streams: the host's end closes, and what it wrote is still read", async () => {
  using device = context(100);
  using listener = sockets.listen({ transport: "vsock", cid: ANY, port: 6004 });
  const accepted = listener.accept();
  using stream = await device.connect({ port: 6004, timeout: 60000 });
  const host = await accepted;
  await host.write(pattern(1000));
  host.close();
  const bytes = new Uint8Array(2000);
  assertEquals(await stream.read(bytes, { timeout: 60000 }), 1000);
  assertEquals(await stream.read(bytes, { timeout: 60000 }), null);
  const error = await assertRejects(() => stream.write(pattern(1)), VmciError);
  assertEquals(error.code, "QUEUEPAIR_NOTATTACHED");
});

guestTest("vmci streams: this side's device closes, and the host reads the end", async () => {
  using device = context(100);
  using listener = sockets.listen({ transport: "vsock", cid: ANY, port: 6005 });
  const accepted = listener.accept();
  const stream = await device.connect({ port: 6005, timeout: 60000 });
  using host = await accepted;
  const pending = assertRejects(() => stream.read(new Uint8Array(1)), VmciError);
  device.close();
  assertEquals((await pending).code, "INVALID_RESOURCE");
  assertEquals(await host.read(new Uint8Array(1)).catch(() => null), null);
});

guestTest("vmci streams: the host sees what is written before it is told", async () => {
  using device = context(100);
  using listener = listenVsock({ port: 6006 });
  const accepted = listener.accept();
  using stream = await device.connect({ port: 6006, timeout: 60000 });
  using host = await accepted;
  stream.queuePair.signals = {};
  await stream.write(pattern(10));
  const bytes = new Uint8Array(20);
  assertEquals(await host.read(bytes, { timeout: 5000 }), 10);
  assertEquals(bytes.subarray(0, 10), pattern(10));
});

guestTest(
  "vmci streams: an echo ends well when the host has closed, and there is nobody to be told of its end",
  async () => {
    using device = context(100);
    const listener = sockets.listen({ transport: "vsock", cid: ANY, port: 6007 });
    const accepted = listener.accept();
    using stream = await device.connect({ port: 6007, timeout: 60000 });
    const host = await accepted;
    listener.close();
    const echo = stream.readable.pipeTo(stream.writable);
    await host.write(pattern(10));
    const bytes = new Uint8Array(20);
    assertEquals(await host.read(bytes), 10);
    host.close();
    await echo;
  },
);

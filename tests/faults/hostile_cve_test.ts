/**
 * One test for each rule that follows from a flaw found in another VMCI or in its neighbours; each names the flaw.
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import "../ffi/support.ts";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { addSeals, createMemfd, Seal } from "../../ffi/memfd.ts";
import { connectSeqpacket } from "../../ffi/unix_socket.ts";
import { contextHandle, type DatagramEndpoint, openVmci, type Vmci } from "../../mod.ts";
import { DATAGRAM_HEADER_SIZE, DATAGRAM_QUEUE_SIZE, MAX_PAYLOAD_SIZE } from "../../src/limits.ts";
import { ReceiveBuffer } from "../../src/lane/receive_buffer.ts";
import { LANE_SIZE, LaneConsumer, LaneProducer } from "../../src/lane/ring.ts";
import { fails, failsSync } from "../support/failure.ts";
import { OwnDirectory } from "../support/program.ts";
import { RawClient } from "../support/raw_client.ts";

const RING_START = 4096;
const FIXED_SIZE = Seal.SHRINK | Seal.GROW | Seal.SEAL;

/** A fabric with a host and a liar in context 17. */
async function withLiar(body: (host: Vmci, raw: RawClient, device: string) => void | Promise<void>): Promise<void> {
  await using directory = await OwnDirectory.make();
  await using host = await openVmci({ device: directory.path });
  using raw = new RawClient(`${directory.path}/socket`);
  raw.hello({ context: 17 });
  await body(host, raw, directory.path);
  // Whatever was said, everything works.
  using endpoint = host.datagrams.create();
  endpoint.sendTo(endpoint.handle, new Uint8Array([1]));
  assertEquals(endpoint.receiveSync(5000).payload, new Uint8Array([1]));
}

/** An endpoint of the liar's. */
function endpointOf(raw: RawClient): { context: number; resource: number } {
  return raw.ask("create_endpoint", { resource: null, wellKnown: false }).result.handle;
}

Deno.test("CVE-2013-1406: a size that a peer names is checked before anything is set aside for it", () =>
  withLiar((host, raw) => {
    const small = createMemfd("small", 4096);
    addSeals(small, FIXED_SIZE);
    for (const size of [4095, 4097, 2 ** 31, 2 ** 32 - 1]) {
      assertEquals(
        raw.ask("create_region", { size, creatorOnly: false }, [small]).error?.code,
        "INVALID_ARGS",
        `${size}`,
      );
    }
    for (const size of [0, -1, 2 ** 32, 1.5]) {
      assertNotEquals(raw.ask("create_region", { size, creatorOnly: false }, [small]).error, undefined, `${size}`);
    }
    for (const count of [0, 2 ** 32 - 1]) {
      const handle = { context: 2, resource: 1025 };
      const claim = { handle, count, size: 2 ** 32 - 1, creatorOnly: false, ticket: "" };
      raw.ask("announce_attachment", claim);
    }
    closeDescriptor(small);
    for (const size of [2 ** 32, 2 ** 53, Infinity]) failsSync("INVALID_SIZE", () => host.sharedMemory.create(size));
  }));

Deno.test("CVE-2013-3236, CVE-2025-41239: what a receiver gets was written by the sender, every byte of it", async () => {
  const { buffer, producer, consumer } = lane();
  new Uint8Array(buffer).fill(0xEE, RING_START);
  new Int32Array(buffer)[RING_START >> 2] = 0;
  for (const length of [0, 1, 7, 8, 9, 200]) {
    producer.offer(new Uint8Array(length).fill(1));
    const into = new Uint8Array(256).fill(2);
    assertEquals(consumer.peek(), length);
    consumer.take(ReceiveBuffer.of(into));
    assert(into.subarray(0, length).every((byte) => byte === 1) && into.subarray(length).every((byte) => byte === 2));
  }
  // New memory is zero, whatever was in memory before.
  await withLiar((host) => {
    host.sharedMemory.create(65_536).bytes.fill(0xEE);
    assert(host.sharedMemory.create(65_536).bytes.every((byte) => byte === 0));
  });
});

Deno.test("CVE-2022-49759: what is called back may call, wait and close without holding anything up", () =>
  withLiar(async (host, _raw, device) => {
    await using guest = await openVmci({ device, contextId: 16 });
    using region = host.sharedMemory.create(4096);
    using endpoint = host.datagrams.create();
    host.access.addClientPrivileges(endpoint.handle, contextHandle(16), { allow: ["DG_SEND"] });
    using from = guest.datagrams.create();
    let looks = 0;
    await region.waitUntil(() => {
      // Asks the broker, sends and receives while a wait looks.
      host.discovery.list();
      from.sendTo(endpoint.handle, new Uint8Array([looks]));
      assertEquals(endpoint.receiveSync(5000).payload[0], looks);
      region.notify();
      return ++looks > 3;
    }, { timeout: 30_000 });
    assert(looks > 3);
  }));

Deno.test("CVE-2024-35944, CVE-2025-22224: a length is taken once; what its sender changes afterwards is not looked at", () => {
  for (const changed of [0, 5, 200, MAX_PAYLOAD_SIZE + 1, 2 ** 31 - 1, -1, -(2 ** 31)]) {
    const { buffer, producer, consumer } = lane();
    const words = new Int32Array(buffer);
    producer.offer(new Uint8Array(100).fill(3));
    assertEquals(consumer.peek(), 100);
    words[RING_START >> 2] = changed;
    const into = new Uint8Array(300).fill(4);
    assertEquals(consumer.peek(), 100);
    consumer.take(ReceiveBuffer.of(into));
    assertEquals([into[99], into[100]], [3, 4]);
  }
});

Deno.test("CVE-2024-39499: an index from a peer is checked before it is used", () =>
  withLiar((_host, raw) => {
    for (const after of [-1, -(2 ** 53) + 1, 2 ** 31, 2 ** 53 - 1]) {
      const { result, error } = raw.ask("inspect", { topic: "resources", after });
      assert(error !== undefined || result.entries.length === 0 || after < 0, `${after}`);
    }
    for (const topic of ["__proto__", "constructor", 0, null]) {
      assertEquals(raw.ask("inspect", { topic, after: 0 } as never).error?.code, "INVALID_ARGS");
    }
    for (const op of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      assertEquals(raw.ask(op, {}).error?.code, "INVALID_ARGS", op);
    }
    const lanes = [0, 2 ** 32 - 1, 1];
    for (const lane of lanes) assertEquals(raw.ask("close_lane", { lane }).error, undefined);
  }));

Deno.test("CVE-2024-46738: the same handle with another type is another thing", () =>
  withLiar((_host, raw) => {
    const handle = endpointOf(raw);
    for (const type of ["GROUP", "SHAREDMEM"]) {
      assertNotEquals(raw.ask("destroy", { type, handle }).error, undefined, type);
    }
    assertNotEquals(raw.ask("attach", { handle }).error, undefined);
    assertNotEquals(raw.ask("add_member", { group: handle, member: 17, canAssign: true }).error, undefined);
    assertNotEquals(raw.ask("query", { handle }).error, undefined);
    // It is there still, and goes once.
    assertEquals(raw.ask("register", { name: "still here", handle }).error, undefined);
    assertEquals(raw.ask("destroy", { type: "DATAGRAM", handle }).error, undefined);
    assertNotEquals(raw.ask("destroy", { type: "DATAGRAM", handle }).error, undefined);
    assertEquals(raw.ask("lookup", { name: "still here" }).error?.code, "NOT_FOUND");
  }));

Deno.test("CVE-2025-38102: a record is whole when it is published, and published by the last store to it", () => {
  const { buffer, producer } = lane();
  const bytes = new Uint8Array(buffer);
  bytes.fill(0xEE, RING_START);
  const store = Atomics.store as (...args: unknown[]) => unknown;
  let published: Uint8Array | undefined;
  const replaced = Atomics as unknown as Record<string, unknown>;
  replaced.store = (...args: unknown[]) => {
    const result = store(...args);
    if (args[1] === RING_START >> 2) published = bytes.slice();
    return result;
  };
  try {
    producer.offer(new Uint8Array(13).fill(6));
  } finally {
    replaced.store = store;
  }
  assert(published !== undefined, "it was never published by an atomic store");
  assertEquals(published.subarray(RING_START), bytes.subarray(RING_START));
  assertEquals([...bytes.subarray(RING_START + 4, RING_START + 24)], [0, 0, 0, 0, ...Array(13).fill(6), 0, 0, 0]);
});

Deno.test("CVE-2025-38403: padding is zero, whatever was there before", () => {
  for (const length of [1, 2, 3, 5, 9, 15]) {
    const { buffer, producer } = lane();
    const bytes = new Uint8Array(buffer);
    bytes.fill(0xEE, RING_START);
    producer.offer(new Uint8Array(length).fill(6));
    const end = RING_START + 8 + Math.ceil(length / 8) * 8;
    assert(bytes.subarray(RING_START + 4, RING_START + 8).every((byte) => byte === 0));
    assert(bytes.subarray(RING_START + 8 + length, end + 4).every((byte) => byte === 0), `${length}`);
  }
});

Deno.test("CVE-2025-41237: what is taken off once too often does not wrap around", () =>
  withLiar((host, raw) => {
    const region = host.sharedMemory.create(4096);
    host.access.addClientPrivileges(region.handle, contextHandle(17), { allow: ["SM_ATTACH"] });
    const { handle } = region;
    raw.ask("attach", { handle }).descriptors.forEach(closeDescriptor);
    assertEquals(raw.ask("detach", { handle }).error, undefined);
    for (let i = 0; i < 3; i++) assertNotEquals(raw.ask("detach", { handle }).error, undefined);
    assertEquals(region.detach(), 3);
    const mine = endpointOf(raw);
    const { result, descriptors } = raw.ask("open_lane", { source: mine, destination: mine });
    descriptors.forEach(closeDescriptor);
    for (let i = 0; i < 3; i++) {
      assertEquals(raw.ask("close_lane", { lane: result.lane }).error, undefined);
      assertEquals(raw.ask("forget_peer", { peer: result.peer }).error, undefined);
    }
    assertEquals(raw.ask("inspect", { topic: "lanes", after: 0 }).result.entries, []);
  }));

Deno.test("CVE-2026-23069: a receiver that says it took more than there was gets no more in than the budget", () => {
  const { buffer, producer } = lane();
  const words = new Int32Array(buffer);
  producer.offer(new Uint8Array(100));
  // The counter of what was consumed is ahead of what was sent.
  for (const ahead of [1, 1000, 2 ** 30, 2 ** 31 - 1]) {
    words[0] = (124 + ahead) | 0;
    assert(producer.queued > DATAGRAM_QUEUE_SIZE);
    assertEquals(producer.offer(new Uint8Array(1)), false, `${ahead}`);
  }
});

Deno.test("CVE-2026-53132: datagrams without a payload are counted too", () =>
  withLiar((host) => {
    using endpoint: DatagramEndpoint = host.datagrams.create();
    let sent = 0;
    for (; sent < 100_000 && endpoint.hasRoom(endpoint.handle, 0); sent++) {
      endpoint.sendTo(endpoint.handle, new Uint8Array(0));
    }
    assertEquals(sent, Math.ceil(DATAGRAM_QUEUE_SIZE / DATAGRAM_HEADER_SIZE) - 1);
    failsSync("NO_RESOURCES", () => endpoint.sendTo(endpoint.handle, new Uint8Array(0)));
    while (endpoint.tryReceive() !== undefined) sent--;
    assertEquals(sent, 0);
  }));

Deno.test("CVE-2026-46214: connections that come and go, greeted or not, use nothing up", () =>
  withLiar(async (_host, _raw, device) => {
    for (let i = 0; i < 3000; i++) closeDescriptor(connectSeqpacket(`${device}/socket`));
    for (let i = 0; i < 300; i++) {
      using client = new RawClient(`${device}/socket`);
      client.hello({ context: 18 });
    }
    await using another = await openVmci({ device, contextId: 19 });
    assertEquals(another.discovery.list("none"), []);
  }));

Deno.test("CVE-2021-26708, CVE-2024-50264, CVE-2025-21756: closing wins over what is under way, and nothing dangles", () =>
  withLiar(async (host, _raw, device) => {
    for (let i = 0; i < 20; i++) {
      const guest = await openVmci({ device, contextId: 16 });
      const endpoint = host.datagrams.create();
      host.access.addClientPrivileges(endpoint.handle, contextHandle(16), { allow: ["DG_SEND"] });
      const from = guest.datagrams.create();
      from.sendTo(endpoint.handle, new Uint8Array(60_000));
      const receiving = fails("INVALID_RESOURCE", async () => {
        for (;;) await endpoint.receive();
      });
      if (i % 2 === 0) guest.close();
      endpoint.close();
      await receiving;
      if (i % 2 === 1) guest.close();
    }
  }));

/** A lane in memory. */
function lane(): { buffer: ArrayBuffer; producer: LaneProducer; consumer: LaneConsumer } {
  const buffer = new ArrayBuffer(LANE_SIZE);
  return { buffer, producer: new LaneProducer(buffer), consumer: new LaneConsumer(buffer) };
}

/** The medium in one process, where the conformance suite does not come: connections and bells that end, and memory. */

import { assertEquals } from "@std/assert";
import { type AtomicWord, contextHandle, MAX_REGION_SIZE, openVmci, recordSize } from "../mod.ts";
import { MemoryMedium } from "../src/fabric/memory/memory_medium.ts";
import type { Bell, Connection, Packet } from "../src/fabric/medium.ts";
import type { Message } from "../src/fabric/protocol.ts";
import { failsSync } from "./support/failure.ts";
import { helloArgs } from "./support/broker_world.ts";

let fabrics = 0;

function medium(name = `medium ${++fabrics}`): MemoryMedium {
  return new MemoryMedium(name);
}

/** Asks, and gives the reply; what else comes is left out. */
function ask(connection: Connection, op: string, args: unknown, shares: Packet["shares"] = []): Packet {
  connection.send({ message: { id: 1, op, args }, shares }, 0);
  for (;;) {
    const packet = connection.receive(0);
    if (packet === undefined || packet === "closed") throw new Error(`'${op}' was not answered`);
    if (packet.message.id === 1) return packet;
  }
}

/** Two bells of one pair, of which the second listens. */
function bells(of: MemoryMedium): { readonly connection: Connection; readonly bell: Bell } {
  const connection = of.tryConnect();
  const { shares } = ask(connection, "hello", helloArgs(), [of.createAttention().share]);
  return { connection, bell: of.openBell(shares[1]!) };
}

const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

Deno.test("memory medium: a connection that is closed takes and gives nothing, and is closed once", async () => {
  const own = medium();
  const { connection } = bells(own);
  connection.close();
  connection.close();
  assertEquals(connection.send({ message: { id: 2, op: "lookup", args: { name: "" } }, shares: [] }, 0), "closed");
  assertEquals(connection.receive(0), "closed");
  await own.close();
  assertEquals(own.explainSilence(), "it runs in this thread");
});

Deno.test("memory medium: a bell tells when the other end is gone, before it is listened to or after", async () => {
  for (const early of [true, false]) {
    const own = medium();
    const { connection, bell } = bells(own);
    const heard: string[] = [];
    const listen = () => bell.listen(() => heard.push("rung"), () => heard.push("ended"));
    if (early) listen();
    assertEquals([bell.drain(), bell.ring()], [true, true]);
    connection.close();
    if (!early) listen();
    await turn();
    assertEquals([heard, bell.drain(), bell.ring()], [["ended"], false, false]);
    bell.close();
    bell.close();
    await own.close();
  }
});

Deno.test("memory medium: a bell that was closed hears nothing more, and a share given back closes its bell", async () => {
  const own = medium();
  const { connection, bell } = bells(own);
  const heard: string[] = [];
  bell.listen(() => heard.push("rung"), () => heard.push("ended"));
  own.release(bell);
  own.release(own.createAttention().share);
  connection.close();
  await turn();
  assertEquals(heard, []);
  await own.close();
});

Deno.test("memory medium: two who ring each other at every ring let the event loop turn", async () => {
  const device = `memory:rings ${++fabrics}`;
  await using host = await openVmci({ device, spin: 0 });
  await using guest = await openVmci({ device, contextId: 16, spin: 0 });
  using region = host.sharedMemory.create(4096);
  host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
  using theirs = guest.sharedMemory.attach(region.handle);
  let looks = 0;
  let turned = false;
  setTimeout(() => turned = true);
  const ringing = (word: AtomicWord) => () => {
    if (++looks > 100_000) throw new Error("the event loop did not turn");
    word.add(1);
    return turned;
  };
  await Promise.all([region, theirs].map((it) => it.waitUntil(ringing(it.word(0)))));
});

Deno.test("memory medium: a region is what its creator says, ends once, and cannot be larger than memory", async () => {
  const own = medium();
  const { connection } = bells(own);
  const { memory, share } = own.createRegion(100, "creator");
  const create = (size: number, creatorOnly: boolean): Message =>
    ask(connection, "create_region", { size, creatorOnly }, [share]).message;
  for (const [size, creatorOnly] of [[99, true], [100, false]] as const) {
    assertEquals((create(size, creatorOnly).error as Message).code, "INVALID_ARGS");
  }
  assertEquals(create(100, true).error, undefined);
  const other = own.openRegion(share);
  assertEquals([memory.close(), memory.close(), memory.view.byteLength], [true, true, 100]);
  assertEquals([other.close(), memory.view.byteLength], [true, 0]);
  failsSync("NO_MEM", () => own.createRegion(2 ** 53 - 1, "everybody"));
  const transferred = own.createRegion(8, "everybody").memory;
  transferred.view.transfer();
  assertEquals(transferred.close(), false);
  connection.close();
  await own.close();
});

Deno.test("memory medium: regions of 2 GiB and more are had whole: their words, records and views", async () => {
  using vmci = await openVmci({ device: `memory:large ${++fabrics}` });
  // The pages nobody touches there are not.
  for (const size of [2 ** 31, 3 * 2 ** 30, MAX_REGION_SIZE]) {
    using region = vmci.sharedMemory.create(size);
    const last = Math.floor(size / 4) * 4 - 4;
    region.word(last).store(1);
    assertEquals([region.word(last).load(), region.view(Int32Array, last, 1)[0], region.bytes.length], [1, 1, size]);
    assertEquals(region.word(last - 2 ** 30).load(), 0);
    await region.waitUntil(() => region.word(last).load() === 1);
    const place = size - size % 8 - recordSize(64);
    const record = region.record(place, 64);
    for (const text of ["one", "two", "three"]) {
      record.publish(new TextEncoder().encode(text));
      assertEquals(new TextDecoder().decode(record.read()), text);
    }
    assertEquals(region.word(place).load(), 3);
    using again = vmci.sharedMemory.attach(region.handle);
    assertEquals(new TextDecoder().decode(again.record(place, 64).read()), "three");
    failsSync("INVALID_ARGS", () => region.word(last + 4), { operation: "region.word" });
    failsSync("INVALID_ARGS", () => region.record(place + 8, 64), { operation: "region.record" });
    // One record that takes all of it.
    assertEquals(recordSize(region.record().capacity) <= size, true);
    assertEquals(recordSize(region.record().capacity + 8) > size, true);
  }
  failsSync("INVALID_SIZE", () => vmci.sharedMemory.create(2 ** 32), { operation: "sharedMemory.create" });
});

Deno.test("memory medium: a payload is read into a buffer of 2 GiB and more", async () => {
  using vmci = await openVmci({ device: `memory:large ${++fabrics}` });
  using endpoint = vmci.datagrams.create();
  for (const size of [2 ** 31, 2 ** 32 + 8]) {
    const buffer = new Uint8Array(size);
    for (const length of [1, 12, 128, 4096]) {
      const payload = new Uint8Array(length).fill(7);
      endpoint.sendTo(endpoint.handle, payload);
      assertEquals(endpoint.tryReceiveInto(buffer), length);
      assertEquals(buffer.subarray(0, length), payload);
      buffer.fill(0, 0, length);
    }
  }
});

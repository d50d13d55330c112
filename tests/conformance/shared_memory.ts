/** Shared memory: Create, Query, Attach and Detach; and over a region words, records and waiting. */

import { assert, assertEquals, assertFalse, assertNotEquals, assertStrictEquals } from "@std/assert";
import {
  type AtomicWord,
  contextHandle,
  FIRST_DYNAMIC_RESOURCE,
  type Handle,
  HOST_CONTEXT,
  makeHandle,
  MAX_REGION_SIZE,
  recordSize,
  type Region,
  type RegionRecord,
  ResultCode,
  type Vmci,
} from "../../mod.ts";
import { fails, failsSync } from "../support/failure.ts";
import type { Remote } from "../support/remote.ts";
import { patterned, turnSync } from "../support/scenes.ts";
import { allow, bytes, type Fabric, type Facet, hostAndGuest, type Party, reasonOf, text, VM } from "./suite.ts";

const { SUCCESS, SUCCESS_LAST_DETACH } = ResultCode;

/** Where a record at the region's start keeps its words, in bytes; the last one with a capacity of 100. */
const [VERSION, BEGUN, CAPACITY, LENGTH_OF_1] = [0, 4, 8, 16 + 8 + 104];

/** A region of the host's, and the guest's attachment to it. */
interface Shared {
  readonly host: Vmci;
  readonly guest: Party;
  readonly mine: Region;
  readonly theirs: Remote<Region>;
}

async function share(fabric: Fabric, size: number, writers: "everybody" | "creator" = "everybody"): Promise<Shared> {
  const { host, guest } = await hostAndGuest(fabric);
  const mine = host.sharedMemory.create(size, { writers });
  allow(host, mine.handle, "SM_ATTACH");
  return { host, guest, mine, theirs: await guest.sharedMemory.attach(mine.handle) };
}

/** Everything a region can be asked to do, by the call's name. */
const everyCall: Readonly<Record<string, (region: Region) => unknown>> = {
  "region.bytes": (it) => it.bytes,
  "region.buffer": (it) => it.buffer,
  "region.view": (it) => it.view(Uint8Array),
  "region.word": (it) => it.word(0),
  "region.record": (it) => it.record(),
  "region.notify": (it) => it.notify(),
  "region.waitUntil": (it) => it.waitUntil(() => true),
  "region.waitUntilSync": (it) => it.waitUntilSync(() => true),
};

const everyCallOfWord: Readonly<Record<string, (word: AtomicWord) => unknown>> = {
  "word.load": (it) => it.load(),
  "word.store": (it) => it.store(1),
  "word.add": (it) => it.add(1),
  "word.exchange": (it) => it.exchange(1),
  "word.compareExchange": (it) => it.compareExchange(0, 1),
  "word.wait": (it) => it.wait(0),
  "word.waitSync": (it) => it.waitSync(0),
};

const everyCallOfRecord: Readonly<Record<string, (record: RegionRecord) => unknown>> = {
  "record.version": (it) => it.version,
  "record.publish": (it) => it.publish(new Uint8Array(1)),
  "record.read": (it) => it.read(),
  "record.readInto": (it) => it.readInto(new Uint8Array(1)),
  "record.wait": (it) => it.wait(0),
  "record.waitSync": (it) => it.waitSync(0),
};

/** Bytes that cannot be read to their end: to publish them ends in the middle, as a writer's life may. */
function dying(length: number): Uint8Array {
  return new Proxy(new Uint8Array(length), {
    get: (bytes, key) => {
      if (key === `${length >> 1}`) throw new Error("the writer has died");
      return key === "length" ? length : Reflect.get(bytes, key) ?? 0xFF;
    },
  });
}

/** See the module's comment. */
export const sharedMemory: Facet = (test, traits) => {
  // --- Create and Query -----------------------------------------------------------------------------------------------

  test("a region has the size asked for and is zero", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    for (const size of [1, 3, 4, 128, 4095, 4096, 4097, 1 << 20]) {
      using region = host.sharedMemory.create(size);
      assertEquals([region.size, region.bytes.length, region.writable, region.attached], [size, size, true, true]);
      assert(region.bytes.every((byte) => byte === 0));
      assertStrictEquals(region.bytes.buffer, region.buffer);
      assertEquals(host.sharedMemory.query(region.handle), size);
      assertEquals(await guest.sharedMemory.query(region.handle), size);
    }
  });

  test("a region's handle is of its creator's context, with an id of its own", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mine = host.sharedMemory.create(1).handle;
    const theirs = (await guest.sharedMemory.create(1)).handle;
    assertEquals([mine.context, theirs.context], [HOST_CONTEXT, VM]);
    assert(mine.resource >= FIRST_DYNAMIC_RESOURCE);
    assertNotEquals(mine.resource, theirs.resource);
    assertNotEquals(host.datagrams.create().handle.resource, mine.resource);
  });

  test.alone("sizes and writers that are none", async (fabric) => {
    const host = await fabric.open();
    for (const size of [0, -1, 1.5, NaN, Infinity, MAX_REGION_SIZE + 1, "128" as unknown as number]) {
      failsSync("INVALID_SIZE", () => host.sharedMemory.create(size), { operation: "sharedMemory.create" });
    }
    const writers = "nobody" as "creator";
    failsSync("INVALID_ARGS", () => host.sharedMemory.create(1, { writers }), { operation: "sharedMemory.create" });
  });

  test.alone("what is no region cannot be queried or attached to", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    for (const handle of [endpoint.handle, host.access.publicGroup, makeHandle(HOST_CONTEXT, 5), makeHandle(VM, 0)]) {
      failsSync("NOT_FOUND", () => host.sharedMemory.query(handle), { operation: "sharedMemory.query", handle });
      failsSync("NOT_FOUND", () => host.sharedMemory.attach(handle), { operation: "sharedMemory.attach", handle });
    }
    failsSync("INVALID_ARGS", () => host.sharedMemory.query({ context: 2 } as Handle));
    failsSync("INVALID_ARGS", () => host.sharedMemory.attach({ resource: 2 } as Handle));
  });

  // --- Attach and Detach ----------------------------------------------------------------------------------------------

  test("what one writes the other sees, without any call", async (fabric) => {
    const { mine, theirs } = await share(fabric, 5000);
    mine.bytes[0] = 1;
    mine.bytes[4999] = 2;
    assertEquals([await theirs.bytes[0], await theirs.bytes[4999]], [1, 2]);
    await theirs.bytes.set([3, 4], 4096);
    assertEquals([...mine.bytes.subarray(4095, 4099)], [0, 3, 4, 0]);
    assertEquals([theirs.size, theirs.writable, theirs.handle], [5000, true, mine.handle]);
  });

  test("without SM_ATTACH another context cannot attach", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { handle } = host.sharedMemory.create(1);
    const expected = { operation: "sharedMemory.attach", handle };
    await fails("NO_ACCESS", () => guest.sharedMemory.attach(handle), expected);
    assertEquals(await guest.sharedMemory.query(handle), 1);
  });

  test("attaching twice counts twice, and the last detach says that it was", async (fabric) => {
    const { mine, guest, theirs } = await share(fabric, 64);
    const again = await guest.sharedMemory.attach(mine.handle);
    await theirs.bytes.set([7], 0);
    assertEquals([await again.bytes[0], mine.bytes[0]], [7, 7]);
    assertEquals(await theirs.detach(), SUCCESS);
    assertEquals(await theirs.detach(), SUCCESS);
    assertEquals([await theirs.attached, await again.attached], [false, true]);
    await again.bytes.set([8], 0);
    assertEquals(mine.bytes[0], 8);
    assertEquals(mine.detach(), SUCCESS);
    assertEquals(await again.detach(), SUCCESS_LAST_DETACH);
    await fails("NOT_FOUND", () => guest.sharedMemory.query(mine.handle));
  });

  test("a region lives until its last detach; without its creator nobody new can attach", async (fabric) => {
    const { host, guest, mine, theirs } = await share(fabric, 64);
    const third = await fabric.open({ contextId: VM });
    const thirds = third.sharedMemory.attach(mine.handle);
    mine.bytes[0] = 1;
    assertEquals(mine.detach(), SUCCESS);
    failsSync("UNAVAILABLE", () => host.sharedMemory.attach(mine.handle), { handle: mine.handle });
    await fails("UNAVAILABLE", () => guest.sharedMemory.attach(mine.handle));
    assertEquals(host.sharedMemory.query(mine.handle), 64);
    assertEquals(await theirs.bytes[0], 1);
    await theirs.bytes.set([2], 1);
    assertEquals(thirds.bytes[1], 2);
    assertEquals(thirds.detach(), SUCCESS);
    assertEquals(await theirs.detach(), SUCCESS_LAST_DETACH);
    failsSync("NOT_FOUND", () => host.sharedMemory.query(mine.handle));
  });

  test("a region whose creator has left lives on in the others", async (fabric) => {
    const { host, mine, theirs } = await share(fabric, 64);
    const other = await fabric.open();
    const events = other.events();
    const others = other.sharedMemory.attach(mine.handle);
    mine.bytes[0] = 1;
    host.close();
    assertFalse(mine.attached);
    const gone = { type: "resource-gone", resource: "SHAREDMEM", handle: mine.handle };
    assertEquals((await events.next()).value, { type: "peer-detached", handle: mine.handle, context: HOST_CONTEXT });
    assertEquals((await events.next()).value, gone);
    failsSync("UNAVAILABLE", () => other.sharedMemory.attach(mine.handle));
    await theirs.bytes.set([2], 1);
    assertEquals([...others.bytes.subarray(0, 2)], [1, 2]);
    assertEquals(await theirs.detach(), SUCCESS);
    assertEquals(others.detach(), SUCCESS_LAST_DETACH);
  });

  test.alone("after a detach every view is empty and nothing works", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(4096);
    const { buffer, handle } = region;
    const views = [region.bytes, region.view(Float64Array), new Uint8Array(buffer, 16, 4)];
    const word = region.word(0);
    const record = region.record();
    assertEquals(region.detach(), SUCCESS_LAST_DETACH);
    assertEquals([region.attached, buffer.byteLength, ...views.map((it) => it.length)], [false, 0, 0, 0, 0]);
    for (const [operation, call] of Object.entries(everyCall)) {
      await fails("INVALID_RESOURCE", () => call(region), { operation, handle });
    }
    for (const [operation, call] of Object.entries(everyCallOfWord)) {
      await fails("INVALID_RESOURCE", () => call(word), { operation, handle });
    }
    for (const [operation, call] of Object.entries(everyCallOfRecord)) {
      await fails("INVALID_RESOURCE", () => call(record), { operation, handle });
    }
    assertEquals(region.detach(), SUCCESS);
  });

  test.alone("closing the Vmci detaches", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(64);
    const view = region.bytes;
    const waits = [
      fails("INVALID_RESOURCE", () => region.waitUntil(() => false), { operation: "region.waitUntil" }),
      fails("INVALID_RESOURCE", () => region.word(0).wait(0), { operation: "word.wait" }),
      fails("INVALID_RESOURCE", () => region.record().wait(0), { operation: "record.wait" }),
    ];
    host.close();
    await Promise.all(waits);
    assertEquals([region.attached, view.length], [false, 0]);
    failsSync("INVALID_RESOURCE", () => region.bytes, { handle: region.handle });
    failsSync("INVALID_RESOURCE", () => host.sharedMemory.create(1), { operation: "sharedMemory.create" });
    failsSync("INVALID_RESOURCE", () => host.sharedMemory.query(region.handle), { operation: "sharedMemory.query" });
    failsSync("INVALID_RESOURCE", () => host.sharedMemory.attach(region.handle), { operation: "sharedMemory.attach" });
    assertEquals(region.detach(), SUCCESS);
  });

  test.alone("a region declared with using is detached at the end", async (fabric) => {
    const host = await fabric.open();
    let handle: Handle;
    {
      using region = host.sharedMemory.create(64);
      handle = region.handle;
    }
    failsSync("NOT_FOUND", () => host.sharedMemory.query(handle));
  });

  // --- Views ----------------------------------------------------------------------------------------------------------

  test("views of any type show the same memory", async (fabric) => {
    const { mine, theirs } = await share(fabric, 64);
    mine.view(Float64Array, 8, 2).set([Math.PI, -1]);
    mine.view(Uint16Array, 2, 1)[0] = 0x0102;
    const copy = new Uint8Array(await theirs.bytes.slice(0, 24));
    assertEquals([...new Float64Array(copy.buffer, 8, 2)], [Math.PI, -1]);
    assertEquals([...copy.subarray(0, 4)], [0, 0, 2, 1]);
    assertEquals([mine.view(Int32Array).length, mine.view(Int32Array, 4).length], [16, 15]);
  });

  test.alone("a view must fit into the size asked for, and be aligned", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(70);
    assertEquals([region.view(Float64Array).length, region.view(Uint8Array, 70).length], [8, 0]);
    const { handle } = region;
    const misfits: readonly [offset: number, length?: number][] = [[4], [-8], [72], [0, 9], [64, 1], [0.5], [0, -1]];
    for (const [offset, length] of misfits) {
      const expected = { operation: "region.view", handle };
      failsSync("INVALID_ARGS", () => region.view(Float64Array, offset, length), expected);
    }
    for (const offset of [-4, 2, 68, 72, NaN]) {
      failsSync("INVALID_ARGS", () => region.word(offset), { operation: "region.word", handle });
    }
    for (const [offset, capacity] of [[4], [-8], [64], [0, 17], [0, 0], [0, 1.5], [8, 16]] as const) {
      failsSync("INVALID_ARGS", () => region.record(offset, capacity), { operation: "region.record", handle });
    }
    assertEquals([region.record().capacity, recordSize(16)], [16, 64]);
  });

  // --- Words ----------------------------------------------------------------------------------------------------------

  test("a word is changed as a whole, by both", async (fabric) => {
    const { mine, theirs } = await share(fabric, 64);
    const word = mine.word(60);
    const their = await theirs.word(60);
    assertEquals(word.add(5), 0);
    assertEquals(await their.add(-7), 5);
    assertEquals(word.exchange(2 ** 31 - 1), -2);
    assertEquals(await their.add(1), 2 ** 31 - 1);
    assertEquals(word.compareExchange(0, 1), -(2 ** 31));
    assertEquals(await their.load(), -(2 ** 31));
    assertEquals(word.compareExchange(-(2 ** 31), 9), -(2 ** 31));
    await their.store(await their.load() + 1);
    assertEquals([word.load(), mine.view(Int32Array)[15]], [10, 10]);
  });

  test("who waits for a word goes on when another changes it", async (fabric) => {
    const { mine, theirs } = await share(fabric, 64);
    const word = mine.word(0);
    const their = await theirs.word(0);
    const changes: readonly (() => Promise<unknown>)[] = [
      () => their.store(1),
      () => their.add(1),
      () => their.exchange(3),
      () => their.compareExchange(3, 4),
    ];
    for (const [value, change] of changes.entries()) {
      const waiting = word.wait(value);
      await change();
      assertEquals(await waiting, value + 1);
    }
    const waiting = their.wait(4);
    word.store(5);
    assertEquals(await waiting, 5);
  });

  test("a change through a view is told by notify", async (fabric) => {
    const { mine, theirs } = await share(fabric, 64);
    const waiting = mine.waitUntil(() => mine.bytes[9] === 1);
    await theirs.bytes.set([1], 9);
    await theirs.notify();
    await waiting;
    assertEquals(mine.bytes[9], 1);
  });

  test("whoever attaches later can change what is waited for, too", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mine = host.sharedMemory.create(64);
    allow(host, mine.handle, "SM_ATTACH");
    const waiting = mine.word(0).wait(0);
    const theirs = await guest.sharedMemory.attach(mine.handle);
    await (await theirs.word(0)).store(1);
    assertEquals(await waiting, 1);
  });

  test.alone("a wait ends by time, signal and detach", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(4096);
    const { handle } = region;
    await fails("TIMEOUT", () => region.waitUntil(() => false, { timeout: 1 }), {
      operation: "region.waitUntil",
      handle,
    });
    await fails("TIMEOUT", () => region.word(0).wait(0, { timeout: 1 }), { operation: "word.wait", handle });
    await fails("TIMEOUT", () => region.record().wait(0, { timeout: 1 }), { operation: "record.wait", handle });
    const controller = new AbortController();
    const { signal } = controller;
    const aborted = [region.waitUntil(() => false, { signal }), region.word(0).wait(0, { signal })].map(reasonOf);
    controller.abort("enough");
    assertEquals(await Promise.all(aborted), ["enough", "enough"]);
    assertEquals(await reasonOf(region.record().wait(0, { signal })), "enough");
    const detached = fails("INVALID_RESOURCE", () => region.word(0).wait(0), { operation: "word.wait", handle });
    region.detach();
    await detached;
  });

  test.alone("a condition that throws fails its wait", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(64);
    const mistake = new Error("a mistake");
    const condition = () => {
      if (region.bytes[0] === 0) return false;
      throw mistake;
    };
    const waiting = reasonOf(region.waitUntil(condition));
    region.bytes[0] = 1;
    region.notify();
    assertStrictEquals(await waiting, mistake);
  });

  test.alone("waiting without turning the event loop", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(4096);
    const { handle } = region;
    const code = traits.concurrent ? "TIMEOUT" : "WOULD_BLOCK";
    failsSync(code, () => region.waitUntilSync(() => false, 1), { operation: "region.waitUntilSync", handle });
    failsSync(code, () => region.word(0).waitSync(0, 1), { operation: "word.waitSync", handle });
    failsSync(code, () => region.record().waitSync(0, 1), { operation: "record.waitSync", handle });
    region.word(0).store(3);
    assertEquals(region.word(0).waitSync(0), 3);
  });

  // --- Records --------------------------------------------------------------------------------------------------------

  test("a record is read as it was published last", async (fabric) => {
    const { mine, theirs } = await share(fabric, 4096);
    const record = mine.record(8, 100);
    const their = await theirs.record(8, 100);
    assertEquals([record.version, await their.read(), record.capacity, their.capacity], [0, undefined, 100, 100]);
    for (const [i, content] of ["12:00", "", "a longer text", "x".repeat(100), "short"].entries()) {
      assertEquals(record.publish(bytes(content)), i + 1);
      assertEquals([await their.version, text(await their.read() ?? bytes("nothing"))], [i + 1, content]);
    }
    assertEquals(await their.publish(bytes("theirs")), 6);
    const buffer = new Uint8Array(100);
    assertEquals(record.readInto(buffer), 6);
    assertEquals(text(buffer.subarray(0, 6)), "theirs");
  });

  test.alone("records lie side by side", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(3 * recordSize(13));
    const records = [0, 1, 2].map((i) => region.record(i * recordSize(13), 13));
    for (let round = 0; round < 3; round++) {
      records.forEach((record, i) => record.publish(bytes(`${i}`.repeat(13))));
      assertEquals(records.map((it) => text(it.read()!)), ["0".repeat(13), "1".repeat(13), "2".repeat(13)]);
    }
    assertEquals(region.record().capacity, ((region.size - recordSize(0)) >> 4) << 3);
  });

  test.alone("what does not fit a record", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(4096);
    const { handle } = region;
    const record = region.record(0, 16);
    failsSync("INVALID_SIZE", () => record.publish(new Uint8Array(17)), { operation: "record.publish", handle });
    assertEquals(record.read(), undefined);
    record.publish(new Uint8Array(16));
    const small = new Uint8Array(15);
    failsSync("NO_MEM", () => record.readInto(small), { operation: "record.readInto", handle });
    failsSync("INVALID_SIZE", () => region.record(0, 24).read(), { operation: "record.read", handle });
  });

  test("who waits for a record goes on with its next version", async (fabric) => {
    const { mine, theirs } = await share(fabric, 4096);
    const record = mine.record();
    const their = await theirs.record();
    const first = record.wait(0);
    assertEquals(await their.publish(bytes("one")), 1);
    assertEquals(await first, 1);
    assertEquals(await record.wait(0), 1);
    const second = their.wait(1);
    record.publish(bytes("two"));
    assertEquals([await second, text((await their.read())!)], [2, "two"]);
  });

  test("a writer who dies in the middle leaves the version before", async (fabric) => {
    const { mine, theirs } = await share(fabric, 4096);
    const record = mine.record(0, 1000);
    const their = await theirs.record(0, 1000);
    record.publish(bytes("first"));
    for (const last of ["first", "second", "third"]) {
      assertEquals(`${await reasonOf(Promise.try(() => record.publish(dying(1000))))}`, "Error: the writer has died");
      assertEquals([text((await their.read())!), text(record.read()!)], [last, last]);
      record.publish(bytes({ first: "second", second: "third", third: "end" }[last]!));
    }
    assertEquals([text((await their.read())!), await their.version], ["end", 4]);
  });

  test.alone("versions go on after 2^32, and pass 0 over", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(4096);
    const record = region.record();
    record.publish(bytes("old"));
    for (const word of [VERSION, BEGUN]) region.word(word).store(-1);
    assertEquals([record.version, text(record.read()!)], [2 ** 32 - 1, "old"]);
    assertEquals(`${await reasonOf(Promise.try(() => record.publish(dying(100))))}`, "Error: the writer has died");
    assertEquals([record.version, text(record.read()!)], [2 ** 32 - 1, "old"]);
    for (const version of [2, 3]) {
      assertEquals(record.publish(bytes(`${version}`)), version);
      assertEquals([record.version, text(record.read()!)], [version, `${version}`]);
    }
  });

  test("a writer's nonsense is said, not followed", async (fabric) => {
    const { mine, theirs } = await share(fabric, 4096);
    const their = await theirs.record(0, 100);
    const nonsense: readonly [word: number, ...values: number[]][] = [
      [BEGUN, 0, 3, -1, 2 ** 31 - 1],
      [VERSION, 3, -1, -(2 ** 31)],
      [CAPACITY, 0, 99, 101, -1],
      [LENGTH_OF_1, 101, -1, 2 ** 31 - 1],
    ];
    for (const [word, ...values] of nonsense) {
      for (const value of values) {
        mine.bytes.fill(0);
        mine.record(0, 100).publish(bytes("sense"));
        mine.word(word).store(value);
        await fails("INVALID_SIZE", () => their.read(), { operation: "record.read", handle: mine.handle });
      }
    }
  });

  // --- Readers --------------------------------------------------------------------------------------------------------

  test("where only its creator writes, others read", async (fabric) => {
    const { host, mine, theirs } = await share(fabric, 4096, "creator");
    assertEquals([mine.writable, theirs.writable], [true, false]);
    const { handle } = mine;
    const word = await theirs.word(0);
    const record = await theirs.record(64, 100);
    const expected = (operation: string) => ({ operation, handle });
    await fails("NO_ACCESS", () => word.store(1), expected("word.store"));
    await fails("NO_ACCESS", () => word.add(1), expected("word.add"));
    await fails("NO_ACCESS", () => word.exchange(1), expected("word.exchange"));
    await fails("NO_ACCESS", () => word.compareExchange(0, 1), expected("word.compareExchange"));
    await fails("NO_ACCESS", () => record.publish(new Uint8Array(1)), expected("record.publish"));
    mine.bytes[4095] = 7;
    mine.word(0).store(8);
    mine.record(64, 100).publish(bytes("nine"));
    assertEquals([await theirs.bytes[4095], await word.load(), text((await record.read())!)], [7, 8, "nine"]);
    const sameContext = await fabric.open();
    assertFalse(sameContext.sharedMemory.attach(handle).writable);
    assertEquals([mine.word(0).load(), host.sharedMemory.query(handle)], [8, 4096]);
  });

  test("further attachments of the only writer share his mapping by count", async (fabric) => {
    const { host, mine, theirs } = await share(fabric, 4096, "creator");
    const again = host.sharedMemory.attach(mine.handle);
    assert(again.writable);
    assertStrictEquals(again.buffer, mine.buffer);
    assertEquals(mine.detach(), SUCCESS);
    again.bytes[0] = 5;
    assertEquals([await theirs.bytes[0], again.bytes.length], [5, 4096]);
    again.record().publish(bytes("still"));
    assertEquals(again.detach(), SUCCESS);
    assertEquals(text((await (await theirs.record()).read())!), "still");
    assertEquals(await theirs.detach(), SUCCESS_LAST_DETACH);
  });

  test("a reader waits for what the only writer changes", async (fabric) => {
    const { mine, theirs } = await share(fabric, 4096, "creator");
    const third = await fabric.open();
    const thirds = third.sharedMemory.attach(mine.handle);
    const waits = [thirds.word(0).wait(0), (await theirs.word(0)).wait(0)];
    mine.word(0).store(4);
    assertEquals(await Promise.all(waits), [4, 4]);
    const versions = [thirds.record(64).wait(0), (await theirs.record(64)).wait(0)];
    mine.record(64).publish(bytes("!"));
    assertEquals(await Promise.all(versions), [1, 1]);
  });

  if (traits.enforcesReaders) {
    test("a reader's stray write stays his own and hurts nobody", async (fabric) => {
      const { mine, theirs } = await share(fabric, 3 * 4096, "creator");
      const word = await theirs.word(4);
      const record = await theirs.record(64, 100);
      await theirs.bytes.set([9], 0);
      mine.bytes.fill(1);
      assertEquals([mine.bytes[0], await theirs.bytes[0]], [1, 9]);
      assertEquals(await theirs.bytes[1], 0, "this page is frozen for him");
      assertEquals([await theirs.bytes[4096], await theirs.bytes[3 * 4096 - 1]], [1, 1], "others are not");
      mine.bytes.fill(0);
      mine.word(4).store(11);
      mine.record(64, 100).publish(bytes("true"));
      assertEquals([await word.load(), text((await record.read())!)], [11, "true"]);
      const waiting = word.wait(11);
      mine.word(4).store(12);
      assertEquals(await waiting, 12);
    });

    test.alone("each attachment has views of its own", async (fabric) => {
      const host = await fabric.open();
      const mine = host.sharedMemory.create(4096);
      const again = host.sharedMemory.attach(mine.handle);
      const views = [mine.bytes, again.bytes];
      again.detach();
      assertEquals(views.map((it) => it.length), [4096, 0]);
    });
  }

  // --- Between processes ----------------------------------------------------------------------------------------------

  if (!traits.processes) return;

  test("no addition is lost between two threads that add at once", async (fabric) => {
    const { mine, theirs } = await share(fabric, 64);
    const word = mine.word(0);
    const adding = fabric.scenes.addOnes(await theirs.word(0), 50_000);
    await word.wait(0);
    for (let i = 0; i < 50_000; i++) word.add(1);
    await adding;
    assertEquals(word.load(), 100_000);
  });

  for (const spin of [0, 20]) {
    test(`two threads that never turn their event loop take turns (spin: ${spin})`, async (fabric) => {
      const host = await fabric.open({ spin });
      const guest = await fabric.join({ contextId: VM, spin });
      const region = host.sharedMemory.create(64);
      allow(host, region.handle, "SM_ATTACH");
      const word = region.word(0);
      const theirs = await guest.sharedMemory.attach(region.handle);
      const turning = fabric.scenes.turnSync(await theirs.word(0), 0, traits.many);
      await word.wait(0);
      turnSync(word, 1, traits.many);
      await turning;
      assertEquals(word.load(), traits.many);
    });
  }

  test("readers never see half a record while another process writes", async (fabric) => {
    const { mine, theirs } = await share(fabric, recordSize(5000));
    const record = mine.record(0, 5000);
    const writing = fabric.scenes.publishForever(await theirs.record(0, 5000));
    await record.wait(0);
    const buffer = new Uint8Array(5000);
    for (let reads = 0, last = 0; reads < 2000 || last < 2000; reads++) {
      const before = record.version;
      const read = buffer.subarray(0, record.readInto(buffer));
      const number = new DataView(buffer.buffer).getUint32(0);
      assert(before <= number && last <= number, `version ${number} came after ${Math.max(before, last)}`);
      assertEquals(read, patterned(number, 5000));
      last = number;
    }
    await fabric.scenes.leaveAll();
    await writing;
  });

  test("the last complete version survives the kill of its writer", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(recordSize(50_000));
    host.access.addClientPrivileges(region.handle, host.access.publicGroup, { allow: ["SM_ATTACH"] });
    const record = region.record();
    for (let round = 1; round <= 3; round++) {
      const agent = fabric.spawn();
      const guest = await agent.scenes.open({ device: fabric.device, contextId: VM });
      const theirs = await guest.sharedMemory.attach(region.handle);
      const writing = agent.scenes.publishForever(await theirs.record());
      const killed = reasonOf(writing);
      while (record.version < 300 * round) await record.wait(record.version);
      await agent.kill();
      await killed;
      const { version } = record;
      assertEquals(record.read(), patterned(version, record.capacity));
    }
  });

  test("a killed creator's region lives on", async (fabric) => {
    const host = await fabric.open();
    const agent = fabric.spawn();
    const guest = await agent.scenes.open({ device: fabric.device, contextId: VM });
    const theirs = await guest.sharedMemory.create(4096, { writers: "creator" });
    await guest.access.addClientPrivileges(theirs.handle, contextHandle(HOST_CONTEXT), { allow: ["SM_ATTACH"] });
    const mine = host.sharedMemory.attach(theirs.handle);
    await (await theirs.record()).publish(bytes("last words"));
    const events = host.events();
    await agent.kill();
    assertEquals((await events.next()).value, { type: "peer-detached", handle: theirs.handle, context: VM });
    assertEquals(text(mine.record().read()!), "last words");
    failsSync("UNAVAILABLE", () => host.sharedMemory.attach(theirs.handle));
    assertEquals(mine.detach(), SUCCESS_LAST_DETACH);
  });
};

/** The discovery service: Register, Lookup and Unregister; and beyond them list, wait and watch. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  contextHandle,
  type Handle,
  HOST_CONTEXT,
  INVALID_HANDLE,
  makeHandle,
  MAX_NAME_SIZE,
  type NameChange,
  PUBLIC_GROUP_NAME,
  type Vmci,
} from "../../mod.ts";
import { fails, failsSync } from "../support/failure.ts";
import { allow, type Facet, hostAndGuest, reasonOf, VM } from "./suite.ts";

/** Names with the text of their UTF-8 bytes in order: JavaScript's own order has the last two the other way round. */
const IN_BYTE_ORDER = ["", " ", "A", "Z", "a", "a b", "ab", "b", "ä", "\uFFFD", "\u{1F600}"];

/** Texts that are no names. */
const NO_NAMES: Readonly<Record<string, string>> = {
  "277 bytes": "x".repeat(MAX_NAME_SIZE + 1),
  "278 bytes in 139 characters": "ä".repeat(139),
  "a NUL": "a\0b",
  "half of a surrogate pair": "a\uD83D",
  "the other half": "\uDE00b",
  "no text": 5 as unknown as string,
};

/** A handle with some names. */
function named(vmci: Vmci, ...names: string[]): Handle {
  const { handle } = vmci.datagrams.create();
  for (const name of names) vmci.discovery.register(name, handle);
  return handle;
}

/** The names that begin with a prefix, without the public group's. */
function listed(vmci: Vmci, prefix = ""): string[] {
  return vmci.discovery.list(prefix).map(({ name }) => name).filter((name) => name !== PUBLIC_GROUP_NAME);
}

/** Everything that can be asked of the service, by the call's name, about one name. */
const everyCall: Readonly<Record<string, (vmci: Vmci, name: string) => unknown>> = {
  "discovery.register": (vmci, name) => vmci.discovery.register(name, makeHandle(HOST_CONTEXT, 1024)),
  "discovery.lookup": (vmci, name) => vmci.discovery.lookup(name),
  "discovery.unregister": (vmci, name) => vmci.discovery.unregister(name),
  "discovery.list": (vmci, name) => vmci.discovery.list(name),
  "discovery.wait": (vmci, name) => vmci.discovery.wait(name),
  "discovery.watch": (vmci, name) => vmci.discovery.watch(name),
};

/** See the module's comment. */
export const discovery: Facet = (test, traits) => {
  // --- Register and Lookup --------------------------------------------------------------------------------------------

  test("what one registers the other looks up", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mine = named(host, "HOST INFO", "HOST TIME");
    const theirs = (await guest.sharedMemory.create(1)).handle;
    await guest.discovery.register("GUEST MEMORY", theirs);
    assertEquals(await guest.discovery.lookup("HOST INFO"), mine);
    assertEquals(await guest.discovery.lookup("HOST TIME"), mine);
    assertEquals(host.discovery.lookup("GUEST MEMORY"), theirs);
  });

  test.alone("names are compared byte by byte", async (fabric) => {
    const host = await fabric.open();
    const names = [
      "Clock",
      "clock",
      "clock ",
      "CLOCK",
      "",
      " ",
      "é",
      "e\u0301",
      "x".repeat(MAX_NAME_SIZE),
      "ä".repeat(138),
    ];
    const handles = names.map((name) => named(host, name));
    assertEquals(names.map((name) => host.discovery.lookup(name)), handles);
    failsSync("NOT_FOUND", () => host.discovery.lookup("cLock"), { operation: "discovery.lookup" });
    failsSync("NOT_FOUND", () => host.discovery.lookup("cloc"));
  });

  test.alone("names that are none", async (fabric) => {
    const host = await fabric.open();
    const { handle } = host.datagrams.create();
    for (const name of Object.values(NO_NAMES)) {
      failsSync("INVALID_ARGS", () => host.discovery.register(name, handle), { operation: "discovery.register" });
      for (const [operation, call] of Object.entries(everyCall)) {
        await fails("INVALID_ARGS", () => call(host, name), { operation });
      }
    }
    assertEquals(listed(host), []);
  });

  test("first come, first served", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const handle = named(host, "clock");
    const other = host.datagrams.create();
    const expected = { operation: "discovery.register", handle: other.handle };
    failsSync("ALREADY_EXISTS", () => host.discovery.register("clock", handle));
    failsSync("ALREADY_EXISTS", () => host.discovery.register("clock", other.handle), expected);
    const theirs = await guest.datagrams.create();
    await fails("ALREADY_EXISTS", () => guest.discovery.register("clock", theirs.handle));
    assertEquals(await guest.discovery.lookup("clock"), handle);
  });

  test("only what exists and is one's own context's can be named", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { handle } = host.datagrams.create();
    const theirs = (await guest.datagrams.create()).handle;
    await fails("NO_ACCESS", () => guest.discovery.register("mine", handle), { handle });
    failsSync("NO_ACCESS", () => host.discovery.register("mine", theirs), { handle: theirs });
    for (
      const nothing of [
        INVALID_HANDLE,
        makeHandle(HOST_CONTEXT, 5),
        contextHandle(HOST_CONTEXT),
        makeHandle(4711, 1024),
      ]
    ) {
      failsSync("INVALID_ARGS", () => host.discovery.register("nothing", nothing), { handle: nothing });
    }
    failsSync("INVALID_ARGS", () => host.discovery.register("nothing", {} as Handle));
    failsSync("NOT_FOUND", () => host.discovery.lookup("nothing"));
    const sameContext = await fabric.join();
    await sameContext.discovery.register("ours", handle);
    assertEquals(host.discovery.lookup("ours"), handle);
  });

  test("regions, groups and well-known handles have names as well", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const region = host.sharedMemory.create(1).handle;
    const group = host.access.createGroup().handle;
    const service = host.datagrams.create({ wellKnown: 5000 }).handle;
    host.discovery.register("region", region);
    host.discovery.register("group", group);
    host.discovery.register("service", service);
    const entries = (await guest.discovery.list()).filter(({ name }) => name !== PUBLIC_GROUP_NAME);
    assertEquals(entries, [
      { name: "group", handle: group, type: "GROUP" },
      { name: "region", handle: region, type: "SHAREDMEM" },
      { name: "service", handle: service, type: "DATAGRAM" },
    ]);
  });

  // --- Unregister, and what removes names by itself -------------------------------------------------------------------

  test("who may unregister: the owner's context, and the host", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    named(host, "host's");
    const theirs = await guest.datagrams.create();
    for (const name of ["a", "b"]) await guest.discovery.register(name, theirs.handle);
    await fails("NO_ACCESS", () => guest.discovery.unregister("host's"), { operation: "discovery.unregister" });
    const neighbour = await fabric.join({ contextId: VM + 1 });
    await fails("NO_ACCESS", () => neighbour.discovery.unregister("a"));
    const sameContext = await fabric.join({ contextId: VM });
    await sameContext.discovery.unregister("a");
    host.discovery.unregister("b");
    failsSync("NOT_FOUND", () => host.discovery.unregister("b"), { operation: "discovery.unregister" });
    await fails("NOT_FOUND", () => guest.discovery.unregister("a"));
    assertEquals(listed(host), ["host's"]);
  });

  test("an unregistered name is free again, and the handle stays", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const handle = named(host, "clock", "watch");
    host.discovery.unregister("clock");
    const theirs = await guest.datagrams.create();
    await guest.discovery.register("clock", theirs.handle);
    assertEquals([host.discovery.lookup("clock"), host.discovery.lookup("watch")], [theirs.handle, handle]);
    assertEquals(host.datagrams.sendTo(handle, new Uint8Array(1)), 1);
  });

  test("names go with their handle, however that goes", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const closed = host.datagrams.create();
    const destroyed = host.datagrams.create();
    const detached = host.sharedMemory.create(1);
    const group = host.access.createGroup();
    for (const [index, { handle }] of [closed, destroyed, detached, group].entries()) {
      host.discovery.register(`${index}`, handle);
      host.discovery.register(`${index}, too`, handle);
    }
    closed.close();
    assertEquals(listed(host), ["1", "1, too", "2", "2, too", "3", "3, too"]);
    allow(host, destroyed.handle, "DESTROY_RESOURCE");
    await guest.datagrams.destroy(destroyed.handle);
    assertEquals(listed(host), ["2", "2, too", "3", "3, too"]);
    detached.detach();
    assertEquals(listed(host), ["3", "3, too"]);
    group.close();
    assertEquals(listed(host), []);
  });

  test("a region's name goes with its creator, though others are still attached", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const region = host.sharedMemory.create(1);
    host.discovery.register("region", region.handle);
    allow(host, region.handle, "SM_ATTACH");
    await guest.sharedMemory.attach(region.handle);
    region.detach();
    await fails("NOT_FOUND", () => guest.discovery.lookup("region"));
    const expected = { operation: "discovery.register", handle: region.handle };
    failsSync("UNAVAILABLE", () => host.discovery.register("region", region.handle), expected);
  });

  test("names go with their process, though its context stays", async (fabric) => {
    const host = await fabric.open();
    const leaving = await fabric.join({ contextId: VM });
    const staying = await fabric.join({ contextId: VM });
    await leaving.discovery.register("leaves", (await leaving.datagrams.create()).handle);
    await staying.discovery.register("stays", (await staying.datagrams.create()).handle);
    const changes = host.discovery.watch();
    for (let i = 0; i < 3; i++) await changes.next();
    await leaving.close();
    const { value } = await changes.next();
    assertEquals([value?.change, value?.name], ["removed", "leaves"]);
    assertEquals(listed(host), ["stays"]);
    await changes.return?.();
  });

  // --- List -----------------------------------------------------------------------------------------------------------

  test.alone("a list is in the order of bytes, by prefix", async (fabric) => {
    const host = await fabric.open();
    named(host, ...IN_BYTE_ORDER.toReversed());
    assertEquals(listed(host), IN_BYTE_ORDER);
    assertEquals(listed(host, "a"), ["a", "a b", "ab"]);
    assertEquals(listed(host, "\u{1F600}"), ["\u{1F600}"]);
    assertEquals(listed(host, "ab "), []);
  });

  test("a list is whole, however long, and each name is there once", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const names = Array.from(
      { length: 3 * traits.many + 34 },
      (_, i) => `sensor/${`${i}`.padStart(4, "0")} ${"\u0001".repeat(i % 97)}`,
    );
    const handle = named(host, ...names.toReversed());
    assertEquals(listed(host, "sensor/"), names);
    const theirs = await guest.discovery.list("sensor/");
    assertEquals(theirs.map(({ name }) => name), names);
    assert(theirs.every((it) => it.type === "DATAGRAM" && it.handle.resource === handle.resource));
  });

  // --- Wait -----------------------------------------------------------------------------------------------------------

  test("who waits for a name gets it when it is there", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const waits = [host.discovery.wait("clock"), host.discovery.wait("clock")];
    const theirs = await guest.datagrams.create();
    await guest.discovery.register("clockwork", theirs.handle);
    await guest.discovery.register("clock", theirs.handle);
    assertEquals(await Promise.all(waits), [theirs.handle, theirs.handle]);
    assertEquals(await host.discovery.wait("clock"), theirs.handle);
    assertEquals(await guest.discovery.wait(PUBLIC_GROUP_NAME), host.access.publicGroup);
  });

  test.alone("a wait for a name ends by time, signal and close", async (fabric) => {
    const host = await fabric.open();
    await fails("TIMEOUT", () => host.discovery.wait("never", { timeout: 1 }), { operation: "discovery.wait" });
    const controller = new AbortController();
    const aborted = reasonOf(host.discovery.wait("never", { signal: controller.signal }));
    controller.abort("enough");
    assertEquals(await aborted, "enough");
    const closed = fails("INVALID_RESOURCE", () => host.discovery.wait("never"), { operation: "discovery.wait" });
    host.close();
    await closed;
  });

  // --- Watch ----------------------------------------------------------------------------------------------------------

  test("a watch tells what is there, then what comes and goes", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const first = named(host, "sensor/1", "other", "sensor/2");
    const changes = host.discovery.watch("sensor/");
    const next = async () => (await changes.next()).value as NameChange | undefined;
    const seen = async () => {
      const one = await next();
      return one && [one.change, one.name, one.handle];
    };
    assertEquals(await next(), { change: "added", name: "sensor/1", handle: first, type: "DATAGRAM" });
    assertEquals(await seen(), ["added", "sensor/2", first]);
    const waiting = seen();
    const theirs = await guest.sharedMemory.create(1);
    await guest.discovery.register("else", theirs.handle);
    await guest.discovery.register("sensor/3", theirs.handle);
    assertEquals(await waiting, ["added", "sensor/3", theirs.handle]);
    host.discovery.unregister("sensor/2");
    assertEquals(await seen(), ["removed", "sensor/2", first]);
    await theirs.detach();
    assertEquals(await next(), { change: "removed", name: "sensor/3", handle: theirs.handle, type: "SHAREDMEM" });
    await changes.return?.();
    assertEquals(await changes.next(), { done: true, value: undefined });
  });

  test.alone("a watch that begins with very many names tells all of them", async (fabric) => {
    const host = await fabric.open();
    const names = Array.from({ length: 200 }, (_, i) => `${i}`.padStart(3, "0"));
    named(host, ...names);
    const seen: string[] = [];
    for await (const { name } of host.discovery.watch()) {
      if (name === PUBLIC_GROUP_NAME) break;
      seen.push(name);
    }
    assertEquals(seen, names);
  });

  test.alone("watches go on side by side, each with its prefix", async (fabric) => {
    const host = await fabric.open();
    const watches = ["a", "ab", ""].map((prefix) => host.discovery.watch(prefix));
    assertEquals((await watches[2]!.next()).value?.name, PUBLIC_GROUP_NAME);
    named(host, "abc");
    for (const watch of watches) assertEquals((await watch.next()).value?.name, "abc");
    await watches[0]!.return?.();
    named(host, "abd");
    for (const watch of watches.slice(1)) assertEquals((await watch.next()).value?.name, "abd");
  });

  test.alone("a watch ends by signal and close", async (fabric) => {
    const host = await fabric.open();
    const controller = new AbortController();
    const aborted = host.discovery.watch("x", { signal: controller.signal }).next();
    controller.abort(new RangeError("enough"));
    await assertRejects(() => aborted, RangeError, "enough");
    const ended = host.discovery.watch("x").next();
    host.close();
    assertEquals(await ended, { done: true, value: undefined });
  });

  // The same everywhere, and quick only where no process is asked.
  if (!traits.concurrent) {
    test.alone("who does not read is told how much was dropped", async (fabric) => {
      const host = await fabric.open();
      const { handle } = host.datagrams.create();
      const changes = host.discovery.watch("x");
      for (let i = 0; i < 32768 + 5; i++) {
        host.discovery.register("x", handle);
        host.discovery.unregister("x");
      }
      for (let i = 0; i < 65536; i++) await changes.next();
      const { reason } = await fails("NO_RESOURCES", () => changes.next(), { operation: "discovery.watch" });
      assertEquals(reason, "10 events were dropped, since 65536 were not read");
      assertEquals(await changes.next(), { done: true, value: undefined });
    });
  }

  test.alone("nothing works on a closed Vmci", async (fabric) => {
    const host = await fabric.open();
    host.close();
    for (const [operation, call] of Object.entries(everyCall)) {
      await fails("INVALID_RESOURCE", () => call(host, "name"), { operation });
    }
  });

  // --- The samples ----------------------------------------------------------------------------------------------------

  test("a client finds its server, and asks it for an answer", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const server = host.datagrams.create();
    host.access.addClientPrivileges(server.handle, host.discovery.lookup(PUBLIC_GROUP_NAME), { allow: ["DG_SEND"] });
    host.discovery.register("HOST INFO", server.handle);
    const client = await guest.datagrams.create();
    const found = await guest.discovery.lookup("HOST INFO");
    await guest.access.addClientPrivileges(client.handle, contextHandle(found.context), { allow: ["DG_SEND"] });
    await client.sendTo(found, new Uint8Array([1, 2]));
    const { source, payload } = await server.receive();
    server.sendTo(source, payload.toReversed());
    assertEquals(await client.receive(), { source: server.handle, payload: new Uint8Array([2, 1]) });
  });
};

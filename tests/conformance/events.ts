/** What a program is told without having asked. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { HOST_CONTEXT, type VmciEvent } from "../../mod.ts";
import { fails, failsSync } from "../support/failure.ts";
import { allow, bytes, type Facet, hostAndGuest, VM } from "./suite.ts";

/** The next so many events. */
async function take(events: AsyncIterator<VmciEvent>, count: number): Promise<VmciEvent[]> {
  const taken: VmciEvent[] = [];
  while (taken.length < count) taken.push((await events.next()).value);
  return taken;
}

/** See the module's comment. */
export const events: Facet = (test, traits) => {
  test("a context is removed when its last process has left", async (fabric) => {
    const host = await fabric.open();
    const events = host.events();
    const [first, second] = [await fabric.join({ contextId: VM }), await fabric.join({ contextId: VM })];
    const other = await fabric.join({ contextId: VM + 1 });
    await first.close();
    await other.close();
    assertEquals((await events.next()).value, { type: "context-removed", context: VM + 1 });
    await second.close();
    assertEquals((await events.next()).value, { type: "context-removed", context: VM });
  });

  test("a handle that was sent to is gone, with what had not been read", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = host.datagrams.create();
    allow(host, mailbox.handle, "DG_SEND");
    const events = await guest.events();
    const sender = await guest.datagrams.create();
    for (const size of [100, 0, 50]) await sender.sendTo(mailbox.handle, new Uint8Array(size));
    mailbox.tryReceive();
    mailbox.close();
    assertEquals((await events.next()).value, {
      type: "datagrams-lost",
      destination: mailbox.handle,
      bytes: 24 + 24 + 50,
    });
    const gone = { type: "resource-gone", resource: "DATAGRAM", handle: mailbox.handle };
    assertEquals((await events.next()).value, gone);
    await fails("INVALID_ARGS", () => sender.sendTo(mailbox.handle, bytes("?")), { handle: mailbox.handle });
  });

  test("nothing is lost where all was read", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = host.datagrams.create();
    allow(host, mailbox.handle, "DG_SEND");
    const events = await guest.events();
    await guest.datagrams.sendTo(mailbox.handle, bytes("read"));
    mailbox.tryReceive();
    mailbox.close();
    const gone = { type: "resource-gone", resource: "DATAGRAM", handle: mailbox.handle };
    assertEquals((await events.next()).value, gone);
  });

  test("a party that leaves takes what it had not read with it", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const theirs = await guest.datagrams.create();
    await guest.access.addClientPrivileges(theirs.handle, { context: HOST_CONTEXT, resource: 0 }, {
      allow: ["DG_SEND"],
    });
    const events = host.events();
    host.datagrams.sendTo(theirs.handle, bytes("unread"));
    await guest.close();
    assertEquals(await take(events, 3), [
      { type: "datagrams-lost", destination: theirs.handle, bytes: 30 },
      { type: "resource-gone", resource: "DATAGRAM", handle: theirs.handle },
      { type: "context-removed", context: VM },
    ]);
  });

  test("who attaches to and detaches from a region is told to the others", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const region = host.sharedMemory.create(1);
    const { handle } = region;
    allow(host, handle, "SM_ATTACH");
    const events = host.events();
    const first = await guest.sharedMemory.attach(handle);
    const second = await guest.sharedMemory.attach(handle);
    await first.detach();
    await second.detach();
    const third = await guest.sharedMemory.attach(handle);
    const theirs = await guest.events();
    region.detach();
    // Its second attachment and first detach change nothing for others: it is there once.
    assertEquals(await take(events, 3), [
      { type: "peer-attached", handle, context: VM },
      { type: "peer-detached", handle, context: VM },
      { type: "peer-attached", handle, context: VM },
    ]);
    assert(await third.attached);
    assertEquals((await theirs.next()).value, { type: "peer-detached", handle, context: HOST_CONTEXT });
    assertEquals((await theirs.next()).value, { type: "resource-gone", resource: "SHAREDMEM", handle });
  });

  test("a right that is withdrawn is told to who used it", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = host.datagrams.create();
    allow(host, mailbox.handle, "DG_SEND");
    const events = await guest.events();
    await guest.datagrams.sendTo(mailbox.handle, bytes("queued"));
    host.access.removeAllClientPrivileges(mailbox.handle, { context: VM, resource: 0 });
    assertEquals((await events.next()).value, { type: "lane-revoked", destination: mailbox.handle });
  });

  if (traits.transfersBuffers) {
    test.alone("a buffer that was transferred away is told when its region is closed", async (fabric) => {
      const host = await fabric.open();
      const events = host.events();
      const region = host.sharedMemory.create(4096);
      region.bytes[0] = 5;
      const moved = structuredClone(region.buffer, { transfer: [region.buffer] });
      region.detach();
      assertEquals((await events.next()).value, { type: "buffer-transferred", handle: region.handle });
      assert(moved.byteLength >= 4096);
      if (traits.enforcesReaders) assertEquals(new Uint8Array(moved)[0], 0);
    });
  } else {
    test.alone("a buffer that cannot be transferred stays what it was", async (fabric) => {
      const host = await fabric.open();
      const region = host.sharedMemory.create(4096);
      const { buffer } = region;
      assertThrows(() => structuredClone(buffer, { transfer: [buffer] }));
      assertThrows(() => buffer.transfer(), TypeError);
      region.bytes[0] = 5;
      assertEquals(new Uint8Array(buffer)[0], 5);
      region.detach();
      assertEquals(buffer.byteLength, 0);
    });
  }

  test.alone("each iterator has all events since it was made", async (fabric) => {
    const host = await fabric.open();
    const early = host.events();
    (await fabric.open({ contextId: VM })).close();
    assertEquals((await early.next()).value, { type: "context-removed", context: VM });
    const late = host.events();
    (await fabric.open({ contextId: VM + 1 })).close();
    for (const events of [early, late]) {
      assertEquals((await events.next()).value, { type: "context-removed", context: VM + 1 });
    }
  });

  test.alone("iterating ends by signal, by leaving the loop and by close", async (fabric) => {
    const host = await fabric.open();
    const controller = new AbortController();
    const aborted = host.events({ signal: controller.signal }).next();
    controller.abort(new RangeError("enough"));
    await assertRejects(() => aborted, RangeError, "enough");
    const left = host.events();
    (await fabric.open({ contextId: VM })).close();
    for await (const event of left) {
      assertEquals(event, { type: "context-removed", context: VM });
      break;
    }
    assertEquals(await left.next(), { done: true, value: undefined });
    const unused = host.events();
    assertEquals(await unused.return?.(), { done: true, value: undefined });
    assertEquals(await unused.next(), { done: true, value: undefined });
    const closed = host.events().next();
    host.close();
    assertEquals(await closed, { done: true, value: undefined });
    failsSync("INVALID_RESOURCE", () => host.events(), { operation: "events" });
  });

  if (!traits.processes) return;

  test("a killed process is told as one that left", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(1);
    allow(host, region.handle, "SM_ATTACH");
    const agent = fabric.spawn();
    const guest = await agent.scenes.open({ device: fabric.device, contextId: VM });
    const theirs = await guest.datagrams.create();
    await guest.access.addClientPrivileges(theirs.handle, { context: HOST_CONTEXT, resource: 0 }, {
      allow: ["DG_SEND"],
    });
    await guest.sharedMemory.attach(region.handle);
    const events = host.events();
    host.datagrams.sendTo(theirs.handle, bytes("unread"));
    await agent.kill();
    const { handle } = region;
    const expected: VmciEvent[] = [
      { type: "context-removed", context: VM },
      { type: "datagrams-lost", destination: theirs.handle, bytes: 30 },
      { type: "peer-detached", handle, context: VM },
      { type: "resource-gone", resource: "DATAGRAM", handle: theirs.handle },
    ];
    const told = await take(events, expected.length);
    assertEquals(told.toSorted((a, b) => a.type < b.type ? -1 : 1), expected);
  });

  test("another broker is told, and what was lost with the one before", async (fabric) => {
    const agent = fabric.spawn();
    const first = await agent.scenes.open({ device: fabric.device, contextId: VM });
    assertEquals(await first.contextId, VM);
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const events = host.events();
    await agent.kill();
    const told = await take(events, 2);
    assertEquals(told.toSorted((a, b) => a.type < b.type ? -1 : 1), [
      { type: "broker-changed", pid: Deno.pid, lost: [] },
      { type: "context-removed", context: VM },
    ]);
    endpoint.sendTo(endpoint.handle, bytes("still here"));
  });
};

/** Datagrams: CreateHnd, DestroyHnd, SendTo and RecvFrom. */

import {
  assert,
  assertEquals,
  assertFalse,
  assertGreaterOrEqual,
  assertNotEquals,
  assertStrictEquals,
} from "@std/assert";
import {
  contextHandle,
  DATAGRAM_HEADER_SIZE,
  DATAGRAM_QUEUE_SIZE,
  type DatagramEndpoint,
  type ErrorCodeName,
  FIRST_DYNAMIC_RESOURCE,
  type Handle,
  HOST_CONTEXT,
  INVALID_HANDLE,
  INVALID_ID,
  makeHandle,
  MAX_PAYLOAD_SIZE,
  PrivilegeFlags,
  type Vmci,
  WELL_KNOWN_CONTEXT,
} from "../../mod.ts";
import { fails, failsSync } from "../support/failure.ts";
import type { Remote } from "../support/remote.ts";
import { patterned } from "../support/scenes.ts";
import { allow, bytes, type Facet, hostAndGuest, type Party, reasonOf, text, VM } from "./suite.ts";

const HOST = contextHandle(HOST_CONTEXT);

/** Milliseconds that who turns no event loop waits at most: nobody could tell him that what he waits for was lost. */
const LONG_ENOUGH = 30_000;

/** A handle of the host's that the guest may send to. */
function mailboxOf(host: Vmci): DatagramEndpoint {
  const mailbox = host.datagrams.create();
  allow(host, mailbox.handle, "DG_SEND");
  return mailbox;
}

/** A handle of the guest's that the host may send to. */
async function mailboxOfGuest(guest: Party): Promise<Remote<DatagramEndpoint>> {
  const mailbox = await guest.datagrams.create();
  await guest.access.addClientPrivileges(mailbox.handle, HOST, { allow: ["DG_SEND"] });
  return mailbox;
}

/** All that waits in a mailbox, as texts. */
function drained(mailbox: DatagramEndpoint): string[] {
  const texts: string[] = [];
  for (let it = mailbox.tryReceive(); it !== undefined; it = mailbox.tryReceive()) texts.push(text(it.payload));
  return texts;
}

/** Sends datagrams of the largest size until there is no room for another. */
function fill(sender: DatagramEndpoint, destination: Handle): void {
  const payload = new Uint8Array(MAX_PAYLOAD_SIZE);
  while (sender.hasRoom(destination, MAX_PAYLOAD_SIZE)) sender.sendTo(destination, payload);
}

/** Everything an endpoint can be asked to do, by name. */
const everyCall: Readonly<Record<string, (endpoint: DatagramEndpoint) => unknown>> = {
  sendTo: (it) => it.sendTo(it.handle, new Uint8Array(1)),
  hasRoom: (it) => it.hasRoom(it.handle, 1),
  room: (it) => it.room(it.handle, 1),
  roomSync: (it) => it.roomSync(it.handle, 1),
  receive: (it) => it.receive(),
  receiveSync: (it) => it.receiveSync(),
  tryReceive: (it) => it.tryReceive(),
  receiveInto: (it) => it.receiveInto(new Uint8Array(1)),
  receiveIntoSync: (it) => it.receiveIntoSync(new Uint8Array(1)),
  tryReceiveInto: (it) => it.tryReceiveInto(new Uint8Array(1)),
};

/** See the module's comment. */
export const datagrams: Facet = (test, traits) => {
  // --- Handles --------------------------------------------------------------------------------------------------------

  test("a handle is of the creator's context, with an id that was never given", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mine = host.datagrams.create().handle;
    const theirs = (await guest.datagrams.create()).handle;
    assertEquals([mine.context, theirs.context], [HOST_CONTEXT, VM]);
    assertGreaterOrEqual(mine.resource, FIRST_DYNAMIC_RESOURCE);
    const seen = new Set([mine.resource, theirs.resource]);
    for (let i = 0; i < 20; i++) {
      using endpoint = host.datagrams.create();
      seen.add(endpoint.handle.resource);
    }
    assertEquals(seen.size, 22);
  });

  test("a well-known handle is in context 1 and reaches its owner", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const endpoint = host.datagrams.create({ wellKnown: 5000 });
    assertEquals(endpoint.handle, { context: WELL_KNOWN_CONTEXT, resource: 5000 });
    allow(host, endpoint.handle, "DG_SEND");
    const client = await guest.datagrams.create();
    await client.sendTo(endpoint.handle, bytes("found"));
    assertEquals(await endpoint.receive(), { source: client.handle, payload: bytes("found") });
  });

  test("a well-known handle can be a source", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const service = await guest.datagrams.create({ wellKnown: 5001 });
    await service.sendTo(mailbox.handle, bytes("from a service"));
    assertEquals((await mailbox.receive()).source, { context: WELL_KNOWN_CONTEXT, resource: 5001 });
  });

  test("a well-known id goes to who asks first, until he closes it", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const first = host.datagrams.create({ wellKnown: 7000 });
    failsSync("DUPLICATE_ENTRY", () => host.datagrams.create({ wellKnown: 7000 }), { operation: "datagrams.create" });
    await fails("DUPLICATE_ENTRY", () => guest.datagrams.create({ wellKnown: 7000 }));
    first.close();
    assertEquals((await guest.datagrams.create({ wellKnown: 7000 })).handle, makeHandle(WELL_KNOWN_CONTEXT, 7000));
  });

  test("reserved well-known ids are for TRUSTED contexts, none are for RESTRICTED ones", async (fabric) => {
    const host = await fabric.open();
    for (const wellKnown of [0, 1, 1023]) failsSync("NO_ACCESS", () => host.datagrams.create({ wellKnown }));
    const trusted = await fabric.join({ contextId: VM, privilegeFlags: PrivilegeFlags.TRUSTED });
    assertEquals((await trusted.datagrams.create({ wellKnown: 1 })).handle, { context: 1, resource: 1 });
    const restricted = await fabric.join({ contextId: VM + 1, privilegeFlags: PrivilegeFlags.RESTRICTED });
    await fails("NO_ACCESS", () => restricted.datagrams.create({ wellKnown: 5000 }));
    assertEquals((await restricted.datagrams.create()).handle.context, VM + 1);
  });

  test.alone("a well-known id must be an id", async (fabric) => {
    const host = await fabric.open();
    for (const wellKnown of [INVALID_ID, -1, 1.5, NaN, 2 ** 32]) {
      failsSync("INVALID_ARGS", () => host.datagrams.create({ wellKnown }), { operation: "datagrams.create" });
    }
  });

  test.alone("destroying by handle closes the endpoint and ends its waits", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const waiting = fails("INVALID_RESOURCE", () => endpoint.receive());
    host.datagrams.destroy(endpoint.handle);
    await waiting;
    assert(endpoint.closed);
    failsSync("NOT_FOUND", () => host.datagrams.destroy(endpoint.handle), {
      operation: "datagrams.destroy",
      handle: endpoint.handle,
    });
  });

  test.alone("only datagram handles are destroyed so", async (fabric) => {
    const host = await fabric.open();
    const region = host.sharedMemory.create(1);
    failsSync("NOT_FOUND", () => host.datagrams.destroy(region.handle));
    failsSync("NOT_FOUND", () => host.datagrams.destroy(host.access.publicGroup));
    failsSync("NOT_FOUND", () => host.datagrams.destroy(INVALID_HANDLE));
    failsSync("INVALID_ARGS", () => host.datagrams.destroy({ context: 2 } as Handle));
    assert(region.attached);
  });

  // --- Sending --------------------------------------------------------------------------------------------------------

  test("a datagram arrives whole, with its source; sending gives the payload's size", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    assertEquals(await sender.sendTo(mailbox.handle, bytes("hello")), 5);
    assertEquals(await mailbox.receive(), { source: sender.handle, payload: bytes("hello") });
  });

  test("the answer to a source arrives", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const client = await guest.datagrams.create();
    await client.sendTo(mailbox.handle, bytes("ping"));
    const { source } = await mailbox.receive();
    failsSync("NO_ACCESS", () => mailbox.sendTo(source, bytes("pong")), { operation: "sendTo", handle: source });
    await guest.access.addClientPrivileges(client.handle, HOST, { allow: ["DG_SEND"] });
    const answer = client.receive();
    mailbox.sendTo(source, bytes("pong"));
    assertEquals(await answer, { source: mailbox.handle, payload: bytes("pong") });
  });

  test.alone("a datagram to oneself arrives", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    endpoint.sendTo(endpoint.handle, bytes("me"));
    assertEquals(await endpoint.receive(), { source: endpoint.handle, payload: bytes("me") });
  });

  test("a datagram of an anonymous source has the invalid handle", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    assertEquals(await guest.datagrams.sendTo(mailbox.handle, bytes("psst")), 4);
    assertEquals(await mailbox.receive(), { source: INVALID_HANDLE, payload: bytes("psst") });
    failsSync("INVALID_ARGS", () => host.datagrams.sendTo(INVALID_HANDLE, bytes("psst")));
  });

  test("a payload has 0 to 69608 bytes", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    const largest = new Uint8Array(MAX_PAYLOAD_SIZE).fill(7);
    assertEquals(await sender.sendTo(mailbox.handle, new Uint8Array(0)), 0);
    assertEquals(await sender.sendTo(mailbox.handle, largest), 69608);
    await fails("INVALID_ARGS", () => sender.sendTo(mailbox.handle, new Uint8Array(69609)), {
      operation: "sendTo",
      handle: mailbox.handle,
    });
    assertEquals((await mailbox.receive()).payload, new Uint8Array(0));
    assertEquals((await mailbox.receive()).payload, largest);
    assertEquals(mailbox.tryReceive(), undefined);
  });

  test.alone("the payload is copied on both sides", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const payload = bytes("before after");
    endpoint.sendTo(endpoint.handle, payload.subarray(0, 6));
    payload.fill(0);
    const first = endpoint.tryReceive()!.payload;
    endpoint.sendTo(endpoint.handle, bytes("others"));
    assertEquals(text(first), "before");
  });

  test.alone("each payload is its own, and one that is transferred takes none along that is still to come", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    // Of each size so many that they fill more than what small ones share.
    const sizes = [0, 1, 7, 8, 64, 127, 128, 129, 5000].flatMap((size) => Array<number>(20).fill(size));
    const received = sizes.map((size, i) => {
      endpoint.sendTo(endpoint.handle, new Uint8Array(size).fill(i));
      return endpoint.tryReceive()!.payload;
    });
    for (const payload of received) assertEquals(payload.byteOffset % 8, 0);
    assertEquals(received, sizes.map((size, i) => new Uint8Array(size).fill(i)));
    // One that is waited for already has its place.
    const [before, next] = [endpoint.receive(), endpoint.receive()];
    endpoint.sendTo(endpoint.handle, new Uint8Array(64).fill(1));
    const { payload } = await before;
    structuredClone(payload.buffer, { transfer: [payload.buffer] });
    assertEquals(payload.length, 0);
    endpoint.sendTo(endpoint.handle, new Uint8Array(64).fill(2));
    assertEquals((await next).payload, new Uint8Array(64).fill(2));
  });

  test("where a datagram cannot go", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const sender = host.datagrams.create();
    const region = host.sharedMemory.create(1);
    const gone = host.datagrams.create();
    gone.close();
    const cases: readonly [ErrorCodeName, what: string, Handle][] = [
      ["DST_UNREACHABLE", "the hypervisor", makeHandle(0, 5)],
      ["DST_UNREACHABLE", "a well-known handle that nobody owns", makeHandle(1, 9999)],
      ["INVALID_ARGS", "a handle the host never had", makeHandle(2, 0xFFFF_0000)],
      ["INVALID_ARGS", "a handle the host no longer has", gone.handle],
      ["INVALID_ARGS", "a region", region.handle],
      ["INVALID_ARGS", "a group", host.access.publicGroup],
      ["INVALID_ARGS", "a context itself", contextHandle(await guest.contextId)],
      ["INVALID_ARGS", "a handle that a virtual machine does not have", makeHandle(VM, 5000)],
      ["INVALID_ARGS", "a virtual machine that is not there", makeHandle(4711, 5000)],
      ["INVALID_ARGS", "a reserved context", makeHandle(3, 5000)],
      ["INVALID_ARGS", "the invalid handle", INVALID_HANDLE],
    ];
    for (const [code, , handle] of cases) {
      failsSync(code, () => sender.sendTo(handle, bytes("?")), { operation: "sendTo", handle });
      failsSync(code, () => sender.hasRoom(handle, 1), { operation: "hasRoom", handle });
      await fails(code, () => sender.room(handle, 1), { operation: "room", handle });
      failsSync(code, () => host.datagrams.sendTo(handle, bytes("?")), { operation: "datagrams.sendTo", handle });
    }
    for (const malformed of [{}, { context: 2 }, { context: 2, resource: -1 }, { context: 2, resource: 0.5 }]) {
      failsSync("INVALID_ARGS", () => sender.sendTo(malformed as Handle, bytes("?")));
    }
  });

  test("without DG_SEND, another context's datagram is refused", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const closed = host.datagrams.create();
    const sender = await guest.datagrams.create();
    await fails("NO_ACCESS", () => sender.sendTo(closed.handle, bytes("?")), { handle: closed.handle });
    await fails("NO_ACCESS", () => guest.datagrams.sendTo(closed.handle, bytes("?")), { handle: closed.handle });
    assertEquals(closed.tryReceive(), undefined);
  });

  // --- The queue ------------------------------------------------------------------------------------------------------

  test("each source's datagrams arrive in its order", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const senders = [await guest.datagrams.create(), await guest.datagrams.create(), host.datagrams.create()];
    for (let i = 0; i < 30; i++) await senders[(i * i) % 3]!.sendTo(mailbox.handle, bytes(`${(i * i) % 3}/${i}`));
    const arrived = drained(mailbox);
    assertEquals(arrived.length, 30);
    for (const sender of ["0", "1", "2"]) {
      const numbers = arrived.filter((it) => it.startsWith(sender)).map((it) => Number(it.slice(2)));
      assertEquals(numbers, numbers.toSorted((a, b) => a - b));
    }
  });

  test("what is sent again after the right came back follows what was sent before, also over a lane left empty", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = host.datagrams.create();
    const theirs = await guest.datagrams.create();
    const vm = contextHandle(VM);
    for (let i = 0; i < 12; i++) {
      allow(host, mailbox.handle, "DG_SEND");
      // Every third lane ends with nothing in it.
      if (i % 3 === 1) assert(await theirs.hasRoom(mailbox.handle, 1));
      else for (let n = 0; n < 5; n++) await theirs.sendTo(mailbox.handle, bytes(`${10 * i + n}`));
      host.access.removeClientPrivileges(mailbox.handle, vm, ["DG_SEND"]);
    }
    const arrived = drained(mailbox).map(Number);
    assertEquals(arrived.length, 40);
    assertEquals(arrived, arrived.toSorted((a, b) => a - b));
  });

  test("senders are served in turn, however much one has queued", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const senders = [await guest.datagrams.create(), await guest.datagrams.create(), host.datagrams.create()];
    for (let i = 0; i < 50; i++) await senders[0]!.sendTo(mailbox.handle, bytes("0"));
    for (let i = 0; i < 4; i++) await senders[1]!.sendTo(mailbox.handle, bytes("1"));
    for (let i = 0; i < 4; i++) await senders[2]!.sendTo(mailbox.handle, bytes("2"));
    const arrived = drained(mailbox);
    // A turn is a few datagrams.
    assertEquals(arrived.slice(0, 16).filter((text) => text !== "0").length, 8);
    assertEquals(arrived.length, 58);
  });

  test("a datagram that would reach the budget of 139264 bytes is refused", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    await sender.sendTo(mailbox.handle, new Uint8Array(MAX_PAYLOAD_SIZE));
    const left = DATAGRAM_QUEUE_SIZE - (DATAGRAM_HEADER_SIZE + MAX_PAYLOAD_SIZE) - DATAGRAM_HEADER_SIZE;
    assertFalse(await sender.hasRoom(mailbox.handle, left));
    await fails("NO_RESOURCES", () => sender.sendTo(mailbox.handle, new Uint8Array(left)), { handle: mailbox.handle });
    assert(await sender.hasRoom(mailbox.handle, left - 1));
    await sender.sendTo(mailbox.handle, new Uint8Array(left - 1));
    // One byte of the budget is left, and a datagram without payload costs 24.
    await fails("NO_RESOURCES", () => sender.sendTo(mailbox.handle, new Uint8Array(0)));
    assertEquals((await mailbox.receive()).payload.length, MAX_PAYLOAD_SIZE);
    await sender.sendTo(mailbox.handle, new Uint8Array(left));
    assertEquals((await mailbox.receive()).payload.length, left - 1);
    assertEquals((await mailbox.receive()).payload.length, left);
  });

  test.alone("datagrams without payload count 24 bytes each", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const most = Math.ceil(DATAGRAM_QUEUE_SIZE / DATAGRAM_HEADER_SIZE) - 1;
    for (let i = 0; i < most; i++) endpoint.sendTo(endpoint.handle, new Uint8Array(0));
    failsSync("NO_RESOURCES", () => endpoint.sendTo(endpoint.handle, new Uint8Array(0)));
    assertEquals(drained(endpoint).length, most);
  });

  test("the budget is each sender's own", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const full = host.datagrams.create();
    fill(full, mailbox.handle);
    failsSync("NO_RESOURCES", () => full.sendTo(mailbox.handle, new Uint8Array(MAX_PAYLOAD_SIZE)));
    assertEquals(await guest.datagrams.sendTo(mailbox.handle, bytes("me too")), 6);
    assertEquals(host.datagrams.create().sendTo(mailbox.handle, bytes("me too")), 6);
  });

  test("a buffer too small is NO_MEM, and that datagram stays the next one", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    await sender.sendTo(mailbox.handle, bytes("too long"));
    await sender.sendTo(mailbox.handle, bytes("b"));
    host.datagrams.create().sendTo(mailbox.handle, bytes("c"));
    const small = new Uint8Array(7);
    const expected = { handle: mailbox.handle };
    failsSync("NO_MEM", () => mailbox.tryReceiveInto(small), { ...expected, operation: "tryReceiveInto" });
    failsSync("NO_MEM", () => mailbox.receiveIntoSync(small), { ...expected, operation: "receiveIntoSync" });
    await fails("NO_MEM", () => mailbox.receiveInto(small), { ...expected, operation: "receiveInto" });
    assertEquals(small, new Uint8Array(7));
    const enough = new Uint8Array(8);
    assertEquals(mailbox.tryReceiveInto(enough), 8);
    assertEquals(text(enough), "too long");
    assertEquals(drained(mailbox).toSorted(), ["b", "c"]);
  });

  test("whatever the sizes, all arrives in order and intact", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    const receiving = async () => {
      for (let i = 1; i <= 300; i++) {
        const { payload } = await mailbox.receive();
        assertEquals(payload, patterned(i, MAX_PAYLOAD_SIZE));
      }
    };
    // When sending fails there is nothing more to receive.
    await Promise.all([receiving(), fabric.scenes.sendPatterned(sender, mailbox.handle, 300)]);
    assertEquals(mailbox.tryReceive(), undefined);
  });

  // --- Room -----------------------------------------------------------------------------------------------------------

  test("who waits for room goes on when the receiver has read", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const theirs = await mailboxOfGuest(guest);
    const sender = host.datagrams.create();
    fill(sender, theirs.handle);
    const waiting = sender.room(theirs.handle, MAX_PAYLOAD_SIZE).then(() => "room");
    assertEquals((await theirs.receive()).payload.length, MAX_PAYLOAD_SIZE);
    assertEquals(await waiting, "room");
    assertEquals(sender.sendTo(theirs.handle, new Uint8Array(MAX_PAYLOAD_SIZE)), MAX_PAYLOAD_SIZE);
  });

  test("a wait for room ends by time, signal, close and revocation", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const theirs = await mailboxOfGuest(guest);
    const sender = host.datagrams.create();
    const room = (options?: { timeout?: number; signal?: AbortSignal }) => {
      fill(sender, theirs.handle);
      return sender.room(theirs.handle, MAX_PAYLOAD_SIZE, options);
    };
    await fails("TIMEOUT", () => room({ timeout: 1 }), { operation: "room" });
    const controller = new AbortController();
    const aborted = reasonOf(room({ signal: controller.signal }));
    controller.abort("enough");
    assertEquals(await aborted, "enough");
    const revoked = fails("NO_ACCESS", () => room(), { operation: "room", handle: theirs.handle });
    await guest.access.removeAllClientPrivileges(theirs.handle, HOST);
    await revoked;
    await guest.access.addClientPrivileges(theirs.handle, HOST, { allow: ["DG_SEND"] });
    const lost = fails("DST_UNREACHABLE", () => room(), { operation: "room", handle: theirs.handle });
    await theirs.close();
    await lost;
    const own = host.datagrams.create();
    fill(sender, own.handle);
    const closed = fails("INVALID_RESOURCE", () => sender.room(own.handle, MAX_PAYLOAD_SIZE));
    sender.close();
    await closed;
  });

  test.alone("room is asked for in bytes of payload", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    for (const size of [-1, 0.5, NaN, MAX_PAYLOAD_SIZE + 1]) {
      failsSync("INVALID_ARGS", () => endpoint.hasRoom(endpoint.handle, size), { operation: "hasRoom" });
      failsSync("INVALID_ARGS", () => endpoint.roomSync(endpoint.handle, size), { operation: "roomSync" });
      await fails("INVALID_ARGS", () => endpoint.room(endpoint.handle, size), { operation: "room" });
    }
    assert(endpoint.hasRoom(endpoint.handle, 0));
    endpoint.roomSync(endpoint.handle, MAX_PAYLOAD_SIZE);
  });

  test.alone("waiting for room without turning the event loop", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    fill(endpoint, endpoint.handle);
    const wait = () => endpoint.roomSync(endpoint.handle, MAX_PAYLOAD_SIZE, 1);
    failsSync(traits.concurrent ? "TIMEOUT" : "WOULD_BLOCK", wait, { operation: "roomSync" });
    endpoint.tryReceive();
    wait();
  });

  // --- Receiving ------------------------------------------------------------------------------------------------------

  test("a receive that waits gets what comes later", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const received = mailbox.receive();
    await guest.datagrams.sendTo(mailbox.handle, bytes("late"));
    assertEquals(text((await received).payload), "late");
  });

  test("several receives get one datagram each, in order", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const received = [mailbox.receive(), mailbox.receive(), mailbox.receive()];
    const sender = await guest.datagrams.create();
    for (const letter of ["a", "b", "c"]) await sender.sendTo(mailbox.handle, bytes(letter));
    assertEquals((await Promise.all(received)).map(({ payload }) => text(payload)), ["a", "b", "c"]);
  });

  test("a receive into a buffer fills its start and tells the source", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    const buffer = new Uint8Array(4).fill(9);
    assertEquals(mailbox.source, INVALID_HANDLE);
    assertEquals(mailbox.tryReceiveInto(buffer), undefined);
    const later = mailbox.receiveInto(buffer);
    await sender.sendTo(mailbox.handle, bytes("ab"));
    assertEquals(await later, 2);
    assertEquals([buffer, mailbox.source], [new Uint8Array([97, 98, 9, 9]), sender.handle]);
    await guest.datagrams.sendTo(mailbox.handle, bytes("xyz"));
    assertEquals(mailbox.receiveIntoSync(buffer, LONG_ENOUGH), 3);
    assertEquals([text(buffer), mailbox.source], ["xyz\t", INVALID_HANDLE]);
    await sender.sendTo(mailbox.handle, bytes("1"));
    assertEquals(mailbox.tryReceiveInto(buffer), 1);
    assertEquals(mailbox.source, sender.handle);
    assertEquals(mailbox.tryReceiveInto(buffer), undefined);
  });

  test.alone("a datagram without payload is received into an empty buffer", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    endpoint.sendTo(endpoint.handle, new Uint8Array(0));
    assertEquals(endpoint.tryReceiveInto(new Uint8Array(0)), 0);
    assertEquals(endpoint.tryReceiveInto(new Uint8Array(0)), undefined);
  });

  test.alone("a receive ends by time and by signal, and loses nothing", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    await fails("TIMEOUT", () => endpoint.receive({ timeout: 1 }), { operation: "receive" });
    await fails("TIMEOUT", () => endpoint.receiveInto(new Uint8Array(9), { timeout: 1 }), { operation: "receiveInto" });
    const controller = new AbortController();
    const reason = new Error("no longer");
    const aborted = reasonOf(endpoint.receive({ signal: controller.signal }));
    controller.abort(reason);
    endpoint.sendTo(endpoint.handle, bytes("kept"));
    assertStrictEquals(await aborted, reason);
    assertStrictEquals(await reasonOf(endpoint.receive({ signal: controller.signal })), reason);
    assertEquals(drained(endpoint), ["kept"]);
  });

  test.alone("what is there comes without waiting, whatever the timeout", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    for (const letter of ["a", "b", "c", "d"]) endpoint.sendTo(endpoint.handle, bytes(letter));
    assertEquals(text((await endpoint.receive({ timeout: 0 })).payload), "a");
    assertEquals(text(endpoint.receiveSync(0).payload), "b");
    assertEquals(text(endpoint.receiveSync().payload), "c");
    assertEquals(endpoint.receiveIntoSync(new Uint8Array(1), 0), 1);
  });

  test.alone("receiving without turning the event loop", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const code = traits.concurrent ? "TIMEOUT" : "WOULD_BLOCK";
    failsSync(code, () => endpoint.receiveSync(1), { operation: "receiveSync" });
    failsSync(code, () => endpoint.receiveIntoSync(new Uint8Array(1), 1), { operation: "receiveIntoSync" });
  });

  test("iterating gives what comes, until the endpoint is closed", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { payload } of mailbox) {
        if (seen.push(text(payload)) === 2) mailbox.close();
      }
      return "end";
    })();
    const sender = await guest.datagrams.create();
    await sender.sendTo(mailbox.handle, bytes("a"));
    await sender.sendTo(mailbox.handle, bytes("b"));
    assertEquals([await reading, seen], ["end", ["a", "b"]]);
  });

  test.alone("an iterator that waits ends when the endpoint or its Vmci is closed", async (fabric) => {
    const host = await fabric.open();
    for (const close of [(endpoint: DatagramEndpoint) => endpoint.close(), () => host.close()]) {
      const endpoint = host.datagrams.create();
      const end = endpoint[Symbol.asyncIterator]().next();
      close(endpoint);
      assertEquals(await end, { done: true, value: undefined });
    }
  });

  test.alone("several iterators share the datagrams between them", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const seen: string[] = [];
    const read = async () => {
      for await (const { payload } of endpoint) if (seen.push(text(payload)) === 6) endpoint.close();
    };
    const reading = [read(), read()];
    for (const letter of "abcdef") endpoint.sendTo(endpoint.handle, bytes(letter));
    await Promise.all(reading);
    assertEquals(seen.toSorted().join(""), "abcdef");
  });

  // --- Closing --------------------------------------------------------------------------------------------------------

  test.alone("closing drops what is queued and ends every wait", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const waits = [
      fails("INVALID_RESOURCE", () => endpoint.receive(), { operation: "receive", handle: endpoint.handle }),
      fails("INVALID_RESOURCE", () => endpoint.receiveInto(new Uint8Array(1)), { handle: endpoint.handle }),
    ];
    endpoint.close();
    endpoint.close();
    await Promise.all(waits);
    assert(endpoint.closed);
  });

  test.alone("nothing works on a closed endpoint", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    endpoint.sendTo(endpoint.handle, bytes("dropped"));
    endpoint.close();
    for (const [operation, call] of Object.entries(everyCall)) {
      await fails("INVALID_RESOURCE", () => call(endpoint), { operation, handle: endpoint.handle });
    }
  });

  test.alone("nothing works on an endpoint of a closed Vmci", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    host.close();
    assert(endpoint.closed);
    for (const [operation, call] of Object.entries(everyCall)) {
      await fails("INVALID_RESOURCE", () => call(endpoint), { operation, handle: endpoint.handle });
    }
    failsSync("INVALID_RESOURCE", () => host.datagrams.create(), { operation: "datagrams.create" });
    failsSync("INVALID_RESOURCE", () => host.datagrams.sendTo(endpoint.handle, bytes("?")));
    failsSync("INVALID_RESOURCE", () => host.datagrams.destroy(endpoint.handle));
    endpoint.close();
  });

  test.alone("an endpoint declared with using is closed at the end", async (fabric) => {
    const host = await fabric.open();
    let handle: Handle;
    {
      using endpoint = host.datagrams.create();
      handle = endpoint.handle;
    }
    failsSync("INVALID_ARGS", () => host.datagrams.sendTo(handle, bytes("?")));
    assertNotEquals(host.datagrams.create().handle, handle);
  });

  test("what a closed source had sent is still delivered", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = mailboxOf(host);
    const sender = await guest.datagrams.create();
    for (const letter of ["a", "b"]) await sender.sendTo(mailbox.handle, bytes(letter));
    await sender.close();
    assertEquals(await mailbox.receive(), { source: sender.handle, payload: bytes("a") });
    assertEquals(text((await mailbox.receive()).payload), "b");
  });

  test("what a party had sent that has left is still delivered", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const events = host.events();
    const mailbox = mailboxOf(host);
    const other = await guest.datagrams.create();
    for (let i = 0; i < 5; i++) await other.sendTo(mailbox.handle, bytes(`${i}`));
    await guest.datagrams.sendTo(mailbox.handle, bytes("anonymous"));
    await guest.close();
    assertEquals((await events.next()).value, { type: "context-removed", context: VM });
    assertEquals(drained(mailbox).toSorted(), ["0", "1", "2", "3", "4", "anonymous"]);
  });

  // --- Between processes ----------------------------------------------------------------------------------------------

  if (!traits.processes) return;

  test("what a killed sender had sent is still delivered", async (fabric) => {
    const host = await fabric.open();
    const mailbox = mailboxOf(host);
    const agent = fabric.spawn();
    const guest = await agent.scenes.open({ device: fabric.device, contextId: VM });
    const sender = await guest.datagrams.create();
    for (let i = 0; i < 100; i++) await sender.sendTo(mailbox.handle, bytes(`${i}`));
    const events = host.events();
    await agent.kill();
    assertEquals((await events.next()).value, { type: "context-removed", context: VM });
    assertEquals(drained(mailbox), Array.from({ length: 100 }, (_, i) => `${i}`));
  });

  for (const spin of [0, 20]) {
    test(`two threads that never turn their event loop talk (spin: ${spin})`, async (fabric) => {
      const host = await fabric.open({ spin });
      const guest = await fabric.join({ contextId: VM, spin });
      const mailbox = mailboxOf(host);
      const theirs = await mailboxOfGuest(guest);
      const echoing = fabric.scenes.echoSync(theirs, traits.many / 2);
      for (let i = 0; i < traits.many / 2; i++) {
        mailbox.sendTo(theirs.handle, bytes(`${i}`));
        const { source, payload } = i % 2 === 0 ? await mailbox.receive() : mailbox.receiveSync(LONG_ENOUGH);
        assertEquals([source, text(payload)], [theirs.handle, `${i}`]);
      }
      await echoing;
    });
  }

  test("room comes to a thread that waits without turning its event loop", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const theirs = await mailboxOfGuest(guest);
    const sender = host.datagrams.create();
    const mailbox = mailboxOf(host);
    const taken = fabric.scenes.takeSync(theirs, 50, mailbox.handle);
    await mailbox.receive();
    for (let i = 0; i < 50; i++) {
      sender.roomSync(theirs.handle, MAX_PAYLOAD_SIZE, LONG_ENOUGH);
      sender.sendTo(theirs.handle, new Uint8Array(MAX_PAYLOAD_SIZE));
    }
    assertEquals(await taken, 50 * MAX_PAYLOAD_SIZE);
  });
};

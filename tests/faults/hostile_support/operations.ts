/**
 * Everything that a program does with a fabric, each in one piece that leaves nothing behind.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  contextHandle,
  type DatagramEndpoint,
  type Handle,
  openVmci,
  type Vmci,
  type VmciEvent,
} from "../../../mod.ts";

/** Whom an operation is done by: two who are in the fabric all the time. */
export interface Parties {
  readonly device: string;
  readonly host: Vmci;
  readonly guest: Vmci;
}

/**
 * Milliseconds after which what should have come is taken for lost. (What its receiver has no memory to map is: the
 * sender hears of it.)
 */
const PATIENCE = 10_000;

/** The context of the guest. */
export const GUEST = 16;

/** One operation. */
export type Operation = (parties: Parties) => void | Promise<void>;

/** An endpoint of the host's that the guest may send to, and one of the guest's. */
function ends(
  { host, guest }: Parties,
): Disposable & { readonly to: DatagramEndpoint; readonly from: DatagramEndpoint } {
  using stack = new DisposableStack();
  const to = stack.use(host.datagrams.create());
  host.access.addClientPrivileges(to.handle, contextHandle(GUEST), { allow: ["DG_SEND"] });
  const from = stack.use(guest.datagrams.create());
  const kept = stack.move();
  return { to, from, [Symbol.dispose]: () => kept.dispose() };
}

function allowAttach(host: Vmci, region: Handle): void {
  host.access.addClientPrivileges(region, contextHandle(GUEST), { allow: ["SM_ATTACH"] });
}

/** Takes events until one is of that type. */
async function eventOf(events: AsyncIterator<VmciEvent>, type: VmciEvent["type"]): Promise<void> {
  for (;;) {
    const { value, done } = await events.next();
    if (done || value.type === type) return;
  }
}

/** By name. */
export const operations: Readonly<Record<string, Operation>> = {
  "join and leave": async ({ device }) => {
    await using vmci = await openVmci({ device, contextId: 17, timeout: PATIENCE, spin: 0 });
    assertEquals(vmci.contextId, 17);
  },
  "make and destroy an endpoint": ({ host }) => {
    using endpoint = host.datagrams.create();
    assert(endpoint.handle.resource >= 1024);
  },
  "make and destroy a well-known endpoint": ({ host }) => {
    using endpoint = host.datagrams.create({ wellKnown: 7777 });
    assertEquals(endpoint.handle, { context: 1, resource: 7777 });
  },
  "send and receive": (parties) => {
    using pair = ends(parties);
    for (const length of [0, 8, 5000]) {
      pair.from.sendTo(pair.to.handle, new Uint8Array(length).fill(7));
      const { source, payload } = pair.to.receiveSync(PATIENCE);
      assertEquals([source, payload], [pair.from.handle, new Uint8Array(length).fill(7)]);
    }
  },
  "send to oneself": ({ host }) => {
    using endpoint = host.datagrams.create();
    endpoint.sendTo(endpoint.handle, new Uint8Array([1, 2]));
    assertEquals(endpoint.receiveSync(PATIENCE).payload, new Uint8Array([1, 2]));
  },
  "be rung while parked": async (parties) => {
    using pair = ends(parties);
    for (let round = 0; round < 2; round++) {
      const received = pair.to.receive({ timeout: PATIENCE });
      received.catch(() => {});
      pair.from.sendTo(pair.to.handle, new Uint8Array([round]));
      assertEquals((await received).payload[0], round);
    }
  },
  "wait for room": async (parties) => {
    using pair = ends(parties);
    const payload = new Uint8Array(65536);
    while (pair.from.hasRoom(pair.to.handle, payload.length)) pair.from.sendTo(pair.to.handle, payload);
    const room = pair.from.room(pair.to.handle, payload.length, { timeout: PATIENCE });
    room.catch(() => {});
    pair.to.receiveSync(PATIENCE);
    await room;
    pair.from.sendTo(pair.to.handle, payload);
  },
  "withdraw the right to send": (parties) => {
    using pair = ends(parties);
    pair.from.sendTo(pair.to.handle, new Uint8Array(1));
    parties.host.access.removeAllClientPrivileges(pair.to.handle, contextHandle(GUEST));
    assertEquals(pair.to.receiveSync(PATIENCE).payload.length, 1);
  },
  "share a region": ({ host, guest }) => {
    using region = host.sharedMemory.create(8192);
    allowAttach(host, region.handle);
    using attached = guest.sharedMemory.attach(region.handle);
    attached.bytes[8191] = 9;
    assertEquals(region.bytes[8191], 9);
    assertEquals(guest.sharedMemory.query(region.handle), 8192);
  },
  "share a region that only its creator writes": ({ host, guest }) => {
    using region = host.sharedMemory.create(5000, { writers: "creator" });
    allowAttach(host, region.handle);
    using first = guest.sharedMemory.attach(region.handle);
    using second = guest.sharedMemory.attach(region.handle);
    using own = host.sharedMemory.attach(region.handle);
    own.bytes[0] = 3;
    assertEquals([region.bytes[0], first.bytes[0], second.bytes[0]], [3, 3, 3]);
  },
  "outlive a region's creator": ({ host, guest }) => {
    const region = host.sharedMemory.create(4096);
    using _region = region;
    allowAttach(host, region.handle);
    using attached = guest.sharedMemory.attach(region.handle);
    region.bytes[1] = 5;
    region.detach();
    assertEquals(attached.bytes[1], 5);
  },
  "publish and wait for a record": async ({ host, guest }) => {
    using region = host.sharedMemory.create(4096, { writers: "creator" });
    allowAttach(host, region.handle);
    using attached = guest.sharedMemory.attach(region.handle);
    const [writer, reader] = [region.record(), attached.record()];
    const changed = reader.wait(reader.version, { timeout: PATIENCE });
    changed.catch(() => {});
    writer.publish(new Uint8Array([4, 5]));
    await changed;
    assertEquals(reader.read(), new Uint8Array([4, 5]));
  },
  "change and wait for a word": async ({ host, guest }) => {
    using region = host.sharedMemory.create(4096);
    allowAttach(host, region.handle);
    using attached = guest.sharedMemory.attach(region.handle);
    const changed = attached.word(8).wait(0, { timeout: PATIENCE });
    changed.catch(() => {});
    region.word(8).add(6);
    assertEquals(await changed, 6);
  },
  "grant, ask and revoke": ({ host }) => {
    using endpoint = host.datagrams.create();
    const client = contextHandle(GUEST);
    host.access.addClientPrivileges(endpoint.handle, client, { allow: ["DG_SEND", "CH_PRIV"] });
    assert(host.access.checkClientPrivilege(endpoint.handle, client, "DG_SEND").granted);
    host.access.removeClientPrivileges(endpoint.handle, client, ["DG_SEND"]);
    assert(!host.access.checkClientPrivilege(endpoint.handle, client, "DG_SEND").granted);
    host.access.removeAllClientPrivileges(endpoint.handle, client);
  },
  "make a group and join it": ({ host, guest }) => {
    using group = host.access.createGroup();
    host.access.addClientPrivileges(group.handle, contextHandle(GUEST), { allow: ["CH_PRIV"] });
    guest.access.joinGroup(group.handle);
    assert(host.access.isGroupMember(group.handle, GUEST));
    guest.access.leaveGroup(group.handle);
    group.add(GUEST);
    group.remove(GUEST);
    assert(!group.has(GUEST));
  },
  "register, find and remove a name": ({ host, guest }) => {
    using endpoint = host.datagrams.create();
    host.discovery.register("fault name", endpoint.handle);
    assertEquals(guest.discovery.lookup("fault name"), endpoint.handle);
    assertEquals(guest.discovery.list("fault").length, 1);
    host.discovery.unregister("fault name");
    assertEquals(guest.discovery.list("fault"), []);
  },
  "wait for a name": async ({ host, guest }) => {
    using endpoint = host.datagrams.create();
    const found = guest.discovery.wait("fault name to come", { timeout: PATIENCE });
    found.catch(() => {});
    host.discovery.register("fault name to come", endpoint.handle);
    assertEquals(await found, endpoint.handle);
  },
  "watch names": async ({ host, guest }) => {
    using endpoint = host.datagrams.create();
    const changes = guest.discovery.watch("watched", { signal: AbortSignal.timeout(PATIENCE) });
    const first = changes.next();
    first.catch(() => {});
    try {
      host.discovery.register("watched 1", endpoint.handle);
      assertEquals((await first).value?.change, "added");
    } finally {
      await changes.return!();
    }
  },
  "follow events": async ({ host, guest }) => {
    const enough = new AbortController();
    const events = host.events({ signal: enough.signal });
    const attachedEvent = eventOf(events, "peer-attached");
    attachedEvent.catch(() => {});
    const timer = setTimeout(() => enough.abort(), PATIENCE);
    try {
      using region = host.sharedMemory.create(4096);
      allowAttach(host, region.handle);
      using _attached = guest.sharedMemory.attach(region.handle);
      await attachedEvent;
    } finally {
      clearTimeout(timer);
      enough.abort();
    }
  },
};

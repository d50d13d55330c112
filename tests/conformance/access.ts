/** Access control: who may do what, groups, coarse flags, and what happens when a right is withdrawn. */

import { assert, assertEquals, assertFalse } from "@std/assert";
import {
  type AccessDecision,
  contextHandle,
  type DatagramEndpoint,
  type Group,
  type Handle,
  HOST_CONTEXT,
  INVALID_HANDLE,
  makeHandle,
  PrivilegeFlags,
  type PrivilegeName,
  PUBLIC_GROUP_NAME,
  type Vmci,
} from "../../mod.ts";
import { fails, failsSync } from "../support/failure.ts";
import { allow, bytes, type Facet, hostAndGuest, type Party, text, VM } from "./suite.ts";

const HOST = contextHandle(HOST_CONTEXT);
const GUEST = contextHandle(VM);
const NOTHING: AccessDecision = { granted: false, code: "INVALID_PRIV", via: "nothing", decidedBy: undefined };

/** What a check says when an entry of `decidedBy` decided. */
function decision(granted: boolean, via: "own" | "group", decidedBy: Handle): AccessDecision {
  return { granted, code: granted ? "SUCCESS_ACCESS_GRANTED" : "NO_ACCESS", via, decidedBy };
}

/** A group of the host's with the guest in it. */
function groupWithGuest(host: Vmci, canAssign = false): Group {
  const group = host.access.createGroup();
  group.add(VM, { canAssign });
  return group;
}

/** Ways to withdraw the guest's right to send, which it has by itself or by a group. */
const withdrawals: Readonly<Record<string, (host: Vmci, mailbox: Handle, group: Group, guest: Party) => unknown>> = {
  "its privilege is removed": (host, mailbox) => host.access.removeClientPrivileges(mailbox, GUEST, ["DG_SEND"]),
  "its entry is removed": (host, mailbox) => host.access.removeAllClientPrivileges(mailbox, GUEST),
  "it is denied": (host, mailbox) => host.access.addClientPrivileges(mailbox, GUEST, { deny: ["DG_SEND"] }),
  "its group's entry is removed": (host, mailbox, group) =>
    host.access.removeAllClientPrivileges(mailbox, group.handle),
  "its group is denied": (host, mailbox, group) =>
    host.access.addClientPrivileges(mailbox, group.handle, { deny: ["DG_SEND"] }),
  "it is put out of the group": (_host, _mailbox, group) => group.remove(VM),
  "it leaves the group": (_host, _mailbox, group, guest) => guest.access.leaveGroup(group.handle),
  "the group is closed": (_host, _mailbox, group) => group.close(),
};

/** See the module's comment. */
export const access: Facet = (test) => {
  // --- Entries --------------------------------------------------------------------------------------------------------

  test("nothing is allowed to another context by default", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { handle } = host.datagrams.create();
    const region = host.sharedMemory.create(1).handle;
    const group = host.access.createGroup().handle;
    const privileges: readonly [Handle, PrivilegeName[]][] = [
      [handle, ["CH_PRIV", "DESTROY_RESOURCE", "DG_SEND"]],
      [region, ["CH_PRIV", "DESTROY_RESOURCE", "SM_ATTACH"]],
      [group, ["CH_PRIV", "DESTROY_RESOURCE", "ASSIGN_CLIENT"]],
    ];
    for (const [resource, names] of privileges) {
      for (const privilege of names) {
        assertEquals(host.access.checkClientPrivilege(resource, GUEST, privilege), NOTHING);
        assertEquals(await guest.access.checkClientPrivilege(resource, GUEST, privilege), NOTHING);
      }
    }
    await fails("NO_ACCESS", () => guest.datagrams.sendTo(handle, bytes("?")));
    await fails("NO_ACCESS", () => guest.sharedMemory.attach(region));
    await fails("NO_ACCESS", () => guest.datagrams.destroy(handle), { operation: "datagrams.destroy", handle });
    await fails("NO_ACCESS", () => guest.access.joinGroup(group), { operation: "access.joinGroup", handle: group });
  });

  test("the owner's context may do everything, in whichever process", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const other = await fabric.join({ contextId: HOST_CONTEXT });
    const endpoint = host.datagrams.create();
    const region = host.sharedMemory.create(1);
    const owner = { granted: true, code: "SUCCESS_ACCESS_GRANTED", via: "owner", decidedBy: HOST } as const;
    assertEquals(await guest.access.checkClientPrivilege(endpoint.handle, HOST, "DG_SEND"), owner);
    await other.datagrams.sendTo(endpoint.handle, bytes("hello"));
    assertEquals(text(endpoint.tryReceive()!.payload), "hello");
    assertEquals((await other.sharedMemory.attach(region.handle)).size, 1);
    await other.access.addClientPrivileges(endpoint.handle, GUEST, { allow: ["DG_SEND"] });
    assertEquals(await guest.datagrams.sendTo(endpoint.handle, bytes("me too")), 6);
    // Even a denial of its own context does not bind the owner.
    host.access.addClientPrivileges(endpoint.handle, HOST, { deny: ["DG_SEND", "DESTROY_RESOURCE"] });
    assertEquals(await other.access.checkClientPrivilege(endpoint.handle, HOST, "DG_SEND"), owner);
    await other.datagrams.destroy(endpoint.handle);
    failsSync("INVALID_RESOURCE", () => endpoint.tryReceive());
    assert(endpoint.closed);
  });

  test("allow, deny, both, and back to not set", async (fabric) => {
    const { host } = await hostAndGuest(fabric);
    const { handle } = host.datagrams.create();
    const { access } = host;
    const check = (privilege: PrivilegeName) => access.checkClientPrivilege(handle, GUEST, privilege);
    access.addClientPrivileges(handle, GUEST, { allow: ["DG_SEND", "CH_PRIV"], deny: ["DESTROY_RESOURCE"] });
    assertEquals(check("DG_SEND"), decision(true, "own", GUEST));
    assertEquals(check("DESTROY_RESOURCE"), decision(false, "own", GUEST));
    access.addClientPrivileges(handle, GUEST, { allow: ["DESTROY_RESOURCE"] });
    assertEquals(check("DESTROY_RESOURCE"), decision(true, "own", GUEST));
    access.addClientPrivileges(handle, GUEST, { allow: ["DG_SEND"], deny: ["DG_SEND"] });
    assertEquals(check("DG_SEND"), decision(false, "own", GUEST));
    access.removeClientPrivileges(handle, GUEST, ["DG_SEND", "DESTROY_RESOURCE"]);
    assertEquals([check("DG_SEND"), check("DESTROY_RESOURCE")], [NOTHING, NOTHING]);
    assertEquals(check("CH_PRIV"), decision(true, "own", GUEST));
    access.removeAllClientPrivileges(handle, GUEST);
    assertEquals(check("CH_PRIV"), NOTHING);
  });

  test("an entry without anything set vanishes", async (fabric) => {
    const { host } = await hostAndGuest(fabric);
    const { handle } = host.datagrams.create();
    const { access } = host;
    const unset = () => access.removeClientPrivileges(handle, GUEST, ["DG_SEND"]);
    failsSync("INVALID_ARGS", unset, { operation: "access.removeClientPrivileges", handle });
    access.addClientPrivileges(handle, GUEST, { allow: ["DG_SEND"] });
    unset();
    failsSync("INVALID_ARGS", unset);
    const removeAll = () => access.removeAllClientPrivileges(handle, GUEST);
    failsSync("INVALID_ARGS", removeAll, { operation: "access.removeAllClientPrivileges", handle });
  });

  test("a client may be a context that is not there yet", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    allow(host, endpoint.handle, "DG_SEND");
    const guest = await fabric.join({ contextId: VM });
    assertEquals(await guest.datagrams.sendTo(endpoint.handle, bytes("at once")), 7);
  });

  test("what a grant cannot be about", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { access } = host;
    const { handle } = host.datagrams.create();
    const gone = host.access.createGroup();
    gone.close();
    const lists = { allow: ["DG_SEND"] } as const;
    const add = { operation: "access.addClientPrivileges", handle };
    failsSync("INVALID_ARGS", () => access.addClientPrivileges(handle, GUEST, {}), add);
    failsSync("INVALID_ARGS", () => access.addClientPrivileges(handle, GUEST, { allow: [], deny: [] }), add);
    for (const client of [INVALID_HANDLE, handle, gone.handle, makeHandle(VM, 1024)]) {
      failsSync("INVALID_ARGS", () => access.addClientPrivileges(handle, client, lists), add);
      failsSync("INVALID_ARGS", () => access.removeClientPrivileges(handle, client, ["DG_SEND"]));
      failsSync("INVALID_ARGS", () => access.removeAllClientPrivileges(handle, client));
      failsSync("INVALID_ARGS", () => access.checkClientPrivilege(handle, client, "DG_SEND"));
    }
    for (const resource of [makeHandle(HOST_CONTEXT, 5), makeHandle(4711, 1024), INVALID_HANDLE, HOST, gone.handle]) {
      failsSync("INVALID_ARGS", () => access.addClientPrivileges(resource, GUEST, lists), { handle: resource });
      failsSync("INVALID_ARGS", () => access.removeClientPrivileges(resource, GUEST, ["DG_SEND"]));
      failsSync("INVALID_ARGS", () => access.removeAllClientPrivileges(resource, GUEST));
      failsSync("INVALID_ARGS", () => access.checkClientPrivilege(resource, GUEST, "DG_SEND"));
    }
    failsSync("INVALID_ARGS", () => access.removeClientPrivileges(handle, GUEST, []));
    failsSync("INVALID_ARGS", () => access.addClientPrivileges({} as Handle, GUEST, lists));
    failsSync("INVALID_ARGS", () => access.addClientPrivileges(handle, "16" as unknown as Handle, lists));
    assertEquals(await guest.access.checkClientPrivilege(handle, GUEST, "DG_SEND"), NOTHING);
  });

  test("a privilege that the resource does not have changes nothing", async (fabric) => {
    const { host } = await hostAndGuest(fabric);
    const { access } = host;
    const endpoint = host.datagrams.create().handle;
    const region = host.sharedMemory.create(1).handle;
    const group = access.createGroup().handle;
    const wrong: readonly [Handle, PrivilegeName[]][] = [
      [endpoint, ["SM_ATTACH", "ASSIGN_CLIENT", "DG_CREATE", "SM_CREATE"]],
      [region, ["DG_SEND", "ASSIGN_CLIENT", "DG_CREATE", "SM_CREATE"]],
      [group, ["DG_SEND", "SM_ATTACH", "DG_CREATE", "SM_CREATE"]],
    ];
    for (const [handle, names] of wrong) {
      for (const name of [...names, "SEND" as PrivilegeName]) {
        const lists = { allow: ["CH_PRIV", name] } as const;
        failsSync("INVALID_PRIV", () => access.addClientPrivileges(handle, GUEST, lists), { handle });
        failsSync("INVALID_PRIV", () => access.addClientPrivileges(handle, GUEST, { deny: ["CH_PRIV", name] }));
        assertEquals(access.checkClientPrivilege(handle, GUEST, "CH_PRIV"), NOTHING);
        failsSync("INVALID_PRIV", () => access.removeClientPrivileges(handle, GUEST, [name]), { handle });
        failsSync("INVALID_PRIV", () => access.checkClientPrivilege(handle, GUEST, name), { handle });
      }
    }
  });

  // --- Delegation -----------------------------------------------------------------------------------------------------

  test("who has CH_PRIV changes who may do what, until he has it no more", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { handle } = host.datagrams.create();
    const third = contextHandle(VM + 1);
    const grant = () => guest.access.addClientPrivileges(handle, third, { allow: ["DG_SEND"] });
    await fails("NO_ACCESS", grant, { operation: "access.addClientPrivileges", handle });
    await fails("NO_ACCESS", () => guest.access.removeAllClientPrivileges(handle, third));
    await fails("NO_ACCESS", () => guest.access.removeClientPrivileges(handle, third, ["DG_SEND"]));
    allow(host, handle, "CH_PRIV");
    await grant();
    assert(host.access.checkClientPrivilege(handle, third, "DG_SEND").granted);
    await guest.access.removeClientPrivileges(handle, third, ["DG_SEND"]);
    await guest.access.removeAllClientPrivileges(handle, GUEST);
    await fails("NO_ACCESS", grant);
  });

  test("who has DESTROY_RESOURCE destroys, and the owner notices", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const endpoint = host.datagrams.create();
    host.discovery.register("mailbox", endpoint.handle);
    const waiting = fails("INVALID_RESOURCE", () => endpoint.receive(), { operation: "receive" });
    allow(host, endpoint.handle, "DESTROY_RESOURCE");
    await guest.datagrams.destroy(endpoint.handle);
    await waiting;
    assert(endpoint.closed);
    await fails("NOT_FOUND", () => guest.discovery.lookup("mailbox"));
    endpoint.close();
  });

  test("who is a member with canAssign, or has ASSIGN_CLIENT, may name a group in his grants", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { handle } = await guest.datagrams.create();
    const grantTo = (group: Handle) => guest.access.addClientPrivileges(handle, group, { allow: ["DG_SEND"] });
    const group = host.access.createGroup();
    await fails("NO_ACCESS", () => grantTo(group.handle), { operation: "access.addClientPrivileges", handle });
    const check = () => host.access.checkClientPrivilege(group.handle, GUEST, "ASSIGN_CLIENT");
    group.add(VM);
    await fails("NO_ACCESS", () => grantTo(group.handle));
    assertEquals(check(), decision(false, "own", GUEST));
    group.add(VM, { canAssign: true });
    await grantTo(group.handle);
    assertEquals(check(), decision(true, "own", GUEST));
    host.access.addClientPrivileges(group.handle, GUEST, { deny: ["ASSIGN_CLIENT"] });
    await fails("NO_ACCESS", () => grantTo(group.handle));
    group.remove(VM);
    host.access.addClientPrivileges(group.handle, GUEST, { allow: ["ASSIGN_CLIENT"] });
    await grantTo(group.handle);
    const own = await guest.access.createGroup();
    await grantTo(own.handle);
    assert((await guest.access.checkClientPrivilege(handle, own.handle, "DG_SEND")).granted);
  });

  test("who has CH_PRIV on a group adds and removes its members", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const group = host.access.createGroup();
    await fails("NO_ACCESS", () => guest.access.joinGroup(group.handle));
    allow(host, group.handle, "CH_PRIV");
    await guest.access.joinGroup(group.handle);
    assert(group.has(VM));
    await guest.access.leaveGroup(group.handle);
    assertFalse(group.has(VM));
  });

  // --- Groups ---------------------------------------------------------------------------------------------------------

  test("every context is in the public group, which is found by its name", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { publicGroup } = host.access;
    assertEquals(await guest.discovery.lookup(PUBLIC_GROUP_NAME), publicGroup);
    for (const context of [HOST_CONTEXT, VM]) assert(host.access.isGroupMember(publicGroup, context));
    assertFalse(await guest.access.isGroupMember(publicGroup, VM + 1));
    const endpoint = await guest.datagrams.create();
    await guest.access.addClientPrivileges(endpoint.handle, publicGroup, { allow: ["DG_SEND"] });
    assertEquals(
      host.access.checkClientPrivilege(endpoint.handle, HOST, "DG_SEND"),
      decision(true, "group", publicGroup),
    );
    assertEquals(host.datagrams.sendTo(endpoint.handle, bytes("all may")), 7);
  });

  test("the public group belongs to nobody, and can be left and joined", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const { publicGroup } = host.access;
    failsSync("NO_ACCESS", () => host.access.addClientPrivileges(publicGroup, GUEST, { allow: ["CH_PRIV"] }));
    failsSync("NO_ACCESS", () => host.discovery.unregister(PUBLIC_GROUP_NAME));
    failsSync("NO_ACCESS", () => host.discovery.register("mine", publicGroup));
    const { handle } = host.datagrams.create();
    host.access.addClientPrivileges(handle, publicGroup, { allow: ["DG_SEND"] });
    await guest.access.leaveGroup(publicGroup);
    assertFalse(host.access.isGroupMember(publicGroup, VM));
    await fails("NO_ACCESS", () => guest.datagrams.sendTo(handle, bytes("?")));
    await fails("INVALID_ARGS", () => guest.access.leaveGroup(publicGroup), { handle: publicGroup });
    await guest.access.joinGroup(publicGroup);
    assertEquals(await guest.datagrams.sendTo(handle, bytes("!")), 1);
  });

  test("a group has the contexts that were added and not removed", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const group = host.access.createGroup();
    const { handle } = group;
    assertEquals(handle.context, HOST_CONTEXT);
    assertEquals([group.has(VM), group.has(HOST_CONTEXT)], [false, false]);
    group.add(VM);
    group.add(VM);
    group.add(HOST_CONTEXT);
    assertEquals([group.has(VM), await guest.access.isGroupMember(handle, HOST_CONTEXT)], [true, true]);
    group.remove(VM);
    assertFalse(group.has(VM));
    failsSync("INVALID_ARGS", () => group.remove(VM), { operation: "group.remove", handle });
    failsSync("INVALID_ARGS", () => group.add(4711), { operation: "group.add", handle });
    failsSync("INVALID_ARGS", () => group.add(-1));
    failsSync("INVALID_ARGS", () => group.has(1.5));
    group.close();
    group.close();
    failsSync("INVALID_ARGS", () => group.add(VM), { handle });
    failsSync("INVALID_ARGS", () => group.remove(HOST_CONTEXT), { handle });
    failsSync("INVALID_ARGS", () => group.has(VM), { operation: "group.has", handle });
    failsSync("INVALID_ARGS", () => host.access.joinGroup(handle), { operation: "access.joinGroup", handle });
    failsSync("INVALID_ARGS", () => host.access.leaveGroup(handle), { operation: "access.leaveGroup", handle });
    failsSync("INVALID_ARGS", () => host.access.isGroupMember(handle, VM));
    failsSync("INVALID_ARGS", () => host.access.joinGroup(host.datagrams.create().handle));
  });

  test("a group ends with using, and with its Vmci", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    let closed: Handle;
    {
      using group = host.access.createGroup();
      closed = group.handle;
    }
    failsSync("INVALID_ARGS", () => host.access.isGroupMember(closed, VM));
    const other = await fabric.open();
    const group = other.access.createGroup();
    const events = await guest.events();
    const member = await guest.access.isGroupMember(group.handle, VM);
    const last = await fabric.open({ contextId: VM + 1 });
    other.close();
    last.close();
    await events.next();
    assertFalse(member);
    await fails("INVALID_ARGS", () => guest.access.isGroupMember(group.handle, VM));
    group.close();
    failsSync("INVALID_RESOURCE", () => group.add(VM), { operation: "group.add", handle: group.handle });
    failsSync("INVALID_RESOURCE", () => group.has(VM));
    failsSync("INVALID_RESOURCE", () => other.access.createGroup(), { operation: "access.createGroup" });
  });

  test("a context that goes is in no group any more", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const group = groupWithGuest(host);
    const events = host.events();
    await guest.close();
    await events.next();
    assertFalse(group.has(VM));
    const { handle } = host.datagrams.create();
    host.access.addClientPrivileges(handle, group.handle, { allow: ["DG_SEND"] });
    const again = await fabric.join({ contextId: VM });
    await fails("NO_ACCESS", () => again.datagrams.sendTo(handle, bytes("?")));
  });

  test("the own entry decides before any group", async (fabric) => {
    const { host } = await hostAndGuest(fabric);
    const group = groupWithGuest(host);
    const { handle } = host.datagrams.create();
    const { access } = host;
    const check = () => access.checkClientPrivilege(handle, GUEST, "DG_SEND");
    access.addClientPrivileges(handle, group.handle, { allow: ["DG_SEND"] });
    assertEquals(check(), decision(true, "group", group.handle));
    access.addClientPrivileges(handle, GUEST, { deny: ["DG_SEND"] });
    assertEquals(check(), decision(false, "own", GUEST));
    access.addClientPrivileges(handle, group.handle, { deny: ["DG_SEND"] });
    access.addClientPrivileges(handle, GUEST, { allow: ["DG_SEND"] });
    assertEquals(check(), decision(true, "own", GUEST));
    // An own entry in which this privilege is not set leaves it to the groups.
    access.addClientPrivileges(handle, GUEST, { allow: ["CH_PRIV"] });
    access.removeClientPrivileges(handle, GUEST, ["DG_SEND"]);
    assertEquals(check(), decision(false, "group", group.handle));
    assertEquals(access.checkClientPrivilege(handle, group.handle, "DG_SEND"), decision(false, "own", group.handle));
  });

  test("of several groups, the one joined first that has the privilege set decides", async (fabric) => {
    const { host } = await hostAndGuest(fabric);
    const { access } = host;
    const { handle } = host.datagrams.create();
    const groups = [access.createGroup(), access.createGroup(), access.createGroup()];
    const [first, second, third] = groups.map((group) => group.handle) as [Handle, Handle, Handle];
    for (const index of [2, 0, 1]) groups[index]!.add(VM);
    const check = () => access.checkClientPrivilege(handle, GUEST, "DG_SEND");
    access.addClientPrivileges(handle, second, { allow: ["DG_SEND"] });
    assertEquals(check(), decision(true, "group", second));
    access.addClientPrivileges(handle, first, { deny: ["DG_SEND"] });
    assertEquals(check(), decision(false, "group", first));
    access.addClientPrivileges(handle, third, { allow: ["DG_SEND"] });
    assertEquals(check(), decision(true, "group", third));
    // The public group was joined before all others.
    access.addClientPrivileges(handle, access.publicGroup, { deny: ["DG_SEND"] });
    assertEquals(check(), decision(false, "group", access.publicGroup));
    access.removeAllClientPrivileges(handle, access.publicGroup);
    // Who is added again keeps his place; who was removed has lost it.
    groups[2]!.add(VM);
    assertEquals(check(), decision(true, "group", third));
    groups[2]!.remove(VM);
    groups[2]!.add(VM);
    assertEquals(check(), decision(false, "group", first));
  });

  // --- Withdrawal -----------------------------------------------------------------------------------------------------

  for (const [what, withdraw] of Object.entries(withdrawals)) {
    test(`a lane is closed at once when ${what}`, async (fabric) => {
      const { host, guest } = await hostAndGuest(fabric);
      const group = groupWithGuest(host);
      const mailbox: DatagramEndpoint = host.datagrams.create();
      const { handle } = mailbox;
      const client = what.includes("group") ? group.handle : GUEST;
      host.access.addClientPrivileges(handle, client, { allow: ["DG_SEND"] });
      const sender = await guest.datagrams.create();
      const events = await guest.events();
      await sender.sendTo(handle, bytes("queued"));
      await guest.datagrams.sendTo(handle, bytes("queued too"));
      await withdraw(host, handle, group, guest);
      await fails("NO_ACCESS", () => sender.sendTo(handle, bytes("too late")), { operation: "sendTo", handle });
      await fails("NO_ACCESS", () => guest.datagrams.sendTo(handle, bytes("too late")), { handle });
      for (const _ of ["with a source", "without"]) {
        assertEquals((await events.next()).value, { type: "lane-revoked", destination: handle });
      }
      assertEquals([text(mailbox.tryReceive()!.payload), text(mailbox.tryReceive()!.payload)], [
        "queued",
        "queued too",
      ]);
      assertEquals(mailbox.tryReceive(), undefined);
      host.access.addClientPrivileges(handle, GUEST, { allow: ["DG_SEND"] });
      await sender.sendTo(handle, bytes("again"));
      assertEquals(text(mailbox.tryReceive()!.payload), "again");
    });
  }

  test("a change that leaves the right closes no lane", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const group = groupWithGuest(host);
    const mailbox = host.datagrams.create();
    const { handle } = mailbox;
    allow(host, handle, "DG_SEND", "CH_PRIV");
    host.access.addClientPrivileges(handle, group.handle, { deny: ["DG_SEND"] });
    const events = await guest.events();
    await guest.datagrams.sendTo(handle, bytes("a"));
    group.close();
    host.access.removeClientPrivileges(handle, GUEST, ["CH_PRIV"]);
    host.access.addClientPrivileges(handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    host.access.removeAllClientPrivileges(handle, GUEST);
    await guest.datagrams.sendTo(handle, bytes("b"));
    mailbox.close();
    assertEquals((await events.next()).value?.type, "datagrams-lost");
  });

  test("memory that is mapped cannot be taken back, but no new attachment is given", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mine = host.sharedMemory.create(64);
    allow(host, mine.handle, "SM_ATTACH");
    const theirs = await guest.sharedMemory.attach(mine.handle);
    host.access.removeAllClientPrivileges(mine.handle, GUEST);
    await fails("NO_ACCESS", () => guest.sharedMemory.attach(mine.handle), { handle: mine.handle });
    await theirs.bytes.set([1], 0);
    assertEquals(mine.bytes[0], 1);
  });

  // --- Coarse flags ---------------------------------------------------------------------------------------------------

  test("a RESTRICTED context deals with TRUSTED ones only, whatever is granted", async (fabric) => {
    const host = await fabric.open();
    const guest = await fabric.join({ contextId: VM, privilegeFlags: PrivilegeFlags.RESTRICTED });
    const mine = host.datagrams.create().handle;
    const region = host.sharedMemory.create(1).handle;
    const theirs = (await guest.datagrams.create()).handle;
    allow(host, mine, "DG_SEND", "CH_PRIV");
    allow(host, region, "SM_ATTACH");
    await guest.access.addClientPrivileges(theirs, HOST, { allow: ["DG_SEND"] });
    await fails("NO_ACCESS", () => guest.datagrams.sendTo(mine, bytes("?")), { handle: mine });
    await fails("NO_ACCESS", () => guest.sharedMemory.attach(region), { handle: region });
    await fails("NO_ACCESS", () => guest.access.removeAllClientPrivileges(mine, GUEST), { handle: mine });
    failsSync("NO_ACCESS", () => host.datagrams.sendTo(theirs, bytes("?")), { handle: theirs });
    const flags = { granted: false, code: "NO_ACCESS", via: "flags", decidedBy: undefined } as const;
    assertEquals(host.access.checkClientPrivilege(mine, GUEST, "DG_SEND"), flags);
    assertEquals(host.access.checkClientPrivilege(mine, GUEST, "CH_PRIV"), flags);
    assertEquals(host.access.checkClientPrivilege(theirs, HOST, "DG_SEND"), flags);
    // Within its own context it is free.
    assertEquals(await guest.datagrams.sendTo(theirs, bytes("me")), 2);
    const memory = await guest.sharedMemory.create(1);
    assertEquals((await guest.sharedMemory.attach(memory.handle)).size, 1);
  });

  test("a TRUSTED context deals with RESTRICTED ones, if it is granted", async (fabric) => {
    const host = await fabric.open({ privilegeFlags: PrivilegeFlags.TRUSTED });
    const guest = await fabric.join({ contextId: VM, privilegeFlags: PrivilegeFlags.RESTRICTED });
    const mailbox = host.datagrams.create();
    await fails("NO_ACCESS", () => guest.datagrams.sendTo(mailbox.handle, bytes("?")));
    allow(host, mailbox.handle, "DG_SEND");
    assertEquals(await guest.datagrams.sendTo(mailbox.handle, bytes("hello")), 5);
    const both = await fabric.open({
      contextId: VM + 1,
      privilegeFlags: PrivilegeFlags.RESTRICTED | PrivilegeFlags.TRUSTED,
    });
    host.access.addClientPrivileges(mailbox.handle, contextHandle(VM + 1), { allow: ["DG_SEND"] });
    assertEquals(both.datagrams.sendTo(mailbox.handle, bytes("hello")), 5);
  });

  test("the first process in a context sets its flags", async (fabric) => {
    const first = await fabric.open({ contextId: VM, privilegeFlags: PrivilegeFlags.RESTRICTED });
    const silent = await fabric.join({ contextId: VM });
    const same = await fabric.join({ contextId: VM, privilegeFlags: PrivilegeFlags.RESTRICTED });
    const open = (privilegeFlags: number) => fabric.join({ contextId: VM, privilegeFlags });
    await fails("INVALID_ARGS", () => open(PrivilegeFlags.TRUSTED), { operation: "openVmci" });
    await fails("INVALID_ARGS", () => open(4));
    for (const party of [silent, same]) {
      await fails("NO_ACCESS", () => party.datagrams.create({ wellKnown: 5000 }));
    }
    assertEquals(first.contextId, VM);
  });
};

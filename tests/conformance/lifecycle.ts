/** Joining and leaving: InitApp and CleanupApp. */

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import {
  contextHandle,
  type DatagramEndpoint,
  FIRST_VM_CONTEXT,
  HOST_CONTEXT,
  INVALID_ID,
  makeHandle,
  openVmci,
  PUBLIC_GROUP_NAME,
  type Vmci,
} from "../../mod.ts";
import { fails, failsSync } from "../support/failure.ts";
import { allow, bytes, type Facet, hostAndGuest, reasonOf, VM } from "./suite.ts";

/** Everything that access control can be asked to do, by the call's name. */
const everyCallOfAccess: Readonly<Record<string, (vmci: Vmci) => unknown>> = {
  "access.addClientPrivileges": ({ access }) =>
    access.addClientPrivileges(access.publicGroup, contextHandle(VM), { allow: ["CH_PRIV"] }),
  "access.removeClientPrivileges": ({ access }) =>
    access.removeClientPrivileges(access.publicGroup, contextHandle(VM), ["CH_PRIV"]),
  "access.removeAllClientPrivileges": ({ access }) =>
    access.removeAllClientPrivileges(access.publicGroup, contextHandle(VM)),
  "access.checkClientPrivilege": ({ access }) =>
    access.checkClientPrivilege(access.publicGroup, contextHandle(VM), "CH_PRIV"),
  "access.createGroup": ({ access }) => access.createGroup(),
  "access.joinGroup": ({ access }) => access.joinGroup(access.publicGroup),
  "access.leaveGroup": ({ access }) => access.leaveGroup(access.publicGroup),
  "access.isGroupMember": ({ access }) => access.isGroupMember(access.publicGroup, VM),
};

/** See the module's comment. */
export const lifecycle: Facet = (test) => {
  test.alone("who says nothing is the host", async (fabric) => {
    const host = await fabric.open();
    assertEquals([host.contextId, host.version, host.closed], [HOST_CONTEXT, 0x10000, false]);
  });

  test.alone("the device's name leads to the same fabric again", async (fabric) => {
    const host = await fabric.open();
    using again = await openVmci({ device: host.device });
    using endpoint = again.datagrams.create();
    again.discovery.register("here", endpoint.handle);
    assertEquals(host.discovery.lookup("here"), endpoint.handle);
  });

  test.alone("a program can be any virtual machine, and nothing that is reserved", async (fabric) => {
    for (const contextId of [HOST_CONTEXT, FIRST_VM_CONTEXT, 4711, INVALID_ID - 1]) {
      assertEquals((await fabric.open({ contextId })).contextId, contextId);
    }
    for (const contextId of [0, 1, 3, 15, INVALID_ID, -1, 16.5, NaN, 2 ** 32]) {
      await fails("INVALID_ARGS", () => fabric.open({ contextId }), { operation: "openVmci" });
    }
  });

  test.alone("options that make no sense", async (fabric) => {
    const wrong = [
      { privilegeFlags: 4 },
      { privilegeFlags: -1 },
      { timeout: 0 },
      { timeout: NaN },
      { timeout: 2 ** 31 },
      { spin: -1 },
      { spin: NaN },
      { spin: 1e7 },
    ];
    for (const options of wrong) await fails("INVALID_ARGS", () => fabric.open(options), { operation: "openVmci" });
    assertEquals((await fabric.open()).contextId, HOST_CONTEXT);
  });

  test.alone("a signal that is aborted keeps a program out", async (fabric) => {
    const reason = new Error("not now");
    assertStrictEquals(await reasonOf(fabric.open({ signal: AbortSignal.abort(reason) })), reason);
    const { signal } = new AbortController();
    assertEquals((await fabric.open({ signal })).closed, false);
  });

  test("programs of one context are separate: what one has goes with it, and only that", async (fabric) => {
    const host = await fabric.open();
    const [leaving, staying] = [await fabric.join({ contextId: VM }), await fabric.join({ contextId: VM })];
    const kept = await staying.datagrams.create();
    const lost = await leaving.datagrams.create();
    await staying.discovery.register("kept", kept.handle);
    await leaving.discovery.register("lost", lost.handle);
    const region = await leaving.sharedMemory.create(1);
    const group = await leaving.access.createGroup();
    await leaving.access.addClientPrivileges(lost.handle, contextHandle(HOST_CONTEXT), { allow: ["DG_SEND"] });
    host.datagrams.sendTo(lost.handle, bytes("!"));
    const events = host.events();
    await leaving.close();
    assertEquals((await events.next()).value?.type, "datagrams-lost");
    assertEquals((await events.next()).value?.type, "resource-gone");
    failsSync("NOT_FOUND", () => host.discovery.lookup("lost"));
    failsSync("INVALID_ARGS", () => host.datagrams.sendTo(lost.handle, bytes("?")));
    failsSync("NOT_FOUND", () => host.sharedMemory.query(region.handle));
    failsSync("INVALID_ARGS", () => host.access.isGroupMember(group.handle, VM));
    assertEquals(host.discovery.lookup("kept"), kept.handle);
    assert(host.access.isGroupMember(host.access.publicGroup, VM));
    assertEquals(await staying.datagrams.sendTo(kept.handle, bytes("self")), 4);
  });

  test.alone("closing ends every wait, and closing again does nothing", async (fabric) => {
    const host = await fabric.open();
    const endpoint = host.datagrams.create();
    const region = host.sharedMemory.create(4096);
    const expected = (operation: string) => ({ operation });
    const waits = [
      fails("INVALID_RESOURCE", () => endpoint.receive(), expected("receive")),
      fails("INVALID_RESOURCE", () => endpoint.receiveInto(new Uint8Array(1)), expected("receiveInto")),
      fails("INVALID_RESOURCE", () => region.word(0).wait(0), expected("word.wait")),
      fails("INVALID_RESOURCE", () => host.discovery.wait("never"), expected("discovery.wait")),
    ];
    host.close();
    host.close();
    host[Symbol.dispose]();
    await host[Symbol.asyncDispose]();
    await Promise.all(waits);
    assert(host.closed);
  });

  test.alone("nothing of access control works on a closed Vmci", async (fabric) => {
    const host = await fabric.open();
    host.close();
    for (const [operation, call] of Object.entries(everyCallOfAccess)) {
      failsSync("INVALID_RESOURCE", () => call(host), { operation });
    }
    failsSync("INVALID_RESOURCE", () => host.events(), { operation: "events" });
    assertEquals(host.contextId, HOST_CONTEXT);
  });

  test.alone("what is declared with using is closed at the end", async (fabric) => {
    const host = await fabric.open();
    const events = host.events();
    {
      using guest = await openVmci({ device: fabric.device, contextId: VM });
      assertEquals(guest.discovery.lookup(PUBLIC_GROUP_NAME), host.access.publicGroup);
    }
    assertEquals((await events.next()).value, { type: "context-removed", context: VM });
    let endpoint: DatagramEndpoint;
    {
      await using guest = await openVmci({ device: fabric.device, contextId: VM });
      endpoint = guest.datagrams.create();
    }
    assertEquals((await events.next()).value, { type: "context-removed", context: VM });
    assert(endpoint.closed);
  });

  test("who could not join left nothing behind", async (fabric) => {
    const host = await fabric.open();
    const events = host.events();
    await fails("INVALID_ARGS", () => fabric.open({ contextId: 5 }));
    await fails("INVALID_ARGS", () => fabric.join({ contextId: HOST_CONTEXT, privilegeFlags: 1 }));
    (await fabric.open({ contextId: VM })).close();
    assertEquals((await events.next()).value, { type: "context-removed", context: VM });
  });

  test("waiting for ever is no time at all", async (fabric) => {
    const { host, guest } = await hostAndGuest(fabric);
    const mailbox = host.datagrams.create();
    allow(host, mailbox.handle, "DG_SEND");
    const waits = [Infinity, 2 ** 31, undefined].map((timeout) => mailbox.receive({ timeout }));
    for (let i = 0; i < waits.length; i++) await guest.datagrams.sendTo(mailbox.handle, bytes("!"));
    assertEquals((await Promise.all(waits)).length, 3);
  });

  test.alone("an error says what was wanted, of what, and why not", async (fabric) => {
    const host = await fabric.open();
    const handle = makeHandle(HOST_CONTEXT, 5);
    const error = failsSync("NOT_FOUND", () => host.sharedMemory.query(handle), {
      operation: "sharedMemory.query",
      handle,
    });
    assertEquals(error.message, "Cannot sharedMemory.query: there is no region 2:5 (NOT_FOUND)");
    assertEquals([error.name, error.number, error.reason], ["VmciError", -21, "there is no region 2:5"]);
  });
};

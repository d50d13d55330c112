/** Lanes under a daemon: those that ended and are not read count, and a bell that comes late is kept. */

import { assertEquals } from "@std/assert";
import "../ffi/support.ts";
import { openVmci, type Vmci, type VmciError } from "../../mod.ts";
import { PUBLIC_GROUP } from "../../src/fabric/broker.ts";
import { failsSync } from "../support/failure.ts";
import { House } from "../support/house.ts";
import { RawClient } from "../support/raw_client.ts";

const VM = 16;

/** A client takes in what it was told, and the daemon what that told it. */
function turn(vmci: Vmci): void {
  for (let i = 0; i < 2; i++) vmci.datagrams.create().close();
}

/** Stops a process, and goes on when it is stopped. */
function stop(pid: number): void {
  Deno.kill(pid, "SIGSTOP");
  while (!/^State:\tT/m.test(Deno.readTextFileSync(`/proc/${pid}/status`)));
}

Deno.test("lanes that have ended count until they are read, and what was sent through them is delivered", async () => {
  await using house = await House.serving({ policy: "quota lanes 3\n" });
  await using victim = await openVmci({ device: house.main });
  await using flooder = await openVmci({ device: house.main, contextId: VM });
  using inbox = victim.datagrams.create();
  victim.access.addClientPrivileges(inbox.handle, victim.access.publicGroup, { allow: ["DG_SEND"] });
  const payload = new Uint8Array(60_000);
  /** Sends from an endpoint of its own, so through a lane of its own that ends. */
  const send = (value: number) => {
    using source = flooder.datagrams.create();
    payload[0] = value;
    source.sendTo(inbox.handle, payload);
  };
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 3; i++) {
      send(10 * round + i);
      turn(victim);
    }
    for (let i = 0; i < 7; i++) {
      failsSync("NO_RESOURCES", () => send(99), { operation: "sendTo", handle: inbox.handle });
      turn(victim);
    }
    for (let i = 0; i < 3; i++) assertEquals(inbox.tryReceive()?.payload[0], 10 * round + i);
    assertEquals(inbox.tryReceive(), undefined);
    turn(victim);
  }
});

Deno.test("lanes that have ended and have nothing left in them go at once, and those that are read as they are", async () => {
  await using house = await House.serving({ policy: "quota lanes 3\n" });
  await using victim = await openVmci({ device: house.main });
  await using sender = await openVmci({ device: house.main, contextId: VM });
  const open = () => {
    const inbox = victim.datagrams.create();
    victim.access.addClientPrivileges(inbox.handle, victim.access.publicGroup, { allow: ["DG_SEND"] });
    return inbox;
  };
  const one = open();
  for (let round = 0; round < 20; round++) {
    // Where it was all read before it ended, nobody need read again.
    const inbox = round % 2 === 0 ? open() : one;
    const source = sender.datagrams.create();
    source.sendTo(inbox.handle, Uint8Array.of(round));
    const read = () => assertEquals(inbox.tryReceive()?.payload, Uint8Array.of(round));
    if (inbox !== one) read();
    source.close();
    if (inbox === one) read();
    turn(victim);
  }
});

Deno.test("what was accepted arrives though the daemon dies: who has much to read is handed no lane", async () => {
  await using house = await House.serving();
  await using receiver = await openVmci({ device: house.main });
  await using sender = await openVmci({ device: house.main, contextId: VM });
  using inbox = receiver.datagrams.create();
  receiver.access.addClientPrivileges(inbox.handle, receiver.access.publicGroup, { allow: ["DG_SEND"] });
  const sources = Array.from({ length: 10 }, () => sender.datagrams.create());
  turn(receiver);
  // Its connection is full of questions: this thread is its own.
  using raw = new RawClient(house.main);
  raw.hello();
  for (let token = 0; token < 1000; token++) {
    assertEquals(raw.ask("ping", { handle: inbox.handle, token }).error, undefined);
  }
  const accepted = sources.filter((source, i) => {
    try {
      return source.sendTo(inbox.handle, Uint8Array.of(i)) === 1;
    } catch (error) {
      assertEquals((error as VmciError).code, "NO_RESOURCES");
      return false;
    }
  });
  await house.kill();
  await house.start();
  const received = () => Array.from({ length: 10 }, () => inbox.tryReceive()?.payload[0]);
  receiver.discovery.list("none");
  assertEquals(received().filter((it) => it !== undefined).length, accepted.length);
  assertEquals(accepted, []);
  // It has read, and is handed them again.
  for (const [i, source] of sources.entries()) source.sendTo(inbox.handle, Uint8Array.of(i));
  assertEquals(received(), sources.map((_, i) => i));
});

Deno.test("who sends again what the stopped daemon did not answer has the bell that the late answer brings", async () => {
  await using house = await House.serving();
  const agent = house.agent();
  const receiver = await agent.scenes.open({ device: house.main });
  await using sender = await openVmci({ device: house.main, contextId: VM });
  await using patient = await openVmci({ device: house.main, timeout: 60_000 });
  const inbox = await receiver.datagrams.create();
  await receiver.access.addClientPrivileges(inbox.handle, PUBLIC_GROUP, { allow: ["DG_SEND"] });
  using source = sender.datagrams.create();
  stop(house.daemon.pid);
  failsSync("UNAVAILABLE", () => source.sendTo(inbox.handle, Uint8Array.of(99)));
  // The receiver hears of both lanes at once, and then neither hears from the daemon.
  agent.signal("SIGSTOP");
  house.daemon.kill("SIGCONT");
  patient.discovery.list();
  source.sendTo(inbox.handle, Uint8Array.of(0));
  stop(house.daemon.pid);
  agent.signal("SIGCONT");
  try {
    assertEquals((await inbox.receive({ timeout: 5000 })).payload, Uint8Array.of(0));
    for (let i = 1; i < 50; i++) {
      const waiting = inbox.receive({ timeout: 5000 });
      source.sendTo(inbox.handle, Uint8Array.of(i));
      assertEquals((await waiting).payload, Uint8Array.of(i));
    }
  } finally {
    house.daemon.kill("SIGCONT");
  }
});

Deno.test("who reads hundreds of lanes that have ended is heard of and hears, though it asks nothing itself", async () => {
  await using house = await House.serving();
  const agent = house.agent();
  const reader = await agent.scenes.open({ device: house.main, spin: 0 });
  const inbox = await reader.datagrams.create();
  await reader.access.addClientPrivileges(await inbox.handle, PUBLIC_GROUP, { allow: ["DG_SEND"] });
  const names = await reader.discovery.watch("late");
  const to = await inbox.handle;
  const many = 600;
  using sender = await openVmci({ device: house.main, contextId: VM });
  for (let i = 0; i < many; i++) {
    using source = sender.datagrams.create();
    source.sendTo(to, Uint8Array.of(1));
  }
  for (let i = 0; i < many; i++) await inbox.receive({ timeout: 5000 });
  // It waits now, and never asks the daemon anything by itself.
  const waiting = inbox.receive({ timeout: 5000 });
  const next = (names as unknown as AsyncIterator<{ name: string }>).next();
  using other = await openVmci({ device: house.main, contextId: VM + 1 });
  using source = other.datagrams.create();
  other.discovery.register("late", source.handle);
  assertEquals((await next).value.name, "late");
  source.sendTo(to, Uint8Array.of(7));
  assertEquals((await waiting).payload, Uint8Array.of(7));
});

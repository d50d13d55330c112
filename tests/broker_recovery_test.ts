/** The broker's decisions where a client, the system or the broker before has failed: what is refused, and what is said again. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { contextHandle, type Handle, HOST_CONTEXT, INVALID_HANDLE, VmciError } from "../mod.ts";
import { PUBLIC_GROUP, slotSurvivor } from "../src/fabric/broker.ts";
import { BrokerWorld, type TestClient } from "./support/broker_world.ts";

const VM = 16;
/** The first number of a broker: those below were given by the one before. */
const FIRST = 5000;
const none: Handle = INVALID_HANDLE;

function allow(owner: TestClient, resource: Handle, privilege: "DG_SEND" | "SM_ATTACH"): void {
  owner.ask("grant", { resource, client: contextHandle(VM), allow: [privilege], deny: [] });
}

/** It had an endpoint under the broker before. */
function announceEndpoint(owner: TestClient, handle: Handle): void {
  const args = { type: "DATAGRAM", handle, size: 0, creatorOnly: false, ticket: null } as const;
  assert(owner.ask("announce_resource", args).accepted);
}

/** The causes of which lanes were closed for it. */
function causes(client: TestClient): string[] {
  return client.take("lane_closed").map(({ body }) => body.cause);
}

/** A client of the broker before. */
function returned(world: BrokerWorld, slot: number, context = VM): TestClient {
  return world.join(context, { slot, client: 2000 + slot });
}

describe("broker: what the system refuses it", () => {
  it("a fault in what the medium does is refused as such, and what was handed in goes back", () => {
    const world = new BrokerWorld();
    const client = world.join();
    world.medium.checkRegion = () => {
      throw new Error("fstat failed");
    };
    const region = world.medium.share("region", 4096);
    const reason = client.refused("NO_RESOURCES", "create_region", { size: 4096, creatorOnly: false }, [region]);
    assertEquals([reason, region.released], ["the broker failed: fstat failed", 1]);
    assert(client.endpoint().resource > 0, "it serves on");
  });

  it("what cannot be made for want of memory is NO_MEM if the medium says so", () => {
    const world = new BrokerWorld();
    const [receiver, sender] = [world.join(), world.join(VM)];
    const destination = receiver.endpoint();
    allow(receiver, destination, "DG_SEND");
    const { makeLane } = world.medium;
    world.medium.makeLane = () => {
      throw new VmciError("NO_MEM", { operation: "make a lane", reason: "no pages" });
    };
    const before = world.medium.held;
    assertEquals(sender.refused("NO_MEM", "open_lane", { source: none, destination }), "no pages");
    assertEquals([world.medium.held, receiver.pending, world.inspect("lanes")], [before, ["keep_grant"], []]);
    world.medium.makeLane = makeLane;
    assertEquals(sender.ask("open_lane", { source: none, destination }).fresh, true);
  });
});

describe("broker: clients that do not answer or read", () => {
  it("who has asked too often without an answer asks no more, until there is one", () => {
    const world = new BrokerWorld();
    const [asker, mute] = [world.join(), world.join(VM)];
    const handle = mute.endpoint();
    for (let token = 0; token < 1024; token++) asker.ask("ping", { handle, token });
    assertStringIncludes(asker.refused("NO_RESOURCES", "ping", { handle, token: 1024 }), "1024 of your questions");
    assertEquals(mute.take("ping").length, 1024);
    mute.ask("pong", { client: asker.client.number, token: 7 });
    assertEquals(asker.take("pong").map(({ body }) => body.token), [7]);
    asker.ask("ping", { handle, token: 1024 });
  });

  it("only who was asked answers, and with him goes the question", () => {
    const world = new BrokerWorld();
    const [asker, asked, other] = [world.join(), world.join(VM), world.join(VM)];
    const handle = asked.endpoint();
    const answer = { client: asker.client.number, token: 1 };
    other.ask("pong", answer);
    asker.ask("ping", { handle, token: 1 });
    assertEquals(other.refused("NO_ACCESS", "pong", answer), "somebody else was asked that");
    assertEquals(asker.take("pong"), []);
    for (const token of [1, 2, 2, 3]) asker.ask("ping", { handle, token });
    asked.ask("pong", answer);
    assertEquals(asker.take("pong").map(({ body }) => body.token), [1]);
    assertEquals(asker.client.pings.size, 2);
    asked.leave();
    assertEquals(asker.client.pings.size, 0);
  });

  it("who does not read is sent no more lanes by others, only by his own process", () => {
    const world = new BrokerWorld();
    const receiver = world.join(VM, {}, { pid: 77 });
    const [other, own] = [world.join(VM), world.join(VM, {}, { pid: 77 })];
    const destination = receiver.endpoint();
    receiver.client.unread = 65;
    const reason = other.refused("NO_RESOURCES", "open_lane", { source: none, destination });
    assertStringIncludes(reason, "process 77 is busy: 65 packets wait for it");
    assertEquals(own.ask("open_lane", { source: none, destination }).fresh, true);
    receiver.client.unread = 64;
    assertEquals(other.ask("open_lane", { source: none, destination }).fresh, true);
  });
});

describe("broker: contexts that left the public group", () => {
  const group = { type: "GROUP" as const, handle: PUBLIC_GROUP, grants: [], tickets: [] };
  const out = { ...group, names: ["a"], members: [] };
  const into = (context: number, order: number) => ({
    ...group,
    names: [],
    members: [{ context, canAssign: false, order }],
  });
  const kept = (client: TestClient) =>
    client.take("keep_member").map(({ body }) => [body.member.context, body.member.order > 0, body.present]);
  const isIn = (client: TestClient, member = VM) => client.ask("is_member", { group: PUBLIC_GROUP, member }).member;

  it("all its processes know, also who comes later", () => {
    const world = new BrokerWorld();
    const [host, one, other] = [world.join(), world.join(VM), world.join(VM)];
    one.ask("remove_member", { group: PUBLIC_GROUP, member: VM });
    const late = world.join(VM);
    assertEquals([host, one, other, late].map(kept), [[], ...new Array(3).fill([[VM, false, false]])]);
    other.ask("add_member", { group: PUBLIC_GROUP, member: VM, canAssign: true });
    assertEquals(kept(world.join(VM)), [[VM, true, true]]);
    assertEquals([host, one, other, late].map(kept), [[], ...new Array(3).fill([[VM, true, true]])]);
    for (const client of [one, other, late]) client.leave();
  });

  it("each says so to the next broker, for its own context only, and nobody who did not live before", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [one, other] = [returned(world, 1), returned(world, 2)];
    const fresh = world.join(HOST_CONTEXT);
    assertEquals(one.ask("announce_entries", out), { refused: ["a"] });
    one.ask("announce_entries", into(HOST_CONTEXT, 7));
    // The other one's word for it changes nothing.
    other.ask("announce_entries", out);
    assertEquals([one, other].map(kept), [[[VM, false, false]], [[VM, false, false]]]);
    fresh.refused("NO_ACCESS", "announce_entries", out);
    for (const client of [one, other]) client.ask("announced", {});
    assertEquals([isIn(one), isIn(one, HOST_CONTEXT)], [false, true]);
    other.ask("announce_entries", into(VM, 7));
    assertEquals(isIn(one), true);
    other.ask("announce_entries", into(VM, 0));
    assertEquals([one, other].map(kept), [[[VM, true, true]], [[VM, true, true]]]);
  });
});

describe("broker: what survivors say, twice or late", () => {
  it("who attaches again after all the others were told that he is gone is told of as coming", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1)] });
    const [creator, late] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const handle = { context: HOST_CONTEXT, resource: 3000 };
    const args = { type: "SHAREDMEM", handle, size: 4096, creatorOnly: false, ticket: null } as const;
    assert(creator.ask("announce_resource", args, [world.medium.share("region", 4096)]).accepted);
    const attachment = { handle, count: 1, size: 4096, creatorOnly: false, ticket: null };
    assert(creator.ask("announce_attachment", attachment).accepted);
    creator.ask("announced", {});
    creator.take("region_peer");
    for (const count of [2, 2]) assert(late.ask("announce_attachment", { ...attachment, count }).accepted);
    assertEquals(creator.take("region_peer").map(({ body }) => body), [{ handle, context: VM, attached: true }]);
    const counts = world.inspect("attachments").map(({ context, count }) => [context, count]);
    assertEquals(counts, [[HOST_CONTEXT, 1], [VM, 2]]);
  });

  it("attachments of which it is said later that there are fewer are taken off, with the last one all that goes with it", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [creator, other] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const handle = { context: HOST_CONTEXT, resource: 3000 };
    const args = { type: "SHAREDMEM", handle, size: 4096, creatorOnly: false, ticket: null } as const;
    assert(creator.ask("announce_resource", args, [world.medium.share("region", 4096)]).accepted);
    const has = (client: TestClient, count: number) =>
      client.ask("announce_attachment", { handle, count, size: 4096, creatorOnly: false, ticket: null }).accepted;
    const counts = () => [creator, other].map(({ client }) => [...client.attachments.values()]);
    assert(has(creator, 3));
    assert(has(other, 1));
    assert(has(creator, 1));
    assertEquals(counts(), [[1], [1]]);
    assertEquals([has(creator, 0), has(creator, 0)], [false, false]);
    assertEquals(counts(), [[], [1]]);
    assertEquals(other.take("resource_gone").map(({ body }) => body), [{ type: "SHAREDMEM", handle }]);
    assertEquals(has(other, 0), false);
    for (const client of [creator, other]) client.ask("announced", {});
    assertEquals(world.inspect("resources").map(({ type }) => type), ["GROUP"]);
  });

  it("two who come late at once are told of each other when they have announced, and that the creator is gone", () => {
    const world = new BrokerWorld({ firstNumber: FIRST });
    const [one, other] = [returned(world, 1), returned(world, 2)];
    const handle = { context: HOST_CONTEXT, resource: 3000 };
    const attachment = { handle, count: 1, size: 4096, creatorOnly: false, ticket: null };
    for (const client of [one, other]) assert(client.ask("announce_attachment", attachment).accepted);
    const gone = { type: "SHAREDMEM" as const, handle };
    assertEquals([one, other].map((it) => it.take("resource_gone").map(({ body }) => body)), [[gone], [gone]]);
    for (const client of [one, other]) {
      assertEquals(client.take("region_peer"), []);
      client.ask("announced", {});
      assertEquals(client.take("region_peers").map(({ body }) => body), [{ handle, contexts: [VM] }]);
    }
  });

  it("who still announces when the time is over is told what there is when it has", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [slow, other] = [returned(world, 1), returned(world, 2, HOST_CONTEXT)];
    other.ask("announced", {});
    world.deliver(world.broker.endRecovery());
    assertEquals([slow, other].map((it) => it.take("settled").length), [0, 1]);
    slow.ask("subscribe", {});
    slow.ask("announced", {});
    assertEquals(slow.take("settled").map(({ body }) => body.contexts.toSorted((a, b) => a - b)), [[HOST_CONTEXT, VM]]);
  });

  it("a lane that was revoked, which the broker before told its receiver alone, is revoked for its sender too", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [receiver, sender] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const destination = { context: HOST_CONTEXT, resource: 3000 };
    announceEndpoint(receiver, destination);
    sender.ask("announce_lane", { lane: 4000, source: none, destination, sender: true, ticket: "" });
    for (const client of [receiver, sender]) client.ask("announced", {});
    assertEquals(causes(sender), ["revoked"]);
    receiver.leave();
    assertEquals(sender.take("resource_gone"), []);
  });

  it("a lane that is known to both its ends is announced again in vain, and stays one", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [receiver, sender] = [returned(world, 1), returned(world, 2)];
    const destination = { context: VM, resource: 3000 };
    announceEndpoint(receiver, destination);
    const lane = (sends: boolean) => ({ lane: 4000, source: none, destination, sender: sends, ticket: "" });
    receiver.ask("announce_peers", { peers: [sender.client.number] });
    sender.ask("announce_peers", { peers: [receiver.client.number] });
    for (let times = 0; times < 2; times++) {
      assert(sender.ask("announce_lane", lane(true)).accepted);
      assert(receiver.ask("announce_lane", lane(false)).accepted);
    }
    for (const client of [receiver, sender]) client.ask("announced", {});
    assertEquals([sender, receiver].flatMap((it) => it.take("lane_closed")), []);
    assertEquals(world.inspect("lanes").map(({ receiver: pid }) => pid), [receiver.client.identity.pid]);
  });

  for (const first of ["sender", "receiver"] as const) {
    it(`a lane that its sender has found to be without a bell is over, when its ${first} says so first`, () => {
      const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
      const [receiver, sender] = [returned(world, 1), returned(world, 2)];
      const destination = { context: VM, resource: 3000 };
      announceEndpoint(receiver, destination);
      const announce = (client: TestClient) => {
        const peers = client === receiver ? [sender.client.number] : [];
        client.ask("announce_peers", { peers });
        client.ask("announce_lane", { lane: 4000, source: none, destination, sender: client === sender, ticket: "" });
        client.ask("announced", {});
      };
      const inTurn = first === "sender" ? [sender, receiver] : [receiver, sender];
      for (const client of inTurn) announce(client);
      assertEquals([causes(sender), causes(receiver), world.inspect("lanes")], [["gone"], ["ended"], []]);
      // It is told when that goes where it sent to.
      assertEquals(sender.take("resource_gone"), []);
      receiver.leave();
      assertEquals(sender.take("resource_gone").map(({ body }) => body.handle), [destination]);
    });
  }

  it("a lane whose bell the second of its ends does not name is over", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [receiver, sender] = [returned(world, 1), returned(world, 2)];
    const destination = { context: VM, resource: 3000 };
    const args = { type: "DATAGRAM", handle: destination, size: 0, creatorOnly: false, ticket: null } as const;
    const lane = (sends: boolean) => ({ lane: 4000, source: none, destination, sender: sends, ticket: "" });
    assert(receiver.ask("announce_resource", args).accepted);
    sender.ask("announce_peers", { peers: [receiver.client.number] });
    sender.ask("announce_lane", lane(true));
    receiver.ask("announce_lane", lane(false));
    for (const client of [sender, receiver]) client.ask("announced", {});
    assertEquals([causes(sender), causes(receiver), world.inspect("lanes")], [["gone"], ["ended"], []]);
  });

  it("who announces a lane that its receiver does not is told when that goes where it sent to", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [receiver, sender] = [returned(world, 1), returned(world, 2)];
    const [destination, other] = [{ context: VM, resource: 3000 }, { context: VM, resource: 3001 }];
    announceEndpoint(receiver, destination);
    for (const [lane, to] of [[4000, destination], [4001, other]] as const) {
      sender.ask("announce_lane", { lane, source: none, destination: to, sender: true, ticket: "" });
    }
    for (const client of [receiver, sender]) client.ask("announced", {});
    assertEquals(sender.take("lane_closed").map(({ body }) => body.lane), [4000, 4001]);
    assertEquals(sender.take("resource_gone").map(({ body }) => body.handle), [other]);
    receiver.ask("destroy", { type: "DATAGRAM", handle: destination });
    assertEquals(sender.take("resource_gone").map(({ body }) => body.handle), [destination]);
  });

  it("a lane that nobody can have been given is closed, for the end that says so", () => {
    const world = new BrokerWorld({ firstNumber: FIRST });
    const client = returned(world, 1);
    const lane = { lane: 2 ** 31, source: none, destination: { context: VM, resource: 3000 }, ticket: "" };
    for (const [sender, cause] of [[true, "gone"], [false, "ended"]] as const) {
      assertEquals(client.ask("announce_lane", { ...lane, sender }).accepted, false);
      assertEquals(client.take("lane_closed").map(({ body }) => body), [{ lane: 2 ** 31, cause }]);
    }
  });

  it("a peer that was never given a number is none", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [slotSurvivor(1), slotSurvivor(2)] });
    const [one, other] = [returned(world, 1), returned(world, 2)];
    one.ask("announce_peers", { peers: [2 ** 31, other.client.number] });
    assertEquals([...one.client.peers], [other.client.number]);
    assertEquals([...other.client.peers], [one.client.number]);
    // The other one knows nothing of a bell between them.
    for (const client of [one, other]) client.ask("announced", {});
    assertEquals(one.take("peer_gone").map(({ body }) => body.peer), [other.client.number]);
    assertEquals([one.client.peers.size, other.client.peers.size], [0, 0]);
  });
});

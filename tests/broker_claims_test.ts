/** What is said to the next broker of names, groups and grants: it must be proven, each by a ticket of its own. */

import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { contextHandle, type Handle } from "../mod.ts";
import { slotSurvivor, type Tickets } from "../src/fabric/broker.ts";
import { PUBLIC_GROUP_NAME } from "../src/limits.ts";
import type { ResourceTypeName } from "../src/privilege.ts";
import type { Requests } from "../src/fabric/protocol.ts";
import { BrokerWorld, type TestClient } from "./support/broker_world.ts";

const VM = 16;
const OTHER = 17;
const GUEST = 18;

/** As a daemon's, but readable: a ticket says what it is for. */
const tickets: Tickets = {
  issue: (claim) => `of ${claim}`,
  isGenuine: (claim, ticket) => ticket === `of ${claim}`,
};

/** Of another user than the broker's. */
const stranger = { privileged: false };

/** The next broker, which waits for somebody who does not come. */
function nextOf(world: BrokerWorld): BrokerWorld {
  return new BrokerWorld({ tickets, firstNumber: world.medium.mark, survivors: [slotSurvivor(1)] });
}

function announce(client: TestClient, type: ResourceTypeName, { handle, ticket }: { handle: Handle; ticket: string }) {
  return client.ask("announce_resource", { type, handle, ticket, size: 0, creatorOnly: false }).accepted;
}

function entries(
  type: ResourceTypeName,
  handle: Handle,
  what: Partial<Requests["announce_entries"]>,
): Requests["announce_entries"] {
  return { type, handle, grants: [], names: [], members: [], tickets: [], ...what };
}

describe("broker: claims", () => {
  it("a name comes back to who had it last, and to nobody who only says so", () => {
    for (const order of [[0, 1], [1, 0]] as const) {
      const world = new BrokerWorld({ tickets });
      const had = [VM, OTHER].map((context) => {
        const client = world.join(context, {}, stranger);
        const made = client.ask("create_endpoint", { resource: null, wellKnown: false });
        client.ask("register", { name: "db", handle: made.handle });
        const proof = client.take("keep_name")[0]!.body.ticket;
        if (context === VM) client.ask("unregister", { name: "db" });
        return { ...made, proof };
      });
      const next = nextOf(world);
      const thief = next.join(VM, { client: 1 }, stranger);
      const claim = (client: TestClient, handle: Handle, name: string, proof: string) =>
        client.ask("announce_entries", entries("DATAGRAM", handle, { names: [name], tickets: [proof] })).refused;
      const fresh = thief.endpoint();
      for (const proof of ["", "9 ", "of nothing", ...had.map(({ proof }) => proof)]) {
        assertEquals(claim(thief, fresh, "db", proof), ["db"], proof);
      }
      const back = [VM, OTHER].map((context) => next.join(context, { client: 1 }, stranger));
      for (const [i, { handle, proof }] of had.entries()) {
        assert(announce(back[i]!, "DATAGRAM", had[i]!));
        for (const name of ["another", PUBLIC_GROUP_NAME]) assertEquals(claim(back[i]!, handle, name, proof), [name]);
      }
      // Who announces first cannot be known to have lost it; it is told when the other one comes.
      const refused = order.map((i) => claim(back[i]!, had[i]!.handle, "db", had[i]!.proof));
      assertEquals(refused, order[0] === 0 ? [[], []] : [[], ["db"]]);
      const lost = back[0]!.take("keep_name").map(({ body }) => body.present);
      assertEquals(lost, order[0] === 0 ? [false] : []);
      next.deliver(next.broker.endRecovery());
      assertEquals(thief.ask("lookup", { name: "db" }), { handle: had[1]!.handle });
    }
  });

  it("nobody can claim the public group's name, however late his number", () => {
    const world = new BrokerWorld({ firstNumber: 5000 });
    const mine = world.join(VM, { client: 1500 });
    const handle = mine.endpoint();
    const claim = entries("DATAGRAM", handle, { names: [PUBLIC_GROUP_NAME], tickets: ["4999 "] });
    assertEquals(mine.ask("announce_entries", claim).refused, [PUBLIC_GROUP_NAME]);
  });

  it("a group's member comes back as it joined, and not in another order", () => {
    const world = new BrokerWorld({ tickets });
    const owner = world.join(VM, {}, stranger);
    world.join(GUEST);
    const made = owner.ask("create_group", {});
    const group = made.handle;
    owner.ask("add_member", { group, member: GUEST, canAssign: false });
    const { member, ticket } = owner.take("keep_member").at(-1)!.body;

    const next = new BrokerWorld({ tickets, firstNumber: world.medium.mark });
    const guest = next.join(GUEST);
    const back = next.join(VM, { client: 1 }, stranger);
    assert(announce(back, "GROUP", made));
    const claim = (lie: Partial<typeof member>, proof = ticket) => {
      const members = [{ ...member, ...lie }];
      back.ask("announce_entries", entries("GROUP", group, { members, tickets: [proof] }));
      return guest.ask("is_member", { group, member: members[0]!.context }).member;
    };
    const lies = [{ order: member.order - 1 }, { canAssign: true }, { context: VM }];
    assertEquals(lies.map((lie) => claim(lie)), [false, false, false]);
    assertEquals([claim({}, ""), claim({}, "of nothing"), claim({})], [false, false, true]);
    // Who is in it stays what he is, whatever is said again.
    claim({ canAssign: true });
    const assigns = { resource: group, client: contextHandle(GUEST), privilege: "ASSIGN_CLIENT" } as const;
    assertEquals(guest.ask("check", assigns).code, "NO_ACCESS");
  });

  it("what a group is allowed comes back by proof only, what it is denied in any case", () => {
    const world = new BrokerWorld({ tickets });
    const [host, owner] = [world.join(), world.join(VM, {}, stranger)];
    const group = host.ask("create_group", {});
    host.ask("grant", { resource: group.handle, client: contextHandle(VM), allow: ["ASSIGN_CLIENT"], deny: [] });
    const mailbox = owner.ask("create_endpoint", { resource: null, wellKnown: false });
    owner.ask("grant", { resource: mailbox.handle, client: group.handle, allow: ["DG_SEND"], deny: ["CH_PRIV"] });
    const { entry, ticket } = owner.take("keep_grant").at(-1)!.body;
    for (const proof of ["", "of nothing", ticket]) {
      const next = new BrokerWorld({ tickets, firstNumber: world.medium.mark });
      const [of, back] = [next.join(), next.join(VM, { client: 1 }, stranger)];
      assert(announce(of, "GROUP", group) && announce(back, "DATAGRAM", mailbox));
      back.ask("announce_entries", entries("DATAGRAM", mailbox.handle, { grants: [entry], tickets: [proof] }));
      const check = (privilege: "DG_SEND" | "CH_PRIV") =>
        of.ask("check", { resource: mailbox.handle, client: group.handle, privilege }).code;
      assertEquals(check("DG_SEND"), proof === ticket ? "SUCCESS_ACCESS_GRANTED" : "INVALID_PRIV");
      assertEquals(check("CH_PRIV"), "NO_ACCESS");
    }
  });

  it("where a program may have had the broker, its own user needs no proof, and nobody else is believed", () => {
    for (const followsAny of [false, true]) {
      const next = new BrokerWorld({ tickets, firstNumber: 5000, followsAny });
      const hello = (context: number, client: number, identity = {}) =>
        next.join(context, { client, ticket: "" }, identity);
      const unproven = (context: number) => ({ handle: { context, resource: 2000 + context }, ticket: "" });
      const [mine, theirs] = [hello(VM, 1500), hello(OTHER, 1501, stranger)];
      assertEquals([mine.client.number === 1500, theirs.client.number === 1501], [followsAny, false]);
      const accepted = [announce(mine, "GROUP", unproven(VM)), announce(theirs, "GROUP", unproven(OTHER))];
      assertEquals(accepted, [followsAny, false]);
    }
  });

  it("a place in the roster is had by the broker's own user only", () => {
    const world = new BrokerWorld({ survivors: [slotSurvivor(3)] });
    world.join(VM, { slot: 3 }, stranger).ask("announced", {});
    assert(world.broker.recovering, "a stranger took the place of somebody who is waited for");
    world.join(VM, { slot: 3 });
    assert(!world.broker.recovering);
  });
});

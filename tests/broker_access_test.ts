/** Who may do what, as the broker decides it: handles of others, revocation, flags, policy, tickets, repeated requests. */

import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { contextHandle, type ErrorCodeName, type Handle, HOST_CONTEXT, INVALID_HANDLE } from "../mod.ts";
import { PUBLIC_GROUP, slotSurvivor, type Tickets } from "../src/fabric/broker.ts";
import { Policy } from "../src/fabric/policy.ts";
import type { Operation, Requests } from "../src/fabric/protocol.ts";
import { BrokerWorld, helloArgs, type TestClient } from "./support/broker_world.ts";

const [VM, OTHER] = [16, 17];
const [RESTRICTED, TRUSTED] = [1, 2];
const vm = contextHandle(VM);

function policyOf(...lines: string[]): Policy {
  return Policy.parse(lines.join("\n"), "policy");
}

function setPolicy(world: BrokerWorld, ...lines: string[]): void {
  world.deliver(world.broker.setPolicy(policyOf(...lines)));
}

describe("broker: handles that are not one's own, of another kind, or gone", () => {
  const wellKnown: Handle = { context: 1, resource: 5000 };
  /** What the host has, and the guest asks for. */
  interface Scene {
    readonly endpoint: Handle;
    readonly region: Handle;
    readonly group: Handle;
    readonly dead: Handle;
  }
  type Case = readonly [ErrorCodeName, Operation, what: string, (scene: Scene) => Requests[Operation]];
  const to = (destination: Handle) => ({ source: INVALID_HANDLE, destination });
  const cases: readonly Case[] = [
    ["NO_ACCESS", "destroy", "another's", ({ endpoint }) => ({ type: "DATAGRAM", handle: endpoint })],
    ["NO_ACCESS", "destroy", "another's group", ({ group }) => ({ type: "GROUP", handle: group })],
    ["NO_ACCESS", "destroy", "the public group", () => ({ type: "GROUP", handle: PUBLIC_GROUP })],
    ["INVALID_RESOURCE", "destroy", "a region", ({ region }) => ({ type: "SHAREDMEM", handle: region })],
    ["NOT_FOUND", "destroy", "another kind", ({ endpoint }) => ({ type: "GROUP", handle: endpoint })],
    ["NOT_FOUND", "destroy", "a dead one", ({ dead }) => ({ type: "DATAGRAM", handle: dead })],
    ["NO_ACCESS", "open_lane", "another's", ({ endpoint }) => to(endpoint)],
    ["DST_UNREACHABLE", "open_lane", "the hypervisor", () => to({ context: 0, resource: 1 })],
    ["DST_UNREACHABLE", "open_lane", "a well-known one of nobody", () => to(wellKnown)],
    ["INVALID_ARGS", "open_lane", "a context that is not there", () => to({ context: 99, resource: 1024 })],
    ["INVALID_ARGS", "open_lane", "another kind", ({ region }) => to(region)],
    ["INVALID_ARGS", "open_lane", "a dead one", ({ dead }) => to(dead)],
    ["NOT_FOUND", "query", "another kind", ({ endpoint }) => ({ handle: endpoint })],
    ["NOT_FOUND", "query", "a dead one", ({ dead }) => ({ handle: dead })],
    ["NO_ACCESS", "attach", "another's", ({ region }) => ({ handle: region })],
    ["NOT_FOUND", "attach", "another kind", ({ group }) => ({ handle: group })],
    ["INVALID_ARGS", "detach", "another's", ({ region }) => ({ handle: region })],
    ["NOT_FOUND", "detach", "none", () => ({ handle: INVALID_HANDLE })],
    ["INVALID_ARGS", "watch_region", "another's", ({ region }) => ({ handle: region })],
    ["NOT_FOUND", "watch_region", "another kind", ({ endpoint }) => ({ handle: endpoint })],
    ["NO_ACCESS", "grant", "another's", ({ endpoint }) => granting(endpoint, vm)],
    ["INVALID_ARGS", "grant", "a dead one", ({ dead }) => granting(dead, vm)],
    ["NO_ACCESS", "revoke", "another's", ({ endpoint }) => revoking(endpoint, vm)],
    ["INVALID_ARGS", "revoke", "none", () => revoking(INVALID_HANDLE, vm)],
    ["NO_ACCESS", "revoke_all", "another's", ({ group }) => ({ resource: group, client: vm })],
    ["INVALID_ARGS", "revoke_all", "a dead one", ({ dead }) => ({ resource: dead, client: vm })],
    ["INVALID_ARGS", "check", "a dead one", ({ dead }) => ({ resource: dead, client: vm, privilege: "DG_SEND" })],
    ["INVALID_ARGS", "check", "for what is no client", ({ endpoint, region }) => {
      return { resource: endpoint, client: region, privilege: "DG_SEND" };
    }],
    ["INVALID_PRIV", "check", "what it does not have", ({ endpoint }) => {
      return { resource: endpoint, client: vm, privilege: "SM_ATTACH" };
    }],
    ["NO_ACCESS", "add_member", "another's", ({ group }) => ({ group, member: VM, canAssign: true })],
    ["INVALID_ARGS", "add_member", "another kind", ({ region }) => ({ group: region, member: VM, canAssign: true })],
    ["NO_ACCESS", "add_member", "somebody else to the public group", () => {
      return { group: PUBLIC_GROUP, member: HOST_CONTEXT, canAssign: true };
    }],
    ["NO_ACCESS", "remove_member", "somebody else", ({ group }) => ({ group, member: HOST_CONTEXT })],
    ["INVALID_ARGS", "remove_member", "who is none", ({ group }) => ({ group, member: VM })],
    ["INVALID_ARGS", "remove_member", "a dead one", ({ dead }) => ({ group: dead, member: VM })],
    ["INVALID_ARGS", "is_member", "another kind", ({ endpoint }) => ({ group: endpoint, member: VM })],
    ["NO_ACCESS", "register", "another's", ({ endpoint }) => ({ name: "new", handle: endpoint })],
    ["NO_ACCESS", "register", "the public group", () => ({ name: "new", handle: PUBLIC_GROUP })],
    ["INVALID_ARGS", "register", "a dead one", ({ dead }) => ({ name: "new", handle: dead })],
    ["INVALID_ARGS", "register", "none", () => ({ name: "new", handle: INVALID_HANDLE })],
    ["NO_ACCESS", "unregister", "another's name", () => ({ name: "of the host" })],
    ["NOT_FOUND", "unregister", "no name", () => ({ name: "new" })],
    ["NOT_FOUND", "ping", "a dead one", ({ dead }) => ({ handle: dead, token: 1 })],
    ["UNAVAILABLE", "ping", "what no process stands behind", () => ({ handle: PUBLIC_GROUP, token: 1 })],
  ];
  for (const [code, op, what, argsOf] of cases) {
    it(`${op} ${what}: ${code}`, () => {
      const world = new BrokerWorld();
      const [host, guest] = [world.join(), world.join(VM)];
      const scene = { endpoint: host.endpoint(), region: host.region(), group: host.group(), dead: host.endpoint() };
      host.ask("register", { name: "of the host", handle: scene.endpoint });
      host.ask("destroy", { type: "DATAGRAM", handle: scene.dead });
      const before = world.snapshot();
      const told = host.pending;
      guest.refused(code, op, argsOf(scene));
      assertEquals([world.snapshot(), host.pending, guest.pending], [before, told, []]);
    });
  }

  it("as a client, only contexts and groups that one may assign", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const mine = guest.endpoint();
    const group = host.group();
    const before = world.snapshot();
    guest.refused("INVALID_ARGS", "grant", granting(mine, INVALID_HANDLE));
    guest.refused("INVALID_ARGS", "grant", granting(mine, mine));
    guest.refused("INVALID_ARGS", "grant", { ...granting(mine, vm), allow: [] });
    guest.refused("INVALID_PRIV", "grant", { ...granting(mine, vm), deny: ["SM_ATTACH"] });
    guest.refused("NO_ACCESS", "grant", granting(mine, group));
    host.ask("add_member", { group, member: VM, canAssign: false });
    guest.refused("NO_ACCESS", "grant", granting(mine, group));
    guest.refused("INVALID_ARGS", "revoke", { ...revoking(mine, vm), privileges: [] });
    guest.refused("INVALID_ARGS", "revoke", revoking(mine, vm));
    guest.refused("INVALID_PRIV", "revoke", { ...revoking(mine, vm), privileges: ["SM_ATTACH"] });
    host.ask("remove_member", { group, member: VM });
    assertEquals(world.snapshot(), before);
    host.ask("add_member", { group, member: VM, canAssign: true });
    guest.ask("grant", granting(mine, group));
    guest.ask("grant", granting(mine, contextHandle(99)));
  });

  it("the host may take any name away but that of the public group", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    guest.ask("register", { name: "of the guest", handle: guest.endpoint() });
    host.ask("unregister", { name: "of the guest" });
    assertEquals(guest.take("keep_name").map(({ body }) => body.present), [true, false]);
    host.refused("NO_ACCESS", "unregister", { name: "vmci public group" });
  });

  it("who may destroy another's resource does, and its owner is told", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    for (const [type, handle] of [["DATAGRAM", host.endpoint()], ["GROUP", host.group()]] as const) {
      host.ask("grant", { resource: handle, client: vm, allow: ["DESTROY_RESOURCE"], deny: [] });
      guest.ask("destroy", { type, handle });
      assertEquals(host.take("destroyed").map(({ body }) => body), [{ type, handle }]);
    }
    assertEquals(world.inspect("resources").length, 1);
  });
});

function granting(resource: Handle, client: Handle): Requests["grant"] {
  return { resource, client, allow: ["CH_PRIV"], deny: [] };
}

function revoking(resource: Handle, client: Handle): Requests["revoke"] {
  return { resource, client, privileges: ["CH_PRIV"] };
}

/** A host with a mailbox, and a guest that sends to it because it is in a group. */
class Correspondence {
  readonly world: BrokerWorld = new BrokerWorld();
  readonly host: TestClient = this.world.join();
  readonly guest: TestClient = this.world.join(VM);
  readonly owner: TestClient = this.world.join(OTHER);
  readonly mailbox: Handle = this.host.endpoint();
  readonly source: Handle = this.guest.endpoint();
  readonly group: Handle = this.owner.group();

  constructor() {
    this.owner.ask("add_member", { group: this.group, member: VM, canAssign: false });
    this.owner.ask("add_member", { group: this.group, member: HOST_CONTEXT, canAssign: true });
    this.set(this.group, "allow");
    this.guest.ask("open_lane", { source: this.source, destination: this.mailbox });
  }

  /** Allows or denies somebody to send. */
  set(client: Handle, how: "allow" | "deny"): void {
    const nothing = { resource: this.mailbox, client, allow: [], deny: [] };
    this.host.ask("grant", { ...nothing, [how]: ["DG_SEND"] });
  }

  /** Why the lane was closed, as its sender and its receiver are told. */
  get closed(): (string | undefined)[] {
    return [this.guest, this.host].map((it) => it.take("lane_closed").at(0)?.body.cause);
  }
}

describe("broker: a lane", () => {
  const revocations: Readonly<Record<string, (of: Correspondence) => void>> = {
    "its sender is denied it": ({ set }) => set(vm, "deny"),
    "its sender's group is denied it": ({ set, group }) => set(group, "deny"),
    "the group's right is revoked": ({ host, mailbox, group }) =>
      host.ask("revoke", { resource: mailbox, client: group, privileges: ["DG_SEND"] }),
    "all rights of the group are revoked": ({ host, mailbox, group }) =>
      host.ask("revoke_all", { resource: mailbox, client: group }),
    "its sender is put out of the group": ({ owner, group }) => owner.ask("remove_member", { group, member: VM }),
    "its sender leaves the group": ({ guest, group }) => guest.ask("remove_member", { group, member: VM }),
    "the group is destroyed": ({ owner, group }) => owner.ask("destroy", { type: "GROUP", handle: group }),
    "the group's owner is gone": ({ owner }) => owner.leave(),
    "its sender becomes restricted": ({ world }) => setPolicy(world, `flags restricted context ${VM}`),
    "its receiver becomes restricted": ({ world }) => setPolicy(world, `flags restricted context ${HOST_CONTEXT}`),
    "both become restricted, and one of them trusted": ({ world }) => {
      setPolicy(world, "flags restricted context all", `flags trusted context ${VM}`);
      assertEquals(world.inspect("lanes").length, 1, "a trusted one may talk to a restricted one");
      setPolicy(world, "flags restricted context all");
    },
  };
  for (const [what, revoke] of Object.entries(revocations)) {
    it(`is closed at once when ${what}`, () => {
      const of = new Correspondence();
      assertEquals(of.world.inspect("lanes").length, 1);
      revoke(Object.assign(of, { set: of.set.bind(of) }));
      assertEquals(of.closed, ["revoked", "revoked"]);
      assertEquals(of.world.inspect("lanes"), []);
      of.guest.refused("NO_ACCESS", "open_lane", { source: of.source, destination: of.mailbox });
    });
  }

  it("stays open when something else is changed", () => {
    const of = new Correspondence();
    of.set(contextHandle(OTHER), "deny");
    of.host.ask("grant", { resource: of.mailbox, client: of.group, allow: [], deny: ["CH_PRIV", "DESTROY_RESOURCE"] });
    of.host.ask("revoke", { resource: of.mailbox, client: of.group, privileges: ["CH_PRIV"] });
    // What is set for the sender itself counts before any group.
    of.set(vm, "allow");
    of.set(of.group, "deny");
    of.owner.ask("remove_member", { group: of.group, member: HOST_CONTEXT });
    of.owner.ask("destroy", { type: "GROUP", handle: of.group });
    setPolicy(of.world, `flags trusted context ${VM}`);
    assertEquals([of.closed, of.world.inspect("lanes").length], [[undefined, undefined], 1]);
  });

  const endings: Readonly<Record<string, (of: Correspondence) => (string | undefined)[]>> = {
    "its source is destroyed": ({ guest, source }) => {
      guest.ask("destroy", { type: "DATAGRAM", handle: source });
      return [undefined, "ended"];
    },
    "its destination is destroyed": ({ host, guest, mailbox }) => {
      host.ask("destroy", { type: "DATAGRAM", handle: mailbox });
      assertEquals(guest.take("resource_gone").map(({ body }) => body), [{ type: "DATAGRAM", handle: mailbox }]);
      return ["gone", undefined];
    },
    "its sender is gone": ({ host, guest }) => {
      guest.leave();
      assertEquals(host.take("peer_gone").map(({ body }) => body), [{ peer: guest.client.number }]);
      return [undefined, "ended"];
    },
    "its receiver is gone": ({ host, guest }) => {
      host.leave();
      assertEquals(guest.take("peer_gone").map(({ body }) => body), [{ peer: host.client.number }]);
      return ["gone", undefined];
    },
  };
  for (const [what, end] of Object.entries(endings)) {
    it(`ends when ${what}, and those who need to know are told why`, () => {
      const of = new Correspondence();
      const causes = end(of);
      assertEquals([of.closed, of.world.inspect("lanes")], [causes, []]);
    });
  }
});

describe("broker: regions", () => {
  it("tell those attached who comes and goes, and when nobody new can come", () => {
    const world = new BrokerWorld();
    const [host, guest, other] = [world.join(), world.join(VM), world.join(VM)];
    const handle = host.region(5000);
    const peers = (client: TestClient) => client.take("region_peer").map(({ body }) => [body.context, body.attached]);
    host.ask("grant", { resource: handle, client: vm, allow: ["SM_ATTACH"], deny: [] });
    assertEquals(guest.ask("attach", { handle }), {
      size: 5000,
      creatorOnly: false,
      writable: true,
      attachment: "",
      peers: [HOST_CONTEXT],
    });
    guest.ask("attach", { handle });
    other.ask("attach", { handle });
    assertEquals([host, guest, other].map(peers), [[[VM, true], [VM, true]], [[VM, true]], []]);
    assertEquals(guest.ask("detach", { handle }).last, false);
    assertEquals(peers(host), [], "it is attached a second time");
    host.ask("register", { name: "name", handle });
    assertEquals(host.ask("detach", { handle }).last, false);
    for (const client of [guest, other]) {
      assertEquals(peers(client), [[HOST_CONTEXT, false]]);
      assertEquals(client.take("resource_gone").map(({ body }) => body), [{ type: "SHAREDMEM", handle }]);
      assertEquals(client.ask("query", { handle }), { size: 5000 });
      client.refused("UNAVAILABLE", "attach", { handle });
    }
    assertEquals(world.names().length, 1, "its name went with its creator");
    host.refused("UNAVAILABLE", "register", { name: "name", handle });
    host.refused("UNAVAILABLE", "ping", { handle, token: 1 });
    other.leave();
    assertEquals(peers(guest), [[VM, false]]);
    assertEquals(guest.ask("detach", { handle }).last, true);
    guest.refused("NOT_FOUND", "query", { handle });
  });

  it("that only their creator writes are readable to others", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const handle = host.region(10, "creator");
    host.ask("grant", { resource: handle, client: vm, allow: ["SM_ATTACH"], deny: [] });
    const attached = [host, guest].map((it) => it.ask("attach", { handle }));
    assertEquals(attached.map(({ creatorOnly, writable }) => [creatorOnly, writable]), [[true, true], [true, false]]);
  });
});

describe("broker: coarse flags", () => {
  it("RESTRICTED ones claim no well-known handles, and reserved ids are for TRUSTED ones", () => {
    const world = new BrokerWorld();
    const [plain, restricted, trusted] = [0, RESTRICTED, TRUSTED].map((flags, i) => world.join(VM + i, { flags }));
    const claim = (resource: number) => ({ resource, wellKnown: true });
    restricted!.refused("NO_ACCESS", "create_endpoint", claim(5000));
    plain!.refused("NO_ACCESS", "create_endpoint", claim(1023));
    assertEquals(plain!.ask("create_endpoint", claim(1024)).handle, { context: 1, resource: 1024 });
    assertEquals(trusted!.ask("create_endpoint", claim(5)).handle, { context: 1, resource: 5 });
    trusted!.refused("DUPLICATE_ENTRY", "create_endpoint", claim(1024));
  });

  it("count before anything that is granted", () => {
    const world = new BrokerWorld();
    const [restricted, plain, trusted] = [RESTRICTED, 0, TRUSTED].map((flags, i) => world.join(VM + i, { flags }));
    const resource = restricted!.endpoint();
    for (const client of [contextHandle(VM + 1), contextHandle(VM + 2)]) {
      restricted!.ask("grant", { resource, client, allow: ["DG_SEND"], deny: [] });
    }
    plain!.refused("NO_ACCESS", "open_lane", { source: INVALID_HANDLE, destination: resource });
    trusted!.ask("open_lane", { source: INVALID_HANDLE, destination: resource });
    const check = (context: number) =>
      plain!.ask("check", { resource, client: contextHandle(context), privilege: "DG_SEND" });
    assertEquals(check(VM + 1), { code: "NO_ACCESS", decidedBy: null, via: "flags" });
    assertEquals(check(VM + 2).code, "SUCCESS_ACCESS_GRANTED");
    // Of who is not there it is not known.
    restricted!.ask("grant", { resource, client: contextHandle(99), allow: ["DG_SEND"], deny: [] });
    assertEquals(check(99).via, "own");
  });
});

describe("broker: policy", () => {
  it("grants on every new resource, and has the owners keep it", () => {
    const world = new BrokerWorld({
      policy: policyOf(
        `grant DG_SEND on DATAGRAM of ${HOST_CONTEXT} to ${VM}`,
        "grant SM_ATTACH on SHAREDMEM to public",
        `grant CH_PRIV on GROUP of ${OTHER} to ${VM}`,
      ),
    });
    const [host, guest] = [world.join(), world.join(VM)];
    guest.ask("open_lane", { source: INVALID_HANDLE, destination: host.endpoint() });
    guest.ask("attach", { handle: host.region() });
    guest.refused("NO_ACCESS", "add_member", { group: host.group(), member: VM, canAssign: true });
    const kept = host.take("keep_grant").map(({ body }) => [body.type, body.entry]);
    assertEquals(kept, [
      ["DATAGRAM", { client: vm, states: { DG_SEND: "ALLOW" } }],
      ["SHAREDMEM", { client: PUBLIC_GROUP, states: { SM_ATTACH: "ALLOW" } }],
    ]);
    const group = world.join(OTHER).group();
    guest.ask("add_member", { group, member: VM, canAssign: true });
    setPolicy(world);
    guest.refused("NO_ACCESS", "open_lane", { source: INVALID_HANDLE, destination: host.endpoint() });
  });

  it("decrees flags: others cannot be had, and who names none has them", () => {
    const world = new BrokerWorld({ policy: policyOf(`flags restricted context ${VM}`) });
    const share = [world.medium.share("attention")];
    world.connect().refused("NO_ACCESS", "hello", helloArgs({ context: VM, flags: TRUSTED }), share);
    const flags = () => world.inspect("contexts").map((it) => it.flags);
    const [plain, same] = [world.join(VM), world.join(VM, { flags: RESTRICTED })];
    assertEquals([flags(), plain.client.context], [[RESTRICTED], same.client.context]);
    setPolicy(world, `flags trusted context ${VM}`);
    assertEquals(flags(), [TRUSTED]);
    setPolicy(world);
    assertEquals(flags(), [0], "what its first process gave it");
  });

  it("who comes back has a place whatever the flags, but no more than the policy gives", () => {
    const world = new BrokerWorld({ policy: policyOf(`flags restricted context ${VM}`), firstNumber: 5000 });
    const back = { client: 4000, flags: TRUSTED };
    assertEquals(world.join(VM, back).client.number, 4000);
    world.join(OTHER, { ...back, client: 4001 }, { privileged: false });
    assertEquals(world.inspect("contexts").map(({ context, flags }) => [context, flags]), [[VM, RESTRICTED], [
      OTHER,
      0,
    ]]);
    // One of the broker's own user gives its context back the flags it had.
    world.join(OTHER, { ...back, client: 4002 });
    assertEquals(world.inspect("contexts")[1]!.flags, TRUSTED);
  });

  it("whose hello is refused has changed no flags", () => {
    const world = new BrokerWorld({ firstNumber: 5000 });
    world.join(VM);
    const before = world.snapshot();
    const back = helloArgs({ context: VM, client: 4000, flags: RESTRICTED });
    world.connect().refused("INVALID_ARGS", "hello", back);
    world.connect().refused("INVALID_ARGS", "hello", back, [world.medium.share("region")]);
    assertEquals(world.snapshot(), before);
  });

  it("lanes that the flags of one who comes back forbid are closed", () => {
    const of = new Correspondence();
    of.world.join(VM, { client: 1025, flags: RESTRICTED });
    assertEquals([of.closed, of.world.inspect("lanes")], [["revoked", "revoked"], []]);
  });

  it("quotas hold at once", () => {
    const world = new BrokerWorld();
    const client = world.join(VM);
    client.endpoint();
    setPolicy(world, `quota resources 1 context ${VM}`);
    client.refused("NO_RESOURCES", "create_group", {});
    world.join(OTHER).group();
    setPolicy(world);
    client.group();
  });
});

describe("broker: tickets", () => {
  /** As a daemon's, but readable: a ticket says what it is for. */
  const tickets: Tickets = {
    issue: (claim) => `of ${claim}`,
    isGenuine: (claim, ticket) => ticket === `of ${claim}`,
  };
  const stranger = { privileged: false };

  it("bring back what their holder had, and nothing else", () => {
    const world = new BrokerWorld({ tickets });
    const old = world.join(VM, {}, stranger);
    const mailbox = old.ask("create_endpoint", { resource: null, wellKnown: false });
    const group = old.ask("create_group", {});
    const claimed = old.ask("create_endpoint", { resource: 5000, wellKnown: true });
    const share = (it: BrokerWorld) => [it.medium.share("region", 10, "creator")];
    const region = old.ask("create_region", { size: 10, creatorOnly: true }, share(world));
    const next = new BrokerWorld({ tickets, firstNumber: world.medium.mark, survivors: [slotSurvivor(1)] });
    const [same, other] = [VM, OTHER].map((context) => next.join(context, { slot: 1, client: 1 }, stranger));
    const announce = (client: TestClient, args: Partial<Requests["announce_resource"]>) => {
      const whole = { size: 0, creatorOnly: false, ...args } as Requests["announce_resource"];
      return client.ask("announce_resource", whole, share(next)).accepted;
    };
    const all = [
      { type: "DATAGRAM", ...mailbox },
      { type: "GROUP", ...group },
      { type: "DATAGRAM", ...claimed },
      { type: "SHAREDMEM", ...region, size: 10, creatorOnly: true },
    ] as const;
    for (const args of all) {
      assert(!announce(other!, args), "it is another context's");
      for (const ticket of [null, "", "of nothing", mailbox.ticket + " "]) {
        assert(!announce(same!, { ...args, ticket }), `'${ticket}' is no ticket`);
      }
      const wrong = args.type === "DATAGRAM" ? { type: "GROUP" as const } : { type: "DATAGRAM" as const };
      for (const lie of [wrong, { handle: { ...args.handle, resource: 1030 } }, { size: 11 }]) {
        assert(!announce(same!, { ...args, ...lie }), Deno.inspect(lie));
      }
    }
    const { handle, attachment } = region;
    const attached = (client: TestClient, lie: Partial<Requests["announce_attachment"]> = {}) =>
      client.ask("announce_attachment", {
        handle,
        count: 1,
        size: 10,
        creatorOnly: true,
        ticket: attachment,
        ...lie,
      }).accepted;
    const lies = [{ ticket: null }, { ticket: region.ticket }, { size: 11 }, { creatorOnly: false }, { count: 0 }];
    assertEquals(lies.map((lie) => attached(same!, lie)), lies.map(() => false));
    assert(!attached(other!));
    assertEquals(all.map((args) => announce(same!, args)), [true, true, true, true]);
    assert(attached(same!));
    same!.ask("announced", {});
    next.deliver(next.broker.endRecovery());
    assertEquals(next.inspect("resources").length, 5);
    assertEquals(same!.ask("detach", { handle }), { last: true });
  });

  it("a well-known handle comes back to who had it last, whoever had it before and announces first", () => {
    for (const order of [[0, 1], [1, 0]]) {
      const world = new BrokerWorld({ tickets });
      const clients = [world.join(VM, {}, stranger), world.join(OTHER, {}, stranger)];
      const claimed = clients.map((client) => {
        const made = client.ask("create_endpoint", { resource: 5000, wellKnown: true });
        if (client === clients[0]) client.ask("destroy", { type: "DATAGRAM", handle: made.handle, repeated: false });
        return made;
      });
      const survivors = [slotSurvivor(1), slotSurvivor(2)];
      const next = new BrokerWorld({ tickets, firstNumber: world.medium.mark, survivors });
      const back = [VM, OTHER].map((context, i) => next.join(context, { slot: i + 1, client: i + 1 }, stranger));
      const announce = (who: number) =>
        back[who]!.ask("announce_resource", { type: "DATAGRAM", size: 0, creatorOnly: false, ...claimed[who]! })
          .accepted;
      // Who announces first cannot be known to have lost it; it is told when the other one comes.
      assertEquals(order.map(announce), order[0] === 0 ? [true, true] : [true, false]);
      assertEquals(back.map((it) => it.take("destroyed").length), order[0] === 0 ? [1, 0] : [0, 0]);
      for (const client of back) client.ask("announced", {});
      next.deliver(next.broker.endRecovery());
      const counts = next.inspect("contexts").map(({ context, resources }) => [context, resources]);
      assertEquals(counts.filter(([, resources]) => resources === 1), [[OTHER, 1]]);
    }
  });

  it("a lane comes back to those who were at its ends, and to nobody else", () => {
    const world = new BrokerWorld({ tickets });
    const [receiver, sender] = [world.join(VM, {}, stranger), world.join(OTHER, {}, stranger)];
    const mailbox = receiver.ask("create_endpoint", { resource: null, wellKnown: false });
    receiver.ask("grant", { resource: mailbox.handle, client: contextHandle(OTHER), allow: ["DG_SEND"], deny: [] });
    const way = { source: INVALID_HANDLE, destination: mailbox.handle };
    const sent = sender.ask("open_lane", way);
    const [got] = receiver.take("lane");
    const next = new BrokerWorld({ tickets, firstNumber: world.medium.mark, survivors: [slotSurvivor(1)] });
    const back = (it: TestClient, context: number) =>
      next.join(
        context,
        { slot: 1, client: it.client.number, ticket: `of ["client",${it.client.number},${context}]` },
        stranger,
      );
    const [receives, sends, forger] = [
      back(receiver, VM),
      back(sender, OTHER),
      next.join(OTHER, { client: 1 }, stranger),
    ];
    assert(
      receives.ask("announce_resource", {
        type: "DATAGRAM",
        size: 0,
        creatorOnly: false,
        handle: mailbox.handle,
        ticket: mailbox.ticket,
      }).accepted,
    );
    const ends = { lane: sent.lane, ...way };
    for (const ticket of ["", sent.ticket, String(got!.body.ticket)]) {
      forger.ask("announce_lane", { ...ends, sender: true, ticket });
      forger.ask("announce_lane", { ...ends, sender: false, ticket });
    }
    assertEquals(forger.take("lane_closed").length, 6);
    sends.ask("announce_lane", { ...ends, sender: true, ticket: sent.ticket });
    receives.ask("announce_lane", { ...ends, sender: false, ticket: String(got!.body.ticket) });
    const grants = [{ client: contextHandle(OTHER), states: { DG_SEND: "ALLOW" as const } }];
    receives.ask("announce_entries", {
      type: "DATAGRAM",
      handle: mailbox.handle,
      grants,
      names: [],
      members: [],
      tickets: [],
    });
    next.deliver(next.broker.endRecovery());
    assertEquals([...receives.take("lane_closed"), ...sends.take("lane_closed")], []);
    assertEquals(next.inspect("lanes").map(({ pid }) => pid), [sends.client.identity.pid]);
  });

  it("a region of other memory or other writers than its creator says is not taken back", () => {
    const world = new BrokerWorld({ firstNumber: 5000, survivors: [slotSurvivor(1)] });
    const old = world.join(VM, { slot: 1, client: 2000 });
    const region = { type: "SHAREDMEM", handle: { context: VM, resource: 3000 }, size: 10, ticket: null } as const;
    old.refused("INVALID_ARGS", "announce_resource", { ...region, creatorOnly: false });
    const attached = { handle: region.handle, count: 1, size: 10, creatorOnly: true, ticket: null };
    assert(old.ask("announce_attachment", attached).accepted);
    const share = [world.medium.share("region", 10)];
    assert(!old.ask("announce_resource", { ...region, creatorOnly: false }, share).accepted);
    assertEquals(world.medium.held, ["attention"]);
  });

  it("what nobody was given cannot be announced, so that nobody else is given it later", () => {
    const world = new BrokerWorld({ firstNumber: 5000, survivors: [slotSurvivor(1)] });
    const old = world.join(VM, { slot: 1, client: 2000 });
    const free = { context: VM, resource: 6000 };
    const none = { size: 0, creatorOnly: false, ticket: null };
    assert(!old.ask("announce_resource", { ...none, type: "DATAGRAM", handle: free }).accepted);
    assert(!old.ask("announce_attachment", { ...none, handle: free, count: 1 }).accepted);
    const own = { context: VM, resource: 4000 };
    assert(old.ask("announce_resource", { ...none, type: "DATAGRAM", handle: own }).accepted);
    for (const sender of [true, false]) {
      old.ask("announce_lane", { lane: 6000, source: INVALID_HANDLE, destination: own, sender, ticket: "" });
    }
    assertEquals(old.take("lane_closed").map(({ body }) => body.cause), ["gone", "ended"]);
    old.ask("announced", {});
    assertEquals([...world.inspect("lanes"), ...world.inspect("attachments")], []);
  });
});

describe("broker: before everybody has announced", () => {
  it("who said no hello, or only looks, is refused what is not his at once", () => {
    const world = new BrokerWorld({ survivors: [slotSurvivor(1)] });
    const observer = world.join(null, { observer: true });
    world.connect().refused("INVALID_ARGS", "list", { prefix: "", after: null });
    observer.refused("NO_ACCESS", "register", { name: "name", handle: PUBLIC_GROUP });
    assertEquals(observer.reply(observer.send("list", { prefix: "", after: null })), undefined);
  });
});

describe("broker: requests that are repeated to the next broker", () => {
  type Case = readonly [ErrorCodeName, Operation, (mine: { endpoint: Handle; group: Handle }) => Requests[Operation]];
  /** What undoes something finds it undone. */
  const cases: readonly Case[] = [
    ["NOT_FOUND", "destroy", () => ({ type: "DATAGRAM", handle: { context: VM, resource: 1030 } })],
    ["INVALID_ARGS", "revoke", ({ endpoint }) => revoking(endpoint, vm)],
    ["INVALID_ARGS", "revoke_all", ({ endpoint }) => ({ resource: endpoint, client: vm })],
    ["INVALID_ARGS", "remove_member", ({ group }) => ({ group, member: VM })],
    ["NOT_FOUND", "unregister", () => ({ name: "name" })],
  ];
  for (const [code, op, argsOf] of cases) {
    it(`${op}: done is done, once everybody has announced`, () => {
      const world = new BrokerWorld({ survivors: [slotSurvivor(1)] });
      const client = world.join(VM);
      const args = argsOf({ endpoint: client.endpoint(), group: client.group() });
      const id = client.send(op, { ...args, repeated: true } as Requests[typeof op]);
      assertEquals(client.reply(id), undefined);
      world.deliver(world.broker.endRecovery());
      assertEquals(client.result(op, id), {});
      client.refused(code, op, args);
    });
  }

  it("register: done is done if it was oneself", () => {
    const world = new BrokerWorld();
    const client = world.join(VM);
    const [one, two] = [client.endpoint(), client.endpoint()];
    client.ask("register", { name: "name", handle: one });
    client.refused("ALREADY_EXISTS", "register", { name: "name", handle: one });
    assertEquals(client.ask("register", { name: "name", handle: one, repeated: true }), {});
    client.refused("ALREADY_EXISTS", "register", { name: "name", handle: two, repeated: true });
  });
});

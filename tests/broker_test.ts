/** The broker's decisions, without a process: hello, malformed requests, shares, quotas, sources, recovery, paging. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { contextHandle, type ErrorCodeName, type Handle, HOST_CONTEXT, INVALID_HANDLE, INVALID_ID } from "../mod.ts";
import { clientSurvivor, PUBLIC_GROUP, slotSurvivor } from "../src/fabric/broker.ts";
import { type Operation, PAGE_LENGTH, type Requests } from "../src/fabric/protocol.ts";
import type { Quota } from "../src/fabric/quota.ts";
import { BrokerWorld, helloArgs, type Making, type TestClient, type TestShare } from "./support/broker_world.ts";

const VM = 16;
const [RESTRICTED, TRUSTED] = [1, 2];

/** Lets a context do something with a resource. */
function allow(owner: TestClient, resource: Handle, context: number, privilege: "DG_SEND" | "SM_ATTACH"): void {
  owner.ask("grant", { resource, client: contextHandle(context), allow: [privilege], deny: [] });
}

describe("broker: hello", () => {
  it("gives a number, and the context that was asked for", () => {
    const world = new BrokerWorld();
    const host = world.connect().hello();
    const guest = world.connect().hello({ context: VM });
    assertEquals([host.context, guest.context], [HOST_CONTEXT, VM]);
    assertEquals([host.pid, host.kind, host.version], [1, "test", "0"]);
    assert(guest.client > host.client && host.client > PUBLIC_GROUP.resource);
  });

  it("gives who is bound his own context, and no other", () => {
    const world = new BrokerWorld();
    const bound = { contexts: [[20, 20]], privileged: false } as const;
    assertEquals(world.connect(bound).hello().context, 20);
    assertEquals(world.connect(bound).hello({ context: 20 }).context, 20);
    const share = () => world.medium.share("attention");
    world.connect(bound).refused("NO_ACCESS", "hello", helloArgs({ context: 21 }), [share()]);
    world.connect(bound).refused("NO_ACCESS", "hello", helloArgs({ context: HOST_CONTEXT }), [share()]);
    assertEquals(world.connect({ contexts: [[30, 40], [2, 2]] }).hello().context, HOST_CONTEXT);
  });

  const refusals: readonly [ErrorCodeName, what: string, Partial<Requests["hello"]>, privileged?: false][] = [
    ["UNAVAILABLE", "another version of the protocol", { protocol: 0 }],
    ["INVALID_ARGS", "the hypervisor's context", { context: 0 }],
    ["INVALID_ARGS", "the context of well-known handles", { context: 1 }],
    ["INVALID_ARGS", "a reserved context", { context: 15 }],
    ["INVALID_ARGS", "the id that names nothing", { context: INVALID_ID }],
    ["INVALID_ARGS", "flags that there are not", { flags: 4 }],
    ["NO_ACCESS", "TRUSTED, of another user", { flags: TRUSTED }, false],
    ["INVALID_ARGS", "other flags than the context's", { context: 50, flags: TRUSTED }],
  ];
  for (const [code, what, args, privileged = true] of refusals) {
    it(`refuses ${what}`, () => {
      const world = new BrokerWorld();
      world.join(50, { flags: RESTRICTED });
      const before = world.snapshot();
      const stranger = world.connect({ privileged });
      stranger.refused(code, "hello", helloArgs(args), [world.medium.share("attention")]);
      assertEquals(world.snapshot(), before);
      assertEquals(stranger.hello({ context: 51 }).context, 51);
    });
  }

  it("wants an attention word, once", () => {
    const world = new BrokerWorld();
    const client = world.connect();
    client.refused("INVALID_ARGS", "hello", helloArgs());
    client.refused("INVALID_ARGS", "hello", helloArgs(), [world.medium.share("region")]);
    client.hello();
    client.refused("INVALID_ARGS", "hello", helloArgs(), [world.medium.share("attention")]);
    assertEquals(world.medium.held, ["attention"]);
  });

  it("comes before everything else", () => {
    const world = new BrokerWorld();
    const stranger = world.connect();
    for (const [op, args] of Object.entries(valid)) {
      if (op === "hello") continue;
      const reason = stranger.refused("INVALID_ARGS", op as Operation, args, [world.medium.share("region")]);
      assertEquals(reason, "say hello first");
    }
    stranger.leave();
    world.assertEmpty();
  });

  it("gives a number back to who had it, if nobody has it now and he is believed", () => {
    const world = new BrokerWorld({ firstNumber: 5000 });
    assertEquals(world.connect().hello({ client: 4000 }).client, 4000);
    const others = [
      world.connect().hello({ client: 4000 }),
      world.connect().hello({ client: 9_000_000 }),
      world.connect().hello({ client: 0 }),
      world.connect().hello({ client: PUBLIC_GROUP.resource }),
      world.connect({ privileged: false }).hello({ client: 4001 }),
    ];
    assertEquals(others.map(({ client }) => client), [5000, 5001, 5002, 5003, 5004]);
  });

  it("believes tickets, and nothing else where there are some", () => {
    const tickets = {
      issue: (claim: string) => `of ${claim}`,
      isGenuine: (claim: string, it: string) => it === `of ${claim}`,
    };
    const world = new BrokerWorld({ tickets, firstNumber: 5000 });
    const { ticket, client } = world.connect().hello({ context: VM });
    const next = new BrokerWorld({ tickets, firstNumber: 9000 });
    assertEquals(next.connect().hello({ context: VM, client }).client, 9000);
    assertEquals(next.connect().hello({ context: VM, client, ticket: "forged" }).client, 9001);
    assertEquals(next.connect().hello({ context: VM + 1, client, ticket }).client, 9002);
    assertEquals(next.connect({ privileged: false }).hello({ context: VM, client, ticket }).client, client);
  });
});

/** One well-formed request of each kind. */
const valid: Requests = {
  hello: helloArgs(),
  announce_resource: { type: "GROUP", handle: contextHandle(VM), size: 0, creatorOnly: false, ticket: null },
  announce_entries: {
    type: "GROUP",
    handle: contextHandle(VM),
    grants: [{ client: contextHandle(VM), states: { CH_PRIV: "ALLOW" } }],
    names: ["name"],
    members: [{ context: VM, canAssign: true, order: 1 }],
    tickets: [""],
  },
  announce_attachment: { handle: contextHandle(VM), count: 1, size: 1, creatorOnly: false, ticket: null },
  announce_lane: { lane: 1, source: INVALID_HANDLE, destination: contextHandle(VM), sender: true, ticket: "" },
  announce_peers: { peers: [1] },
  announced: {},
  create_endpoint: { resource: null, wellKnown: false },
  create_region: { size: 1, creatorOnly: false },
  create_group: {},
  destroy: { type: "GROUP", handle: contextHandle(VM), repeated: false },
  open_lane: { source: INVALID_HANDLE, destination: contextHandle(VM) },
  forget_peer: { peer: 1 },
  close_lane: { lane: 1 },
  query: { handle: contextHandle(VM) },
  attach: { handle: contextHandle(VM) },
  detach: { handle: contextHandle(VM) },
  watch_region: { handle: contextHandle(VM) },
  grant: { resource: contextHandle(VM), client: contextHandle(VM), allow: ["CH_PRIV"], deny: ["DG_SEND"] },
  revoke: { resource: contextHandle(VM), client: contextHandle(VM), privileges: ["CH_PRIV"], repeated: false },
  revoke_all: { resource: contextHandle(VM), client: contextHandle(VM), repeated: false },
  check: { resource: contextHandle(VM), client: contextHandle(VM), privilege: "CH_PRIV" },
  add_member: { group: contextHandle(VM), member: VM, canAssign: true },
  remove_member: { group: contextHandle(VM), member: VM, repeated: false },
  is_member: { group: contextHandle(VM), member: VM },
  register: { name: "name", handle: contextHandle(VM), repeated: false },
  lookup: { name: "name" },
  unregister: { name: "name", repeated: false },
  list: { prefix: "", after: null },
  watch_names: { watch: 1, prefix: "", exact: false },
  unwatch_names: { watch: 1 },
  subscribe: {},
  inspect: { topic: "contexts", after: 0 },
  ping: { handle: contextHandle(VM), token: 1 },
  pong: { client: 1, token: 1 },
  bye: {},
};

/** Numbers that may be below 0 or beyond 32 bits. */
const INTEGERS = ["protocol", "slot", "after", "order"];

/** Values that do not fit where `right` does. */
function wrongFor(key: string, right: unknown): unknown[] {
  if (key === "ticket") return [5, true, {}, []];
  if (key === "repeated") return [null, 0, "true", {}];
  if (key === "states") return [undefined, null, 5, "x", { SEND: "ALLOW" }, { CH_PRIV: "MAYBE" }, { CH_PRIV: 5 }];
  if (right === null) return [undefined, true, {}, [], 0.5, ...(key === "after" ? [5, "x".repeat(4097)] : [-1, "1"])];
  const common = [undefined, null];
  switch (typeof right) {
    case "number":
      return [...common, "1", true, {}, [], 0.5, 1e300, ...(INTEGERS.includes(key) ? [] : [-1, 2 ** 32])];
    case "boolean":
      return [...common, 0, 1, "true", {}, []];
    case "string":
      return [...common, 5, true, {}, [], "x".repeat(4097), ...(key === "name" ? ["a\0", "\uD800"] : [])];
  }
  if (Array.isArray(right)) {
    const wrongElements = wrongFor("", right[0]).map((it) => [right[0], it]);
    return [...common, 5, "x", {}, Array(PAGE_LENGTH + 1).fill(right[0]), ...wrongElements];
  }
  const wrongFields = Object.entries(right as object).flatMap(([field, value]) =>
    wrongFor(field, value).map((it) => ({ ...right as object, [field]: it }))
  );
  return [...common, 5, "2:5", {}, [], ...wrongFields];
}

describe("broker: malformed requests", () => {
  for (const [op, args] of Object.entries(valid)) {
    if (Object.keys(args).length === 0) continue;
    it(`${op}: each field is checked, and nothing is changed by it`, () => {
      const world = new BrokerWorld();
      const client = world.connect();
      if (op !== "hello") client.hello();
      const before = world.snapshot();
      for (const [key, right] of Object.entries(args)) {
        for (const wrong of wrongFor(key, right)) {
          const request = { ...args, [key]: wrong } as Requests[Operation];
          const reason = client.refused("INVALID_ARGS", op as Operation, request, [world.medium.share("region")]);
          assertStringIncludes(reason, `the field '${key}'`, Deno.inspect(wrong));
        }
      }
      assertEquals(client.pending, []);
      assertEquals(world.snapshot(), before);
    });
  }

  it("there is no such operation", () => {
    const world = new BrokerWorld();
    const client = world.join();
    for (const op of [undefined, null, 5, "", "HELLO", "constructor", "__proto__", "toString", "x".repeat(9999)]) {
      client.sendRaw({ id: 9, op, args: {} }, [world.medium.share("region")]);
      const error = client.reply(9)!.message.error as { code: string; reason: string };
      assertEquals(error.code, "INVALID_ARGS");
      assertMatch(error.reason, /^there is no operation .{1,70}$/);
    }
    assertEquals(world.medium.held, ["attention"]);
  });

  it("without an id it is answered with 0, without arguments it misses them", () => {
    const world = new BrokerWorld();
    const client = world.join();
    for (const id of [undefined, -1, "7", 2 ** 32, {}]) {
      client.sendRaw({ id, op: "subscribe" });
      assertEquals(client.reply(0)?.message, { id: 0, result: { contexts: [HOST_CONTEXT] } });
    }
    for (const args of [undefined, null, 5, "x"]) {
      client.sendRaw({ id: 3, op: "lookup", args });
      assertEquals((client.reply(3)!.message.error as { code: string }).code, "INVALID_ARGS");
    }
  });

  it("what is not asked for is not looked at", () => {
    const client = new BrokerWorld().join();
    client.sendRaw({ id: 1, op: "lookup", args: { name: "vmci public group", more: 1, __proto__: null }, also: [] });
    assertEquals(client.reply(1)!.message.result, { handle: PUBLIC_GROUP });
  });
});

describe("broker: shares", () => {
  it("each is given back once, whatever is done in between", () => {
    const world = new BrokerWorld();
    const [host, guest, other] = [world.join(), world.join(VM), world.join(VM)];
    const mailbox = host.endpoint();
    allow(host, mailbox, VM, "DG_SEND");
    const { lane } = guest.ask("open_lane", { source: INVALID_HANDLE, destination: mailbox });
    guest.ask("open_lane", { source: guest.endpoint(), destination: mailbox });
    other.ask("open_lane", { source: INVALID_HANDLE, destination: mailbox });
    host.ask("open_lane", { source: mailbox, destination: mailbox });
    const region = host.region(5000);
    allow(host, region, VM, "SM_ATTACH");
    for (const client of [guest, guest, other]) client.ask("attach", { handle: region });
    guest.ask("watch_region", { handle: region });
    assertEquals(world.medium.held, ["attention", "attention", "attention", "region"]);
    guest.ask("close_lane", { lane });
    guest.ask("detach", { handle: region });
    host.ask("detach", { handle: region });
    assertEquals(world.medium.held, ["attention", "attention", "attention"]);
    for (const client of [host, guest, other]) client.leave();
    world.assertEmpty();
  });

  it("what comes with requests that want none goes back", () => {
    const world = new BrokerWorld();
    const client = world.join();
    const many = () => ["region", "attention", "lane"].map((what) => world.medium.share(what));
    client.ask("lookup", { name: "vmci public group" }, many());
    client.ask("create_endpoint", { resource: null, wellKnown: false }, many());
    client.refused("NOT_FOUND", "query", { handle: INVALID_HANDLE }, many());
    client.ask("create_region", { size: 7, creatorOnly: true }, [
      world.medium.share("region", 7, "creator"),
      ...many(),
    ]);
    assertEquals(world.medium.held, ["attention", "region"]);
  });

  it("a region is what its creator says, or none", () => {
    const world = new BrokerWorld();
    const client = world.join();
    const before = world.snapshot();
    const region = (size: number, access: "everybody" | "creator") => [world.medium.share("region", size, access)];
    client.refused("INVALID_ARGS", "create_region", { size: 8, creatorOnly: false }, region(9, "everybody"));
    client.refused("INVALID_ARGS", "create_region", { size: 8, creatorOnly: false }, region(8, "creator"));
    client.refused("INVALID_ARGS", "create_region", { size: 8, creatorOnly: true }, region(8, "everybody"));
    client.refused("INVALID_ARGS", "create_region", { size: 8, creatorOnly: true });
    client.refused("INVALID_SIZE", "create_region", { size: 0, creatorOnly: true }, region(0, "creator"));
    assertEquals(world.snapshot(), before);
  });

  it("a stranger gets a bell with the first lane, and no second one", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const [one, two] = [host.endpoint(), host.endpoint()];
    for (const mailbox of [one, two]) allow(host, mailbox, VM, "DG_SEND");
    const opened = [one, two].map((destination) => {
      const id = guest.send("open_lane", { source: INVALID_HANDLE, destination });
      return guest.reply(id)!;
    });
    assertEquals(opened.map(({ shares }) => shares.map(({ what }) => what)), [["lane", "bell", "attention"], ["lane"]]);
    const told = host.take("lane");
    assertEquals(told.map(({ shares }) => shares.map(({ what }) => what)), [["lane", "bell", "attention"], ["lane"]]);
    // The lane's pages are the same for both, the ends of the bell are not.
    assertEquals(told[0]!.shares[0], opened[0]!.shares[0]);
    assert(told[0]!.shares[1] !== opened[0]!.shares[1]);
    assertEquals(told.map(({ body }) => body.fresh), [true, false]);
    guest.ask("forget_peer", { peer: told[0]!.body.peer + 999 });
    assertEquals(host.take("lane_closed"), []);
  });

  it("a peer that is forgotten has no lanes, and gets a new bell", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const mailbox = host.endpoint();
    allow(host, mailbox, VM, "DG_SEND");
    const { peer } = guest.ask("open_lane", { source: INVALID_HANDLE, destination: mailbox });
    guest.ask("forget_peer", { peer });
    assertEquals(guest.take("lane_closed").map(({ body }) => body.cause), ["gone"]);
    assertEquals(host.take("lane_closed").map(({ body }) => body.cause), ["ended"]);
    assert(guest.ask("open_lane", { source: INVALID_HANDLE, destination: mailbox }).fresh);
  });

  it("who watches a region is introduced to those who can write it, as long as he is attached", () => {
    const world = new BrokerWorld();
    const [host, guest, third] = [world.join(), world.join(VM), world.join(VM)];
    const handle = host.region();
    allow(host, handle, VM, "SM_ATTACH");
    guest.refused("INVALID_ARGS", "watch_region", { handle });
    guest.ask("attach", { handle });
    for (let i = 0; i < 2; i++) guest.ask("watch_region", { handle });
    assertEquals([host.pending, guest.pending], [
      ["keep_grant", "region_peer", "peer", "watcher"],
      ["peer"],
    ]);
    third.ask("attach", { handle });
    assertEquals(third.take("watcher").map(({ body }) => body), [{ handle, peer: guest.client.number }]);
    for (const client of [third, guest]) client.ask("detach", { handle });
    third.ask("attach", { handle });
    assertEquals(third.take("watcher"), []);
    // Where only its creator writes, nobody else needs to ring.
    const creators = host.region(4096, "creator");
    allow(host, creators, VM, "SM_ATTACH");
    for (const client of [guest, third]) client.ask("attach", { handle: creators });
    host.take("watcher");
    guest.ask("watch_region", { handle: creators });
    assertEquals([host.take("watcher").length, third.take("watcher").length], [1, 0]);
  });

  it("who watches what a peer can write that he forgot is introduced to it again, by another bell", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const regions = [host.region(), host.region(), host.region(4096, "creator")];
    for (const handle of regions) {
      allow(host, handle, VM, "SM_ATTACH");
      guest.ask("attach", { handle });
      host.ask("watch_region", { handle });
    }
    guest.ask("watch_region", { handle: regions[2]! });
    for (const forgets of [guest, host]) {
      for (const client of [host, guest]) for (const notice of ["peer", "watcher"] as const) client.take(notice);
      forgets.ask("forget_peer", { peer: (forgets === guest ? host : guest).client.number });
      assertEquals([host.take("peer").length, guest.take("peer").length], [1, 1]);
      assertEquals(guest.take("watcher").map(({ body }) => body.handle), regions.slice(0, 2));
      assertEquals(host.take("watcher").map(({ body }) => body), [{ handle: regions[2]!, peer: guest.client.number }]);
    }
    // As long as none can be made there is none.
    world.medium.failing.set("makeBell", 0);
    guest.ask("forget_peer", { peer: host.client.number });
    assertEquals([host.take("peer"), guest.take("watcher")], [[], []]);
  });

  it("a lane that is asked for again takes the place of the one before", () => {
    const world = new BrokerWorld();
    const host = world.join();
    const mailbox = host.endpoint();
    const first = host.ask("open_lane", { source: INVALID_HANDLE, destination: mailbox }).lane;
    host.ask("open_lane", { source: mailbox, destination: mailbox });
    const again = host.ask("open_lane", { source: INVALID_HANDLE, destination: mailbox }).lane;
    assertEquals(host.take("lane_closed").map(({ body }) => body), [{ lane: first, cause: "ended" }]);
    assertEquals([world.inspect("lanes").length, again > first], [2, true]);
  });
});

/** What makes something, prepared so that only the making is left to be done. */
const makers: Readonly<Record<string, (world: BrokerWorld) => readonly [TestClient, () => unknown]>> = {
  hello: (world) => {
    const client = world.connect();
    return [client, () => client.hello()];
  },
  create_endpoint: (world) => {
    const client = world.join();
    return [client, () => client.endpoint()];
  },
  create_region: (world) => {
    const client = world.join();
    return [client, () => client.region()];
  },
  create_group: (world) => {
    const client = world.join();
    return [client, () => client.group()];
  },
  add_member: (world) => {
    const client = world.join();
    const group = client.group();
    return [client, () => client.ask("add_member", { group, member: HOST_CONTEXT, canAssign: false })];
  },
  open_lane: (world) => {
    const [host, guest] = [world.join(), world.join(VM)];
    const destination = host.endpoint();
    allow(host, destination, VM, "DG_SEND");
    return [guest, () => guest.ask("open_lane", { source: INVALID_HANDLE, destination })];
  },
  attach: (world) => {
    const [host, first, second, guest] = [world.join(), world.join(VM), world.join(VM), world.join(VM)];
    const handle = host.region();
    allow(host, handle, VM, "SM_ATTACH");
    for (const client of [first, second]) {
      client.ask("attach", { handle });
      client.ask("watch_region", { handle });
    }
    return [guest, () => guest.ask("attach", { handle })];
  },
  watch_region: (world) => {
    const [host, other, guest] = [world.join(), world.join(VM), world.join(VM)];
    const handle = host.region();
    allow(host, handle, VM, "SM_ATTACH");
    for (const client of [other, guest]) client.ask("attach", { handle });
    return [guest, () => guest.ask("watch_region", { handle })];
  },
};

describe("broker: what cannot be made", () => {
  for (const [op, prepare] of Object.entries(makers)) {
    it(`${op}: NO_RESOURCES, and nothing is half done`, () => {
      for (const making of ["makeLane", "makeBell", "reserveNumbers"] as Making[]) {
        for (let nth = 0;; nth++) {
          const world = new BrokerWorld();
          const [client, make] = prepare(world);
          const before = world.snapshot();
          exhaustNumbers(world);
          const pending = client.pending;
          world.medium.failing.set(making, nth);
          const refused = refusalOf(make);
          world.medium.failing.clear();
          if (refused === undefined) break;
          assertEquals(refused, "NO_RESOURCES");
          assertEquals(client.pending, pending);
          assertEquals(world.snapshot(), before);
          make();
        }
      }
    });
  }

  it("numbers are reserved before they are used, and end", () => {
    const world = new BrokerWorld({ firstNumber: INVALID_ID - 3 });
    const client = world.join();
    assertEquals([world.medium.mark, client.endpoint().resource], [INVALID_ID, INVALID_ID - 2]);
    assertEquals(client.group().resource, INVALID_ID - 1);
    client.refused("NO_HANDLE", "create_endpoint", { resource: null, wellKnown: false });
    client.refused("NO_HANDLE", "create_group", {});
    client.refused("NO_HANDLE", "create_endpoint", { resource: 5000, wellKnown: true });
  });
});

/** Uses numbers up to the end of the block, so that the next one must be reserved. */
function exhaustNumbers(world: BrokerWorld): void {
  const client = world.join();
  for (let last = 0; last + 1 < world.medium.mark;) {
    const handle = client.endpoint();
    client.ask("destroy", { type: "DATAGRAM", handle });
    last = handle.resource;
  }
  client.leave();
}

function refusalOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

/** How each quota is reached: with a quota of 3, this succeeds until it does not. */
const reaching: Readonly<Record<keyof Quota, (world: BrokerWorld) => () => unknown>> = {
  contexts: (world) => {
    let context = VM;
    return () => world.join(context++);
  },
  clients: (world) => () => world.join(VM),
  resources: (world) => {
    const makers = ["endpoint", "group", "region"] as const;
    const client = world.join();
    let made = 0;
    return () => client[makers[made++ % 3]!]();
  },
  regions: (world) => {
    const client = world.join();
    return () => client.region();
  },
  regionBytes: (world) => {
    const client = world.join();
    return () => client.region(4097);
  },
  attachments: (world) => {
    const client = world.join(VM);
    const handle = client.region();
    let attached = 1;
    return () => attached++ === 1 ? undefined : client.ask("attach", { handle });
  },
  lanes: (world) => {
    const client = world.join();
    const destination = client.endpoint();
    return () => client.ask("open_lane", { source: client.endpoint(), destination });
  },
  names: (world) => {
    const client = world.join();
    const handle = client.endpoint();
    let name = 0;
    return () => client.ask("register", { name: `${name++}`, handle });
  },
  watches: (world) => {
    const client = world.join();
    let watch = 0;
    return () => client.ask("watch_names", { watch: watch++, prefix: "x", exact: false });
  },
  grants: (world) => {
    // Whichever processes of the context made them.
    const makers = [world.join(), world.join()] as const;
    const resources = makers.map((maker) => maker.endpoint());
    let context = VM;
    return () => allow(makers[0], resources[++context % 2]!, context, "DG_SEND");
  },
};

describe("broker: quotas", () => {
  for (const [name, reach] of Object.entries(reaching)) {
    it(`${name}: NO_RESOURCES when it is reached, and nothing is changed`, () => {
      const world = new BrokerWorld({ quotas: { [name]: name === "regionBytes" ? 3 * 8192 : 3 } });
      const use = reach(world);
      for (let i = 0; i < 3; i++) use();
      const before = name === "lanes" ? world.inspect("lanes") : world.snapshot();
      assertEquals(refusalOf(use), "NO_RESOURCES");
      assertEquals(name === "lanes" ? world.inspect("lanes") : world.snapshot(), before);
    });
  }

  it("a lane that has ended counts until its receiver says that it is read, or closes", () => {
    const world = new BrokerWorld({ quotas: { lanes: 3 } });
    const [host, guest] = [world.join(), world.join(VM)];
    const [destination, other] = [host.endpoint(), host.endpoint()];
    for (const resource of [destination, other]) allow(host, resource, VM, "DG_SEND");
    const open = (source = guest.endpoint(), to = destination) => guest.ask("open_lane", { source, destination: to });
    const close = (handle: Handle) => guest.ask("destroy", { type: "DATAGRAM", handle, repeated: false });
    const isFull = () => {
      const reason = guest.refused("NO_RESOURCES", "open_lane", { source: INVALID_HANDLE, destination });
      assertStringIncludes(reason, "3 lanes, with those that ended and were not read yet");
    };
    // However it ended: with its source, closed by its sender, and for want of the right.
    const source = guest.endpoint();
    const lanes = [open(source).lane];
    close(source);
    lanes.push(open().lane);
    guest.ask("close_lane", { lane: lanes[1]! });
    lanes.push(open(guest.endpoint(), other).lane);
    host.ask("revoke_all", { resource: other, client: contextHandle(VM) });
    assertEquals(world.inspect("lanes"), []);
    isFull();
    // Nobody else says that it was read.
    for (const lane of lanes) guest.ask("close_lane", { lane });
    isFull();
    host.ask("close_lane", { lane: lanes[0]! });
    host.ask("close_lane", { lane: lanes[0]! });
    open();
    isFull();
    // With its endpoint it goes, unread.
    host.ask("destroy", { type: "DATAGRAM", handle: other, repeated: false });
    open();
    isFull();
    // What the receiver itself closes it has no more.
    host.ask("close_lane", { lane: host.take("lane").at(-1)!.body.lane });
    host.ask("close_lane", { lane: lanes[1]! });
    for (let i = 0; i < 2; i++) open();
    isFull();
  });

  it("what is given back can be had again", () => {
    const world = new BrokerWorld({
      quotas: { resources: 1, regions: 1, names: 1, attachments: 1, watches: 1, grants: 1 },
    });
    const client = world.join();
    for (let i = 0; i < 3; i++) {
      const handle = client.region();
      client.ask("register", { name: "name", handle });
      client.refused("NO_RESOURCES", "attach", { handle });
      allow(client, handle, VM, "SM_ATTACH");
      allow(client, handle, VM, "SM_ATTACH");
      client.ask("revoke_all", { resource: handle, client: contextHandle(VM) });
      allow(client, handle, VM + 1, "SM_ATTACH");
      client.ask("revoke", { resource: handle, client: contextHandle(VM + 1), privileges: ["SM_ATTACH"] });
      allow(client, handle, VM, "SM_ATTACH");
      client.ask("watch_names", { watch: i, prefix: "", exact: false });
      client.ask("unwatch_names", { watch: i });
      client.ask("detach", { handle });
    }
  });
});

describe("broker: sources of datagrams", () => {
  it("must be the sender's own, and there", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const destination = host.endpoint();
    allow(host, destination, VM, "DG_SEND");
    const open = (source: Handle) => ({ source, destination });
    guest.refused("NO_ACCESS", "open_lane", open(host.endpoint()));
    guest.refused("NO_ACCESS", "open_lane", open({ context: HOST_CONTEXT, resource: 999_999 }));
    guest.refused("INVALID_ARGS", "open_lane", open({ context: VM, resource: 999_999 }));
    guest.refused("INVALID_RESOURCE", "open_lane", open({ context: 1, resource: 5000 }));
    host.ask("create_endpoint", { resource: 5000, wellKnown: true });
    guest.refused("NO_ACCESS", "open_lane", open({ context: 1, resource: 5000 }));
    guest.refused("NO_ACCESS", "open_lane", open(contextHandle(HOST_CONTEXT)));
    const region = guest.region();
    guest.refused("INVALID_ARGS", "open_lane", open(region));
    assertEquals(world.inspect("lanes"), []);
    // A process of the same context may send in the name of another's handle.
    const own = guest.endpoint();
    world.join(VM).ask("open_lane", open(own));
    assertEquals(host.take("lane").map(({ body }) => body.source), [own]);
  });

  it("only a well-known handle has an id of one's own choice", () => {
    const client = new BrokerWorld().join();
    client.refused("INVALID_ARGS", "create_endpoint", { resource: 5000, wellKnown: false });
    client.refused("INVALID_ARGS", "create_endpoint", { resource: null, wellKnown: true });
    client.refused("INVALID_ARGS", "create_endpoint", { resource: INVALID_ID, wellKnown: true });
  });

  it("a lane is closed by its two ends only", () => {
    const world = new BrokerWorld();
    const [host, guest, third] = [world.join(), world.join(VM), world.join(VM)];
    const destination = host.endpoint();
    allow(host, destination, VM, "DG_SEND");
    const open = () => guest.ask("open_lane", { source: INVALID_HANDLE, destination }).lane;
    const lane = open();
    third.ask("close_lane", { lane });
    assertEquals(world.inspect("lanes").length, 1);
    host.ask("close_lane", { lane });
    assertEquals(guest.take("lane_closed").map(({ body }) => body.cause), ["revoked"]);
    guest.ask("close_lane", { lane: open() });
    assertEquals(host.take("lane_closed").map(({ body }) => body.cause), ["revoked", "ended"]);
    assertEquals(world.inspect("lanes"), []);
  });
});

describe("broker: owners keep what the next broker must know", () => {
  it("grants, names and members", () => {
    const world = new BrokerWorld();
    const [host, same] = [world.join(), world.join()];
    const handle = host.endpoint();
    const group = host.group();
    const client = contextHandle(VM);
    same.ask("grant", { resource: handle, client, allow: ["DG_SEND"], deny: ["CH_PRIV"] });
    same.ask("revoke", { resource: handle, client, privileges: ["CH_PRIV"] });
    same.ask("revoke_all", { resource: handle, client });
    assertEquals(host.take("keep_grant").map(({ body }) => body.entry.states), [
      { DG_SEND: "ALLOW", CH_PRIV: "DENY" },
      { DG_SEND: "ALLOW" },
      {},
    ]);
    same.ask("register", { name: "name", handle });
    same.ask("unregister", { name: "name" });
    assertEquals(host.take("keep_name").map(({ body }) => [body.name, body.present]), [["name", true], [
      "name",
      false,
    ]]);
    same.ask("add_member", { group, member: HOST_CONTEXT, canAssign: true });
    same.ask("remove_member", { group, member: HOST_CONTEXT });
    const members = host.take("keep_member").map((
      { body },
    ) => [body.member.context, body.member.canAssign, body.present]);
    assertEquals(members, [[HOST_CONTEXT, true, true], [HOST_CONTEXT, true, false]]);
    assertEquals([host.pending, same.pending], [[], []]);
  });

  it("a member whose context goes is told to the group's owner", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const group = host.group();
    host.ask("add_member", { group, member: VM, canAssign: false });
    host.take("keep_member");
    guest.leave();
    assertEquals(host.take("keep_member").map(({ body }) => [body.member.context, body.present]), [[VM, false]]);
    assertEquals(host.ask("is_member", { group, member: VM }), { member: false });
  });

  it("what is set for a group that is gone can still be taken back", () => {
    const world = new BrokerWorld();
    const host = world.join();
    const resource = host.endpoint();
    const group = host.group();
    host.ask("grant", { resource, client: group, allow: ["DG_SEND", "CH_PRIV"], deny: [] });
    host.ask("destroy", { type: "GROUP", handle: group });
    host.refused("INVALID_ARGS", "grant", { resource, client: group, allow: ["DG_SEND"], deny: [] });
    host.ask("revoke", { resource, client: group, privileges: ["DG_SEND"] });
    host.ask("revoke_all", { resource, client: group });
    host.refused("INVALID_ARGS", "revoke_all", { resource, client: group });
  });
});

describe("broker: looking around", () => {
  it("an observer only looks", () => {
    const world = new BrokerWorld();
    const host = world.join();
    const handle = host.endpoint();
    const region = host.region();
    const observer = world.join(null, { observer: true });
    const before = world.snapshot();
    observer.refused("NO_ACCESS", "create_endpoint", { resource: null, wellKnown: false });
    observer.refused("NO_ACCESS", "create_region", { size: 1, creatorOnly: false }, [world.medium.share("region", 1)]);
    observer.refused("NO_ACCESS", "create_group", {});
    observer.refused("NO_ACCESS", "open_lane", { source: INVALID_HANDLE, destination: handle });
    observer.refused("NO_ACCESS", "attach", { handle: region });
    observer.refused("NO_ACCESS", "register", { name: "name", handle });
    observer.refused("NO_ACCESS", "unregister", { name: "vmci public group" });
    observer.refused("NO_ACCESS", "destroy", { type: "DATAGRAM", handle });
    const client = contextHandle(VM);
    observer.refused("NO_ACCESS", "grant", { resource: handle, client, allow: ["DG_SEND"], deny: [] });
    observer.refused("NO_ACCESS", "add_member", { group: PUBLIC_GROUP, member: HOST_CONTEXT, canAssign: true });
    assertEquals(world.snapshot(), before);
    assertEquals(observer.ask("query", { handle: region }), { size: 4096 });
    assertEquals(observer.ask("check", { resource: handle, client, privilege: "DG_SEND" }).via, "nothing");
    assertEquals(observer.ask("subscribe", {}).contexts, [HOST_CONTEXT]);
  });

  it("is for the broker's own user", () => {
    const stranger = new BrokerWorld().join(VM, {}, { privileged: false });
    for (const topic of ["contexts", "resources", "attachments", "lanes"] as const) {
      stranger.refused("NO_ACCESS", "inspect", { topic, after: 0 });
    }
  });

  it("comes in pages that fit into a packet, each entry once", () => {
    const world = new BrokerWorld();
    const clients = Array.from({ length: 70 }, (_, i) => world.join(VM + i));
    const names = Array.from({ length: 3 * PAGE_LENGTH }, (_, i) => `\u0001${"ä\u0001".repeat(91)}${i}`).toSorted();
    const handle = clients[0]!.endpoint();
    for (const name of names) clients[0]!.ask("register", { name, handle });
    for (const client of clients) client.region();
    assertEquals(world.inspect("contexts").map(({ context }) => context), clients.map((_, i) => VM + i));
    assertEquals(world.inspect("attachments").length, 70);
    assertEquals(world.inspect("resources").length, 72);
    assertEquals(world.names().map(({ name }) => name), [...names, "vmci public group"]);
    const page = clients[0]!.ask("list", { prefix: "\u0001", after: names[0]! });
    assertEquals([page.entries[0]!.name, page.entries.length, page.more], [names[1], PAGE_LENGTH, true]);
    assert(JSON.stringify(page).length < 65536);
    assertEquals(clients[0]!.ask("list", { prefix: "\u0001", after: names.at(-1)! }), { entries: [], more: false });
    clients[0]!.ask("watch_names", { watch: 7, prefix: "\u0001", exact: false });
    const told = clients[0]!.take("name");
    assertEquals(told.map(({ body }) => body.entries.length), [PAGE_LENGTH, PAGE_LENGTH, PAGE_LENGTH]);
  });

  it("a ping goes to the owner and back to who asked", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const handle = host.endpoint();
    assertEquals(guest.ask("ping", { handle, token: 5 }).pid, host.client.identity.pid);
    for (const { body } of host.take("ping")) host.ask("pong", body);
    assertEquals(guest.take("pong").map(({ body }) => body.token), [5]);
    guest.refused("NOT_FOUND", "ping", { handle: INVALID_HANDLE, token: 5 });
    guest.refused("UNAVAILABLE", "ping", { handle: PUBLIC_GROUP, token: 5 });
    host.ask("pong", { client: 999_999, token: 1 });
  });

  it("contexts that come and go are told to those who want to know", () => {
    const world = new BrokerWorld();
    const [host, silent] = [world.join(), world.join()];
    assertEquals(host.ask("subscribe", {}).contexts, [HOST_CONTEXT]);
    const guests = [world.join(VM), world.join(VM)];
    for (const guest of guests) guest.leave();
    assertEquals(host.pending, ["context_added", "context_removed"]);
    assertEquals(silent.pending, []);
  });

  it("the last one who says bye ends the broker", () => {
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    assertEquals([host.ask("bye", {}).last, world.broker.ended], [false, false]);
    host.leave();
    assertEquals([guest.ask("bye", {}).last, world.broker.ended], [true, true]);
  });
});

/** Who lived under the broker before, and what he had there. */
const SLOT = 3;
const survivors = (...slots: number[]) => slots.map(slotSurvivor);

/** A client of the broker before, who has come back but said nothing yet. */
function returned(world: BrokerWorld, slot: number, context: number = VM, client = 2000 + slot): TestClient {
  return world.join(context, { slot, client });
}

/** Announces a region that this client created. */
function announceRegion(world: BrokerWorld, client: TestClient, handle: Handle, size = 4096): boolean {
  const args = { type: "SHAREDMEM", handle, size, creatorOnly: false, ticket: null } as const;
  return client.ask("announce_resource", args, [world.medium.share("region", size)]).accepted;
}

function announce(client: TestClient, type: "DATAGRAM" | "GROUP", handle: Handle): boolean {
  return client.ask("announce_resource", { type, handle, size: 0, creatorOnly: false, ticket: null }).accepted;
}

/** What belongs to a resource that was announced. */
function entries(
  type: "DATAGRAM" | "GROUP",
  handle: Handle,
  what: Partial<Requests["announce_entries"]>,
): Requests["announce_entries"] {
  return { type, handle, grants: [], names: [], members: [], tickets: [], ...what };
}

/** An attachment to a region of 4096 bytes. */
function attachment(handle: Handle, count: number): Requests["announce_attachment"] {
  return { handle, count, size: 4096, creatorOnly: false, ticket: null };
}

const handleOf = (context: number, resource: number): Handle => ({ context, resource });

describe("broker: recovery", () => {
  const FIRST = 5000;

  it("answers no 'no' until everybody has announced", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(SLOT) });
    const [old, asker] = [returned(world, SLOT), world.join()];
    const mailbox = handleOf(VM, 3000);
    const ids = [
      asker.send("lookup", { name: "old" }),
      asker.send("open_lane", { source: INVALID_HANDLE, destination: mailbox }),
      asker.send("register", { name: "old", handle: asker.endpoint() }),
      asker.send("list", { prefix: "", after: null }),
      asker.send("create_endpoint", { resource: 7000, wellKnown: true }),
      asker.send("query", { handle: handleOf(VM, 3001) }),
    ];
    assertEquals(ids.map((id) => asker.reply(id)), ids.map(() => undefined));
    assert(announce(old, "DATAGRAM", mailbox));
    assert(announce(old, "DATAGRAM", handleOf(1, 7000)));
    assert(announceRegion(world, old, handleOf(VM, 3001), 123));
    const grants = [{ client: contextHandle(HOST_CONTEXT), states: { DG_SEND: "ALLOW" } as const }];
    assertEquals(old.ask("announce_entries", entries("DATAGRAM", mailbox, { grants, names: ["old"] })), {
      refused: [],
    });
    assertEquals(ids.map((id) => asker.reply(id)), ids.map(() => undefined));
    assert(world.broker.recovering);
    old.ask("announced", {});
    assert(!world.broker.recovering);
    assertEquals(asker.result("lookup", ids[0]!), { handle: mailbox });
    assertEquals(asker.result("open_lane", ids[1]!).fresh, true);
    assertEquals(refusalOf(() => asker.result("register", ids[2]!)), "ALREADY_EXISTS");
    assertEquals(asker.result("list", ids[3]!).entries.map(({ name }) => name), ["old", "vmci public group"]);
    assertEquals(refusalOf(() => asker.result("create_endpoint", ids[4]!)), "DUPLICATE_ENTRY");
    assertEquals(asker.result("query", ids[5]!), { size: 123 });
    assertEquals([old.take("settled").length, asker.take("settled").length], [2, 1]);
  });

  it("answers a 'yes' at once", () => {
    const world = new BrokerWorld({ survivors: survivors(SLOT) });
    const asker = world.join();
    const resource = asker.endpoint();
    allow(asker, resource, VM, "DG_SEND");
    asker.ask("open_lane", { source: resource, destination: resource });
    assertEquals(asker.ask("lookup", { name: "vmci public group" }).handle, PUBLIC_GROUP);
    asker.ask("attach", { handle: asker.region() });
  });

  it("says 'no' after all when the survivors are gone or the time is over", () => {
    const endings: ((world: BrokerWorld) => void)[] = [
      (world) => world.deliver(world.broker.survivorGone(slotSurvivor(SLOT))),
      (world) => world.deliver(world.broker.endRecovery()),
      (world) => void world.join(VM, { slot: SLOT }),
      (world) => void returned(world, SLOT).ask("announced", {}),
    ];
    for (const end of endings) {
      const world = new BrokerWorld({ survivors: survivors(SLOT) });
      const asker = world.join();
      const id = asker.send("lookup", { name: "old" });
      world.deliver(world.broker.survivorGone("somebody else"));
      assertEquals(asker.reply(id), undefined);
      end(world);
      assertEquals(refusalOf(() => asker.result("lookup", id)), "NOT_FOUND");
    }
  });

  it("who comes back and breaks off may come back again, and is waited for", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(SLOT) });
    const old = returned(world, SLOT);
    assert(announce(old, "DATAGRAM", handleOf(VM, 3000)));
    old.leave();
    assert(world.broker.recovering);
    const again = returned(world, SLOT);
    assert(announce(again, "DATAGRAM", handleOf(VM, 3000)));
    assert(announce(again, "DATAGRAM", handleOf(VM, 3000)), "said twice is said once");
    again.ask("announced", {});
    assertEquals([world.broker.recovering, world.inspect("resources").length], [false, 2]);
  });

  it("who watches a region before another one is back is introduced to it, by the bell that they have", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2, 3) });
    const region = handleOf(VM, 3000);
    const [watcher, late, stranger] = [returned(world, 1), returned(world, 2), returned(world, 3)];
    assert(announceRegion(world, watcher, region));
    watcher.ask("announce_peers", { peers: [late.client.number] });
    watcher.ask("announce_attachment", attachment(region, 1));
    watcher.ask("watch_region", { handle: region });
    watcher.ask("announced", {});
    late.ask("announce_peers", { peers: [watcher.client.number] });
    for (const [client, bells] of [[late, 0], [stranger, 1]] as const) {
      for (let said = 0; said < 2; said++) client.ask("announce_attachment", attachment(region, 1));
      assertEquals(client.take("watcher").map(({ body }) => body), [{ handle: region, peer: watcher.client.number }]);
      assertEquals([client.take("peer").length, watcher.take("peer").length], [bells, bells]);
      client.ask("announced", {});
    }
  });

  it("who watches gets another bell when the one he had turns out to be none", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
    const region = handleOf(VM, 3000);
    const [watcher, writer] = [returned(world, 1), returned(world, 2)];
    assert(announceRegion(world, writer, region));
    // It never had its end of that bell.
    writer.ask("announce_attachment", attachment(region, 1));
    watcher.ask("announce_peers", { peers: [writer.client.number] });
    watcher.ask("announce_attachment", attachment(region, 1));
    watcher.ask("watch_region", { handle: region });
    assertEquals([writer.take("watcher").length, writer.take("peer").length], [1, 0]);
    writer.ask("announced", {});
    assertEquals(watcher.take("peer_gone").map(({ body }) => body.peer), [writer.client.number]);
    const introduced = [watcher.take("peer").length, writer.take("peer").length, writer.take("watcher").length];
    assertEquals(introduced, [1, 1, 1]);
    watcher.ask("announced", {});
    assertEquals([watcher.take("peer_gone"), writer.take("peer_gone")], [[], []]);
  });

  it("a client without a byte of the roster is expected by its number", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: [clientSurvivor(2000)] });
    const old = returned(world, -1, VM, 2000);
    assert(world.broker.recovering);
    old.ask("announced", {});
    assert(!world.broker.recovering);
  });

  it("what waited is answered to who asked, and with what belongs to it", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(SLOT) });
    const [old, asker] = [returned(world, SLOT), world.join(VM)];
    const region = handleOf(VM, 3000);
    const attached = asker.send("attach", { handle: region });
    assert(announceRegion(world, old, region));
    old.ask("announce_attachment", attachment(region, 1));
    const announced = old.send("announced", {});
    assertEquals(asker.reply(attached)!.shares.map(({ what }) => what), ["region"]);
    assertEquals(old.reply(announced)!.shares, []);
  });

  it("who waits and leaves is not answered, and what he handed in goes back", () => {
    const world = new BrokerWorld({ survivors: survivors(SLOT) });
    const asker = world.join();
    const share = () => world.medium.share("region");
    const busy = { type: "DATAGRAM", handle: handleOf(VM, 5000) } as const;
    asker.send("register", { name: "name", handle: asker.endpoint() }, [share()]);
    // What does not belong to it is not kept for it.
    assertEquals(world.medium.held, ["attention"]);
    for (let i = 0; i < 100; i++) asker.send("destroy", busy, [share()]);
    assertEquals(world.medium.held, ["attention"]);
    asker.leave();
    assertEquals(world.medium.held, []);
    world.deliver(world.broker.endRecovery());
    assertEquals(world.names().map(({ name }) => name), ["vmci public group"]);
  });

  it("a region is made or refused at once, and what was handed in for a refused one goes back", () => {
    const world = new BrokerWorld({ quotas: { regions: 1 }, survivors: survivors(SLOT) });
    const asker = world.join(VM);
    assertEquals(asker.region().context, VM);
    const share = world.medium.share("region", 4096);
    const reason = asker.refused("NO_RESOURCES", "create_region", { size: 4096, creatorOnly: false }, [share]);
    assertEquals([reason, share.released], ["context 16 has its quota of 1 regions", 1]);
    assertEquals(world.medium.held, ["attention", "region"]);
    asker.leave();
    assertEquals(world.medium.held, []);
  });

  it("what a client has is taken back with its names, grants and members", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
    const [owner, member] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const [group, mailbox] = [handleOf(HOST_CONTEXT, 3000), handleOf(HOST_CONTEXT, 3001)];
    assert(announce(owner, "GROUP", group) && announce(owner, "DATAGRAM", mailbox));
    const members = [{ context: VM, canAssign: true, order: 77 }];
    owner.ask("announce_entries", entries("GROUP", group, { names: ["group"], members }));
    const grants = [{ client: group, states: { DG_SEND: "ALLOW", SM_ATTACH: "ALLOW" } as const }];
    owner.ask("announce_entries", entries("DATAGRAM", mailbox, { grants }));
    owner.ask("announced", {});
    member.ask("announced", {});
    assertEquals(member.ask("check", { resource: mailbox, client: contextHandle(VM), privilege: "DG_SEND" }), {
      code: "SUCCESS_ACCESS_GRANTED",
      decidedBy: group,
      via: "group",
    });
    assertEquals(member.ask("lookup", { name: "group" }), { handle: group });
    assert(member.ask("is_member", { group, member: VM }).member);
    member.ask("grant", { resource: member.endpoint(), client: group, allow: ["DG_SEND"], deny: [] });
  });

  it("a member whose context has not come back is a member no more", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1) });
    const owner = returned(world, 1, HOST_CONTEXT);
    const group = handleOf(HOST_CONTEXT, 3000);
    assert(announce(owner, "GROUP", group));
    const members = [{ context: VM, canAssign: true, order: 77 }];
    owner.ask("announce_entries", entries("GROUP", group, { members }));
    owner.ask("announced", {});
    assertEquals(owner.take("keep_member").map(({ body }) => [body.member.context, body.present]), [[VM, false]]);
    assertEquals(owner.ask("is_member", { group, member: VM }), { member: false });
    // Nor is one that a late survivor names.
    const [late, other] = [returned(world, 2, HOST_CONTEXT), handleOf(HOST_CONTEXT, 3001)];
    assert(announce(late, "GROUP", other));
    late.ask("announce_entries", entries("GROUP", other, { members }));
    world.join(VM);
    assertEquals(late.ask("is_member", { group: other, member: VM }), { member: false });
    // It may be said twice, if the answer was lost; but not by who was not there.
    for (let i = 0; i < 2; i++) {
      late.ask("announce_entries", entries("GROUP", other, { members }));
      late.ask("announced", {});
    }
    const fresh = world.join(VM);
    fresh.refused("NO_ACCESS", "announce_entries", entries("GROUP", fresh.group(), { members }));
    fresh.refused("NO_ACCESS", "announce_peers", { peers: [FIRST] });
  });

  it("what cannot be somebody's is not taken back", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
    const [one, two] = [returned(world, 1), returned(world, 2)];
    const mailbox = handleOf(VM, 3000);
    assert(announce(one, "DATAGRAM", mailbox));
    assert(!announce(two, "DATAGRAM", mailbox));
    assert(!announce(two, "DATAGRAM", handleOf(HOST_CONTEXT, 3001)));
    assert(!announce(two, "GROUP", PUBLIC_GROUP));
    assert(!announce(world.join(VM, {}, { privileged: false }), "DATAGRAM", handleOf(VM, 3002)));
    two.refused("NOT_FOUND", "announce_entries", entries("DATAGRAM", mailbox, { names: ["stolen"] }));
    const share = [world.medium.share("region", 5)];
    two.refused("INVALID_ARGS", "announce_resource", {
      type: "SHAREDMEM",
      handle: handleOf(VM, 3003),
      size: 4,
      creatorOnly: false,
      ticket: null,
    }, share);
    const names = (client: TestClient, handle: Handle) =>
      client.ask("announce_entries", entries("DATAGRAM", handle, { names: ["name"] })).refused;
    assert(announce(two, "DATAGRAM", handleOf(VM, 3004)));
    assertEquals([names(one, mailbox), names(two, handleOf(VM, 3004))], [[], ["name"]]);
  });

  it("a region is known by whoever announces it first, its creator or somebody attached", () => {
    for (const creatorFirst of [true, false]) {
      const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
      const [creator, attached] = [returned(world, 1), returned(world, 2)];
      const handle = handleOf(VM, 3000);
      const steps = [
        () => assert(announceRegion(world, creator, handle)),
        () => assert(attached.ask("announce_attachment", attachment(handle, 2)).accepted),
      ];
      for (const step of creatorFirst ? steps : steps.toReversed()) step();
      assert(creator.ask("announce_attachment", attachment(handle, 1)).accepted);
      for (const client of [creator, attached]) client.ask("announced", {});
      world.join(VM).ask("attach", { handle });
      assertEquals(world.inspect("attachments").map(({ count }) => count).toSorted(), [1, 1, 2]);
      for (const last of [false, false, false]) {
        assertEquals((attached.client.attachments.size > 0 ? attached : creator).ask("detach", { handle }).last, last);
      }
      assertEquals(world.medium.held.includes("region"), false);
    }
  });

  it("a region whose creator has not come back lives on in those attached", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(SLOT) });
    const old = returned(world, SLOT);
    const handle = handleOf(HOST_CONTEXT, 3000);
    assert(old.ask("announce_attachment", attachment(handle, 1)).accepted);
    assert(!old.ask("announce_attachment", { ...attachment(handle, 1), size: 5 }).accepted);
    const asker = world.join();
    const attach = asker.send("attach", { handle });
    old.ask("announced", {});
    assertEquals(refusalOf(() => asker.result("attach", attach)), "UNAVAILABLE");
    assertEquals(old.take("resource_gone").map(({ body }) => body), [{ type: "SHAREDMEM", handle }]);
    assertEquals(old.ask("detach", { handle }), { last: true });
    asker.refused("NOT_FOUND", "query", { handle });
  });

  it("an attachment that is none leaves no region behind", () => {
    const world = new BrokerWorld({ firstNumber: FIRST });
    const late = world.join(VM);
    assert(!late.ask("announce_attachment", attachment(handleOf(VM, 3000), 0)).accepted);
    late.refused("NOT_FOUND", "query", { handle: handleOf(VM, 3000) });
  });

  it("a bell of which one end is gone is none: who still has the other end is told, whoever comes first", () => {
    for (const order of [[0, 1], [1, 0]] as const) {
      const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
      const both = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
      const [has, hasNot] = order.map((i) => both[i]!);
      has!.ask("announce_peers", { peers: [hasNot!.client.number] });
      for (const i of [0, 1]) both[i]!.ask("announced", {});
      assertEquals(has!.take("peer_gone").map(({ body }) => body.peer), [hasNot!.client.number]);
      assertEquals(hasNot!.take("peer_gone"), []);
    }
    // And one who lost its connection only comes back to a broker that has told the others that it is gone.
    const world = new BrokerWorld();
    const [host, guest] = [world.join(), world.join(VM)];
    const late = world.join(VM, { client: 1100 });
    late.ask("announce_peers", { peers: [host.client.number] });
    assertEquals(late.take("peer_gone").map(({ body }) => body.peer), [host.client.number]);
    assertEquals(guest.take("peer_gone"), []);
  });

  it("a lane goes on when both of its ends have been announced", () => {
    for (const senderFirst of [true, false]) {
      const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
      const [receiver, sender] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
      const destination = handleOf(HOST_CONTEXT, 3000);
      assert(announce(receiver, "DATAGRAM", destination));
      const grants = [{ client: contextHandle(VM), states: { DG_SEND: "ALLOW" } as const }];
      receiver.ask("announce_entries", entries("DATAGRAM", destination, { grants }));
      const lane = { lane: 4000, source: INVALID_HANDLE, destination };
      const steps = [
        () => sender.ask("announce_lane", { ...lane, sender: true, ticket: "" }),
        () => receiver.ask("announce_lane", { ...lane, sender: false, ticket: "" }),
      ];
      for (const step of senderFirst ? steps : steps.toReversed()) step();
      sender.ask("announce_peers", { peers: [receiver.client.number] });
      receiver.ask("announce_peers", { peers: [sender.client.number] });
      for (const client of [receiver, sender]) client.ask("announced", {});
      assertEquals([sender.take("lane_closed"), receiver.take("lane_closed")], [[], []]);
      assertEquals(world.inspect("lanes").length, 1);
      assert(!sender.ask("open_lane", { source: sender.endpoint(), destination }).fresh, "they have a bell");
      receiver.ask("revoke_all", { resource: destination, client: contextHandle(VM) });
      assertEquals(sender.take("lane_closed").map(({ body }) => body.cause), ["revoked", "revoked"]);
    }
  });

  it("a lane of which one end is missing, other, or no longer allowed is closed", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
    const [receiver, sender] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const destination = handleOf(HOST_CONTEXT, 3000);
    assert(announce(receiver, "DATAGRAM", destination));
    const lane = (number: number, sender: boolean) => ({
      lane: number,
      source: INVALID_HANDLE,
      destination,
      sender,
      ticket: "",
    });
    sender.ask("announce_lane", lane(4000, true));
    receiver.ask("announce_lane", lane(4001, false));
    // Its ends do not agree.
    sender.ask("announce_lane", lane(4002, true));
    receiver.ask("announce_lane", { ...lane(4002, false), source: handleOf(VM, 3001) });
    // The receiver is somebody else's.
    sender.ask("announce_lane", { ...lane(4003, true), destination: handleOf(VM, 3002) });
    receiver.ask("announce_lane", { ...lane(4003, false), destination: handleOf(VM, 3002) });
    // Nobody granted it.
    for (const [one, other] of [[sender, receiver], [receiver, sender]] as const) {
      one.ask("announce_peers", { peers: [other.client.number] });
    }
    sender.ask("announce_lane", lane(4004, true));
    receiver.ask("announce_lane", lane(4004, false));
    for (const client of [receiver, sender]) client.ask("announced", {});
    const closed = (client: TestClient) =>
      client.take("lane_closed").map(({ body }) => [body.lane, body.cause]).toSorted();
    // And there nobody granted it either: the broker before may have told its receiver alone.
    assertEquals(closed(sender), [[4000, "revoked"], [4002, "gone"], [4003, "gone"], [4004, "revoked"]]);
    assertEquals(closed(receiver), [[4001, "ended"], [4002, "ended"], [4003, "ended"], [4004, "revoked"]]);
    // Who comes late finds that the other end has given up.
    receiver.ask("announce_lane", lane(4000, false));
    assertEquals(closed(receiver), [[4000, "ended"]]);
    assertEquals(world.inspect("lanes"), []);
  });

  it("a lane between two who come late is closed", () => {
    const world = new BrokerWorld({ firstNumber: FIRST });
    const [receiver, sender] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const destination = handleOf(HOST_CONTEXT, 3000);
    assert(announce(receiver, "DATAGRAM", destination));
    const lane = { lane: 4000, source: INVALID_HANDLE, destination };
    sender.ask("announce_lane", { ...lane, sender: true, ticket: "" });
    receiver.ask("announce_lane", { ...lane, sender: false, ticket: "" });
    assertEquals([sender, receiver].map((it) => it.take("lane_closed").length), [1, 1]);
    assertEquals(world.inspect("lanes"), []);
  });

  it("groups count in the order in which they were joined, not announced", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
    const [owner, member] = [returned(world, 1, HOST_CONTEXT), returned(world, 2)];
    const [later, sooner] = [handleOf(HOST_CONTEXT, 3000), handleOf(HOST_CONTEXT, 3001)];
    for (const [order, group] of [[9, later], [5, sooner]] as const) {
      assert(announce(owner, "GROUP", group));
      owner.ask("announce_entries", entries("GROUP", group, { members: [{ context: VM, canAssign: false, order }] }));
    }
    for (const client of [owner, member]) client.ask("announced", {});
    const resource = owner.endpoint();
    owner.ask("grant", { resource, client: later, allow: ["DG_SEND"], deny: [] });
    owner.ask("grant", { resource, client: sooner, allow: [], deny: ["DG_SEND"] });
    assertEquals(owner.ask("check", { resource, client: contextHandle(VM), privilege: "DG_SEND" }).decidedBy, sooner);
  });

  it("a late survivor keeps what nobody else has taken", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(SLOT) });
    world.deliver(world.broker.endRecovery());
    const other = world.join();
    const taken = other.endpoint();
    other.ask("register", { name: "taken", handle: taken });
    const late = returned(world, SLOT);
    assert(announce(late, "DATAGRAM", handleOf(VM, 3000)));
    const names = entries("DATAGRAM", handleOf(VM, 3000), { names: ["taken", "free"] });
    assertEquals(late.ask("announce_entries", names), { refused: ["taken"] });
    late.ask("announced", {});
    assertEquals(late.pending, ["settled"]);
    assertEquals(other.ask("lookup", { name: "free" }), { handle: handleOf(VM, 3000) });
  });

  it("watches tell again what comes back", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2) });
    const [watcher, owner] = [returned(world, 1), returned(world, 2)];
    watcher.ask("watch_names", { watch: 5, prefix: "old", exact: false });
    watcher.ask("announced", {});
    assert(announce(owner, "DATAGRAM", handleOf(VM, 3000)));
    owner.ask("announce_entries", entries("DATAGRAM", handleOf(VM, 3000), { names: ["old"] }));
    assertEquals(watcher.take("name").map(({ body }) => [body.watch, body.change, body.entries.length]), [[
      5,
      "added",
      1,
    ]]);
    owner.ask("announced", {});
    assertEquals([watcher.pending, owner.pending.filter((it) => it === "settled").length], [["settled"], 2]);
  });

  it("everything goes back when everybody leaves in the middle", () => {
    const world = new BrokerWorld({ firstNumber: FIRST, survivors: survivors(1, 2, 3) });
    const [one, two, asker] = [returned(world, 1), returned(world, 2), world.join()];
    announceRegion(world, one, handleOf(VM, 3000));
    two.ask("announce_attachment", attachment(handleOf(VM, 3000), 3));
    two.ask("announce_lane", {
      lane: 4000,
      source: INVALID_HANDLE,
      destination: handleOf(VM, 3001),
      sender: true,
      ticket: "",
    });
    asker.send("attach", { handle: handleOf(VM, 3001) });
    asker.send("list", { prefix: "", after: null }, [world.medium.share("lane") as TestShare]);
    for (const client of [two, asker, one]) client.leave();
    world.deliver(world.broker.endRecovery());
    world.assertEmpty();
  });
});

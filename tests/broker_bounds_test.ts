import { assertEquals, assertStringIncludes } from "@std/assert";
import { contextHandle, type Handle, HOST_CONTEXT, INVALID_HANDLE } from "../mod.ts";
import { AccessList } from "../src/fabric/access_list.ts";
import { Broker, slotSurvivor } from "../src/fabric/broker.ts";
import { Policy } from "../src/fabric/policy.ts";
import type { Requests } from "../src/fabric/protocol.ts";
import { DEFAULT_QUOTA } from "../src/fabric/quota.ts";
import { BrokerWorld } from "./support/broker_world.ts";

const tickets = { issue: (c: string) => `t:${c}`, isGenuine: (c: string, t: string) => t === `t:${c}` };
const medium = {
  makeLane: () => ({}),
  makeBell: () => [{}, {}] as const,
  checkRegion() {},
  checkAttention() {},
  reserveNumbers() {},
  release() {},
};
const make = (more = {}) =>
  new Broker(medium as never, {
    pid: 1,
    kind: "daemon",
    version: "1",
    quota: { ...DEFAULT_QUOTA, resources: 4, clients: 2 },
    tickets,
    ...more,
  });
const identity = { pid: 5, uid: 77, contexts: [[16, 16]] as never, privileged: false };
// deno-lint-ignore no-explicit-any
const ask = (b: Broker, c: any, op: string, args: object = {}, shares: object[] = []): any => {
  const { outgoing } = b.handle(c, { message: { id: 1, op, args: { ...args } }, shares } as never);
  return outgoing.findLast((o) => o.to === c && o.kind !== "notice")?.message;
};
const hello = (b: Broker, more = {}) => {
  const c = b.connect(identity);
  return {
    c,
    r: ask(b, c, "hello", {
      protocol: 1,
      version: "1",
      context: 16,
      flags: 0,
      slot: -1,
      client: null,
      ticket: null,
      observer: false,
      ...more,
    }, [{}]),
  };
};
Deno.test("quota: resources kept by announcing tickets of what was destroyed", () => {
  const b = make();
  const { c } = hello(b);
  const had = [];
  for (let i = 0; i < 50; i++) {
    const { result } = ask(b, c, "create_region", { size: 1, creatorOnly: false }, [{}]);
    had.push(result);
    ask(b, c, "detach", { handle: result.handle });
  }
  const accepted =
    had.filter(({ handle, ticket }) =>
      ask(b, c, "announce_resource", { type: "SHAREDMEM", handle, size: 1, creatorOnly: false, ticket }, [{}]).result
        .accepted
    ).length;
  assertEquals(accepted <= 4, true);
});
Deno.test("quota: regions kept by announcing tickets", () => {
  const b = make({ quota: { ...DEFAULT_QUOTA, regions: 3 } });
  const { c } = hello(b);
  const size = { size: 1, creatorOnly: false };
  const made = () => ask(b, c, "create_region", size, [{}]).result;
  const had = [made(), made(), made()];
  for (const { handle } of had) ask(b, c, "detach", { handle });
  for (let i = 0; i < 3; i++) made();
  const again = { type: "SHAREDMEM", ...size, ...had[0] };
  assertEquals(ask(b, c, "announce_resource", again, [{}]).result, { accepted: false });
});
Deno.test("quota: clients", () => {
  const b = make();
  const said = [];
  for (let i = 0; i < 50; i++) {
    const { c, r } = hello(b);
    said.push(r.result);
    b.disconnect(c);
  }
  const back = said.filter(({ client, ticket }) => hello(b, { client, ticket }).r.result !== undefined).length;
  assertEquals(back <= 4, true);
});
Deno.test("observers", () => {
  const b = make();
  let n = 0;
  while (n < 5000 && hello(b, { observer: true }).r.result !== undefined) n++;
  assertEquals(n, 64);
});
Deno.test("deferred", () => {
  const b = make({ survivors: ["client 9"] });
  const { c } = hello(b);
  let held = 0;
  for (let i = 0; i < 5000; i++) {
    const shares = Array.from({ length: 16 }, () => ({}));
    const { spent } = b.handle(
      c,
      { message: { id: 1, op: "list", args: { prefix: "", after: null } }, shares } as never,
    );
    held += shares.length - spent.length;
  }
  assertEquals(held < 1000, true);
});
Deno.test("bells: so many watchers and writers of one region are introduced at once, and no more", () => {
  for (const [writers, allowed] of [[256, true], [257, false]] as const) {
    const b = make({ quota: DEFAULT_QUOTA });
    const { c } = hello(b);
    const { handle } = ask(b, c, "create_region", { size: 1, creatorOnly: false }, [{}]).result;
    const others = Array.from({ length: writers - 1 }, () => hello(b).c);
    for (const other of others) ask(b, other, "attach", { handle });
    const { c: watcher } = hello(b);
    ask(b, watcher, "attach", { handle });
    const { result, error } = ask(b, watcher, "watch_region", { handle });
    assertEquals([result, error?.code], allowed ? [{}, undefined] : [undefined, "NO_RESOURCES"]);
    assertEquals(watcher.peers.size, allowed ? writers : 0);
  }
});
/** A grant, with a privilege that all resources have. */
const granting = (resource: Handle, context: number) => ({
  resource,
  client: contextHandle(context),
  allow: ["CH_PRIV" as const],
  deny: [],
});
Deno.test("quota: the entries of all resources of a context count together, whoever put them there", () => {
  const world = new BrokerWorld({ quotas: { grants: 3 } });
  const [host, guest] = [world.join(HOST_CONTEXT), world.join(16)];
  const [endpoint, group] = [host.endpoint(), host.group()];
  host.ask("grant", granting(endpoint, 16));
  host.ask("grant", granting(group, 16));
  // The guest may change that: at the host's cost, not at its own.
  guest.ask("grant", granting(endpoint, 17));
  const reason = guest.refused("NO_RESOURCES", "grant", granting(endpoint, 18));
  assertStringIncludes(reason, "context 2 has its quota of 3 entries in access lists");
  host.refused("NO_RESOURCES", "grant", granting(host.region(), 16));
  host.ask("grant", granting(group, 16));
  for (let i = 0; i < 3; i++) guest.ask("grant", granting(guest.endpoint(), 16));
  host.ask("destroy", { type: "DATAGRAM", handle: endpoint });
  for (const context of [17, 18]) host.ask("grant", granting(group, context));
  host.refused("NO_RESOURCES", "grant", granting(group, 19));
});
Deno.test("quota: a region that lives on without its creator has no entries, and gets none", () => {
  const world = new BrokerWorld({ quotas: { grants: 2 } });
  const [host, guest, other] = [world.join(HOST_CONTEXT), world.join(16), world.join(HOST_CONTEXT)];
  for (let i = 0; i < 3; i++) {
    const region = host.region();
    host.ask("grant", { resource: region, client: contextHandle(16), allow: ["SM_ATTACH"], deny: [] });
    host.ask("grant", granting(region, 17));
    guest.ask("attach", { handle: region });
    host.ask("detach", { handle: region });
    other.refused("UNAVAILABLE", "grant", granting(region, 18));
    other.refused("INVALID_ARGS", "revoke_all", { resource: region, client: contextHandle(17) });
    const asked = { resource: region, client: contextHandle(16), privilege: "SM_ATTACH" } as const;
    assertEquals(other.ask("check", asked).code, "INVALID_PRIV");
  }
});
Deno.test("quota: what is announced, and what a policy grants on all, are entries of the context too", () => {
  const policy = Policy.parse("grant DG_SEND on DATAGRAM to public\n", "policy");
  const world = new BrokerWorld({ quotas: { grants: 2 }, survivors: [slotSurvivor(3)], policy, firstNumber: 2000 });
  const handle = { context: 16, resource: 1030 };
  const guest = world.join(16, { slot: 3, client: 1031 });
  const announced = { type: "GROUP", handle, size: 0, creatorOnly: false, ticket: "" } as const;
  assertEquals(guest.ask("announce_resource", announced).accepted, true);
  const client = contextHandle(17);
  const entries = { grants: [{ client, states: { CH_PRIV: "DENY" as const } }], names: [], members: [] };
  // Said twice it counts once.
  for (let i = 0; i < 2; i++) guest.ask("announce_entries", { type: "GROUP", handle, ...entries, tickets: [] });
  guest.ask("announced", {});
  guest.endpoint();
  guest.refused("NO_RESOURCES", "grant", granting(handle, 18));
  guest.ask("destroy", { type: "GROUP", handle });
  guest.ask("grant", granting(guest.group(), 18));
});
Deno.test("quota: the processes of a context share its name watches", () => {
  const world = new BrokerWorld({ quotas: { watches: 4 } });
  const [one, two, other] = [world.join(16), world.join(16), world.join(17)];
  const watching = (watch: number) => ({ watch, prefix: "x", exact: false });
  for (const watch of [1, 2, 3]) one.ask("watch_names", watching(watch));
  two.ask("watch_names", watching(1));
  const reason = two.refused("NO_RESOURCES", "watch_names", watching(2));
  assertStringIncludes(reason, "context 16 has its quota of 4 name watches");
  for (const watch of [1, 2, 3]) other.ask("watch_names", watching(watch));
  one.ask("unwatch_names", { watch: 2 });
  two.ask("watch_names", watching(2));
  one.leave();
  two.ask("watch_names", watching(3));
});
Deno.test("names: how they begin, and where a list goes on, are no longer than a name", () => {
  const client = new BrokerWorld().join();
  const [longest, longer] = ["ä".repeat(138), "ä".repeat(138) + "x"];
  client.ask("list", { prefix: longest, after: longest });
  client.ask("watch_names", { watch: 1, prefix: longest, exact: false });
  const reasons = [
    client.refused("INVALID_ARGS", "list", { prefix: longer, after: null }),
    client.refused("INVALID_ARGS", "list", { prefix: "", after: longer }),
    client.refused("INVALID_ARGS", "watch_names", { watch: 2, prefix: longer, exact: true }),
  ];
  const fault = "must have at most 276 bytes of UTF-8: it has 277";
  assertEquals(reasons, ["prefix", "after", "prefix"].map((field) => `the field '${field}' ${fault}`));
});
/** The host, a guest it listens to by a group of its own, and a stranger who puts the guest into many groups. */
const crowded = (groups: number, lanes: number) => {
  const world = new BrokerWorld();
  const [host, guest, stranger] = [world.join(HOST_CONTEXT), world.join(16), world.join(17)];
  const own = host.group();
  host.ask("add_member", { group: own, member: 16, canAssign: false });
  const ends = Array.from({ length: lanes }, () => host.endpoint());
  const grant = (resource: Handle, client: Handle) =>
    host.ask("grant", { resource, client, allow: ["DG_SEND"], deny: [] });
  for (const destination of ends) {
    grant(destination, own);
    guest.ask("open_lane", { source: INVALID_HANDLE, destination });
  }
  const theirs = Array.from({ length: groups }, () => stranger.group());
  for (const group of theirs) {
    for (const member of [HOST_CONTEXT, 16]) stranger.ask("add_member", { group, member, canAssign: true });
  }
  return { world, host, guest, stranger, own, ends, theirs, grant };
};
/** How often something is called meanwhile. */
const countCalls = <K extends string>(
  object: { [N in K]: (...args: never[]) => unknown },
  name: K,
  act: () => void,
) => {
  const real = object[name];
  let calls = 0;
  object[name] = function (this: unknown, ...args: never[]) {
    calls++;
    return real.apply(this, args);
  };
  try {
    act();
  } finally {
    object[name] = real;
  }
  return calls;
};
Deno.test("groups: a decision looks at those that the owner listed, not at all that others put a context into", () => {
  const looks = [5, 500].map((groups) => {
    const { guest, ends } = crowded(groups, 1);
    let looks = 0;
    for (const { members } of guest.client.context!.groups) {
      const get = members.get.bind(members);
      members.get = (context) => {
        looks++;
        return get(context);
      };
    }
    guest.ask("check", { resource: ends[0]!, client: contextHandle(16), privilege: "DG_SEND" });
    return looks;
  });
  assertEquals(looks, [1, 1]);
});
Deno.test("groups: however many go with who made them, the lanes that they may have allowed are looked at once", () => {
  for (const groups of [2, 50]) {
    const { world, stranger, guest, ends, theirs, grant } = crowded(groups, 4);
    const decisions = (act: () => void) => countCalls(AccessList.prototype, "decide", act);
    for (const resource of ends.slice(0, 3)) for (const client of theirs) grant(resource, client);
    assertEquals(decisions(() => stranger.leave()), 3);
    assertEquals([world.inspect("lanes").length, guest.take("lane_closed")], [4, []]);
  }
});
Deno.test("groups: a lane is closed when the last of those that allow it goes, with all of its maker's or alone", () => {
  for (const alone of [true, false]) {
    const { world, host, stranger, guest, own, ends, theirs, grant } = crowded(3, 1);
    for (const client of theirs) grant(ends[0]!, client);
    host.ask("remove_member", { group: own, member: 16 });
    assertEquals(world.inspect("lanes").length, 1);
    if (!alone) stranger.leave();
    else for (const handle of theirs) stranger.ask("destroy", { type: "GROUP", handle });
    assertEquals(guest.take("lane_closed").map(({ body }) => body.cause), ["revoked"]);
  }
});
Deno.test("what others grant, and whom they let into a group, is told only to an owner who reads", () => {
  const world = new BrokerWorld();
  const [owner, other] = [world.join(16), world.join(16)];
  for (const context of [17, 18]) world.join(context);
  const [mailbox, group] = [owner.endpoint(), owner.group()];
  const joining = (member: number) => ({ group, member, canAssign: false });
  other.ask("grant", granting(mailbox, 17));
  other.ask("add_member", joining(17));
  owner.client.unread = 65;
  other.refused("NO_RESOURCES", "grant", granting(mailbox, 18));
  other.refused("NO_RESOURCES", "add_member", joining(18));
  // What is there can be changed, and above all withdrawn.
  other.ask("grant", { ...granting(mailbox, 17), allow: [], deny: ["DG_SEND"] });
  other.ask("add_member", { ...joining(17), canAssign: true });
  other.ask("revoke_all", { resource: mailbox, client: contextHandle(17) });
  other.ask("remove_member", { group, member: 17 });
  // So can all by the owner, who is about to read.
  owner.ask("grant", granting(mailbox, 18));
  owner.ask("add_member", joining(18));
  // When very much waits it can only be withdrawn.
  const more: Requests["grant"] = { ...granting(mailbox, 18), allow: ["DG_SEND", "CH_PRIV"] };
  owner.ask("grant", more);
  owner.client.unread = 2049;
  const { allow: privileges, ...entry } = granting(mailbox, 18);
  other.refused("NO_RESOURCES", "grant", more);
  other.refused("NO_RESOURCES", "revoke", { ...entry, privileges });
  other.refused("NO_RESOURCES", "add_member", { ...joining(18), canAssign: true });
  other.ask("revoke_all", { resource: mailbox, client: contextHandle(18) });
  other.ask("remove_member", { group, member: 18 });
});
Deno.test("what a client says again to the same broker counts once: watches, names, grants", () => {
  const world = new BrokerWorld({ quotas: { watches: 2 }, firstNumber: 2000, survivors: [slotSurvivor(3)] });
  const client = world.join(16, { slot: 3, client: 1031 });
  const handle = { context: 16, resource: 1030 };
  const resource = { type: "GROUP", handle, size: 0, creatorOnly: false, ticket: "" } as const;
  const names = Array.from({ length: DEFAULT_QUOTA.names }, (_, i) => `name ${i}`);
  const nothing = { type: "GROUP" as const, handle, grants: [], members: [], tickets: [] };
  for (let said = 0; said < 2; said++) {
    assertEquals(client.ask("announce_resource", resource).accepted, true);
    for (let i = 0; i < names.length; i += 32) {
      const page = { ...nothing, names: names.slice(i, i + 32) };
      assertEquals(client.ask("announce_entries", page).refused, []);
    }
    for (const watch of [1, 2]) client.ask("watch_names", { watch, prefix: "x", exact: false });
  }
  client.refused("NO_RESOURCES", "watch_names", { watch: 3, prefix: "x", exact: false });
  assertEquals(client.ask("announce_entries", { ...nothing, names: ["one more"] }).refused, ["one more"]);
});

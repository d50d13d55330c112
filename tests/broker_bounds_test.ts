import { assertEquals } from "@std/assert";
import { contextHandle, type Handle, HOST_CONTEXT, INVALID_HANDLE } from "../mod.ts";
import { AccessList } from "../src/fabric/access_list.ts";
import { Broker } from "../src/fabric/broker.ts";
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

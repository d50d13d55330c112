import { assertEquals } from "@std/assert";
import { Broker } from "../src/fabric/broker.ts";
import { DEFAULT_QUOTA } from "../src/fabric/quota.ts";
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

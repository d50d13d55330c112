/** What a watch is told when the broker says that changes were missed: how what is there differs from what it knew. */

import { assertEquals } from "@std/assert";
import { type DiscoveredName, VmciError } from "../mod.ts";
import { Discovery } from "../src/discovery.ts";
import type { Message } from "../src/fabric/protocol.ts";
import type { Session } from "../src/fabric/session.ts";
import { fails } from "./support/failure.ts";

/** A session whose broker does what the test says. */
class FakeSession {
  closed = false;
  readonly asked: string[] = [];
  /** What is listed; and what the broker says before each page of it. */
  names: DiscoveredName[] = [];
  before: (page: number) => void = () => {};
  /** What it is refused next. */
  refusing: VmciError | undefined;
  readonly self = { nudge: () => queueMicrotask(() => this.waits.splice(0).forEach((look) => look())) };
  readonly waits: (() => void)[] = [];
  readonly #handlers = new Map<string, (body: unknown) => void>();
  #announce = () => {};

  on(notice: string, handler: (body: unknown) => void): void {
    this.#handlers.set(notice, handler);
  }

  onAnnounce(hook: () => void): void {
    this.#announce = hook;
  }

  /** There is a new broker. */
  announce(): void {
    this.#announce();
  }

  say(notice: string, body: Message = {}): void {
    this.#handlers.get(notice)!(body);
    this.self.nudge();
  }

  request(_subject: unknown, op: string, { prefix, after }: { prefix: string; after: string | null }): unknown {
    this.asked.push(op === "list" ? `list ${prefix} ${after}` : op);
    const { refusing } = this;
    this.refusing = undefined;
    if (refusing !== undefined) throw refusing;
    if (op !== "list") return { result: {} };
    this.before(this.asked.filter((it) => it.startsWith("list")).length);
    // Pages of two: the order of these names is that of JavaScript.
    const left = this.names.filter(({ name }) => name.startsWith(prefix) && (after === null || name > after));
    return { result: { entries: left.slice(0, 2), more: left.length > 2 } };
  }

  wait<T>(_subject: unknown, look: () => T | undefined): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const attempt = () => {
      try {
        const result = look();
        if (result === undefined) this.waits.push(attempt);
        else resolve(result);
      } catch (error) {
        reject(error);
      }
    };
    attempt();
    return promise;
  }
}

const entry = (name: string, resource = 2000): DiscoveredName => (
  { name, handle: { context: 16, resource }, type: "DATAGRAM" }
);

/** A watch of all names, that knows three of them; and how it reads what it is told next. */
async function watching() {
  const session = new FakeSession();
  const discovery = new Discovery(session as unknown as Session);
  const changes = discovery.watch();
  const read = async (count: number) => {
    const told: string[] = [];
    for (let i = 0; i < count; i++) {
      const { change, name, handle } = (await changes.next()).value!;
      told.push(`${change} ${name} ${handle.resource}`);
    }
    return told;
  };
  session.names = ["a", "b", "c"].map((name) => entry(name));
  session.say("name", { watch: 0, change: "added", entries: session.names });
  assertEquals(await read(3), ["added a 2000", "added b 2000", "added c 2000"]);
  return { session, discovery, changes, read };
}

Deno.test("missed names: a watch is told how what is there differs from what it knew, and then each change", async () => {
  const { session, read } = await watching();
  session.names = [entry("a"), entry("b", 2001), entry("d"), entry("e"), entry("f")];
  session.say("names_missed");
  assertEquals(await read(6), [
    "removed b 2000",
    "added b 2001",
    "added d 2000",
    "added e 2000",
    "added f 2000",
    "removed c 2000",
  ]);
  assertEquals(session.asked, ["watch_names", "list  null", "list  b", "list  e"]);
  session.say("name", { watch: 0, change: "removed", entries: [entry("a")] });
  assertEquals(await read(1), ["removed a 2000"]);
});

Deno.test("missed names: what changes while a list is read is told once and right, and missed again looked for again", async () => {
  const { session, read } = await watching();
  session.names = [entry("a"), entry("c"), entry("d"), entry("e")];
  session.before = (page) => {
    if (page !== 2) return;
    // After the first page: one of it goes, one before it comes, and there is more than is told.
    session.names = [entry("0"), entry("c"), entry("x")];
    session.say("name", { watch: 0, change: "removed", entries: [entry("a")] });
    session.say("name", { watch: 0, change: "added", entries: [entry("0")] });
    session.say("names_missed");
  };
  session.say("names_missed");
  assertEquals(await read(4), ["removed a 2000", "added 0 2000", "added x 2000", "removed b 2000"]);
  assertEquals(session.asked.slice(1), ["list  null", "list  c", "list  null", "list  c"]);
});

Deno.test("missed names: that all have announced removes nothing that was missed, and a new broker's names are looked for", async () => {
  const { session, read } = await watching();
  session.before = (page) => {
    if (page !== 1) return;
    // The broker goes, and of the next one's names some are missed, too.
    session.announce();
    session.say("name", { watch: 0, change: "added", entries: [entry("a")] });
    session.say("settled");
    session.names = [entry("a"), entry("b")];
  };
  session.say("names_missed");
  session.say("settled");
  assertEquals(await read(1), ["removed c 2000"]);
  assertEquals(session.asked.slice(1), ["list  null", "watch_names", "list  null"]);
});

Deno.test("a watch that a new broker has no room for ends with that, and nothing else does", async () => {
  const { session, discovery, changes } = await watching();
  const other = discovery.watch("o");
  const refused = new VmciError("NO_RESOURCES", { operation: "watch_names", reason: "the quota" });
  session.refusing = refused;
  session.announce();
  assertEquals((await fails("NO_RESOURCES", () => changes.next(), { operation: "discovery.watch" })).cause, refused);
  session.say("name", { watch: 1, change: "added", entries: [entry("o")] });
  assertEquals((await other.next()).value!.name, "o");
});

Deno.test("missed names: who waits for a name finds it, by one page", async () => {
  const session = new FakeSession();
  const discovery = new Discovery(session as unknown as Session);
  const found = discovery.wait("b");
  session.names = ["a", "b", "b2", "b3"].map((name) => entry(name));
  session.say("names_missed");
  assertEquals(await found, entry("b").handle);
  assertEquals(session.asked, ["watch_names", "list b null", "unwatch_names"]);
});

Deno.test("missed names: where the broker does not answer what there is, reading and waiting fail with that", async () => {
  const { session, discovery, changes, read } = await watching();
  const waiting = fails("UNAVAILABLE", () => discovery.wait("never"), { operation: "discovery.wait" });
  session.names.push(entry("d"));
  session.before = (page) => {
    if (page === 2) throw new VmciError("UNAVAILABLE", { operation: "discovery.watch", reason: "it is silent" });
  };
  session.names = [entry("0"), ...session.names];
  session.say("names_missed");
  assertEquals(await read(1), ["added 0 2000"]);
  const { reason } = await fails("UNAVAILABLE", () => changes.next(), { operation: "discovery.watch" });
  assertEquals(reason, "changes were missed, and what is there could not be asked: it is silent");
  assertEquals((await waiting).reason, reason);
  assertEquals(await changes.next(), { done: true, value: undefined });
});

Deno.test("missed names: who closed meanwhile asks nothing", async () => {
  const { session, changes } = await watching();
  session.say("names_missed");
  session.closed = true;
  assertEquals(await changes.next(), { done: true, value: undefined });
  assertEquals(session.asked, ["watch_names"]);
});

/** A client's session with brokers that are made up: they answer late, by half or not at all, and go when they like. */

import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { type Handle, type Region, VmciError } from "../mod.ts";
import { Datagrams } from "../src/datagrams.ts";
import type { Bell, Connection, Medium, Packet, Share, SharedPages, SharedWord } from "../src/fabric/medium.ts";
import type { Message, Operation } from "../src/fabric/protocol.ts";
import { Session, type SessionOptions } from "../src/fabric/session.ts";
import { LANE_SIZE } from "../src/lane/ring.ts";
import { Vmci } from "../src/vmci.ts";
import { fails, failsSync } from "./support/failure.ts";
import { TestClock } from "./support/test_clock.ts";

const SUBJECT = { operation: "try" };
const HANDLE = { context: 16, resource: 2000 };
const TIMEOUT = 5000;

/** A descriptor of sorts. */
class Token {
  constructor(readonly what: string) {}
}

class FakeBell implements Bell {
  closed = false;
  rung: () => void = () => {};
  ended: () => void = () => {};
  rings = 0;

  ring(): boolean {
    this.rings++;
    return true;
  }

  drain(): boolean {
    return true;
  }

  listen(rung: () => void, ended: () => void): void {
    [this.rung, this.ended] = [rung, ended];
  }

  close(): void {
    this.closed = true;
  }
}

/** A request, as a broker gets it. */
interface Asked {
  readonly id: number;
  readonly op: Operation;
  readonly args: Record<string, unknown>;
}

/** What a broker does with a request: it answers, now or later, or dies of it. */
type Answer = Partial<Packet> | "later" | "dies";

/** A broker that does what the test says; to what that leaves out it says yes. */
class FakeBroker {
  /** All that it was asked but the hello, in order. */
  readonly asked: Asked[] = [];
  /** What came with the hello. */
  hello: Record<string, unknown> | undefined;
  answer: (asked: Asked) => Answer | undefined = () => undefined;
  /** What becomes of a packet before the broker sees it. */
  onSend: (message: Message) => "full" | "closed" | undefined = () => undefined;
  readonly bell = new FakeBell();
  readonly notice = new Int32Array(1);
  readonly inbox: Packet[] = [];
  alive = true;
  closed = 0;

  constructor(readonly client: number) {}

  /** The names of what it was asked. */
  get operations(): Operation[] {
    return this.asked.map(({ op }) => op);
  }

  /** What it was asked of one kind. */
  argsOf(op: Operation): Record<string, unknown>[] {
    return this.asked.filter((it) => it.op === op).map(({ args }) => args);
  }

  /** Says something, in answer or unasked. */
  say(message: Message, more: Partial<Packet> = {}): void {
    this.inbox.push({ message, shares: [], ...more });
    if ("notice" in message) this.notice[0]!++;
  }

  /** Takes a request in. */
  take(message: Message): void {
    const asked = message as unknown as Asked;
    if (asked.op === "hello") this.hello = asked.args;
    else this.asked.push(asked);
    const answer = this.answer(asked);
    if (answer === "dies") this.alive = false;
    if (typeof answer === "string" || asked.id === 0) return;
    const result = asked.op === "hello"
      ? this.welcome
      : asked.op === "announce_resource" || asked.op === "announce_lane"
      ? { accepted: true }
      : asked.op === "announce_entries"
      ? { refused: [] }
      : {};
    const shares = asked.op === "hello" ? [this.notice, this.bell] : [];
    this.inbox.push({ message: { id: asked.id, result }, shares, ...answer });
  }

  get welcome(): Message {
    const { client } = this;
    return { client, context: 16, flags: 2, version: "1", pid: 7, kind: "fake", ticket: `ticket ${client}` };
  }
}

class FakeConnection implements Connection {
  constructor(readonly broker: FakeBroker, readonly clock: TestClock) {}

  send({ message }: Packet, timeout: number): "sent" | "full" | "closed" {
    const { broker } = this;
    const fate = broker.alive ? broker.onSend(message) : "closed";
    if (fate === "full") this.clock.now += timeout;
    if (fate !== undefined) return fate;
    // What travels is text.
    broker.take(JSON.parse(JSON.stringify(message)));
    return "sent";
  }

  receive(timeout: number): Packet | undefined | "closed" {
    const packet = this.broker.inbox.shift();
    if (packet !== undefined) return packet;
    if (!this.broker.alive) return "closed";
    this.clock.now += timeout;
    return undefined;
  }

  close(): void {
    this.broker.closed++;
  }
}

class FakeMedium implements Medium {
  readonly device = "fake:";
  readonly slot = 3;
  concurrent = true;
  hostsBroker = false;
  /** Who is found, one after the other; the last one again and again, and a dead one never. */
  brokers: FakeBroker[];
  /** Milliseconds that one look for a broker takes. */
  searching = 1000;
  /** Called at each of them. */
  onSearch: () => void = () => {};
  openWord: (share: Share) => SharedWord = (share) => ({ word: share as Int32Array, close: () => {} });
  createAttention: Medium["createAttention"] = () => ({
    attention: { word: new Int32Array(1), close: () => {} },
    share: new Token("attention"),
  });
  readonly released: string[] = [];
  readonly blocked: number[] = [];
  /** Whether its broker was to end when it was closed. */
  readonly left: boolean[] = [];

  constructor(readonly clock: TestClock, ...brokers: FakeBroker[]) {
    this.brokers = brokers;
  }

  tryConnect(): Connection | undefined {
    this.clock.now += this.searching;
    this.onSearch();
    while (this.brokers[0]?.alive === false) this.brokers.shift();
    const [broker] = this.brokers;
    return broker === undefined ? undefined : new FakeConnection(broker, this.clock);
  }

  explainSilence(): string {
    return "it is made up";
  }

  createRegion(): never {
    throw new Error("no test makes one");
  }

  openRegion: Medium["openRegion"] = () => {
    throw new Error("this test opens none");
  };

  openLane(): SharedPages {
    return { buffer: new ArrayBuffer(LANE_SIZE), discard: () => {}, close: () => {} };
  }

  openBell(share: Share): Bell {
    return share as FakeBell;
  }

  block(_bells: Iterable<Bell>, _connection: Connection | undefined, timeout: number): void {
    this.blocked.push(timeout);
  }

  release(share: Share): void {
    this.released.push((share as Token).what);
  }

  close(brokerEnds: boolean): Promise<void> {
    this.left.push(brokerEnds);
    return Promise.resolve();
  }
}

const OPTIONS: SessionOptions = { context: 16, flags: 0, observer: false, timeout: TIMEOUT, spin: 0 };

/** A session, its medium and its first two brokers, of which the second is found when the first is gone. */
interface World {
  readonly clock: TestClock;
  readonly medium: FakeMedium;
  readonly broker: FakeBroker;
  readonly next: FakeBroker;
  readonly session: Session;
}

/** Runs a test with a session, and closes that. */
function withSession(test: (world: World) => void | Promise<void>): () => Promise<void> {
  return async () => {
    using clock = new TestClock();
    const [broker, next] = [new FakeBroker(1025), new FakeBroker(1025)];
    const medium = new FakeMedium(clock, broker, next);
    const session = await Session.open(medium, OPTIONS, undefined);
    try {
      await test({ clock, medium, broker, next, session });
    } finally {
      await session.close();
    }
    assertEquals(medium.left, [false]);
  };
}

/** Has the broker answer one kind of request so. */
function answering(op: Operation, answer: Answer): (asked: Asked) => Answer | undefined {
  return (asked) => asked.op === op ? answer : undefined;
}

/** Something that the session has. */
function keepEndpoint(session: Session, gone: () => void = () => {}): void {
  const { holdings } = session;
  holdings.keep({
    type: "DATAGRAM",
    handle: HANDLE,
    size: 0,
    creatorOnly: false,
    ticket: "own",
    share: undefined,
    gone,
  });
}

// --- Joining ----------------------------------------------------------------------------------------------------------

/** Opens a session that must not come about; gives the error and the medium. */
async function notJoining(
  code: Parameters<typeof fails>[0],
  brokers: FakeBroker[],
  prepare: (medium: FakeMedium) => void = () => {},
): Promise<{ error: VmciError; medium: FakeMedium }> {
  using clock = new TestClock();
  const medium = new FakeMedium(clock, ...brokers);
  prepare(medium);
  const error = await fails(code, () => Session.open(medium, OPTIONS, undefined), { operation: "openVmci" });
  assertEquals([medium.left, medium.released], [[false], ["attention"]]);
  return { error, medium };
}

Deno.test("session: where nobody is, or nobody answers, joining ends in time and says so", async () => {
  const { error } = await notJoining("UNAVAILABLE", []);
  assertEquals(error.reason, `the broker did not answer within ${TIMEOUT} ms: it is made up`);
  const silent = new FakeBroker(1025);
  silent.answer = () => "later";
  await notJoining("UNAVAILABLE", [silent]);
  assertEquals(silent.closed, 1);
});

Deno.test("session: who refuses the hello, or whose answer cannot be taken in, is left again", async () => {
  const [refusing, full] = [new FakeBroker(1025), new FakeBroker(1025)];
  refusing.answer = ({ id }) => ({ message: { id, error: { code: "NO_ACCESS", reason: "not you" } } });
  assertEquals((await notJoining("NO_ACCESS", [refusing])).error.reason, "not you");
  full.answer = () => ({ shares: [], incomplete: true });
  assertStringIncludes((await notJoining("NO_RESOURCES", [full])).error.reason, "no file descriptor left");
  assertEquals([refusing.closed, full.closed], [1, 1]);
});

Deno.test("session: without memory for the broker's word nothing of the welcome is kept", async () => {
  const broker = new FakeBroker(1025);
  const medium = await notJoining("NO_MEM", [broker], (medium) => {
    medium.openWord = () => {
      throw new VmciError("NO_MEM", { operation: "openVmci", reason: "none left" });
    };
  });
  assertEquals([broker.closed, broker.bell.closed, medium.error.reason], [1, true, "none left"]);
});

Deno.test("session: without an attention word the medium is closed", async () => {
  using clock = new TestClock();
  const medium = new FakeMedium(clock, new FakeBroker(1025));
  medium.createAttention = () => {
    throw new RangeError("no memory");
  };
  await assertRejects(() => Session.open(medium, OPTIONS, undefined), RangeError, "no memory");
  assertEquals([medium.left, medium.brokers[0]!.hello], [[false], undefined]);
});

Deno.test("session: a broker that goes before it answers, and one with a full socket, are not the last", async () => {
  using clock = new TestClock();
  const [dying, full, good] = [new FakeBroker(1), new FakeBroker(2), new FakeBroker(1025)];
  dying.answer = () => "dies";
  full.onSend = () => {
    full.alive = false;
    return "full";
  };
  const medium = new FakeMedium(clock, dying, full, good);
  const session = await Session.open(medium, OPTIONS, undefined);
  assertEquals([dying.closed, full.closed, good.closed, session.number], [1, 1, 0, 1025]);
  await session.close();
  assertEquals(good.closed, 1);
});

Deno.test("session: joining is broken off by a signal, before and while it waits", async () => {
  using clock = new TestClock();
  const aborted = new FakeMedium(clock, new FakeBroker(1025));
  await assertRejects(() => Session.open(aborted, OPTIONS, AbortSignal.abort(new RangeError("no"))), RangeError, "no");
  assertEquals(aborted.brokers[0]!.hello, undefined);
  const controller = new AbortController();
  const waiting = new FakeMedium(clock);
  waiting.searching = 0;
  waiting.onSearch = () => queueMicrotask(() => controller.abort(new RangeError("enough")));
  await assertRejects(() => Session.open(waiting, OPTIONS, controller.signal), RangeError, "enough");
  assertEquals([aborted.left, waiting.left], [[false], [false]]);
});

// --- Asking -----------------------------------------------------------------------------------------------------------

Deno.test(
  "session: a request that the broker died of is asked of the next; what must not be done twice says so",
  withSession(({ session, broker, next, medium }) => {
    const third = new FakeBroker(1025);
    medium.brokers.push(third);
    broker.answer = answering("lookup", "dies");
    next.answer = answering("unregister", "dies");
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals([broker.closed, next.operations], [1, ["announced", "lookup"]]);
    assertEquals(next.argsOf("lookup"), [{ name: "a" }]);
    session.request(SUBJECT, "unregister", { name: "a" });
    assertEquals(next.argsOf("unregister"), [{ name: "a" }]);
    assertEquals(third.argsOf("unregister"), [{ name: "a", repeated: true }]);
  }),
);

Deno.test(
  "session: the next broker hears who this was, with its context, flags, number and ticket",
  withSession(({ session, broker, next }) => {
    assertEquals([broker.hello?.client, broker.hello?.flags, broker.hello?.ticket], [null, 0, null]);
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    const { client, context, flags, ticket, slot } = next.hello!;
    assertEquals({ client, context, flags, ticket, slot }, {
      client: 1025,
      context: 16,
      flags: 2,
      ticket: "ticket 1025",
      slot: 3,
    });
  }),
);

Deno.test(
  "session: what was not answered in time and is asked again says that it may have been done, once",
  withSession(({ session, broker }) => {
    broker.answer = answering("unregister", "later");
    const ask = (name: string) => session.request(SUBJECT, "unregister", { name });
    for (const name of ["a", "b"]) failsSync("UNAVAILABLE", () => ask(name), SUBJECT);
    broker.answer = () => undefined;
    for (const name of ["c", "b", "b"]) ask(name);
    // Another kind of request is not the same, nor is one that does no harm twice.
    session.request(SUBJECT, "register", { name: "a", handle: HANDLE });
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(broker.argsOf("unregister").slice(2), [{ name: "c" }, { name: "b", repeated: true }, { name: "b" }]);
    assertEquals([broker.argsOf("register"), broker.argsOf("lookup")], [[{ name: "a", handle: HANDLE }], [{
      name: "a",
    }]]);
  }),
);

Deno.test(
  "session: what a broker left unanswered when it went is asked of the next as such",
  withSession(({ session, broker, next }) => {
    broker.answer = ({ op }) => op === "destroy" || op === "lookup" ? "later" : undefined;
    const destroy = () => session.request(SUBJECT, "destroy", { type: "DATAGRAM", handle: HANDLE });
    failsSync("UNAVAILABLE", destroy);
    failsSync("UNAVAILABLE", () => session.request(SUBJECT, "lookup", { name: "a" }));
    broker.alive = false;
    broker.notice[0]!++;
    session.refresh();
    destroy();
    destroy();
    session.request(SUBJECT, "lookup", { name: "a" });
    const [first, second] = next.argsOf("destroy");
    assertEquals([first?.repeated, second?.repeated, next.argsOf("lookup")], [true, undefined, [{ name: "a" }]]);
  }),
);

/** What a broker says to who opens a lane: with the first one to somebody comes a bell. */
function opened(lane: number, fresh: boolean): Message {
  return { lane, peer: 6, fresh, ticket: "" };
}

Deno.test(
  "session: with a late answer to 'open_lane' comes the only bell there is: the lane goes, that stays",
  withSession(({ session, broker, medium }) => {
    const open = () => session.request(SUBJECT, "open_lane", { source: HANDLE, destination: HANDLE });
    broker.answer = answering("open_lane", "later");
    failsSync("UNAVAILABLE", open);
    const bell = new FakeBell();
    const [{ id }] = broker.asked as [Asked];
    broker.say({ id, result: opened(9, true) }, { shares: [new Token("lane"), bell, new Int32Array([1])] });
    // It is asked for again before the answer is seen; by then the two have a bell, as far as the broker knows.
    broker.answer = ({ id, op }) =>
      op === "open_lane"
        ? { message: { id, result: opened(10, false) }, shares: [new Token("another lane")] }
        : undefined;
    assertEquals(open().result.lane, 10);
    session.peer(6)!.nudge();
    assertEquals([bell.rings, bell.closed, medium.released], [1, false, ["lane"]]);
    assertEquals(broker.argsOf("close_lane"), [{ lane: 9 }]);
    assertEquals(broker.argsOf("forget_peer"), []);
  }),
);

Deno.test(
  "session: a bell that cannot be taken in is none: whoever it was with is forgotten, and the lane with it",
  withSession(({ session, broker }) => {
    const open = () => session.request(SUBJECT, "open_lane", { source: HANDLE, destination: HANDLE });
    // Late,
    broker.answer = answering("open_lane", "later");
    failsSync("UNAVAILABLE", open);
    broker.say({ id: broker.asked[0]!.id, result: opened(9, true) }, { incomplete: true });
    broker.notice[0]!++;
    session.refresh();
    assertEquals(broker.argsOf("forget_peer"), [{ peer: 6 }]);
    // in time,
    broker.answer = ({ id, op }) =>
      op === "open_lane" ? { message: { id, result: opened(10, true) }, shares: [], incomplete: true } : undefined;
    failsSync("NO_RESOURCES", open);
    assertEquals(broker.argsOf("forget_peer").length, 2);
    // and unasked.
    broker.say({ notice: "lane", ...opened(11, true), source: HANDLE, destination: HANDLE }, { incomplete: true });
    session.refresh();
    assertEquals([broker.argsOf("forget_peer").length, broker.argsOf("close_lane")], [3, []]);
    // Without a bell it is the lane alone that goes.
    broker.say({ notice: "lane", ...opened(12, false), source: HANDLE, destination: HANDLE }, { incomplete: true });
    session.refresh();
    assertEquals([broker.argsOf("forget_peer").length, broker.argsOf("close_lane")], [3, [{ lane: 12 }]]);
  }),
);

Deno.test(
  "session: a lane that is over is announced until a broker says that its destination is gone",
  withSession(({ session, broker, next, medium }) => {
    const datagrams = new Datagrams(session, () => {});
    const [third, fourth, last] = [new FakeBroker(1025), new FakeBroker(1025), new FakeBroker(1025)];
    medium.brokers.push(third, fourth, last);
    const give = (lane: number) => ({ id, op }: Asked) => {
      const shares = [new Token("lane"), new FakeBell(), new Int32Array([1])];
      return op === "open_lane" ? { message: { id, result: opened(lane, true) }, shares } : undefined;
    };
    const lookForTheNext = () => session.request(SUBJECT, "list", { prefix: "", after: null });
    broker.answer = give(9);
    datagrams.sendTo(HANDLE, new Uint8Array(1));
    const announced = (to: FakeBroker) => to.argsOf("announce_lane").map(({ lane, sender }) => [lane, sender]);
    // The receiver's bell ends; of what the broker says then comes one half, and from the next one no more.
    session.peers.remove(6);
    for (const dying of [broker, next]) {
      dying.say({ notice: "lane_closed", lane: 9, cause: "gone" });
      dying.alive = false;
      lookForTheNext();
    }
    third.say({ notice: "resource_gone", type: "DATAGRAM", handle: HANDLE });
    third.alive = false;
    lookForTheNext();
    assertEquals([next, third, fourth].map(announced), [[[9, true]], [[9, true]], []]);
    // It is there after all; when that lane is announced, the older one is not.
    for (const lane of [10, 11]) {
      session.peers.remove(6);
      fourth.answer = give(lane);
      datagrams.sendTo(HANDLE, new Uint8Array(1));
    }
    session.peers.remove(6);
    fourth.alive = false;
    lookForTheNext();
    assertEquals(announced(last), [[11, true]]);
    // Who may not send there any more need not know.
    last.say({ notice: "lane_closed", lane: 11, cause: "revoked" });
    last.alive = false;
    medium.brokers.push(new FakeBroker(1025));
    lookForTheNext();
    assertEquals(announced(medium.brokers.at(-1)!), []);
  }),
);

/** Contexts as a broker says which there are. */
const contextsOf = (contexts: number[]) => ({ id, op }: Asked) =>
  op === "subscribe" ? { message: { id, result: { contexts } } } : undefined;

Deno.test(
  "session: who missed contexts is told which of those that were there went, and looks again if more were missed",
  withSession(async ({ session, broker, next }) => {
    const vmci = new Vmci(session);
    broker.answer = contextsOf([16, 17, 18, 19]);
    const events = vmci.events();
    const told = async (count: number) => {
      const all: unknown[] = [];
      for (let i = 0; i < count; i++) {
        const { value } = await events.next();
        all.push(value!.type === "context-removed" ? value!.context : value!.type);
      }
      return all;
    };
    // One is told before, one is missed; and one more while the broker is asked.
    let asked = 0;
    broker.answer = ({ id, op }) => {
      if (op !== "subscribe") return undefined;
      if (asked++ === 0) broker.say({ notice: "contexts_missed" });
      return { message: { id, result: { contexts: asked === 1 ? [16, 19, 20] : [16, 20] } } };
    };
    broker.say({ notice: "context_removed", context: 17 });
    broker.say({ notice: "contexts_missed" });
    session.refresh();
    assertEquals([await told(3), asked], [[17, 18, 19], 2]);
    // A new broker that does not know all yet is not asked for a difference: it tells which there are.
    next.answer = contextsOf([16]);
    broker.alive = false;
    session.request(SUBJECT, "list", { prefix: "", after: null });
    next.say({ notice: "contexts_missed" });
    session.refresh();
    await new Promise((resolve) => setTimeout(resolve));
    assertEquals(next.argsOf("subscribe").length, 2);
    next.say({ notice: "settled", contexts: [16, 21] });
    session.refresh();
    assertEquals(await told(2), ["broker-changed", 20]);
    // And if it cannot be asked, reading says so.
    next.answer = ({ id, op }) =>
      op === "subscribe" ? { message: { id, error: { code: "NO_RESOURCES", reason: "no" } } } : undefined;
    next.say({ notice: "contexts_missed" });
    session.refresh();
    const { reason } = await fails("NO_RESOURCES", () => events.next(), { operation: "events" });
    assertStringIncludes(reason, "contexts came and went unseen");
  }),
);

Deno.test(
  "session: that a destination is gone is told once, however many lanes went there, and not of one's own",
  withSession(async ({ session, broker, next }) => {
    const vmci = new Vmci(session);
    const events = vmci.events();
    let lane = 20;
    const [theirs, ours] = [HANDLE, { context: 16, resource: 2001 }];
    broker.answer = ({ id, op, args }) => {
      if (op === "create_endpoint") return { message: { id, result: { handle: ours, ticket: "" } } };
      if (op !== "open_lane") return undefined;
      const own = (args.destination as Handle).resource === ours.resource;
      const shares = [new Token("lane"), ...(own || lane > 20 ? [] : [new FakeBell(), new Int32Array(1)])];
      const result = { lane: lane++, peer: own ? 1025 : 6, fresh: shares.length > 1, ticket: "" };
      return { message: { id, result }, shares };
    };
    const endpoint = vmci.datagrams.create();
    for (const source of [endpoint, vmci.datagrams]) source.sendTo(theirs, new Uint8Array(3));
    vmci.datagrams.sendTo(ours, new Uint8Array(3));
    // Each of the two halves has a broker say so.
    for (const lane of [20, 21]) {
      broker.say({ notice: "lane_closed", lane, cause: "gone" });
      broker.say({ notice: "resource_gone", type: "DATAGRAM", handle: theirs });
    }
    session.refresh();
    endpoint.close();
    broker.say({ notice: "lane_closed", lane: 22, cause: "gone" });
    session.refresh();
    broker.alive = false;
    session.request(SUBJECT, "list", { prefix: "", after: null });
    assertEquals(next.argsOf("announce_lane"), []);
    const told: string[] = [];
    while (told.at(-1) !== "broker-changed") told.push((await events.next()).value!.type);
    assertEquals(told, ["datagrams-lost", "datagrams-lost", "resource-gone", "datagrams-lost", "broker-changed"]);
  }),
);

Deno.test(
  "session: what is detached while no broker hears of it is said to the one that was told that it is attached",
  withSession(({ clock, session, broker, next, medium }) => {
    const { sharedMemory } = new Vmci(session);
    const buffer = new ArrayBuffer(8);
    medium.openRegion = () => ({ view: buffer, truth: buffer, close: () => true });
    broker.answer = ({ id, op }) => {
      const result = { size: 8, creatorOnly: false, writable: true, attachment: "ticket", peers: [] };
      return op === "attach" ? { message: { id, result }, shares: [new Token("region")] } : undefined;
    };
    const [gone, again] = [HANDLE, { context: 16, resource: 2001 }].map((it) => sharedMemory.attach(it)) as [
      Region,
      Region,
    ];
    // The next one is told by half.
    next.answer = answering("announced", "later");
    broker.alive = false;
    failsSync("UNAVAILABLE", () => session.request(SUBJECT, "list", { prefix: "", after: null }));
    for (const region of [gone, again]) {
      region.detach();
      assert(!region.attached);
    }
    // What was said last of each.
    const announced = () =>
      new Map(next.argsOf("announce_attachment").map(({ handle, count }) => [(handle as Handle).resource, count]));
    assertEquals(announced(), new Map([[2000, 0], [2001, 1]]));
    next.answer = broker.answer;
    clock.now += TIMEOUT;
    sharedMemory.attach(again.handle);
    assertEquals(announced(), new Map([[2000, 0], [2001, 0]]));
    assertEquals(next.operations.at(-1), "attach");
  }),
);

Deno.test(
  "session: what a broker does not take back that dies before it was told all is told by the next one's coming",
  withSession(({ session, broker, next, medium }) => {
    const last = new FakeBroker(1025);
    medium.brokers.push(last);
    keepEndpoint(session, () => session.holdings.forget("DATAGRAM", HANDLE));
    const lost: unknown[] = [];
    session.onRecovered((_pid, handles) => lost.push(handles));
    next.answer = ({ id, op }) => {
      if (op === "announced") return "dies";
      return op === "announce_resource" ? { message: { id, result: { accepted: false } } } : undefined;
    };
    broker.alive = false;
    session.request(SUBJECT, "list", { prefix: "", after: null });
    assertEquals([lost, last.argsOf("announce_resource")], [[[HANDLE]], []]);
  }),
);

/** What a request made that nobody waits for any more, and how it is undone. */
const UNDOING: readonly (readonly [
  op: Operation,
  args: Message,
  result: Message,
  undo: readonly [Operation, Record<string, unknown>],
])[] = [
  ["create_endpoint", { resource: null }, { handle: HANDLE }, ["destroy", { type: "DATAGRAM", handle: HANDLE }]],
  ["create_group", {}, { handle: HANDLE }, ["destroy", { type: "GROUP", handle: HANDLE }]],
  ["create_region", { size: 1 }, { handle: HANDLE }, ["detach", { handle: HANDLE }]],
  ["attach", { handle: HANDLE }, { size: 1 }, ["detach", { handle: HANDLE }]],
  ["open_lane", { source: HANDLE }, { lane: 9 }, ["close_lane", { lane: 9 }]],
  ["register", { name: "a" }, {}, ["unregister", { name: "a" }]],
  ["watch_names", { watch: 5 }, {}, ["unwatch_names", { watch: 5 }]],
];

for (const [op, args, result, undo] of UNDOING) {
  Deno.test(
    `session: a late answer to '${op}' is undone by '${undo[0]}', a late refusal is not`,
    withSession(({ session, broker, medium }) => {
      broker.answer = answering(op, "later");
      for (const name of ["a", "b"]) {
        failsSync("UNAVAILABLE", () => session.request(SUBJECT, op, { ...args, name } as never));
      }
      const [first, second] = broker.asked.map(({ id }) => id);
      broker.say({ id: first, result }, { shares: [new Token("late")] });
      broker.say({ id: second, error: { code: "NO_ACCESS", reason: "no" } }, { shares: [new Token("refused")] });
      session.request(SUBJECT, "lookup", { name: "c" });
      const told = broker.asked.filter(({ id }) => id === 0);
      assertEquals(told, [{ id: 0, op: undo[0], args: undo[1] }]);
      assertEquals(medium.released, ["late", "refused"]);
    }),
  );
}

Deno.test(
  "session: a late answer is not undone where it was a question, or where the same was asked again",
  withSession(({ session, broker, medium }) => {
    broker.answer = ({ op }) => op === "lookup" || op === "register" ? "later" : undefined;
    const register = () => session.request(SUBJECT, "register", { name: "a", handle: HANDLE });
    failsSync("UNAVAILABLE", () => session.request(SUBJECT, "lookup", { name: "a" }));
    failsSync("UNAVAILABLE", register);
    const ids = broker.asked.map(({ id }) => id);
    broker.answer = () => undefined;
    for (const id of [...ids, ids[0]]) broker.say({ id, result: { handle: HANDLE } }, { shares: [new Token("late")] });
    register();
    assertEquals(broker.operations, ["lookup", "register", "register"]);
    assertEquals(medium.released, ["late", "late", "late"]);
  }),
);

Deno.test(
  "session: an answer whose shares cannot be taken in is an error, and what it made is undone",
  withSession(({ session, broker }) => {
    broker.answer = ({ op, id }) =>
      op === "attach" ? { message: { id, result: { size: 1 } }, shares: [], incomplete: true } : undefined;
    const error = failsSync("NO_RESOURCES", () => session.request(SUBJECT, "attach", { handle: HANDLE }), SUBJECT);
    assertStringIncludes(error.reason, "no file descriptor left");
    assertEquals(broker.operations, ["attach", "detach"]);
  }),
);

Deno.test(
  "session: a request for which there is no room in time was never asked",
  withSession(({ session, broker, clock }) => {
    broker.onSend = ({ op }) => op === "unregister" ? "full" : undefined;
    const ask = () => session.request(SUBJECT, "unregister", { name: "a" });
    const before = clock.now;
    failsSync("UNAVAILABLE", ask, SUBJECT);
    assertEquals(clock.now - before, TIMEOUT);
    broker.onSend = () => undefined;
    ask();
    assertEquals(broker.argsOf("unregister"), [{ name: "a" }]);
  }),
);

Deno.test(
  "session: what is told waits for room, in its order, and goes before the next request",
  withSession(({ session, broker }) => {
    const tell = (lane: number) => session.tell("close_lane", { lane });
    broker.onSend = () => "full";
    tell(1);
    broker.onSend = () => {
      throw new VmciError("NO_RESOURCES", { operation: "speak", reason: "the kernel cannot now" });
    };
    tell(2);
    assertEquals(broker.asked, []);
    broker.onSend = () => undefined;
    session.request(SUBJECT, "lookup", { name: "a" });
    tell(3);
    assertEquals(broker.operations, ["close_lane", "close_lane", "lookup", "close_lane"]);
    assertEquals(broker.argsOf("close_lane"), [{ lane: 1 }, { lane: 2 }, { lane: 3 }]);
    // And also with the next look at what came, without a request.
    broker.onSend = () => "full";
    tell(4);
    broker.onSend = () => undefined;
    broker.say({ notice: "nothing" });
    session.refresh();
    assertEquals(broker.argsOf("close_lane").length, 4);
  }),
);

Deno.test(
  "session: what was told to a broker that is gone is not told to the next",
  withSession(({ session, broker, next }) => {
    broker.onSend = () => "full";
    session.tell("close_lane", { lane: 1 });
    broker.alive = false;
    broker.notice[0]!++;
    session.refresh();
    // Nobody is there: it is lost at once.
    session.tell("close_lane", { lane: 2 });
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(next.operations, ["announced", "lookup"]);
  }),
);

Deno.test(
  "session: to destroy never fails, and a broker that could not be asked is told when it can be",
  withSession(({ session, broker }) => {
    const destroy = () => session.destroy("close", "DATAGRAM", HANDLE);
    const refusing = (code: string) =>
      broker.answer = ({ op, id }) =>
        op === "destroy" ? { message: { id, error: { code, reason: "it is so" } } } : undefined;
    refusing("NOT_FOUND");
    destroy();
    assertEquals(broker.argsOf("destroy").length, 1);
    refusing("UNAVAILABLE");
    destroy();
    assertEquals(broker.asked.map(({ id }) => id === 0), [false, false, true]);
    broker.onSend = () => {
      throw new RangeError("a fault");
    };
    assertThrows(destroy, RangeError, "a fault");
  }),
);

Deno.test(
  "session: an error that nobody knows is GENERIC",
  withSession(({ session, broker }) => {
    broker.answer = ({ id, op }) => op === "lookup" ? { message: { id, error: { code: "toString" } } } : undefined;
    const error = failsSync("GENERIC", () => session.request(SUBJECT, "lookup", { name: "a" }), SUBJECT);
    assertEquals(error.reason, "undefined");
  }),
);

// --- Being told -------------------------------------------------------------------------------------------------------

Deno.test(
  "session: what comes while a handler asks is handled after it, in its order",
  withSession(({ session, broker }) => {
    const heard: unknown[] = [];
    session.on("destroyed", ({ handle }) => {
      const { resource } = handle;
      if (resource === 1) {
        broker.say({ notice: "destroyed", type: "GROUP", handle: { context: 16, resource: 2 } });
        session.request(SUBJECT, "lookup", { name: "a" });
      }
      heard.push(resource);
    });
    broker.say({ notice: "destroyed", type: "GROUP", handle: { context: 16, resource: 1 } });
    session.refresh();
    assertEquals([heard, broker.operations], [[1, 2], ["lookup"]]);
  }),
);

Deno.test(
  "session: what nobody understands is given back, a lane that came by half is closed, and all else goes on",
  withSession(({ session, broker, medium }) => {
    const heard: number[] = [];
    session.on("lane_closed", ({ lane }) => heard.push(lane));
    broker.say({ notice: "of the future" }, { shares: [new Token("new")] });
    broker.say({ notice: "lane", lane: 5 }, { incomplete: true });
    broker.say({ notice: "peer", peer: 6 }, { incomplete: true });
    broker.say({ notice: "lane_closed", lane: 7 });
    session.refresh();
    assertEquals(heard, [7]);
    assertEquals(medium.released, ["new"]);
    assertEquals(broker.asked, [{ id: 0, op: "close_lane", args: { lane: 5 } }]);
  }),
);

Deno.test(
  "session: a peer whose word cannot be seen is rung each time; one that is gone is forgotten; the newer of two bells counts",
  withSession(({ session, broker, medium }) => {
    const [unseen, old, newer] = [new FakeBell(), new FakeBell(), new FakeBell()];
    const peer = (number: number, bell: FakeBell) => {
      broker.say({ notice: "peer", peer: number }, { shares: [bell, new Int32Array(1)] });
      session.refresh();
    };
    const { openWord } = medium;
    medium.openWord = () => {
      throw new VmciError("NO_MEM", { operation: "map", reason: "none left" });
    };
    peer(5, unseen);
    medium.openWord = openWord;
    session.peer(5)!.nudge();
    session.peer(5)!.nudge();
    assertEquals([unseen.closed, unseen.rings, broker.argsOf("forget_peer")], [false, 2, []]);
    session.peers.remove(5);
    assertEquals([unseen.closed, session.peer(5)], [true, undefined]);
    session.listen();
    peer(6, old);
    peer(6, newer);
    // What the old bell says is of no account.
    old.ended();
    assertEquals([old.closed, newer.closed, session.peers.numbers], [true, false, [6]]);
    newer.ended();
    assertEquals([newer.closed, session.peers.numbers, broker.argsOf("forget_peer")], [true, [], [{ peer: 6 }]]);
    session.peers.remove(6);
  }),
);
Deno.test(
  "session: who has a peer rings it by its newer bell, and the end of the older one is not its end",
  withSession(({ session, broker }) => {
    const [old, newer] = [new FakeBell(), new FakeBell()];
    const said = (bell: FakeBell) => broker.say({ notice: "peer", peer: 6 }, { shares: [bell, new Int32Array([1])] });
    session.listen();
    said(old);
    session.refresh();
    const peer = session.peer(6)!;
    // The other side has heard of the newer one, and closed the older one, before this side hears of it.
    said(newer);
    old.ended();
    assertEquals([session.peer(6) === peer, old.closed, broker.argsOf("forget_peer")], [true, true, []]);
    const rings = newer.rings;
    assert(rings > 0, "what the old one was rung for may not have been heard");
    peer.nudge();
    assertEquals(newer.rings, rings + 1);
    session.peers.remove(6);
  }),
);
Deno.test(
  "session: a new broker hears of the bells that there are before it is asked for what may need one",
  withSession(({ session, broker, next }) => {
    broker.say({ notice: "peer", peer: 6 }, { shares: [new FakeBell(), new Int32Array(1)] });
    session.refresh();
    session.onAnnounce(() => session.request(SUBJECT, "watch_region", { handle: HANDLE }));
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(next.operations, ["announce_peers", "watch_region", "announced", "lookup"]);
    session.peers.remove(6);
  }),
);

Deno.test(
  "session: a thread that blocks finds peers that are gone, and looks for a broker when it has none",
  withSession(({ session, broker, next, medium }) => {
    const bell = new FakeBell();
    broker.say({ notice: "peer", peer: 6 }, { shares: [bell, new Int32Array(1)] });
    session.refresh();
    bell.drain = () => false;
    session.block(1000);
    assertEquals([session.peers.numbers, broker.argsOf("forget_peer")], [[], [{ peer: 6 }]]);
    medium.brokers = [];
    broker.alive = false;
    session.block(1000);
    session.block(1000);
    assertEquals(medium.blocked, [1000, 1000, 200]);
    medium.brokers = [next];
    medium.clock.now += 1000;
    session.block(1000);
    assertEquals([next.operations, medium.blocked.at(-1)], [["announced"], 1000]);
  }),
);

Deno.test(
  "session: what cannot come while the only thread waits is not waited for",
  withSession(({ session, medium }) => {
    medium.concurrent = false;
    failsSync("WOULD_BLOCK", () => session.waitSync(SUBJECT, () => undefined, 1000), SUBJECT);
    assertEquals([session.waitSync(SUBJECT, () => 3, 1000), medium.blocked], [3, []]);
    medium.concurrent = true;
    failsSync("TIMEOUT", () => session.waitSync(SUBJECT, () => undefined, 0), SUBJECT);
  }),
);

Deno.test("session: one that waits for its broker lets the others of its thread hear theirs", async () => {
  using clock = new TestClock();
  const brokers = [new FakeBroker(1025), new FakeBroker(1026)] as const;
  const [one, other] = await Promise.all(
    brokers.map((broker) => Session.open(new FakeMedium(clock, broker), OPTIONS, undefined)),
  );
  const heard: number[] = [];
  other!.on("lane_closed", ({ lane }) => {
    heard.push(lane);
    // Only then can the first one be answered.
    const { id } = brokers[0].asked[0]!;
    brokers[0].say({ id, result: { handle: HANDLE } });
  });
  brokers[0].answer = answering("lookup", "later");
  brokers[1].say({ notice: "lane_closed", lane: 4 });
  assertEquals(one!.request(SUBJECT, "lookup", { name: "a" }).result, { handle: HANDLE });
  assertEquals(heard, [4]);
  await one!.close();
  await other!.close();
});

// --- Another broker ---------------------------------------------------------------------------------------------------

Deno.test(
  "session: a broker that goes while it is told what there is was told in vain: the next is told all of it",
  withSession(({ session, broker, next, medium }) => {
    const last = new FakeBroker(1025);
    medium.brokers.push(last);
    keepEndpoint(session);
    broker.say({ notice: "keep_name", type: "DATAGRAM", handle: HANDLE, name: "a", present: true });
    const recovered: unknown[] = [];
    session.onRecovered((pid, lost) => recovered.push([pid, lost]));
    next.answer = answering("announce_entries", "dies");
    session.refresh();
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    const all: Operation[] = ["announce_resource", "announce_entries", "announced", "lookup"];
    assertEquals([next.operations, last.operations], [all.slice(0, 2), all]);
    assertEquals(recovered, [[7, []]]);
  }),
);

Deno.test(
  "session: what the next broker does not accept is gone, and whoever wants to know hears it",
  withSession(({ session, broker, next }) => {
    const gone: string[] = [];
    keepEndpoint(session, () => gone.push("gone"));
    session.onRecovered((pid, lost) => gone.push(`${pid} refused ${lost[0]?.resource}`));
    next.answer = ({ op, id }) =>
      op === "announce_resource" ? { message: { id, result: { accepted: false } } } : undefined;
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(gone, ["gone", "7 refused 2000"]);
    assertEquals(next.operations, ["announce_resource", "announced", "lookup"]);
  }),
);

Deno.test(
  "session: who asks is told why there is no broker, as what he asked for",
  withSession(({ session, broker, medium }) => {
    const ask = () => session.request(SUBJECT, "lookup", { name: "a" });
    medium.brokers = [broker];
    broker.alive = false;
    assertStringIncludes(failsSync("UNAVAILABLE", ask, SUBJECT).reason, `within ${TIMEOUT} ms: it is made up`);
    const refusing = new FakeBroker(1025);
    refusing.answer = ({ id }) => ({ message: { id, error: { code: "NO_ACCESS", reason: "not you" } } });
    medium.brokers = [refusing];
    assertEquals(failsSync("NO_ACCESS", ask, SUBJECT).reason, "not you");
    medium.onSearch = () => {
      throw new RangeError("a fault");
    };
    assertThrows(ask, RangeError, "a fault");
    medium.onSearch = () => {};
  }),
);

Deno.test(
  "session: a hello that is not answered in time is not said again, its answer is waited for",
  withSession(({ session, broker, next }) => {
    broker.alive = false;
    let hellos = 0;
    let hello = 0;
    next.answer = ({ op, id }) => op === "hello" ? (hellos++, hello = id, "later") : undefined;
    failsSync("UNAVAILABLE", () => session.request(SUBJECT, "lookup", { name: "a" }), SUBJECT);
    next.say({ id: hello, result: next.welcome }, { shares: [next.notice, next.bell] });
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals([hellos, next.operations], [1, ["announced", "lookup"]]);
  }),
);

Deno.test(
  "session: a broker that owes an answer to what was announced is asked no more until it has given it",
  withSession(({ session, broker, next, clock }) => {
    keepEndpoint(session);
    next.answer = answering("announce_resource", "later");
    broker.alive = false;
    broker.notice[0]!++;
    const look = () => {
      clock.now += 1000;
      session.block(0);
    };
    session.refresh();
    // The first look finds it, and is not answered; the second asks nothing.
    look();
    look();
    look();
    assertEquals(next.operations, ["announce_resource"]);
    const { id } = next.asked[0]!;
    next.answer = () => undefined;
    next.say({ id, result: { accepted: true } });
    look();
    assertEquals(next.operations, ["announce_resource", "announce_resource", "announced"]);
  }),
);

Deno.test(
  "session: the event loop hears that the broker is gone, and finds the next one without being asked",
  withSession(async ({ session, broker, next }) => {
    const recovered = new Promise((resolve) => session.onRecovered(resolve));
    // The session itself keeps no program alive.
    const alive = setInterval(() => {}, 1000);
    broker.alive = false;
    broker.bell.ended();
    // An end that is told twice is one.
    broker.bell.ended();
    assertEquals([broker.closed, broker.bell.closed], [1, true]);
    assertEquals([await recovered, next.operations], [7, ["announced"]]);
    clearInterval(alive);
    let heard = 0;
    session.on("lane_closed", () => heard++);
    next.say({ notice: "lane_closed", lane: 1 });
    next.bell.rung();
    assertEquals(heard, 1);
  }),
);

// --- Leaving ----------------------------------------------------------------------------------------------------------

Deno.test("session: who leaves a broker of its own process hears whether that ends; whatever it says, it leaves", async () => {
  const bye = async (prepare: (broker: FakeBroker) => void) => {
    using clock = new TestClock();
    const broker = new FakeBroker(1025);
    const medium = new FakeMedium(clock, broker);
    medium.hostsBroker = true;
    const session = await Session.open(medium, OPTIONS, undefined);
    prepare(broker);
    await session.close();
    await session.close();
    return [medium.left, broker.closed, broker.bell.closed];
  };
  const answer = (it: Answer) => (broker: FakeBroker) => broker.answer = answering("bye", it);
  const last = (last: boolean) => (broker: FakeBroker) =>
    broker.answer = ({ id }) => ({ message: { id, result: { last } } });
  assertEquals(await bye(last(true)), [[true], 1, true]);
  assertEquals(await bye(last(false)), [[false], 1, true]);
  for (const silent of ["later", "dies"] as const) assertEquals(await bye(answer(silent)), [[false], 1, true]);
  const refused = ({ id }: Asked) => ({ message: { id, error: { code: "GENERIC", reason: "no" } } });
  assertEquals(await bye((broker) => broker.answer = refused), [[false], 1, true]);
});

Deno.test("session: it is closed in any state, gives everything back, and takes nothing more", async () => {
  using clock = new TestClock();
  const [broker, next] = [new FakeBroker(1025), new FakeBroker(1025)];
  const medium = new FakeMedium(clock, broker, next);
  const session = await Session.open(medium, OPTIONS, undefined);
  const { holdings } = session;
  const region = { type: "SHAREDMEM", handle: HANDLE, size: 1, creatorOnly: false, ticket: "own" } as const;
  holdings.keep({ ...region, share: new Token("region"), gone: () => {} });
  const closed: string[] = [];
  session.onClose(() => closed.push("facet"));
  // In the middle of a hello, with something that came and was not looked at, and somebody who waits.
  next.answer = () => "later";
  broker.alive = false;
  failsSync("UNAVAILABLE", () => session.request(SUBJECT, "lookup", { name: "a" }));
  next.say({ notice: "lane", lane: 1 }, { shares: [new Token("unread")] });
  failsSync("UNAVAILABLE", () => session.request(SUBJECT, "lookup", { name: "a" }));
  const waiting = session.wait(SUBJECT, () => undefined, undefined);
  await session.close();
  assertStringIncludes((await fails("INVALID_RESOURCE", () => waiting, SUBJECT)).reason, "closed meanwhile");
  assertEquals([next.closed, closed, medium.left], [1, ["facet"], [false]]);
  assertEquals(medium.released.toSorted(), ["attention", "region", "unread"]);
  failsSync("INVALID_RESOURCE", () => session.request(SUBJECT, "lookup", { name: "a" }), SUBJECT);
  assert(session.closed);
  session.tell("close_lane", { lane: 1 });
  session.refresh();
  assertEquals([next.asked, holdings.get("SHAREDMEM", HANDLE)], [[], undefined]);
});

// --- Last words ------------------------------------------------------------------------------------------------------

const GRANT = {
  notice: "keep_grant",
  type: "DATAGRAM",
  handle: HANDLE,
  entry: { client: { context: 17, resource: 0 }, states: { DG_SEND: "DENY" } },
};
Deno.test(
  "session: what the broker said before it died is heard though the next thing is a request",
  withSession(({ session, broker, next }) => {
    keepEndpoint(session);
    broker.say(GRANT);
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(next.argsOf("announce_entries").map((it) => it.grants), [[GRANT.entry]]);
  }),
);
Deno.test(
  "session: what the broker said before it died is heard though its bell's end is heard first",
  withSession(({ session, broker, next }) => {
    keepEndpoint(session);
    broker.say(GRANT);
    broker.alive = false;
    broker.bell.ended();
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(next.argsOf("announce_entries").map((it) => it.grants), [[GRANT.entry]]);
  }),
);
Deno.test(
  "session: what somebody destroyed before the broker died is not announced",
  withSession(({ session, broker, next }) => {
    keepEndpoint(session, () => session.forget("DATAGRAM", HANDLE));
    broker.say({ notice: "destroyed", type: "DATAGRAM", handle: HANDLE });
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(next.operations, ["announced", "lookup"]);
  }),
);
Deno.test(
  "session: what is granted on something from the start is announced too, though it is told before that is made",
  withSession(({ session, broker, next }) => {
    const other = { context: 16, resource: 2001 };
    broker.answer = ({ op }) => {
      if (op !== "create_endpoint") return undefined;
      for (const handle of [other, HANDLE]) broker.say({ ...GRANT, handle });
      return undefined;
    };
    session.request(SUBJECT, "create_endpoint", { resource: null, wellKnown: false });
    keepEndpoint(session);
    broker.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(next.argsOf("announce_entries").map((it) => it.grants), [[GRANT.entry]]);
  }),
);
Deno.test(
  "session: a broker that dies between two announcements leaves none of the second to the next",
  withSession(({ session, broker, next, medium }) => {
    const third = new FakeBroker(1025);
    medium.brokers.push(third);
    const other = { context: 16, resource: 2001 };
    keepEndpoint(session);
    session.holdings.keep({
      type: "DATAGRAM",
      handle: other,
      size: 0,
      creatorOnly: false,
      ticket: "",
      share: undefined,
      gone: () => session.refresh(),
    });
    broker.alive = false;
    next.answer = ({ id, op, args }) => {
      if (op !== "announce_resource" || (args.handle as typeof other).resource !== other.resource) return undefined;
      next.alive = false;
      next.notice[0]!++;
      return { message: { id, result: { accepted: false } } };
    };
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(third.operations, ["announce_resource", "announce_resource", "announced", "lookup"]);
  }),
);
Deno.test(
  "session: a refused name is announced no more",
  withSession(({ session, broker, next, medium }) => {
    const third = new FakeBroker(1025);
    medium.brokers.push(third);
    keepEndpoint(session);
    broker.say({ notice: "keep_name", type: "DATAGRAM", handle: HANDLE, name: "x", present: true });
    session.refresh();
    broker.alive = false;
    next.answer = ({ op, id }) =>
      op === "announce_entries" ? { message: { id, result: { refused: ["x"] } } } : undefined;
    session.request(SUBJECT, "lookup", { name: "a" });
    next.alive = false;
    session.request(SUBJECT, "lookup", { name: "a" });
    assertEquals(third.operations, ["announce_resource", "announced", "lookup"]);
  }),
);

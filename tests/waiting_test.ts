/** Waiting: what changes is seen, whoever waits; who parks says so, and nobody else does. */

import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { closedMeanwhile, type Look } from "../src/lane/waiters.ts";
import { type Parking, Waiting } from "../src/lane/waiting.ts";
import { fails } from "./support/failure.ts";
import { TestClock } from "./support/test_clock.ts";

const SUBJECT = { operation: "wait", handle: { context: 2, resource: 1024 } };

/** A session that remembers what is asked of it; its bells are rung by hand. */
class FakeParking implements Parking {
  readonly attention: Int32Array = new Int32Array(1);
  /** How often it was told to listen. */
  listened = 0;
  /** How long it was asked to block, each time. */
  readonly blocked: number[] = [];
  /** What happens at every look, and while it blocks. */
  onRefresh: () => void = () => {};
  onBlock: (timeout: number) => void = () => {};

  refresh(): void {
    this.onRefresh();
  }

  listen(): void {
    this.listened++;
  }

  block(timeout: number): void {
    this.blocked.push(timeout);
    this.onBlock(timeout);
  }

  /** Whether others are asked to ring. */
  get parked(): boolean {
    return Atomics.load(this.attention, 0) === 1;
  }
}

/** Waits of one session, closed at the end; the test fails if a timer is left over. */
class Waits extends Waiting implements Disposable {
  readonly parking: FakeParking;

  constructor(spin = 0) {
    const parking = new FakeParking();
    super(parking, spin);
    this.parking = parking;
  }

  [Symbol.dispose](): void {
    this.close();
    assertEquals(this.parking.parked, false, "nobody waits any more, and nobody is to ring");
  }
}

/** Something that is there or not, and remembers who was parked whenever somebody looked. */
class Thing {
  there: string | undefined;
  /** At each look, whether others were asked to ring. */
  readonly looks: boolean[] = [];
  readonly #parking: FakeParking;

  constructor(parking: FakeParking) {
    this.#parking = parking;
  }

  /** Looks; what is found is taken. */
  readonly look: Look<string> = () => {
    this.looks.push(this.#parking.parked);
    const found = this.there;
    this.there = undefined;
    return found;
  };
}

/** Lets the event loop turn once. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Whether a promise is still open after the loop has turned. */
async function isOpen(promise: Promise<unknown>): Promise<boolean> {
  const open = Symbol();
  return await Promise.race([promise, turn().then(() => open)]) === open;
}

function setUp(spin = 0): Disposable & { waits: Waits; parking: FakeParking; thing: Thing } {
  const waits = new Waits(spin);
  const { parking } = waits;
  return { waits, parking, thing: new Thing(parking), [Symbol.dispose]: () => waits[Symbol.dispose]() };
}

describe("waiting: a thread that blocks", () => {
  it("takes what is there, whether it may wait or not, and nobody is asked to ring", () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    for (const timeout of [0, -1, 1000]) {
      thing.there = "a";
      assertEquals(waits.block(thing.look, timeout), "a");
    }
    assertEquals(waits.block(thing.look, 0), undefined);
    assertEquals([thing.looks, parking.blocked], [[false, false, false, false], []]);
  });

  it("sees what comes between its look and its asking to be rung", () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    parking.onRefresh = () => thing.there = thing.looks.length === 1 ? "just now" : undefined;
    assertEquals(waits.block(thing.look, -1), "just now");
    assertEquals([thing.looks, parking.blocked], [[false, true], []]);
  });

  it("looks again whenever it is rung, and at least once a second", () => {
    using clock = new TestClock(0);
    using world = setUp();
    const { waits, parking, thing } = world;
    parking.onBlock = (timeout) => {
      clock.now += timeout;
      if (parking.blocked.length === 4) thing.there = "late";
    };
    assertEquals(waits.block(thing.look, -1), "late");
    assertEquals([thing.looks.length, parking.blocked], [6, [1000, 1000, 1000, 1000]]);
  });

  it("gives up when its time is over, also when it is rung in vain", () => {
    using clock = new TestClock(0);
    using world = setUp();
    const { waits, parking, thing } = world;
    parking.onBlock = (timeout) => clock.now += timeout;
    assertEquals(waits.block(thing.look, 2500.25), undefined);
    parking.onBlock = () => clock.now += 200;
    assertEquals(waits.block(thing.look, 500), undefined);
    assertEquals(parking.blocked, [1000, 1000, 501, 500, 300, 100]);
  });

  it("looks a last time when its time is over", () => {
    using clock = new TestClock(0);
    using world = setUp();
    const { waits, parking, thing } = world;
    parking.onBlock = () => {
      clock.now += 500;
      thing.there = "in the last moment";
    };
    assertEquals(waits.block(thing.look, 500), "in the last moment");
  });

  it("asks nobody to ring any more when looking fails", () => {
    using world = setUp();
    const { waits, parking } = world;
    const look = () => {
      if (parking.parked) throw new Error("closed");
    };
    assertThrows(() => waits.block(look, -1), Error, "closed");
  });

  it("leaves those parked who were parked before", async () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    const parked = waits.park(SUBJECT, thing.look, undefined);
    assertEquals(waits.block(() => parking.blocked.length > 0 ? "mine" : undefined, -1), "mine");
    assert(parking.parked);
    thing.there = "theirs";
    waits.wake();
    assertEquals(await parked, "theirs");
  });

  it("has those parked look again when it has slept, for it heard the bells", async () => {
    using clock = new TestClock(0);
    using world = setUp();
    const { waits, parking, thing } = world;
    const promise = waits.park(SUBJECT, thing.look, undefined);
    parking.onBlock = (timeout) => {
      clock.now += timeout;
      thing.there = "rung for meanwhile";
    };
    assertEquals(waits.block(() => undefined, 5), undefined);
    assert(!await isOpen(promise));
    assertEquals([await promise, parking.blocked], ["rung for meanwhile", [5]]);
  });

  it("without sleeping has nobody look again", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const promise = waits.park(SUBJECT, thing.look, undefined);
    assertEquals([waits.block(() => "a", -1), waits.block(() => undefined, 0)], ["a", undefined]);
    const looks = thing.looks.length;
    assert(await isOpen(promise));
    assertEquals(thing.looks.length, looks);
    thing.there = "b";
    waits.wake();
    assertEquals(await promise, "b");
  });

  it("is to be rung as long as it sleeps, whoever else ends meanwhile", async () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    const promise = waits.park(SUBJECT, thing.look, undefined);
    const parked: boolean[] = [];
    parking.onBlock = () => {
      parked.push(parking.parked);
      thing.there = "theirs";
      waits.wake();
    };
    assertEquals(waits.block(() => parked.length === 3 ? "mine" : undefined, -1), "mine");
    assertEquals([parked, await promise], [[true, true, true], "theirs"]);
    // So does what its own look waits for.
    let looks = 0;
    const look = () => {
      if (++looks > 2) return "mine";
      thing.there = parking.parked ? "within" : undefined;
      return waits.block(thing.look, -1) === "within" ? undefined : "never";
    };
    parking.onBlock = () => {
      parked.push(parking.parked);
      thing.there = "within";
    };
    parked.length = 0;
    assertEquals(waits.block(look, -1), "mine");
    assertEquals(parked, [true, true]);
  });

  it("ends without a result when its look closes it, and asks nobody to ring", () => {
    for (const last of [1, 2]) {
      const parking = new FakeParking();
      const waits = new Waiting(parking, 0);
      let looks = 0;
      const closing = () => {
        if (++looks === last) waits.close();
      };
      assertEquals([waits.block(closing, -1), looks, parking.blocked], [undefined, last, []]);
    }
  });
});

describe("waiting: a promise", () => {
  it("is kept at once when it is there, and nobody is asked to ring", async () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    thing.there = "a";
    assertEquals(await waits.park(SUBJECT, thing.look, { timeout: 5 }), "a");
    assertEquals([thing.looks, parking.listened], [[false], 0]);
  });

  it("sees what comes between the look and the asking to be rung", async () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    parking.onRefresh = () => thing.there = thing.looks.length === 1 ? "just now" : undefined;
    assertEquals(await waits.park(SUBJECT, thing.look, undefined), "just now");
    assertEquals([thing.looks, parking.listened], [[false, true], 1]);
  });

  it("looks when a bell rings, and only then; others are asked to ring as long as somebody waits", async () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    const other = new Thing(parking);
    const [one, two] = [thing, other].map(({ look }) => waits.park(SUBJECT, look, undefined));
    const looks = [thing.looks.length, other.looks.length];
    thing.there = "one";
    assert(await isOpen(one!));
    assertEquals([thing.looks.length, other.looks.length], looks);
    waits.wake();
    assertEquals(await one, "one");
    assert(parking.parked && await isOpen(two!));
    other.there = "two";
    waits.wake();
    assertEquals([await two, parking.parked], ["two", false]);
  });

  it("is broken with TIMEOUT, by whoever asked, when nothing has come", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const error = await fails("TIMEOUT", () => waits.park(SUBJECT, thing.look, { timeout: 3 }), SUBJECT);
    assertEquals(error.reason, "nothing came within 3 ms");
    await fails("TIMEOUT", () => waits.park(SUBJECT, thing.look, { timeout: 0 }), SUBJECT);
  });

  it("is kept with what nobody rang for when its time is over", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const promise = waits.park(SUBJECT, thing.look, { timeout: 3 });
    thing.there = "unheard";
    assertEquals(await promise, "unheard");
  });

  it("has no end where timers do not count so far", async () => {
    using world = setUp();
    const { waits, thing } = world;
    for (const timeout of [2 ** 31 - 1, 2 ** 31, Infinity]) {
      const promise = waits.park(SUBJECT, thing.look, { timeout });
      assert(await isOpen(promise));
      thing.there = "a";
      waits.wake();
      assertEquals(await promise, "a");
    }
  });

  it("is broken with a signal's reason, before it begins or later", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const reason = new Error("enough");
    const before = AbortSignal.abort(reason);
    assertStrictEquals(await assertRejects(() => waits.park(SUBJECT, thing.look, { signal: before })), reason);
    assertEquals(thing.looks, []);
    const later = new AbortController();
    const promise = waits.park(SUBJECT, thing.look, { signal: later.signal, timeout: 100_000 });
    later.abort(reason);
    assertStrictEquals(await assertRejects(() => promise), reason);
    const looks = thing.looks.length;
    waits.wake();
    assertEquals(thing.looks.length, looks);
  });

  it("is broken by a signal that its own look aborts, whichever look that is", async () => {
    for (const spin of [0, 10_000]) {
      for (const last of [1, 2, 1000]) {
        using _clock = new TestClock(1);
        using world = setUp(spin);
        const { waits, parking } = world;
        const controller = new AbortController();
        let looks = 0;
        const aborting = () => {
          if (++looks === last) controller.abort(new Error("enough"));
        };
        const promise = waits.park(SUBJECT, aborting, { signal: controller.signal, timeout: 100_000 });
        const ended = assertRejects(() => promise, Error, "enough");
        for (let turns = 0; turns < 6; turns++) await turn();
        while (looks < last) waits.wake();
        await ended;
        assertEquals(parking.parked, false);
      }
    }
  });

  it("is broken with INVALID_RESOURCE when its own look closes all, whichever look that is and whatever it finds", async () => {
    for (const spin of [0, 10_000]) {
      for (const found of [undefined, "found"]) {
        for (const last of [1, 2, 1000]) {
          using _clock = new TestClock(1);
          const parking = new FakeParking();
          const waits = new Waiting(parking, spin);
          let looks = 0;
          const closing = () => {
            if (++looks < last) return undefined;
            waits.failAll(closedMeanwhile);
            waits.close();
            return looks === last ? found : undefined;
          };
          const promise = waits.park(SUBJECT, closing, { timeout: 100_000 });
          const settled = promise.then((result) => result, ({ code }) => code as string);
          for (let turns = 0; turns < 6; turns++) await turn();
          while (looks < last) waits.wake();
          // What is found before it parks is its own already.
          const early = found !== undefined && (last === 1 || last === 2 && spin > 0);
          assertEquals([await settled, parking.parked], [early ? found : "INVALID_RESOURCE", false]);
        }
      }
    }
  });

  it("is broken with INVALID_RESOURCE when all was closed before and there is nothing", async () => {
    const parking = new FakeParking();
    const waits = new Waiting(parking, 0);
    waits.close();
    await fails("INVALID_RESOURCE", () => waits.park(SUBJECT, () => undefined, undefined), SUBJECT);
    assertEquals([await waits.park(SUBJECT, () => "left", undefined), parking.parked], ["left", false]);
  });

  it("whose look has everybody look again, each time, lets the event loop turn", async () => {
    using world = setUp();
    const { waits, thing } = world;
    for (const again of [() => waits.wake(), () => waits.nudge()]) {
      let looks = 0;
      const changing = () => {
        looks++;
        again();
        return thing.look();
      };
      const both = [waits.park(SUBJECT, changing, undefined), waits.park(SUBJECT, changing, undefined)];
      await turn();
      looks = 0;
      // Each looks once in a turn, and in every turn.
      for (let turns = 1; turns <= 5; turns++) {
        await turn();
        assertEquals(looks, 2 * turns);
      }
      for (const promise of both) {
        thing.there = "a";
        assertEquals(await promise, "a");
      }
      await fails("TIMEOUT", () => waits.park(SUBJECT, changing, { timeout: 3 }), SUBJECT);
    }
  });

  it("looks once for all that is changed before it can", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const promise = waits.park(SUBJECT, thing.look, undefined);
    thing.looks.length = 0;
    for (let changes = 0; changes < 3; changes++) waits.nudge();
    assertEquals(thing.looks.length, 0);
    await Promise.resolve();
    assertEquals(thing.looks.length, 1);
    thing.there = "a";
    waits.nudge();
    assertEquals([await promise, thing.looks.length], ["a", 2]);
  });

  it("takes one thing, also when what is taken in before its look has everybody look", async () => {
    using world = setUp();
    const { waits, parking } = world;
    const queue: number[] = [];
    const promise = waits.park(SUBJECT, () => queue.shift(), undefined);
    parking.onRefresh = () => {
      parking.onRefresh = () => {};
      queue.push(1, 2);
      waits.wake();
    };
    waits.wake();
    assertEquals([await promise, queue], [1, [2]]);
    await turn();
  });

  it("does not listen to its signal any more when it is kept", async () => {
    using world = setUp();
    const { waits, parking, thing } = world;
    const controller = new AbortController();
    const [first, second] = [new Thing(parking), thing].map(({ look }, i) =>
      waits.park(SUBJECT, look, i === 1 ? { signal: controller.signal } : undefined)
    );
    thing.there = "kept";
    waits.wake();
    assertEquals(await second, "kept");
    controller.abort();
    assert(await isOpen(first!));
    waits.failAll(() => new Error("the end"));
    await assertRejects(() => first!, Error, "the end");
  });

  it("is broken by what its own look throws, and no other", async () => {
    using world = setUp();
    const { waits, thing } = world;
    let closed = false;
    const failing = () => {
      if (closed) throw new Error("closed");
    };
    const [one, two] = [waits.park(SUBJECT, failing, undefined), waits.park(SUBJECT, thing.look, undefined)];
    closed = true;
    thing.there = "two";
    waits.wake();
    await assertRejects(() => one, Error, "closed");
    assertEquals(await two, "two");
    await assertRejects(() => waits.park(SUBJECT, failing, undefined), Error, "closed");
  });

  it("all of them are broken at once, each with an error of its own", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const operations = ["receive", "wait for room", "watch"];
    const promises = operations.map((operation) => waits.park({ operation }, thing.look, { timeout: 100_000 }));
    waits.failAll(({ operation }) => new Error(`cannot ${operation}`));
    for (const [i, promise] of promises.entries()) {
      await assertRejects(() => promise, Error, `cannot ${operations[i]}`);
    }
    waits.failAll(() => {
      throw new Error("there is nobody left to ask about");
    });
  });

  it("that another's look ends is not looked for any more", async () => {
    using world = setUp();
    const { waits, thing } = world;
    const controller = new AbortController();
    const end = () => {
      if (thing.there === undefined) return undefined;
      controller.abort();
      return "done";
    };
    const ender = waits.park(SUBJECT, end, undefined);
    const ended = waits.park(SUBJECT, thing.look, { signal: controller.signal });
    const looks = thing.looks.length;
    thing.there = "for the second";
    waits.wake();
    assertEquals(await ender, "done");
    await assertRejects(() => ended, DOMException);
    assertEquals([thing.looks.length, thing.there], [looks, "for the second"]);
  });

  it("who waits longest is first, and each thing is for one", async () => {
    using world = setUp();
    const { waits } = world;
    const queue: number[] = [];
    const served: string[] = [];
    const wait = async (name: string) => {
      for (;;) {
        const item = await waits.park(SUBJECT, () => queue.shift(), undefined);
        if (item < 0) return;
        served.push(`${name}${item}`);
      }
    };
    const all = ["a", "b", "c"].map(wait);
    for (let item = 0; item < 7; item++) {
      queue.push(item);
      waits.wake();
      await turn();
    }
    queue.push(7, 8);
    waits.wake();
    await turn();
    assertEquals(served, ["a0", "b1", "c2", "a3", "b4", "c5", "a6", "b7", "c8"]);
    queue.push(-1, -1, -1);
    waits.wake();
    await Promise.all(all);
  });
});

describe("waiting: spinning", () => {
  it("0 turns it off: a look, and one more when others are asked to ring", async () => {
    using world = setUp(0);
    const { waits, thing } = world;
    for (let i = 0; i < 5; i++) {
      const promise = waits.park(SUBJECT, thing.look, undefined);
      assertEquals(thing.looks.splice(0), [false, true]);
      for (let turns = 0; turns < 6; turns++) await turn();
      assertEquals(thing.looks.splice(0), []);
      thing.there = "a";
      waits.wake();
      assertEquals([await promise, thing.looks.splice(0)], ["a", [true]]);
    }
  });

  /** One look at the clock takes 1 ms, so that 10 ms are some 150 looks. */
  const SPIN = 10_000;

  it("finds what comes soon without asking anybody to ring", async () => {
    using _clock = new TestClock(1);
    using world = setUp(SPIN);
    const { waits, parking, thing } = world;
    parking.onRefresh = () => thing.there = thing.looks.length % 100 === 99 ? "soon" : undefined;
    assertEquals(waits.block(thing.look, -1), "soon");
    assertEquals(await waits.park(SUBJECT, thing.look, undefined), "soon");
    assertEquals([thing.looks.length, thing.looks.includes(true), parking.listened], [200, false, 0]);
    assertEquals(parking.blocked, []);
    await turn();
  });

  it("goes on for four turns of the event loop, then parks", async () => {
    using _clock = new TestClock(1);
    using world = setUp(SPIN);
    const { waits, parking, thing } = world;
    const promise = waits.park(SUBJECT, thing.look, undefined);
    const parked: boolean[] = [];
    for (let turns = 0; turns < 5; turns++) {
      parked.push(parking.parked);
      thing.looks.length = 0;
      await turn();
      assertEquals(thing.looks.length > 100, turns < 4, `looks in turn ${turns}`);
    }
    assertEquals(parked, [false, false, false, false, true]);
    thing.there = "a";
    waits.wake();
    assertEquals(await promise, "a");
  });

  it("finds in the next turns what no bell rang for", async () => {
    using _clock = new TestClock(1);
    using world = setUp(SPIN);
    const { waits, parking, thing } = world;
    for (let i = 0; i < 3; i++) {
      const promise = waits.park(SUBJECT, thing.look, undefined);
      thing.there = `no bell ${i}`;
      assertEquals(await promise, `no bell ${i}`);
    }
    assertEquals([parking.listened, thing.looks.includes(true)], [0, false]);
    for (let turns = 0; turns < 3; turns++) await turn();
  });

  it("in vain: more and more of the next waits park at once; what is found by it makes that good", async () => {
    using _clock = new TestClock(1);
    using world = setUp(SPIN);
    const { waits, parking, thing } = world;
    /** Waits once, for what comes only when it parks; says whether that was at once. */
    const parksAtOnce = async () => {
      const promise = waits.park(SUBJECT, thing.look, undefined);
      const atOnce = parking.parked;
      while (!parking.parked) await turn();
      thing.there = "a";
      waits.wake();
      await promise;
      for (let turns = 0; turns < 2; turns++) await turn();
      return atOnce;
    };
    /** How many of the next waits park at once. */
    const atOnce = async () => {
      let count = 0;
      while (await parksAtOnce()) count++;
      return count;
    };
    const counts: number[] = [];
    for (let i = 0; i < 9; i++) counts.push(await atOnce());
    assertEquals(counts, [0, 1, 3, 7, 15, 31, 63, 63, 63]);
    for (let i = 0; i < 63; i++) assert(await parksAtOnce());
    parking.onRefresh = () => thing.there = "soon";
    // The first look finds it; that was no spinning.
    assertEquals(await waits.park(SUBJECT, thing.look, undefined), "soon");
    parking.onRefresh = () => thing.there = thing.looks.length % 2 === 0 ? "soon" : undefined;
    thing.looks.length = 1;
    assertEquals(await waits.park(SUBJECT, thing.look, undefined), "soon");
    parking.onRefresh = () => {};
    for (let turns = 0; turns < 2; turns++) await turn();
    assertEquals([await atOnce(), await atOnce(), await atOnce()], [0, 1, 3]);
  });

  /** Parks so many, then lets another one spin: the looks of that one, and how often each of the others looked. */
  async function spinBeside(count: number): Promise<{ looks: readonly boolean[]; others: number[] }> {
    using _clock = new TestClock(1);
    using world = setUp(SPIN);
    const { waits, parking, thing } = world;
    const others = Array.from({ length: count }, () => new Thing(parking));
    const promises = others.map(({ look }) => waits.park(SUBJECT, look, undefined));
    while (!parking.parked) await turn();
    for (let turns = 0; turns < 2; turns++) await turn();
    // One wait parks at once after those that spun in vain; the next one spins.
    promises.push(waits.park(SUBJECT, () => undefined as string | undefined, undefined));
    for (const other of others) other.looks.length = 0;
    promises.push(waits.park(SUBJECT, thing.look, undefined));
    const result = { looks: [...thing.looks], others: others.map(({ looks }) => looks.length) };
    waits.failAll(() => new Error("the end"));
    for (const { reason } of await Promise.allSettled(promises) as PromiseRejectedResult[]) {
      assertEquals(reason.message, "the end");
    }
    return result;
  }

  it("beside a few who are parked: nobody is to ring meanwhile, and afterwards they look again", async () => {
    const { looks, others } = await spinBeside(3);
    assertEquals([looks[0], looks.slice(1).includes(true)], [true, false]);
    assertEquals([looks.length > 100, others], [true, [1, 1, 1]]);
  });

  it("beside many who are parked: others go on ringing, since that is cheaper than all looking again", async () => {
    const { looks, others } = await spinBeside(9);
    assertEquals([looks.length > 100, looks.includes(false)], [true, false]);
    assertEquals(others, Array(9).fill(0));
  });

  it("that fails leaves those parked who were parked before", async () => {
    using _clock = new TestClock(1);
    using world = setUp(SPIN);
    const { waits, parking, thing } = world;
    const parked = [thing, thing].map(({ look }) => waits.park(SUBJECT, look, undefined));
    while (!parking.parked) await turn();
    for (let turns = 0; turns < 2; turns++) await turn();
    parked.push(waits.park(SUBJECT, thing.look, undefined));
    let looks = 0;
    const failing = () => {
      if (++looks > 50) throw new Error("closed");
    };
    await assertRejects(() => waits.park(SUBJECT, failing, undefined), Error, "closed");
    assert(parking.parked, "they are still to be rung");
    waits.failAll(() => new Error("the end"));
    for (const promise of parked) await assertRejects(() => promise, Error, "the end");
  });
});

/** What is stored before others are looked at: the order that a ring is not missed by. */

import { assert, assertEquals } from "@std/assert";
import { contextHandle, openVmci } from "../mod.ts";

type Name = "load" | "store" | "add" | "exchange" | "compareExchange";

/** One access by Atomics. */
interface Access {
  readonly name: Name;
  readonly array: Int32Array;
  readonly value: number | undefined;
}

/** Remembers all accesses by Atomics. */
class Accesses implements Disposable {
  readonly #real: Record<Name, unknown>;
  #all: Access[] = [];

  constructor() {
    const { load, store, add, exchange, compareExchange } = Atomics;
    this.#real = { load, store, add, exchange, compareExchange };
    for (const [name, real] of Object.entries(this.#real) as [Name, (...args: unknown[]) => number][]) {
      const spy = (array: Int32Array, index: number, ...values: number[]) => {
        this.#all.push({ name, array, value: values[0] });
        return real(array, index, ...values);
      };
      Object.assign(Atomics, { [name]: spy });
    }
  }

  /** What an action does. */
  of(action: () => void): Access[] {
    this.#all = [];
    action();
    return this.#all;
  }

  [Symbol.dispose](): void {
    Object.assign(Atomics, this.#real);
  }
}

Deno.test("fence: what was written before a ring is stored before anybody is looked for who waits, once", async () => {
  const device = "memory:fence";
  await using host = await openVmci({ device, spin: 0 });
  await using guest = await openVmci({ device, contextId: 16, spin: 0 });
  using region = host.sharedMemory.create(4096);
  host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
  using theirs = guest.sharedMemory.attach(region.handle);
  const [word, record] = [region.word(0), region.record(8)];
  using accesses = new Accesses();
  let waiting: Promise<void>;
  const parking = accesses.of(() => waiting = theirs.waitUntil(() => region.bytes[4095] === 1));
  const attention = parking.find(({ name, value }) => name === "store" && value === 1)!.array;
  /** What was written by an action before it first looked whether the guest is parked; `true` is the region. */
  const writes = (action: () => void) => {
    const all = accesses.of(action);
    const looked = all.findIndex(({ name, array }) => name === "load" && array === attention);
    assert(looked >= 0, "it looked whether anybody is parked");
    return all.slice(0, looked).filter(({ name }) => name !== "load").map(({ array }) =>
      array.buffer === region.buffer
    );
  };
  // A view's write is a plain one: only a store that is none keeps it before what is looked at.
  assertEquals(writes(() => region.notify()), [false]);
  assertEquals(writes(() => word.store(1)), [true]);
  assertEquals(writes(() => word.add(1)), [true]);
  assertEquals(writes(() => word.exchange(1)), [true]);
  assertEquals(writes(() => word.compareExchange(1, 2)), [true]);
  // A record's own fence keeps its slot behind the word that says it is begun.
  assertEquals(writes(() => record.publish(new Uint8Array(1))), [true, true, false, true]);
  region.bytes[4095] = 1;
  region.notify();
  await waiting!;
});

/**
 * What the code that a test sends to a player sees there: the library, the player's own objects, and ways to die.
 *
 * @module
 */

import * as lib from "../../../mod.ts";
import { errno, interposeLibc, setErrno } from "../../../ffi/libc.ts";
import type { DatagramEndpoint, ErrorCodeName, Group, OpenOptions, Region, Vmci, VmciEvent } from "../../../mod.ts";
import { Asker } from "./asker.ts";
import { type Blow, nativeKill, now } from "./native_kill.ts";

/** Where in an operation a player is struck. */
export interface Strike {
  readonly blow: Blow;
  /**
   * Before the operation, just before or just after its n-th call of the C library, just before its n-th store to
   * shared memory, or after it. An operation that ends, or parks, before its n-th step is struck then.
   */
  readonly at: "before" | "call" | "called" | "store" | "after";
  /** From 0. */
  readonly nth: number;
}

/** An operation as it travels. */
export interface Act {
  readonly code: string;
  /** Whether it waits for what does not come. */
  readonly waits: boolean;
}

/** How many steps an operation takes. */
export interface Steps {
  readonly calls: number;
  readonly stores: number;
}

/** An event, and when it was told. */
export interface Told {
  readonly event: VmciEvent;
  readonly at: number;
}

/** What writes to shared memory by one step. */
const WRITES = ["store", "add", "exchange", "compareExchange"] as const;

/** Milliseconds in which an operation that waits has parked; if it has not, it is struck a little earlier. */
const PARKED = 15;

/** Numbered datagrams that come from one source, as {@linkcode Stage.numbered} made them. */
export class Numbers {
  /** The number that must come next. */
  next = 0;
  /** What came instead. */
  readonly faults: string[] = [];
  /** Numbers that were passed over. */
  readonly missing: number[] = [];
  /** The longest time between two datagrams, in milliseconds. */
  longestPause = 0;
  /** Whether numbers may be passed over. */
  readonly gaps: boolean;
  #last = 0;

  constructor(gaps: boolean) {
    this.gaps = gaps;
  }

  take(number: number): void {
    if (number < this.next || (number > this.next && !this.gaps)) {
      this.faults.push(`${number} came where ${this.next} was due`);
    }
    for (let passed = this.next; passed < number; passed++) this.missing.push(passed);
    this.next = number + 1;
    const at = performance.now();
    if (this.#last > 0) this.longestPause = Math.max(this.longestPause, at - this.#last);
    this.#last = at;
  }
}

/** How datagrams are taken in. */
export interface Collecting {
  /** Called after each of them. */
  readonly taken?: () => void;
  /** Whether numbers may be passed over; they are noted then. */
  readonly gaps?: boolean;
}

/** See the module's comment. */
export class Stage {
  /** The library as programs see it. */
  readonly lib: typeof lib = lib;
  readonly pid: number = Deno.pid;
  vmci!: Vmci;
  endpoint!: DatagramEndpoint;
  region!: Region;
  group!: Group;
  /** What must not be forgotten, by name. */
  // deno-lint-ignore no-explicit-any
  readonly kept: Record<string, any> = {};
  /** The datagrams that came, by the number of who sent them. */
  readonly received: Map<number, Numbers> = new Map();
  /** The number of the next datagram to be sent, by destination. */
  readonly sent: Map<number, number> = new Map();
  events: Told[] = [];
  /** How it asks, where the broker may be no more. */
  readonly asker: Asker = new Asker();
  readonly #vmcis: Vmci[] = [];
  readonly #lookers = new Set<() => void>();
  readonly #write: (line: string) => void;

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  /** Says a line to the test at once, even if the event loop does not turn. */
  say(text: string): void {
    this.#write(`! ${text}\n`);
  }

  /** Joins a fabric. */
  async open(options: OpenOptions): Promise<Vmci> {
    this.vmci = await lib.openVmci(options);
    this.#vmcis.push(this.vmci);
    return this.vmci;
  }

  /** Joins a fabric whose broker may be dying, or coming: as often as it does not answer in time. */
  async openAtLast(options: OpenOptions): Promise<Vmci> {
    for (;;) {
      try {
        return await this.open(options);
      } catch (error) {
        if (!(error instanceof lib.VmciError) || error.code !== "UNAVAILABLE") throw error;
      }
    }
  }

  /** Leaves every fabric, the last one first, and forgets all about it. */
  async leave(): Promise<void> {
    for (const vmci of this.#vmcis.splice(0).reverse()) await vmci[Symbol.asyncDispose]();
    for (const name of Object.keys(this.kept)) delete this.kept[name];
    this.received.clear();
    this.sent.clear();
    this.events = [];
  }

  // --- Being told -----------------------------------------------------------------------------------------------------

  /** From now on events are collected. */
  follow(): void {
    const { vmci, events } = this;
    const iterator = vmci.events();
    const collect = async () => {
      for await (const event of iterator) {
        events.push({ event, at: now() });
        this.#look();
      }
    };
    collect().catch((error) => this.say(`events failed: ${error}`));
  }

  /** Waits until something is true; it is looked at after every event and every datagram. */
  async until(condition: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => condition() && resolve();
    // Somebody waits: the process must not end.
    const alive = setInterval(look, 20);
    this.#lookers.add(look);
    look();
    await promise;
    this.#lookers.delete(look);
    clearInterval(alive);
  }

  /** The first event that has all of these fields, come already or to come. */
  async told(fields: Readonly<Record<string, unknown>>): Promise<Told> {
    const fits = ({ event }: Told) =>
      Object.entries(fields).every(([key, value]) =>
        JSON.stringify((event as unknown as Record<string, unknown>)[key]) === JSON.stringify(value)
      );
    await this.until(() => this.events.some(fits));
    return this.events.find(fits)!;
  }

  #look(): void {
    for (const look of [...this.#lookers]) look();
  }

  // --- Numbered datagrams ---------------------------------------------------------------------------------------------

  /** A datagram that says who sends it and which one it is. */
  numbered(who: number, number: number, size = 8): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(size);
    new DataView(bytes.buffer).setUint32(0, who);
    new DataView(bytes.buffer).setUint32(4, number);
    return bytes;
  }

  /** Takes in such a datagram; where there may be gaps, who knows which says so. */
  take(payload: Uint8Array<ArrayBuffer>, gaps = false): void {
    const view = new DataView(payload.buffer, payload.byteOffset);
    const who = view.getUint32(0);
    let numbers = this.received.get(who);
    if (numbers === undefined) this.received.set(who, numbers = new Numbers(gaps));
    numbers.take(view.getUint32(4));
    this.#look();
  }

  /** From now on datagrams that come to an endpoint are taken in. */
  collect(endpoint: DatagramEndpoint, { taken = () => {}, gaps = false }: Collecting = {}): void {
    const collect = async () => {
      for await (const { payload } of endpoint) {
        this.take(payload, gaps);
        taken();
      }
    };
    collect().catch((error) => {
      if (!endpoint.closed) this.say(`receiving failed: ${error}`);
    });
  }

  // --- Failing --------------------------------------------------------------------------------------------------------

  /** The code that an action fails with, or "ok". */
  async outcome(action: () => unknown): Promise<ErrorCodeName | "ok"> {
    try {
      await action();
      return "ok";
    } catch (error) {
      if (!(error instanceof lib.VmciError)) throw error;
      return error.code;
    }
  }

  /** Says when, and strikes this process. */
  strike(blow: Blow): void {
    this.say(`struck ${now()}`);
    nativeKill(blow);
  }

  /** Counts the steps of an operation; of one that waits, until it has parked. */
  async measure(act: Act, scene: unknown): Promise<Steps> {
    let [calls, stores] = [0, 0];
    using _ = this.#interpose(() => calls++, () => {}, () => stores++);
    await this.act(act, scene);
    return { calls, stores };
  }

  /** Does an operation: what became of it, a code, or "parked" for one that waits. */
  async act({ code, waits }: Act, scene: unknown): Promise<string> {
    const outcome = this.outcome(() => compile(code)(this, scene));
    return await (waits ? Promise.race([outcome, parked()]) : outcome);
  }

  /** Does an operation and is struck in it. If it lives on, what became of the operation. */
  async perform(act: Act, strike: Strike, scene: unknown): Promise<string> {
    const { blow, at } = strike;
    let left = at === "call" || at === "called" || at === "store" ? strike.nth : -1;
    const step = (kind: Strike["at"]) => {
      if (kind === at && left >= 0 && left-- === 0) this.strike(blow);
    };
    if (at === "before") this.strike(blow);
    using _ = this.#interpose(() => step("call"), () => step("called"), () => step("store"));
    const result = await this.act(act, scene);
    if (at === "after" || left >= 0) this.strike(blow);
    return result;
  }

  /** Puts functions before and after each call of the C library, and before each store to shared memory. */
  #interpose(before: () => void, after: () => void, store: () => void): Disposable {
    interposeLibc((_name, call) => (...args) => {
      before();
      const result = call(...args);
      const error = errno();
      after();
      setErrno(error);
      return result;
    });
    const atomics = Atomics as unknown as Record<string, (...args: unknown[]) => unknown>;
    const originals = WRITES.map((name) => [name, atomics[name]!] as const);
    for (const [name, write] of originals) {
      atomics[name] = (...args) => {
        store();
        return write(...args);
      };
    }
    return {
      [Symbol.dispose]: () => {
        interposeLibc(undefined);
        for (const [name, write] of originals) atomics[name] = write;
      },
    };
  }
}

/** A function that was sent as text. */
export function compile(code: string): (...args: unknown[]) => unknown {
  return new Function(`return (${code});`)();
}

function parked(): Promise<"parked"> {
  return new Promise((resolve) => setTimeout(() => resolve("parked"), PARKED));
}

/**
 * What the code that a test sends to a player sees there: the library, the player's own objects, and ways to die.
 *
 * @module
 */

import * as lib from "../../../mod.ts";
import * as below from "./below.ts";
import { interposeLibc } from "../../../ffi/libc.ts";
import type {
  DatagramEndpoint,
  Group,
  OpenOptions,
  Region,
  RegionRecord,
  Vmci,
  VmciError,
  VmciEvent,
} from "../../../mod.ts";
import { nativeKill } from "./native_kill.ts";
import { RawClient } from "./raw_client.ts";

/** How a player ends itself in the middle of what it does. */
export type Blow = "SIGKILL" | "SIGSTOP";

/** The library's own view of memory, where a step of it is one call of `Atomics`. */
type AtomicsWrite = "store" | "add" | "exchange" | "compareExchange";

/** See the module's comment. */
export class Stage {
  /** The library as programs see it. */
  readonly lib: typeof lib = lib;
  /** Below it. */
  readonly ffi: typeof below = below;
  readonly pid: number = Deno.pid;
  vmci!: Vmci;
  endpoint!: DatagramEndpoint;
  region!: Region;
  record!: RegionRecord;
  group!: Group;
  readonly vmcis: Vmci[] = [];
  readonly endpoints: DatagramEndpoint[] = [];
  readonly regions: Region[] = [];
  readonly raws: RawClient[] = [];
  /** What was begun and is awaited later, by name; failures too. */
  readonly pending: Record<string, Promise<unknown>> = {};
  readonly events: VmciEvent[] = [];
  readonly #eventWaiters = new Set<() => void>();
  readonly #write: (line: string) => void;

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  /** Says a line to the test at once, even if the event loop does not turn. */
  say(text: string): void {
    this.#write(`! ${text}\n`);
  }

  /** Joins a fabric. */
  async open(options: OpenOptions): Promise<number> {
    this.vmci = await lib.openVmci(options);
    this.vmcis.push(this.vmci);
    return this.vmci.contextId;
  }

  /** Leaves every fabric, in the order opened, and waits until that is done. */
  async leave(): Promise<void> {
    for (const raw of this.raws.splice(0)) raw.close();
    for (const vmci of this.vmcis.splice(0)) await vmci[Symbol.asyncDispose]();
    this.events.length = 0;
  }

  /** A raw client of a fabric's broker: it speaks the protocol and need not tell the truth. */
  raw(path: string): RawClient {
    const raw = new RawClient(path);
    this.raws.push(raw);
    return raw;
  }

  /** From now on events are collected. */
  follow(): void {
    const { vmci } = this;
    const collect = async () => {
      for await (const event of vmci.events()) {
        this.events.push(event);
        for (const look of this.#eventWaiters) look();
      }
    };
    collect().catch((error) => this.say(`events failed: ${error}`));
  }

  /** The first event, come already or to come, that has all of these fields. */
  async event(fields: Readonly<Record<string, unknown>>): Promise<VmciEvent> {
    const found = () =>
      this.events.find((event) =>
        Object.entries(fields).every(([key, value]) =>
          JSON.stringify((event as unknown as Record<string, unknown>)[key]) === JSON.stringify(value)
        )
      );
    const { promise, resolve } = Promise.withResolvers<VmciEvent>();
    const look = () => {
      const event = found();
      if (event !== undefined) resolve(event);
    };
    // Somebody waits: the process must not end.
    const alive = setInterval(() => {}, 1 << 30);
    this.#eventWaiters.add(look);
    look();
    try {
      return await promise;
    } finally {
      this.#eventWaiters.delete(look);
      clearInterval(alive);
    }
  }

  /** The code of the error that an action fails with, or "ok". */
  async outcome(action: () => unknown): Promise<string> {
    try {
      await action();
      return "ok";
    } catch (error) {
      if (!(error instanceof lib.VmciError)) throw error;
      return (error as VmciError).code;
    }
  }

  /** Ends or stops this process in the middle of its n-th call of the C library from now on (0: the next one). */
  strikeAtCall(blow: Blow, nth: number, before = true): void {
    let left = nth;
    let armed = true;
    interposeLibc((_name, call) => (...args) => {
      if (!armed || left-- !== 0) return call(...args);
      armed = false;
      if (before) {
        nativeKill(blow);
        return call(...args);
      }
      const result = call(...args);
      nativeKill(blow);
      return result;
    });
  }

  /** Ends or stops this process just before its n-th store to shared memory from now on (0: the next one). */
  strikeAtStore(blow: Blow, nth: number): void {
    let left = nth;
    for (const name of ["store", "add", "exchange", "compareExchange"] as const satisfies AtomicsWrite[]) {
      const write = Atomics[name] as (...args: unknown[]) => unknown;
      (Atomics as unknown as Record<string, unknown>)[name] = (...args: unknown[]) => {
        if (left-- === 0) nativeKill(blow);
        return write.apply(Atomics, args);
      };
    }
  }

  /** What this process has open and mapped. */
  holdings(): Holdings {
    return holdings("self");
  }

  /** Collects garbage, and lets finalizers and closing handles run. */
  async settle(): Promise<void> {
    for (let round = 0; round < 4; round++) {
      (globalThis as unknown as { gc?: () => void }).gc?.();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** What a process has open and mapped. */
export interface Holdings {
  /** Descriptors. */
  readonly descriptors: number;
  /** Mappings of memory that the library made. */
  readonly shared: number;
  /** All mappings. */
  readonly mappings: number;
}

/** Counts what a process has open and mapped; needs --allow-read. */
export function holdings(pid: number | "self"): Holdings {
  const maps = Deno.readTextFileSync(`/proc/${pid}/maps`).trimEnd().split("\n");
  return {
    descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length,
    shared: maps.filter((line) => line.includes("memfd:vmci")).length,
    mappings: maps.length,
  };
}

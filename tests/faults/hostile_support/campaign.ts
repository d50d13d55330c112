/**
 * Has every call of the C library fail once, in every plausible way: within each operation, on the client's side and on
 * the broker's. After each failure the same operation must work, and nothing more may be held than before.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import { openVmci, type Vmci, VmciError } from "../../../mod.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { makeRunDirectory } from "../../support/media.ts";
import { AGENT_ENDED } from "../../support/remote.ts";
import type { CallMade, FaultPlan } from "./faults.ts";
import { FaultyBroker } from "./faulty_broker.ts";
import { type Held, held, known, settled } from "./held.ts";
import { GUEST, type Operation, operations, type Parties } from "./operations.ts";

/** Whose call fails: this process', the broker's, or that of a second party in another process. */
export type Side = "client" | "broker" | "guest";

/**
 * Where: within the operations of `operations.ts`; or within the tests of the conformance suite, with both parties in
 * one process, with the second one in another, or in one process that may use no raw pointers.
 */
export type Setting = "operations" | "one process" | "two processes" | "no raw pointers";

/** What is done while a call fails. */
export interface Deed {
  readonly setting: Setting;
  /** The operation's name, or the test's. */
  readonly operation: string;
}

/** One failure. */
export interface Case extends Deed {
  readonly side: Side;
  /** The how many-th call of the operation, from 1. */
  readonly nth: number;
  /** Which call that was when nothing failed. */
  readonly call: string;
  /** Which of the ways in which it may fail. */
  readonly way: number;
}

/** What calls are made when nothing fails, by whose they are. */
export type Calls = Readonly<Partial<Record<Side, readonly CallMade[]>>>;

/** What came of one failure. */
export interface Verdict {
  /** The call that was made to fail, and how; nothing when an operation made not as many calls this time. */
  readonly failed: string | undefined;
  /** Whether the operation succeeded all the same. */
  readonly passed: boolean;
  /** What is wrong; empty when nothing is. */
  readonly problems: readonly string[];
}

/** Milliseconds that a control call may take: some failures cost a request its reply. */
const TIMEOUT = 10_000;

/** A fabric with two in it and a broker that can be made to fail. */
export class World implements AsyncDisposable {
  readonly parties: Parties;
  readonly broker: FaultyBroker;
  /** What is held while nothing is under way, here and in the broker. */
  #before!: Held;
  #known!: Record<string, number>;

  private constructor(parties: Parties, broker: FaultyBroker) {
    this.parties = parties;
    this.broker = broker;
  }

  static async make(): Promise<World> {
    const device = await makeRunDirectory();
    const broker = await FaultyBroker.start(device);
    const join = (contextId?: number): Promise<Vmci> =>
      openVmci({ device, timeout: TIMEOUT, spin: 0, ...(contextId === undefined ? {} : { contextId }) });
    const world = new World({ device, host: await join(), guest: await join(GUEST) }, broker);
    // What is made once is made now: the bells between the two, an attention word, Deno's own sockets.
    for (const operation of Object.values(operations)) await operation(world.parties);
    await world.#remember();
    return world;
  }

  async #remember(): Promise<void> {
    await settled(held());
    this.#before = held();
    this.#known = known(`${this.parties.device}/socket`);
  }

  /** What calls an operation makes when nothing fails, on either side. */
  async calls(client: FaultPlan, operation: Operation): Promise<Calls> {
    client.arm(0, 0);
    this.broker.plan.arm(0, 0);
    try {
      await operation(this.parties);
    } finally {
      client.disarm();
      this.broker.plan.disarm();
    }
    return { client: client.calls, broker: this.broker.plan.calls };
  }

  /** Has one call fail, and looks what came of it. */
  async run(client: FaultPlan, { operation: name, side, nth, way }: Case): Promise<Verdict> {
    const operation = operations[name]!;
    const plan = side === "client" ? client : this.broker.plan;
    const problems: string[] = [];
    let failure: unknown;
    plan.arm(nth, way);
    try {
      await operation(this.parties);
    } catch (error) {
      failure = error;
    } finally {
      plan.disarm();
    }
    const { failed } = plan;
    // The broker took it for its client's end and dropped it, or a client took it for the broker's and came again.
    const parted = failed === "sendmsg EPIPE";
    if (failure !== undefined) {
      problems.push(...faultsOfError(failure, side, parted));
      if (failed === undefined) problems.push(`it failed although nothing was made to fail: ${text(failure)}`);
    }
    if (this.broker.ended) problems.push(`the broker ended: ${this.broker.failure?.message ?? "by itself"}`);
    if (parted) await this.#reunite();
    try {
      await operation(this.parties);
    } catch (error) {
      problems.push(`the next time it fails: ${text(error)}`);
    }
    if (!this.broker.ended) problems.push(...await this.#leftovers());
    return { failed, passed: failure === undefined, problems };
  }

  /** Lets everybody notice who went and came again. */
  async #reunite(): Promise<void> {
    const { host, guest } = this.parties;
    for (let round = 0; round < 3; round++) {
      for (const party of [host, guest]) party.discovery.list();
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  async #leftovers(): Promise<string[]> {
    const problems: string[] = [];
    // This closes something on both sides: what was to be given back at the next closing is.
    const now = known(`${this.parties.device}/socket`);
    const more = await settled(this.#before);
    if (more !== "") problems.push(`left open: ${more}`);
    for (const [topic, count] of Object.entries(now)) {
      const before = this.#known[topic]!;
      if (count !== before) problems.push(`the broker knows ${count} ${topic}, and ${before} before`);
    }
    return problems;
  }

  /** Leaves it as it is; what does not end is left behind. */
  async abandon(): Promise<void> {
    const leaving = this[Symbol.asyncDispose]().catch(() => {});
    await Promise.race([leaving, new Promise((resolve) => setTimeout(resolve, 5000))]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.parties.guest[Symbol.asyncDispose]();
    await this.parties.host[Symbol.asyncDispose]();
    await this.broker[Symbol.asyncDispose]();
    await Deno.remove(this.parties.device, { recursive: true });
  }
}

/** What is wrong with an error that was thrown for a failed call: it must be the library's own, and say what failed. */
function faultsOfError(error: unknown, side: Side, parted: boolean): string[] {
  const problems: string[] = [];
  for (const one of parts(error)) {
    // A context whose only client was dropped is gone, and what was found of it before is found no more.
    if (parted && one instanceof AssertionError) continue;
    if (!(one instanceof VmciError)) {
      problems.push(`not a VmciError: ${text(one)}`);
    } else if (side === "client" && / failed: /.test(one.reason) && !(one.cause instanceof SystemError)) {
      problems.push(`without a cause: ${text(one)}`);
    }
  }
  return problems;
}

/** The errors of which one is made: closing what an operation had made may fail too. */
function parts(error: unknown): unknown[] {
  if (error instanceof SuppressedError) return [...parts(error.error), ...parts(error.suppressed)];
  if (error instanceof AggregateError) return error.errors.flatMap(parts);
  return [error];
}

/** An error for people, in one line. */
export function text(error: unknown): string {
  const all = parts(error).map((one) => one instanceof Error ? `${one.name}: ${one.message}` : String(one));
  return all.join(" | ").replaceAll(/\s*\n\s*/g, " ");
}

/** Every failure of something: each call, in each way in which it can fail. */
export function casesOf(deed: Deed, calls: Calls): Case[] {
  return (Object.entries(calls) as [Side, readonly CallMade[]][]).flatMap(([side, made]) =>
    made.flatMap(({ name, ways }, index) => ways.map((way) => ({ ...deed, side, nth: index + 1, call: name, way })))
  );
}

/**
 * What is wrong with how a test of the suite failed. It may fail as a test does, when it expected another error, or
 * none, than the one that a failed call led to.
 */
export function unexplained(error: unknown, failed: string | undefined): string[] {
  const wrong = parts(error).filter((one) => {
    if (one instanceof VmciError || one instanceof AssertionError) return false;
    const { message } = one as Error;
    const lost = loses(failed);
    // Its sender, or its receiver, had not heard of it yet: a packet that the kernel had no memory or no room for is sent
    // a moment later.
    const late = message.startsWith("That should have failed") || message.startsWith("Cannot read properties of undef");
    if (late) return !lost && !failed?.startsWith("sendmsg");
    // Whoever is told to give up finds nobody at the other end.
    return !lost || (message !== WAITED && message !== AGENT_ENDED);
  });
  return wrong.map(text);
}

/** What a test says that waited for something that never came. */
export const WAITED = "it waited for what never came";

/** Whether a call failed without which what was on its way is lost. */
export function loses(failed: string | undefined): boolean {
  return LOSING.some((call) => failed?.startsWith(call));
}

/** Calls without which a lane or a bell cannot be had, so that what was on its way is lost and its sender told. */
const LOSING = [
  "mmap",
  "fcntl EMFILE",
  "fcntl ENOMEM",
  "memfd_create",
  "fallocate",
  "socketpair",
  "sendmsg EPIPE",
  "recv ECONNRESET",
];

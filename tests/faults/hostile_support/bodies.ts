/**
 * The conformance suite with failing calls: each of its tests in a fabric of its own, of which one call fails.
 *
 * @module
 */

import { facets } from "../../conformance/facets.ts";
import type { Body, Declare, Fabric, Facet, JoinOptions, Party, Traits } from "../../conformance/suite.ts";
import { makeRunDirectory, oneProcess } from "../../support/media.ts";
import { Agent, type Remote } from "../../support/remote.ts";
import { openKept, Scenes } from "../../support/scenes.ts";
import type { Vmci } from "../../../mod.ts";
import {
  type Calls,
  type Case,
  type Deed,
  loses,
  type Setting,
  type Side,
  text,
  unexplained,
  type Verdict,
  WAITED,
} from "./campaign.ts";
import type { CallMade, FaultPlan } from "./faults.ts";
import type { FaultyScenes } from "./faulty_agent.ts";
import { FaultyBroker } from "./faulty_broker.ts";
import { closeSomething, held, settled } from "./held.ts";

/**
 * Milliseconds after which a test that waits is told to give up: where something was lost, what it waits for will hardly
 * come. And in which it then must.
 */
const PATIENCE = { lost: 5000, waiting: 60_000, closing: 60_000 };

/** Whose calls fail, where; the broker's are the same wherever its clients are. */
const SIDES: Readonly<Record<string, readonly Side[]>> = {
  "one process": ["client", "broker"],
  "two processes": ["client", "guest"],
  "no raw pointers": ["client"],
};

/** The calls of which there are others where raw pointers may not be used. */
const WITHOUT_POINTERS = ["mmap", "mremap", "munmap"];

/** Where joining and leaving are what is tested, the first who joins becomes the broker; elsewhere there is one. */
const STARTING = /^(lifecycle|events): /;

/** What is done many times makes the same calls each time. */
const MANY = 40;

/**
 * The tests of the suite, by name; with two processes those that need a second one. The others make the same calls when
 * both parties are in one process, and there each of them fails on either side.
 */
export function conformanceBodies(setting: Setting): Map<string, Body> {
  const traits = { ...oneProcess, transfersBuffers: setting !== "no raw pointers", many: MANY };
  const bodies = declared(traits);
  if (setting !== "two processes") return bodies;
  const all = declared({ ...traits, processes: true });
  return new Map([...all].filter(([name]) => !bodies.has(name)));
}

function declared(traits: Traits): Map<string, Body> {
  const bodies = new Map<string, Body>();
  for (const [facet, declare] of Object.entries(facets) as [string, Facet][]) {
    const test = (name: string, body: Body) => void bodies.set(`${facet}: ${name}`, body);
    declare(Object.assign(test, { alone: test }) as Declare, traits);
  }
  return bodies;
}

/** A fabric that can be left whatever has failed before. */
class FragileFabric implements Fabric {
  readonly device: string;
  readonly scenes: Remote<Scenes>;
  readonly #opened: Vmci[] = [];
  readonly #spawned: Agent[] = [];
  #leaving = false;

  constructor(device: string, scenes: Remote<Scenes>) {
    this.device = device;
    this.scenes = scenes;
  }

  async open(options?: JoinOptions): Promise<Vmci> {
    this.#assertStaying();
    const vmci = await openKept({ spin: 0, ...options, device: this.device });
    this.#opened.push(vmci);
    if (!this.#leaving) return vmci;
    this.#opened.splice(0);
    await vmci[Symbol.asyncDispose]();
    throw new Error(WAITED);
  }

  join(options?: JoinOptions): Promise<Party> {
    return this.scenes.open({ spin: 0, ...options, device: this.device });
  }

  spawn(): Agent {
    this.#assertStaying();
    const agent = new Agent();
    this.#spawned.push(agent);
    return agent;
  }

  /** A test that was told to give up may not have come to wait yet. */
  #assertStaying(): void {
    if (this.#leaving) throw new Error(WAITED);
  }

  /** Leaves, so that every wait ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving = true;
    const errors: unknown[] = [];
    const attempt = (leave: () => Promise<void>) => leave().catch((error) => void errors.push(error));
    for (const agent of this.#spawned.splice(0)) await attempt(() => agent[Symbol.asyncDispose]());
    await attempt(() => this.scenes.leaveAll());
    for (const vmci of this.#opened.splice(0).reverse()) await attempt(() => vmci[Symbol.asyncDispose]());
    if (errors.length > 0) throw new AggregateError(errors, "leaving failed");
  }
}

/** The second party in a process of its own, whose calls can be made to fail. */
class Guest implements AsyncDisposable {
  readonly #agent = new Agent({
    program: new URL("faulty_agent.ts", import.meta.url).pathname,
    permissions: ["--allow-all", "--v8-flags=--expose-gc"],
  });
  readonly scenes = this.#agent.scenes as Remote<FaultyScenes>;

  /** Ends it, though it may wait for ever. */
  kill(): Promise<void> {
    return this.#agent.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent[Symbol.asyncDispose]();
  }
}

/** An agent keeps all it was ever given: after so many tests another one serves. */
const TIMES = 200;

let guest: Guest | undefined;
let served = 0;

/** The one who serves, with nothing open but what is its own. */
async function aGuest(): Promise<Guest> {
  if (served++ % TIMES === 0) await dismissGuest();
  guest ??= new Guest();
  await guest.scenes.remember();
  return guest;
}

/** What calls one test makes when nothing fails. */
export async function callsOfBody(deed: Deed, client: FaultPlan): Promise<Calls> {
  const calls: Partial<Record<Side, readonly CallMade[]>> = {};
  const body = conformanceBodies(deed.setting).get(deed.operation)!;
  for (const side of SIDES[deed.setting]!) {
    const other = deed.setting === "two processes" ? await aGuest() : undefined;
    const performed = await perform(deed.operation, body, other, side, client, 0, 0);
    if (performed.error !== undefined) throw performed.error;
    calls[side] = deed.setting === "no raw pointers"
      ? performed.calls.map(({ name, ways }) => ({ name, ways: WITHOUT_POINTERS.includes(name) ? ways : [] }))
      : performed.calls;
  }
  return calls;
}

/** Has one call of a test fail, and looks what came of it. */
export async function runBody(one: Case, client: FaultPlan): Promise<Verdict> {
  const { setting, operation, side, nth, way } = one;
  const body = conformanceBodies(setting).get(operation)!;
  const other = setting === "two processes" ? await aGuest() : undefined;
  const before = held();
  const performed = await perform(operation, body, other, side, client, nth, way);
  const { error, failed, stuck } = performed;
  const problems: string[] = [];
  if (stuck) problems.push("it hangs");
  if (performed.guestEnded && !loses(failed)) problems.push("its second party hangs");
  if (error !== undefined && !performed.guestEnded) {
    problems.push(...unexplained(error, failed));
    if (failed === undefined) problems.push(`it failed although nothing was made to fail: ${text(error)}`);
  }
  if (guest !== undefined) {
    const more = await guest.scenes.leftOpen();
    if (more !== "") problems.push(`left open by its second party: ${more}`);
    if (problems.length > 0) {
      // What is wrong now is not held against the next one.
      await guest.kill();
      guest = undefined;
    }
  }
  // The pipes to a party that was ended are gone with it.
  closeSomething();
  const more = await settled(before);
  if (more !== "") problems.push(`left open: ${more}`);
  return { failed, passed: error === undefined, problems };
}

/** Ends what tests were run with. */
export async function dismissGuest(): Promise<void> {
  await guest?.[Symbol.asyncDispose]();
  guest = undefined;
}

interface Performed extends Pick<FaultPlan, "calls" | "failed"> {
  readonly error: unknown;
  /** Whether it did not even end when all had left. */
  readonly stuck: boolean;
  /** Whether the second party waited on when the first had left, and was ended. */
  readonly guestEnded: boolean;
}

async function perform(
  name: string,
  body: Body,
  other: Guest | undefined,
  side: Side,
  client: FaultPlan,
  nth: number,
  way: number,
): Promise<Performed> {
  const device = await makeRunDirectory();
  const broker = side === "broker" || !STARTING.test(name) ? await FaultyBroker.start(device) : undefined;
  const plan = side === "broker" ? broker!.plan : client;
  // Who does not end by itself has it written.
  const note = `${device}/failed`;
  const fabric = new FragileFabric(device, other?.scenes ?? new Scenes() as unknown as Remote<Scenes>);
  const errors: unknown[] = [];
  const keep = (error: unknown) => void errors.push(error);
  if (side === "guest") await other!.scenes.arm(nth, way, note);
  else plan.arm(nth, way);
  const performance = body(fabric).catch(keep);
  const failedNow = () => side === "guest" ? Deno.readTextFile(note).catch(() => undefined) : plan.failed;
  let stuck = await outlasts(performance, PATIENCE.lost);
  if (stuck && !loses(await failedNow())) stuck = await outlasts(performance, PATIENCE.waiting - PATIENCE.lost);
  // What it waits for was lost with the call that failed. Who waits is told when everybody leaves.
  if (stuck) errors.push(new Error(WAITED));
  const leaving = fabric[Symbol.asyncDispose]().catch(keep);
  const left = Promise.all([performance, leaving]);
  stuck = await outlasts(left, PATIENCE.closing);
  const guestEnded = stuck && other !== undefined;
  if (guestEnded) {
    // It waits without turning its event loop, and cannot be told.
    await other.kill();
    guest = undefined;
    stuck = await outlasts(left, PATIENCE.closing);
  }
  let calls = nth === 0 ? plan.calls : [];
  const failed = await failedNow();
  plan.disarm();
  if (side === "guest" && !guestEnded) {
    if (nth === 0) calls = [...await other!.scenes.calls] as CallMade[];
    await other!.scenes.disarm();
  }
  await broker?.[Symbol.asyncDispose]();
  await Deno.remove(device, { recursive: true });
  const error = errors.length > 1 ? new AggregateError(errors) : errors[0];
  return { calls, failed, stuck, guestEnded, error };
}

/** Whether something is not over after so many milliseconds. */
async function outlasts(promise: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<boolean>((resolve) => timer = setTimeout(() => resolve(true), milliseconds));
  const over = await Promise.race([promise.then(() => false), late]);
  clearTimeout(timer!);
  return over;
}

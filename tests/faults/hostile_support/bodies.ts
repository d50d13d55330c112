/**
 * The conformance suite with failing calls: each of its tests in a fabric of its own, of which one call fails.
 *
 * @module
 */

import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { mapReadOnly } from "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";
import { facets } from "../../conformance/facets.ts";
import type { Body, Declare, Fabric, Facet, JoinOptions, Party } from "../../conformance/suite.ts";
import { makeRunDirectory, oneProcess } from "../../support/media.ts";
import { Agent, type Remote } from "../../support/remote.ts";
import { openKept, Scenes } from "../../support/scenes.ts";
import type { Vmci } from "../../../mod.ts";
import { type Case, type Side, text, unexplained, type Verdict, WAITED } from "./campaign.ts";
import { type FaultPlan, waysOf } from "./faults.ts";
import { FaultyBroker } from "./faulty_broker.ts";
import { held, settled } from "./held.ts";

/** Milliseconds after which a test that waits for what was lost is told to give up, and in which it then must. */
const PATIENCE = { waiting: 8_000, closing: 20_000 };

/** The tests of the suite that need no second process, by name. */
export function conformanceBodies(): Map<string, Body> {
  const bodies = new Map<string, Body>();
  for (const [facet, declare] of Object.entries(facets) as [string, Facet][]) {
    const test = (name: string, body: Body) => void bodies.set(`${facet}: ${name}`, body);
    declare(Object.assign(test, { alone: test }) as Declare, oneProcess);
  }
  return bodies;
}

/** A fabric whose parties are all in this process, and that can be left whatever has failed before. */
class FragileFabric implements Fabric {
  readonly device: string;
  readonly scenes: Remote<Scenes>;
  readonly #scenes = new Scenes();
  readonly #opened: Vmci[] = [];
  readonly #spawned: Agent[] = [];

  constructor(device: string) {
    this.device = device;
    this.scenes = this.#scenes as unknown as Remote<Scenes>;
  }

  async open(options?: JoinOptions): Promise<Vmci> {
    const vmci = await openKept({ spin: 0, ...options, device: this.device });
    this.#opened.push(vmci);
    return vmci;
  }

  join(options?: JoinOptions): Promise<Party> {
    return this.scenes.open({ spin: 0, ...options, device: this.device });
  }

  spawn(): Agent {
    const agent = new Agent();
    this.#spawned.push(agent);
    return agent;
  }

  /** Leaves, so that every wait ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    const errors: unknown[] = [];
    const attempt = (leave: () => Promise<void>) => leave().catch((error) => void errors.push(error));
    for (const agent of this.#spawned.splice(0)) await attempt(() => agent[Symbol.asyncDispose]());
    await attempt(() => this.#scenes.leaveAll());
    for (const vmci of this.#opened.splice(0).reverse()) await attempt(() => vmci[Symbol.asyncDispose]());
    if (errors.length > 0) throw new AggregateError(errors, "leaving failed");
  }
}

/** What calls one test makes when nothing fails. */
export async function callsOfBody(body: Body, side: Side, client: FaultPlan): Promise<readonly string[]> {
  const { calls, error } = await perform(body, side, client, 0, 0);
  if (error !== undefined) throw error;
  return calls;
}

/** Every failure of one test, on one side. */
export function casesOfBody(name: string, side: Side, calls: readonly string[]): Case[] {
  return calls.flatMap((call, index) =>
    Array.from({ length: waysOf(call) }, (_, way) => ({ operation: name, side, nth: index + 1, way }))
  );
}

/** Has one call of a test fail, and looks what came of it. */
export async function runBody(body: Body, { side, nth, way }: Case, client: FaultPlan): Promise<Verdict> {
  const before = held();
  const { failed, error, stuck } = await perform(body, side, client, nth, way);
  const problems: string[] = [];
  if (stuck) problems.push("it hangs");
  if (error !== undefined) {
    problems.push(...unexplained(error, failed));
    if (failed === undefined) problems.push(`it failed although nothing was made to fail: ${text(error)}`);
  }
  closeSomething();
  const more = await settled(before);
  // A thread that has ended closes nothing later.
  if (side === "broker" && failed === "munmap ENOMEM") return { failed, passed: error === undefined, problems };
  if (more !== "") problems.push(`left open: ${more}`);
  return { failed, passed: error === undefined, problems };
}

/** What could not be given back is given back at the next closing of anything. */
function closeSomething(): void {
  const fd = createMemfd("vmci-test", 4096);
  mapReadOnly(fd, 4096).close();
  closeDescriptor(fd);
}

interface Performed {
  readonly calls: readonly string[];
  readonly failed: string | undefined;
  readonly error: unknown;
  /** Whether it did not even end when all had left. */
  readonly stuck: boolean;
}

async function perform(body: Body, side: Side, client: FaultPlan, nth: number, way: number): Promise<Performed> {
  const device = await makeRunDirectory();
  const broker = side === "broker" ? await FaultyBroker.start(device) : undefined;
  const plan = broker?.plan ?? client;
  const fabric = new FragileFabric(device);
  const errors: unknown[] = [];
  const keep = (error: unknown) => void errors.push(error);
  plan.arm(nth, way);
  const performance = body(fabric).catch(keep);
  let stuck = await outlasts(performance, PATIENCE.waiting);
  // What it waits for was lost with the call that failed. Who waits is told when everybody leaves.
  if (stuck) errors.push(new Error(WAITED));
  const leaving = fabric[Symbol.asyncDispose]().catch(keep);
  stuck = await outlasts(Promise.all([performance, leaving]), PATIENCE.closing);
  const { calls, failed } = plan;
  plan.disarm();
  await broker?.[Symbol.asyncDispose]();
  await Deno.remove(device, { recursive: true });
  return { calls, failed, stuck, error: errors.length > 1 ? new AggregateError(errors) : errors[0] };
}

/** Whether something is not over after so many milliseconds. */
async function outlasts(promise: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<boolean>((resolve) => timer = setTimeout(() => resolve(true), milliseconds));
  const over = await Promise.race([promise.then(() => false), late]);
  clearTimeout(timer!);
  return over;
}

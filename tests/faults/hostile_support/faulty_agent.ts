/**
 * The second party of a conformance test, whose calls of the C library can be made to fail.
 *
 * @module
 */

import { openWhatDenoOpens } from "../../support/deno_sockets.ts";
import { serveAgent } from "../../support/agent_serving.ts";
import { Scenes } from "../../support/scenes.ts";
import { type CallMade, FaultPlan } from "./faults.ts";
import { closeSomething, type Held, held, settled } from "./held.ts";

/** What it does beside, and what fails. */
export class FaultyScenes extends Scenes {
  readonly #plan = new FaultPlan();
  #before: Held | undefined;

  /** Has this process' calls follow the plan. */
  install(): void {
    this.#plan.install();
  }

  /** See {@linkcode FaultPlan.arm}; what fails is written to that file. */
  arm(nth: number, way: number, note: string): void {
    this.#plan.failing = (what) => Deno.writeTextFileSync(note, what);
    this.#plan.arm(nth, way);
  }

  /** See {@linkcode FaultPlan.disarm}. */
  disarm(): void {
    this.#plan.disarm();
  }

  /** See {@linkcode FaultPlan.calls}. */
  get calls(): CallMade[] {
    return this.#plan.calls;
  }

  /** Remembers what is held. */
  remember(): void {
    this.#before = held();
  }

  /** What is held now that was not when it was remembered. */
  async leftOpen(): Promise<string> {
    closeSomething();
    return await settled(this.#before!);
  }
}

if (import.meta.main) {
  openWhatDenoOpens();
  const scenes = new FaultyScenes();
  scenes.install();
  await serveAgent(scenes);
}

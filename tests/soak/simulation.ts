/** The simulation of `tests/simulation_test.ts`, for as long as there is time. */

import { Simulation } from "../support/simulation.ts";
import { Random } from "../support/simulation_random.ts";
import { type Figures, left, type SoakOptions, type SoakPiece } from "./piece.ts";

const STEPS = 20_000;

/** Lives one life after the other: the first one with the seed itself, so that one that failed is lived again at once. */
export const simulation: SoakPiece = {
  name: "simulation",
  share: 4,
  run(options: SoakOptions): Promise<Figures> {
    const seeds = new Random(options.seed);
    const sum: Record<string, number> = {};
    let seed = options.seed;
    let lives = 0;
    do {
      const figures = new Simulation(seed, { steps: STEPS, inspectEvery: 8 }).run();
      for (const [name, count] of Object.entries(figures)) sum[name] = (sum[name] ?? 0) + count;
      lives++;
      seed = seeds.uint32();
    } while (left(options) > 0);
    return Promise.resolve({
      cases: lives,
      "simulated steps": sum.steps!,
      "faults injected": sum.deaths! + sum.restarts!,
      "simulated broker deaths": sum.restarts!,
      "of them in the middle of a step": sum.crashes!,
      "simulated client deaths": sum.deaths!,
      "answers compared": sum.requests!,
      "notices compared": sum.notices!,
    });
  },
};

/**
 * The broker in random lives, beside a model of it. A life that fails names its seed; it is lived again with
 * `SEED=... deno task test tests/simulation_test.ts`.
 */

import { assertEquals } from "@std/assert";
import { Simulation } from "./support/simulation.ts";
import { Random } from "./support/simulation_random.ts";

const LIVES = 100;
const STEPS = 2_000;
/** As long as the lives of `deno task soak` are. */
const LONG = 20_000;

const given = Deno.env.get("SEED");

Deno.test("simulation: through deaths, takeovers and new policies a broker answers and tells what its model does", () => {
  const seeds = given === undefined ? Array.from({ length: LIVES }, (_, i) => i + 1) : [Number(given)];
  const steps = given === undefined ? STEPS : LONG;
  for (const seed of seeds) new Simulation(seed, { steps, inspectEvery: 8 }).run();
});

Deno.test("simulation: the same seed lives the same life", () => {
  for (let seed = 1; seed <= LIVES; seed++) {
    const life = () => new Simulation(seed, { steps: 250, inspectEvery: 100 }).run();
    assertEquals(life(), life(), `seed ${seed}`);
  }
});

Deno.test("simulation: seeds differ, and their numbers are spread", () => {
  const of = (seed: number) =>
    Array.from({ length: 8 }, function (this: Random) {
      return this.uint32();
    }, new Random(seed));
  assertEquals(of(1), of(1));
  assertEquals(of(1).filter((number) => of(2).includes(number)), []);
  const counts = new Uint32Array(8);
  const random = new Random(3);
  for (let i = 0; i < 80_000; i++) counts[random.below(8)]!++;
  for (const count of counts) assertEquals(Math.abs(count - 10_000) < 1_000, true, `${counts}`);
});

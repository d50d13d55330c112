/** Processes die, or are stopped, at every step of what they do; see death_matrix.ts. */

import "../ffi/support.ts";
import { deathMatrix } from "./death_matrix.ts";

Deno.test("death: survivors of 100 blows are told, lose nothing of their own and keep nothing of the dead", async () => {
  console.log(await deathMatrix({ seed: 1, cases: 100 }));
});

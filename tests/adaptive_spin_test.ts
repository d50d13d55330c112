import { assertEquals } from "@std/assert";
import { AdaptiveSpin } from "../src/lane/adaptive_spin.ts";

/** How many of so many waits look at all, when what they wait for never comes. */
function lookers(spin: AdaptiveSpin, waits: number): number {
  let looked = 0;
  for (let i = 0; i < waits; i++) {
    let looks = 0;
    spin.spin(() => void looks++, 0.001);
    if (looks > 0) looked++;
  }
  return looked;
}

Deno.test("adaptive spin: as long as it pays, every wait spins", () => {
  const spin = new AdaptiveSpin();
  for (let i = 0; i < 100; i++) {
    let looks = 0;
    assertEquals(spin.spin(() => ++looks === 3 ? "found" : undefined, 1000), "found");
    assertEquals(looks, 3);
  }
});

Deno.test("adaptive spin: what is in vain is done ever more seldom", () => {
  const spin = new AdaptiveSpin();
  // A spin, one wait without; a spin, three without; ...; then one in 64.
  assertEquals(lookers(spin, 2 + 4 + 8 + 16 + 32 + 64), 6);
  assertEquals(lookers(spin, 640), 10);
});

Deno.test("adaptive spin: one that pays makes the next ones spin again", () => {
  const spin = new AdaptiveSpin();
  lookers(spin, 2 + 4 + 8 + 16 + 32 + 64);
  assertEquals(spin.pays, true);
  assertEquals(spin.spin(() => 1, 1), 1);
  assertEquals(lookers(spin, 2 + 4), 2);
});

Deno.test("adaptive spin: none at all without a time", () => {
  assertEquals(new AdaptiveSpin().spin(() => 1, 0), undefined);
});

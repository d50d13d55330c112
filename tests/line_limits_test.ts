/** How many lines of a log others may cause. */

import { assertEquals } from "@std/assert";
import { LineLimits } from "../src/fabric/local/line_limits.ts";

/** How many of so many lines of a kind may be written. */
function written(limits: LineLimits, kind: string, lines: number, now: number): number {
  return Array.from({ length: lines }, () => limits.allows(kind, now)).filter((it) => it).length;
}

Deno.test("line limits: a thousand of a kind at once, then one a second; the others are counted", () => {
  const limits = new LineLimits();
  assertEquals(written(limits, "a", 1500, 0), 1000);
  assertEquals([...limits.takeOmitted(500)], []);
  assertEquals(written(limits, "a", 2, 999), 0);
  // Another kind is not held up by that.
  assertEquals(written(limits, "b", 1001, 999), 1000);
  assertEquals([...limits.takeOmitted(1000)], [{ kind: "a", lines: 502 }]);
  assertEquals(written(limits, "a", 20, 11_000), 10);
  assertEquals([...limits.takeOmitted()].toSorted((x, y) => x.lines - y.lines), [
    { kind: "b", lines: 1 },
    { kind: "a", lines: 10 },
  ]);
  assertEquals([...limits.takeOmitted()], []);
});

Deno.test("line limits: kinds that nobody needs to know are forgotten, others are not", () => {
  const limits = new LineLimits();
  assertEquals(written(limits, "flood", 1200, 0), 1000);
  for (let i = 0; i < 5000; i++) assertEquals(limits.allows(`${i}`, 2000 + i), true);
  assertEquals(written(limits, "flood", 20, 7000), 7);
});

/** The benchmarks: what they compute, compare and draw; and a run of a few rows with real processes. */

import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { type Bar, bars } from "../bench/bars.ts";
import { compare } from "../bench/compare.ts";
import { bench } from "../bench/main.ts";
import { type Measures, type Probe, type Result, type Row, type Run, Unavailable } from "../bench/model.ts";
import { plot } from "../bench/plot.ts";
import { probesOf } from "../bench/probes/all.ts";
import { World } from "../bench/bench_world.ts";
import { barTable, comparison, table } from "../bench/report.ts";
import { choose, ratioOf, runRounds } from "../bench/run.ts";
import {
  bucketOf,
  BUCKETS_PER_OCTAVE,
  formatTime,
  median,
  quantile,
  sampleAsync,
  sampleSync,
  summarize,
  threeFigures,
} from "../src/cli/bench_measure.ts";

import { OwnDirectory, run } from "./support/program.ts";

const NO_PATIENCE = { patience: 0, note: () => {} };

// --- Statistics -----------------------------------------------------------------------------------------------------

Deno.test("bench: a quantile is a value of the list, and none of an empty one", () => {
  const sorted = Array.from({ length: 1000 }, (_, i) => i + 1);
  assertEquals([0, 0.001, 0.5, 0.99, 0.999, 1].map((part) => quantile(sorted, part)), [1, 1, 500, 990, 999, 1000]);
  assertEquals(quantile([7], 0.999), 7);
  assertEquals(quantile([], 0.5), NaN);
  assertEquals(median([9, 1, 5]), 5);
  assertEquals(median([4, 1, 3, 2]), 2);
});

Deno.test("bench: a summary counts every sample in its bucket, and does not need them in order", () => {
  const summary = summarize([1000, 10, 100, 10]);
  assertEquals([summary.count, summary.p50, summary.p99, summary.p999], [4, 10, 1000, 1000]);
  assertEquals(summary.histogram, { [bucketOf(10)]: 2, [bucketOf(100)]: 1, [bucketOf(1000)]: 1 });
});

Deno.test("bench: a doubling has as many buckets everywhere", () => {
  assertEquals(bucketOf(1), 0);
  for (const value of [2, 64, 1024, 2 ** 30]) assertEquals(bucketOf(2 * value) - bucketOf(value), BUCKETS_PER_OCTAVE);
});

Deno.test("bench: a sample is the mean of its batch, and what comes before does not count", async () => {
  let calls = 0;
  const samples = sampleSync(() => calls++, { warmup: 2, duration: 2, batch: 10 });
  assertEquals(calls % 10, 0);
  assert(samples.length >= 1 && samples.length < calls / 10, `${samples.length} samples of ${calls} calls`);
  const order: string[] = [];
  const once = () => Promise.resolve(order.push("once"));
  await sampleAsync(once, { warmup: 0, duration: 0, batch: 2 }, () => Promise.resolve(order.push("before")));
  assertEquals(order.slice(0, 3), ["before", "once", "once"]);
});

Deno.test("bench: figures have three digits and a unit", () => {
  assertEquals([0.5, 73.25, 999.4, 999.6, 12_345, 999_600, 2e7].map(formatTime), [
    "0.50 ns",
    "73.3 ns",
    "999 ns",
    "1.00 us",
    "12.3 us",
    "1.00 ms",
    "20.0 ms",
  ]);
  assertEquals([9.994, 9.996, 99.96, NaN].map(threeFigures), ["9.99", "10.0", "100", "-"]);
});

// --- Rounds ---------------------------------------------------------------------------------------------------------

/** A probe that gives the next of the figures in each round; an error is thrown. */
function scripted(row: Row, figures: readonly (number | Error)[], once = false): Probe {
  let round = 0;
  return {
    rows: [row],
    once,
    measure(): Promise<Measures> {
      const figure = figures[round++];
      if (figure === undefined) throw new Error("measured too often");
      return figure instanceof Error ? Promise.reject(figure) : Promise.resolve({ [row.id]: { value: figure } });
    },
  };
}

const OURS: Row = { id: "rtt/ours", title: "ours", unit: "time", baseline: "rtt/theirs" };
const THEIRS: Row = { id: "rtt/theirs", title: "theirs", unit: "time" };

Deno.test("bench: a ratio is taken within each round, not between the medians", async () => {
  // The machine was ten times as slow in the second round.
  const probes = [scripted(OURS, [20, 200, 30]), scripted(THEIRS, [10, 100, 10])];
  const { rows } = await runRounds(probes, { rounds: 3, ...NO_PATIENCE });
  assertEquals([rows[0]!.value, rows[0]!.ratio, rows[0]!.rounds], [30, 2, [20, 200, 30]]);
  assertEquals([rows[1]!.value, rows[1]!.ratio], [10, undefined]);
  assertEquals(ratioOf(rows, "rtt/theirs", "rtt/ours"), 0.5);
  assertEquals(ratioOf(rows, "rtt/theirs", "rtt/nothing"), undefined);
});

Deno.test("bench: what is not there is said and not asked again, and a round that fails costs no other", async () => {
  const missing: Row = { id: "rtt/missing", title: "missing", unit: "time" };
  const probes = [
    scripted(OURS, [10, new Error("died\nat a line"), 30]),
    scripted(THEIRS, [10], true),
    scripted(missing, [new Unavailable("no compiler")]),
  ];
  const { rows } = await runRounds(probes, { rounds: 3, ...NO_PATIENCE });
  assertEquals(rows.map(({ value }) => value), [10, 10, undefined]);
  assertEquals(rows[0]!.rounds, [10, null, 30]);
  assertEquals(rows[0]!.ratio, 1, "the baseline was measured in the first round only");
  assertEquals(rows[2]!.unavailable, "no compiler");
  const failing = await runRounds([scripted(OURS, [new Error("died\nat a line")])], { rounds: 1, ...NO_PATIENCE });
  assertEquals(failing.rows[0]!.unavailable, "it failed: died");
  assertStringIncludes(table(rows), "(no compiler)");
});

Deno.test("bench: who asks for a row gets its baseline too", () => {
  const [ours, theirs] = [scripted(OURS, []), scripted(THEIRS, [])];
  const other = scripted({ id: "flow/other", title: "other", unit: "rate" }, []);
  assertEquals(choose([theirs, ours, other], ["rtt/o"]), [theirs, ours]);
  assertEquals(choose([theirs, ours, other], []), [theirs, ours, other]);
  assertEquals(choose([theirs, ours, other], ["nothing"]), []);
});

Deno.test("bench: every row has a name of its own, and a baseline that exists", async () => {
  await using world = new World({ quick: true, pin: false, first: false, note: () => {} });
  const rows = probesOf(world).flatMap((probe) => probe.rows);
  const names = new Set(rows.map(({ id }) => id));
  assertEquals(names.size, rows.length);
  assertEquals(rows.filter(({ baseline }) => baseline !== undefined && !names.has(baseline)), []);
});

// --- Bars and comparison --------------------------------------------------------------------------------------------

function result(id: string, value: number, more: Partial<Result> = {}): Result {
  return { id, title: id, unit: "time", value, rounds: [value], ...more };
}

function barOf(all: readonly Bar[], what: string): Bar {
  const found = all.find((bar) => bar.what.includes(what));
  assert(found !== undefined, what);
  return found;
}

Deno.test("bench: a bar is met, not met, or not measured", () => {
  const measured = (ours: number) => bars([result("rtt/c-shm", 100), result("rtt/dg-spin", ours)]);
  assertEquals(barOf(measured(400), "at most 4x C's"), {
    what: "round trip, spinning: at most 4x C's",
    met: true,
    figure: "4.00x",
  });
  assertEquals(barOf(measured(401), "at most 4x C's").met, false);
  assertEquals(barOf(measured(400), "64 KiB").met, undefined);
  const text = barTable(measured(401));
  for (const word of ["NOT MET", "not measured"]) assertStringIncludes(text, word);
});

Deno.test("bench: every bar is held against rows that exist", async () => {
  await using world = new World({ quick: true, pin: false, first: false, note: () => {} });
  const rows = probesOf(world).flatMap((probe) => probe.rows).map((row): Result => ({ ...row, value: 1, rounds: [1] }));
  assertEquals(bars(rows).filter(({ met }) => met === undefined), []);
});

function runOf(rows: readonly Result[], cpu = "a"): Run {
  const machine = { date: "2026-11-23T00:00:00Z", cpu, cores: 2, kernel: "", deno: "", v8: "", compiler: null };
  return { machine, rounds: 1, quick: false, disturbed: 0, rows };
}

Deno.test("bench: only what got worse by more than a quarter is said, whichever way is worse", () => {
  const before = runOf([
    result("rtt/a", 100, { ratio: 2 }),
    result("flow/b", 100, { unit: "rate", ratio: 0.5 }),
    result("rtt/c", 100),
    result("alloc/d", 0, { unit: "bytes" }),
    result("rtt/c-shm", 100),
  ]);
  const now = runOf([
    result("rtt/a", 500, { ratio: 2.4 }),
    result("flow/b", 100, { unit: "rate", ratio: 0.25 }),
    result("rtt/c", 130),
    result("alloc/d", 8, { unit: "bytes" }),
    result("rtt/c-shm", 1000),
    result("rtt/new", 1),
  ]);
  const worse = compare(before, now);
  assertEquals(worse.map(({ id, ratio }) => [id, ratio]), [["alloc/d", false], ["flow/b", true], ["rtt/c", false]]);
  assertEquals(worse[1]!.by, 1);
  assertAlmostEquals(worse[2]!.by, 0.3);
  assertStringIncludes(comparison(worse, "2026-11-23"), "flow/b");
  assertEquals(compare(before, before), []);
  assertStringIncludes(comparison([], "2026-11-23"), "Nothing got worse");
});

Deno.test("bench: figures without a baseline are not compared between machines", () => {
  const [before, now] = [runOf([result("rtt/c", 100)], "a"), runOf([result("rtt/c", 1000)], "b")];
  assertEquals(compare(before, now), []);
});

// --- The plot -------------------------------------------------------------------------------------------------------

Deno.test("bench: the plot has a line for each row, and no text that would break it", () => {
  const histogram = summarize([100, 100, 200, 1_000_000]).histogram;
  const flow = [8, 64, 65536].map((size) => result(`flow/dg/${size}`, 1e6, { unit: "rate" }));
  const svg = plot(runOf([result("rtt/a", 100, { title: "a < b & c", histogram }), ...flow], "A & B"));
  assert(svg.startsWith("<svg ") && svg.endsWith("</svg>\n"));
  assertStringIncludes(svg, "a &lt; b &amp; c");
  assertEquals(svg.match(/stroke-width="1.5"/g)?.length, 2);
  assert(!/NaN|undefined|Infinity/.test(svg), svg);
  assertEquals(svg.match(/<g /g)?.length, svg.match(/<\/g>/g)?.length);
});

Deno.test("bench: a run with nothing to draw is drawn empty", () => {
  assert(!/NaN|undefined|Infinity/.test(plot(runOf([result("control/lookup", 1)]))));
});

// --- Real processes -------------------------------------------------------------------------------------------------

Deno.test("bench: a quick run of a few rows measures each of them", async () => {
  const wanted = ["rtt/dg-block", "rtt/deno-unix", "region/copy", "control/lookup", "flow/dg"];
  const { rows } = await bench({
    rows: wanted,
    rounds: 1,
    quick: true,
    pin: false,
    first: false,
    patience: 0,
    note: () => {},
  });
  // What is compared with C is there without a compiler too.
  const failed = rows.filter(({ unavailable }) => unavailable !== undefined && !/compiler/.test(unavailable));
  assertEquals(failed, []);
  const measured = new Map(rows.map((row) => [row.id, row]));
  for (const id of ["rtt/dg-block", "control/lookup", "flow/dg/65536", "region/copy-out/67108864"]) {
    assert(measured.get(id)!.value! > 0, id);
  }
  assert(Object.keys(measured.get("rtt/dg-block")!.histogram!).length > 0);
  assert(measured.get("control/lookup")!.ratio! > 0);
});

Deno.test("bench: vmci bench needs --allow-ffi, and --allow-run for what goes between two processes", async () => {
  await using directory = await OwnDirectory.make();
  const args = ["bench", "--rounds", "1", "--json", "--device", directory.path];
  const alone = await run("cli.ts", args);
  assertEquals([alone.code, alone.stderr], [0, ""]);
  const both = await run("cli.ts", args, { permissions: ["--allow-ffi", "--allow-run"] });
  assertEquals([both.code, both.stderr], [0, ""]);
  const names = ({ stdout }: { stdout: string }) =>
    (JSON.parse(stdout) as { figures: { what: string }[] }).figures.map(({ what }) => what);
  const between = names(both).filter((it) => !names(alone).includes(it));
  assertEquals(between.length, 5, `${between}`);
  assert(between.every((it) => it.startsWith("datagram")), `${between}`);
});

Deno.test("bench: vmci bench says in words what it did not measure, and refuses nonsense", async () => {
  await using directory = await OwnDirectory.make();
  const { code, stdout } = await run("cli.ts", ["bench", "--rounds", "1", "--device", directory.path]);
  assertEquals(code, 0);
  for (const text of ["postMessage", "discovery.lookup()", "needs --allow-run"]) assertStringIncludes(stdout, text);
  assertEquals((await run("cli.ts", ["bench", "--rounds", "0"])).code, 2);
  assertEquals((await run("cli.ts", ["bench", "more"])).code, 2);
});

/**
 * Branch coverage of the fabric and the lanes.
 *
 *     deno task coverage [--missing] [--least PERCENT] [TEST...]
 *
 * The tests that reach them from within one process are run once more with coverage, or those that are named. Nothing is
 * told of child processes, nor of a thread that is started from a text: so the broker's thread runs from its sources
 * here, which `coverage/broker_host.ts` sees to.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { pathToFileURL } from "node:url";
import { ROOT, sourceFiles } from "./deno.ts";

/** What is measured. */
const PARTS = ["src/fabric", "src/lane"];
/** Made by a tool, or without anything that runs. */
const WITHOUT_BRANCHES = ["src/fabric/local/broker_thread_source.ts", "src/fabric/local/broker_host.ts"];
/** The tests that reach it without other processes, and those of processes whose parent has the broker. */
const TESTS = [
  "tests/broker_access_test.ts",
  "tests/broker_property_test.ts",
  "tests/broker_recovery_test.ts",
  "tests/broker_test.ts",
  "tests/conformance_fabric_test.ts",
  "tests/conformance_memory_test.ts",
  "tests/fabric_test.ts",
  "tests/local_medium_test.ts",
  "tests/local_server_faults_test.ts",
  "tests/local_server_test.ts",
  "tests/memory_medium_test.ts",
  "tests/name_table_test.ts",
  "tests/notice_queue_test.ts",
  "tests/policy_test.ts",
  "tests/ring_test.ts",
  "tests/run_directory_test.ts",
  "tests/served_socket_test.ts",
  "tests/session_test.ts",
  "tests/simulation_test.ts",
  "tests/system_failure_test.ts",
  "tests/vocabulary_test.ts",
  "tests/waiting_test.ts",
];

/** One branch: where it is, and how often it was taken. */
interface Branch {
  readonly line: number;
  readonly taken: number;
}

/** The branches of each file in a report in lcov's format. */
export function branches(lcov: string): Map<string, Branch[]> {
  const found = new Map<string, Branch[]>();
  let file: Branch[] = [];
  for (const line of lcov.split("\n")) {
    if (line.startsWith("SF:")) found.set(line.slice(3).replace(ROOT, ""), file = []);
    else if (line.startsWith("BRDA:")) {
      const [at, , , taken] = line.slice(5).split(",");
      file.push({ line: Number(at), taken: taken === "-" ? 0 : Number(taken) });
    }
  }
  return found;
}

/** The share of branches that were taken, in percent. */
export function percent(all: readonly Branch[]): number {
  return all.length === 0 ? 100 : all.filter(({ taken }) => taken > 0).length / all.length * 100;
}

/** Runs tests with coverage; whether they passed. */
async function runTests(tests: readonly string[], directory: string): Promise<boolean> {
  const { imports } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`)) as { imports: Record<string, string> };
  const address = (file: string) => pathToFileURL(ROOT + file).href;
  const map = {
    imports: {
      ...imports,
      [address("src/fabric/local/broker_host.ts")]: address("tests/tools/coverage/broker_host.ts"),
    },
  };
  await Deno.writeTextFile(`${directory}/imports.json`, JSON.stringify(map));
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--allow-all",
      "--no-check",
      "--quiet",
      "--reporter=dot",
      "--v8-flags=--expose-gc",
      `--import-map=${directory}/imports.json`,
      `--coverage=${directory}/profiles`,
      "--coverage-raw-data-only",
      // Of what a second process does coverage tells nothing.
      "--filter=/^([^f]|f[^a]|fabric:|fabric, o)/",
      ...tests,
    ],
    cwd: ROOT,
    stdin: "null",
  }).spawn();
  return (await child.status).success;
}

/** The report of what was run. */
async function report(directory: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["coverage", "--lcov", "--include=/src/(fabric|lane)/", `${directory}/profiles`],
    cwd: ROOT,
  }).output();
  if (!success) throw new Error(`Cannot read the coverage: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Runs the tests, prints what they reach, and gives the exit code. */
async function coverage(args: readonly string[]): Promise<number> {
  const { missing, least, _: named } = parseArgs([...args], {
    boolean: ["missing"],
    string: ["least"],
    default: { least: "0" },
  });
  const exists = (file: string) => Deno.stat(ROOT + file).then(() => true, () => false);
  const tests = named.length > 0
    ? named.map(String)
    : (await Array.fromAsync(TESTS, async (file) => await exists(file) ? [file] : [])).flat();
  const directory = await Deno.makeTempDir({ prefix: "vmci-coverage-" });
  try {
    const passed = await runTests(tests, directory);
    const found = branches(await report(directory));
    for (const file of WITHOUT_BRANCHES) found.delete(file);
    if (missing) {
      for (const [file, all] of [...found].sort(([a], [b]) => a < b ? -1 : 1)) {
        const lines = new Set(all.filter(({ taken }) => taken === 0).map(({ line }) => line));
        for (const line of lines) console.log(`${file}:${line}`);
      }
      for (const file of await sourceFiles(...PARTS)) {
        if (!found.has(file) && !WITHOUT_BRANCHES.includes(file)) {
          console.log(`${file}: not loaded, or nothing in it runs`);
        }
      }
    }
    const figures = PARTS.map((part) => {
      const all = [...found].filter(([file]) => file.startsWith(`${part}/`)).flatMap(([, branches]) => branches);
      return { part, percent: percent(all) };
    });
    console.log(`branch coverage: ${figures.map((it) => `${it.part} ${it.percent.toFixed(1)} %`).join(", ")}`);
    return passed && figures.every((it) => it.percent >= Number(least)) ? 0 : 1;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

if (import.meta.main) Deno.exit(await coverage(Deno.args));

/**
 * Round trips of 64 bytes: a steady exchange, and one in which both parties sleep before each message.
 *
 * @module
 */

import { summarize, type Summary } from "../../src/cli/bench_measure.ts";
import { type JobChanges, output, type World } from "../bench_world.ts";
import { type Measure, type Measures, type Probe, Unavailable } from "../model.ts";
import { PartyProcess } from "../party_process.ts";

/** Messages in one sample where a message is short beside the clock. */
const BATCH = 16;
/** Milliseconds in which both parties go to sleep. */
const IDLE = 2;

/** Our variants. `spin` in microseconds. */
const OURS: readonly { id: string; title: string; variant: string; spin?: number; batch: number }[] = [
  { id: "dg-spin", title: "datagrams: receiveIntoSync(), spinning", variant: "sync", spin: 1000, batch: BATCH },
  { id: "dg-try", title: "datagrams: tryReceiveInto() in a loop", variant: "try", batch: BATCH },
  { id: "dg-await", title: "datagrams: await receive()", variant: "await", batch: BATCH },
  { id: "dg-await-into", title: "datagrams: await receiveInto()", variant: "await-into", batch: BATCH },
  { id: "dg-block", title: "datagrams: receiveIntoSync(), blocking at once", variant: "sync", spin: 0, batch: 1 },
];

/** All of them. */
export function roundTrips(world: World): Probe[] {
  const c = (id: string, title: string, ...args: (string | number)[]): Probe => ({
    rows: [{ id, title, unit: "time", ...(id === "rtt/c-shm" ? {} : { baseline: baselineOf(id) }) }],
    measure: async () => ({ [id]: measureOf(summarize(await world.native(...args))) }),
  });
  const ms = world.quick ? 60 : 400;
  return [
    c("rtt/c-shm", "C: shared memory, spinning", "spin", ms, BATCH, 64),
    ...OURS.map(({ id, title, variant, spin, batch }) =>
      exchange(world, `rtt/${id}`, title, "datagrams", { variant, spin, batch })
    ),
    exchange(world, "rtt/region-word", "regions: a word each way, Atomics", "regions", { batch: BATCH }, [
      "wordEcho",
      "wordRoundTrips",
    ]),
    exchange(world, "rtt/deno-unix", "Deno: Unix socket", "sockets", { variant: "unix" }),
    exchange(world, "rtt/deno-tcp", "Deno: TCP socket", "sockets", { variant: "tcp" }),
    exchange(world, "rtt/deno-udp", "Deno: UDP socket", "sockets", {}, ["udpEcho", "udpRoundTrips"], [
      "--unstable-net",
    ]),
    alone(world, "rtt/worker", "Deno: Worker, postMessage", {}),
    zeromq(world),
    nodeZeromq(world),
    c("rtt/c-unix", "C: Unix socket", "unix", ms, 1, 64, 0),

    exchange(world, "idle-rtt/dg-await", "datagrams: await receive(), parked", "datagrams", {
      variant: "await",
      idle: IDLE,
    }),
    exchange(world, "idle-rtt/dg-block", "datagrams: receiveIntoSync(), parked", "datagrams", {
      variant: "sync",
      idle: IDLE,
    }),
    exchange(world, "idle-rtt/deno-unix", "Deno: Unix socket", "sockets", { variant: "unix", idle: IDLE }),
    alone(world, "idle-rtt/worker", "Deno: Worker, postMessage", { idle: IDLE }),
    c("idle-rtt/c-unix", "C: Unix socket", "unix", ms, 1, 64, IDLE),
  ];
}

function baselineOf(id: string): string {
  return id.startsWith("idle-rtt/") ? "idle-rtt/deno-unix" : "rtt/c-shm";
}

/** A row's figure from samples. */
export function measureOf({ p50, p99, p999, histogram }: Summary): Measure {
  return { value: p50, p99, p999, histogram };
}

/** Two processes, one of which answers. */
function exchange(
  world: World,
  id: string,
  title: string,
  file: string,
  changes: JobChanges,
  [server, client]: readonly [string, string] = ["echo", "roundTrips"],
  unstable: readonly string[] = [],
): Probe {
  const flags = ["--allow-all", ...unstable];
  return {
    rows: [{ id, title, unit: "time", ...(id === baselineOf(id) ? {} : { baseline: baselineOf(id) }) }],
    measure: () => between(world, id, file, [server, client], changes, flags),
  };
}

async function between(
  world: World,
  id: string,
  file: string,
  [server, client]: readonly [string, string],
  changes: JobChanges,
  flags: readonly string[],
): Promise<Measures> {
  await using directory = await world.directory();
  const job = world.job(directory.path, changes);
  await using answering = world.part(file, server, job, 0, flags);
  const ready = await answering.ready();
  await using asking = world.part(file, client, { ...job, ready }, 1, flags);
  return { [id]: measureOf(await asking.line() as Summary) };
}

/** One process that has both parties. */
function alone(world: World, id: string, title: string, changes: JobChanges): Probe {
  return {
    rows: [{ id, title, unit: "time", baseline: baselineOf(id) }],
    async measure() {
      await using directory = await world.directory();
      await using party = world.part("sockets", "workerRoundTrips", world.job(directory.path, changes));
      return { [id]: measureOf(await party.line() as Summary) };
    },
  };
}

function zeromq(world: World): Probe {
  const id = "rtt/zeromq";
  return {
    rows: [{ id, title: "ZeroMQ: ipc, libzmq by FFI", unit: "time", baseline: "rtt/c-shm" }],
    async measure() {
      const { library } = await world.zeromq();
      return await between(world, id, "zeromq", ["echo", "roundTrips"], { variant: library }, ["--allow-all"]);
    },
  };
}

function nodeZeromq(world: World): Probe {
  const id = "rtt/zeromq-node";
  const program = new URL("../node_zeromq.mjs", import.meta.url).pathname;
  return {
    rows: [{ id, title: "ZeroMQ: ipc, npm's zeromq under Node", unit: "time", baseline: "rtt/c-shm" }],
    async measure() {
      if (await output("node", ["--version"]) === undefined) throw new Unavailable("there is no Node");
      const { module } = await world.zeromq();
      await using directory = await world.directory();
      const job = JSON.stringify(world.job(directory.path));
      const entry = `${module}/lib/index.js`;
      await using answering = new PartyProcess(["node", program, entry, "echo", job], world.at(0));
      await answering.line();
      await using asking = new PartyProcess(["node", program, entry, "roundTrips", job], world.at(1));
      return { [id]: measureOf(summarize(await asking.line() as number[])) };
    },
  };
}

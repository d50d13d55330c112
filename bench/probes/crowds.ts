/**
 * What is no time: allocation, memory, fairness, and what an idle fabric does.
 *
 * @module
 */

import type { World } from "../bench_world.ts";
import type { Measures, Probe, Row } from "../model.ts";
import { readProcess } from "../processes.ts";

/** Senders at one receiver. */
const SENDERS = 64;
/** Receivers that are parked. */
const PARKED = 100;
/** Milliseconds that an idle process is watched. */
const WATCH = 2000;

/** Bytes of an object's paths; the names are those of `parts/allocation.ts`. */
const PATHS: Readonly<Record<string, string>> = {
  "nothing": "an empty function, for comparison",
  "hasRoom": "hasRoom()",
  "sendTo + tryReceiveInto": "sendTo() and tryReceiveInto(), own buffer",
  "sendTo + receiveIntoSync": "sendTo() and receiveIntoSync(), own buffer",
  "tryReceiveInto, none there": "tryReceiveInto() that finds nothing",
  "sendTo + tryReceive": "sendTo() and tryReceive(), a fresh buffer",
  "record.readInto": "record.readInto(), 128 B",
  "record.publish": "record.publish(), 64 B",
  "word.load": "word.load()",
  "word.store": "word.store()",
};

/** Things that the broker keeps, and how many of them are made. */
const KINDS: readonly { id: string; title: string; variant: string; count: number; size: number }[] = [
  { id: "handle", title: "a datagram handle", variant: "handle", count: 10_000, size: 0 },
  { id: "name", title: "a name", variant: "name", count: 10_000, size: 0 },
  { id: "privilege", title: "a privilege entry", variant: "privilege", count: 10_000, size: 0 },
  { id: "attachment", title: "an attachment, 4 KiB", variant: "attachment", count: 2_000, size: 0 },
  { id: "lane", title: "a lane with its handle, 64 B sent", variant: "lane", count: 400, size: 64 },
  { id: "lane-used", title: "a lane with its handle, 64 KiB sent", variant: "lane", count: 400, size: 65536 },
];

/** All of them. */
export function crowds(world: World): Probe[] {
  return [allocation(world), idle(world), fairness(world), ...KINDS.map((kind) => memory(world, kind))];
}

function allocation(world: World): Probe {
  return {
    once: true,
    rows: [
      ...Object.entries(PATHS).map(([path, title]): Row => ({ id: allocationId(path), title, unit: "bytes" })),
      { id: "alloc/round-trip", title: "a round trip: sendTo() and receiveIntoSync(), spinning", unit: "bytes" },
    ],
    async measure() {
      await using directory = await world.directory();
      const job = world.job(directory.path, { count: world.quick ? 100_000 : 1_000_000 });
      // Nothing may be collected while it counts.
      const flags = ["--allow-all", "--v8-flags=--expose-gc,--min-semi-space-size=1024,--max-semi-space-size=1024"];
      await using party = world.part("allocation", "paths", job, undefined, flags);
      const bytes = await party.line() as Record<string, number>;
      const roundTrip = await allocatedByRoundTrips(world, flags);
      return Object.fromEntries(
        [...Object.entries(bytes), ["round-trip", roundTrip] as const]
          .map(([path, value]) => [allocationId(path), { value: Math.round(value) }]),
      );
    },
  };
}

async function allocatedByRoundTrips(world: World, flags: readonly string[]): Promise<number> {
  await using directory = await world.directory();
  const job = world.job(directory.path, { variant: "sync", spin: 1000, count: world.quick ? 20_000 : 1_000_000 });
  await using answering = world.part("datagrams", "echo", job, 0);
  const ready = await answering.ready();
  await using asking = world.part("allocation", "roundTrips", { ...job, ready }, 1, flags);
  return await asking.line() as number;
}

function allocationId(path: string): string {
  return `alloc/${path.replaceAll(/[ ,+.]+/g, "-")}`;
}

function idle(world: World): Probe {
  const rows: Row[] = [
    { id: "idle/nothing", title: "a Deno that waits for a timer: wake-ups a second", unit: "count" },
    { id: "idle/parked", title: `${PARKED} parked receivers and the broker: wake-ups a second`, unit: "count" },
    { id: "idle/threads", title: `threads held, with ${PARKED} parked receivers`, unit: "count" },
  ];
  return {
    once: true,
    rows,
    async measure() {
      await using directory = await world.directory();
      await using nothing = world.part("crowds", "waiter", world.job(directory.path));
      await using holder = world.part("crowds", "broker", world.job(directory.path));
      await holder.ready();
      const brokerAlone = await settled(holder.pid);
      await using parked = world.part("crowds", "parked", world.job(directory.path, { count: PARKED }));
      await Promise.all([parked.ready(), nothing.ready()]);
      await settled(parked.pid);
      const pids = [nothing.pid, holder.pid, parked.pid];
      const before = await Promise.all(pids.map(readProcess));
      await new Promise((resolve) => setTimeout(resolve, WATCH));
      const after = await Promise.all(pids.map(readProcess));
      const [alone, brokers, receivers] = after.map((it, i) => (it.wakeUps - before[i]!.wakeUps) / (WATCH / 1000));
      return {
        "idle/nothing": { value: alone! },
        "idle/parked": { value: brokers! + receivers! },
        // The receivers' own process has no broker's thread.
        "idle/threads": { value: after[2]!.held - after[0]!.held + (after[1]!.held - brokerAlone.held) },
      };
    },
  };
}

/** Waits until a process has done what it does at its start, such as compiling in the background. */
async function settled(pid: number): ReturnType<typeof readProcess> {
  for (let turn = 0, last = await readProcess(pid); turn < 20; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const next = await readProcess(pid);
    if (next.wakeUps - last.wakeUps < 5) return next;
    last = next;
  }
  return await readProcess(pid);
}

function fairness(world: World): Probe {
  return {
    rows: [
      { id: "fair/1-sender", title: "one receiver, 1 sender, 64 B", unit: "rate" },
      {
        id: `fair/${SENDERS}-senders`,
        title: `one receiver, ${SENDERS} senders, 64 B`,
        unit: "rate",
        baseline: "fair/1-sender",
      },
      { id: "fair/most", title: `most that one of ${SENDERS} had, of an equal share`, unit: "count" },
      { id: "fair/least", title: `least that one of ${SENDERS} had, of an equal share`, unit: "count" },
    ],
    async measure() {
      const one = await share(world, 1);
      const many = await share(world, SENDERS);
      return {
        "fair/1-sender": { value: one.rate },
        [`fair/${SENDERS}-senders`]: { value: many.rate },
        "fair/most": { value: many.most },
        // A sender that nobody heard is not counted by the receiver.
        "fair/least": { value: many.sources < SENDERS ? 0 : many.least },
      };
    },
  };
}

async function share(
  world: World,
  count: number,
): Promise<{ readonly rate: number; readonly sources: number; readonly least: number; readonly most: number }> {
  await using directory = await world.directory();
  const job = world.job(directory.path, { count, spin: 1000 });
  await using receiver = world.part("crowds", "shares", job, 0);
  const ready = await receiver.ready();
  await using _senders = world.part("crowds", "many", { ...job, ready }, 1);
  return await receiver.line() as Awaited<ReturnType<typeof share>>;
}

/** What one more of a kind takes in the broker's process, and in its owner's. */
function memory(world: World, { id, title, variant, count, size }: typeof KINDS[number]): Probe {
  const rows: Row[] = [
    { id: `memory/${id}/broker`, title: `${title}: in the broker`, unit: "bytes" },
    { id: `memory/${id}/owner`, title: `${title}: in its owner`, unit: "bytes" },
    ...(variant === "lane"
      ? [{ id: `memory/${id}/pages`, title: `${title}: shared pages`, unit: "bytes" } as const]
      : []),
  ];
  const number = world.quick ? count / 10 : count;
  return {
    once: true,
    rows,
    async measure() {
      await using directory = await world.directory();
      await using broker = world.part("crowds", "broker", world.job(directory.path));
      const job = world.job(directory.path, { variant, count: number, size, ready: await broker.ready() });
      await using owner = world.part("crowds", "maker", job);
      await owner.ready();
      const before = await Promise.all([readProcess(broker.pid), readProcess(owner.pid)]);
      await owner.tell();
      await owner.line();
      const after = await Promise.all([readProcess(broker.pid), readProcess(owner.pid)]);
      const each = (side: 0 | 1, what: "own" | "shared") =>
        Math.max(0, (after[side][what] - before[side][what]) / number);
      const measures: Record<string, { value: number }> = {
        [`memory/${id}/broker`]: { value: each(0, "own") },
        [`memory/${id}/owner`]: { value: each(1, "own") },
      };
      if (variant === "lane") measures[`memory/${id}/pages`] = { value: each(1, "shared") };
      return measures satisfies Measures;
    },
  };
}

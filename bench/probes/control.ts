/**
 * What the broker is asked: the control operations, on an empty fabric and on a full one.
 *
 * @module
 */

import { median, type Summary } from "../../src/cli/bench_measure.ts";
import type { World } from "../bench_world.ts";
import type { Measures, Probe, Row } from "../model.ts";
import type { Place } from "../parts/control.ts";
import { measureOf } from "./round_trips.ts";

/** What can be asked. */
export const OPERATIONS: Readonly<Record<string, string>> = {
  "open-again": "openVmci, again in the same process",
  "lookup": "discovery.lookup()",
  "register": "discovery.register()",
  "create": "datagrams.create()",
  "create-destroy": "datagrams.create() and close()",
  "region-create-destroy": "sharedMemory.create() and detach(), 4 KiB",
  "attach-detach": "sharedMemory.attach() and detach(), 4 KiB",
  "grant": "access.addClientPrivileges()",
  "first-send": "the first sendTo() to a handle",
};

/** How many processes do something for the first time, in each round. */
const OPENINGS = 5;

/** Handles that first datagrams go to. */
const ENDPOINTS = 150;

/** All of them. */
export function control(world: World): Probe[] {
  const first = (row: Omit<Row, "unit">, part: string, joined: boolean): Probe => ({
    rows: [{ ...row, unit: "time" }],
    async measure() {
      const once = async () => {
        await using directory = await world.directory();
        const job = world.job(directory.path, { count: 1 });
        await using holder = joined ? world.part("control", "holder", job) : undefined;
        await holder?.ready();
        await using party = world.part("control", part, job);
        return await party.line() as number;
      };
      const times: number[] = [];
      while (times.length < OPENINGS) times.push(await once());
      return { [row.id]: { value: median(times) } };
    },
  });
  return [
    first({ id: "control/thread", title: "Deno: a node:worker_threads Worker that does nothing" }, "thread", false),
    first(
      {
        id: "control/open-machine",
        title: "openVmci, first on the machine: starts the broker",
        baseline: "control/thread",
      },
      "open",
      false,
    ),
    first({ id: "control/open-process", title: "openVmci, first in a process" }, "open", true),
    {
      rows: operationRows("control", (operation) => OPERATIONS[operation]!, () => "rtt/deno-unix"),
      async measure() {
        await using directory = await world.directory();
        await using holder = world.part("control", "holder", world.job(directory.path, { count: ENDPOINTS }), 0);
        return await operate(world, [{ directory: directory.path, ready: await holder.ready() }], [
          (it) => `control/${it}`,
        ]);
      },
    },
    growth(world),
  ];
}

/** The same on two fabrics that stay from round to round: an empty one, and one with much in it. */
function growth(world: World): Probe {
  const rows = ["empty", "full"].map((which) =>
    operationRows(
      "growth",
      (operation) => `${OPERATIONS[operation]}, ${which} fabric`,
      (operation) => which === "full" ? `growth/${operation}/empty` : undefined,
      which,
    )
  );
  return {
    rows: rows.flat(),
    async measure() {
      const places = [
        await place(world, "empty", 0),
        await place(world, "full", world.quick ? 100 : 1000),
      ];
      return await operate(world, places, [(it) => `growth/${it}/empty`, (it) => `growth/${it}/full`]);
    },
  };
}

/** A fabric with so many contexts. */
function place(world: World, name: string, contexts: number): Promise<Place> {
  return world.once(`${name} fabric`, async (stack) => {
    const { path } = stack.use(await world.directory());
    const job = world.job(path, { count: contexts, size: ENDPOINTS });
    const holder = stack.use(world.part("crowds", "crowd", job, 0));
    return { directory: path, ready: await holder.ready() };
  });
}

function operationRows(
  group: string,
  titleOf: (operation: string) => string,
  baselineOf: (operation: string) => string | undefined,
  suffix?: string,
): Row[] {
  return Object.keys(OPERATIONS).map((operation) => {
    const baseline = baselineOf(operation);
    return {
      id: idOf(group, operation, suffix),
      title: titleOf(operation),
      unit: "time",
      ...(baseline === undefined ? {} : { baseline }),
    };
  });
}

function idOf(group: string, operation: string, suffix: string | undefined): string {
  return suffix === undefined ? `${group}/${operation}` : `${group}/${operation}/${suffix}`;
}

/** Measures on each of some places; `names` makes the rows' names of the operations'. */
async function operate(
  world: World,
  places: readonly Place[],
  names: readonly ((operation: string) => string)[],
): Promise<Measures> {
  const job = world.job(places[0]!.directory, { ready: { places }, count: world.quick ? 40 : 2000 });
  await using party = world.part("control", "operations", job, 1);
  const results = await party.line() as Record<string, Summary[]>;
  return Object.fromEntries(
    Object.entries(results).flatMap(([operation, summaries]) =>
      summaries.map((summary, i) => [names[i]!(operation), measureOf(summary)])
    ),
  );
}

/**
 * What the broker is asked: the control operations, on an empty fabric and on a full one.
 *
 * @module
 */

import type { Summary } from "../../src/cli/bench_measure.ts";
import type { World } from "../bench_world.ts";
import type { Measures, Probe, Row } from "../model.ts";
import type { Ready } from "../parts/part.ts";
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

/** Handles that first datagrams go to. */
const ENDPOINTS = 150;

/** All of them. */
export function control(world: World): Probe[] {
  const opening = (id: string, title: string, joined: boolean): Probe => ({
    rows: [{ id, title, unit: "time" }],
    async measure() {
      await using directory = await world.directory();
      const job = world.job(directory.path, { count: 1 });
      await using holder = joined ? world.part("control", "holder", job) : undefined;
      await holder?.ready();
      await using party = world.part("control", "open", job);
      return { [id]: { value: await party.line() as number } };
    },
  });
  return [
    opening("control/open-machine", "openVmci, first on the machine: starts the broker", false),
    opening("control/open-process", "openVmci, first in a process", true),
    {
      rows: operationRows("control", (operation) => OPERATIONS[operation]!, () => "rtt/deno-unix"),
      async measure() {
        await using directory = await world.directory();
        await using holder = world.part("control", "holder", world.job(directory.path, { count: ENDPOINTS }));
        return await operate(world, directory.path, await holder.ready(), "control");
      },
    },
    full(world, false),
    full(world, true),
  ];
}

/** The same on a fabric that stays from round to round: an empty one, or one with much in it. */
function full(world: World, crowded: boolean): Probe {
  const suffix = crowded ? "full" : "empty";
  return {
    rows: operationRows(
      "growth",
      (operation) => `${OPERATIONS[operation]}, ${crowded ? "full" : "empty"} fabric`,
      (operation) => crowded ? `growth/${operation}/empty` : undefined,
      suffix,
    ),
    async measure() {
      const { path, ready } = await world.once(`${suffix} fabric`, async (stack) => {
        const { path } = stack.use(await world.directory());
        const job = world.job(path, { count: crowded ? (world.quick ? 100 : 1000) : 0, size: 10 * ENDPOINTS });
        const holder = stack.use(world.part("crowds", "crowd", job));
        return { path, ready: await holder.ready() };
      });
      return await operate(world, path, ready, "growth", suffix);
    },
  };
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

async function operate(world: World, path: string, ready: Ready, group: string, suffix?: string): Promise<Measures> {
  const job = world.job(path, { ready, count: world.quick ? 40 : 400 });
  await using party = world.part("control", "operations", job);
  const results = await party.line() as Record<string, Summary>;
  return Object.fromEntries(
    Object.entries(results).map(([operation, summary]) => [idOf(group, operation, suffix), measureOf(summary)]),
  );
}

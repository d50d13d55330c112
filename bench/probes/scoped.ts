/**
 * Least permission: `--allow-ffi` with the path of libc alone, so that no raw pointer can be had.
 *
 * @module
 */

import type { Summary } from "../../src/cli/bench_measure.ts";
import type { World } from "../bench_world.ts";
import { type Probe, Unavailable } from "../model.ts";
import { measureOf } from "./round_trips.ts";

const BLOCK = 4 * 2 ** 20;

/** All of them. */
export function scoped(world: World): Probe[] {
  return [
    {
      rows: [{
        id: "scoped/dg-spin",
        title: "datagrams: receiveIntoSync(), spinning",
        unit: "time",
        baseline: "rtt/dg-spin",
      }],
      async measure() {
        const flags = await permissions();
        await using directory = await world.directory();
        const job = world.job(directory.path, { variant: "sync", spin: 1000, batch: 16 });
        await using answering = world.part("datagrams", "echo", job, 0, flags);
        const ready = await answering.ready();
        await using asking = world.part("datagrams", "roundTrips", { ...job, ready }, 1, flags);
        return { "scoped/dg-spin": measureOf(await asking.line() as Summary) };
      },
    },
    {
      rows: [
        {
          id: "scoped/copy-in",
          title: "4 MiB copied into a region",
          unit: "throughput",
          baseline: `region/copy-in/${BLOCK}`,
        },
        {
          id: "scoped/copy-out",
          title: "4 MiB copied out of a region",
          unit: "throughput",
          baseline: `region/copy-out/${BLOCK}`,
        },
      ],
      async measure() {
        const flags = await permissions();
        await using directory = await world.directory();
        const job = world.job(directory.path, { sizes: [BLOCK], size: BLOCK });
        await using party = world.part("regions", "copies", job, 0, flags);
        const [copyIn, copyOut] = await party.line() as [number, number];
        return { "scoped/copy-in": { value: copyIn }, "scoped/copy-out": { value: copyOut } };
      },
    },
  ];
}

/** What a program is allowed that may call libc and nothing else; and to read the benchmark's own files. */
async function permissions(): Promise<string[]> {
  const libc = /\S*\/libc\.so\.6$/m.exec(await Deno.readTextFile("/proc/self/maps"))?.[0];
  if (libc === undefined) throw new Unavailable("this Deno runs without glibc");
  return [`--allow-ffi=${libc}`, `--allow-read=${new URL("..", import.meta.url).pathname}`];
}

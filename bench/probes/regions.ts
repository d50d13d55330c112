/**
 * Records, words and copies.
 *
 * @module
 */

import type { Summary } from "../../src/cli/bench_measure.ts";
import type { World } from "../bench_world.ts";
import type { Measures, Probe } from "../model.ts";
import { sizeText } from "./flows.ts";
import { measureOf } from "./round_trips.ts";

const BLOCK = 4 * 2 ** 20;
/** Bytes of the regions that blocks are copied into. */
export const REGION_SIZES: readonly number[] = [BLOCK, 16 * 2 ** 20, 64 * 2 ** 20];
const RECORD_BATCH = 256;

/** All of them. */
export function regions(world: World): Probe[] {
  const reading = (id: string, title: string, variant: string): Probe => ({
    rows: [{ id, title, unit: "time" }],
    async measure() {
      await using directory = await world.directory();
      const job = world.job(directory.path, { variant, batch: RECORD_BATCH });
      await using publisher = world.part("regions", "publisher", job, 0);
      const ready = await publisher.ready();
      await using reader = world.part("regions", "reader", { ...job, ready }, 1);
      return { [id]: measureOf(await reader.line() as Summary) };
    },
  });
  return [
    reading("region/record-read", "record of 128 B: readInto(), uncontended", "quiet"),
    reading("region/record-read-contended", "record of 128 B: readInto(), while another publishes", "busy"),
    {
      rows: [
        { id: "region/record-publish", title: "record of 128 B: publish()", unit: "time" },
        { id: "region/word-load", title: "word: load()", unit: "time" },
        { id: "region/word-store", title: "word: store()", unit: "time" },
      ],
      async measure() {
        await using directory = await world.directory();
        const job = world.job(directory.path, { batch: RECORD_BATCH });
        await using party = world.part("regions", "writer", job, 0);
        const { publish, load, store } = await party.line() as Record<string, Summary>;
        return {
          "region/record-publish": measureOf(publish!),
          "region/word-load": measureOf(load!),
          "region/word-store": measureOf(store!),
        };
      },
    },
    {
      rows: copyRows("c-copy", "C: memcpy"),
      measure: async () =>
        copyMeasures("c-copy", await world.native("copy", world.quick ? 30 : 150, BLOCK, ...REGION_SIZES)),
    },
    {
      rows: copyRows("copy", "bytes.set()"),
      async measure() {
        await using directory = await world.directory();
        const job = world.job(directory.path, { sizes: REGION_SIZES, size: BLOCK });
        await using party = world.part("regions", "copies", job, 1);
        return copyMeasures("copy", await party.line() as number[]);
      },
    },
  ];
}

function copyRows(id: string, title: string): Probe["rows"] {
  return REGION_SIZES.flatMap((size) =>
    (["in", "out"] as const).map((way) => ({
      id: `region/${id}-${way}/${size}`,
      title: `${title}, 4 MiB blocks ${way === "in" ? "into" : "out of"} ${sizeText(size)}`,
      unit: "throughput" as const,
      ...(id === "copy" ? { baseline: `region/c-copy-${way}/${size}` } : {}),
    }))
  );
}

/** The rates come in pairs: in and out. */
function copyMeasures(id: string, rates: readonly number[]): Measures {
  return Object.fromEntries(rates.map((value, i) => {
    return [`region/${id}-${i % 2 === 0 ? "in" : "out"}/${REGION_SIZES[i >> 1]}`, { value }];
  }));
}

/**
 * One way, as fast as it goes, by size.
 *
 * @module
 */

import type { World } from "../bench_world.ts";
import type { Measures, Probe } from "../model.ts";

/** Bytes of a message. */
export const SIZES = [8, 64, 256, 1024, 4096, 16384, 65536] as const;

/** What carries them; the plot has a line for each. */
export const CARRIERS: Readonly<Record<string, string>> = {
  "dg": "datagrams",
  "c-ring": "C: ring in shared memory",
  "c-unix": "C: Unix socket",
  "deno-unix": "Deno: Unix socket",
  "zeromq": "ZeroMQ: ipc, libzmq by FFI",
};

/** All of them. */
export function flows(world: World): Probe[] {
  const native = (carrier: string, what: string): Probe => ({
    rows: rowsOf(carrier),
    measure: async () => measuresOf(carrier, await world.native(what, world.quick ? 30 : 150, ...SIZES)),
  });
  return [
    native("c-ring", "ring"),
    {
      rows: rowsOf("dg"),
      async measure() {
        await using directory = await world.directory();
        const job = world.job(directory.path, { sizes: SIZES, spin: 1000, ...spanOf(world) });
        await using receiver = world.part("datagrams", "drain", job, 0);
        const ready = await receiver.ready();
        await using _sender = world.part("datagrams", "pour", { ...job, ready }, 1);
        return measuresOf("dg", await receiver.line() as number[]);
      },
    },
    bySize(world, "deno-unix", "sockets", () => Promise.resolve("unix")),
    bySize(world, "zeromq", "zeromq", async () => (await world.zeromq()).library),
    native("c-unix", "unix-flow"),
  ];
}

/** One size of many is measured for a shorter time. */
function spanOf({ quick }: World): { readonly warmup: number; readonly duration: number } {
  return quick ? { warmup: 40, duration: 30 } : { warmup: 150, duration: 150 };
}

/** Two processes for each size; the one that receives listens. */
function bySize(world: World, carrier: string, file: string, variantOf: () => Promise<string>): Probe {
  return {
    rows: rowsOf(carrier),
    async measure() {
      const variant = await variantOf();
      const rates: number[] = [];
      for (const size of SIZES) {
        await using directory = await world.directory();
        const job = world.job(directory.path, { size, variant, ...spanOf(world) });
        await using receiver = world.part(file, "drain", job, 0);
        await receiver.ready();
        await using _sender = world.part(file, "pour", job, 1);
        rates.push((await receiver.line() as [number])[0]);
      }
      return measuresOf(carrier, rates);
    },
  };
}

function rowsOf(carrier: string): Probe["rows"] {
  return SIZES.map((size) => ({
    id: `flow/${carrier}/${size}`,
    title: `${CARRIERS[carrier]}, ${sizeText(size)}`,
    unit: "rate" as const,
    ...(carrier === "c-ring" ? {} : { baseline: `flow/c-ring/${size}` }),
  }));
}

function measuresOf(carrier: string, rates: readonly number[]): Measures {
  return Object.fromEntries(SIZES.map((size, i) => [`flow/${carrier}/${size}`, { value: rates[i]! }]));
}

/** A size for people. */
export function sizeText(size: number): string {
  if (size >= 2 ** 20) return `${size / 2 ** 20} MiB`;
  return size >= 1024 ? `${size / 1024} KiB` : `${size} B`;
}

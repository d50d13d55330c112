/**
 * Everything that is measured, in the order of the table.
 *
 * @module
 */

import type { World } from "../bench_world.ts";
import type { Probe } from "../model.ts";
import { control } from "./control.ts";
import { crowds } from "./crowds.ts";
import { flows } from "./flows.ts";
import { regions } from "./regions.ts";
import { roundTrips } from "./round_trips.ts";
import { scoped } from "./scoped.ts";

/** See the module's comment. */
export function probesOf(world: World): Probe[] {
  return [
    ...roundTrips(world),
    ...flows(world),
    ...regions(world),
    ...control(world),
    ...crowds(world),
    ...scoped(world),
  ];
}

/**
 * All facets of the suite.
 *
 * @module
 */

import { access } from "./access.ts";
import { datagrams } from "./datagrams.ts";
import { discovery } from "./discovery.ts";
import { events } from "./events.ts";
import { lifecycle } from "./lifecycle.ts";
import { sharedMemory } from "./shared_memory.ts";
import type { Facet } from "./suite.ts";

/** By name. */
export const facets: Readonly<Record<string, Facet>> = {
  lifecycle,
  datagrams,
  "shared memory": sharedMemory,
  access,
  discovery,
  events,
};

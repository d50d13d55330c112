/**
 * All facets of the suite.
 *
 * @module
 */

import { datagrams } from "./datagrams.ts";
import { sharedMemory } from "./shared_memory.ts";
import type { Facet } from "./suite.ts";

/** By name. */
export const facets: Readonly<Record<string, Facet>> = { datagrams, "shared memory": sharedMemory };

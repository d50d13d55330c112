/**
 * How much of something the kernel lets this process have: the limit in force, and one that it may raise that to.
 *
 * @module
 */

import { check, libc } from "./libc.ts";

/** What is limited. */
export const ResourceLimit = {
  /** Bytes in a file; more is a signal that ends the process. */
  FSIZE: 1,
  /** Open descriptors: their numbers are below this. */
  NOFILE: 7,
} as const;

/** `struct rlimit { rlim_t rlim_cur; rlim_t rlim_max; };` */
const limits = new BigUint64Array(2);

/**
 * The limit in force.
 *
 * @param resource Of {@linkcode ResourceLimit}.
 * @returns The limit; the largest number of 64 bits where there is none.
 */
export function resourceLimit(resource: number): bigint {
  check(libc.getrlimit(resource, limits), "getrlimit");
  return limits[0]!;
}

/**
 * Raises a limit as far as this process may.
 *
 * @param resource Of {@linkcode ResourceLimit}.
 */
export function raiseResourceLimit(resource: number): void {
  check(libc.getrlimit(resource, limits), "getrlimit");
  limits[0] = limits[1]!;
  check(libc.setrlimit(resource, limits), "setrlimit");
}

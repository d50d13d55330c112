/**
 * What a process knows about itself, by libc, so that `--allow-ffi` alone suffices.
 *
 * @module
 */

import { check, cString, libc, textAt } from "./libc.ts";

const RLIMIT_NOFILE = 7;
const THIS_PROCESS = 0;

/**
 * An environment variable.
 *
 * @param name Its name.
 * @returns Its value, or `undefined` when it is not set.
 */
export function environment(name: string): string | undefined {
  const value = libc.getenv(cString(name));
  return value === null ? undefined : textAt(value);
}

/**
 * The user this process acts for.
 *
 * @returns The effective user id.
 */
export function userId(): number {
  return libc.geteuid();
}

/**
 * How many descriptors this process may have open: their numbers are below this.
 *
 * @returns The soft limit.
 */
export function descriptorLimit(): number {
  return Number(descriptorLimits()[0]);
}

/** Lets this process have as many descriptors as it may allow itself. */
export function raiseDescriptorLimit(): void {
  const [, hard] = descriptorLimits();
  check(libc.prlimit(THIS_PROCESS, RLIMIT_NOFILE, new BigUint64Array([hard, hard]), null), "prlimit");
}

/** `struct rlimit { rlim_t rlim_cur; rlim_t rlim_max; };`: the soft and the hard limit. */
function descriptorLimits(): readonly [soft: bigint, hard: bigint] {
  const limits = new BigUint64Array(2);
  check(libc.prlimit(THIS_PROCESS, RLIMIT_NOFILE, null, limits), "prlimit");
  return [limits[0]!, limits[1]!];
}

/** Lets whoever else waits for this processor have it first: a peer that is to answer, where there is only this one. */
export function yieldProcessor(): void {
  libc.sched_yield();
}

/**
 * The number of this process.
 *
 * @returns The process id.
 */
export function processId(): number {
  return Deno.pid;
}

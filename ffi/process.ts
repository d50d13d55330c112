/**
 * What a process knows about itself, by libc, so that `--allow-ffi` alone suffices.
 *
 * @module
 */

import { cString, libc, textAt } from "./libc.ts";

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

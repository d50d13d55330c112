/**
 * What a call is about, and failures told as the call's own.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import type { Handle } from "./handle.ts";

/** What a call is about, for its error. */
export interface Subject {
  /** The call as the program made it. */
  readonly operation: string;
  /** The handle it is about. */
  readonly handle?: Handle | undefined;
}

/**
 * A failure below a call as the call's own: the program knows what it called, and not what the library did for it.
 *
 * @param subject What the call is about.
 * @param error What was thrown.
 * @returns What to throw.
 */
export function failureOf(subject: Subject, error: unknown): unknown {
  if (!(error instanceof VmciError)) return error;
  return new VmciError(error.code, { ...subject, reason: error.reason, cause: error.cause });
}

/** Does something, and tells its failure as the call's own. */
export function within<T>(subject: Subject, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw failureOf(subject, error);
  }
}

/**
 * What the broker says when it will not do something.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import type { ErrorCodeName } from "../../result_code.ts";

/** The error that tells a client no. */
export function refusal(code: ErrorCodeName, reason: string): VmciError {
  return new VmciError(code, { operation: "decide", reason });
}

/** Tells the client whose request is under way no. */
export function fail(code: ErrorCodeName, reason: string): never {
  throw refusal(code, reason);
}

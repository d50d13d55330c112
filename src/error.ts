/**
 * The one error this library throws.
 *
 * @module
 */

import type { Handle } from "./handle.ts";
import { type ErrorCodeName, ResultCode } from "./result_code.ts";

/** What a {@linkcode VmciError} is made of, beside its code. */
export interface VmciErrorInit {
  /** The call that failed, as the program made it, such as `"datagrams.create"`. */
  readonly operation: string;
  /** Why, with the values. */
  readonly reason: string;
  /** The handle it was about. */
  readonly handle?: Handle | undefined;
  /** The error below: a `SystemError` with its errno, or another error. */
  readonly cause?: unknown;
}

/**
 * A call that failed. `code` and `number` are the SDK's; `cause` holds the operating system's error where there is one.
 *
 * @example
 * ```ts
 * import { openVmci, VmciError } from "@vmci/vmci";
 * import { assert, assertEquals, assertThrows } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * const error = assertThrows(() => vmci.discovery.lookup("nobody"), VmciError);
 * assertEquals(error.code, "NOT_FOUND");
 * assertEquals(error.number, -21);
 * assert(error.message.startsWith("Cannot discovery.lookup: "));
 * ```
 */
export class VmciError extends Error {
  /** The name of the class. */
  override readonly name = "VmciError";
  /** The SDK's name of the code, such as `"NO_ACCESS"`. */
  readonly code: ErrorCodeName;
  /** The SDK's number of the code, below 0. */
  readonly number: number;
  /** The call that failed. */
  readonly operation: string;
  /** Why, without the operation and the code. */
  readonly reason: string;
  /** The handle it was about, where there is one. */
  readonly handle: Handle | undefined;

  /**
   * Makes an error.
   *
   * @param code The SDK's name of the code.
   * @param init The operation, the reason, and what else is known.
   */
  constructor(code: ErrorCodeName, init: VmciErrorInit) {
    super(
      `Cannot ${init.operation}: ${init.reason} (${code})`,
      init.cause === undefined ? undefined : { cause: init.cause },
    );
    this.code = code;
    this.number = ResultCode[code];
    this.operation = init.operation;
    this.reason = init.reason;
    this.handle = init.handle;
  }
}

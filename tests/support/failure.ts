/**
 * Failures as the library promises them.
 *
 * @module
 */

import { assertEquals, assertInstanceOf } from "@std/assert";
import { type ErrorCodeName, type Handle, ResultCode, VmciError } from "../../mod.ts";

/** What an error must say beside its code. */
export interface Expected {
  /** The call as the program made it. */
  readonly operation?: string;
  /** What it was about. */
  readonly handle?: Handle;
}

/** Does what must fail, here or elsewhere, and gives the error: a whole VmciError of that code. */
export async function fails(code: ErrorCodeName, act: () => unknown, expected: Expected = {}): Promise<VmciError> {
  let result: unknown;
  try {
    result = await act();
  } catch (error) {
    return checked(error, code, expected);
  }
  throw new Error(`That should have failed with ${code}, and gave ${Deno.inspect(result)}`);
}

/** As {@linkcode fails}, for what fails at once. */
export function failsSync(code: ErrorCodeName, act: () => unknown, expected: Expected = {}): VmciError {
  let result: unknown;
  try {
    result = act();
  } catch (error) {
    return checked(error, code, expected);
  }
  throw new Error(`That should have failed with ${code}, and gave ${Deno.inspect(result)}`);
}

function checked(error: unknown, code: ErrorCodeName, expected: Expected): VmciError {
  assertInstanceOf(error, VmciError, `expected ${code}: ${error}`);
  const { operation, reason, handle } = error;
  assertEquals([error.code, error.number], [code, ResultCode[code]], error.message);
  assertEquals(error.message, `Cannot ${operation}: ${reason} (${code})`);
  if (expected.operation !== undefined) assertEquals(operation, expected.operation);
  if (expected.handle !== undefined) assertEquals(handle, expected.handle, error.message);
  return error;
}

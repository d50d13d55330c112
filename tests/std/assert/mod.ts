/**
 * A stand-in for `@std/assert` where JSR cannot be reached: the functions this project uses, with the same names,
 * signatures and behaviour, on `node:assert` and `node:util`. Never published.
 *
 * @module
 */

import { isDeepStrictEqual } from "node:util";

/** Thrown by every assertion that does not hold. */
export class AssertionError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

/** Any constructor, abstract ones included. */
// deno-lint-ignore no-explicit-any
export type AnyConstructor = new (...args: any[]) => any;

/** The instance type of a constructor. */
// deno-lint-ignore no-explicit-any
export type GetConstructorType<T extends AnyConstructor> = T extends new (...args: any[]) => infer C ? C : never;

/** A type that has no value that counts as false. */
export type Falsy = false | 0 | 0n | "" | null | undefined;

// deno-lint-ignore no-explicit-any
type ErrorConstructor<E extends Error> = abstract new (...args: any[]) => E;

function show(value: unknown): string {
  return Deno.inspect(value, { depth: 8, iterableLimit: 50, sorted: true, trailingComma: true });
}

function suffix(message: string | undefined): string {
  return message === undefined ? "." : `: ${message}`;
}

/** Throws unless `expr` counts as true. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Throws unless `expr` counts as false. */
export function assertFalse(expr: unknown, msg?: string): asserts expr is Falsy {
  if (expr) throw new AssertionError(`Expected value to be falsy${suffix(msg)}`);
}

/** Throws unless both values are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (isDeepStrictEqual(actual, expected)) return;
  throw new AssertionError(
    `Values are not equal${suffix(msg)}\n\n    actual:   ${show(actual)}\n    expected: ${show(expected)}\n`,
  );
}

/** Throws if both values are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!isDeepStrictEqual(actual, expected)) return;
  throw new AssertionError(`Expected actual: ${show(actual)} not to be: ${show(expected)}${suffix(msg)}`);
}

/** Throws unless both values are the same by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  if (Object.is(actual, expected)) return;
  throw new AssertionError(
    `Values are not strictly equal${suffix(msg)}\n\n    actual:   ${show(actual)}\n    expected: ${show(expected)}\n`,
  );
}

/** Throws if both values are the same by `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!Object.is(actual, expected)) return;
  throw new AssertionError(`Expected "actual" to not be strictly equal to: ${show(expected)}${suffix(msg)}`);
}

/** Throws if `actual` is null or undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual !== undefined && actual !== null) return;
  throw new AssertionError(`Expected actual: "${actual}" to not be null or undefined${suffix(msg)}`);
}

/** Throws unless `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (actual > expected) return;
  throw new AssertionError(msg ?? `Expect ${show(actual)} > ${show(expected)}`);
}

/** Throws unless `actual >= expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (actual >= expected) return;
  throw new AssertionError(msg ?? `Expect ${show(actual)} >= ${show(expected)}`);
}

/** Throws unless `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (actual < expected) return;
  throw new AssertionError(msg ?? `Expect ${show(actual)} < ${show(expected)}`);
}

/** Throws unless `actual <= expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (actual <= expected) return;
  throw new AssertionError(msg ?? `Expect ${show(actual)} <= ${show(expected)}`);
}

/** Throws unless `actual` is an instance of `expectedType`. */
export function assertInstanceOf<T extends AnyConstructor>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is GetConstructorType<T> {
  if (actual instanceof expectedType) return;
  const name = expectedType.name;
  throw new AssertionError(msg || `Expected object to be an instance of "${name}" but was ${show(actual)}`);
}

/** Throws unless `actual` matches the pattern. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (expected.test(actual)) return;
  throw new AssertionError(`Expected actual: "${actual}" to match: "${expected}"${suffix(msg)}`);
}

/** Throws if `actual` matches the pattern. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!expected.test(actual)) return;
  throw new AssertionError(`Expected actual: "${actual}" to not match: "${expected}"${suffix(msg)}`);
}

/** Throws unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (actual.includes(expected)) return;
  throw new AssertionError(`Expected actual: "${actual}" to contain: "${expected}"${suffix(msg)}`);
}

/** Throws unless `actual` contains every element of `expected`, compared deeply. */
export function assertArrayIncludes<T>(actual: ArrayLike<T>, expected: ArrayLike<T>, msg?: string): void {
  const missing = Array.from(expected).filter((e) => !Array.from(actual).some((a) => isDeepStrictEqual(a, e)));
  if (missing.length === 0) return;
  throw new AssertionError(
    `Expected actual: "${show(actual)}" to include: "${show(expected)}"${suffix(msg)}\nmissing: ${show(missing)}`,
  );
}

/** True if `actual` has, deeply, every own key of `expected` with the same value. */
function contains(actual: unknown, expected: unknown): boolean {
  if (typeof actual !== "object" || typeof expected !== "object" || actual === null || expected === null) {
    return isDeepStrictEqual(actual, expected);
  }
  if (Array.isArray(expected)) {
    return Array.isArray(actual) && expected.every((e, i) => contains(actual[i], e));
  }
  const proto = Object.getPrototypeOf(expected);
  if (proto !== Object.prototype && proto !== null) return isDeepStrictEqual(actual, expected);
  return Reflect.ownKeys(expected).every((k) =>
    Reflect.has(actual, k) && contains(Reflect.get(actual, k), Reflect.get(expected, k))
  );
}

/** Throws unless `actual` has at least what `expected` has, deeply. */
export function assertObjectMatch(
  // deno-lint-ignore no-explicit-any
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  if (contains(actual, expected)) return;
  throw new AssertionError(
    `Values are not equal${suffix(msg)}\n\n    actual:   ${show(actual)}\n    expected: ${show(expected)}\n`,
  );
}

/** Throws unless two numbers differ by at most `tolerance` (1e-7 of `expected`, if not given). */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  if (Object.is(actual, expected)) return;
  const bound = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  if (Math.abs(expected - actual) <= bound) return;
  throw new AssertionError(`Expected actual: "${actual}" to be close to "${expected}": delta > ${bound}${suffix(msg)}`);
}

/** Throws unless `error` is an Error, of the class and with the message part asked for. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ErrorConstructor<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) {
    throw new AssertionError(`Expected "error" to be an Error object${suffix(msg)}`, { cause: error });
  }
  if (ErrorClass && !(error instanceof ErrorClass)) {
    throw new AssertionError(
      `Expected error to be instance of "${ErrorClass.name}", but was "${error.constructor.name}"${suffix(msg)}`,
      { cause: error },
    );
  }
  const matches = typeof msgMatches === "string"
    ? error.message.includes(msgMatches)
    : (msgMatches?.test(error.message) ?? true);
  if (!matches) {
    throw new AssertionError(
      `Expected error message to include ${show(msgMatches)}, but got ${show(error.message)}${suffix(msg)}`,
      { cause: error },
    );
  }
}

/** Throws unless `fn` throws; with a class, what it throws must be an Error of it. Answers with what was thrown. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorConstructor<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  errorClassOrMsg?: ErrorConstructor<E> | string,
  msgIncludesOrMsg?: string,
  msg?: string,
): E | unknown {
  const [ErrorClass, msgIncludes, own] = typeof errorClassOrMsg === "string"
    ? [undefined, undefined, errorClassOrMsg]
    : [errorClassOrMsg, msgIncludesOrMsg, msg];
  try {
    fn();
  } catch (error) {
    if (ErrorClass) assertIsError(error, ErrorClass, msgIncludes, own);
    return error;
  }
  throw new AssertionError(`Expected function to throw${suffix(own)}`);
}

/** Throws unless `fn` answers with a promise that is rejected. Answers with what it was rejected with. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorConstructor<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClassOrMsg?: ErrorConstructor<E> | string,
  msgIncludesOrMsg?: string,
  msg?: string,
): Promise<E | unknown> {
  const [ErrorClass, msgIncludes, own] = typeof errorClassOrMsg === "string"
    ? [undefined, undefined, errorClassOrMsg]
    : [errorClassOrMsg, msgIncludesOrMsg, msg];
  let pending: PromiseLike<unknown> | undefined;
  try {
    pending = fn();
    await pending;
  } catch (error) {
    if (pending === undefined) {
      throw new AssertionError(`Function throws when expected to reject${suffix(own)}`, { cause: error });
    }
    if (ErrorClass) assertIsError(error, ErrorClass, msgIncludes, own);
    return error;
  }
  throw new AssertionError(`Expected function to reject${suffix(own)}`);
}

/** Always throws. */
export function fail(msg?: string): never {
  throw new AssertionError(`Failed assertion${suffix(msg)}`);
}

/** Always throws: marks what cannot be reached. */
export function unreachable(msg?: string): never {
  throw new AssertionError(`Unreachable${suffix(msg)}`);
}

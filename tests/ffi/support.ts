/**
 * What the tests of `ffi/` share.
 *
 * Importing this binds every symbol at once: the libraries stay open by design, and the test runner would take one that
 * is opened inside a test for a leak.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { interposeLibc, libc, type LibcCall, setErrno } from "../../ffi/libc.ts";

for (const name of Object.keys(libc)) void libc[name as keyof typeof libc];

/** A number that no open descriptor has. (A closed one's may be somebody else's by now, in another thread.) */
export const NOT_OPEN = 0x7fffffff;

const FD_FLAGS = /^flags:\s+0?([0-7]+)$/m;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

/** How many descriptors this process has open; the one that looks is always among them. */
export function countDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/**
 * A synchronous test that must leave no descriptor open. Descriptors are counted in the whole process, so these tests
 * do not run beside others (`--parallel`).
 */
export function test(name: string, body: () => void): void {
  Deno.test(name, () => {
    const before = countDescriptors();
    body();
    assertEquals(countDescriptors(), before, "descriptors left open");
  });
}

/** Whether a descriptor is close-on-exec, and whether it is non-blocking, as the kernel tells. */
export function descriptorFlags(fd: number): { closeOnExec: boolean; nonBlocking: boolean } {
  const flags = parseInt(FD_FLAGS.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${fd}`))![1]!, 8);
  return { closeOnExec: (flags & O_CLOEXEC) !== 0, nonBlocking: (flags & O_NONBLOCK) !== 0 };
}

/** Calls `body` with a directory of its own, and removes it afterwards. */
export function inDirectory(body: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync({ prefix: "vmci-ffi-" });
  try {
    body(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Puts a function in a symbol's place while `body` runs. */
export function withSymbol<T>(symbol: string, replace: (call: LibcCall) => LibcCall, body: () => T): T {
  interposeLibc((name, call) => name === symbol ? replace(call) : call);
  try {
    return body();
  } finally {
    interposeLibc(undefined);
  }
}

/** Makes a symbol fail the first `times` times it is called while `body` runs. */
export function withFailures<T>(symbol: string, errno: number, times: number, body: () => T): T {
  let left = times;
  return withSymbol(symbol, (call) => (...args) => left-- > 0 ? fail(errno) : call(...args), body);
}

/**
 * Runs an operation again and again: its first call of libc fails, then its second, and so on, until it makes fewer.
 * A `close` that fails closes all the same, as the kernel's does.
 *
 * @param errno The error number of the failing call.
 * @param operation The operation; it is told which of its calls fails.
 * @returns The names of the calls that were made to fail, in order.
 */
export function failEveryCall(errno: number, operation: (nth: number) => void): string[] {
  const failed: string[] = [];
  for (let nth = 1;; nth++) {
    let calls = 0;
    interposeLibc((name, call) => (...args) => {
      if (++calls !== nth) return call(...args);
      failed.push(name);
      if (name === "close") call(...args);
      return fail(errno);
    });
    try {
      operation(nth);
    } finally {
      interposeLibc(undefined);
    }
    if (calls < nth) return failed;
  }
}

function fail(errno: number): number {
  setErrno(errno);
  return -1;
}

/** How a program of `tests/ffi/programs/` ended. */
export interface ProgramResult {
  /** Its exit code; 128 and the signal's number when a signal ended it. */
  readonly code: number;
  /** The signal that ended it. */
  readonly signal: Deno.Signal | null;
  /** What it printed. */
  readonly output: string;
  /** What it complained about. */
  readonly errors: string;
}

/** The command that starts a program of `tests/ffi/programs/` with just these permissions. */
export function program(name: string, permissions: readonly string[], args: readonly string[] = []): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...permissions, new URL(`programs/${name}`, import.meta.url).pathname, ...args],
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs a program of `tests/ffi/programs/` to its end. */
export async function runProgram(
  name: string,
  permissions: readonly string[],
  args: readonly string[] = [],
): Promise<ProgramResult> {
  const child = program(name, permissions, args).spawn();
  await child.stdin.close();
  const { code, signal, stdout, stderr } = await child.output();
  return { code, signal, output: new TextDecoder().decode(stdout), errors: new TextDecoder().decode(stderr) };
}

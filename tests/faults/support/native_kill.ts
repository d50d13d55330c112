/**
 * A process that strikes itself, with `--allow-ffi` alone. For SIGKILL and SIGSTOP the kernel acts before the call is
 * over, so that not one more step is made.
 *
 * @module
 */

/** How a process is struck: ended, or stopped until it is told to go on. */
export type Blow = "SIGKILL" | "SIGSTOP";

const SIGNALS: Readonly<Record<Blow, number>> = { SIGKILL: 9, SIGSTOP: 19 };

let kill: ((pid: number, signal: number) => number) | undefined;

/** Loads what {@linkcode nativeKill} needs. */
export function prepareKill(): void {
  kill ??= Deno.dlopen("libc.so.6", { kill: { parameters: ["i32", "i32"], result: "i32" } }).symbols.kill;
}

/** Ends or stops this process at once. */
export function nativeKill(blow: Blow): void {
  prepareKill();
  kill!(Deno.pid, SIGNALS[blow]);
}

/** Milliseconds of a clock that all processes share. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}

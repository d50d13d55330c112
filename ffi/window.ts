/**
 * Windows: memory of the engine's own in whose place pages can be mapped. They make a mapping's ArrayBuffer where a
 * program may use no raw pointers.
 *
 * A window is the memory of a WebAssembly module that does not exist. The engine asks the kernel for a range of
 * addresses for it, apart from its heap, and gives the range back to the kernel when the memory is collected, whatever
 * is mapped there by then; nothing else is ever put there. So the pages may be anybody's. The buffer of such a memory
 * cannot be transferred to another thread; it is emptied by letting the memory grow, by nothing.
 *
 * Its length is a multiple of 64 KiB: what is behind the mapped pages is private and zero.
 *
 * @module
 */

import { addressOf, Errno, SystemError, UnsupportedPlatformError } from "./libc.ts";

/** What WebAssembly calls a page, in bytes. */
const UNIT = 65536;

/** The most units of one memory: 4 GiB. */
const MOST_UNITS = 65536;

/** The most windows at once. Each takes two or three of the mappings that the kernel allows a process (65,530). */
const MOST_WINDOWS = 15_000;

/** So many closed windows at most are kept to be opened again: a new one costs some 20 µs and is garbage later. */
const MOST_KEPT = 256;

/** A range of addresses and the memory that keeps it. */
export interface Window {
  /** Keeps the range, as does its buffer. */
  readonly memory: WebAssembly.Memory;
  /** Where it begins: at a page. */
  readonly address: bigint;
  /** Its length in bytes. */
  readonly byteLength: number;
}

/** Windows by the buffers through which they are seen. */
const windows = new WeakMap<ArrayBuffer, Window>();

/** Closed windows by their size in units. */
const kept = new Map<number, Window[]>();
let keptCount = 0;

let count = 0;
const collected = new FinalizationRegistry<void>(() => void count--);

/**
 * A range of addresses with a buffer to see it through.
 *
 * @param byteLength How many bytes are needed at least.
 * @returns The window, and its buffer, by which {@linkcode windowOf} finds it again.
 * @throws {SystemError} ENOMEM when there is no such range.
 * @throws {UnsupportedPlatformError} When the engine does otherwise than said above.
 */
export function openWindow(byteLength: number): { readonly window: Window; readonly buffer: ArrayBuffer } {
  const units = Math.max(1, Math.ceil(byteLength / UNIT));
  const known = kept.get(units)?.pop();
  if (known !== undefined) keptCount--;
  const window = known ?? makeWindow(units);
  const buffer = bufferOf(window.memory);
  windows.set(buffer, window);
  return { window, buffer };
}

function makeWindow(units: number): Window {
  if (units > MOST_UNITS || count >= MOST_WINDOWS) throw new SystemError(Errno.ENOMEM, "mmap");
  let memory: WebAssembly.Memory;
  try {
    memory = new WebAssembly.Memory({ initial: units, maximum: units });
  } catch (error) {
    if (error instanceof RangeError) throw new SystemError(Errno.ENOMEM, "mmap");
    throw error;
  }
  const address = addressOf(new Uint8Array(bufferOf(memory)));
  if (address % BigInt(UNIT) !== 0n) {
    throw new UnsupportedPlatformError(
      `Cannot map memory at ${address}: this engine takes WebAssembly's from its heap`,
    );
  }
  count++;
  collected.register(memory);
  return { memory, address, byteLength: units * UNIT };
}

/** It is not shared, in the sense of WebAssembly. */
function bufferOf(memory: WebAssembly.Memory): ArrayBuffer {
  return memory.buffer as ArrayBuffer;
}

/**
 * The window that a buffer shows.
 *
 * @param buffer The buffer.
 * @returns The window, or `undefined` when the buffer is not, or no more, a window's.
 */
export function windowOf(buffer: ArrayBuffer): Window | undefined {
  return windows.get(buffer);
}

/**
 * Empties every view of a window's buffer.
 *
 * @param buffer The buffer.
 */
export function detachWindow(buffer: ArrayBuffer): void {
  windows.get(buffer)?.memory.grow(0);
  windows.delete(buffer);
}

/**
 * Takes a window back, to be opened again. It must be private zeroes all over, its buffer detached, and no native
 * operation under way on it.
 *
 * @param window The window.
 */
export function keepWindow(window: Window): void {
  if (keptCount >= MOST_KEPT) return;
  keptCount++;
  const units = window.byteLength / UNIT;
  const same = kept.get(units);
  if (same === undefined) kept.set(units, [window]);
  else same.push(window);
}

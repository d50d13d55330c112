/**
 * Mappings whose buffers are given to programs.
 *
 * A program can do with a buffer what this library cannot see: transfer it to another thread, hand it to a native
 * operation that is still under way in a thread of the pool when the mapping is closed, or forget it. So the pages of
 * such a mapping are not given back at once: they are replaced by private zeroes, which cost no memory until somebody
 * touches them and cut everybody off from the shared ones. The addresses are given back much later, or, where the buffer
 * may live on in another thread, never.
 *
 * What is lent through a window cannot be transferred, and what the program forgets the engine gives back by itself. So
 * that it can be lent again it is mapped a second time, where nobody sees it.
 *
 * @module
 */

import {
  bufferAt,
  closeWindow,
  collectedWindow,
  mapAgain,
  mapAgainInWindow,
  type Mapping,
  replacePages,
  unmapPages,
} from "./mapping.ts";
import { keepWindow, windowOf } from "./window.ts";

/** So many mappings are closed after one before its addresses are given back: no operation is under way that long. */
const RETIRED_MOST = 1024;

/** Gives back the addresses of mappings that are closed, oldest first. */
const retired: (() => void)[] = [];

/** Memory lent to a program. It does not keep its buffer alive: when the program forgets it, the collector may say so. */
export class LentMapping {
  readonly #address: bigint;
  readonly #byteLength: number;
  /** Where the pages are mapped again, if they are lent through a window, and can be. */
  readonly #spare: bigint | undefined;
  readonly #windowed: boolean;
  #buffer: WeakRef<ArrayBuffer>;
  /** Whether a buffer of it was forgotten: it may have been transferred before, and nobody can tell. */
  #forgotten = false;
  #open = true;

  /**
   * Takes a mapping over.
   *
   * @param mapping The mapping; not used by anybody else from now on.
   * @param shared Whether what is written to it is everybody's. A mapping that is not can be lent only once where raw
   * pointers may not be used.
   * @throws {SystemError} ENOMEM, where raw pointers may not be used; the mapping is closed then.
   */
  constructor(mapping: Mapping, shared: boolean) {
    this.#address = mapping.address;
    this.#byteLength = mapping.byteLength;
    this.#buffer = new WeakRef(mapping.buffer);
    this.#windowed = windowOf(mapping.buffer) !== undefined;
    if (!this.#windowed || !shared) return;
    try {
      this.#spare = mapAgain(this.#address, this.#byteLength);
    } catch (error) {
      mapping.close();
      throw error;
    }
  }

  /**
   * The buffer to lend; another one when everybody has forgotten the one before.
   *
   * @returns The buffer. It is empty once the mapping is closed.
   */
  get buffer(): ArrayBuffer {
    const known = this.#buffer.deref();
    if (known !== undefined) return known;
    this.#forgotten = true;
    const buffer = this.#open ? this.#again() : new ArrayBuffer(0);
    this.#buffer = new WeakRef(buffer);
    return buffer;
  }

  #again(): ArrayBuffer {
    if (!this.#windowed) return bufferAt(this.#address, this.#byteLength);
    if (this.#spare === undefined) return new ArrayBuffer(0);
    collectedWindow();
    return mapAgainInWindow(this.#spare, this.#byteLength).buffer;
  }

  /**
   * Cuts everybody off from the memory: every view of the buffer is empty, and whoever has it by another way reads
   * zeroes. Closing again does nothing. It does not fail: if the process has too many mappings to change this one now,
   * that is done at a later closing.
   *
   * @returns `false` when the buffer had been transferred away.
   */
  close(): boolean {
    if (!this.#open) return true;
    this.#open = false;
    if (this.#windowed) {
      this.#closeWindow();
      return true;
    }
    const replaced = replacePages(this.#address, this.#byteLength);
    const buffer = this.#buffer.deref();
    if (buffer?.detached) return false;
    buffer?.transfer(0);
    // Pages that are still to be replaced must not become somebody else's before.
    if (buffer === undefined || this.#forgotten || !replaced) return true;
    retire(() => unmapPages(this.#address, this.#byteLength));
    return true;
  }

  #closeWindow(): void {
    if (this.#spare !== undefined) unmapPages(this.#spare, this.#byteLength);
    const buffer = this.#buffer.deref();
    const window = buffer && windowOf(buffer);
    if (buffer === undefined || window === undefined) collectedWindow();
    else if (closeWindow(window, buffer)) retire(() => keepWindow(window));
  }
}

/** Gives addresses back when no operation on the memory can be under way any more. */
function retire(giveBack: () => void): void {
  retired.push(giveBack);
  if (retired.length > RETIRED_MOST) retired.shift()!();
}

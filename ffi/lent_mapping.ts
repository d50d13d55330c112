/**
 * Mappings whose buffers are given to programs.
 *
 * A program can do with a buffer what this library cannot see: transfer it to another thread, hand it to a native
 * operation that is still under way in a thread of the pool when the mapping is closed, or forget it. So the pages of
 * such a mapping are not given back at once: they are replaced by private zeroes, which cost no memory until somebody
 * touches them and cut everybody off from the shared ones. The addresses are given back much later, or, where the buffer
 * may live on in another thread, never.
 *
 * @module
 */

import { type Mapping, replacePages, unmapPages } from "./mapping.ts";

/** So many mappings are closed after one before its addresses are given back: no operation is under way that long. */
const RETIRED_MOST = 1024;

/** Mappings that are closed and whose addresses are still in use, oldest first. */
const retired: { readonly address: bigint; readonly byteLength: number }[] = [];

/** Memory lent to a program. It does not keep its buffer alive: when the program forgets it, the collector may say so. */
export class LentMapping {
  readonly #address: bigint;
  readonly #byteLength: number;
  #buffer: WeakRef<ArrayBuffer>;
  /** Whether a buffer of it was forgotten: it may have been transferred before, and nobody can tell. */
  #forgotten = false;
  #open = true;

  /**
   * Takes a mapping over.
   *
   * @param mapping The mapping; not used by anybody else from now on.
   */
  constructor(mapping: Mapping) {
    this.#address = mapping.address;
    this.#byteLength = mapping.byteLength;
    this.#buffer = new WeakRef(mapping.buffer);
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
    const pages = this.#open ? Deno.UnsafePointer.create(this.#address) : null;
    const buffer = pages === null ? new ArrayBuffer(0) : Deno.UnsafePointerView.getArrayBuffer(pages, this.#byteLength);
    this.#buffer = new WeakRef(buffer);
    return buffer;
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
    const replaced = replacePages(this.#address, this.#byteLength);
    const buffer = this.#buffer.deref();
    if (buffer?.detached) return false;
    buffer?.transfer(0);
    // Pages that are still to be replaced must not become somebody else's before.
    if (buffer === undefined || this.#forgotten || !replaced) return true;
    retired.push({ address: this.#address, byteLength: this.#byteLength });
    if (retired.length > RETIRED_MOST) {
      const { address, byteLength } = retired.shift()!;
      unmapPages(address, byteLength);
    }
    return true;
  }
}

/**
 * Where payloads go: an array of bytes, and the same memory as words.
 *
 * @module
 */

/** Payloads up to this size are put side by side. A larger one is worth an ArrayBuffer of its own. */
const SMALL = 128;

/** The size of the ArrayBuffer that they are put into: who keeps one of them keeps it all. */
const SLAB_SIZE = 1024;

const NO_WORDS = new Int32Array(0);

/** See the module's comment. */
export class ReceiveBuffer<Bytes extends Uint8Array = Uint8Array> {
  /**
   * @param bytes The memory, as the program sees it.
   * @param words Memory that it is in, for small payloads, as far as that can be copied to by words.
   * @param first Which of the words is its first.
   */
  constructor(readonly bytes: Bytes, readonly words: Int32Array = NO_WORDS, readonly first: number = 0) {}

  /**
   * Of memory that there is.
   *
   * @param bytes The memory; it stays the caller's.
   * @returns The buffer.
   */
  static of(bytes: Uint8Array): ReceiveBuffer {
    const { buffer, byteOffset, length } = bytes;
    // A buffer that can change its size could get smaller than its words.
    const fixed = buffer instanceof SharedArrayBuffer ? !buffer.growable : !buffer.resizable;
    if (!fixed || (byteOffset & 3) !== 0) return new ReceiveBuffer(bytes);
    // More words than that no small payload has; and a length may be more than 32 bits hold.
    return new ReceiveBuffer(bytes, new Int32Array(buffer, byteOffset, Math.min(length, SMALL) >> 2));
  }
}

/**
 * Makes the arrays that payloads are handed out in. To make an ArrayBuffer takes longer than all else about a small
 * datagram, and so does giving it back: small ones share one.
 */
export class ReceiveBuffers {
  #slab: Int32Array<ArrayBuffer> | undefined;
  /** Where there is room in it. */
  #at = 0;

  /**
   * A fresh one.
   *
   * @param size Bytes of payload.
   * @returns A buffer of that size that nothing was in yet.
   */
  next(size: number): ReceiveBuffer<Uint8Array<ArrayBuffer>> {
    if (size > SMALL) return new ReceiveBuffer(new Uint8Array(size));
    // It has no length any more when the program has transferred it.
    if (this.#slab === undefined || this.#at + size > this.#slab.byteLength) {
      this.#slab = new Int32Array(SLAB_SIZE >> 2);
      this.#at = 0;
    }
    const bytes = new Uint8Array(this.#slab.buffer, this.#at, size);
    const buffer = new ReceiveBuffer(bytes, this.#slab, this.#at >> 2);
    // Any typed array may begin at a multiple of eight bytes.
    this.#at += (size + 7) & ~7;
    return buffer;
  }
}

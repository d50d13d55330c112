/**
 * Where payloads go: an array of bytes, and the same memory as words.
 *
 * @module
 */

/** See the module's comment. Worth making ahead: it takes longer than to fill a small one. */
export class ReceiveBuffer<Bytes extends Uint8Array = Uint8Array> {
  /** The memory, as the program sees it. */
  readonly bytes: Bytes;
  /** As much of it as can be copied by words. */
  readonly words: Int32Array;

  /** @param bytes The memory; it stays the caller's. */
  constructor(bytes: Bytes) {
    this.bytes = bytes;
    const { buffer, byteOffset, length } = bytes;
    // A buffer that can change its size could get smaller than its words.
    const fixed = buffer instanceof SharedArrayBuffer ? !buffer.growable : !buffer.resizable;
    const count = fixed && (byteOffset & 3) === 0 ? length >> 2 : 0;
    this.words = count === 0 ? NONE : new Int32Array(buffer, byteOffset, count);
  }
}

const NONE = new Int32Array(0);

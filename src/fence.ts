/**
 * A fence between plain accesses to shared memory and what comes after them.
 *
 * @module
 */

/** A word of nobody else's. */
const word = new Int32Array(1);

/** Keeps what comes before it before what comes after it, also on processors that reorder loads and stores. */
export function fence(): void {
  Atomics.store(word, 0, 0);
  Atomics.load(word, 0);
}

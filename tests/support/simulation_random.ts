/**
 * Numbers that look random and are the same for the same seed: xoshiro128**, whose state splitmix32 makes of the seed.
 *
 * @module
 */

/** See the module's comment. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /** @param seed Any number; of it the lower 32 bits count. */
  constructor(readonly seed: number) {
    let state = seed | 0;
    const next = () => {
      state = (state + 0x9e3779b9) | 0;
      let z = state ^ (state >>> 16);
      z = Math.imul(z, 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return z ^ (z >>> 15);
    };
    [this.#a, this.#b, this.#c, this.#d] = [next(), next(), next(), next()];
  }

  /** An unsigned 32-bit number. */
  uint32(): number {
    const times5 = Math.imul(this.#b, 5);
    const result = Math.imul((times5 << 7) | (times5 >>> 25), 9);
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result >>> 0;
  }

  /** A whole number from 0 up to, and without, `end`. */
  below(end: number): number {
    return Math.floor(this.uint32() / 2 ** 32 * end);
  }

  /** Whether one of so many turns has come. */
  oneIn(turns: number): boolean {
    return this.below(turns) === 0;
  }

  /** One of several; `undefined` when there are none. */
  pick<T>(from: readonly T[]): T | undefined {
    return from[this.below(from.length)];
  }

  /** One of several that are there. */
  of<T>(...from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

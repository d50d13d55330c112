/**
 * Random numbers that are the same for the same seed.
 *
 * @module
 */

/** Gives whole numbers from 0 to below a bound. */
export type Choose = (below: number) => number;

/** Starts a sequence. */
export function random(seed: number): Choose {
  let state = seed | 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    // The low bits of this generator are poor.
    return Math.floor((state >>> 0) / 2 ** 32 * below);
  };
}

/** The items in another order. */
export function shuffled<T>(items: readonly T[], choose: Choose): T[] {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last--) {
    const other = choose(last + 1);
    [result[last], result[other]] = [result[other]!, result[last]!];
  }
  return result;
}

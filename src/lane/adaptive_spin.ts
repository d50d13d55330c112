/**
 * Whether to spin before sleeping: as long as that has paid lately. After a spin in vain the next waits do without, more
 * of them each time, so that a slow peer costs no spinning.
 *
 * @module
 */

/** What the waits of one kind have learnt. */
export class AdaptiveSpin {
  /** How many waits still do without, and how many will after the next spin in vain. */
  #skip = 0;
  #nextSkip = 1;
  readonly #mostSkipped: number;

  /** @param mostSkipped At most so many waits in a row do without after spins in vain. */
  constructor(mostSkipped: number = 63) {
    this.#mostSkipped = mostSkipped;
  }

  /** Whether the next wait should spin. */
  get pays(): boolean {
    return this.#skip === 0;
  }

  /** A wait did without. */
  skipped(): void {
    if (this.#skip > 0) this.#skip--;
  }

  /** What was waited for came while spinning. */
  found(): void {
    this.#nextSkip = 1;
  }

  /** It did not. */
  missed(): void {
    this.#skip = this.#nextSkip;
    this.#nextSkip = Math.min(2 * this.#nextSkip + 1, this.#mostSkipped);
  }

  /**
   * Looks again and again, if that pays.
   *
   * @param look Looks once: what is waited for, or `undefined`. Each look should be worth some hundred nanoseconds.
   * @param milliseconds How long at most.
   * @returns What was found.
   */
  spin<T>(look: () => T | undefined, milliseconds: number): T | undefined {
    if (milliseconds <= 0) return undefined;
    if (!this.pays) {
      this.skipped();
      return undefined;
    }
    const end = performance.now() + milliseconds;
    do {
      const result = look();
      if (result !== undefined) {
        this.found();
        return result;
      }
    } while (performance.now() < end);
    this.missed();
    return undefined;
  }
}

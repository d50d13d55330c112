/**
 * Time that passes as the test says.
 *
 * @module
 */

/** In place of the process' own clock, until it is disposed of. */
export class TestClock implements Disposable {
  readonly #real = performance.now;
  now = 0;

  /** @param step Milliseconds that pass at each look. */
  constructor(step = 0) {
    performance.now = () => this.now += step;
  }

  [Symbol.dispose](): void {
    performance.now = this.#real;
  }
}

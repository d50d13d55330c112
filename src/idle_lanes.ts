/**
 * Lanes that nobody sends on give their memory back: what went through one stays in its pages, 256 KiB at most, until it
 * is asked for.
 *
 * @module
 */

/** What may rest. */
export interface Idle {
  /** Whether it carries nothing any more. */
  readonly over: boolean;
  /** Gives its memory back if it was not used since the last call, and is empty; says whether it did. */
  rest(): boolean;
}

/** Milliseconds between two looks; a lane rests after one to two of them. */
const SWEEP = 1000;

/** See the module's comment. */
export class IdleLanes {
  readonly #used = new Set<Idle>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** A lane is used, after it was made or had rested. */
  stir(lane: Idle): void {
    this.#used.add(lane);
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => this.#sweep(), SWEEP);
    // It must not keep a program alive.
    this.#timer.unref();
  }

  /** Looks no more. */
  close(): void {
    this.#used.clear();
    this.#stop();
  }

  #sweep(): void {
    for (const lane of this.#used) {
      if (lane.over || lane.rest()) this.#used.delete(lane);
    }
    // A fabric at rest wakes nobody.
    if (this.#used.size === 0) this.#stop();
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * How many lines of each kind others may cause in a log, so that nobody fills the disk, or hides one thing behind many
 * others: each kind of each origin has its own share.
 *
 * @module
 */

/** Lines of one kind at once, and how many more there may be with each second. */
const MOST = { atOnce: 1000, perSecond: 1 };

/** Kinds that are remembered although nothing of them is left to know. */
const MOST_KINDS = 4096;

/** Lines of one kind. */
interface Kind {
  /** How many may still be written, at the time `seen`. */
  left: number;
  seen: number;
  /** How many were not, since the last that was. */
  omitted: number;
}

/** See the module's comment. */
export class LineLimits {
  readonly #kinds = new Map<string, Kind>();
  readonly #omitting = new Set<string>();

  /**
   * Whether one more line may be written; if not, it is counted.
   *
   * @param name What kind of line it is.
   * @param now Milliseconds on a clock that does not jump.
   */
  allows(name: string, now: number): boolean {
    if (this.#kinds.size >= MOST_KINDS) this.#forget(now);
    const kind = this.#kinds.get(name) ?? { left: MOST.atOnce, seen: now, omitted: 0 };
    this.#kinds.set(name, kind);
    refill(kind, now);
    if (kind.left >= 1) {
      kind.left--;
      return true;
    }
    kind.omitted++;
    this.#omitting.add(name);
    return false;
  }

  /**
   * Takes the kinds of which lines were not written, and how many.
   *
   * @param now Milliseconds; those of which none may be written yet are left for later. Without it, all.
   */
  *takeOmitted(now: number = Infinity): Iterable<{ readonly kind: string; readonly lines: number }> {
    for (const name of this.#omitting) {
      const kind = this.#kinds.get(name)!;
      refill(kind, now);
      if (kind.left < 1) continue;
      kind.left--;
      this.#omitting.delete(name);
      yield { kind: name, lines: kind.omitted };
      kind.omitted = 0;
    }
  }

  #forget(now: number): void {
    for (const [name, kind] of this.#kinds) {
      refill(kind, now);
      if (kind.left === MOST.atOnce) this.#kinds.delete(name);
    }
  }
}

function refill(kind: Kind, now: number): void {
  kind.left = Math.min(MOST.atOnce, kind.left + (now - kind.seen) / 1000 * MOST.perSecond);
  kind.seen = now;
}

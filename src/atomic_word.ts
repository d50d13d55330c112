/**
 * One 32-bit word of a region, changed as a whole.
 *
 * @module
 */

import type { WaitOptions } from "./lane/waiters.ts";

/** What a word needs of its region. */
export interface WordAccess {
  /** The words of the region as they really are. */
  readonly words: Int32Array<ArrayBuffer>;
  /** Throws when the region is detached, or, for `store`, not writable. */
  check(operation: string, writes: boolean): void;
  /** Rings those who wait for a change of the region; the change was made by Atomics. */
  changed(): void;
  /** Waits until a condition over the region holds. */
  wait(operation: string, condition: () => boolean, options: WaitOptions | undefined): Promise<void>;
  /** The same without turning the event loop. */
  waitSync(operation: string, condition: () => boolean, timeout: number): void;
}

/**
 * A signed 32-bit word of a region that several processes change without losing a change: get one from
 * {@linkcode Region.word}. Each change rings those who wait for it.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * using region = vmci.sharedMemory.create(4096);
 * const counter = region.word(0);
 * assertEquals(counter.add(5), 0);
 * assertEquals(counter.load(), 5);
 * ```
 */
export class AtomicWord {
  readonly #access: WordAccess;
  readonly #index: number;

  /** @ignore Use {@linkcode Region.word}. */
  constructor(access: WordAccess, index: number) {
    this.#access = access;
    this.#index = index;
  }

  /**
   * Reads the word.
   *
   * @returns Its value.
   * @throws {VmciError} INVALID_RESOURCE when the region is detached.
   */
  load(): number {
    this.#access.check("word.load", false);
    return Atomics.load(this.#access.words, this.#index);
  }

  /**
   * Writes the word.
   *
   * @param value A signed 32-bit number.
   * @throws {VmciError} INVALID_RESOURCE when the region is detached; NO_ACCESS when only its creator writes it.
   */
  store(value: number): void {
    this.#access.check("word.store", true);
    Atomics.store(this.#access.words, this.#index, value);
    this.#access.changed();
  }

  /**
   * Adds to the word.
   *
   * @param value A signed 32-bit number; the sum wraps.
   * @returns What was there before.
   * @throws {VmciError} As `store`.
   */
  add(value: number): number {
    this.#access.check("word.add", true);
    const before = Atomics.add(this.#access.words, this.#index, value);
    this.#access.changed();
    return before;
  }

  /**
   * Writes the word and says what it was.
   *
   * @param value A signed 32-bit number.
   * @returns What was there before.
   * @throws {VmciError} As `store`.
   */
  exchange(value: number): number {
    this.#access.check("word.exchange", true);
    const before = Atomics.exchange(this.#access.words, this.#index, value);
    this.#access.changed();
    return before;
  }

  /**
   * Writes the word if it is what the caller thinks.
   *
   * @param expected What it should be.
   * @param value What it becomes then.
   * @returns What was there before: `expected`, if it was written.
   * @throws {VmciError} As `store`.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(4096);
   * const lock = region.word(64);
   * assertEquals(lock.compareExchange(0, 1), 0);
   * assertEquals(lock.compareExchange(0, 1), 1);
   * ```
   */
  compareExchange(expected: number, value: number): number {
    this.#access.check("word.compareExchange", true);
    const before = Atomics.compareExchange(this.#access.words, this.#index, expected, value);
    if (before === expected) this.#access.changed();
    return before;
  }

  /**
   * Waits until the word is something else.
   *
   * @param value What it is now, as far as the caller knows.
   * @param options How the wait may end.
   * @returns What it is then.
   * @throws {VmciError} TIMEOUT; INVALID_RESOURCE when the region is or gets detached. The signal's reason when it was
   * aborted.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(4096);
   * const word = region.word(0);
   * setTimeout(() => word.store(7));
   * assertEquals(await word.wait(0), 7);
   * ```
   */
  async wait(value: number, options?: WaitOptions): Promise<number> {
    await this.#access.wait("word.wait", () => this.load() !== value, options);
    return this.load();
  }

  /**
   * As {@linkcode AtomicWord.wait}, without turning the event loop.
   *
   * @param value What it is now, as far as the caller knows.
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @returns What it is then.
   * @throws {VmciError} As `wait`; WOULD_BLOCK on `memory:`.
   */
  waitSync(value: number, timeout: number = -1): number {
    this.#access.waitSync("word.waitSync", () => this.load() !== value, timeout);
    return this.load();
  }
}

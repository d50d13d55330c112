/**
 * Memory that processes of one machine share: regions as a writer and as a reader have them, and single words.
 *
 * @module
 */

import { closedOnFailure } from "../../../ffi/descriptor.ts";
import { LentMapping } from "../../../ffi/lent_mapping.ts";
import { type Mapping, mapShared } from "../../../ffi/mapping.ts";
import { addSeals, createMemfd, Seal } from "../../../ffi/memfd.ts";
import type { RegionMemory, SharedWord } from "../medium.ts";

/** The size of the memory behind one word: a page. */
export const WORD_SIZE = 4096;

/** A region's size never changes, nor do its seals. */
export const FIXED_SIZE_SEALS: number = Seal.SHRINK | Seal.GROW | Seal.SEAL;

/** A region that this process may write to: one mapping. */
export class SharedRegion implements RegionMemory {
  readonly #mapping: LentMapping;

  constructor(mapping: Mapping) {
    this.#mapping = new LentMapping(mapping, true);
  }

  get view(): ArrayBuffer {
    return this.#mapping.buffer;
  }

  get truth(): ArrayBuffer {
    return this.#mapping.buffer;
  }

  close(): boolean {
    return this.#mapping.close();
  }
}

/** A region that this process may only read: what the program gets is copied at its first stray write, page by page. */
export class ReaderRegion implements RegionMemory {
  readonly #view: LentMapping;
  readonly #truth: Mapping;

  constructor(view: Mapping, truth: Mapping) {
    this.#view = new LentMapping(view, false);
    this.#truth = truth;
  }

  get view(): ArrayBuffer {
    return this.#view.buffer;
  }

  get truth(): ArrayBuffer {
    return this.#truth.buffer;
  }

  close(): boolean {
    this.#truth.close();
    return this.#view.close();
  }
}

/** A word in a page of its own. */
export class MappedWord implements SharedWord {
  readonly word: Int32Array;
  readonly #mapping: Mapping;

  constructor(mapping: Mapping) {
    this.#mapping = mapping;
    this.word = new Int32Array(mapping.buffer, 0, 1);
  }

  close(): void {
    this.#mapping.close();
  }
}

/** Makes a word that nobody else can write. */
export function createWord(name: string): { readonly word: MappedWord; readonly fd: number } {
  const fd = createMemfd(name, WORD_SIZE);
  return closedOnFailure(fd, () => {
    const word = new MappedWord(mapShared(fd, WORD_SIZE));
    try {
      addSeals(fd, FIXED_SIZE_SEALS | Seal.FUTURE_WRITE);
      return { word, fd };
    } catch (error) {
      word.close();
      throw error;
    }
  });
}

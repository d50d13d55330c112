/**
 * Datagrams that say which they are, and whose every byte follows from that.
 *
 * @module
 */

import { MAX_PAYLOAD_SIZE } from "../../src/limits.ts";
import { Random } from "../support/simulation_random.ts";

const HEADER = 12;

/** What all payloads are cut out of. */
function pattern(seed: number): Uint8Array {
  const words = new Uint32Array(MAX_PAYLOAD_SIZE / 4 * 2);
  const random = new Random(seed);
  for (let i = 0; i < words.length; i++) words[i] = random.uint32();
  return new Uint8Array(words.buffer);
}

/** The datagrams of one sender, one after the other. */
export class Numbered {
  readonly #pattern: Uint8Array;
  readonly #sizes: Random;
  readonly #buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
  /** How many there were. */
  count = 0;

  constructor(seed: number) {
    this.#pattern = pattern(seed);
    this.#sizes = new Random(seed);
  }

  /** The next one, which is valid until the one after it. */
  next(): Uint8Array {
    const number = this.count++;
    // Most are small, some are as large as can be.
    const most = this.#sizes.oneIn(50) ? MAX_PAYLOAD_SIZE : this.#sizes.oneIn(5) ? 4096 : 256;
    const size = HEADER + this.#sizes.below(most - HEADER + 1);
    const payload = this.#buffer.subarray(0, size);
    const from = number % MAX_PAYLOAD_SIZE;
    payload.set(this.#pattern.subarray(from, from + size));
    const header = new DataView(payload.buffer);
    header.setUint32(0, number, true);
    header.setUint32(4, Math.floor(number / 2 ** 32), true);
    header.setUint32(8, size, true);
    return payload;
  }
}

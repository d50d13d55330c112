/**
 * The two rings of a queue pair, on any memory.
 *
 * The memory is a header page, the pages of the queue that is written to, another header page, and the pages of the queue
 * that is read. A header has the handle, a tail and a head, 64 bits each. Each side writes only one header: its tail of
 * the queue it writes to, and its head of the queue it reads. So what the peer has read of the own queue is in the
 * peer's header. A queue is empty when tail and head are equal; it never gets quite full.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import type { Handle } from "../handle.ts";

/** Drivers count in pages of this many bytes. */
export const PAGE_SIZE = 4096;

/** 32-bit words of a header: a tail and a head have 64 bits, of which queues of this size use the lower half. */
const Word = { context: 0, resource: 1, tail: 2, head: 4 } as const;

/**
 * How much memory a queue pair takes: its queues in whole pages, and a page for each header.
 *
 * @param produceSize The bytes of the queue that is written to.
 * @param consumeSize The bytes of the queue that is read.
 * @returns Bytes, a multiple of the page size.
 *
 * @example
 * ```ts
 * import { queuePairMemorySize } from "@vmci/vmci/device";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(queuePairMemorySize(65536, 100), (1 + 16 + 1 + 1) * 4096);
 * ```
 */
export function queuePairMemorySize(produceSize: number, consumeSize: number): number {
  return queueMemorySize(produceSize) + queueMemorySize(consumeSize);
}

/** How much memory one queue takes with its header. */
export function queueMemorySize(size: number): number {
  return PAGE_SIZE * (1 + Math.ceil(size / PAGE_SIZE));
}

/** One side's view of both queues. */
export class QueueRing {
  readonly #produceSize: number;
  readonly #consumeSize: number;
  readonly #mine: Int32Array<ArrayBuffer>;
  readonly #peers: Int32Array<ArrayBuffer>;
  readonly #produced: Uint8Array<ArrayBuffer>;
  readonly #consumed: Uint8Array<ArrayBuffer>;
  /** Where this side writes and reads next: only what the peer's header says is looked up. */
  #tail = 0;
  #head = 0;

  /**
   * @param memory The memory, as large as `queuePairMemorySize` says.
   * @param produceSize The bytes of the queue that is written to.
   * @param consumeSize The bytes of the queue that is read.
   */
  constructor(memory: Uint8Array<ArrayBuffer>, produceSize: number, consumeSize: number) {
    const { buffer, byteOffset } = memory;
    const second = byteOffset + queueMemorySize(produceSize);
    this.#produceSize = produceSize;
    this.#consumeSize = consumeSize;
    this.#mine = new Int32Array(buffer, byteOffset, PAGE_SIZE / 4);
    this.#produced = new Uint8Array(buffer, byteOffset + PAGE_SIZE, produceSize);
    this.#peers = new Int32Array(buffer, second, PAGE_SIZE / 4);
    this.#consumed = new Uint8Array(buffer, second + PAGE_SIZE, consumeSize);
  }

  /** Makes both queues empty; only before anybody else uses them. */
  initialize({ context, resource }: Handle): void {
    for (const header of [this.#mine, this.#peers]) {
      header.fill(0);
      header[Word.context] = context;
      header[Word.resource] = resource;
    }
    this.#tail = this.#head = 0;
  }

  /** Bytes that were written and not yet read by the peer. */
  get unread(): number {
    return distance(
      this.#pointer("write", this.#peers, Word.head, this.#produceSize),
      this.#tail,
      this.#produceSize,
    );
  }

  /** Bytes that can be written now. */
  get room(): number {
    return this.#produceSize === 0 ? 0 : this.#produceSize - 1 - this.unread;
  }

  /** Bytes that can be read now. */
  get available(): number {
    return distance(
      this.#head,
      this.#pointer("read", this.#peers, Word.tail, this.#consumeSize),
      this.#consumeSize,
    );
  }

  /** Bytes that the peer can write now. */
  get peersRoom(): number {
    return this.#consumeSize === 0 ? 0 : this.#consumeSize - 1 - this.available;
  }

  /** Writes as much as there is room for, and says how much. */
  write(bytes: Uint8Array): number {
    const count = Math.min(this.room, bytes.length);
    if (count === 0) return 0;
    const tail = this.#tail;
    const first = Math.min(count, this.#produceSize - tail);
    this.#produced.set(bytes.subarray(0, first), tail);
    this.#produced.set(bytes.subarray(first, count), 0);
    this.#tail = (tail + count) % this.#produceSize;
    Atomics.store(this.#mine, Word.tail, this.#tail);
    return count;
  }

  /** Reads as much as there is, up to the length of the buffer, and says how much. */
  read(into: Uint8Array): number {
    const count = Math.min(this.available, into.length);
    if (count === 0) return 0;
    const head = this.#head;
    const first = Math.min(count, this.#consumeSize - head);
    into.set(this.#consumed.subarray(head, head + first));
    into.set(this.#consumed.subarray(0, count - first), first);
    this.#head = (head + count) % this.#consumeSize;
    Atomics.store(this.#mine, Word.head, this.#head);
    return count;
  }

  /** A position; the peer may have written anything. */
  #pointer(operation: string, header: Int32Array<ArrayBuffer>, word: number, size: number): number {
    const low = Atomics.load(header, word);
    if (low >= 0 && (low < size || low === 0) && header[word + 1] === 0) return low;
    throw new VmciError("GENERIC", {
      operation,
      handle: { context: header[Word.context]! >>> 0, resource: header[Word.resource]! >>> 0 },
      reason: `the peer spoiled the queue pair: a position of ${low >>> 0} in a queue of ${size} bytes`,
    });
  }
}

function distance(from: number, to: number, size: number): number {
  return to >= from ? to - from : to + size - from;
}

/**
 * A record over a region that readers never see half written.
 *
 * @module
 */

import type { WordAccess } from "./atomic_word.ts";
import { VmciError } from "./error.ts";
import { fence } from "./fence.ts";
import type { WaitOptions } from "./lane/waiters.ts";
import type { Region } from "./region.ts";

const HEADER_SIZE = 16;
const SLOT_HEADER_SIZE = 8;

// Word indices from the record's start.
const VERSION = 0;
const BEGUN = 1;
const CAPACITY = 2;

/** A reader gives up after so many versions that were written again while he copied them. */
const MOST_TRIES = 10_000;

/**
 * How many bytes of a region a record needs.
 *
 * @param capacity The most bytes that one version of it has.
 * @returns The size in bytes, a multiple of 8.
 *
 * @example
 * ```ts
 * import { recordSize } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(recordSize(128), 288);
 * ```
 */
export function recordSize(capacity: number): number {
  return HEADER_SIZE + 2 * (SLOT_HEADER_SIZE + pad(capacity));
}

/**
 * A record in a region: one process publishes versions of it, any number read the last complete one, without locks; get
 * one from {@linkcode Region.record}. Two slots are written in turn, and an index says which is valid, so a writer who
 * dies in the middle leaves the version before it readable.
 *
 * One process publishes at a time: two would spoil each other's versions. (In a region that its creator alone writes,
 * the kernel sees to that.)
 *
 * @example
 * ```ts
 * import { openVmci, recordSize } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * using region = vmci.sharedMemory.create(recordSize(128));
 * const record = region.record();
 * assertEquals(record.read(), undefined);
 * record.publish(new TextEncoder().encode("12:00"));
 * assertEquals(new TextDecoder().decode(record.read()), "12:00");
 * ```
 */
export class RegionRecord {
  /** The most bytes that one version has. */
  readonly capacity: number;
  readonly #region: Region;
  readonly #access: WordAccess;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  /** The index of the record's first word. */
  readonly #base: number;

  /** @ignore Use {@linkcode Region.record}. */
  constructor(region: Region, access: WordAccess, bytes: Uint8Array<ArrayBuffer>, offset: number, capacity: number) {
    this.#region = region;
    this.#access = access;
    this.#bytes = bytes;
    this.#base = offset / 4;
    this.capacity = capacity;
  }

  /**
   * The number of the last complete version: 1 for the first, then counting up, modulo 2^32; 0 when there is none.
   *
   * @returns An unsigned 32-bit number.
   * @throws {VmciError} INVALID_RESOURCE when the region is detached.
   */
  get version(): number {
    this.#access.check("record.version", false);
    return Atomics.load(this.#access.words, this.#base + VERSION) >>> 0;
  }

  /**
   * Publishes a version: from now on readers get these bytes.
   *
   * @param bytes At most `capacity`; they are copied.
   * @returns The number of the version.
   * @throws {VmciError} INVALID_SIZE when it is too long; NO_ACCESS when only its creator writes the region;
   * INVALID_RESOURCE when the region is detached.
   */
  publish(bytes: Uint8Array): number {
    this.#access.check("record.publish", true);
    if (!(bytes instanceof Uint8Array)) {
      throw new VmciError("INVALID_ARGS", {
        operation: "record.publish",
        handle: this.#region.handle,
        reason: "a version is a Uint8Array",
      });
    }
    const { length } = bytes;
    if (length > this.capacity) {
      throw new VmciError("INVALID_SIZE", {
        operation: "record.publish",
        handle: this.#region.handle,
        reason: `a version has at most ${this.capacity} bytes: received ${length}`,
      });
    }
    const { words } = this.#access;
    const next = after(Atomics.load(words, this.#base + VERSION));
    Atomics.store(words, this.#base + CAPACITY, this.capacity);
    // Said before the slot is touched, so that who reads it knows that it is not what it was.
    Atomics.store(words, this.#base + BEGUN, next);
    fence();
    const slot = this.#slot(next);
    words[slot / 4] = length;
    this.#bytes.set(bytes, slot + SLOT_HEADER_SIZE);
    Atomics.store(words, this.#base + VERSION, next);
    this.#access.changed();
    return next >>> 0;
  }

  /**
   * The last complete version.
   *
   * @returns Its bytes, the caller's own copy, or `undefined` when nothing was published.
   * @throws {VmciError} INVALID_RESOURCE when the region is detached; INVALID_SIZE when the writer has another capacity
   * or wrote nonsense; UNAVAILABLE when it publishes too fast to be read.
   */
  read(): Uint8Array<ArrayBuffer> | undefined {
    const buffer = new Uint8Array(this.capacity);
    const length = this.#readInto("record.read", buffer);
    return length === undefined ? undefined : buffer.subarray(0, length);
  }

  /**
   * Puts the last complete version into a buffer of the caller's.
   *
   * @param buffer Where it goes, from its start.
   * @returns Its length in bytes, or `undefined` when nothing was published.
   * @throws {VmciError} NO_MEM when the buffer is too small; otherwise as `read`.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(4096);
   * const record = region.record(0, 64);
   * record.publish(new Uint8Array([1, 2, 3]));
   * const buffer = new Uint8Array(64);
   * assertEquals(record.readInto(buffer), 3);
   * ```
   */
  readInto(buffer: Uint8Array): number | undefined {
    return this.#readInto("record.readInto", buffer);
  }

  /**
   * Waits for another version.
   *
   * @param version The version the caller has; 0 waits for the first.
   * @param options How the wait may end.
   * @returns The number of the version that is there then.
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
   * const record = region.record(0, 64);
   * setTimeout(() => record.publish(new Uint8Array(1)));
   * assertEquals(await record.wait(0), 1);
   * ```
   */
  async wait(version: number, options?: WaitOptions): Promise<number> {
    await this.#access.wait("record.wait", () => this.version !== version, options);
    return this.version;
  }

  /**
   * As {@linkcode RegionRecord.wait}, without turning the event loop.
   *
   * @param version The version the caller has; 0 waits for the first.
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @returns The number of the version that is there then.
   * @throws {VmciError} As `wait`; WOULD_BLOCK on `memory:`.
   */
  waitSync(version: number, timeout: number = -1): number {
    this.#access.waitSync("record.waitSync", () => this.version !== version, timeout);
    return this.version;
  }

  #readInto(operation: string, buffer: Uint8Array): number | undefined {
    this.#access.check(operation, false);
    const { words } = this.#access;
    let last = 0;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const version = Atomics.load(words, this.#base + VERSION);
      if (version === 0) return undefined;
      const slot = this.#slot(version);
      const length = words[slot / 4]!;
      const capacity = Atomics.load(words, this.#base + CAPACITY);
      const sane = capacity === this.capacity && length >= 0 && length <= this.capacity;
      if (sane && length <= buffer.length) this.#copy(slot + SLOT_HEADER_SIZE, length, buffer);
      // The copy must be done before this is read. The slot is written again for the version after the next.
      fence();
      const begun = Atomics.load(words, this.#base + BEGUN);
      if (begun !== version && begun !== after(version)) {
        // A writer has finished a version before it begins the next.
        if (version === last) throw this.#nonsense(operation, `it has begun version ${begun} after ${version}`);
        last = version;
        continue;
      }
      if (!sane) {
        throw this.#nonsense(
          operation,
          capacity === this.capacity
            ? `it says that a version has ${length} bytes, of at most ${capacity}`
            : `its capacity is ${capacity}, the reader's ${this.capacity}: both must be the same`,
        );
      }
      if (length <= buffer.length) return length;
      throw new VmciError("NO_MEM", {
        operation,
        handle: this.#region.handle,
        reason: `this version has ${length} bytes, the buffer ${buffer.length}`,
      });
    }
    throw new VmciError("UNAVAILABLE", {
      operation,
      handle: this.#region.handle,
      reason: `its writer published faster than it could be read, ${MOST_TRIES} times in a row`,
    });
  }

  #slot(version: number): number {
    return this.#base * 4 + HEADER_SIZE + (version & 1) * (SLOT_HEADER_SIZE + pad(this.capacity));
  }

  #copy(from: number, length: number, into: Uint8Array): void {
    if (length > 0) into.set(this.#bytes.subarray(from, from + length));
  }

  #nonsense(operation: string, reason: string): VmciError {
    return new VmciError("INVALID_SIZE", {
      operation,
      handle: this.#region.handle,
      reason: `what its writer wrote makes no sense: ${reason}`,
    });
  }
}

/** The number of the next version. 0 is passed over, since it says that there is none; 2 has its slot. */
function after(version: number): number {
  return (version + 1) | 0 || 2;
}

function pad(size: number): number {
  return Math.ceil(size / 8) * 8;
}

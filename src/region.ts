/**
 * One attachment to a shared-memory region.
 *
 * @module
 */

import { AtomicWord, type WordAccess } from "./atomic_word.ts";
import { VmciError } from "./error.ts";
import { fence } from "./fence.ts";
import { formatHandle, type Handle } from "./handle.ts";
import type { WaitOptions } from "./lane/waiters.ts";
import { recordSize, RegionRecord } from "./region_record.ts";
import { ResultCode } from "./result_code.ts";
import type { Subject } from "./subject.ts";
import type { RegionMemory } from "./fabric/medium.ts";
import type { Session } from "./fabric/session.ts";

/** A typed array's class, for {@linkcode Region.view}. */
export interface ViewConstructor<T> {
  /** Bytes of one element. */
  readonly BYTES_PER_ELEMENT: number;
  /** Makes a view. */
  new (buffer: ArrayBuffer, byteOffset: number, length: number): T;
}

/**
 * What an attachment needs of the facet that made it.
 *
 * @ignore Internal to the library.
 */
export interface RegionOwner {
  /** The session. */
  readonly session: Session;
  /** Tells the broker; says whether this was the region's last attachment. */
  detach(attachment: Attachment): boolean;
  /** Asks the region's writers, once, to ring when they change it. */
  watch(subject: Subject & { readonly handle: Handle }): void;
  /** Rings everybody who watches the region; the change must be stored by then, in the order of Atomics. */
  notify(handle: Handle): void;
}

/**
 * One attachment, as the facet knows it when the program has forgotten the region's object.
 *
 * @ignore Internal to the library.
 */
export interface Attachment {
  /** The region. */
  readonly handle: Handle;
  /** Its memory; two attachments may share one. */
  readonly memory: RegionMemory;
  /** Whether it is still attached. */
  attached: boolean;
}

/**
 * A region this program is attached to: memory that several processes have at once. What one writes the others see
 * without any call; nothing locks and nothing orders, unless a {@linkcode Region.word} or a {@linkcode Region.record}
 * does.
 *
 * Where only its creator writes, the kernel refuses it to others. Their own stray write through a view does no harm: it
 * stays theirs, and from then on that page (4 KiB) of *their* view no longer follows the creator's. Words and records
 * are not affected by it.
 *
 * After {@linkcode Region.detach}, every view of it is empty (length 0).
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using host = await openVmci({ device: "memory:" });
 * using guest = await openVmci({ device: "memory:", contextId: 16 });
 *
 * using region = host.sharedMemory.create(128);
 * host.access.addClientPrivileges(region.handle, { context: 16, resource: 0 }, { allow: ["SM_ATTACH"] });
 * using attached = guest.sharedMemory.attach(region.handle);
 *
 * region.bytes[0] = 42;
 * assertEquals(attached.bytes[0], 42);
 * ```
 */
export class Region implements Disposable {
  /** The region's handle. */
  readonly handle: Handle;
  /** The size asked for in bytes. Whole pages are mapped, but no view reaches beyond it. */
  readonly size: number;
  /** Whether this program may write to it. */
  readonly writable: boolean;
  readonly #owner: RegionOwner;
  readonly #attachment: Attachment;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #truth: Uint8Array<ArrayBuffer>;
  readonly #access: WordAccess;

  /** @ignore Use {@linkcode SharedMemory.create} or {@linkcode SharedMemory.attach}. */
  constructor(owner: RegionOwner, attachment: Attachment, size: number, writable: boolean) {
    this.handle = attachment.handle;
    this.size = size;
    this.writable = writable;
    this.#owner = owner;
    this.#attachment = attachment;
    // From here on the views keep the buffers alive.
    this.#bytes = new Uint8Array(attachment.memory.view, 0, size);
    this.#truth = new Uint8Array(attachment.memory.truth, 0, size);
    this.#access = {
      words: new Int32Array(this.#truth.buffer, 0, Math.floor(size / 4)),
      check: (operation, writes) => this.#check(operation, writes),
      changed: () => owner.notify(attachment.handle),
      wait: (operation, condition, options) => this.#wait(operation, condition, options),
      waitSync: (operation, condition, timeout) => this.#waitSync(operation, condition, timeout),
    };
  }

  /**
   * The region's bytes.
   *
   * @returns A view of `size` bytes; the same one each time.
   * @throws {VmciError} INVALID_RESOURCE when the region is detached.
   */
  get bytes(): Uint8Array<ArrayBuffer> {
    this.#check("region.bytes", false);
    return this.#bytes;
  }

  /**
   * The memory itself.
   *
   * Where the program is allowed libc's path alone, the buffer is a whole number of 64 KiB long, with private zeroes
   * behind the region's pages, and cannot be transferred to another thread.
   *
   * @returns The buffer behind every view.
   * @throws {VmciError} INVALID_RESOURCE when the region is detached.
   */
  get buffer(): ArrayBuffer {
    this.#check("region.buffer", false);
    return this.#bytes.buffer;
  }

  /**
   * Whether it is still attached.
   *
   * @returns `false` after {@linkcode Region.detach}, and when the Vmci is closed.
   */
  get attached(): boolean {
    return this.#attachment.attached;
  }

  /**
   * A view of another type, or of a part.
   *
   * @typeParam T The view's type.
   * @param type The typed array's class, such as `Float64Array`.
   * @param offset Where it begins, in bytes: a multiple of the element's size.
   * @param length How many elements; without it, as many as fit.
   * @returns The view.
   * @throws {VmciError} INVALID_ARGS when it does not fit; INVALID_RESOURCE when the region is detached.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(64);
   * const samples = region.view(Float64Array, 16, 4);
   * samples.set([1, 2, 3, 4]);
   * assertEquals(samples.byteOffset, 16);
   * ```
   */
  view<T>(type: ViewConstructor<T>, offset: number = 0, length?: number): T {
    this.#check("region.view", false);
    const unit = type.BYTES_PER_ELEMENT;
    const count = length ?? Math.floor((this.size - offset) / unit);
    if (!isOffset(offset) || offset % unit !== 0 || !isOffset(count) || offset + count * unit > this.size) {
      throw this.#misfit("region.view", `${count} elements of ${unit} bytes at byte ${offset}`);
    }
    return new type(this.#bytes.buffer, offset, count);
  }

  /**
   * A word that several processes can change without losing a change.
   *
   * @param offset Where it is, in bytes: a multiple of 4.
   * @returns The word.
   * @throws {VmciError} INVALID_ARGS when it does not fit; INVALID_RESOURCE when the region is detached.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(64);
   * assertEquals(region.word(8).add(1), 0);
   * ```
   */
  word(offset: number): AtomicWord {
    this.#check("region.word", false);
    if (!isOffset(offset) || offset % 4 !== 0 || offset + 4 > this.size) {
      throw this.#misfit("region.word", `a word of 4 bytes at byte ${offset}`);
    }
    return new AtomicWord(this.#access, offset / 4);
  }

  /**
   * A record that readers never see half written.
   *
   * @param offset Where it begins, in bytes: a multiple of 8.
   * @param capacity The most bytes that one version has; the same for the writer and all readers. Without it, what fits
   * between `offset` and the region's end.
   * @returns The record.
   * @throws {VmciError} INVALID_ARGS when it does not fit: it needs {@linkcode recordSize} bytes; INVALID_RESOURCE when
   * the region is detached.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(4096);
   * assertEquals(region.record().capacity, 2032);
   * ```
   */
  record(offset: number = 0, capacity?: number): RegionRecord {
    this.#check("region.record", false);
    const most = Math.floor((this.size - offset - recordSize(0)) / 16) * 8;
    const bytes = capacity ?? most;
    if (!isOffset(offset) || offset % 8 !== 0 || !isOffset(bytes) || bytes === 0 || bytes > most) {
      throw this.#misfit("region.record", `a record of ${bytes} bytes (${recordSize(bytes)} in all) at byte ${offset}`);
    }
    return new RegionRecord(this, this.#access, this.#truth, offset, bytes);
  }

  /**
   * Rings those who wait for a change of the region. Words and records do it themselves; a program that writes through
   * a view does it when others should look.
   *
   * @throws {VmciError} INVALID_RESOURCE when the region is detached.
   */
  notify(): void {
    this.#check("region.notify", false);
    // What was written through a view must be seen by who parks after this has looked whether anybody is parked.
    fence();
    this.#owner.notify(this.handle);
  }

  /**
   * Waits until a condition over the region holds. It is looked at now and whenever somebody changes a word, publishes a
   * record or calls {@linkcode Region.notify}.
   *
   * @param condition Looks at the region; must not wait itself.
   * @param options How the wait may end.
   * @throws {VmciError} TIMEOUT; INVALID_RESOURCE when the region is or gets detached. The signal's reason when it was
   * aborted.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(64);
   * setTimeout(() => {
   *   region.bytes[0] = 1;
   *   region.notify();
   * });
   * await region.waitUntil(() => region.bytes[0] === 1);
   * assertEquals(region.bytes[0], 1);
   * ```
   */
  async waitUntil(condition: () => boolean, options?: WaitOptions): Promise<void> {
    await this.#wait("region.waitUntil", condition, options);
  }

  /**
   * As {@linkcode Region.waitUntil}, without turning the event loop.
   *
   * @param condition Looks at the region.
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @throws {VmciError} As `waitUntil`; WOULD_BLOCK on `memory:`.
   */
  waitUntilSync(condition: () => boolean, timeout: number = -1): void {
    this.#waitSync("region.waitUntilSync", condition, timeout);
  }

  /**
   * Detaches (`VMCISharedMem_Detach`): the memory is given back and every view of it is empty. Detaching again does
   * nothing. The region itself lives until its last attachment goes; after its creator has gone nobody new can attach.
   *
   * @returns SUCCESS (0), or SUCCESS_LAST_DETACH (3) when this was the region's last attachment.
   */
  detach(): number {
    if (!this.attached) return ResultCode.SUCCESS;
    const last = this.#owner.detach(this.#attachment);
    this.#owner.session.waiting.wake();
    return last ? ResultCode.SUCCESS_LAST_DETACH : ResultCode.SUCCESS;
  }

  /** As {@linkcode Region.detach}. */
  [Symbol.dispose](): void {
    this.detach();
  }

  async #wait(operation: string, condition: () => boolean, options: WaitOptions | undefined): Promise<void> {
    const subject = this.#watched(operation);
    await this.#owner.session.wait(subject, () => this.#holds(operation, condition), options);
  }

  #waitSync(operation: string, condition: () => boolean, timeout: number): void {
    const subject = this.#watched(operation);
    this.#owner.session.waitSync(subject, () => this.#holds(operation, condition), timeout);
  }

  /** Sees to it that who waits is rung. */
  #watched(operation: string): Subject {
    this.#check(operation, false);
    const subject = { operation, handle: this.handle };
    this.#owner.watch(subject);
    return subject;
  }

  #holds(operation: string, condition: () => boolean): true | undefined {
    this.#check(operation, false);
    return condition() ? true : undefined;
  }

  #check(operation: string, writes: boolean): void {
    if (!this.#attachment.attached) {
      throw new VmciError("INVALID_RESOURCE", {
        operation,
        handle: this.handle,
        reason: `this attachment to the region ${formatHandle(this.handle)} is detached`,
      });
    }
    if (writes && !this.writable) {
      throw new VmciError("NO_ACCESS", {
        operation,
        handle: this.handle,
        reason: `only the creator writes to the region ${formatHandle(this.handle)}`,
      });
    }
  }

  #misfit(operation: string, what: string): VmciError {
    return new VmciError("INVALID_ARGS", {
      operation,
      handle: this.handle,
      reason: `${what} do not fit into a region of ${this.size} bytes, or are not aligned`,
    });
  }
}

function isOffset(value: number): boolean {
  return Number.isInteger(value) && value >= 0;
}

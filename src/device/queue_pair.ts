/**
 * Queue pairs: two rings of bytes in memory that this process shares with a peer.
 *
 * @module
 */

import { addressOf } from "../../ffi/libc.ts";
import { type Mapping, mapTwin } from "../../ffi/mapping.ts";
import { VmciError } from "../error.ts";
import type { PeerEvent } from "../event.ts";
import { type ContextId, type Handle, handlesEqual, INVALID_ID } from "../handle.ts";
import type { WaitOptions } from "../lane/waiters.ts";
import { ResultCode } from "../result_code.ts";
import { failureOf } from "../subject.ts";
import { checkResult, deviceError } from "./device_error.ts";
import type { DeviceWaits } from "./device_waits.ts";
import type { Driver } from "./driver.ts";
import {
  OldQueuePairInfo,
  QueuePairAddressInfo,
  QueuePairDetachInfo,
  QueuePairInfo,
  QueuePairMemoryInfo,
} from "./layouts.ts";
import { mapMemory } from "./notify_byte.ts";
import { PAGE_SIZE, queueMemorySize, queuePairMemorySize, QueueRing } from "./queue_ring.ts";
import { formatVersion, VmciRequest, VmciVersion } from "./requests.ts";

/** How a queue pair is made. */
export interface QueuePairOptions {
  /** Bytes of the queue that this side writes to; one less can be in it. */
  readonly produceSize: number;
  /** Bytes of the queue that this side reads; one less can be in it. */
  readonly consumeSize: number;
  /** Its handle; of this context and a number of its own by default. To attach: the peer's handle. */
  readonly handle?: Handle | undefined;
  /** The context that may attach, or whose queue pair this is; anybody by default. The driver allows the host (2). */
  readonly peer?: ContextId | undefined;
  /** Whether only an existing queue pair is attached to. */
  readonly attach?: boolean | undefined;
  /**
   * The memory, on a page boundary and as large as `queuePairMemorySize` says: that of a region (`SharedMemory`), or
   * what else is mapped to be shared. (The engine's own memory is refused: it may be given to somebody else while the
   * driver still writes to it, and is another's than the driver's after a fork.) It may be let go at once. By default new
   * memory is made. `null`, with a version below 11.0 only: the queue pair has none yet.
   */
  readonly memory?: Uint8Array<ArrayBuffer> | null | undefined;
}

/** What the peer wants to be told; some peers look by themselves. */
export interface QueuePairSignals {
  /** Something was written into the empty queue. */
  wrote?(): void;
  /** Something was read out of the full queue. */
  read?(): void;
}

/** Whether the peer is there. */
export type PeerState = "none" | "attached" | "detached";

const ATTACH_ONLY = 1;

/** Milliseconds between two looks at a queue, when nobody tells that it changed: from, and up to. */
const FIRST_LOOK = 1;
const LONGEST_LOOK = 16;

/** A reader of the stream gets at most so many bytes at once. */
const CHUNK = 65536;

/**
 * A queue pair: a stream of bytes each way, in memory of this process that the peer shares.
 * {@linkcode VmciDevice.openQueuePair} makes it.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open();
 * device.initContext();
 * using pair = device.openQueuePair({ produceSize: 65536, consumeSize: 65536, peer: 2 });
 * await pair.write(new TextEncoder().encode("hello"));
 * for await (const bytes of pair.readable) console.log(bytes);
 * ```
 */
export class QueuePair implements Disposable {
  /** Its handle. */
  readonly handle: Handle;
  /** Bytes of the queue that this side writes to. */
  readonly produceSize: number;
  /** Bytes of the queue that this side reads. */
  readonly consumeSize: number;
  /** Whom to tell of changes. */
  signals: QueuePairSignals = {};
  readonly #driver: Driver;
  readonly #waits: DeviceWaits;
  readonly #version: number;
  readonly #done: () => void;
  readonly #mapping: Mapping | undefined;
  readonly #memory: Uint8Array<ArrayBuffer> | undefined;
  readonly #ring: QueueRing | undefined;
  #peer: PeerState = "none";
  #peerWrites = true;
  #peerReads = true;
  #open = true;
  #waiting = 0;
  /** Writes that are under way, oldest first: the bytes of several do not mix. */
  readonly #writes: object[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;

  /** @ignore Use {@linkcode VmciDevice.openQueuePair}. */
  constructor(
    driver: Driver,
    waits: DeviceWaits,
    version: number,
    handle: Handle,
    options: QueuePairOptions,
    done: () => void,
  ) {
    const { produceSize, consumeSize } = options;
    const subject = { operation: "openQueuePair", handle };
    for (const size of [produceSize, consumeSize]) {
      if (Number.isInteger(size) && size >= 0 && size <= 0x7FFF_FFFF) continue;
      throw new VmciError("INVALID_SIZE", {
        ...subject,
        reason: `a queue has 0 to 2147483647 bytes: received ${size}`,
      });
    }
    this.#driver = driver;
    this.#waits = waits;
    this.#version = version;
    this.#done = done;
    this.handle = handle;
    this.produceSize = produceSize;
    this.consumeSize = consumeSize;
    if (options.memory !== null) {
      const size = queuePairMemorySize(produceSize, consumeSize);
      this.#mapping = options.memory === undefined
        ? mapMemory(subject.operation, size)
        : mapMemoryAgain(handle, options.memory, size);
      this.#memory = new Uint8Array(this.#mapping.buffer, 0, size);
      this.#ring = new QueueRing(this.#memory, produceSize, consumeSize);
      this.#ring.initialize(handle);
    } else if (version >= VmciVersion.NO_VM_TO_VM) {
      throw new VmciError("INVALID_ARGS", {
        ...subject,
        reason: `a queue pair without memory needs a version below 11.0: ${formatVersion(version)} is agreed on`,
      });
    }
    try {
      if (version >= VmciVersion.NO_VM_TO_VM) this.#allocate(options);
      else this.#allocateOld(options);
    } catch (error) {
      this.#mapping?.close();
      throw error;
    }
  }

  /**
   * Whether the peer is there, as far as the driver's events that were received tell.
   *
   * @returns `"none"` before it attached.
   */
  get peer(): PeerState {
    return this.#peer;
  }

  /**
   * Whether it is closed.
   *
   * @returns `true` after {@linkcode QueuePair.close} and once the device is closed.
   */
  get closed(): boolean {
    return !this.#open;
  }

  /**
   * How much can be written now.
   *
   * @returns Bytes.
   * @throws {VmciError} INVALID_RESOURCE when it is closed; GENERIC when the peer spoiled the memory.
   */
  get room(): number {
    return this.#rings("room").room;
  }

  /**
   * How much can be read now.
   *
   * @returns Bytes.
   * @throws {VmciError} As `room`.
   */
  get available(): number {
    return this.#rings("available").available;
  }

  /**
   * How much was written and not yet read by the peer.
   *
   * @returns Bytes.
   * @throws {VmciError} As `room`.
   */
  get unread(): number {
    return this.#rings("unread").unread;
  }

  /**
   * Writes as much as there is room for.
   *
   * @param bytes What to write.
   * @returns How many bytes were written; 0 when the queue is full.
   * @throws {VmciError} As `room`; QUEUEPAIR_NOTATTACHED when the peer has detached.
   */
  tryWrite(bytes: Uint8Array): number {
    const ring = this.#rings("tryWrite");
    this.#assertRead("tryWrite");
    const count = ring.write(bytes);
    // Looked at only now: what the peer read in between makes the queue one that was empty.
    if (count > 0 && ring.unread <= count) this.signals.wrote?.();
    return count;
  }

  /**
   * Reads what is there.
   *
   * @param into Where to.
   * @returns How many bytes were read; 0 when the queue is empty.
   * @throws {VmciError} As `room`.
   */
  tryRead(into: Uint8Array): number {
    const ring = this.#rings("tryRead");
    const count = ring.read(into);
    if (count > 0 && ring.peersRoom <= count) this.signals.read?.();
    return count;
  }

  /**
   * Writes all of it, and waits for room, and for earlier writes, as long as that takes.
   *
   * @param bytes What to write.
   * @param options How the wait may end; what was written then stays written.
   * @throws {VmciError} As `tryWrite`; TIMEOUT. The signal's reason when it was aborted.
   */
  async write(bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    const turn = {};
    this.#writes.push(turn);
    try {
      let written = 0;
      const look = () => {
        if (this.#writes[0] !== turn) return undefined;
        return this.tryWrite(bytes.subarray(written)) || undefined;
      };
      written = look() ?? 0;
      while (written < bytes.length) written += await this.#wait("write", look, options);
    } finally {
      this.#writes.splice(this.#writes.indexOf(turn), 1);
      if (this.#writes.length > 0) this.#waits.wake();
    }
  }

  /**
   * Waits until there is something to read, and reads it.
   *
   * @param into Where to.
   * @param options How the wait may end.
   * @returns How many bytes were read, or `null` when there is nothing more and the peer has detached.
   * @throws {VmciError} As `tryRead`; TIMEOUT. The signal's reason when it was aborted.
   */
  async read(into: Uint8Array, options?: WaitOptions): Promise<number | null> {
    if (into.length === 0) return 0;
    const look = () => this.tryRead(into) || (this.#peerWrites ? undefined : -1);
    const count = await this.#wait("read", look, options);
    return count < 0 ? null : count;
  }

  /**
   * Waits until the peer has read everything.
   *
   * @param options How the wait may end.
   * @throws {VmciError} QUEUEPAIR_NOTATTACHED when the peer reads no more; TIMEOUT. The signal's reason when it was
   * aborted.
   */
  async drained(options?: WaitOptions): Promise<void> {
    const look = () => {
      if (this.unread === 0) return true;
      this.#assertRead("drained");
      return undefined;
    };
    await this.#wait("drained", look, options);
  }

  /**
   * What the peer writes, until it detaches. Cancelling it closes the queue pair.
   *
   * @returns The stream, the same one each time.
   */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= new ReadableStream({
      pull: async (controller) => {
        const bytes = new Uint8Array(CHUNK);
        const count = await this.read(bytes);
        if (count === null) controller.close();
        else controller.enqueue(bytes.slice(0, count));
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  /**
   * What the peer reads. Closing it leaves the queue pair open, for the peer to read the rest; aborting it closes it.
   *
   * @returns The stream, the same one each time.
   */
  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= new WritableStream({
      write: (bytes) => this.write(bytes),
      abort: () => this.close(),
    });
  }

  /**
   * Takes the memory back from the driver for a while, or gives it again, as is done around a suspension.
   *
   * @param mapped Whether the driver may use the memory.
   * @throws {VmciError} OBSOLETE when the agreed version is below 11.0; NOT_FOUND when the driver no longer knows it.
   */
  setMapped(mapped: boolean): void {
    const subject = { operation: "setMapped", handle: this.handle };
    this.#rings(subject.operation);
    if (this.#version < VmciVersion.NO_VM_TO_VM) {
      throw new VmciError("OBSOLETE", { ...subject, reason: "this needs version 11.0" });
    }
    const reply = this.#driver.ask(subject, VmciRequest.QUEUEPAIR_SETVA, QueuePairAddressInfo, {
      handle: this.handle,
      address: mapped ? addressOf(this.#memory!) : 0n,
      pages: mapped ? BigInt(this.#memory!.length / PAGE_SIZE) : 0n,
      version: this.#version,
    });
    checkResult(subject, reply.get("result"));
  }

  /** Looks at the queues now, for somebody who knows that they have changed. */
  wake(): void {
    this.#waits.wake();
  }

  /**
   * Detaches from the queue pair and gives the memory back; pending waits end with INVALID_RESOURCE. Closing again does
   * nothing.
   *
   * @throws {VmciError} What the driver answers, once the memory is given back.
   */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearTimeout(this.#timer);
    this.#done();
    const subject = { operation: "close", handle: this.handle };
    try {
      if (!this.#driver.open) return;
      const values = { handle: this.handle };
      const reply = this.#driver.ask(subject, VmciRequest.QUEUEPAIR_DETACH, QueuePairDetachInfo, values);
      checkResult(subject, reply.get("result"));
    } finally {
      this.#mapping?.close();
      this.#waits.wake();
    }
  }

  /** As {@linkcode QueuePair.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** @ignore An event of the driver. */
  onPeer({ type, handle }: PeerEvent): void {
    if (!handlesEqual(handle, this.handle)) return;
    this.#peer = type === "peer-attached" ? "attached" : "detached";
    this.#peerReads = this.#peerWrites = type === "peer-attached";
  }

  /** @ignore The peer has said that it writes no more. */
  endOfPeersWriting(): void {
    this.#peerWrites = false;
  }

  /** @ignore The peer has said that it reads no more. */
  endOfPeersReading(): void {
    this.#peerReads = false;
  }

  // --------------------------------------------------------------------------------------------------------------------

  #allocate(options: QueuePairOptions): void {
    const subject = { operation: "openQueuePair", handle: this.handle };
    const reply = this.#driver.ask(subject, VmciRequest.QUEUEPAIR_ALLOC, QueuePairInfo, {
      handle: this.handle,
      peer: options.peer ?? INVALID_ID,
      flags: options.attach ? ATTACH_ONLY : 0,
      produceSize: BigInt(this.produceSize),
      consumeSize: BigInt(this.consumeSize),
      address: addressOf(this.#memory!),
      pages: BigInt(this.#memory!.length / PAGE_SIZE),
      version: this.#version,
    });
    this.#allocated(reply.get("result"));
  }

  /** Before 11.0 a queue pair got its memory afterwards. */
  #allocateOld(options: QueuePairOptions): void {
    const { handle } = this;
    const subject = { operation: "openQueuePair", handle };
    const reply = this.#driver.ask(subject, VmciRequest.QUEUEPAIR_ALLOC, OldQueuePairInfo, {
      handle,
      peer: options.peer ?? INVALID_ID,
      flags: options.attach ? ATTACH_ONLY : 0,
      produceSize: BigInt(this.produceSize),
      consumeSize: BigInt(this.consumeSize),
    });
    this.#allocated(reply.get("result"));
    if (this.#memory === undefined) return;
    const address = addressOf(this.#memory);
    try {
      const memory = this.#driver.ask(subject, VmciRequest.QUEUEPAIR_SETPAGEFILE, QueuePairMemoryInfo, {
        handle,
        version: this.#version,
        produceAddress: address,
        consumeAddress: address + BigInt(queueMemorySize(this.produceSize)),
      });
      checkResult(subject, memory.get("result"));
    } catch (error) {
      this.#driver.ask(subject, VmciRequest.QUEUEPAIR_DETACH, QueuePairDetachInfo, { handle });
      throw error;
    }
  }

  #allocated(result: number): void {
    checkResult({ operation: "openQueuePair", handle: this.handle }, result, {
      INVALID_ARGS: "sizes of 0, an unknown flag, or a queue pair that has its memory already",
      NO_RESOURCES: "a queue pair has at most 128 MiB",
      NOT_FOUND: "there is no such queue pair to attach to",
      NO_ACCESS: "the queue pair was made for another peer",
    });
    if (result === ResultCode.SUCCESS_QUEUEPAIR_ATTACH) this.#peer = "attached";
  }

  #rings(operation: string): QueueRing {
    if (this.#open && this.#ring !== undefined) return this.#ring;
    throw new VmciError("INVALID_RESOURCE", {
      operation,
      handle: this.handle,
      reason: this.#open ? "this queue pair has no memory" : "this queue pair is closed",
    });
  }

  #assertRead(operation: string): void {
    if (this.#peerReads) return;
    throw new VmciError("QUEUEPAIR_NOTATTACHED", {
      operation,
      handle: this.handle,
      reason: "the peer has detached or reads no more",
    });
  }

  /** Waits for the driver's word or a peer's, and looks by itself ever less often: a peer need not say anything. */
  async #wait<T>(operation: string, look: () => T | undefined, options: WaitOptions | undefined): Promise<T> {
    this.#waiting++;
    this.#lookLater(FIRST_LOOK);
    try {
      return await this.#waits.wait({ operation, handle: this.handle }, look, options);
    } catch (error) {
      throw failureOf({ operation, handle: this.handle }, error);
    } finally {
      if (--this.#waiting === 0) clearTimeout(this.#timer);
    }
  }

  #lookLater(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#waits.wake();
      if (this.#waiting > 0 && this.#open) this.#lookLater(Math.min(2 * milliseconds, LONGEST_LOOK));
    }, milliseconds);
  }
}

/** The same pages at addresses of the library's own, which stay as long as the driver has them. */
function mapMemoryAgain(handle: Handle, memory: Uint8Array<ArrayBuffer>, size: number): Mapping {
  const subject = { operation: "openQueuePair", handle };
  if (memory.buffer.resizable || memory.length < size) {
    throw new VmciError("INVALID_SIZE", {
      ...subject,
      reason: `the memory must have at least ${size} bytes that stay: received ${memory.length}` +
        (memory.buffer.resizable ? " of a resizable buffer" : ""),
    });
  }
  if (addressOf(memory) % BigInt(PAGE_SIZE) !== 0n) {
    throw new VmciError("NOT_PAGE_ALIGNED", {
      ...subject,
      reason: `the memory must begin on a page boundary (${PAGE_SIZE} bytes); leave it out to have it made`,
    });
  }
  try {
    return mapTwin(addressOf(memory), size);
  } catch (error) {
    throw deviceError(subject, error, "the memory must be shared, as a region's is; leave it out to have it made");
  }
}

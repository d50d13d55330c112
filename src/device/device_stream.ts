/**
 * Streams between a context of the driver and the host's sockets.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import type { WaitOptions } from "../lane/waiters.ts";
import type { QueuePair } from "./queue_pair.ts";

/** One end of a stream, as Deno writes addresses of AF_VSOCK. */
export interface StreamAddress {
  /** The kind of address. */
  readonly transport: "vsock";
  /** The context. */
  readonly cid: number;
  /** The port. */
  readonly port: number;
}

/** What a stream needs of the one who made it. */
export interface StreamControl {
  /** Says that this side sends no more. */
  endOfWriting(): void;
  /** Says that the stream is over. */
  over(): void;
}

/**
 * A stream of bytes each way between a context and a socket of the host (`AF_VSOCK`, `SOCK_STREAM`), over a queue pair.
 * {@linkcode VmciDevice.connect} and {@linkcode VmciDevice.listen} make it; it has the shape of a `Deno.Conn`.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open();
 * device.initContext();
 * using stream = await device.connect({ port: 5000, timeout: 2000 });
 * await stream.write(new TextEncoder().encode("hello"));
 * await stream.closeWrite();
 * console.log(await new Response(stream.readable).text());
 * ```
 */
export class DeviceStream implements Disposable {
  /** The context's end. */
  readonly localAddr: StreamAddress;
  /** The host's end. */
  readonly remoteAddr: StreamAddress;
  readonly #pair: QueuePair;
  readonly #control: StreamControl;
  #writing = true;
  #open = true;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;

  /** @ignore Use {@linkcode VmciDevice.connect}. */
  constructor(pair: QueuePair, control: StreamControl, localAddr: StreamAddress, remoteAddr: StreamAddress) {
    this.#pair = pair;
    this.#control = control;
    this.localAddr = localAddr;
    this.remoteAddr = remoteAddr;
  }

  /**
   * The queue pair below.
   *
   * @returns The queue pair.
   */
  get queuePair(): QueuePair {
    return this.#pair;
  }

  /**
   * Waits until there is something to read, and reads it.
   *
   * @param into Where to.
   * @param options How the wait may end.
   * @returns How many bytes were read, or `null` at the end.
   * @throws {VmciError} INVALID_RESOURCE when the stream is or gets closed; TIMEOUT. The signal's reason when it was
   * aborted.
   */
  read(into: Uint8Array, options?: WaitOptions): Promise<number | null> {
    return this.#pair.read(into, options);
  }

  /**
   * Writes all of it, and waits for room as long as that takes.
   *
   * @param bytes What to write.
   * @param options How the wait may end; what was written then stays written.
   * @returns How many bytes were written: all.
   * @throws {VmciError} QUEUEPAIR_NOTATTACHED when the host reads no more; INVALID_RESOURCE after closing; TIMEOUT. The
   * signal's reason when it was aborted.
   */
  async write(bytes: Uint8Array, options?: WaitOptions): Promise<number> {
    if (!this.#writing) {
      throw new VmciError("INVALID_RESOURCE", {
        operation: "write",
        handle: this.#pair.handle,
        reason: "this side has said that it writes no more",
      });
    }
    await this.#pair.write(bytes, options);
    return bytes.length;
  }

  /**
   * Waits until the host has read everything, and says that no more will come. (What it has not read when the stream is
   * closed is lost: the memory is this side's.)
   *
   * @param options How the wait may end.
   * @throws {VmciError} QUEUEPAIR_NOTATTACHED when the host reads no more; TIMEOUT. The signal's reason when it was
   * aborted.
   */
  async closeWrite(options?: WaitOptions): Promise<void> {
    if (!this.#writing) return;
    await this.#pair.drained(options);
    this.#writing = false;
    this.#control.endOfWriting();
  }

  /**
   * What the host writes. Cancelling it closes the stream.
   *
   * @returns The stream, the same one each time.
   */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= this.#pair.readable;
  }

  /**
   * What the host reads. Closing it is {@linkcode DeviceStream.closeWrite}; aborting it closes the stream.
   *
   * @returns The stream, the same one each time.
   */
  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= new WritableStream({
      write: async (bytes) => {
        await this.write(bytes);
      },
      close: () => this.closeWrite(),
      abort: () => this.close(),
    });
  }

  /** Ends the stream at once: what the host has not read is lost. Closing again does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#control.over();
    this.#pair.close();
  }

  /** As {@linkcode DeviceStream.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

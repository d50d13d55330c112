/**
 * Connections between contexts: streams of bytes, and whole messages.
 *
 * @module
 */

import { pollDescriptor, PollEvent } from "../../ffi/poll_loop.ts";
import {
  acceptVsock,
  connectVsock as beginToConnect,
  listenVsock as beginToListen,
  readVsock,
  Shutdown,
  shutVsock,
  takeSocketError,
  vsockName,
  vsockPeer,
  writeVsock,
} from "../../ffi/vsock.ts";
import { VmciError } from "../error.ts";
import type { WaitOptions } from "../lane/waiters.ts";
import { vsockError } from "./vsock_error.ts";
import { asAddress, assertAddress, VSOCK_ANY, type VsockAddress, VsockHandle, VsockSocket } from "./vsock_socket.ts";

/** The kinds of connection. */
export type VsockConnType = "stream" | "seqpacket";

/** Where to listen for connections. */
export interface ListenVsockOptions {
  /** The port; one that is free without it. Those below 1024 are for root. */
  readonly port?: number | undefined;
  /** The own context; any of this machine's without it. */
  readonly cid?: number | undefined;
  /** The kind of connection; a stream without it. */
  readonly type?: VsockConnType | undefined;
  /** How many may wait to be accepted; 128 without it. */
  readonly backlog?: number | undefined;
}

/** Where to connect, and how the wait for it may end. */
export interface ConnectVsockOptions extends WaitOptions {
  /** The context: 2 is the host, 1 this machine itself by the loopback. */
  readonly cid: number;
  /** The port. */
  readonly port: number;
  /** The kind of connection; a stream without it. */
  readonly type?: VsockConnType | undefined;
  /** Bytes of the buffer each way, of which VMCI makes a queue pair; 262,144 without it. */
  readonly bufferSize?: number | undefined;
}

/** A chunk of what is read as a stream. */
const CHUNK = 65536;

/** What error numbers mean while nobody is connected yet. */
const connecting = {
  ECONNRESET: ["NOT_FOUND", "nobody listens there, or who does refused"],
  ECONNREFUSED: ["NOT_FOUND", "nobody listens there"],
  EINVAL: ["DST_UNREACHABLE", "there is no such context, or no way leads there"],
  EHOSTUNREACH: ["DST_UNREACHABLE", "there is no such context, or nobody listens there"],
  ETIMEDOUT: ["TIMEOUT", "nobody answered within the socket's own time (its option connectTimeout)"],
} as const;

/**
 * A connection to another context, as a `Deno.Conn`: of bytes, or of whole messages (`seqpacket`).
 *
 * @example
 * ```ts ignore
 * import { connectVsock } from "@vmci/vmci/device";
 *
 * using conn = await connectVsock({ cid: 2, port: 5000 });
 * await conn.write(new TextEncoder().encode("hello"));
 * await conn.closeWrite();
 * console.log(await new Response(conn.readable).text());
 * ```
 */
export class VsockConn extends VsockSocket {
  /** The own address. */
  readonly localAddr: VsockAddress;
  /** The address at the other end. */
  readonly remoteAddr: VsockAddress;
  readonly #handle: VsockHandle;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;
  /** The end of the last write: messages and bytes of several do not mix. */
  #written: Promise<unknown> = Promise.resolve();

  /** @ignore Use {@linkcode connectVsock} or {@linkcode VsockListener.accept}. */
  constructor(handle: VsockHandle, type: VsockConnType, localAddr: VsockAddress, remoteAddr: VsockAddress) {
    super(handle, type);
    this.#handle = handle;
    this.localAddr = localAddr;
    this.remoteAddr = remoteAddr;
  }

  /**
   * Waits until there is something to read, and reads it. Of a message, what does not fit is lost: `seqpacket` wants a
   * buffer that is large enough.
   *
   * @param into Where to; not empty.
   * @param options How the wait may end.
   * @returns How many bytes were read, or `null` at the end.
   * @throws {VmciError} DST_UNREACHABLE when the other end is gone without having said so; INVALID_RESOURCE when this
   * one is or gets closed; INVALID_ARGS for an empty buffer; TIMEOUT. The signal's reason when it was aborted.
   */
  async read(into: Uint8Array, options?: WaitOptions): Promise<number | null> {
    const subject = { operation: "read" };
    if (into.length === 0) throw new VmciError("INVALID_ARGS", { ...subject, reason: "the buffer is empty" });
    const attempt = () => this.#handle.call(subject, () => readVsock(this.#handle.fd, into));
    const size = await this.#handle.waits.wait(subject, PollEvent.IN | PollEvent.RDHUP, attempt, options);
    return size === 0 ? null : size;
  }

  /**
   * Writes: of a stream what there is room for, at least one byte; a message whole.
   *
   * @param bytes What to write.
   * @param options How the wait for room may end.
   * @returns How many bytes were written.
   * @throws {VmciError} DST_UNREACHABLE when nobody reads at the other end any more; INVALID_RESOURCE when this end is or
   * gets closed; INVALID_ARGS for a message that is larger than the buffer; TIMEOUT. The signal's reason when it was
   * aborted.
   */
  write(bytes: Uint8Array, options?: WaitOptions): Promise<number> {
    const subject = { operation: "write" };
    const attempt = () => this.#handle.call(subject, () => writeVsock(this.#handle.fd, bytes));
    return this.#handle.waits.wait(subject, PollEvent.OUT, attempt, options);
  }

  /**
   * Writes all of it, one such call after the other.
   *
   * @param bytes What to write; of `seqpacket`, one message.
   * @param options How the waits for room may end; what was written then stays written.
   * @throws {VmciError} As {@linkcode VsockConn.write}.
   */
  writeAll(bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    const done = this.#written.then(async () => {
      if (this.type === "seqpacket") return void await this.write(bytes, options);
      for (let at = 0; at < bytes.length;) at += await this.write(bytes.subarray(at), options);
    });
    this.#written = done.catch(() => {});
    return done;
  }

  /**
   * Says that this side writes no more: the other end reads what was written, and then the end.
   *
   * @returns When it is said.
   * @throws {VmciError} INVALID_RESOURCE when it is closed or no longer connected.
   */
  // deno-lint-ignore require-await
  async closeWrite(): Promise<void> {
    this.#handle.call({ operation: "closeWrite" }, () => shutVsock(this.#handle.fd, Shutdown.WRITE));
  }

  /**
   * What is read, as a stream that ends where the connection does. To cancel it closes the connection.
   *
   * @returns The stream, always the same one.
   */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: async (controller) => {
        const chunk = new Uint8Array(this.#mostAtOnce());
        const size = await this.read(chunk);
        if (size === null) controller.close();
        else controller.enqueue(chunk.subarray(0, size));
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  /**
   * What is written, as a stream; closing it is {@linkcode VsockConn.closeWrite}. To abort it closes the connection.
   *
   * @returns The stream, always the same one.
   */
  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= new WritableStream<Uint8Array>({
      write: (chunk) => this.writeAll(chunk),
      close: () => this.closeWrite(),
      abort: () => this.close(),
    });
  }

  /** A message is never larger than this side's buffer, and what does not fit into the chunk would be lost. */
  #mostAtOnce(): number {
    return this.type === "stream" ? CHUNK : Math.max(CHUNK, Number(this.getOption("bufferSize")));
  }
}

/**
 * Waits for connections, as a `Deno.Listener`. {@linkcode listenVsock} makes it.
 *
 * @example
 * ```ts ignore
 * import { listenVsock } from "@vmci/vmci/device";
 *
 * using listener = listenVsock({ port: 5000 });
 * for await (const conn of listener) conn.readable.pipeTo(conn.writable);
 * ```
 */
export class VsockListener extends VsockSocket implements AsyncIterable<VsockConn> {
  /** Where it listens. */
  readonly addr: VsockAddress;
  readonly #handle: VsockHandle;

  /** @ignore Use {@linkcode listenVsock}. */
  constructor(handle: VsockHandle, type: VsockConnType, addr: VsockAddress) {
    super(handle, type);
    this.#handle = handle;
    this.addr = addr;
  }

  /**
   * Waits for the next connection.
   *
   * @param options How the wait may end.
   * @returns The connection.
   * @throws {VmciError} INVALID_RESOURCE when the listener is or gets closed; NO_RESOURCES when this process has too many
   * descriptors: the connection then goes on waiting; TIMEOUT. The signal's reason when it was aborted.
   */
  accept(options?: WaitOptions): Promise<VsockConn> {
    const subject = { operation: "accept" };
    return this.#handle.waits.wait(subject, PollEvent.IN, () => this.#accept(subject.operation), options);
  }

  /**
   * The connections as they come, until the listener is closed.
   *
   * @returns An iterator.
   */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<VsockConn> {
    while (!this.closed) {
      let conn: VsockConn;
      try {
        conn = await this.accept();
      } catch (error) {
        if (this.closed) return;
        throw error;
      }
      yield conn;
    }
  }

  #accept(operation: string): VsockConn | undefined {
    const accepted = this.#handle.call({ operation }, () => acceptVsock(this.#handle.fd));
    if (accepted === undefined) return undefined;
    const handle = VsockHandle.adopt(accepted.fd, this.#handle.family);
    try {
      const localAddr = handle.call({ operation }, () => asAddress(vsockName(handle.fd)));
      return new VsockConn(handle, this.type as VsockConnType, localAddr, asAddress(accepted.from));
    } catch (error) {
      handle.close();
      throw error;
    }
  }
}

/**
 * Listens for connections, as `Deno.listen` does.
 *
 * @param options The port and the kind of connection.
 * @returns The listener.
 * @throws {VmciError} DUPLICATE_ENTRY when the port is taken; NO_ACCESS for a port below 1024 without the right;
 * INVALID_ARGS for a context that is not this machine's; DEVICE_NOT_FOUND when this kernel has no such sockets;
 * UNAVAILABLE when it has none of this kind, and on another system than Linux.
 *
 * @example
 * ```ts ignore
 * import { listenVsock } from "@vmci/vmci/device";
 *
 * using listener = listenVsock({ port: 5000, type: "seqpacket" });
 * using conn = await listener.accept({ signal: AbortSignal.timeout(1000) });
 * console.log(conn.remoteAddr);
 * ```
 */
export function listenVsock(options: ListenVsockOptions = {}): VsockListener {
  const operation = "listenVsock";
  const { cid = VSOCK_ANY, port = VSOCK_ANY, type = "stream", backlog = 128 } = options;
  const handle = VsockHandle.open(operation, type);
  try {
    const addr = handle.bind(operation, cid, port);
    handle.call({ operation }, () => beginToListen(handle.fd, backlog));
    return new VsockListener(handle, type, addr);
  } catch (error) {
    handle.close();
    throw error;
  }
}

/**
 * Connects to another context, as `Deno.connect` does.
 *
 * @param options Where to, and how the wait may end.
 * @returns The connection.
 * @throws {VmciError} NOT_FOUND when nobody listens there; DST_UNREACHABLE when there is no such context; TIMEOUT;
 * UNAVAILABLE when nothing leads there, or it does not carry this kind of connection; NO_ACCESS for a restricted context
 * of another user; DEVICE_NOT_FOUND when this kernel has no such sockets. The signal's reason when it was aborted.
 *
 * @example
 * ```ts ignore
 * import { connectVsock } from "@vmci/vmci/device";
 *
 * using conn = await connectVsock({ cid: 2, port: 5000, timeout: 2000 });
 * console.log(conn.localAddr);
 * ```
 */
export async function connectVsock(options: ConnectVsockOptions): Promise<VsockConn> {
  const operation = "connectVsock";
  const { cid, port, type = "stream", bufferSize, timeout, signal } = options;
  assertAddress(operation, cid, port);
  signal?.throwIfAborted();
  const handle = VsockHandle.open(operation, type);
  const subject = { operation, handle: { context: cid, resource: port } };
  try {
    // How long the kernel itself waits is beyond what is asked for here: the wait ends first.
    const settings = new Settings(handle, type);
    if (bufferSize !== undefined) settings.sizeOf(bufferSize);
    if (timeout !== undefined) settings.setOption("connectTimeout", Math.min(Math.max(1, timeout) + 1000, 1e9));
    const connected = handle.call(
      subject,
      () => beginToConnect(handle.fd, handle.family.number, { cid, port }),
      connecting,
    );
    if (!connected) {
      await handle.waits.wait(subject, PollEvent.OUT, () => {
        if (pollDescriptor(handle.fd, PollEvent.OUT, 0) === 0) return undefined;
        const error = handle.call(subject, () => takeSocketError(handle.fd, "connect"));
        if (error !== undefined) throw vsockError(subject, error, connecting);
        return true;
      }, { signal, timeout });
    }
    const localAddr = handle.call(subject, () => asAddress(vsockName(handle.fd)));
    const remoteAddr = handle.call(subject, () => asAddress(vsockPeer(handle.fd)));
    return new VsockConn(handle, type, localAddr, remoteAddr);
  } catch (error) {
    handle.close();
    throw error;
  }
}

/** A socket's options before it is connected. */
class Settings extends VsockSocket {
  /** Sets the size of the buffer, and the bounds with it. */
  sizeOf(bytes: number): void {
    if (bytes > Number(this.getOption("bufferMaxSize"))) this.setOption("bufferMaxSize", bytes);
    if (bytes < Number(this.getOption("bufferMinSize"))) this.setOption("bufferMinSize", bytes);
    this.setOption("bufferSize", bytes);
  }
}

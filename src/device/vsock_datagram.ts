/**
 * Datagrams between contexts.
 *
 * @module
 */

import { PollEvent } from "../../ffi/poll_loop.ts";
import { receiveDatagram, sendDatagram } from "../../ffi/vsock.ts";
import { VmciError } from "../error.ts";
import type { WaitOptions } from "../lane/waiters.ts";
import { MAX_DATAGRAM_SIZE, MAX_PAYLOAD_SIZE } from "../limits.ts";
import type { Subject } from "../subject.ts";
import type { Meanings } from "./vsock_error.ts";
import { asAddress, assertAddress, VSOCK_ANY, type VsockAddress, VsockHandle, VsockSocket } from "./vsock_socket.ts";

/** Where a datagram socket listens. */
export interface ListenVsockDatagramOptions {
  /** The port; one that is free without it. Those below 1024 are for root. */
  readonly port?: number | undefined;
  /** The own context; any of this machine's without it. */
  readonly cid?: number | undefined;
  /** Bytes that the kernel keeps until they are read; what comes when that is full is lost. */
  readonly receiveBuffer?: number | undefined;
}

/** What the kernel says of a context that is not there, or that nothing leads to. */
const sending: Meanings = {
  EINVAL: ["DST_UNREACHABLE", "there is no such context, or no way leads there"],
  ENODEV: ["DST_UNREACHABLE", "nothing leads to that context"],
};

/** Where datagrams are taken to: one for all sockets of a thread, made at the first. */
let arena: Uint8Array<ArrayBuffer> | undefined;

/**
 * Datagrams between contexts over `AF_VSOCK`, which VMCI carries: its ports are VMCI's resource ids. It has the shape of
 * a `Deno.DatagramConn`. Datagrams of one sender come in the order they were sent. Who sends learns when nobody has the
 * port; but when the receiver's buffer is full the datagram is lost without a word: {@linkcode VsockSocket.dropped}
 * counts those.
 *
 * @example
 * ```ts ignore
 * import { listenVsockDatagram } from "@vmci/vmci/device";
 *
 * using socket = listenVsockDatagram({ port: 5000 });
 * for await (const [payload, from] of socket) await socket.send(payload, from);
 * ```
 */
export class VsockDatagramSocket extends VsockSocket implements AsyncIterable<[Uint8Array<ArrayBuffer>, VsockAddress]> {
  /** The own address. */
  readonly addr: VsockAddress;
  readonly #handle: VsockHandle;
  /** What was taken from the kernel and did not fit into the buffer it was for. */
  #next: [Uint8Array<ArrayBuffer>, VsockAddress] | undefined;

  /** @ignore Use {@linkcode listenVsockDatagram}. */
  constructor(handle: VsockHandle, addr: VsockAddress) {
    super(handle, "datagram");
    this.#handle = handle;
    this.addr = addr;
  }

  /**
   * Sends one datagram, if the kernel takes it now; it does as a rule.
   *
   * @param payload 0 to 69,608 bytes.
   * @param to Where to: context 2 is the host, and also this machine when it is one.
   * @returns The number of bytes of the payload, or `undefined` when the kernel would wait.
   * @throws {VmciError} INVALID_RESOURCE when nobody has the port, or this socket is closed; DST_UNREACHABLE when there
   * is no such context; NO_RESOURCES when the queue of a context of `/dev/vmci` is full; NO_ACCESS for a restricted
   * context of another user; INVALID_ARGS for a payload that is too large.
   */
  trySend(payload: Uint8Array, to: { readonly cid: number; readonly port: number }): number | undefined {
    const subject = { operation: "send", handle: { context: to.cid, resource: to.port } };
    assertAddress(subject.operation, to.cid, to.port);
    if (payload.length > MAX_PAYLOAD_SIZE) {
      throw new VmciError("INVALID_ARGS", {
        ...subject,
        reason: `a payload has at most ${MAX_PAYLOAD_SIZE} bytes: received ${payload.length}`,
      });
    }
    const { fd, family } = this.#handle;
    return this.#handle.call(subject, () => sendDatagram(fd, family.number, to, payload), sending);
  }

  /**
   * Sends one datagram.
   *
   * @param payload 0 to 69,608 bytes.
   * @param to Where to.
   * @param options How a wait for the kernel may end.
   * @returns The number of bytes of the payload.
   * @throws {VmciError} As {@linkcode VsockDatagramSocket.trySend}; TIMEOUT. The signal's reason when it was aborted.
   */
  send(
    payload: Uint8Array,
    to: { readonly cid: number; readonly port: number },
    options?: WaitOptions,
  ): Promise<number> {
    const subject = { operation: "send", handle: { context: to.cid, resource: to.port } };
    return this.#handle.waits.wait(subject, PollEvent.OUT, () => this.trySend(payload, to), options);
  }

  /**
   * The next datagram, if there is one.
   *
   * @param into Where its payload goes; without it, into memory of its own.
   * @returns The payload, in the buffer given where there is one, and its sender; `undefined` when there is none.
   * @throws {VmciError} NO_MEM when the buffer is too small: that datagram stays, and is the next one; INVALID_RESOURCE
   * when the socket is closed.
   */
  tryReceive(into?: Uint8Array<ArrayBuffer>): [Uint8Array<ArrayBuffer>, VsockAddress] | undefined {
    return this.#take({ operation: "receive" }, into);
  }

  /**
   * Waits for the next datagram.
   *
   * @param into Where its payload goes; without it, into memory of its own.
   * @param options How the wait may end.
   * @returns The payload, in the buffer given where there is one, and its sender.
   * @throws {VmciError} As {@linkcode VsockDatagramSocket.tryReceive}; TIMEOUT. The signal's reason when it was aborted.
   *
   * @example
   * ```ts ignore
   * import { listenVsockDatagram } from "@vmci/vmci/device";
   *
   * using socket = listenVsockDatagram();
   * const [payload, from] = await socket.receive(undefined, { timeout: 1000 });
   * console.log(payload.length, from.cid, from.port);
   * ```
   */
  receive(
    into?: Uint8Array<ArrayBuffer>,
    options?: WaitOptions,
  ): Promise<[Uint8Array<ArrayBuffer>, VsockAddress]> {
    const subject = { operation: "receive" };
    return this.#handle.waits.wait(subject, PollEvent.IN, () => this.#take(subject, into), options);
  }

  /**
   * As {@linkcode VsockDatagramSocket.receive}, without turning the event loop.
   *
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @returns The payload and its sender.
   * @throws {VmciError} As `receive`.
   */
  receiveSync(timeout: number = -1): [Uint8Array<ArrayBuffer>, VsockAddress] {
    const subject = { operation: "receiveSync" };
    return this.#handle.waits.waitSync(subject, PollEvent.IN, () => this.#take(subject, undefined), timeout);
  }

  /**
   * The datagrams as they come, until the socket is closed.
   *
   * @returns An iterator.
   */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<[Uint8Array<ArrayBuffer>, VsockAddress]> {
    while (!this.closed) {
      let datagram: [Uint8Array<ArrayBuffer>, VsockAddress];
      try {
        datagram = await this.receive();
      } catch (error) {
        if (this.closed) return;
        throw error;
      }
      yield datagram;
    }
  }

  /**
   * The descriptor, for those who wait for several at once.
   *
   * @ignore Internal to the library.
   */
  get descriptor(): number {
    return this.#handle.fd;
  }

  #take(
    subject: Subject,
    into: Uint8Array<ArrayBuffer> | undefined,
  ): [Uint8Array<ArrayBuffer>, VsockAddress] | undefined {
    this.#handle.assertOpen(subject);
    const next = this.#next ?? this.#takeFromKernel(subject);
    if (next === undefined) return undefined;
    const [payload, from] = next;
    if (into === undefined) {
      this.#next = undefined;
      return next;
    }
    if (payload.length > into.length) {
      if (this.#next === undefined) {
        this.#next = next;
        // Others who wait are not told by the kernel, which no longer has it.
        queueMicrotask(() => this.#handle.waits.lookAgain());
      }
      throw new VmciError("NO_MEM", {
        ...subject,
        reason: `the next datagram has ${payload.length} bytes, the buffer ${into.length}; ` +
          `${MAX_PAYLOAD_SIZE} always suffice`,
      });
    }
    this.#next = undefined;
    into.set(payload);
    return [into.subarray(0, payload.length), from];
  }

  #takeFromKernel(subject: Subject): [Uint8Array<ArrayBuffer>, VsockAddress] | undefined {
    const buffer = arena ??= new Uint8Array(new ArrayBuffer(MAX_DATAGRAM_SIZE));
    const received = this.#handle.call(subject, () => receiveDatagram(this.#handle.fd, buffer));
    return received === undefined ? undefined : [buffer.slice(0, received.size), asAddress(received.from)];
  }
}

/**
 * Opens a socket for datagrams, as `Deno.listenDatagram` does.
 *
 * @param options The port, and how much the kernel keeps.
 * @returns The socket.
 * @throws {VmciError} DUPLICATE_ENTRY when the port is taken; NO_ACCESS for a port below 1024 without the right;
 * INVALID_ARGS for a context that is not this machine's; DEVICE_NOT_FOUND when this kernel has no such sockets;
 * UNAVAILABLE when it has none for datagrams, and on another system than Linux.
 *
 * @example
 * ```ts ignore
 * import { listenVsockDatagram } from "@vmci/vmci/device";
 *
 * using socket = listenVsockDatagram();
 * await socket.send(new TextEncoder().encode("hello"), { cid: 2, port: 5000 });
 * ```
 */
export function listenVsockDatagram(options: ListenVsockDatagramOptions = {}): VsockDatagramSocket {
  const operation = "listenVsockDatagram";
  const handle = VsockHandle.open(operation, "datagram");
  try {
    const { cid = VSOCK_ANY, port = VSOCK_ANY, receiveBuffer } = options;
    const addr = handle.bind(operation, cid, port);
    const socket = new VsockDatagramSocket(handle, addr);
    if (receiveBuffer !== undefined) socket.setReceiveBuffer(receiveBuffer);
    return socket;
  } catch (error) {
    handle.close();
    throw error;
  }
}

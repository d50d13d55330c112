/**
 * What every socket of the family has: an address, options, and an end.
 *
 * @module
 */

import { closeDescriptor } from "../../ffi/descriptor.ts";
import { letGo } from "../../ffi/poll_loop.ts";
import {
  bindVsock,
  droppedBySocket,
  getSocketOption,
  openVsock,
  setSocketOption,
  SocketOption,
  SocketType,
  vsockName,
} from "../../ffi/vsock.ts";
import { VmciError } from "../error.ts";
import { INVALID_ID, isId } from "../handle.ts";
import type { Subject } from "../subject.ts";
import { SocketWaits } from "./socket_waits.ts";
import { type Meanings, vsockError } from "./vsock_error.ts";
import { type VsockFamily, vsockFamily } from "./vsock_family.ts";
import {
  decodeOption,
  encodeOption,
  optionSize,
  type VsockOptionName,
  vsockOptions,
  type VsockOptionValue,
} from "./vsock_option.ts";

/** An address of the family, as Deno writes it. */
export interface VsockAddress {
  /** The kind of address. */
  readonly transport: "vsock";
  /** The context. */
  readonly cid: number;
  /** The port. */
  readonly port: number;
}

/** The kinds of socket by name: datagrams, a stream of bytes, or whole messages over a connection. */
export type VsockType = "datagram" | "stream" | "seqpacket";

/** Any context, or any port: the kernel chooses. */
export const VSOCK_ANY: number = INVALID_ID;

const types: Readonly<Record<VsockType, number>> = {
  datagram: SocketType.DGRAM,
  stream: SocketType.STREAM,
  seqpacket: SocketType.SEQPACKET,
};

/** Closes the sockets that a program forgot. */
const forgotten = new FinalizationRegistry<number>((fd) => closeDescriptor(fd));

/** A socket's descriptor with what belongs to it; what the classes below share. */
export class VsockHandle {
  /** The descriptor. */
  readonly fd: number;
  /** The family. */
  readonly family: VsockFamily;
  /** All waits. */
  readonly waits: SocketWaits;
  #open = true;

  private constructor(fd: number, family: VsockFamily) {
    this.fd = fd;
    this.family = family;
    this.waits = new SocketWaits(fd);
    forgotten.register(this, fd, this);
  }

  /** Makes a socket. */
  static open(operation: string, type: VsockType): VsockHandle {
    try {
      const family = vsockFamily();
      return new VsockHandle(openVsock(family.number, types[type]), family);
    } catch (error) {
      throw vsockError({ operation }, error);
    }
  }

  /** Takes over a socket that was accepted. */
  static adopt(fd: number, family: VsockFamily): VsockHandle {
    return new VsockHandle(fd, family);
  }

  /** Whether it is open. */
  get open(): boolean {
    return this.#open;
  }

  /** Throws INVALID_RESOURCE when it is closed. */
  assertOpen(subject: Subject): void {
    if (this.#open) return;
    throw new VmciError("INVALID_RESOURCE", { ...subject, reason: "the socket is closed" });
  }

  /** Makes a call; its failure is told as the SDK's. */
  call<T>(subject: Subject, act: () => T, here?: Meanings): T {
    this.assertOpen(subject);
    try {
      return act();
    } catch (error) {
      throw vsockError(subject, error, here);
    }
  }

  /** Gives it an address, and says which. */
  bind(operation: string, cid: number, port: number): VsockAddress {
    assertAddress(operation, cid, port);
    return this.call({ operation: `${operation} ${cid === VSOCK_ANY ? "" : `${cid}:`}${port}` }, () => {
      bindVsock(this.fd, this.family.number, { cid, port });
      return asAddress(vsockName(this.fd));
    });
  }

  /** Closes it: pending waits end with INVALID_RESOURCE. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    forgotten.unregister(this);
    this.waits.failAll((subject) =>
      new VmciError("INVALID_RESOURCE", { ...subject, reason: "the socket was closed meanwhile" })
    );
    letGo(this.fd);
    closeDescriptor(this.fd);
  }
}

/** An address with the word that says what it is. */
export function asAddress({ cid, port }: { readonly cid: number; readonly port: number }): VsockAddress {
  return { transport: "vsock", cid, port };
}

/** Throws INVALID_ARGS for what is no address. */
export function assertAddress(operation: string, cid: number, port: number): void {
  for (const [what, value] of [["cid", cid], ["port", port]] as const) {
    if (isId(value)) continue;
    throw new VmciError("INVALID_ARGS", {
      operation,
      reason: `the ${what} must be a whole number from 0 to 4294967295: received ${value}`,
    });
  }
}

/**
 * A socket between contexts (`AF_VSOCK`): what {@linkcode listenVsockDatagram}, {@linkcode listenVsock} and
 * {@linkcode connectVsock} give. It does not wait in a thread of its own: all waits of all sockets share one.
 *
 * @example
 * ```ts ignore
 * import { connectVsock } from "@vmci/vmci/device";
 *
 * using socket = await connectVsock({ cid: 2, port: 5000, timeout: 1000 });
 * console.log(socket.type, socket.localAddr, socket.getOption("bufferSize")); // 262144
 * ```
 */
export abstract class VsockSocket implements Disposable {
  /** Which kind it is. */
  readonly type: VsockType;
  readonly #handle: VsockHandle;

  /** @ignore Use the functions that make sockets. */
  constructor(handle: VsockHandle, type: VsockType) {
    this.#handle = handle;
    this.type = type;
  }

  /**
   * Whether it is closed.
   *
   * @returns `true` after {@linkcode VsockSocket.close}.
   */
  get closed(): boolean {
    return !this.#handle.open;
  }

  /**
   * Reads one of the family's options.
   *
   * @param name The option.
   * @returns Its value: a number, milliseconds where it is a time, or a text.
   * @throws {VmciError} UNAVAILABLE when the sockets of this machine do not have it, or not for this kind of socket;
   * INVALID_RESOURCE when the socket is closed.
   *
   * @example
   * ```ts ignore
   * import { listenVsock } from "@vmci/vmci/device";
   *
   * using listener = listenVsock({ port: 5000 });
   * console.log(listener.getOption("connectTimeout")); // 2000
   * ```
   */
  getOption(name: VsockOptionName): VsockOptionValue {
    const subject = { operation: `getOption ${name}` };
    const { number, form } = this.#option(subject, name);
    const handle = this.#handle;
    const bytes = handle.call(
      subject,
      () => getSocketOption(handle.fd, handle.family.number, number, optionSize(form)),
    );
    const value = decodeOption(form, bytes);
    if (value !== undefined) return value;
    throw new VmciError("GENERIC", { ...subject, reason: `the kernel gives ${bytes.length} bytes, too few for it` });
  }

  /**
   * Sets one of the family's options.
   *
   * @param name The option.
   * @param value Its value.
   * @throws {VmciError} UNAVAILABLE when the sockets of this machine do not have it, or it cannot be set; INVALID_ARGS
   * for a value that it cannot have; INVALID_RESOURCE when the socket is closed.
   *
   * @example
   * ```ts ignore
   * import { connectVsock } from "@vmci/vmci/device";
   *
   * using socket = await connectVsock({ cid: 2, port: 5000 });
   * socket.setOption("bufferSize", 131072);
   * ```
   */
  setOption(name: VsockOptionName, value: VsockOptionValue): void {
    const subject = { operation: `setOption ${name}` };
    const { number, form, settable } = this.#option(subject, name);
    if (!settable) throw new VmciError("UNAVAILABLE", { ...subject, reason: "this option can only be read" });
    const bytes = encodeOption(form, value);
    if (bytes === undefined) {
      throw new VmciError("INVALID_ARGS", { ...subject, reason: `${value} is no value of the form ${form}` });
    }
    const handle = this.#handle;
    handle.call(subject, () => setSocketOption(handle.fd, handle.family.number, number, bytes));
  }

  /**
   * How much the kernel keeps for this socket until it is read.
   *
   * @returns Bytes, the kernel's own for each message included.
   * @throws {VmciError} INVALID_RESOURCE when the socket is closed.
   */
  get receiveBuffer(): number {
    const { RECEIVE_BUFFER, LEVEL } = SocketOption;
    const bytes = this.#handle.call(
      { operation: "receiveBuffer" },
      () => getSocketOption(this.#handle.fd, LEVEL, RECEIVE_BUFFER, 4),
    );
    return new DataView(bytes.buffer).getInt32(0, true);
  }

  /**
   * Sets how much the kernel keeps for this socket until it is read. It gives twice what is asked for, at most twice
   * `/proc/sys/net/core/rmem_max`; root gets more.
   *
   * @param bytes Bytes.
   * @returns What the kernel gave, as {@linkcode VsockSocket.receiveBuffer}.
   * @throws {VmciError} INVALID_ARGS for no number of bytes; INVALID_RESOURCE when the socket is closed.
   */
  setReceiveBuffer(bytes: number): number {
    const subject = { operation: "setReceiveBuffer" };
    const value = encodeOption("i32", bytes);
    if (value === undefined) throw new VmciError("INVALID_ARGS", { ...subject, reason: `${bytes} is no size` });
    const { RECEIVE_BUFFER, RECEIVE_BUFFER_FORCE, LEVEL } = SocketOption;
    const handle = this.#handle;
    handle.call(subject, () => {
      try {
        setSocketOption(handle.fd, LEVEL, RECEIVE_BUFFER_FORCE, value);
      } catch {
        // Only who may administer the network goes above the limit.
        setSocketOption(handle.fd, LEVEL, RECEIVE_BUFFER, value);
      }
    });
    return this.receiveBuffer;
  }

  /**
   * How many messages the kernel dropped since the receive buffer was full.
   *
   * @returns The number since the socket was made; `undefined` when the kernel does not count (before 4.12).
   * @throws {VmciError} INVALID_RESOURCE when the socket is closed.
   */
  get dropped(): number | undefined {
    return this.#handle.call({ operation: "dropped" }, () => droppedBySocket(this.#handle.fd));
  }

  /** Closes it; pending waits end with INVALID_RESOURCE. Closing again does nothing. */
  close(): void {
    this.#handle.close();
  }

  /** As {@linkcode VsockSocket.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #option(subject: Subject, name: VsockOptionName): (typeof vsockOptions)[VsockOptionName] {
    this.#handle.assertOpen(subject);
    if (!Object.hasOwn(vsockOptions, name)) {
      throw new VmciError("INVALID_ARGS", { ...subject, reason: `there is no option '${name}'` });
    }
    const option = vsockOptions[name];
    const { generation } = this.#handle.family;
    if (option.generation === undefined || option.generation === generation) return option;
    throw new VmciError("UNAVAILABLE", {
      ...subject,
      reason: generation === "linux"
        ? "VMware's own sockets have that option, Linux's do not"
        : "Linux's sockets have that option, VMware's own do not",
    });
  }
}

/**
 * Sockets between virtual machines and their host, `AF_VSOCK`: their addresses, calls and options.
 *
 * Every socket made here is close-on-exec and non-blocking. A call that would have to wait gives `undefined`.
 *
 * @module
 */

import { requestOf } from "./ioctl.ts";
import { check, Errno, errno, isShortage, libc, pause, SystemError } from "./libc.ts";

/** The kinds of socket. */
export const SocketType = {
  /** A stream of bytes. */
  STREAM: 1,
  /** Whole messages, without a connection. */
  DGRAM: 2,
  /** Whole messages over a connection. */
  SEQPACKET: 5,
} as const;

/** Which direction of a connection is shut. */
export const Shutdown = {
  /** Nothing more is read. */
  READ: 0,
  /** Nothing more is written. */
  WRITE: 1,
  /** Neither. */
  BOTH: 2,
} as const;

/** Options at the level of sockets of any family. */
export const SocketOption = {
  /** The level itself. */
  LEVEL: 1,
  /** An error that came later, an `int`; asking takes it. */
  ERROR: 4,
  /** Bytes of the receive buffer, an `int`; the kernel gives twice what was asked for. */
  RECEIVE_BUFFER: 8,
  /** The same without the system's limit, for who may administer the network. */
  RECEIVE_BUFFER_FORCE: 33,
  /** What a socket's memory is used for, nine words. */
  MEMORY_INFO: 55,
} as const;

const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const NON_BLOCKING = SOCK_NONBLOCK | SOCK_CLOEXEC;

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** `EINPROGRESS` and what else says that a connection is on its way. */
const EINPROGRESS = 115;
const EALREADY = 114;

/** Milliseconds for which something is tried again when the kernel lacks the memory for it. */
const SHORTAGE = 100;

/** Where in the nine words of {@linkcode SocketOption.MEMORY_INFO} is how often something was dropped. */
const MEMORY_INFO = { SIZE: 36, drops: 8 } as const;

/** `struct sockaddr_vm`: 16 bytes. Everything is in the machine's own order of bytes. */
const SockaddrVm = { SIZE: 16, family: 0, port: 4, cid: 8, flags: 12 } as const;

/** An address of the family. */
export interface VsockName {
  /** The context. */
  readonly cid: number;
  /** The port. */
  readonly port: number;
  /** Flags, 0 as a rule; 1 sends to the host what a nested virtual machine sends. */
  readonly flags?: number;
}

/**
 * An address as the kernel takes it.
 *
 * @param family The number of the family, 40 as a rule.
 * @param name The address.
 * @returns `struct sockaddr_vm`.
 */
export function encodeVsockName(family: number, { cid, port, flags = 0 }: VsockName): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(SockaddrVm.SIZE));
  const view = new DataView(bytes.buffer);
  view.setUint16(SockaddrVm.family, family, true);
  view.setUint32(SockaddrVm.port, port, true);
  view.setUint32(SockaddrVm.cid, cid, true);
  view.setUint8(SockaddrVm.flags, flags);
  return bytes;
}

/**
 * An address as the kernel gave it.
 *
 * @param bytes `struct sockaddr_vm`, at least 12 bytes of it.
 * @returns The address.
 */
export function decodeVsockName(bytes: Uint8Array<ArrayBuffer>): Required<VsockName> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    cid: view.getUint32(SockaddrVm.cid, true),
    port: view.getUint32(SockaddrVm.port, true),
    flags: bytes.length > SockaddrVm.flags ? view.getUint8(SockaddrVm.flags) : 0,
  };
}

/** Where the kernel writes addresses; calls are synchronous, so one serves all. */
const name = new Uint8Array(new ArrayBuffer(SockaddrVm.SIZE));
const nameLength = new Uint32Array(new ArrayBuffer(4));

/**
 * Makes a socket.
 *
 * @param family The number of the family.
 * @param type Of {@linkcode SocketType}.
 * @returns The descriptor.
 * @throws {SystemError} EAFNOSUPPORT when the kernel has no such family; ESOCKTNOSUPPORT, ENODEV; EMFILE.
 */
export function openVsock(family: number, type: number): number {
  return check(libc.socket(family, type | NON_BLOCKING, 0), "socket");
}

/**
 * Gives a socket its address.
 *
 * @param fd The socket.
 * @param family The number of the family.
 * @param at The address; a cid or port of 0xFFFFFFFF leaves it to the kernel.
 * @throws {SystemError} EADDRINUSE; EADDRNOTAVAIL for another machine's cid; EACCES for a port below 1024.
 */
export function bindVsock(fd: number, family: number, at: VsockName): void {
  check(libc.bind(fd, encodeVsockName(family, at), SockaddrVm.SIZE), "bind");
}

/**
 * Takes connections from now on.
 *
 * @param fd The socket.
 * @param backlog How many may wait to be accepted.
 * @throws {SystemError} EINVAL for a socket without an address; EOPNOTSUPP.
 */
export function listenVsock(fd: number, backlog: number): void {
  check(libc.listen(fd, backlog), "listen");
}

/**
 * Begins to connect, or says where a socket sends to. Whether that came to something says {@linkcode takeSocketError}
 * when the socket can be written to.
 *
 * @param fd The socket.
 * @param family The number of the family.
 * @param to The address.
 * @returns Whether it is connected already.
 * @throws {SystemError} ENODEV without a transport; ETIMEDOUT, ECONNRESET, EINVAL and the like.
 */
export function connectVsock(fd: number, family: number, to: VsockName): boolean {
  const address = encodeVsockName(family, to);
  const result = libc.connect(fd, address, SockaddrVm.SIZE);
  const error = errno();
  if (result !== -1) return true;
  // Interrupted, it goes on without us.
  if (error === EINPROGRESS || error === EALREADY || error === Errno.EINTR) return false;
  throw new SystemError(error, "connect");
}

/**
 * The next connection that waits.
 *
 * @param fd The listening socket.
 * @returns Its descriptor and who it is, or `undefined` when none waits.
 * @throws {SystemError} EMFILE and the like.
 */
export function acceptVsock(fd: number): { readonly fd: number; readonly from: VsockName } | undefined {
  while (true) {
    nameLength[0] = SockaddrVm.SIZE;
    const result = libc.accept4_from(fd, name, nameLength, NON_BLOCKING);
    const error = errno();
    if (result !== -1) return { fd: result, from: decodeVsockName(name) };
    if (error === Errno.EAGAIN) return undefined;
    if (error !== Errno.EINTR && error !== Errno.ECONNABORTED) throw new SystemError(error, "accept4");
  }
}

/**
 * Sends one datagram.
 *
 * @param fd The socket.
 * @param family The number of the family.
 * @param to Where to.
 * @param payload What.
 * @returns How many bytes were sent; `undefined` when the kernel would have to wait.
 * @throws {SystemError} EHOSTUNREACH when the port is nobody's; EINVAL for a context that is not there; EMSGSIZE;
 * ENOBUFS when the receiver's queue is full; EPERM.
 */
export function sendDatagram(fd: number, family: number, to: VsockName, payload: Uint8Array): number | undefined {
  const address = encodeVsockName(family, to);
  const size = BigInt(payload.length);
  while (true) {
    const result = libc.sendto(fd, payload, size, MSG_DONTWAIT | MSG_NOSIGNAL, address, SockaddrVm.SIZE);
    const error = errno();
    if (result !== -1) return result;
    if (error === Errno.EAGAIN) return undefined;
    if (error !== Errno.EINTR) throw new SystemError(error, "sendto");
  }
}

/** A datagram that was received into a buffer of the caller's. */
export interface ReceivedDatagram {
  /** How many bytes of the buffer it took. */
  readonly size: number;
  /** Who sent it. */
  readonly from: VsockName;
}

/**
 * The next datagram.
 *
 * @param fd The socket.
 * @param into Where to; what does not fit is lost, and nothing says so.
 * @returns Its size and sender, or `undefined` when none is there.
 * @throws {SystemError} ENOMEM when the kernel has had no memory for long; EBADF and the like.
 */
export function receiveDatagram(fd: number, into: Uint8Array): ReceivedDatagram | undefined {
  for (let tries = 0;;) {
    nameLength[0] = SockaddrVm.SIZE;
    const size = libc.recvfrom(fd, into, BigInt(into.length), MSG_DONTWAIT, name, nameLength);
    const error = errno();
    if (size !== -1) return { size, from: decodeVsockName(name) };
    if (error === Errno.EAGAIN) return undefined;
    if (isShortage(error) && tries++ < SHORTAGE) pause();
    else if (error !== Errno.EINTR) throw new SystemError(error, "recvfrom");
  }
}

/**
 * Writes to a connection, as much as there is room for; of a message all or nothing.
 *
 * @param fd The socket.
 * @param bytes What to write.
 * @returns How many bytes were written; `undefined` when there is no room now.
 * @throws {SystemError} EPIPE, ECONNRESET, ENOTCONN; EMSGSIZE.
 */
export function writeVsock(fd: number, bytes: Uint8Array): number | undefined {
  return tried("send", () => libc.send(fd, bytes, BigInt(bytes.length), MSG_DONTWAIT | MSG_NOSIGNAL));
}

/**
 * Reads from a connection.
 *
 * @param fd The socket.
 * @param into Where to.
 * @returns How many bytes were read, 0 at the end; `undefined` when nothing is there now.
 * @throws {SystemError} ECONNRESET, ENOTCONN.
 */
export function readVsock(fd: number, into: Uint8Array): number | undefined {
  return tried("recv", () => libc.recv(fd, into, BigInt(into.length), MSG_DONTWAIT));
}

function tried(call: string, attempt: () => number): number | undefined {
  while (true) {
    const result = attempt();
    const error = errno();
    if (result !== -1) return result;
    if (error === Errno.EAGAIN) return undefined;
    if (error !== Errno.EINTR) throw new SystemError(error, call);
  }
}

/**
 * Shuts a connection in one direction or both.
 *
 * @param fd The socket.
 * @param how Of {@linkcode Shutdown}.
 * @throws {SystemError} ENOTCONN.
 */
export function shutVsock(fd: number, how: number): void {
  check(libc.shutdown(fd, how), "shutdown");
}

/**
 * A socket's own address.
 *
 * @param fd The socket.
 * @returns The address.
 */
export function vsockName(fd: number): VsockName {
  nameLength[0] = SockaddrVm.SIZE;
  check(libc.getsockname(fd, name, nameLength), "getsockname");
  return decodeVsockName(name);
}

/**
 * The address at the other end.
 *
 * @param fd The socket.
 * @returns The address.
 * @throws {SystemError} ENOTCONN.
 */
export function vsockPeer(fd: number): VsockName {
  nameLength[0] = SockaddrVm.SIZE;
  check(libc.getpeername(fd, name, nameLength), "getpeername");
  return decodeVsockName(name);
}

/**
 * Reads an option.
 *
 * @param fd The socket.
 * @param level The option's level.
 * @param option The option's number at that level.
 * @param size How many bytes it has at most.
 * @returns Its value; shorter than asked for where the kernel gives less.
 * @throws {SystemError} ENOPROTOOPT, EOPNOTSUPP.
 */
export function getSocketOption(fd: number, level: number, option: number, size: number): Uint8Array<ArrayBuffer> {
  const value = new Uint8Array(new ArrayBuffer(size));
  const length = new Uint32Array([size]);
  check(libc.getsockopt(fd, level, option, value, length), "getsockopt");
  return value.subarray(0, length[0]);
}

/**
 * Sets an option.
 *
 * @param fd The socket.
 * @param level The option's level.
 * @param option The option's number at that level.
 * @param value Its value, as the kernel takes it.
 * @throws {SystemError} ENOPROTOOPT, EOPNOTSUPP; EINVAL; EPERM.
 */
export function setSocketOption(fd: number, level: number, option: number, value: Uint8Array<ArrayBuffer>): void {
  check(libc.setsockopt(fd, level, option, value, value.length), "setsockopt");
}

/**
 * The error that a socket met meanwhile; asking takes it.
 *
 * @param fd The socket.
 * @param call Which call the error belongs to.
 * @returns The error, or `undefined` when there was none.
 */
export function takeSocketError(fd: number, call: string): SystemError | undefined {
  const value = getSocketOption(fd, SocketOption.LEVEL, SocketOption.ERROR, 4);
  const error = new DataView(value.buffer).getInt32(0, true);
  return error === 0 ? undefined : new SystemError(error, call);
}

/**
 * How many messages the kernel dropped because a socket's receive buffer was full.
 *
 * @param fd The socket.
 * @returns The number since the socket was made, modulo 2^32; `undefined` when the kernel does not count.
 */
export function droppedBySocket(fd: number): number | undefined {
  try {
    const value = getSocketOption(fd, SocketOption.LEVEL, SocketOption.MEMORY_INFO, MEMORY_INFO.SIZE);
    return value.length < MEMORY_INFO.SIZE
      ? undefined
      : new DataView(value.buffer).getUint32(4 * MEMORY_INFO.drops, true);
  } catch (error) {
    // Kernels before 4.12 have no such option.
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}

/** The requests that `/dev/vsock` answers. */
export const VsockRequest = {
  /** The version of VMware's module, which Linux's own does not say. */
  VERSION: 0x7b4,
  /** The family's number, of VMware's module. */
  GET_AF_VALUE: 0x7b8,
  /** The context id of this machine. */
  GET_LOCAL_CID: 0x7b9,
} as const;

/**
 * Asks for a number through a descriptor of `/dev/vsock`.
 *
 * @param fd The descriptor.
 * @param request Of {@linkcode VsockRequest}.
 * @returns The number.
 * @throws {SystemError} ENOTTY or EINVAL when it has no such request.
 */
export function askVsock(fd: number, request: number): number {
  const word = new Uint8Array(new ArrayBuffer(4));
  const result = requestOf(fd, request, word);
  // VERSION and GET_AF_VALUE of some generations answer by the result, the others by the word.
  const value = new DataView(word.buffer).getUint32(0, true);
  return value === 0 ? result : value;
}

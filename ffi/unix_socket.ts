/**
 * Unix sockets: packets that carry descriptors, and bells of one byte.
 *
 * Every socket made here is close-on-exec and non-blocking; who must wait does so in {@linkcode waitReadable}, which
 * has a bound.
 *
 * @module
 */

import { closeDescriptor } from "./descriptor.ts";
import {
  addressOf,
  check,
  cString,
  Errno,
  errno,
  isShortage,
  libc,
  pause,
  SystemError,
  uninterrupted,
  waitThroughSignals,
} from "./libc.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const NON_BLOCKING = SOCK_NONBLOCK | SOCK_CLOEXEC;

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;

const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

const POLLIN = 0x1;
const POLLERR = 0x8;
const POLLHUP = 0x10;
const POLLNVAL = 0x20;
const POLLRDHUP = 0x2000;

/** Milliseconds for which something is tried again when the kernel lacks the memory for it. */
const SHORTAGE = 1000;

/** `struct sockaddr_un`: a family and a path with its NUL. */
const SOCKADDR_UN_SIZE = 110;
const SUN_PATH_OFFSET = 2;
const SUN_PATH_SIZE = 108;

/** `struct pollfd { int fd; short events; short revents; }` */
const Pollfd = { SIZE: 8, fd: 0, events: 4, revents: 6 } as const;

/** `struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; }`, and the data behind it. */
const Cmsghdr = { SIZE: 16, len: 0, level: 8, type: 12 } as const;

const DESCRIPTOR_SIZE = 4;

/** The largest packet in bytes. */
export const MAX_PACKET = 65536;

/** The most descriptors that one packet carries. */
export const MAX_PACKET_DESCRIPTORS = 16;

/** One packet as it was received. */
export interface Packet {
  /** What was in it; the caller's own copy. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The descriptors that came with it, close-on-exec. They are the caller's to close, whatever the packet says. */
  readonly descriptors: readonly number[];
  /** Something was cut off: bytes above {@linkcode MAX_PACKET}, or descriptors above what can be taken. */
  readonly truncated: boolean;
  /** There is no packet: the other end has closed, and all it sent before was received. */
  readonly end: boolean;
}

/** Who is at the other end, as the kernel saw it when the connection was made. */
export interface PeerCredentials {
  /** The process. */
  readonly pid: number;
  /** Its effective user. */
  readonly uid: number;
  /** Its effective group. */
  readonly gid: number;
}

/**
 * Two connected ends that keep packets apart and in order.
 *
 * @returns The descriptors.
 * @throws {SystemError} EMFILE and the like.
 */
export function seqpacketPair(): [number, number] {
  return socketPair(SOCK_SEQPACKET);
}

/**
 * Two connected ends of a byte stream; `net.Socket` of node:net can take one over.
 *
 * @returns The descriptors.
 * @throws {SystemError} EMFILE and the like.
 */
export function streamPair(): [number, number] {
  return socketPair(SOCK_STREAM);
}

function socketPair(type: number): [number, number] {
  const ends = new Int32Array(2);
  check(libc.socketpair(AF_UNIX, type | NON_BLOCKING, 0, ends), "socketpair");
  return [ends[0]!, ends[1]!];
}

/**
 * Listens at a path for packet connections. The path stays when the descriptor is closed.
 *
 * @param path Where, at most 107 bytes; nothing may be there.
 * @param backlog How many connections may wait to be accepted; the next ones are refused with EAGAIN.
 * @returns The listening descriptor.
 * @throws {SystemError} EADDRINUSE when something is there; ENAMETOOLONG; EACCES, ENOENT and the like.
 */
export function listenSeqpacket(path: string, backlog: number): number {
  return withSocketAt(path, "bind", (fd, address) => {
    check(libc.bind(fd, address, SOCKADDR_UN_SIZE), "bind");
    check(libc.listen(fd, backlog), "listen");
  });
}

/**
 * Connects to a path where somebody listens for packet connections. It does not wait to be accepted: what is sent
 * before that is kept.
 *
 * @param path Where, at most 107 bytes.
 * @returns The connected descriptor.
 * @throws {SystemError} ENOENT when nothing is there; ECONNREFUSED when nobody listens; EAGAIN when too many wait to be
 * accepted; EPROTOTYPE when it is another kind of socket; ENAMETOOLONG; EACCES and the like.
 */
export function connectSeqpacket(path: string): number {
  return withSocketAt(path, "connect", (fd, address) => {
    check(libc.connect(fd, address, SOCKADDR_UN_SIZE), "connect");
  });
}

/** Makes a packet socket for an address, and closes it when it does not come to use. */
function withSocketAt(path: string, call: string, use: (fd: number, address: Uint8Array<ArrayBuffer>) => void): number {
  const address = socketAddress(path, call);
  const fd = check(libc.socket(AF_UNIX, SOCK_SEQPACKET | NON_BLOCKING, 0), "socket");
  try {
    use(fd, address);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return fd;
}

function socketAddress(path: string, call: string): Uint8Array<ArrayBuffer> {
  const name = cString(path);
  if (name.length > SUN_PATH_SIZE) throw new SystemError(Errno.ENAMETOOLONG, call);
  const address = new Uint8Array(SOCKADDR_UN_SIZE);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, SUN_PATH_OFFSET);
  return address;
}

/**
 * Takes the next connection that waits.
 *
 * @param fd The listening descriptor.
 * @returns The connection's descriptor, or `undefined` when none waits.
 * @throws {SystemError} EMFILE and the like: the connection then goes on waiting.
 */
export function acceptSocket(fd: number): number | undefined {
  while (true) {
    const result = libc.accept4(fd, null, null, NON_BLOCKING);
    const error = errno();
    if (result !== -1) return result;
    if (error === Errno.EAGAIN) return undefined;
    if (error !== Errno.EINTR && error !== Errno.ECONNABORTED) throw new SystemError(error, "accept4");
  }
}

/**
 * Who is at the other end. The kernel noted it when that end connected, listened or made the pair.
 *
 * @param fd A connected descriptor.
 * @returns The process and its user and group.
 * @throws {SystemError} EBADF, ENOTSOCK.
 */
export function peerCredentials(fd: number): PeerCredentials {
  // struct ucred { pid_t pid; uid_t uid; gid_t gid; };
  const credentials = new Uint32Array(3);
  const length = new Uint32Array([credentials.byteLength]);
  check(libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length), "getsockopt");
  return { pid: credentials[0]!, uid: credentials[1]!, gid: credentials[2]! };
}

/**
 * The structures of sendmsg and recvmsg, laid out once with their addresses in place. Calls are synchronous and leave
 * nothing behind in them, so one set serves every socket of a thread.
 */
class PacketBuffers {
  /** Where a packet's bytes go through. */
  readonly payload: Uint8Array<ArrayBuffer> = new Uint8Array(new ArrayBuffer(MAX_PACKET));
  /** Where a packet's descriptors go through: CMSG_SPACE of as many as there may be. */
  readonly control: DataView<ArrayBuffer> = new DataView(
    new ArrayBuffer(Cmsghdr.SIZE + MAX_PACKET_DESCRIPTORS * DESCRIPTOR_SIZE),
  );
  /** `struct msghdr`, 56 bytes. */
  readonly header: DataView<ArrayBuffer> = new DataView(new ArrayBuffer(56));
  /** `struct iovec`, 16 bytes. */
  readonly #vector = new DataView(new ArrayBuffer(16));

  constructor() {
    this.#vector.setBigUint64(0, addressOf(this.payload), true); // iov_base
    this.header.setBigUint64(16, addressOf(new Uint8Array(this.#vector.buffer)), true); // msg_iov
    this.header.setBigUint64(24, 1n, true); // msg_iovlen
    this.header.setBigUint64(32, addressOf(new Uint8Array(this.control.buffer)), true); // msg_control
  }

  set payloadLength(length: number) {
    this.#vector.setBigUint64(8, BigInt(length), true); // iov_len
  }

  get controlLength(): number {
    return Number(this.header.getBigUint64(40, true)); // msg_controllen
  }

  set controlLength(length: number) {
    this.header.setBigUint64(40, BigInt(length), true);
  }

  get flags(): number {
    return this.header.getInt32(48, true); // msg_flags
  }
}

let packetBuffers: PacketBuffers | undefined;

/** One end of a packet connection. The descriptor stays the caller's to close. */
export class PacketSocket {
  /** The descriptor. */
  readonly fd: number;

  /**
   * Speaks through a connected descriptor.
   *
   * @param fd The descriptor, of a SEQPACKET socket.
   */
  constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * Sends one packet, whole or not at all.
   *
   * @param bytes What to send: 1 to {@linkcode MAX_PACKET} bytes. Empty packets look like the end and are refused.
   * @param descriptors Descriptors to hand over, at most {@linkcode MAX_PACKET_DESCRIPTORS}; the other end gets
   * duplicates.
   * @returns `false` when there is no room now, or the kernel has no memory for it.
   * @throws {SystemError} EPIPE when the other end has closed; EMSGSIZE when it is too large; EBADF and the like.
   * @throws {RangeError} When there is nothing to send, or too many descriptors.
   */
  send(bytes: Uint8Array, descriptors: readonly number[] = []): boolean {
    if (bytes.length === 0) throw new RangeError("Cannot send a packet of 0 bytes: it would read as the end");
    if (bytes.length > MAX_PACKET) throw new SystemError(Errno.EMSGSIZE, "sendmsg");
    if (descriptors.length > MAX_PACKET_DESCRIPTORS) {
      throw new RangeError(
        `Cannot send ${descriptors.length} descriptors in one packet: the most is ${MAX_PACKET_DESCRIPTORS}`,
      );
    }
    const buffers = packetBuffers ??= new PacketBuffers();
    buffers.payload.set(bytes);
    buffers.payloadLength = bytes.length;
    buffers.controlLength = writeRights(buffers.control, descriptors);
    while (true) {
      const result = libc.sendmsg(this.fd, buffers.header, MSG_DONTWAIT | MSG_NOSIGNAL);
      const error = errno();
      if (result !== -1) return true;
      if (error === Errno.EAGAIN || isShortage(error)) return false;
      if (error !== Errno.EINTR) throw new SystemError(error, "sendmsg");
    }
  }

  /**
   * Receives one packet, if there is one.
   *
   * @returns The packet or the end, or `undefined` when nothing is there now.
   * @throws {SystemError} EBADF and the like; ENOMEM and ENOBUFS when the kernel has had no memory for long.
   */
  receive(): Packet | undefined {
    const buffers = packetBuffers ??= new PacketBuffers();
    for (let tries = 0;;) {
      buffers.payloadLength = MAX_PACKET;
      buffers.controlLength = buffers.control.byteLength;
      const length = libc.recvmsg(this.fd, buffers.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
      const error = errno();
      if (length !== -1) {
        const descriptors = readRights(buffers.control, buffers.controlLength);
        return {
          bytes: buffers.payload.slice(0, length),
          descriptors,
          truncated: (buffers.flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0,
          end: length === 0 && descriptors.length === 0,
        };
      }
      if (error === Errno.EAGAIN) return undefined;
      // Left unread, it would wait for another packet to be announced by.
      if (isShortage(error) && tries++ < SHORTAGE) pause();
      // ECONNRESET says, once and before the packets still queued, that the other end closed without reading all of
      // ours. What it had sent comes next, and then the end.
      else if (error !== Errno.EINTR && error !== Errno.ECONNRESET) throw new SystemError(error, "recvmsg");
    }
  }
}

/** Writes one SCM_RIGHTS message; answers the length of what was written. */
function writeRights(control: DataView, descriptors: readonly number[]): number {
  if (descriptors.length === 0) return 0;
  const length = Cmsghdr.SIZE + descriptors.length * DESCRIPTOR_SIZE;
  control.setBigUint64(Cmsghdr.len, BigInt(length), true);
  control.setInt32(Cmsghdr.level, SOL_SOCKET, true);
  control.setInt32(Cmsghdr.type, SCM_RIGHTS, true);
  for (const [index, fd] of descriptors.entries()) {
    control.setInt32(Cmsghdr.SIZE + index * DESCRIPTOR_SIZE, fd, true);
  }
  return length;
}

/** The descriptors of the SCM_RIGHTS message: the only kind there is, for no socket option here asks for another. */
function readRights(control: DataView, length: number): number[] {
  const descriptors: number[] = [];
  if (length < Cmsghdr.SIZE) return descriptors;
  const end = Number(control.getBigUint64(Cmsghdr.len, true));
  for (let offset = Cmsghdr.SIZE; offset < end; offset += DESCRIPTOR_SIZE) {
    descriptors.push(control.getInt32(offset, true));
  }
  return descriptors;
}

/** Room for poll's argument, reused and never given back: it is as large as the longest list so far. */
let pollSet = new DataView(new ArrayBuffer(8 * Pollfd.SIZE));

/**
 * Waits until something can be read from one of several descriptors, or its other end is gone. The thread sleeps.
 *
 * @param descriptors The descriptors; negative ones are passed over.
 * @param timeoutMs How long to wait at most, in milliseconds: 0 only looks, -1 waits for ever.
 * @returns How many of them are ready; 0 when the time is over.
 * @throws {SystemError} EINVAL for more descriptors than the process may have.
 */
export function waitReadable(descriptors: ArrayLike<number>, timeoutMs: number): number {
  if (pollSet.byteLength < descriptors.length * Pollfd.SIZE) {
    pollSet = new DataView(new ArrayBuffer(descriptors.length * Pollfd.SIZE));
  }
  const set = pollSet;
  for (let index = 0; index < descriptors.length; index++) {
    set.setInt32(index * Pollfd.SIZE + Pollfd.fd, descriptors[index]!, true);
    set.setInt16(index * Pollfd.SIZE + Pollfd.events, POLLIN | POLLRDHUP, true);
  }
  const count = BigInt(descriptors.length);
  return waitThroughSignals("poll", timeoutMs, (remaining) => libc.poll(set, count, remaining));
}

/**
 * Whether the other end is gone, whatever may still be there to read.
 *
 * @param fd A connected descriptor, of packets or of a stream.
 * @returns `true` when it has closed or shut down, or the descriptor is not open.
 * @throws {SystemError} ENOMEM.
 */
export function isHungUp(fd: number): boolean {
  const set = pollSet;
  set.setInt32(Pollfd.fd, fd, true);
  set.setInt16(Pollfd.events, POLLRDHUP, true);
  if (uninterrupted("poll", () => libc.poll(set, 1n, 0)) === 0) return false;
  return (set.getInt16(Pollfd.revents, true) & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) !== 0;
}

const stroke = new Uint8Array(1);
const strokes = new Uint8Array(4096);

/** So often a bell is read at once. */
const MOST_READS = 16;

/**
 * Rings a bell: one byte down a stream socket.
 *
 * @param fd The descriptor.
 * @returns `false` when nobody is at the other end any more. A bell that is full of strokes counts as rung.
 * @throws {SystemError} EBADF and the like; ENOMEM and ENOBUFS when the kernel has had no memory for long.
 */
export function ringBell(fd: number): boolean {
  for (let tries = 0;;) {
    const result = libc.send(fd, stroke, 1n, MSG_DONTWAIT | MSG_NOSIGNAL);
    const error = errno();
    if (result !== -1 || error === Errno.EAGAIN) return true;
    if (error === Errno.EPIPE || error === Errno.ECONNRESET) return false;
    // Given up at once, who sleeps at the other end would sleep on.
    if (isShortage(error) && tries++ < SHORTAGE) pause();
    else if (error !== Errno.EINTR) throw new SystemError(error, "send");
  }
}

/**
 * Takes the strokes out of a bell: all of them, unless somebody rings faster than they can be read.
 *
 * @param fd The descriptor.
 * @returns `false` when nobody is at the other end any more.
 * @throws {SystemError} EBADF and the like.
 */
export function drainBell(fd: number): boolean {
  // Who rings without end must not hold this thread up: what is left is found by whoever looks next.
  for (let reads = 0; reads < MOST_READS; reads++) {
    const result = libc.recv(fd, strokes, BigInt(strokes.length), MSG_DONTWAIT);
    const error = errno();
    if (result === 0) return false;
    if (result !== -1) continue;
    // What is left in it for want of memory is found by whoever looks next.
    if (error === Errno.EAGAIN || isShortage(error)) return true;
    if (error === Errno.ECONNRESET) return false;
    if (error !== Errno.EINTR) throw new SystemError(error, "recv");
  }
  return true;
}

/**
 * Calls of the C library that fail when they are told to. The plan is in shared memory, so that one thread can have
 * another's calls fail.
 *
 * @module
 */

import { interposeLibc, libc, type LibcCall, setErrno } from "../../../ffi/libc.ts";

/** What a call does instead of what it should: fails with that error number, or moves half of its bytes only. */
export type Fault = keyof typeof numbers | "short";

/** Error numbers by name, the same on x86-64 and aarch64. */
const numbers = {
  EINTR: 4,
  EIO: 5,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EPIPE: 32,
  ENOLCK: 37,
  EADDRINUSE: 98,
  ENOBUFS: 105,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ECONNREFUSED: 111,
} as const;

/**
 * How each call may fail in life, though its caller did nothing wrong. What is not here cannot: a descriptor that epoll
 * has can always be modified there; a bell answers EAGAIN only when it is full of strokes, which is as good as rung, and
 * EPIPE only when nobody is at its other end; a packet that is there is not answered with EAGAIN.
 */
const plausible: Readonly<Record<string, readonly Fault[]>> = {
  close: ["EINTR"],
  fcntl: ["EMFILE", "ENOMEM"],
  fcntl_flock: ["ENOLCK"],
  statx: ["ENOMEM", "EACCES"],
  memfd_create: ["EMFILE", "ENFILE", "ENOMEM"],
  fallocate: ["EINTR", "ENOSPC", "ENOMEM"],
  mmap: ["ENOMEM"],
  munmap: ["ENOMEM"],
  socket: ["EMFILE", "ENFILE", "ENOMEM"],
  socketpair: ["EMFILE", "ENFILE", "ENOMEM"],
  connect: ["EAGAIN", "ECONNREFUSED", "ENOMEM"],
  send: ["EINTR", "ENOMEM", "ENOBUFS"],
  recv: ["EINTR", "EAGAIN", "ECONNRESET", "ENOMEM"],
  sendmsg: ["EINTR", "EAGAIN", "EPIPE", "ENOMEM", "ENOBUFS"],
  recvmsg: ["EINTR", "ECONNRESET", "ENOMEM"],
  poll: ["EINTR", "ENOMEM"],
  bind: ["EADDRINUSE", "ENOMEM", "ENOSPC"],
  listen: ["EADDRINUSE"],
  accept4: ["EINTR", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ECONNABORTED"],
  getsockopt: ["ENOBUFS"],
  epoll_create1: ["EMFILE", "ENFILE", "ENOMEM"],
  epoll_ctl: ["ENOMEM", "ENOSPC"],
  epoll_wait: ["EINTR"],
  open: ["EINTR", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EACCES"],
  pread: ["EINTR", "EIO", "short"],
  pwrite: ["EINTR", "ENOSPC", "EIO", "short"],
  ftruncate: ["EINTR", "EIO"],
  flock: ["EINTR", "EAGAIN", "ENOLCK"],
  mkdir: ["ENOSPC", "EACCES", "ENOMEM"],
  unlink: ["EACCES", "EIO"],
  rename: ["ENOSPC", "EIO"],
  fchmod: ["EIO"],
};

const F_DUPFD_CLOEXEC = 1030;
const EPOLL_CTL_ADD = 1;

const names = Object.keys(plausible);

/** The most faults that one call has. */
export const MOST_FAULTS: number = Math.max(...Object.values(plausible).map((faults) => faults.length));

/** The words of a plan: which call fails (0: none), in which way, how many were made, whether one failed. */
const NTH = 0;
const WAY = 1;
const CALLS = 2;
const FAILED = 3;
const NAMES = 4;

/** So many calls of one operation are remembered by name. */
const REMEMBERED = 4092;

/** Which call is to fail. */
export class FaultPlan {
  readonly words: Int32Array<SharedArrayBuffer>;

  /** @param words The words of a plan made elsewhere. */
  constructor(words: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(4 * (NAMES + REMEMBERED)))) {
    this.words = words;
  }

  /** From now on calls are counted, and the n-th of them fails in one of its ways; the 0th is none. */
  arm(nth: number, way: number): void {
    Atomics.store(this.words, NTH, -1);
    Atomics.store(this.words, WAY, way);
    Atomics.store(this.words, CALLS, 0);
    Atomics.store(this.words, FAILED, 0);
    Atomics.store(this.words, NTH, nth);
  }

  /** From now on nothing fails and nothing is counted. */
  disarm(): void {
    Atomics.store(this.words, NTH, -1);
  }

  /** What was called since it was armed. */
  get calls(): string[] {
    const count = Math.min(Atomics.load(this.words, CALLS), REMEMBERED);
    return Array.from({ length: count }, (_, i) => names[this.words[NAMES + i]!]!);
  }

  /** The call that was made to fail since it was armed, and how; nothing when none was. */
  get failed(): string | undefined {
    const index = Atomics.load(this.words, FAILED) - 1;
    return index < 0 ? undefined : describeFault(names[index]!, Atomics.load(this.words, WAY));
  }

  /** Has this thread's calls follow the plan. */
  install(): void {
    this.disarm();
    interposeLibc((name, call) => {
      const index = names.indexOf(name);
      return index < 0 ? call : (...args) => this.#call(index, call, args);
    });
    // What is bound within an operation would be taken for something that it leaves open.
    for (const name of Object.keys(libc)) void libc[name as keyof typeof libc];
  }

  #call(index: number, call: LibcCall, args: unknown[]): unknown {
    const { words } = this;
    const nth = Atomics.load(words, NTH);
    if (nth < 0) return call(...args);
    const count = Atomics.add(words, CALLS, 1) + 1;
    if (count <= REMEMBERED) words[NAMES + count - 1] = index;
    if (count !== nth) return call(...args);
    const name = names[index]!;
    const faults = plausible[name]!;
    const fault = faults[Atomics.load(words, WAY)];
    if (fault === undefined || !canFail(name, fault, args)) return call(...args);
    Atomics.store(words, FAILED, index + 1);
    if (fault === "short") {
      const [fd, buffer, count, offset] = args as [number, Uint8Array, bigint, bigint];
      return call(fd, buffer, count / 2n, offset);
    }
    // The kernel's close closes even when it fails.
    if (name === "close") call(...args);
    setErrno(numbers[fault]);
    return name === "mmap" ? -1n : -1;
  }
}

/** Whether a call with these arguments can fail so. */
function canFail(name: string, fault: Fault, args: readonly unknown[]): boolean {
  if (name === "epoll_ctl") return args[1] === EPOLL_CTL_ADD;
  if (name === "fcntl") return (args[1] === F_DUPFD_CLOEXEC) === (fault === "EMFILE");
  return true;
}

/** In how many ways a call may fail. */
export function waysOf(name: string): number {
  return plausible[name]!.length;
}

/** A fault for people. */
export function describeFault(name: string, way: number): string {
  return `${name} ${plausible[name]![way]}`;
}

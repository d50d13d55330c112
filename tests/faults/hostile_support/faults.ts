/**
 * Calls of the C library that fail when they are told to. The plan is in shared memory, so that one thread can have
 * another's calls fail.
 *
 * @module
 */

import { interposeLibc, libc, type LibcCall, setErrno } from "../../../ffi/libc.ts";

/** What a call does instead of what it should: fails with that error number, or moves a part of its bytes only. */
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
  // What every descriptor needs.
  close: ["EINTR"],
  fcntl: ["EMFILE", "ENOMEM"],
  fcntl_flock: ["ENOLCK"],
  statx: ["ENOMEM", "EACCES"],
  // Memory.
  memfd_create: ["EMFILE", "ENFILE", "ENOMEM"],
  fallocate: ["EINTR", "ENOSPC", "ENOMEM"],
  mmap: ["ENOMEM"],
  madvise: ["EAGAIN", "ENOMEM", "EIO"],
  munmap: ["ENOMEM"],
  mremap: ["ENOMEM"],
  // Sockets; of a bell's strokes fewer may come than are there.
  socket: ["EMFILE", "ENFILE", "ENOMEM"],
  socketpair: ["EMFILE", "ENFILE", "ENOMEM"],
  connect: ["EAGAIN", "ECONNREFUSED", "ENOMEM"],
  send: ["EINTR", "ENOMEM", "ENOBUFS"],
  recv: ["EINTR", "EAGAIN", "ECONNRESET", "ENOMEM", "short"],
  sendmsg: ["EINTR", "EAGAIN", "EPIPE", "ENOMEM", "ENOBUFS"],
  recvmsg: ["EINTR", "ECONNRESET", "ENOMEM"],
  poll: ["EINTR", "ENOMEM"],
  // The broker's.
  bind: ["EADDRINUSE", "ENOMEM", "ENOSPC"],
  listen: ["EADDRINUSE"],
  accept4: ["EINTR", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ECONNABORTED"],
  getsockopt: ["ENOBUFS"],
  epoll_create1: ["EMFILE", "ENFILE", "ENOMEM"],
  epoll_ctl: ["ENOMEM", "ENOSPC"],
  epoll_wait: ["EINTR"],
  // Files, directories and paths.
  open: ["EINTR", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EACCES"],
  pread: ["EINTR", "EIO", "short"],
  pwrite: ["EINTR", "ENOSPC", "EIO", "short"],
  ftruncate: ["EINTR", "EIO"],
  flock: ["EINTR", "EAGAIN", "ENOLCK"],
  mkdir: ["ENOSPC", "EACCES", "ENOMEM"],
  unlink: ["EACCES", "EIO"],
  rename: ["ENOSPC", "EIO"],
  fchmod: ["EIO"],
  opendir: ["EMFILE", "ENFILE", "ENOMEM", "EACCES"],
  readdir: ["EIO"],
  readlink: ["ENOMEM", "EACCES", "EIO"],
  realpath: ["ENOMEM", "EACCES", "EIO"],
  faccessat: ["ENOMEM", "EACCES", "EIO"],
  fsync: ["EINTR", "EIO", "ENOSPC"],
  fchown: ["EACCES", "EIO", "ENOSPC"],
};

/** What a call answers that has failed, where that is not -1. */
const failures: Readonly<Record<string, unknown>> = {
  mmap: -1n,
  mremap: -1n,
  opendir: null,
  readdir: null,
  realpath: null,
};

const F_DUPFD_CLOEXEC = 1030;
const EPOLL_CTL_ADD = 1;

const names = Object.keys(plausible);

/** The words of a plan: which call fails (0: none), in which way, how many were made, which of them failed. */
const NTH = 0;
const WAY = 1;
const CALLS = 2;
const FAILED = 3;
const NAMES = 4;

/** So many calls are remembered at most: more than any operation or test makes. */
const REMEMBERED = 2 ** 16 - NAMES;

/** A call is remembered as the number of its name, and a bit for each way in which it can fail above that. */
const WAYS_FROM = 8;

/** One call, and in which ways it can fail. */
export interface CallMade {
  readonly name: string;
  readonly ways: readonly number[];
}

/** Which call is to fail. */
export class FaultPlan {
  readonly words: Int32Array<SharedArrayBuffer>;
  /** Told at once what fails in this thread, which may not come to say it later. */
  failing: (what: string) => void = () => {};

  /** @param words The words of a plan made elsewhere. */
  constructor(words: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(4 * (NAMES + REMEMBERED)))) {
    this.words = words;
  }

  /** From now on calls are counted, and the n-th of them fails in one of its ways; for the 0th they are remembered. */
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

  /** What was called since it was armed for the 0th call. */
  get calls(): CallMade[] {
    const count = Atomics.load(this.words, CALLS);
    if (count > REMEMBERED) throw new Error(`${count} calls are more than ${REMEMBERED}, which are remembered`);
    return Array.from(this.words.subarray(NAMES, NAMES + count), (word) => {
      const name = names[word & (2 ** WAYS_FROM - 1)]!;
      const ways = plausible[name]!.map((_, way) => way).filter((way) => (word >> (WAYS_FROM + way) & 1) !== 0);
      return { name, ways };
    });
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
    const name = names[index]!;
    const faults = plausible[name]!;
    if (nth === 0 && count <= REMEMBERED) {
      const ways = faults.reduce((bits, fault, way) => canFail(name, fault, args) ? bits | 1 << way : bits, 0);
      words[NAMES + count - 1] = index | ways << WAYS_FROM;
    }
    if (count !== nth) return call(...args);
    const fault = faults[Atomics.load(words, WAY)];
    if (fault === undefined || !canFail(name, fault, args)) return call(...args);
    Atomics.store(words, FAILED, index + 1);
    this.failing(describeFault(name, Atomics.load(words, WAY)));
    if (fault === "short") {
      const [fd, buffer, count, last] = args as [number, Uint8Array, bigint, unknown];
      return call(fd, buffer, name === "recv" ? 1n : count / 2n, last);
    }
    // The kernel's close closes even when it fails.
    if (name === "close") call(...args);
    setErrno(numbers[fault]);
    return name in failures ? failures[name] : -1;
  }
}

/** Whether a call with these arguments can fail so. */
function canFail(name: string, fault: Fault, args: readonly unknown[]): boolean {
  if (name === "epoll_ctl") return args[1] === EPOLL_CTL_ADD;
  if (name === "fcntl") return (args[1] === F_DUPFD_CLOEXEC) === (fault === "EMFILE");
  // Of one byte there is no less, but none, and that is the end.
  if (fault === "short") return (args[2] as bigint) > 1n;
  return true;
}

/** A fault for people. */
export function describeFault(name: string, way: number): string {
  return `${name} ${plausible[name]![way]}`;
}

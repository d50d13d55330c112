/**
 * Waiting for descriptors that Deno's own event loop cannot watch, such as devices.
 *
 * All waits of a thread share one `poll` in one thread of Deno's pool. It runs only while somebody waits, it has a
 * bound, and an eventfd ends it at once when it must look at other descriptors. Meanwhile the process stays alive.
 *
 * @module
 */

import { check, libc, waitThroughSignals } from "./libc.ts";

/** What is waited for, or found; bits. */
export const PollEvent = {
  /** There is something to read. */
  IN: 0x1,
  /** There is room to write. */
  OUT: 0x4,
  /** An error; always found, never asked for. */
  ERR: 0x8,
  /** The other end hung up; always found, never asked for. */
  HUP: 0x10,
  /** The descriptor is not open; always found, never asked for. */
  NVAL: 0x20,
  /** The other end will write no more. */
  RDHUP: 0x2000,
} as const;

/** Somebody who waits for a descriptor. */
export interface PollWatch {
  /** Ends the wait; stopping again does nothing. */
  stop(): void;
}

interface Watch {
  readonly fd: number;
  readonly events: number;
  readonly found: (events: number) => void;
}

/** The longest that one native call takes, in milliseconds. */
const SLICE = 10_000;

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/** `struct pollfd { int fd; short events; short revents; }` as shorts and as ints. */
const SHORTS = 4;
const INTS = 2;
const EVENTS = 2;
const REVENTS = 3;

const watches = new Set<Watch>();

/** The eventfd that ends the native call; made at the first wait and kept as long as the thread lives. */
let waker = -1;

/** A native call. */
interface Call {
  /** What it looks at, as the kernel takes it; the waker comes first. */
  readonly shorts: Int16Array<ArrayBuffer>;
  /** Whether it is known to be over. */
  over: boolean;
}

/** The native call made last, as long as somebody waits. */
let last: Call | undefined;

/** When nobody waits any more and the last native call is over. */
let ended: Promise<void> = Promise.resolve();

/** A call that was woken ends at once; to look so often, a millisecond apart, is for one that cannot be seen to end. */
const MOST_LOOKS = 100;

/**
 * Calls back from the event loop whenever something is found on a descriptor, until the wait is stopped. What is found
 * and not taken is found again in the next turn.
 *
 * @param fd The descriptor. It must be let go ({@linkcode letGo}) before it is closed.
 * @param events Bits of {@linkcode PollEvent}.
 * @param found Is called with the bits that were found. It must not throw.
 * @returns The wait.
 * @throws {SystemError} EMFILE when the process has too many descriptors for the waker.
 */
export function watchDescriptor(fd: number, events: number, found: (events: number) => void): PollWatch {
  if (waker < 0) waker = check(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  const watch: Watch = { fd, events, found };
  watches.add(watch);
  if (last === undefined) ended = run();
  else wake();
  return {
    stop: () => {
      if (watches.delete(watch) && last !== undefined) wake();
    },
  };
}

/**
 * Makes sure that no native call of this module looks at a descriptor any more: a file is not released as long as one
 * does. Those who wait for it must have stopped.
 *
 * @param fd The descriptor, still open.
 */
export function letGo(fd: number): void {
  if (last === undefined || last.over || !looksAt(last, fd)) return;
  wake();
  // The kernel writes down what it found after it has let go of the files.
  for (let looks = 0; looks < MOST_LOOKS && !hasFound(last); looks++) libc.poll(null, 0n, 1);
}

/**
 * When no native call of this module is under way, for who counts what is left: the thread of the pool needs a moment
 * after the last wait was stopped.
 *
 * @returns A promise that only settles when nobody waits any more.
 */
export function pollingEnded(): Promise<void> {
  return ended;
}

/**
 * Blocks the thread until something is found on a descriptor.
 *
 * @param fd The descriptor.
 * @param events Bits of {@linkcode PollEvent}.
 * @param timeout Milliseconds to wait at most; -1 is for ever.
 * @returns The bits that were found; 0 when the time was over.
 * @throws {SystemError} ENOMEM.
 */
export function pollDescriptor(fd: number, events: number, timeout: number): number {
  const shorts = pollfds(1);
  fill(shorts, 0, fd, events);
  waitThroughSignals("poll", timeout, (remaining) => libc.poll(shorts, 1n, remaining));
  return shorts[REVENTS]!;
}

function wake(): void {
  // It fails only when the counter is at its end, and then the call ends as well.
  libc.eventfd_write(waker, 1n);
}

async function run(): Promise<void> {
  while (watches.size > 0) {
    const looking = [...watches];
    const shorts = pollfds(looking.length + 1);
    fill(shorts, 0, waker, PollEvent.IN);
    looking.forEach(({ fd, events }, i) => fill(shorts, i + 1, fd, events));
    const call: Call = { shorts, over: false };
    last = call;
    // Whatever is the matter with it (a signal, no memory), the next call looks again.
    await libc.poll_elsewhere(shorts, BigInt(looking.length + 1), SLICE);
    call.over = true;
    libc.eventfd_read(waker, new BigUint64Array(1));
    looking.forEach((watch, i) => {
      const found = shorts[SHORTS * (i + 1) + REVENTS]!;
      if (found !== 0 && watches.has(watch)) watch.found(found);
    });
  }
  last = undefined;
}

/** Memory for the kernel; made as an ArrayBuffer, for the engine may move what a typed array allocates for itself. */
function pollfds(count: number): Int16Array<ArrayBuffer> {
  return new Int16Array(new ArrayBuffer(SHORTS * Int16Array.BYTES_PER_ELEMENT * count));
}

function fill(shorts: Int16Array<ArrayBuffer>, index: number, fd: number, events: number): void {
  new Int32Array(shorts.buffer)[INTS * index] = fd;
  shorts[SHORTS * index + EVENTS] = events;
}

function looksAt({ shorts }: Call, fd: number): boolean {
  const ints = new Int32Array(shorts.buffer);
  for (let i = 0; i < ints.length; i += INTS) if (ints[i] === fd) return true;
  return false;
}

function hasFound({ shorts }: Call): boolean {
  for (let i = REVENTS; i < shorts.length; i += SHORTS) if (Atomics.load(shorts, i) !== 0) return true;
  return false;
}

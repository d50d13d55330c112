/**
 * Mappings of a descriptor's memory as ArrayBuffers that can be closed without harm.
 *
 * Reading a view after its pages are gone would end the process, and the engine knows nothing of the pages. So a
 * mapping has exactly one ArrayBuffer, which is detached before the pages go: every view on it then has length 0.
 *
 * What detaching does not reach is a native operation that was given a view and runs on another thread, such as an
 * asynchronous `pbkdf2`. These mappings are for code that does no such thing; what programs get is a
 * {@linkcode LentMapping}.
 *
 * Where a program may use no raw pointers, the pages are mapped in the place of a {@linkcode Window}'s.
 *
 * @module
 */

import { check, Errno, errno, libc, rawPointers, SystemError } from "./libc.ts";
import { detachWindow, keepWindow, openWindow, type Window, windowOf } from "./window.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;

const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
/** The kernel sets no memory aside for it. */
const MAP_NORESERVE = 0x4000;

const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;

const MADV_REMOVE = 9;

const NO_DESCRIPTOR = -1;

/**
 * The most mappings at once. The kernel allows a process 65,530 by default, and the engine, which needs some too, ends it
 * when it gets none.
 */
const MOST_MAPPINGS = 60_000;

let mappings = 0;

/** Changes that the kernel had no memory for; each is tried again at every closing after it. */
const refused: (() => boolean)[] = [];

/** Windows whose pages could not be replaced when they were closed: their addresses stay theirs for good. */
const stuck: Window[] = [];

/** Memory of a descriptor, mapped from its start. The descriptor may be closed; the mapping stays. */
export class Mapping {
  /**
   * The memory; its length is 0 once the mapping is closed. Through a window it is longer than asked for, by zeroes of
   * its own.
   */
  readonly buffer: ArrayBuffer;
  /** The length asked for, in bytes, also after closing. */
  readonly byteLength: number;
  /** Where the memory is in this process. */
  readonly address: bigint;

  #open = true;

  /**
   * Takes over pages that are mapped already; use {@linkcode mapShared} and its like.
   *
   * @param address Where the pages begin.
   * @param byteLength How many bytes of them are of interest, from the first on.
   * @param buffer The buffer they are seen through.
   */
  constructor(address: bigint, byteLength: number, buffer: ArrayBuffer) {
    this.address = address;
    this.byteLength = byteLength;
    this.buffer = buffer;
  }

  /**
   * Gives the memory behind a part of a shared mapping back: it is zero then, for all who map it, until it is written.
   *
   * @param offset Where the part begins, in bytes: at a page; it goes to the end.
   * @returns `false` when the kernel does not take it back; then it is as it was.
   */
  discard(offset: number): boolean {
    const length = BigInt(this.byteLength - offset);
    return this.#open && libc.madvise(this.address + BigInt(offset), length, MADV_REMOVE) === 0;
  }

  /**
   * Detaches the buffer and gives the pages back. Closing again does nothing.
   *
   * Where the buffer was transferred away (`postMessage`, `structuredClone`, `ArrayBuffer.prototype.transfer`),
   * somebody else reads these addresses now and cannot be stopped: the pages are replaced by private zeroes, which cut
   * him off from the memory, and the addresses stay in use until the process ends.
   *
   * It does not fail: if the process has too many mappings to change this one now, that is done at a later closing.
   *
   * @returns `false` when the buffer had been transferred away.
   */
  close(): boolean {
    if (!this.#open) return true;
    this.#open = false;
    const window = windowOf(this.buffer);
    if (window !== undefined) {
      if (closeWindow(window, this.buffer)) keepWindow(window);
      return true;
    }
    if (this.buffer.detached) {
      replacePages(this.address, this.byteLength);
      return false;
    }
    this.buffer.transfer(0);
    unmapPages(this.address, this.byteLength);
    return true;
  }
}

/**
 * Puts private zeroes in the place of whatever is mapped; they cost no memory until they are touched.
 *
 * @param address Where the pages begin.
 * @param byteLength How many bytes; whole pages are replaced.
 * @returns `false` when the process has too many mappings now, so that it will be done at a later closing.
 */
export function replacePages(address: bigint, byteLength: number): boolean {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  return change(
    "mmap",
    () => libc.mmap(address, BigInt(byteLength), PROT_READ | PROT_WRITE, flags, NO_DESCRIPTOR, 0n),
  );
}

/**
 * Empties a window's buffer and puts private zeroes in the place of all of it.
 *
 * @param window The window.
 * @param buffer Its buffer.
 * @returns `false` when its addresses must not be used again.
 */
export function closeWindow(window: Window, buffer: ArrayBuffer): boolean {
  mappings--;
  detachWindow(buffer);
  const replaced = replacePages(window.address, window.byteLength);
  if (!replaced) stuck.push(window);
  return replaced;
}

/** Counts a mapping as gone that was in a window which everybody forgot: the engine has given it back, or will. */
export function collectedWindow(): void {
  mappings--;
}

/**
 * Gives pages back. Whoever looks at them afterwards ends the process.
 *
 * @param address Where the pages begin.
 * @param byteLength How many bytes; whole pages go.
 * @returns `false` when the process has too many mappings now, so that it will be done at a later closing.
 */
export function unmapPages(address: bigint, byteLength: number): boolean {
  mappings--;
  return change("munmap", () => libc.munmap(address, BigInt(byteLength)));
}

/** Changes mappings, or remembers to; tries again what was refused before. */
function change(call: string, attempt: () => number | bigint): boolean {
  const done = attemptChange(call, attempt);
  for (const again of refused.splice(0)) if (!again()) refused.push(again);
  if (!done) refused.push(() => attemptChange(call, attempt));
  return done;
}

function attemptChange(call: string, attempt: () => number | bigint): boolean {
  const result = attempt();
  const error = errno();
  const done = Number(result) !== -1;
  if (!done && error !== Errno.ENOMEM) throw new SystemError(error, call);
  return done;
}

/**
 * Maps memory to be read and written together with all others who map it.
 *
 * @param fd The descriptor, open for reading and writing; not sealed against writing.
 * @param length How many bytes, above 0 and not above its size.
 * @returns The mapping.
 * @throws {SystemError} EPERM when a seal forbids it; ENOMEM, EINVAL, EBADF, EACCES.
 */
export function mapShared(fd: number, length: number): Mapping {
  return map(length, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
}

/**
 * Maps memory to be read only. A store to it, and any atomic read-modify-write, ends the process; so its buffer is for
 * code that only loads, and never for programs.
 *
 * @param fd The descriptor.
 * @param length How many bytes, above 0 and not above its size.
 * @returns The mapping.
 * @throws {SystemError} ENOMEM, EINVAL, EBADF, EACCES.
 */
export function mapReadOnly(fd: number, length: number): Mapping {
  return map(length, PROT_READ, MAP_SHARED, fd);
}

/**
 * Maps memory to be read, where a stray store does no harm: it makes a private copy of its page, which from then on
 * does not see what others write.
 *
 * @param fd The descriptor; it may be sealed against writing.
 * @param length How many bytes, above 0 and not above its size.
 * @returns The mapping.
 * @throws {SystemError} ENOMEM, EINVAL, EBADF, EACCES.
 */
export function mapPrivate(fd: number, length: number): Mapping {
  return map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
}

/** The kernel rounds a length up to whole pages, here and in munmap. */
function map(length: number, protection: number, flags: number, fd: number): Mapping {
  if (mappings >= MOST_MAPPINGS) throw new SystemError(Errno.ENOMEM, "mmap");
  const mapping = rawPointers()
    ? mapAnywhere(length, protection, flags, fd)
    : mapInWindow(length, (address) =>
      libc.mmap(address, BigInt(length), protection, flags | MAP_FIXED, fd, 0n), "mmap");
  mappings++;
  return mapping;
}

function mapAnywhere(length: number, protection: number, flags: number, fd: number): Mapping {
  const address = BigInt(check(libc.mmap(0n, BigInt(length), protection, flags, fd, 0n), "mmap"));
  return new Mapping(address, length, bufferAt(address, length));
}

/** A window whose pages could not be mapped is left to the collector: nobody knows what is there now. */
function mapInWindow(length: number, attempt: (address: bigint) => number | bigint, call: string): Mapping {
  const { window, buffer } = openWindow(length);
  check(attempt(window.address), call);
  return new Mapping(window.address, length, buffer);
}

/**
 * Memory that is mapped already, by a raw pointer.
 *
 * @param address Where it begins.
 * @param byteLength How many bytes.
 * @returns The buffer, which knows nothing of the mapping.
 */
export function bufferAt(address: bigint, byteLength: number): ArrayBuffer {
  return Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(address)!, byteLength);
}

/**
 * Maps the pages of a shared mapping once more, without a buffer. They stay when the first mapping goes.
 *
 * @param address Where they are mapped.
 * @param byteLength How many bytes.
 * @returns Where they are as well.
 * @throws {SystemError} ENOMEM; EINVAL for a private mapping.
 */
export function mapAgain(address: bigint, byteLength: number): bigint {
  if (mappings >= MOST_MAPPINGS) throw new SystemError(Errno.ENOMEM, "mremap");
  // From a length of 0, mremap leaves the old mapping as it is.
  const again = BigInt(check(libc.mremap(address, 0n, BigInt(byteLength), MREMAP_MAYMOVE, 0n), "mremap"));
  mappings++;
  return again;
}

/**
 * As {@linkcode mapAgain}, with a buffer of its own: for memory that must not go when whoever made it lets it go.
 *
 * @param address Where the pages are mapped, on a page boundary.
 * @param byteLength How many bytes.
 * @returns The mapping.
 * @throws {SystemError} EINVAL for memory that is this process' alone, such as what the engine allocates; ENOMEM.
 */
export function mapTwin(address: bigint, byteLength: number): Mapping {
  if (!rawPointers()) return mapAgainInWindow(address, byteLength);
  const twin = mapAgain(address, byteLength);
  return new Mapping(twin, byteLength, bufferAt(twin, byteLength));
}

/**
 * As {@linkcode mapAgain}, in a window.
 *
 * @param address Where they are mapped.
 * @param byteLength How many bytes.
 * @returns The mapping.
 * @throws {SystemError} As {@linkcode mapAgain}.
 */
export function mapAgainInWindow(address: bigint, byteLength: number): Mapping {
  const flags = MREMAP_MAYMOVE | MREMAP_FIXED;
  const mapping = mapInWindow(byteLength, (to) => libc.mremap(address, 0n, BigInt(byteLength), flags, to), "mremap");
  mappings++;
  return mapping;
}

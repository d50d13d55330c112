/**
 * Memory that is a descriptor: no name in any file system, gone with its last holder, and sealable.
 *
 * @module
 */

import { closeDescriptor } from "./descriptor.ts";
import { check, cString, Errno, errno, libc, SystemError, uninterrupted } from "./libc.ts";
import { ResourceLimit, resourceLimit } from "./resource_limit.ts";

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** What can be forbidden about a memfd, for every holder and for good; bits. */
export const Seal = {
  /** No more seals. */
  SEAL: 1,
  /** It gets no smaller, so that no mapping loses pages. */
  SHRINK: 2,
  /** It gets no larger. */
  GROW: 4,
  /** Nobody writes; refused with EBUSY while anyone has it mapped writable. */
  WRITE: 8,
  /** Nobody maps it writable any more, or writes to it; the writable mappings there are stay so. */
  FUTURE_WRITE: 16,
} as const;

/**
 * Makes zeroed memory that has all its pages: without this, a lack of memory would be a SIGBUS at some later store.
 *
 * @param name A name for people, seen in /proc; at most 249 bytes.
 * @param size The size in bytes, above 0.
 * @returns The descriptor, close-on-exec and not yet sealed.
 * @throws {SystemError} ENOMEM, ENOSPC, EMFILE; EFBIG for more than this process' files may have; EINVAL for a size or a
 * name that cannot be.
 */
export function createMemfd(name: string, size: number): number {
  // It is a file to the kernel, which would end the process by a signal (SIGXFSZ).
  if (BigInt(size) > resourceLimit(ResourceLimit.FSIZE)) throw new SystemError(Errno.EFBIG, "fallocate");
  const fd = check(libc.memfd_create(cString(name), MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
  try {
    uninterrupted("fallocate", () => libc.fallocate(fd, 0, 0n, BigInt(size)));
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return fd;
}

/**
 * Forbids something about a memfd, for every holder and for good.
 *
 * @param fd The memfd.
 * @param seals Bits of {@linkcode Seal}; what is sealed already stays so.
 * @throws {SystemError} EPERM when SEAL was added before; EBUSY for WRITE while there is a writable mapping.
 */
export function addSeals(fd: number, seals: number): void {
  check(libc.fcntl(fd, F_ADD_SEALS, BigInt(seals)), "fcntl");
}

/**
 * What is forbidden about a descriptor's memory.
 *
 * @param fd Any descriptor.
 * @returns Bits of {@linkcode Seal}, or `undefined` when what is behind it cannot be sealed at all.
 * @throws {SystemError} EBADF when it is not open.
 */
export function seals(fd: number): number | undefined {
  const result = libc.fcntl(fd, F_GET_SEALS, 0n);
  const error = errno();
  if (result !== -1) return result;
  if (error === Errno.EINVAL) return undefined;
  throw new SystemError(error, "fcntl");
}

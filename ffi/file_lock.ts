/**
 * Locks that the kernel takes back when their holder dies.
 *
 * Both kinds belong to the open file description: duplicates of a descriptor share it, a second `open` does not, and
 * it goes with the last duplicate.
 *
 * @module
 */

import { check, Errno, errno, libc, SystemError, uninterrupted } from "./libc.ts";

const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** `struct flock`; l_whence is SEEK_SET and l_pid must be 0. */
const Flock = { SIZE: 32, type: 0, start: 8, len: 16 } as const;

/**
 * Locks a whole file for its holder alone, if nobody holds it.
 *
 * @param fd The file.
 * @returns `false` when somebody else holds it.
 * @throws {SystemError} EBADF and the like.
 */
export function tryLockFile(fd: number): boolean {
  while (true) {
    const result = libc.flock(fd, LOCK_EX | LOCK_NB);
    const error = errno();
    if (result !== -1) return true;
    if (error === Errno.EAGAIN) return false;
    if (error !== Errno.EINTR) throw new SystemError(error, "flock");
  }
}

/**
 * Lets a file go.
 *
 * @param fd The file.
 * @throws {SystemError} EBADF.
 */
export function unlockFile(fd: number): void {
  uninterrupted("flock", () => libc.flock(fd, LOCK_UN));
}

/**
 * Locks one byte of a file for its holder alone, if nobody holds it. The file need not be so long.
 *
 * @param fd The file, open for writing.
 * @param offset Which byte.
 * @returns `false` when somebody else holds it.
 * @throws {SystemError} EBADF when it is not open for writing; ENOLCK.
 */
export function tryLockByte(fd: number, offset: number): boolean {
  const lock = byteLock(F_WRLCK, offset);
  const result = libc.fcntl_flock(fd, F_OFD_SETLK, lock);
  const error = errno();
  if (result !== -1) return true;
  if (error === Errno.EAGAIN || error === Errno.EACCES) return false;
  throw new SystemError(error, "fcntl");
}

/**
 * Lets one byte of a file go.
 *
 * @param fd The file.
 * @param offset Which byte.
 * @throws {SystemError} EBADF.
 */
export function unlockByte(fd: number, offset: number): void {
  check(libc.fcntl_flock(fd, F_OFD_SETLK, byteLock(F_UNLCK, offset)), "fcntl");
}

/**
 * Whether somebody else holds one byte of a file: another open file description, in this process or not.
 *
 * @param fd The file, open in any way.
 * @param offset Which byte.
 * @returns `true` when it could not be locked now.
 * @throws {SystemError} EBADF.
 */
export function isByteLocked(fd: number, offset: number): boolean {
  const lock = byteLock(F_WRLCK, offset);
  check(libc.fcntl_flock(fd, F_OFD_GETLK, lock), "fcntl");
  return lock.getInt16(Flock.type, true) !== F_UNLCK;
}

function byteLock(type: number, offset: number): DataView<ArrayBuffer> {
  const lock = new DataView(new ArrayBuffer(Flock.SIZE));
  lock.setInt16(Flock.type, type, true);
  lock.setBigInt64(Flock.start, BigInt(offset), true);
  lock.setBigInt64(Flock.len, 1n, true);
  return lock;
}

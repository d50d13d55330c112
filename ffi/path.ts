/**
 * Paths: what is in a directory, where links lead, what this user may do; and what it takes to replace a file.
 *
 * @module
 */

import { check, cString, Errno, errno, libc, setErrno, SystemError, textAt, uninterrupted } from "./libc.ts";

const AT_FDCWD = -100;
const AT_EACCESS = 0x200;

/** The longest path the kernel takes, with its NUL. */
const PATH_MAX = 4096;

/** Where the name is in a `struct dirent`, the same on every 64-bit machine. */
const DIRENT_NAME = 19;

/** What one wants to do with a file; bits. */
export const Access = {
  /** To write. */
  WRITE: 2,
  /** To read. */
  READ: 4,
} as const;

/**
 * The names in a directory, sorted, without `.` and `..`.
 *
 * @param path The directory.
 * @returns The names.
 * @throws {SystemError} ENOENT, ENOTDIR, EACCES and the like.
 */
export function listDirectory(path: string): string[] {
  const directory = libc.opendir(cString(path));
  const error = errno();
  if (directory === null) throw new SystemError(error, "opendir");
  const names: string[] = [];
  try {
    while (true) {
      // The end and a failure are both NULL; only errno tells them apart.
      setErrno(0);
      const entry = libc.readdir(directory);
      const error = errno();
      if (entry !== null) names.push(textAt(entry, DIRENT_NAME));
      else if (error !== 0) throw new SystemError(error, "readdir");
      else break;
    }
  } finally {
    libc.closedir(directory);
  }
  return names.filter((name) => name !== "." && name !== "..").sort();
}

/**
 * Where a symbolic link leads, as it is written.
 *
 * @param path The link.
 * @returns The text of it, or `undefined` when there is no symbolic link.
 * @throws {SystemError} EACCES and the like.
 */
export function readLink(path: string): string | undefined {
  const into = new Uint8Array(PATH_MAX);
  const length = libc.readlink(cString(path), into, BigInt(into.length));
  const error = errno();
  if (length !== -1) return new TextDecoder().decode(into.subarray(0, length));
  // EINVAL is something that is no link.
  if (error === Errno.ENOENT || error === Errno.EINVAL) return undefined;
  throw new SystemError(error, "readlink");
}

/**
 * The path without symbolic links, `.` and `..`.
 *
 * @param path The path; something must be there.
 * @returns The absolute path.
 * @throws {SystemError} ENOENT, ELOOP, EACCES and the like.
 */
export function realPath(path: string): string {
  const into = new Uint8Array(PATH_MAX);
  const result = libc.realpath(cString(path), into);
  const error = errno();
  if (result === null) throw new SystemError(error, "realpath");
  return new TextDecoder().decode(into.subarray(0, into.indexOf(0)));
}

/**
 * Whether this process may do something with a file, as the kernel would decide now, without opening it.
 *
 * @param path The path; symbolic links are followed.
 * @param access Bits of {@linkcode Access}.
 * @returns Whether it may; `false` too when nothing is there.
 */
export function mayAccess(path: string, access: number): boolean {
  return libc.faccessat(AT_FDCWD, cString(path), access, AT_EACCESS) === 0;
}

/**
 * Waits until what was written to a file, or the names in a directory, are on the disk.
 *
 * @param fd The file or directory.
 * @throws {SystemError} EIO, ENOSPC and the like.
 */
export function syncFile(fd: number): void {
  uninterrupted("fsync", () => libc.fsync(fd));
}

/**
 * Gives a file to another user and group.
 *
 * @param fd The file.
 * @param uid The user.
 * @param gid The group.
 * @throws {SystemError} EPERM when this user may not.
 */
export function changeOwner(fd: number, uid: number, gid: number): void {
  check(libc.fchown(fd, uid, gid), "fchown");
}

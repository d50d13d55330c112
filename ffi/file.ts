/**
 * Files and directories, by libc, so that `--allow-ffi` alone suffices.
 *
 * @module
 */

import { closeDescriptor } from "./descriptor.ts";
import { check, cString, Errno, errno, libc, SystemError, uninterrupted } from "./libc.ts";

/** How a file is opened; bits. {@linkcode openFile} adds CLOEXEC itself. */
export const OpenFlag = {
  /** To read. */
  RDONLY: 0,
  /** To write. */
  WRONLY: 0o1,
  /** To read and to write. */
  RDWR: 0o2,
  /** Made if it is not there. */
  CREAT: 0o100,
  /** With CREAT: an error if it is there. */
  EXCL: 0o200,
  /** Emptied if it is there. */
  TRUNC: 0o1000,
  /** Never waits to be opened, and a read or write never waits. */
  NONBLOCK: 0o4000,
  /** An error if it is not a directory. */
  DIRECTORY: (Deno.build.arch === "aarch64" ? 0o40000 : 0o200000) as number,
  /** An error (ELOOP) if the last part of the path is a symbolic link. */
  NOFOLLOW: (Deno.build.arch === "aarch64" ? 0o100000 : 0o400000) as number,
  /** Closed in a program this process becomes. */
  CLOEXEC: 0o2000000,
} as const;

/**
 * Opens a file, close-on-exec always.
 *
 * @param path The path.
 * @param flags Bits of {@linkcode OpenFlag}.
 * @param mode The permission bits of a file that is made, less the process' umask; for its owner alone by default.
 * @returns The descriptor.
 * @throws {SystemError} ENOENT, EEXIST, EACCES, ELOOP and the like.
 */
export function openFile(path: string, flags: number, mode = 0o600): number {
  const name = cString(path);
  return uninterrupted("open", () => libc.open(name, flags | OpenFlag.CLOEXEC, mode));
}

/**
 * Reads from a place in a file.
 *
 * @param fd The file.
 * @param into Where to; its length is the most that is read.
 * @param offset The place, in bytes from the start.
 * @returns How many bytes were read; fewer than asked for only at the end.
 * @throws {SystemError} EBADF, EIO and the like.
 */
export function readAt(fd: number, into: Uint8Array<ArrayBuffer>, offset: number): number {
  return inPieces(
    into,
    (rest, done) => uninterrupted("pread", () => libc.pread(fd, rest, BigInt(rest.length), BigInt(offset + done))),
  );
}

/**
 * Writes to a place in a file.
 *
 * @param fd The file.
 * @param bytes What to write.
 * @param offset The place, in bytes from the start.
 * @returns How many bytes were written: all of them.
 * @throws {SystemError} EBADF, ENOSPC, EIO and the like; a part may have been written then.
 */
export function writeAt(fd: number, bytes: Uint8Array<ArrayBuffer>, offset: number): number {
  return inPieces(
    bytes,
    (rest, done) => uninterrupted("pwrite", () => libc.pwrite(fd, rest, BigInt(rest.length), BigInt(offset + done))),
  );
}

/** Moves bytes until all are moved or none is any more; the kernel may move fewer at a time than asked for. */
function inPieces(
  bytes: Uint8Array<ArrayBuffer>,
  move: (rest: Uint8Array<ArrayBuffer>, done: number) => number,
): number {
  let done = 0;
  while (done < bytes.length) {
    const count = move(done === 0 ? bytes : bytes.subarray(done), done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/**
 * Reads a file's text, for small files and those of /proc, which have no size.
 *
 * @param path The path.
 * @param maxBytes The most that is read; what is behind it is left out.
 * @returns The text; bytes that are not UTF-8 become U+FFFD.
 * @throws {SystemError} ENOENT, EACCES and the like.
 */
export function readText(path: string, maxBytes: number): string {
  const bytes = new Uint8Array(maxBytes);
  const fd = openFile(path, OpenFlag.RDONLY);
  let length: number;
  try {
    length = readAt(fd, bytes, 0);
  } finally {
    closeDescriptor(fd);
  }
  return new TextDecoder().decode(bytes.subarray(0, length));
}

/**
 * Makes a directory.
 *
 * @param path The path.
 * @param mode Its permission bits, less the process' umask.
 * @returns `false` when something is there already; it need not be a directory.
 * @throws {SystemError} ENOENT, EACCES and the like.
 */
export function makeDirectory(path: string, mode: number): boolean {
  const result = libc.mkdir(cString(path), mode);
  const error = errno();
  if (result !== -1) return true;
  if (error === Errno.EEXIST) return false;
  throw new SystemError(error, "mkdir");
}

/**
 * Removes a name; the file goes with its last name and descriptor.
 *
 * @param path The path, not of a directory.
 * @returns `false` when nothing is there.
 * @throws {SystemError} EISDIR, EACCES and the like.
 */
export function removeFile(path: string): boolean {
  const result = libc.unlink(cString(path));
  const error = errno();
  if (result !== -1) return true;
  if (error === Errno.ENOENT) return false;
  throw new SystemError(error, "unlink");
}

/**
 * Gives a file another name in one step, in place of what has that name.
 *
 * @param from The name it has.
 * @param to The name it gets, on the same file system.
 * @throws {SystemError} ENOENT, EXDEV, EACCES and the like.
 */
export function renameFile(from: string, to: string): void {
  check(libc.rename(cString(from), cString(to)), "rename");
}

/**
 * Sets a file's permission bits, whatever the process' umask.
 *
 * @param fd The file: at its path somebody may have put another in the meantime.
 * @param mode The bits.
 * @throws {SystemError} EBADF, EPERM and the like.
 */
export function changeMode(fd: number, mode: number): void {
  check(libc.fchmod(fd, mode), "fchmod");
}

/**
 * Cuts a file, or lengthens it with zeroes.
 *
 * @param fd The file, open for writing.
 * @param size Its new size in bytes.
 * @throws {SystemError} EINVAL, EPERM, EFBIG and the like.
 */
export function truncateFile(fd: number, size: number): void {
  uninterrupted("ftruncate", () => libc.ftruncate(fd, BigInt(size)));
}

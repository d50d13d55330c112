/**
 * Descriptors: closing, duplicating, and what is behind them.
 *
 * @module
 */

import { check, cString, Errno, errno, libc, SystemError } from "./libc.ts";

const F_DUPFD_CLOEXEC = 1030;

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;

const S_IFMT = 0o170000;
const PERMISSIONS = 0o7777;

/** The kinds of file that are told apart, by the S_IFMT bits of their mode. */
const kinds = new Map<number, FileKind>([
  [0o040000, "directory"],
  [0o100000, "file"],
  [0o120000, "symlink"],
  [0o140000, "socket"],
]);

const EMPTY_PATH = cString("");

/** The offsets into `struct statx` (256 bytes), which is the same on every architecture. */
const Statx = { SIZE: 256, uid: 20, gid: 24, mode: 28, ino: 32, size: 40, devMajor: 136, devMinor: 140 } as const;

/** What kind of thing a path or a descriptor stands for. */
export type FileKind = "file" | "directory" | "socket" | "symlink" | "other";

/** What the kernel knows of a file. */
export interface FileStatus {
  /** What kind of thing it is. */
  readonly kind: FileKind;
  /** The permission bits, with set-user-id, set-group-id and sticky: 0 to 0o7777. */
  readonly mode: number;
  /** The owner. */
  readonly uid: number;
  /** The owning group. */
  readonly gid: number;
  /** The size in bytes. */
  readonly size: number;
  /** The number of the file, unique on its device. */
  readonly inode: bigint;
  /** The device, its major number in the upper 32 bits. */
  readonly device: bigint;
}

/**
 * Runs something that is to take a descriptor over. If it fails, the descriptor is closed.
 *
 * @param fd The descriptor.
 * @param use What to run.
 * @returns What it returned.
 */
export function closedOnFailure<T>(fd: number, use: () => T): T {
  try {
    return use();
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/**
 * Closes a descriptor.
 *
 * @param fd The descriptor.
 * @throws {SystemError} EBADF when it is not open; EIO and the like when what was written before was lost.
 */
export function closeDescriptor(fd: number): void {
  const result = libc.close(fd);
  const error = errno();
  // On Linux an interrupted close has closed: to try again could close somebody else's descriptor of the same number.
  if (result === -1 && error !== Errno.EINTR) throw new SystemError(error, "close");
}

/**
 * A second descriptor for the same open file, close-on-exec.
 *
 * @param fd The descriptor.
 * @returns The new descriptor.
 * @throws {SystemError} EBADF; EMFILE when the process has too many.
 */
export function duplicate(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0n), "fcntl");
}

/**
 * What is behind a descriptor.
 *
 * @param fd The descriptor.
 * @returns Its status.
 * @throws {SystemError} EBADF when it is not open.
 */
export function describe(fd: number): FileStatus {
  const statx = new DataView(new ArrayBuffer(Statx.SIZE));
  check(libc.statx(fd, EMPTY_PATH, AT_EMPTY_PATH, STATX_BASIC_STATS, statx), "statx");
  return fileStatus(statx);
}

/**
 * What is at a path; a symbolic link is described itself, not what it leads to.
 *
 * @param path The path.
 * @returns Its status, or `undefined` when nothing is there.
 * @throws {SystemError} EACCES, ENOTDIR and the like.
 */
export function describePath(path: string): FileStatus | undefined {
  const statx = new DataView(new ArrayBuffer(Statx.SIZE));
  const result = libc.statx(AT_FDCWD, cString(path), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statx);
  const error = errno();
  if (result !== -1) return fileStatus(statx);
  if (error === Errno.ENOENT) return undefined;
  throw new SystemError(error, "statx");
}

function fileStatus(statx: DataView): FileStatus {
  const mode = statx.getUint16(Statx.mode, true);
  return {
    kind: kinds.get(mode & S_IFMT) ?? "other",
    mode: mode & PERMISSIONS,
    uid: statx.getUint32(Statx.uid, true),
    gid: statx.getUint32(Statx.gid, true),
    size: Number(statx.getBigUint64(Statx.size, true)),
    inode: statx.getBigUint64(Statx.ino, true),
    device: BigInt(statx.getUint32(Statx.devMajor, true)) << 32n | BigInt(statx.getUint32(Statx.devMinor, true)),
  };
}

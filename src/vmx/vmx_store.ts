/**
 * `.vmx` files on the disk: read whole, and replaced in one step, with a copy of what was there before.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { asVmciError } from "../fabric/local/system_failure.ts";
import { closeDescriptor, describe, describePath, type FileStatus } from "../../ffi/descriptor.ts";
import { changeMode, openFile, OpenFlag, readAt, removeFile, renameFile, writeAt } from "../../ffi/file.ts";
import { SystemError, UnsupportedPlatformError } from "../../ffi/libc.ts";
import { changeOwner, listDirectory, realPath, syncFile } from "../../ffi/path.ts";
import { VmxError, VmxText } from "./vmx_text.ts";

/** The largest file that is read; real ones have a few kilobytes. */
const MOST_BYTES = 1 << 20;

/** The most copies of one file that are kept. */
const MOST_BACKUPS = 1000;

/** A file as it was read. */
export interface VmxFile {
  /** What the user calls it. */
  readonly name: string;
  /** Where it really is. */
  readonly path: string;
  /** Its owner, permissions and number. */
  readonly status: FileStatus;
  /** Its content. */
  readonly vmx: VmxText;
}

/**
 * Reads a file.
 *
 * @param name Its path; a symbolic link is followed.
 * @returns The file.
 * @throws {VmciError} NOT_FOUND when it is not there; NO_ACCESS; INVALID_ARGS when it is no `.vmx` file.
 */
export function readVmx(name: string): VmxFile {
  return failing(`read ${name}`, () => {
    const path = realPath(name);
    const { bytes, status } = readWhole(path);
    return { name, path, status, vmx: VmxText.parse(bytes) };
  });
}

/**
 * Whether two names are of the same file.
 *
 * @param one The one.
 * @param other The other.
 * @returns Whether they are.
 */
export function isSame(one: VmxFile, other: VmxFile): boolean {
  return one.status.inode === other.status.inode && one.status.device === other.status.device;
}

/**
 * What shows that a program of VMware has a file open: beside it is `NAME.lck`, a folder with something in it, or a file.
 * A crash leaves it there too.
 *
 * @param file The file.
 * @returns The path of the lock, or `undefined`.
 * @throws {VmciError} NO_ACCESS when that cannot be seen.
 */
export function lockOf(file: VmxFile): string | undefined {
  return failing(`see whether ${file.name} is in use`, () =>
    [`${file.path}.lck`, `${file.name}.lck`].find((lock) => {
      const status = describePath(lock);
      return status !== undefined && (status.kind !== "directory" || listDirectory(lock).length > 0);
    }));
}

/**
 * Replaces a file's content in one step: whenever the machine stops, one finds the old content or the new one, whole.
 * Its permissions and owner stay. Beside it a copy of the old content stays, as `NAME.bak` or, where that is something
 * else already, `NAME.bak.1` and so on.
 *
 * @param file The file as it was read.
 * @param vmx The new content.
 * @returns The path of the copy.
 * @throws {VmciError} UNAVAILABLE when somebody else has changed the file since; NO_ACCESS when it may not be replaced,
 * or not be given to its owner; NO_MEM when the disk is full. The file is then as it was.
 */
export function replaceVmx(file: VmxFile, vmx: VmxText): string {
  return failing(`change ${file.name}`, () => {
    const { path, status } = file;
    const folder = path.slice(0, path.lastIndexOf("/") + 1);
    const temporary = `${folder}.${path.slice(folder.length)}.${Deno.pid}.tmp`;
    const backup = keepCopy(file);
    try {
      writeNew(temporary, vmx.bytes, status);
      try {
        assertUnchanged(file);
        renameFile(temporary, path);
      } catch (error) {
        removeQuietly(temporary);
        throw error;
      }
    } catch (error) {
      if (backup.made) removeQuietly(backup.path);
      throw error;
    }
    syncFolder(folder);
    return backup.path;
  });
}

/** Makes a copy of the content as it was read, unless there is one already. */
function keepCopy(file: VmxFile): { readonly path: string; readonly made: boolean } {
  const { bytes } = file.vmx;
  for (let number = 0; number < MOST_BACKUPS; number++) {
    const path = `${file.path}.bak${number === 0 ? "" : `.${number}`}`;
    const there = describePath(path);
    if (there === undefined) {
      writeNew(path, bytes, file.status);
      return { path, made: true };
    }
    if (there.kind === "file" && there.size === bytes.length && isEqual(readWhole(path).bytes, bytes)) {
      return { path, made: false };
    }
  }
  throw new VmxError(`there are ${MOST_BACKUPS} copies beside it already: ${file.path}.bak and so on`);
}

/** Writes a file that must not be there yet, down to the disk; when that fails nothing of it is left. */
function writeNew(path: string, bytes: Uint8Array<ArrayBuffer>, { mode, uid, gid }: FileStatus): void {
  const fd = openFile(path, OpenFlag.WRONLY | OpenFlag.CREAT | OpenFlag.EXCL | OpenFlag.NOFOLLOW, 0o600);
  try {
    try {
      for (let at = 0; at < bytes.length;) at += writeAt(fd, bytes.subarray(at), at);
      const own = describe(fd);
      if (own.uid !== uid || own.gid !== gid) changeOwner(fd, uid, gid);
      changeMode(fd, mode);
      syncFile(fd);
    } finally {
      closeDescriptor(fd);
    }
  } catch (error) {
    removeQuietly(path);
    throw error;
  }
}

function assertUnchanged({ name, path, status, vmx }: VmxFile): void {
  const now = readWhole(path);
  if (now.status.inode === status.inode && isEqual(now.bytes, vmx.bytes)) return;
  throw new VmciError("UNAVAILABLE", {
    operation: `change ${name}`,
    reason: "somebody else has changed it in the meantime; it is as he left it",
  });
}

/** Makes the new name last; where a file system cannot, the content is right all the same. */
function syncFolder(folder: string): void {
  try {
    const fd = openFile(folder, OpenFlag.RDONLY | OpenFlag.DIRECTORY);
    try {
      syncFile(fd);
    } finally {
      closeDescriptor(fd);
    }
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  }
}

/** Removes what is of no use, while another error is on its way that says more. */
function removeQuietly(path: string): void {
  try {
    removeFile(path);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  }
}

function readWhole(path: string): { readonly bytes: Uint8Array<ArrayBuffer>; readonly status: FileStatus } {
  // A pipe would have to be waited for, and is no file all the same.
  const fd = openFile(path, OpenFlag.RDONLY | OpenFlag.NONBLOCK);
  try {
    const status = describe(fd);
    if (status.kind !== "file") throw new VmxError(`it is no file, but a ${status.kind}`);
    if (status.size > MOST_BYTES) throw new VmxError(`it has ${status.size} bytes, more than any .vmx file`);
    const bytes = new Uint8Array(status.size);
    let length = 0;
    while (length < bytes.length) {
      const count = readAt(fd, bytes.subarray(length), length);
      if (count === 0) break;
      length += count;
    }
    return { bytes: bytes.slice(0, length), status };
  } finally {
    closeDescriptor(fd);
  }
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}

/** Does something; what fails is a `VmciError`. */
function failing<T>(operation: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof VmxError) {
      throw new VmciError("INVALID_ARGS", { operation, reason: error.message, cause: error });
    }
    if (error instanceof UnsupportedPlatformError) {
      const reason = `${error.message}; .vmx files are read and changed on Linux only`;
      throw new VmciError("UNAVAILABLE", { operation, reason, cause: error });
    }
    if (error instanceof SystemError && error.code === "ENOENT") {
      throw new VmciError("NOT_FOUND", { operation, reason: error.message, cause: error });
    }
    throw asVmciError(error, operation);
  }
}

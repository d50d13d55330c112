/**
 * A listening socket with a path of its own, outside of any run directory.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { closeDescriptor, closedOnFailure, describe, describePath, type FileStatus } from "../../../ffi/descriptor.ts";
import { openFile, OpenFlag, removeFile } from "../../../ffi/file.ts";
import { tryLockFile } from "../../../ffi/file_lock.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { userId } from "../../../ffi/process.ts";
import { connectSeqpacket, listenSeqpacket, peerCredentials, waitReadable } from "../../../ffi/unix_socket.ts";
import { asVmciError } from "./system_failure.ts";

/** Connections that may wait to be accepted. */
const BACKLOG = 4096;

/** Milliseconds that another process of this user may take to listen at the same path. */
const PATIENCE = 2000;

const LOCK_FLAGS = OpenFlag.RDWR | OpenFlag.CREAT | OpenFlag.NOFOLLOW;

/** See the module's comment. The mode of its file is what the process' umask leaves. */
export class ServedSocket {
  /** What listens. */
  readonly descriptor: number;
  readonly #path: string;
  readonly #file: FileStatus;

  private constructor(descriptor: number, path: string, file: FileStatus) {
    this.descriptor = descriptor;
    this.#path = path;
    this.#file = file;
  }

  /**
   * Listens at a path, in place of a socket where nobody listens any more.
   *
   * @param path Where.
   * @returns The socket.
   * @throws {VmciError} ALREADY_EXISTS when somebody listens there, or it is not a socket; NO_ACCESS when its lock is not
   * this user's alone; NO_ACCESS and UNAVAILABLE as the system says.
   */
  static listen(path: string): ServedSocket {
    try {
      return ServedSocket.#listen(path);
    } catch (error) {
      throw asVmciError(error, `listen at ${path}`);
    }
  }

  static #listen(path: string): ServedSocket {
    // Of two that find the same stale socket, the second would remove what the first has put in its place.
    using _lock = new PathLock(path);
    const there = describePath(path);
    if (there !== undefined) {
      if (there.kind !== "socket") throw taken(`${path} is a ${there.kind}, not a socket`);
      const pid = ServedSocket.listenerAt(path);
      if (pid !== undefined) throw taken(`process ${pid} listens at ${path} already`);
      removeFile(path);
    }
    const descriptor = listenSeqpacket(path, BACKLOG);
    return new ServedSocket(descriptor, path, describePath(path)!);
  }

  /**
   * Who listens at a path.
   *
   * @param path Where.
   * @returns The process, or `undefined` when nobody listens.
   * @throws {VmciError} ALREADY_EXISTS when it is another kind of socket.
   * @throws {SystemError} EACCES and the like.
   */
  static listenerAt(path: string): number | undefined {
    let fd: number;
    try {
      fd = connectSeqpacket(path);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED") return undefined;
      if (error.code === "EPROTOTYPE") throw taken(`${path} is a socket of another kind, and somebody listens there`);
      throw error;
    }
    try {
      return peerCredentials(fd).pid;
    } finally {
      closeDescriptor(fd);
    }
  }

  /** Removes the path, if it still is this socket's. */
  remove(): void {
    if (isSame(describePath(this.#path), this.#file)) removeFile(this.#path);
  }

  /** Stops listening and removes the path. */
  abandon(): void {
    this.remove();
    closeDescriptor(this.descriptor);
  }
}

/**
 * The right to change what is at a path: a locked file beside it, which is there only meanwhile. Whoever can open a file
 * can lock it, so it is this user's alone; the directory itself others could lock for ever.
 */
class PathLock implements Disposable {
  readonly #name: string;
  readonly #fd: number;

  /** Waits for another process of this user, but not for ever. */
  constructor(path: string) {
    this.#name = `${path}.lock`;
    const deadline = performance.now() + PATIENCE;
    for (let fd = tryLock(this.#name);; fd = tryLock(this.#name)) {
      if (fd !== undefined) {
        this.#fd = fd;
        return;
      }
      if (performance.now() > deadline) {
        throw taken(`another process has had ${this.#name} locked for long: end it, or serve another place`);
      }
      waitReadable([], 5);
    }
  }

  [Symbol.dispose](): void {
    try {
      // While it is locked: it is this one's.
      removeFile(this.#name);
    } catch (error) {
      // One that stays there hinders nobody.
      if (!(error instanceof SystemError)) throw error;
    } finally {
      closeDescriptor(this.#fd);
    }
  }
}

/** Locks a file, made if it is not there; answers with the descriptor, or `undefined` when somebody else has it. */
function tryLock(name: string): number | undefined {
  // Looked at before, since the system's own refusals would not say what to do, and after, since it may change between.
  refuseForeign(name, describePath(name));
  const fd = openFile(name, LOCK_FLAGS, 0o600);
  const locked = closedOnFailure(fd, () => {
    const file = describe(fd);
    refuseForeign(name, file);
    // Whoever had it before has removed it: then another is to be locked.
    return tryLockFile(fd) && isSame(describePath(name), file);
  });
  if (locked) return fd;
  closeDescriptor(fd);
  return undefined;
}

/** Refuses as a lock what others may have locked, or may lock, and what is no lock: it would be removed. */
function refuseForeign(name: string, file: FileStatus | undefined): void {
  if (file === undefined) return;
  const isLock = file.kind === "file" && file.size === 0;
  if (isLock && file.uid === userId() && (file.mode & 0o077) === 0) return;
  throw new VmciError("NO_ACCESS", {
    operation: "serve the fabric",
    reason: `${name} should be an empty file of this user's alone, with mode 600: remove it, or serve another place`,
  });
}

function isSame(one: FileStatus | undefined, other: FileStatus): boolean {
  return one?.inode === other.inode && one.device === other.device;
}

function taken(reason: string): VmciError {
  return new VmciError("ALREADY_EXISTS", { operation: "serve the fabric", reason });
}

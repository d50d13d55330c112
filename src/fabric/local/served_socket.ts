/**
 * A listening socket with a path of its own, outside of any run directory.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { closeDescriptor, describePath, type FileStatus } from "../../../ffi/descriptor.ts";
import { openFile, OpenFlag, removeFile } from "../../../ffi/file.ts";
import { tryLockFile } from "../../../ffi/file_lock.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { connectSeqpacket, listenSeqpacket, peerCredentials, waitReadable } from "../../../ffi/unix_socket.ts";
import { asVmciError } from "./system_failure.ts";

/** Connections that may wait to be accepted. */
const BACKLOG = 4096;

/** Milliseconds that another process may look at the same directory. */
const PATIENCE = 2000;

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
   * @throws {VmciError} ALREADY_EXISTS when somebody listens there, or it is not a socket; NO_ACCESS and UNAVAILABLE as
   * the system says.
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
    const directory = lockDirectoryOf(path);
    try {
      const there = describePath(path);
      if (there !== undefined) {
        if (there.kind !== "socket") throw taken(`${path} is a ${there.kind}, not a socket`);
        const pid = ServedSocket.listenerAt(path);
        if (pid !== undefined) throw taken(`process ${pid} listens at ${path} already`);
        removeFile(path);
      }
      const descriptor = listenSeqpacket(path, BACKLOG);
      return new ServedSocket(descriptor, path, describePath(path)!);
    } finally {
      closeDescriptor(directory);
    }
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
    const there = describePath(this.#path);
    if (there?.inode === this.#file.inode && there.device === this.#file.device) removeFile(this.#path);
  }

  /** Stops listening and removes the path. */
  abandon(): void {
    this.remove();
    closeDescriptor(this.descriptor);
  }
}

/** Locks the directory that a path is in, and answers with the descriptor that holds the lock. */
function lockDirectoryOf(path: string): number {
  const end = path.lastIndexOf("/");
  const fd = openFile(end < 0 ? "." : path.slice(0, end + 1), OpenFlag.RDONLY | OpenFlag.DIRECTORY);
  const deadline = performance.now() + PATIENCE;
  try {
    while (!tryLockFile(fd)) {
      if (performance.now() > deadline) throw taken(`another process has had the directory of ${path} locked for long`);
      waitReadable([], 5);
    }
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function taken(reason: string): VmciError {
  return new VmciError("ALREADY_EXISTS", { operation: "serve the fabric", reason });
}

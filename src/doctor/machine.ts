/**
 * Where the doctor looks: files, folders and nodes of a machine, read and never opened for anything else.
 *
 * @module
 */

import { describePath, type FileKind } from "../../ffi/descriptor.ts";
import { readText } from "../../ffi/file.ts";
import { SystemError, UnsupportedPlatformError } from "../../ffi/libc.ts";
import { Access, listDirectory, mayAccess, readLink } from "../../ffi/path.ts";
import { userId } from "../../ffi/process.ts";

/** The most of a file that is read as a rule. (The kernel refuses reads of 4 MiB from its own settings.) */
const MOST_BYTES = 1 << 16;

/** Something at a path. */
export interface NodeStatus {
  /** What it is. */
  readonly kind: Exclude<FileKind, "other"> | "device";
  /** The permission bits. */
  readonly mode: number;
  /** The owner. */
  readonly uid: number;
  /** The owning group. */
  readonly gid: number;
}

/** A machine, as far as files tell. What is not there and what may not be seen is the same here. */
export interface Machine {
  /** The operating system, as `Deno.build.os` says it; `linux` is one whose files can be asked. */
  readonly os: string;
  /** The processor, as `Deno.build.arch` says it. */
  readonly arch: string;
  /** The user that asks; `null` where that is no number. */
  readonly uid: number | null;
  /** The text of a file, trimmed; 64 KiB of it if nothing else is said. */
  text(path: string, maxBytes?: number): string | undefined;
  /** The names in a directory. */
  list(path: string): readonly string[];
  /** What is at a path. */
  node(path: string): NodeStatus | undefined;
  /** Where a symbolic link leads. */
  link(path: string): string | undefined;
  /** Whether this user may read and write it. */
  mayUse(path: string): boolean;
}

/** This machine; or, under a root directory of its own, another one. */
export class LinuxMachine implements Machine {
  readonly os: string = "linux";
  readonly arch: string = Deno.build.arch;
  readonly #root: string;

  /**
   * Makes a machine.
   *
   * @param root What stands before every path: nothing for this machine.
   */
  constructor(root = "") {
    this.#root = root;
  }

  get uid(): number {
    return userId();
  }

  text(path: string, maxBytes: number = MOST_BYTES): string | undefined {
    return look(() => readText(this.#root + path, maxBytes).trim());
  }

  list(path: string): readonly string[] {
    return look(() => listDirectory(this.#root + path)) ?? [];
  }

  node(path: string): NodeStatus | undefined {
    const status = look(() => describePath(this.#root + path));
    if (status === undefined) return undefined;
    const { kind, mode, uid, gid } = status;
    return { kind: kind === "other" ? "device" : kind, mode, uid, gid };
  }

  link(path: string): string | undefined {
    return look(() => readLink(this.#root + path));
  }

  mayUse(path: string): boolean {
    return mayAccess(this.#root + path, Access.READ | Access.WRITE);
  }
}

/** A machine whose files cannot be asked here: not Linux, or without its C library. */
export class OtherMachine implements Machine {
  readonly os: string;
  readonly arch: string;
  readonly uid = null;

  /**
   * Makes a machine.
   *
   * @param os The operating system.
   * @param arch The processor.
   */
  constructor(os: string, arch: string) {
    this.os = os;
    this.arch = arch;
  }

  text(): undefined {}

  list(): readonly string[] {
    return [];
  }

  node(): undefined {}

  link(): undefined {}

  mayUse(): boolean {
    return false;
  }
}

/** The machine this program runs on. */
export function thisMachine(): Machine {
  const { os, arch } = Deno.build;
  if (os !== "linux") return new OtherMachine(os, arch);
  const machine = new LinuxMachine();
  try {
    void machine.uid;
    return machine;
  } catch (error) {
    if (error instanceof UnsupportedPlatformError) return new OtherMachine("linux without glibc", arch);
    throw error;
  }
}

/** Looks; whatever the system refuses is not there. */
function look<T>(at: () => T): T | undefined {
  try {
    return at();
  } catch (error) {
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}

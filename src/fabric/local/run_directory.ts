/**
 * Where a fabric of one user is: a directory with the socket, the lock, the roster and the mark of used numbers.
 *
 * Whoever holds `lock` is the broker. Every client holds one byte of `roster` locked while it lives, so that a new broker
 * knows whom to wait for. `numbers` says below which number handles may have been given. Locks of the kind used here
 * belong to an open file, not to a process or a name: the kernel lets go of them when it closes, whatever happens.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { closeDescriptor, closedOnFailure, describePath } from "../../../ffi/descriptor.ts";
import { makeDirectory, openFile, OpenFlag, readAt, readText, writeAt } from "../../../ffi/file.ts";
import { isByteLocked, tryLockByte, tryLockFile } from "../../../ffi/file_lock.ts";
import { environment, userId } from "../../../ffi/process.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { ClientLedger } from "./client_ledger.ts";
import { asVmciError } from "./system_failure.ts";

const FILE_FLAGS = OpenFlag.RDWR | OpenFlag.CREAT | OpenFlag.NOFOLLOW | OpenFlag.CLOEXEC;

/** The most clients of one fabric that a new broker waits for. */
const MOST_SLOTS = 65536;

/** The size of the roster's record of one client: its process. */
const SLOT_SIZE = 8;

/** The size of a key in bytes. */
const KEY_SIZE = 32;

/** The longest path of a directory in bytes: with `/socket.` and a process id it must fit into a socket's address. */
const MOST_PATH = 92;

/** The size of the largest file that is read as a text. */
const MOST_TEXT = 1 << 20;

/** A directory that was checked: it is there, this user's, and nobody else can write to it. */
export class RunDirectory {
  readonly path: string;

  /**
   * Checks a directory.
   *
   * @param path Where it is.
   * @throws {VmciError} UNAVAILABLE when there is none; NO_ACCESS when it is not this user's alone.
   */
  constructor(path: string) {
    const operation = "open the fabric";
    const status = describePath(path);
    if (status === undefined) {
      throw new VmciError("UNAVAILABLE", {
        operation,
        reason: `there is no directory ${path}; make it with mode 700, or leave the device out`,
      });
    }
    if (status.kind !== "directory") {
      throw new VmciError("UNAVAILABLE", { operation, reason: `${path} is a ${status.kind}, not a directory` });
    }
    if (status.uid !== userId()) {
      throw new VmciError("NO_ACCESS", {
        operation,
        reason:
          `${path} belongs to user ${status.uid}, and this is user ${userId()}: a fabric without a daemon is one ` +
          `user's alone`,
      });
    }
    if ((status.mode & 0o077) !== 0) {
      throw new VmciError("NO_ACCESS", {
        operation,
        reason: `others may enter ${path} (mode ${status.mode.toString(8)}): chmod 700 it`,
      });
    }
    this.path = path;
  }

  /**
   * The default directory of this user, made if it is not there: `/run/user/UID/vmci`, or `/tmp/vmci-UID`.
   *
   * @returns The directory.
   */
  static ofUser(): RunDirectory {
    const uid = userId();
    const runtime = `/run/user/${uid}`;
    const status = describePath(runtime);
    const path = status?.kind === "directory" && status.uid === uid ? `${runtime}/vmci` : `/tmp/vmci-${uid}`;
    makeDirectory(path, 0o700);
    return new RunDirectory(path);
  }

  /**
   * A directory beside a daemon's socket, made if it is not there.
   *
   * @param path Where.
   * @returns The directory.
   * @throws {VmciError} UNAVAILABLE or NO_ACCESS when it cannot be made.
   */
  static make(path: string): RunDirectory {
    try {
      makeDirectory(path, 0o700);
    } catch (error) {
      throw asVmciError(error, `make the directory ${path}`);
    }
    return new RunDirectory(path);
  }

  /**
   * The control socket.
   *
   * @returns Its path.
   * @throws {VmciError} UNAVAILABLE when that is too long for a socket.
   */
  get socket(): string {
    const { length } = new TextEncoder().encode(this.path);
    if (length > MOST_PATH) {
      throw new VmciError("UNAVAILABLE", {
        operation: "open the fabric",
        reason: `a fabric's directory has a path of at most ${MOST_PATH} bytes, this one has ${length}: ${this.path}`,
      });
    }
    return `${this.path}/socket`;
  }

  get #lock(): string {
    return `${this.path}/lock`;
  }

  get #roster(): string {
    return `${this.path}/roster`;
  }

  get #numbers(): string {
    return `${this.path}/numbers`;
  }

  /**
   * Takes the lock.
   *
   * @returns The descriptor that holds it, or `undefined` when somebody else does.
   */
  tryLock(): number | undefined {
    const fd = openFile(this.#lock, FILE_FLAGS, 0o600);
    if (closedOnFailure(fd, () => tryLockFile(fd))) return fd;
    closeDescriptor(fd);
    return undefined;
  }

  /** Takes a byte of the roster that nobody has, and says which; the descriptor holds it. */
  takeSlot(): { readonly fd: number; readonly slot: number } {
    const fd = openFile(this.#roster, FILE_FLAGS, 0o600);
    return closedOnFailure(fd, () => {
      for (const slot of slotsToTry()) {
        if (!tryLockByte(fd, slot)) continue;
        const record = new Uint8Array(SLOT_SIZE);
        new DataView(record.buffer).setUint32(0, Deno.pid, true);
        writeAt(fd, record, slot * SLOT_SIZE);
        return { fd, slot };
      }
      throw new VmciError("NO_RESOURCES", {
        operation: "open the fabric",
        reason: `${MOST_SLOTS} clients live in ${this.path} already`,
      });
    });
  }

  /** Opens the roster for looking. */
  openRoster(): Roster {
    return new Roster(openFile(this.#roster, FILE_FLAGS, 0o600), this.#roster);
  }

  /** Opens the list of a daemon's clients. */
  openLedger(): ClientLedger {
    return new ClientLedger(openFile(`${this.path}/clients`, FILE_FLAGS, 0o600));
  }

  /** The key of a daemon's tickets that is kept here, which is made if there is none. */
  readKey(): Uint8Array {
    const fd = openFile(`${this.path}/key`, FILE_FLAGS, 0o600);
    try {
      const key = new Uint8Array(KEY_SIZE);
      if (readAt(fd, key, 0) < KEY_SIZE) writeAt(fd, crypto.getRandomValues(key), 0);
      return key;
    } finally {
      closeDescriptor(fd);
    }
  }

  /** Opens the mark of used numbers. */
  openNumbers(): NumberMark {
    return new NumberMark(openFile(this.#numbers, FILE_FLAGS, 0o600));
  }
}

/**
 * The slots in the order in which they are tried: some of the first ones by chance, then some of more, so that a few
 * tries suffice however many are taken, and the roster stays short; at last all of them.
 */
function* slotsToTry(): Iterable<number> {
  for (let first = 16; first < MOST_SLOTS; first *= 4) {
    for (let tries = 0; tries < 4; tries++) yield Math.floor(Math.random() * first);
  }
  for (let slot = 0; slot < MOST_SLOTS; slot++) yield slot;
}

/** The roster, seen by a broker. */
export class Roster {
  readonly #fd: number;
  readonly #path: string;

  constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /** The slots of those who live. */
  living(): number[] {
    const slots = Math.min(Math.ceil((describePath(this.#path)?.size ?? 0) / SLOT_SIZE), MOST_SLOTS);
    return Array.from({ length: slots }, (_, slot) => slot).filter((slot) => this.isLiving(slot));
  }

  /** Whether the holder of a slot lives. */
  isLiving(slot: number): boolean {
    return isByteLocked(this.#fd, slot);
  }

  close(): void {
    closeDescriptor(this.#fd);
  }
}

/** The number below which handles may have been given, kept beyond the life of any broker. */
export class NumberMark {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The mark; 0 at first. */
  read(): number {
    const bytes = new Uint8Array(8);
    return readAt(this.#fd, bytes, 0) === 8 ? Number(new DataView(bytes.buffer).getBigUint64(0, true)) : 0;
  }

  /** Moves the mark. */
  write(mark: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(mark), true);
    writeAt(this.#fd, bytes, 0);
  }

  close(): void {
    closeDescriptor(this.#fd);
  }
}

/** What the environment says: the fabric's device and this process' context. Read through libc: no permission needed. */
export function environmentDefaults(): { readonly device: string | undefined; readonly context: number | undefined } {
  const context = environment("VMCI_CID");
  if (context !== undefined && !/^\d{1,10}$/.test(context)) {
    throw new VmciError("INVALID_ARGS", {
      operation: "openVmci",
      reason: `the environment variable VMCI_CID must be a context id: it is '${context}'`,
    });
  }
  return {
    device: environment("VMCI_FABRIC"),
    context: context === undefined ? undefined : Number(context),
  };
}

/**
 * The text of a small file, whole.
 *
 * @param path Where it is.
 * @returns Its text.
 * @throws {VmciError} UNAVAILABLE or NO_ACCESS when it cannot be read; NO_RESOURCES when it is longer than 1 MiB.
 */
export function readFileText(path: string): string {
  const operation = `read ${path}`;
  // One byte more shows whether there is more.
  const bytes = new Uint8Array(MOST_TEXT + 1);
  let length: number;
  try {
    const fd = openFile(path, OpenFlag.RDONLY);
    length = closedOnFailure(fd, () => readAt(fd, bytes, 0));
    closeDescriptor(fd);
  } catch (error) {
    throw asVmciError(error, operation);
  }
  if (length <= MOST_TEXT) return new TextDecoder().decode(bytes.subarray(0, length));
  const reason = `it is longer than ${MOST_TEXT} bytes, and what is behind them would be left out: shorten it`;
  throw new VmciError("NO_RESOURCES", { operation, reason });
}

const STATES: Readonly<Record<string, string>> = {
  R: "running",
  S: "sleeping",
  D: "waiting for a device",
  T: "stopped (kill -CONT it)",
  t: "stopped by a debugger",
  Z: "dead and not yet reaped",
};

/** What a process is doing, for people. */
export function describeProcess(pid: number): string {
  try {
    const stat = readText(`/proc/${pid}/stat`, 4096);
    const state = stat.slice(stat.lastIndexOf(")") + 2).charAt(0);
    return `process ${pid} is ${STATES[state] ?? `in state ${state}`}`;
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    return `process ${pid} is gone`;
  }
}

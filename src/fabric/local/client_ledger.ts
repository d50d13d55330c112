/**
 * Which processes are a daemon's clients, kept where the next daemon finds it: it must know whom to wait for.
 *
 * @module
 */

import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { readAt, readText, truncateFile, writeAt } from "../../../ffi/file.ts";
import { SystemError } from "../../../ffi/libc.ts";

/** One record: the client's number, its process, and when that process began (process ids are given again). */
const RECORD_SIZE = 16;

/** The most records that are read of what an earlier daemon left. */
const MOST_RECORDS = 65536;

/** A client of the daemon before. */
export interface LedgerEntry {
  /** Its number. */
  readonly client: number;
  /** Its process. */
  readonly pid: number;
  /** When that began, in the kernel's ticks since boot. */
  readonly started: bigint;
}

/** See the module's comment. */
export class ClientLedger {
  readonly #fd: number;
  readonly #places = new Map<number, number>();
  readonly #free: number[] = [];
  /** Clients of the daemon before that did not come back yet. */
  readonly #missing = new Set<number>();
  #end = 0;
  /** Whether the last who left could not be written. */
  #failing = false;

  /** @param fd The file; taken over. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Reads what the daemon before left: those of its clients that still live. They stay in the file until
   * {@linkcode ClientLedger.forgetMissing}, since this daemon may die before they came back to it.
   */
  readSurvivors(): LedgerEntry[] {
    const bytes = new Uint8Array(MOST_RECORDS * RECORD_SIZE);
    const length = readAt(this.#fd, bytes, 0);
    const view = new DataView(bytes.buffer);
    const entries: LedgerEntry[] = [];
    const seen: SeenProcesses = new Map();
    for (let at = 0; at + RECORD_SIZE <= length; at += RECORD_SIZE) {
      const client = view.getUint32(at, true);
      const entry = { client, pid: view.getUint32(at + 4, true), started: view.getBigUint64(at + 8, true) };
      if (client !== 0 && isSameProcess(entry, seen)) entries.push(entry);
    }
    for (const entry of entries) {
      this.#missing.add(entry.client);
      this.#put(entry);
    }
    truncateFile(this.#fd, this.#end * RECORD_SIZE);
    return entries;
  }

  /**
   * A client came, or came back.
   *
   * @throws {SystemError} When it cannot be written: then it must not be let in, for the next daemon would not wait for it.
   */
  add(client: number, pid: number): void {
    this.#missing.delete(client);
    this.#put({ client, pid, started: processStart(pid) ?? 0n });
  }

  /** Nobody else is expected to come back. Never fails, as {@linkcode ClientLedger.remove}. */
  forgetMissing(): void {
    for (const client of this.#missing) this.remove(client);
    this.#missing.clear();
  }

  #put(entry: LedgerEntry): void {
    const place = this.#places.get(entry.client) ?? this.#free.pop() ?? this.#end++;
    this.#places.set(entry.client, place);
    this.#write(place, entry);
  }

  /**
   * A client left. Never fails: who stays in the file is waited for by the next daemon, but not for long, and is given
   * nothing without a ticket. Its place is the next client's all the same.
   */
  remove(client: number): void {
    const place = this.#places.get(client);
    if (place === undefined) return;
    this.#places.delete(client);
    this.#free.push(place);
    try {
      this.#write(place, { client: 0, pid: 0, started: 0n });
      this.#failing = false;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (!this.#failing) console.error(`vmci: cannot write that client ${client} left: ${error.message}`);
      this.#failing = true;
    }
  }

  /** Gives the file back. */
  close(): void {
    closeDescriptor(this.#fd);
  }

  #write(place: number, { client, pid, started }: LedgerEntry): void {
    const record = new Uint8Array(RECORD_SIZE);
    const view = new DataView(record.buffer);
    view.setUint32(0, client, true);
    view.setUint32(4, pid, true);
    view.setBigUint64(8, started, true);
    writeAt(this.#fd, record, place * RECORD_SIZE);
  }
}

/** When processes began, as seen in one look at all of them; "unseen" where that could not be seen. */
export type SeenProcesses = Map<number, bigint | undefined | "unseen">;

/**
 * Whether the process of an entry still lives. Where that cannot be seen now, it is waited for.
 *
 * @param seen What this look at all entries has seen: one process may have many of them, and is looked at once.
 */
export function isSameProcess({ pid, started }: LedgerEntry, seen: SeenProcesses = new Map()): boolean {
  if (!seen.has(pid)) seen.set(pid, look(pid));
  const start = seen.get(pid);
  return start === "unseen" || start === started;
}

function look(pid: number): bigint | undefined | "unseen" {
  try {
    return processStart(pid);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    return "unseen";
  }
}

/**
 * When a process began, in the kernel's ticks since boot; `undefined` when there is none.
 *
 * @throws {SystemError} When it cannot be seen, for want of descriptors.
 */
function processStart(pid: number): bigint | undefined {
  try {
    const stat = readText(`/proc/${pid}/stat`, 4096);
    // The name may hold blanks and parentheses; the fields after it do not. The start is field 22.
    return BigInt(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!);
  } catch (error) {
    if (error instanceof SystemError && (error.code === "ENOENT" || error.code === "ESRCH")) return undefined;
    throw error;
  }
}

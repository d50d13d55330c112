/**
 * The discovery service's table, and what it answers. It is a machine without sockets and without a clock of its own.
 *
 * A name goes when somebody who may takes it away, when its handle is found to be nobody's, and when who said that he
 * keeps it has not said so for a while.
 *
 * @module
 */

import { type ContextId, type Handle, handlesEqual, HOST_CONTEXT, INVALID_HANDLE } from "../handle.ts";
import { PUBLIC_GROUP } from "../fabric/broker.ts";
import { PUBLIC_GROUP_NAME } from "../limits.ts";
import { type ErrorCodeName, ResultCode } from "../result_code.ts";
import { decodeDsRequest, DsAction, type DsReply, type DsRequest, encodeDsReply, isNameable } from "./ds_message.ts";

/** Milliseconds for which a name lives that somebody keeps and has not named again. */
export const KEPT_FOR = 20_000;

/** What a service allows. */
export interface DsLimits {
  /** Names of one context. */
  readonly names: number;
}

interface Entry {
  readonly name: Uint8Array<ArrayBuffer>;
  readonly handle: Handle;
  /** Who registered it. */
  readonly context: ContextId;
  /** When it was kept last, in milliseconds; `undefined` when nobody keeps it. */
  kept: number | undefined;
}

const NOTHING: Uint8Array<ArrayBuffer> = new Uint8Array();

/** See the module's comment. */
export class DsTable {
  readonly #limits: DsLimits;
  readonly #isAlive: (handle: Handle) => boolean;
  /** By the text of the name's bytes, one character a byte, so that the order of texts is that of bytes. */
  readonly #entries = new Map<string, Entry>();
  readonly #perContext = new Map<ContextId, number>();
  /** The keys in order, until they change. */
  #sorted: string[] | undefined;

  /**
   * @param limits What it allows.
   * @param isAlive Whether a handle may still be somebody's. It is asked before a name is told.
   */
  constructor(limits: DsLimits, isAlive: (handle: Handle) => boolean) {
    this.#limits = limits;
    this.#isAlive = isAlive;
    const name = new TextEncoder().encode(PUBLIC_GROUP_NAME);
    this.#entries.set(keyOf(name), { name, handle: PUBLIC_GROUP, context: HOST_CONTEXT, kept: undefined });
  }

  /** How many names there are, but for the public group's. */
  get size(): number {
    return this.#entries.size - 1;
  }

  /**
   * Answers a question.
   *
   * @param bytes What came.
   * @param source Who asks, as the hypervisor says.
   * @param now The time in milliseconds.
   * @returns What to answer, or `undefined` when that was no question.
   */
  answer(bytes: Uint8Array<ArrayBuffer>, source: ContextId, now: number): Uint8Array<ArrayBuffer> | undefined {
    const request = decodeDsRequest(bytes);
    if (request === undefined) return undefined;
    return encodeDsReply({ message: request.message, ...this.#act(request, source, now) });
  }

  #act(request: DsRequest, source: ContextId, now: number): Omit<DsReply, "message"> {
    switch (request.action) {
      case DsAction.LOOKUP: {
        const entry = this.#alive(keyOf(request.name), now);
        return entry === undefined ? refuse("NOT_FOUND") : found(entry.handle);
      }
      case DsAction.REGISTER:
        return this.#register(request, source, undefined, now);
      case DsAction.KEEP:
        return this.#register(request, source, now, now);
      case DsAction.UNREGISTER:
        return this.#unregister(request, source, now);
      case DsAction.FIRST:
      case DsAction.NEXT:
        return this.#after(keyOf(request.name), request.action === DsAction.FIRST, now);
      default:
        return refuse("GENERIC", "unknown action");
    }
  }

  #register(
    { name, handle }: DsRequest,
    source: ContextId,
    kept: number | undefined,
    now: number,
  ): Omit<DsReply, "message"> {
    if (!isNameable(handle)) return refuse("INVALID_ARGS");
    // The SDK's service did not look: a hole.
    if (handle.context !== source) return refuse("NO_ACCESS", "access denied");
    const key = keyOf(name);
    const taken = this.#alive(key, now);
    if (taken !== undefined) {
      if (kept === undefined || taken.context !== source || !handlesEqual(taken.handle, handle)) {
        return refuse("ALREADY_EXISTS");
      }
      taken.kept = kept;
      return found(INVALID_HANDLE);
    }
    if (!this.#isAlive(handle)) return refuse("INVALID_ARGS");
    const held = this.#perContext.get(source) ?? 0;
    if (held >= this.#limits.names) return refuse("NO_RESOURCES");
    this.#perContext.set(source, held + 1);
    this.#entries.set(key, { name, handle, context: source, kept });
    this.#sorted = undefined;
    return found(INVALID_HANDLE);
  }

  #unregister({ name }: DsRequest, source: ContextId, now: number): Omit<DsReply, "message"> {
    const key = keyOf(name);
    const entry = this.#alive(key, now);
    if (entry === undefined) return refuse("NOT_FOUND");
    const may = entry.context === source || source === HOST_CONTEXT;
    if (!may || entry.handle === PUBLIC_GROUP) return refuse("NO_ACCESS", "access denied");
    this.#remove(key, entry);
    return found(INVALID_HANDLE);
  }

  #after(from: string, inclusive: boolean, now: number): Omit<DsReply, "message"> {
    const keys = this.#sorted ??= [...this.#entries.keys()].sort(byCodeUnits);
    let low = 0;
    for (let high = keys.length; low < high;) {
      const middle = (low + high) >> 1;
      const before = inclusive ? keys[middle]! < from : keys[middle]! <= from;
      if (before) low = middle + 1;
      else high = middle;
    }
    for (; low < keys.length; low++) {
      const entry = this.#alive(keys[low]!, now);
      if (entry !== undefined) return { code: ResultCode.SUCCESS, handle: entry.handle, text: entry.name };
    }
    return refuse("NOT_FOUND");
  }

  /** The entry, unless it has died. */
  #alive(key: string, now: number): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.handle === PUBLIC_GROUP) return entry;
    const left = entry.kept !== undefined && now - entry.kept > KEPT_FOR;
    if (!left && this.#isAlive(entry.handle)) return entry;
    this.#remove(key, entry);
    return undefined;
  }

  #remove(key: string, { context }: Entry): void {
    this.#entries.delete(key);
    this.#sorted = undefined;
    const held = this.#perContext.get(context)! - 1;
    if (held === 0) this.#perContext.delete(context);
    else this.#perContext.set(context, held);
  }
}

function keyOf(name: Uint8Array): string {
  return String.fromCharCode(...name);
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : 1;
}

function found(handle: Handle): Omit<DsReply, "message"> {
  return { code: ResultCode.SUCCESS, handle, text: NOTHING };
}

function refuse(code: ErrorCodeName, text?: string): Omit<DsReply, "message"> {
  return {
    code: ResultCode[code],
    handle: INVALID_HANDLE,
    text: text === undefined ? NOTHING : new TextEncoder().encode(text),
  };
}

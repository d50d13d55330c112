/**
 * A program's half of the discovery service: it asks by datagram and waits for the answer, and asks again when none
 * comes, for either may be lost.
 *
 * @module
 */

import { waitReadable } from "../../ffi/unix_socket.ts";
import { VmciError } from "../error.ts";
import { formatHandle, type Handle, handlesEqual, INVALID_HANDLE } from "../handle.ts";
import { type ErrorCodeName, ResultCode, resultCodeName } from "../result_code.ts";
import type { CarrierPort } from "./carrier.ts";
import { decodeDsReply, DsAction, type DsReply, encodeDsRequest } from "./ds_message.ts";

/** A name and what it stands for. */
export interface FoundName {
  /** The name. */
  readonly name: string;
  /** What it stands for. */
  readonly handle: Handle;
}

/** A question that is not answered yet. */
interface Pending {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly until: number;
  askedAt: number;
  /** Whether it was asked more than once: then the first may have been heard. */
  repeated: boolean;
  readonly done: (reply: DsReply | undefined, repeated: boolean) => void;
}

/** Milliseconds after which a question is asked again. */
const REPEAT = 200;

/** Milliseconds after which a name is kept again; the service forgets it after four times as long. */
const KEEP = 5000;

/** Milliseconds that a question may take that nobody waits for. */
const PATIENCE = 3000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** See the module's comment. */
export class DsClient {
  readonly #port: CarrierPort;
  readonly #service: Handle;
  readonly #pending = new Map<number, Pending>();
  /** The names that this program registered. */
  readonly #names = new Map<string, Handle>();
  #message = crypto.getRandomValues(new Int32Array(1))[0]!;
  #keptAt = 0;

  /**
   * @param port Where answers come to; its own.
   * @param service Where the service is.
   */
  constructor(port: CarrierPort, service: Handle) {
    this.#port = port;
    this.#service = service;
  }

  /** What is readable when an answer came. */
  get descriptor(): number {
    return this.#port.descriptor;
  }

  /** When something is to be done next, in milliseconds; `Infinity` when nothing is. */
  get due(): number {
    let due = this.#names.size > 0 ? this.#keptAt + KEEP : Infinity;
    for (const { askedAt, until } of this.#pending.values()) due = Math.min(due, askedAt + REPEAT, until);
    return due;
  }

  /** Registers a name. */
  register(name: string, handle: Handle, timeout: number): void {
    const { reply, repeated } = this.#exchange(DsAction.REGISTER, handle, name, timeout);
    const again = repeated && reply.code === ResultCode.ALREADY_EXISTS;
    const own = again &&
      handlesEqual(this.#exchange(DsAction.LOOKUP, INVALID_HANDLE, name, timeout).reply.handle, handle);
    if (!own) this.#check(reply, `the name '${name}'`);
    this.#names.set(name, handle);
    this.#keep(name, handle);
  }

  /** What a name stands for. */
  lookup(name: string, timeout: number): Handle {
    const { reply } = this.#exchange(DsAction.LOOKUP, INVALID_HANDLE, name, timeout);
    this.#check(reply, `the name '${name}'`);
    return reply.handle;
  }

  /** Removes a name. */
  unregister(name: string, timeout: number): void {
    const { reply, repeated } = this.#exchange(DsAction.UNREGISTER, INVALID_HANDLE, name, timeout);
    if (!(repeated && reply.code === ResultCode.NOT_FOUND)) this.#check(reply, `the name '${name}'`);
    this.#names.delete(name);
  }

  /** All names with a prefix in the order of bytes, after a name if there is one. */
  list(prefix: string, after: string | undefined, timeout: number): FoundName[] {
    const found: FoundName[] = [];
    let action: number = after === undefined ? DsAction.FIRST : DsAction.NEXT;
    for (let from = after ?? prefix;;) {
      const { reply } = this.#exchange(action, INVALID_HANDLE, from, timeout);
      const next = this.#next(reply, prefix);
      if (next === undefined) return found;
      found.push(next);
      from = next.name;
      action = DsAction.NEXT;
    }
  }

  /** As {@linkcode DsClient.list}, or for one exact name; calls back instead of waiting, with nothing when it failed. */
  look(prefix: string, exact: boolean, done: (found: FoundName[] | undefined) => void): void {
    const found: FoundName[] = [];
    const ask = (action: number, from: string): void => {
      const failure = this.#ask(action, INVALID_HANDLE, from, performance.now() + PATIENCE, (reply) => {
        if (reply === undefined) return done(undefined);
        if (exact) return done(reply.code < 0 ? [] : [{ name: prefix, handle: reply.handle }]);
        let next: FoundName | undefined;
        try {
          next = this.#next(reply, prefix);
        } catch {
          return done(undefined);
        }
        if (next === undefined) return done(found);
        found.push(next);
        ask(DsAction.NEXT, next.name);
      });
      if (failure !== undefined) done(undefined);
    };
    ask(exact ? DsAction.LOOKUP : DsAction.FIRST, prefix);
  }

  /** A handle is gone: its names go, and nobody waits for the service to say so. */
  forget(handle: Handle): void {
    for (const [name, named] of [...this.#names]) {
      if (!handlesEqual(named, handle)) continue;
      this.#names.delete(name);
      this.#tell(DsAction.UNREGISTER, INVALID_HANDLE, name);
    }
  }

  /** Takes in answers; asks again, and keeps names, when it is time. */
  work(now: number): void {
    for (let arrival = this.#port.receive(); arrival !== undefined; arrival = this.#port.receive()) {
      if (!handlesEqual(arrival.source, this.#service)) continue;
      const reply = decodeDsReply(arrival.payload);
      const pending = reply === undefined ? undefined : this.#pending.get(reply.message);
      if (pending === undefined) continue;
      this.#pending.delete(reply!.message);
      pending.done(reply, pending.repeated);
    }
    for (const [message, pending] of this.#pending) {
      if (now >= pending.until) {
        this.#pending.delete(message);
        pending.done(undefined, pending.repeated);
      } else if (now - pending.askedAt >= REPEAT) {
        pending.askedAt = now;
        pending.repeated = true;
        this.#send(pending.bytes);
      }
    }
    if (now < this.#keptAt + KEEP) return;
    this.#keptAt = now;
    for (const [name, handle] of this.#names) this.#keep(name, handle);
  }

  /** Takes back what this program registered, and gives the port back. */
  close(): void {
    for (const name of this.#names.keys()) this.#tell(DsAction.UNREGISTER, INVALID_HANDLE, name);
    this.#names.clear();
    this.#pending.clear();
    this.#port.close();
  }

  #next({ code, handle, text }: DsReply, prefix: string): FoundName | undefined {
    if (code === ResultCode.NOT_FOUND) return undefined;
    if (code === ResultCode.GENERIC) {
      throw new VmciError("UNAVAILABLE", {
        operation: "discovery.list",
        reason: `the discovery service at ${formatHandle(this.#service)} is one that cannot list names`,
      });
    }
    this.#check({ code }, "a list of names");
    const name = decoder.decode(text);
    return name.startsWith(prefix) ? { name, handle } : undefined;
  }

  /** A service that keeps names alive is told who lives; another one answers that it does not know, to nobody. */
  #keep(name: string, handle: Handle): void {
    this.#tell(DsAction.KEEP, handle, name);
  }

  #check({ code }: { readonly code: number }, what: string): void {
    if (code >= 0) return;
    const name = (resultCodeName(code) ?? "GENERIC") as ErrorCodeName;
    throw new VmciError(name, {
      operation: "discovery",
      reason: `the service at ${formatHandle(this.#service)} ${refusals[name] ?? "refuses"} ${what}`,
    });
  }

  /** Asks and waits for the answer, without turning the event loop. */
  #exchange(action: number, handle: Handle, name: string, timeout: number): { reply: DsReply; repeated: boolean } {
    const until = performance.now() + timeout;
    let answer: { reply: DsReply | undefined; repeated: boolean } | undefined;
    const failure = this.#ask(action, handle, name, until, (reply, repeated) => answer = { reply, repeated });
    if (failure !== undefined) throw this.#silent(failure.reason);
    for (let now = performance.now(); answer === undefined; now = performance.now()) {
      waitReadable([this.#port.descriptor], Math.max(0, Math.min(REPEAT, until - now)));
      this.work(performance.now());
    }
    const { reply, repeated } = answer as { reply: DsReply | undefined; repeated: boolean };
    if (reply === undefined) throw this.#silent(`it did not answer within ${Math.round(timeout)} ms`);
    return { reply, repeated };
  }

  /** Asks; what it gives back is why that cannot be, and then nobody is called back. */
  #ask(
    action: number,
    handle: Handle,
    name: string,
    until: number,
    done: Pending["done"],
  ): VmciError | undefined {
    const message = this.#message = (this.#message + 1) | 0;
    const bytes = encodeDsRequest({ action, message, handle, name: encoder.encode(name) });
    const failure = this.#send(bytes);
    if (failure === undefined) {
      this.#pending.set(message, { bytes, until, askedAt: performance.now(), repeated: false, done });
    }
    return failure;
  }

  #tell(action: number, handle: Handle, name: string): void {
    const message = this.#message = (this.#message + 1) | 0;
    this.#send(encodeDsRequest({ action, message, handle, name: encoder.encode(name) }));
  }

  #send(bytes: Uint8Array<ArrayBuffer>): VmciError | undefined {
    try {
      this.#port.send(this.#service, bytes);
      return undefined;
    } catch (error) {
      if (error instanceof VmciError) return error;
      throw error;
    }
  }

  #silent(reason: string): VmciError {
    return new VmciError("UNAVAILABLE", {
      operation: "discovery",
      reason:
        `no discovery service answers at ${formatHandle(this.#service)}; start one on the host, vmci ds serve, or ` +
        `name another with ds=CID:PORT in the device: ${reason}`,
    });
  }
}

const refusals: Partial<Record<ErrorCodeName, string>> = {
  ALREADY_EXISTS: "has another handle for",
  NOT_FOUND: "does not know",
  NO_ACCESS: "keeps for another context",
  INVALID_ARGS: "finds no handle for",
  NO_RESOURCES: "has no room for",
};

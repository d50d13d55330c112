/**
 * Objects of the library in another process, used as if they were here: every call and every look is awaited.
 *
 * @module
 */

import {
  type AtomicWord,
  type DatagramEndpoint,
  type ErrorCodeName,
  type Group,
  type Region,
  type RegionRecord,
  type Vmci,
  VmciError,
} from "../../mod.ts";
import type { Scenes } from "./scenes.ts";
import { type Answer, type Call, fromLine, linesOf, type Reference, toLine } from "./wire.ts";

type Kept = Vmci | DatagramEndpoint | Region | AtomicWord | RegionRecord | Group | AsyncIterator<unknown>;
type Fixed = "handle" | "size" | "writable" | "capacity";

/** An object that may be elsewhere. One that is here has the same shape: what it gives can be awaited too. */
export type Remote<T> = { readonly [K in keyof T]: Member<K, T[K]> };

type Member<K, V> = K extends Fixed ? V
  : V extends (...args: infer A) => infer R ? (...args: Arguments<A>) => Promise<Result<Awaited<R>>>
  : Remote<V> & PromiseLike<V>;

/** Kept objects may be passed from wherever they are. */
type Arguments<A extends unknown[]> = { [I in keyof A]: A[I] extends Kept ? A[I] | Remote<A[I]> : A[I] };

type Result<R> = R extends Kept ? Remote<R> : R;

const REFERENCE = Symbol("reference");

/** What every call is told that an agent answers no more. */
export const AGENT_ENDED = "the agent has ended";

/** How an agent may differ. */
export interface AgentStart extends Pick<Deno.CommandOptions, "uid" | "gid" | "env" | "cwd"> {
  /** The file of `agent.ts`, or of its bundle. */
  readonly program?: string;
  /** Its permissions; `--allow-ffi` without it. */
  readonly permissions?: readonly string[];
}

/** A process that does what a test asks of it. */
export class Agent implements AsyncDisposable {
  /** What it can do; {@linkcode Scenes.open} is where all else comes from. */
  readonly scenes: Remote<Scenes> = this.#object({ $object: 0, fixed: {} }) as Remote<Scenes>;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: AsyncGenerator<string>;
  readonly #pending = new Map<number, PromiseWithResolvers<unknown>>();
  #calls = 0;
  /** The loop that reads answers, while there is something to be answered. */
  #reading: Promise<void> | undefined;

  /**
   * Starts it.
   *
   * @param start What differs from a process of this user.
   */
  constructor(start: AgentStart = {}) {
    const { program = new URL("agent.ts", import.meta.url).pathname, permissions = ["--allow-ffi"], ...options } =
      start;
    this.#child = new Deno.Command(Deno.execPath(), {
      ...options,
      args: ["run", "--no-prompt", ...permissions, program],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = linesOf(this.#child.stdout);
  }

  /** Stops it or has it go on, SIGSTOP and SIGCONT. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Ends it as a crash would: nothing is closed, nothing said. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#end();
  }

  /** Has it end by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#end();
  }

  async #end(): Promise<void> {
    await this.#child.status;
    await this.#input.abort().catch(() => {});
    await this.#reading;
    await this.#output.return(undefined);
  }

  async #perform(target: number, path: readonly string[], args: readonly unknown[] | undefined): Promise<unknown> {
    const call: Call = { id: ++this.#calls, target, path, ...(args === undefined ? {} : { args }) };
    const reply = Promise.withResolvers<unknown>();
    this.#pending.set(call.id, reply);
    this.#reading ??= this.#read();
    // If it has ended, there is no answer to be read.
    await this.#input.write(new TextEncoder().encode(toLine(call))).catch(() => {});
    return await reply.promise;
  }

  /** Reads as long as something was asked, so that no read is pending between tests. */
  async #read(): Promise<void> {
    while (this.#pending.size > 0) {
      const { value, done } = await this.#output.next();
      if (done) {
        for (const reply of this.#pending.values()) reply.reject(new Error(AGENT_ENDED));
        this.#pending.clear();
      } else {
        const { id, result, error } = fromLine(value, (reference) => this.#object(reference)) as Answer;
        const reply = this.#pending.get(id)!;
        this.#pending.delete(id);
        if (error === undefined) reply.resolve(result);
        else reply.reject(asError(error));
      }
    }
    this.#reading = undefined;
  }

  #object(reference: Reference): object {
    return new Proxy({}, {
      get: (_, key) => {
        if (key === REFERENCE || key === "toJSON") return key === REFERENCE ? reference : () => reference;
        if (typeof key === "symbol" || key === "then") return undefined;
        return key in reference.fixed ? reference.fixed[key] : this.#member(reference.$object, [key]);
      },
    });
  }

  /** A property that can be looked at (awaited), called, or passed through. */
  #member(target: number, path: readonly string[]): object {
    return new Proxy(() => {}, {
      apply: (_, _this, args) => this.#perform(target, path, args),
      get: (_, key) => {
        if (typeof key === "symbol") return undefined;
        if (key !== "then") return this.#member(target, [...path, key]);
        const look = this.#perform(target, path, undefined);
        return look.then.bind(look);
      },
    });
  }
}

function asError({ message, vmci }: NonNullable<Answer["error"]>): Error {
  return vmci === undefined ? new Error(message) : new VmciError(vmci.code as ErrorCodeName, vmci);
}

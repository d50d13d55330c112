/**
 * A broker whose calls of the C library can be made to fail.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { seqpacketPair } from "../../../ffi/unix_socket.ts";
import type { BrokerThreadConfig } from "../../../src/fabric/local/broker_thread_config.ts";
import { RunDirectory } from "../../../src/fabric/local/run_directory.ts";
import { FaultPlan } from "./faults.ts";

/** A thread that serves one fabric after the other; it ends with the first one in which it fails. */
class BrokerThread {
  readonly plan = new FaultPlan();
  readonly #worker = new Worker(new URL("broker_worker.ts", import.meta.url), {
    workerData: { words: this.plan.words },
  });

  /** Serves; `done` is told why it failed, if it did. */
  serve(config: BrokerThreadConfig, serving: () => void, done: (failure?: Error) => void): void {
    this.#worker.removeAllListeners();
    this.#worker.on("message", (news: "serving" | "served") => news === "serving" ? serving() : done());
    this.#worker.once("error", (error) => done(error as Error));
    this.#worker.postMessage(config);
  }
}

/** Threads that have nobody to serve. */
const idle: BrokerThread[] = [];

/** See the module's comment. */
export class FaultyBroker implements AsyncDisposable {
  /** Why it failed, if it did. */
  failure: Error | undefined;
  /** Whether it serves no more. */
  ended = false;
  readonly #thread: BrokerThread;
  readonly #lifeline: number;
  readonly #over = Promise.withResolvers<void>();

  private constructor(thread: BrokerThread, lifeline: number) {
    this.#thread = thread;
    this.#lifeline = lifeline;
  }

  /** What the broker's calls do. */
  get plan(): FaultPlan {
    return this.#thread.plan;
  }

  /** Starts one in a run directory. */
  static async start(path: string): Promise<FaultyBroker> {
    const lock = new RunDirectory(path).tryLock();
    if (lock === undefined) throw new Error(`another broker serves ${path}`);
    const [lifeline, connection] = seqpacketPair();
    const config: BrokerThreadConfig = {
      kind: "daemon",
      directory: path,
      lock,
      sockets: [],
      connection,
      quota: undefined,
      spins: false,
      state: undefined,
      policy: undefined,
      audit: undefined,
    };
    const broker = new FaultyBroker(idle.pop() ?? new BrokerThread(), lifeline);
    await broker.#serve(config);
    return broker;
  }

  #serve(config: BrokerThreadConfig): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#thread.serve(config, resolve, (failure) => {
        this.failure = failure;
        this.ended = true;
        if (failure === undefined) idle.push(this.#thread);
        else reject(failure);
        this.#over.resolve();
      })
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.plan.disarm();
    closeDescriptor(this.#lifeline);
    await this.#over.promise;
  }
}

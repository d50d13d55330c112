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

/** See the module's comment. */
export class FaultyBroker implements AsyncDisposable {
  /** What the broker's calls do. */
  readonly plan: FaultPlan;
  /** Why it failed, if it did. */
  failure: Error | undefined;
  /** Whether its thread ended. */
  ended = false;
  readonly #exited: Promise<void>;
  readonly #lifeline: number;

  private constructor(worker: Worker, plan: FaultPlan, lifeline: number) {
    this.plan = plan;
    this.#lifeline = lifeline;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#exited = promise;
    worker.on("error", (error) => this.failure = error as Error);
    worker.on("exit", () => {
      this.ended = true;
      resolve();
    });
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
    const plan = new FaultPlan();
    const worker = new Worker(new URL("broker_worker.ts", import.meta.url), {
      workerData: { config, words: plan.words },
    });
    const broker = new FaultyBroker(worker, plan, lifeline);
    await new Promise<void>((resolve, reject) => {
      worker.once("message", () => resolve());
      worker.once("error", reject);
    });
    return broker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.plan.disarm();
    closeDescriptor(this.#lifeline);
    await this.#exited;
  }
}

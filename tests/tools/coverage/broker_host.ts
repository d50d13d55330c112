/**
 * Stands in for `src/fabric/local/broker_host.ts` while coverage is taken: the thread runs from the sources, of which
 * coverage can be told, and says itself that it ends, as the end of a thread is not told while coverage is taken.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import type { BrokerThreadConfig } from "../../../src/fabric/local/broker_thread_config.ts";

// Child processes would take coverage, too: the ends of their threads would never be told.
Deno.env.delete("DENO_COVERAGE_DIR");

/** A broker's thread. */
export class BrokerHost {
  /** When it listens; never, if it fails before. */
  readonly serving: Promise<void>;
  /** When the thread has ended. */
  readonly ended: Promise<void>;
  readonly #worker: Worker;
  #running = true;

  private constructor(worker: Worker) {
    this.#worker = worker;
    const serving = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<void>();
    this.serving = serving.promise;
    this.ended = ended.promise;
    worker.on("message", (message: string) => {
      if (message === "serving") return serving.resolve();
      this.#running = false;
      ended.resolve();
    });
    worker.unref();
  }

  /** Starts a broker's thread. */
  static start(config: BrokerThreadConfig): BrokerHost {
    return new BrokerHost(new Worker(new URL("broker_thread.ts", import.meta.url), { workerData: { config } }));
  }

  /** From now on the process does not exit while the thread runs. */
  keepAlive(): void {
    this.#worker.ref();
  }

  /** Whether the thread runs. */
  get running(): boolean {
    return this.#running;
  }
}

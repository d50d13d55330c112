/**
 * The broker in a thread of this process.
 *
 * The thread is a self-contained program, bundled at build time into a string and started by a `data:` URL Worker of
 * node:worker_threads: of all forms that were tried the only one that starts from a file, from JSR, from a bundle and
 * from a compiled binary with `--allow-ffi` alone, and lets the process exit while it blocks.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import type { BrokerThreadConfig } from "./broker_thread_config.ts";
import { BROKER_THREAD_PROGRAM } from "./broker_thread_source.ts";

/**
 * What the Worker loads: it runs the program that it is handed. In the URL itself the program would take some 16 ms more,
 * since Deno parses a module before V8 does, and its whole text would be the module's name in each trace of the stack.
 */
const LOADER = new URL(
  'data:text/javascript,import{workerData}from"node:worker_threads";(0,eval)(workerData.program)(process.getBuiltinModule)',
);

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
    this.serving = new Promise((resolve) => worker.once("message", () => resolve()));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    worker.on("exit", () => {
      this.#running = false;
      resolve();
    });
    // A thread that fails closes its sockets; its clients, this process among them, then look for another broker.
    worker.on("error", (error) => console.error("vmci: the broker's thread failed:", error));
    worker.unref();
  }

  /** Starts a broker's thread. It serves its first client before this process' event loop turns again. */
  static start(config: BrokerThreadConfig): BrokerHost {
    // Without an environment of its own the thread would get a copy of the process', and who has a terminal would be
    // asked for that.
    return new BrokerHost(new Worker(LOADER, { env: {}, workerData: { program: BROKER_THREAD_PROGRAM, config } }));
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

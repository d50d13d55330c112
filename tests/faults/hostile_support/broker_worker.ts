/**
 * A broker in a thread whose calls of the C library follow a plan. It is the library's own server, run from its source;
 * when it has served one fabric it serves the next, for a thread takes longer to start than most tests do.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import type { BrokerThreadConfig } from "../../../src/fabric/local/broker_thread_config.ts";
import { LocalServer } from "../../../src/fabric/local/local_server.ts";
import { FaultPlan } from "./faults.ts";
import { closeSomething } from "./held.ts";

const { words } = workerData as { readonly words: Int32Array<SharedArrayBuffer> };
const plan = new FaultPlan(words);
plan.install();
parentPort!.on("message", (config: BrokerThreadConfig) => {
  const server = new LocalServer(config);
  parentPort!.postMessage("serving");
  server.run();
  plan.disarm();
  // What could not be given back is given back at the next closing of anything.
  closeSomething();
  parentPort!.postMessage("served");
});

/**
 * A broker in a thread whose calls of the C library follow a plan. It is the library's own server, run from its source.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import type { BrokerThreadConfig } from "../../../src/fabric/local/broker_thread_config.ts";
import { LocalServer } from "../../../src/fabric/local/local_server.ts";
import { FaultPlan } from "./faults.ts";

const { config, words } = workerData as {
  readonly config: BrokerThreadConfig;
  readonly words: Int32Array<SharedArrayBuffer>;
};
new FaultPlan(words).install();
const server = new LocalServer(config);
parentPort!.postMessage("serving");
server.run();

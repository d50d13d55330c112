/**
 * What runs in the broker's thread. It is bundled into `broker_thread_source.ts`; after a change to it or to anything it
 * imports run `deno task build:thread`.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import type { BrokerThreadConfig } from "./broker_thread_config.ts";
import { LocalServer } from "./local_server.ts";

const config = (globalThis as unknown as { vmciBroker: BrokerThreadConfig }).vmciBroker;
const server = new LocalServer(config);
parentPort?.postMessage("serving");
server.run();

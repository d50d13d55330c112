/**
 * What runs in the broker's thread. It is bundled into `broker_thread_source.ts`; after a change to it or to anything it
 * imports run `deno task build:thread`.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import type { BrokerThreadConfig } from "./broker_thread_config.ts";
import { LocalServer } from "./local_server.ts";

const { config } = workerData as { readonly config: BrokerThreadConfig };
const server = start();
parentPort?.postMessage("serving");
server.run();

/** Starts the server, or gives back what was given to it, so that another process may try. */
function start(): LocalServer {
  try {
    return new LocalServer(config);
  } catch (error) {
    const { connection, lock, sockets } = config;
    for (const fd of [connection, lock, ...sockets.map(({ descriptor }) => descriptor)]) {
      if (fd !== undefined) closeDescriptor(fd);
    }
    throw error;
  }
}

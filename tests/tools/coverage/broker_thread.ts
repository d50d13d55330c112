/** The broker's thread, run from its sources; see `broker_host.ts` beside this. */

import { parentPort, workerData } from "node:worker_threads";

(globalThis as unknown as { vmciBroker: unknown }).vmciBroker = workerData;
try {
  await import("../../../src/fabric/local/broker_thread.ts");
} catch (error) {
  console.error("vmci: the broker's thread failed:", error);
}
parentPort!.postMessage("ended");

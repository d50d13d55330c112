/**
 * Many clients in one process: each joins, sends one datagram to the hub and registers a name; they leave at SIGTERM.
 *
 *     deno run --allow-ffi tests/programs/crowd.ts DEVICE FIRST_CONTEXT COUNT
 */

import { openVmci } from "../../mod.ts";

const [device, first, count] = [Deno.args[0]!, Number(Deno.args[1]), Number(Deno.args[2])];
const members = await Promise.all(
  // All that matters is that each has its turn; how soon depends on the machine.
  Array.from({ length: count }, (_, i) => openVmci({ device, contextId: first + i, timeout: 60_000 })),
);
for (const vmci of members) {
  const endpoint = vmci.datagrams.create();
  vmci.discovery.register(`crowd/${vmci.contextId}`, endpoint.handle);
  endpoint.sendTo(vmci.discovery.lookup("hub"), new Uint8Array(new Uint32Array([vmci.contextId]).buffer));
}
console.log("all are here");
// A signal that is listened for keeps no program alive.
setInterval(() => {}, 1 << 30);
Deno.addSignalListener("SIGTERM", () => {
  for (const vmci of members) vmci.close();
  Deno.exit(0);
});

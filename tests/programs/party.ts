/**
 * Plays a part until it is killed.
 *
 *     party.ts DEVICE ungranted    a server with the samples' names that grants nobody anything
 *     party.ts DEVICE small        the same, with a region that is smaller than it should be
 *     party.ts DEVICE user         attaches to that region, and sends a datagram
 */

import { openVmci } from "../../mod.ts";

const [device, part] = Deno.args;
await using vmci = await openVmci({ device });
if (part === "user") {
  using _region = vmci.sharedMemory.attach(vmci.discovery.lookup("HOST TIME"));
  using endpoint = vmci.datagrams.create();
  endpoint.sendTo(vmci.discovery.lookup("HOST INFO"), new Uint8Array(1));
  console.log(`ready ${endpoint.handle.resource}`);
  await endpoint.receive();
} else {
  using region = vmci.sharedMemory.create(part === "small" ? 64 : 128);
  using endpoint = vmci.datagrams.create();
  vmci.discovery.register("HOST TIME", region.handle);
  vmci.discovery.register("HOST INFO", endpoint.handle);
  console.log(`ready ${region.handle.resource} ${endpoint.handle.resource}`);
  while (true) await endpoint.receive();
}

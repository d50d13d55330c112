/**
 * A server with the samples' names that does not do what theirs does, until its standard output is closed or it is
 * killed.
 *
 *     odd_server.ts DEVICE ungranted    nobody is granted anything
 *     odd_server.ts DEVICE small        the region is smaller than it should be
 */

import { openVmci } from "../../mod.ts";

const [device, what] = Deno.args;
await using vmci = await openVmci({ device });
using region = vmci.sharedMemory.create(what === "small" ? 64 : 128);
using endpoint = vmci.datagrams.create();
vmci.discovery.register("HOST TIME", region.handle);
vmci.discovery.register("HOST INFO", endpoint.handle);
console.log(`ready ${region.handle.resource} ${endpoint.handle.resource}`);
await endpoint.receive();

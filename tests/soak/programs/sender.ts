/**
 * Sends numbered datagrams until a moment, and says how many.
 *
 *     sender.ts DEVICE CONTEXT NAME SEED UNTIL
 */

import { openVmci } from "../../../mod.ts";
import { Numbered } from "../numbered.ts";

const [device, context, name, seed, until] = Deno.args;
await using vmci = await openVmci({ device: device!, contextId: Number(context) });
using endpoint = vmci.datagrams.create();
const destination = vmci.discovery.lookup(name!);
const datagrams = new Numbered(Number(seed));
console.log(`sends from ${endpoint.handle.resource}`);
do {
  const payload = datagrams.next();
  if (!endpoint.hasRoom(destination, payload.length)) endpoint.roomSync(destination, payload.length);
  endpoint.sendTo(destination, payload);
} while (Date.now() < Number(until));
console.log(`sent ${datagrams.count} in all`);
// What it has sent outlives it; who reads it says when it may go.
await endpoint.receive();

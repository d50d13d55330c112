/**
 * Makes so many datagram handles with two names each, and keeps them until it is killed.
 *
 *     many_names.ts DEVICE COUNT
 */

import { openVmci } from "../../mod.ts";

const [device, count] = Deno.args;
await using vmci = await openVmci({ device });
const endpoints = Array.from({ length: Number(count) }, () => vmci.datagrams.create());
for (const [i, { handle }] of endpoints.entries()) {
  for (const letter of "ab") vmci.discovery.register(`${"long ".repeat(40)}${i} ${letter}`, handle);
}
console.log("ready");
await endpoints[0]!.receive();

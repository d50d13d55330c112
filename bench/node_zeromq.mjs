/**
 * npm's zeromq over ipc under Node: what the same program would use there.
 *
 *     node node_zeromq.mjs MODULE echo|roundTrips JOB
 */

import { Buffer } from "node:buffer";
import process from "node:process";

const [module, part, text] = process.argv.slice(2);
const { Pair } = await import(module);
const { directory, size, span } = JSON.parse(text);
const address = `ipc://${directory}/bench.zeromq`;
const socket = new Pair();

if (part === "echo") {
  await socket.bind(address);
  console.log("{}");
  while (true) {
    const [payload] = await socket.receive();
    await socket.send(payload);
  }
}

socket.connect(address);
const payload = Buffer.alloc(size, 1);
const warm = performance.now() + span.warmup;
const samples = [];
for (let start = 0; start < warm + span.duration;) {
  start = performance.now();
  for (let i = 0; i < span.batch; i++) {
    await socket.send(payload);
    await socket.receive();
  }
  if (start >= warm) samples.push((performance.now() - start) * 1e6 / span.batch);
}
console.log(JSON.stringify(samples));
process.exit(0);

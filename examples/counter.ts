// deno run --allow-ffi examples/counter.ts       (in as many terminals as you like, at once)

/** A counter that many processes raise without losing a count. The first one waits until ten others have. */

import { openVmci } from "@vmci/vmci";

await using vmci = await openVmci();
const first = vmci.discovery.list("counter").length === 0;
using region = first ? vmci.sharedMemory.create(4) : vmci.sharedMemory.attach(vmci.discovery.lookup("counter"));
const counter = region.word(0);

if (first) {
  vmci.discovery.register("counter", region.handle);
  for (let count = 0; count < 10_000;) {
    count = await counter.wait(count);
  }
  console.log(`counted to ${counter.load()}`);
} else {
  for (let i = 0; i < 1000; i++) counter.add(1);
}

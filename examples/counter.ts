// deno run --allow-ffi examples/counter.ts watch
// deno run --allow-ffi examples/counter.ts count     (ten times, in other terminals, one after another or at once)

/** A counter that many processes raise without losing a count. */

import { openVmci } from "@vmci/vmci";

await using vmci = await openVmci();

if (Deno.args[0] === "watch") {
  using region = vmci.sharedMemory.create(4);
  const counter = region.word(0);
  vmci.discovery.register("counter", region.handle);
  for (let count = 0; count < 10_000;) {
    count = await counter.wait(count);
  }
  console.log(`counted to ${counter.load()}`);
} else {
  using region = vmci.sharedMemory.attach(await vmci.discovery.wait("counter"));
  const counter = region.word(0);
  for (let i = 0; i < 1000; i++) counter.add(1);
}

// deno run --allow-ffi examples/record.ts publish
// deno run --allow-ffi examples/record.ts read       (in other terminals, before or after)

/** A position that is published twenty times and never read half. */

import { openVmci, recordSize } from "@vmci/vmci";

const SIZE = 3 * Float64Array.BYTES_PER_ELEMENT;
await using vmci = await openVmci();

if (Deno.args[0] === "publish") {
  using region = vmci.sharedMemory.create(recordSize(SIZE), { writers: "creator" });
  const record = region.record(0, SIZE);
  vmci.discovery.register("position", region.handle);
  for (let step = 1; step <= 20; step++) {
    record.publish(new Uint8Array(Float64Array.of(step, 2 * step, 3 * step).buffer));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
} else {
  using region = vmci.sharedMemory.attach(await vmci.discovery.wait("position"));
  const record = region.record(0, SIZE);
  const position = new Float64Array(3);
  for (let version = 0; version < 20;) {
    version = await record.wait(version);
    record.readInto(new Uint8Array(position.buffer));
    console.log("position", ...position);
  }
}

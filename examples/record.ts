// deno run --allow-ffi examples/record.ts       (once to publish, and again in other terminals to read)

/** A position that is published twenty times and never read half: who finds the name reads, who does not publishes. */

import { openVmci, recordSize } from "@vmci/vmci";

await using vmci = await openVmci();
const POSITION = 3 * Float64Array.BYTES_PER_ELEMENT;

if (vmci.discovery.list("position").length === 0) {
  using region = vmci.sharedMemory.create(recordSize(POSITION), { writers: "creator" });
  const record = region.record(0, POSITION);
  vmci.discovery.register("position", region.handle);
  for (let step = 1; step <= 20; step++) {
    record.publish(new Uint8Array(Float64Array.of(step, 2 * step, 3 * step).buffer));
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
} else {
  using region = vmci.sharedMemory.attach(vmci.discovery.lookup("position"));
  const record = region.record(0, POSITION);
  for (let version = 0; version < 20;) {
    version = await record.wait(version);
    console.log(`version ${version}:`, ...new Float64Array(record.read()!.slice().buffer));
  }
}

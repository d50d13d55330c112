// deno run --allow-ffi examples/watch_names.ts       (end it with Ctrl-C)

/** Names as they come and go, those that are there first. */

import { formatHandle, openVmci } from "@vmci/vmci";

await using vmci = await openVmci();

for await (const { change, name, handle, type } of vmci.discovery.watch()) {
  console.log(change === "added" ? "+" : "-", JSON.stringify(name), "is", type, formatHandle(handle));
}

/**
 * What the fabric's operations cost within one process, beside what Deno's own channels cost.
 *
 *     deno task bench
 */

import { openVmci, recordSize, type Vmci } from "@vmci/vmci";

const directory = await Deno.makeTempDir({ prefix: "vmci-bench-" });
await Deno.chmod(directory, 0o700);
const host = await openVmci({ device: directory });
const guest = await openVmci({ device: directory, contextId: 16 });
const endpoint = host.datagrams.create();
const sender = guest.datagrams.create();
host.access.addClientPrivileges(endpoint.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
host.discovery.register("bench", endpoint.handle);
const region = host.sharedMemory.create(recordSize(128), { writers: "creator" });
host.access.addClientPrivileges(region.handle, host.access.publicGroup, { allow: ["SM_ATTACH"] });
const attached = guest.sharedMemory.attach(region.handle);
globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));

const buffer = new Uint8Array(69608);

for (const size of [64, 1024, 65536]) {
  const payload = new Uint8Array(size);
  Deno.bench(`datagram of ${size} bytes, sent and received`, { group: "datagrams" }, () => {
    sender.sendTo(endpoint.handle, payload);
    endpoint.tryReceiveInto(buffer);
  });
}

const channel = new MessageChannel();
let arrived: () => void = () => {};
channel.port2.onmessage = () => arrived();
Deno.bench("postMessage of 64 bytes to another port", { group: "datagrams", baseline: true }, async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  arrived = resolve;
  channel.port1.postMessage(new Uint8Array(64));
  await promise;
});

const written = region.record();
const read = attached.record();
const value = new Uint8Array(128);
Deno.bench("record of 128 bytes, published", { group: "regions" }, () => void written.publish(value));
Deno.bench("record of 128 bytes, read", { group: "regions" }, () => void read.readInto(buffer));
Deno.bench("128 bytes copied", { group: "regions", baseline: true }, () => buffer.set(value));

Deno.bench("look a name up", { group: "control" }, () => void guest.discovery.lookup("bench"));
Deno.bench("create and close an endpoint", { group: "control" }, () => host.datagrams.create().close());
Deno.bench("attach and detach a region", { group: "control" }, () => {
  guest.sharedMemory.attach(region.handle).detach();
});
Deno.bench("openVmci and close", { group: "control" }, async () => {
  await using _vmci: Vmci = await openVmci({ device: directory });
});

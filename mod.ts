/**
 * The VMCI SDK for Deno: shared memory, datagrams, access control and discovery between a virtual machine and its host,
 * between virtual machines, and between plain processes.
 *
 * {@linkcode openVmci} is where it begins. What it gives has the SDK's four APIs: `datagrams`, `sharedMemory`, `access`
 * and `discovery`. Everything works on this machine's embedded fabric, which the first program starts, with
 * `--allow-ffi` alone; and within one process on `memory:`, with no permission at all.
 *
 * @example A message to oneself
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * using endpoint = vmci.datagrams.create();
 * vmci.discovery.register("me", endpoint.handle);
 *
 * vmci.datagrams.sendTo(vmci.discovery.lookup("me"), new TextEncoder().encode("hello"));
 * const { payload } = await endpoint.receive();
 * assertEquals(new TextDecoder().decode(payload), "hello");
 * ```
 *
 * @module
 */

export { type OpenOptions, openVmci, Vmci } from "./src/vmci.ts";

export { type CreateDatagramOptions, DatagramFlag, Datagrams } from "./src/datagrams.ts";
export { type Datagram, DatagramEndpoint } from "./src/datagram_endpoint.ts";

export { type CreateRegionOptions, SharedMemory } from "./src/shared_memory.ts";
export { Region, type ViewConstructor } from "./src/region.ts";
export { AtomicWord } from "./src/atomic_word.ts";
export { recordSize, RegionRecord } from "./src/region_record.ts";
export type { RegionAccess } from "./src/fabric/medium.ts";

export { AccessControl, type AccessDecision, Group, type PrivilegeLists } from "./src/access.ts";

export { type DiscoveredName, Discovery, type NameChange } from "./src/discovery.ts";

export type { WaitOptions } from "./src/lane/waiters.ts";

export * from "./src/handle.ts";
export * from "./src/result_code.ts";
export * from "./src/error.ts";
export * from "./src/privilege.ts";
export * from "./src/event.ts";
export * from "./src/limits.ts";
export { VERSION } from "./src/version.ts";

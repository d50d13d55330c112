/**
 * What a device has no shared memory for.
 *
 * @module
 */

import { VmciError } from "../error.ts";

/** There is none on a device, and this is what there is instead. */
export function noMemory(what: string): VmciError {
  return new VmciError("UNAVAILABLE", {
    operation: what,
    reason: "devices carry datagrams and share no memory between programs; on one machine use the fabric (leave the " +
      "device out), between a context of /dev/vmci and the host a queue pair (VmciDevice.openQueuePair)",
  });
}

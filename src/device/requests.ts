/**
 * The requests that drivers of VMCI know, and the versions they came and went with.
 *
 * @module
 */

/**
 * The numbers of the requests of `/dev/vmci`, as plain integers (the public headers of 2008 to 2017, and Linux). Some
 * numbers meant something else in the first generation; `VmciVersion` tells which.
 */
export const VmciRequest = {
  /** The driver's version; sets nothing. */
  VERSION: 0x79F,
  /** Makes the descriptor a context. */
  INIT_CONTEXT: 0x7A0,
  /** Makes the descriptor a process (to 2011). */
  CREATE_PROCESS: 0x7A1,
  /** Makes the descriptor a datagram handle (to 2011). */
  CREATE_DATAGRAM_PROCESS: 0x7A2,
  /** Makes a region (first generation). */
  SHAREDMEM_CREATE: 0x7A3,
  /** Attaches to a region (first generation). */
  SHAREDMEM_ATTACH: 0x7A4,
  /** Asks for a region's size (first generation). */
  SHAREDMEM_QUERY: 0x7A5,
  /** Detaches from a region (first generation). */
  SHAREDMEM_DETACH: 0x7A6,
  /** Maps or unmaps a queue pair's memory (since 11.0). */
  QUEUEPAIR_SETVA: 0x7A4,
  /** Creates, rings or destroys a doorbell (since 10.0). */
  NOTIFY_RESOURCE: 0x7A5,
  /** Takes the doorbells that were rung (since 10.0). */
  NOTIFICATIONS_RECEIVE: 0x7A6,
  /** Announces a version and learns the agreed one. */
  VERSION2: 0x7A7,
  /** Creates a queue pair or attaches to one. */
  QUEUEPAIR_ALLOC: 0x7A8,
  /** Gives a queue pair its memory (9.0 and 10.0). */
  QUEUEPAIR_SETPAGEFILE: 0x7A9,
  /** Detaches from a queue pair. */
  QUEUEPAIR_DETACH: 0x7AA,
  /** Sends a datagram. */
  DATAGRAM_SEND: 0x7AB,
  /** Takes a datagram. */
  DATAGRAM_RECEIVE: 0x7AC,
  /** Asks to be told when a context goes. */
  CTX_ADD_NOTIFICATION: 0x7AF,
  /** Takes that back. */
  CTX_REMOVE_NOTIFICATION: 0x7B0,
  /** Reads a part of the context's state. */
  CTX_GET_CPT_STATE: 0x7B1,
  /** Writes a part of the context's state. */
  CTX_SET_CPT_STATE: 0x7B2,
  /** The context id of the machine: the host's, or a guest's own. */
  GET_CONTEXT_ID: 0x7B3,
  /** Names a byte that says whether something waits. */
  SET_NOTIFY: 0x7CB,
} as const;

/** Versions of the interface: `major << 16 | minor`. */
export const VmciVersion = {
  /** Workstation 6.0 (2007), which told no version: shared memory, and datagram handles of processes. */
  WORKSTATION_6: 0x10000,
  /** Workstation 6.5 (2008). */
  PRE_HOST_QUEUE_PAIRS: 0x80000,
  /** Workstation 7: queue pairs with the host. */
  HOST_QUEUE_PAIRS: 0x90000,
  /** 2010: doorbells. */
  DOORBELLS: 0xA0000,
  /** 2011, and Linux since 3.9: no virtual machine reaches another. */
  NO_VM_TO_VM: 0xB0000,
} as const;

/**
 * A version as people write it.
 *
 * @param version `major << 16 | minor`.
 * @returns Such as `"11.0"`.
 *
 * @example
 * ```ts
 * import { formatVersion, VmciVersion } from "@vmci/vmci/device";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatVersion(VmciVersion.NO_VM_TO_VM), "11.0");
 * ```
 */
export function formatVersion(version: number): string {
  return `${version >>> 16}.${version & 0xFFFF}`;
}

/**
 * The SDK's result codes, by name and by number.
 *
 * @module
 */

/**
 * Every result code of the SDK and its successors under its name without the prefix `VMCI_` or `VMCI_ERROR_`. Negative
 * is an error, 0 success, positive success with information. (VMCI public headers, 2008 to 2017.)
 */
export const ResultCode = {
  /** A queue pair was attached to. */
  SUCCESS_QUEUEPAIR_ATTACH: 5,
  /** A queue pair was created. */
  SUCCESS_QUEUEPAIR_CREATE: 4,
  /** This was the last attachment: the region is gone. */
  SUCCESS_LAST_DETACH: 3,
  /** The privilege is granted. */
  SUCCESS_ACCESS_GRANTED: 2,
  /** The entry is dead but was still there. */
  SUCCESS_ENTRY_DEAD: 1,
  /** Done. */
  SUCCESS: 0,
  /** The resource is not what the call needs. */
  INVALID_RESOURCE: -1,
  /** An argument has a wrong form or value, or names something that is not there. */
  INVALID_ARGS: -2,
  /** Not enough memory, or a buffer too small for the next datagram. */
  NO_MEM: -3,
  /** The datagram could not be sent. */
  DATAGRAM_FAILED: -4,
  /** There is more than fits. */
  MORE_DATA: -5,
  /** No datagram waits, or the wait was interrupted. */
  NO_MORE_DATAGRAMS: -6,
  /** The caller does not have the right. */
  NO_ACCESS: -7,
  /** No handle is to be had. */
  NO_HANDLE: -8,
  /** That id is taken. */
  DUPLICATE_ENTRY: -9,
  /** There is no way to that destination. */
  DST_UNREACHABLE: -10,
  /** The payload is larger than the protocol allows. */
  PAYLOAD_TOO_LARGE: -11,
  /** That privilege does not exist on this resource, or is set nowhere. */
  INVALID_PRIV: -12,
  /** Something else went wrong. */
  GENERIC: -13,
  /** The page is shared already. */
  PAGE_ALREADY_SHARED: -14,
  /** The page cannot be shared. */
  CANNOT_SHARE_PAGE: -15,
  /** The page cannot be unshared. */
  CANNOT_UNSHARE_PAGE: -16,
  /** No such process. */
  NO_PROCESS: -17,
  /** No such datagram. */
  NO_DATAGRAM: -18,
  /** A queue, a quota or a table is full. */
  NO_RESOURCES: -19,
  /** Not to be had here, or not now. */
  UNAVAILABLE: -20,
  /** Nothing of that name or handle. */
  NOT_FOUND: -21,
  /** That name is taken. */
  ALREADY_EXISTS: -22,
  /** Not on a page boundary. */
  NOT_PAGE_ALIGNED: -23,
  /** That size is not possible. */
  INVALID_SIZE: -24,
  /** The region is shared already. */
  REGION_ALREADY_SHARED: -25,
  /** The time ran out. */
  TIMEOUT: -26,
  /** The datagram is not whole. */
  DATAGRAM_INCOMPLETE: -27,
  /** Called at a wrong interrupt level (Windows kernel). */
  INCORRECT_IRQL: -28,
  /** No such event. */
  EVENT_UNKNOWN: -29,
  /** No longer supported. */
  OBSOLETE: -30,
  /** The queue pair has other sizes or flags. */
  QUEUEPAIR_MISMATCH: -31,
  /** The queue pair is not set. */
  QUEUEPAIR_NOTSET: -32,
  /** The queue pair is somebody else's. */
  QUEUEPAIR_NOTOWNER: -33,
  /** The queue pair is not attached. */
  QUEUEPAIR_NOTATTACHED: -34,
  /** The queue pair is full. */
  QUEUEPAIR_NOSPACE: -35,
  /** The queue pair is empty. */
  QUEUEPAIR_NODATA: -36,
  /** The bus memory became invalid. */
  BUSMEM_INVALIDATION: -37,
  /** The driver is not loaded. */
  MODULE_NOT_LOADED: -38,
  /** There is no such device. */
  DEVICE_NOT_FOUND: -39,
  /** The queue pair is not ready. */
  QUEUEPAIR_NOT_READY: -40,
  /** The call would have to wait. */
  WOULD_BLOCK: -41,
  /** The first code a client library may use for itself. */
  CLIENT_MIN: -500,
  /** The last code a client library may use for itself. */
  CLIENT_MAX: -550,
  /** Internal to the SDK's shared memory: the context cannot share. */
  SHAREDMEM_ERROR_BAD_CONTEXT: -1000,
} as const;

/** The name of a result code, such as `"NO_ACCESS"`. */
export type ResultCodeName = keyof typeof ResultCode;

/** The names of the codes that are errors. */
export type ErrorCodeName = Exclude<ResultCodeName, `SUCCESS${string}`>;

const names = new Map<number, ResultCodeName>(
  Object.entries(ResultCode).map(([name, number]) => [number, name as ResultCodeName]),
);

/**
 * The name of a result code.
 *
 * @param code The number.
 * @returns Its name, or `undefined` when the SDK has no such code.
 *
 * @example
 * ```ts
 * import { resultCodeName } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(resultCodeName(-7), "NO_ACCESS");
 * assertEquals(resultCodeName(99), undefined);
 * ```
 */
export function resultCodeName(code: number): ResultCodeName | undefined {
  return names.get(code);
}

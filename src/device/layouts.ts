/**
 * The structures of the requests, as 32-bit and 64-bit programs on Linux both have them (the public headers of 2008 to
 * 2017, and Linux).
 *
 * @module
 */

/** INIT_CONTEXT. */
export const ContextInfo = { size: 8, fields: { context: [0, "u32"], flags: [4, "u32"] } } as const;

/** GET_CONTEXT_ID and VERSION2. */
export const Word = { size: 4, fields: { value: [0, "u32"] } } as const;

/** CREATE_DATAGRAM_PROCESS. */
export const DatagramProcessInfo = {
  size: 24,
  fields: { resource: [0, "u32"], flags: [4, "u32"], event: [8, "i32"], result: [12, "i32"], handle: [16, "handle"] },
} as const;

/** SHAREDMEM_CREATE, _ATTACH, _QUERY and _DETACH. */
export const SharedMemoryInfo = {
  size: 280,
  fields: { handle: [0, "handle"], size: [8, "u32"], result: [12, "i32"], address: [16, "u64"], file: [24, "name"] },
} as const;

/** DATAGRAM_SEND and _RECEIVE. */
export const DatagramInfo = {
  size: 16,
  fields: { address: [0, "u64"], length: [8, "u32"], result: [12, "i32"] },
} as const;

/** CTX_ADD_NOTIFICATION and CTX_REMOVE_NOTIFICATION. */
export const WatchInfo = { size: 8, fields: { context: [0, "u32"], result: [4, "i32"] } } as const;

/** CTX_GET_CPT_STATE and CTX_SET_CPT_STATE. */
export const CheckpointInfo = {
  size: 24,
  fields: { address: [0, "u64"], kind: [8, "u32"], length: [12, "u32"], result: [16, "i32"] },
} as const;

/** SET_NOTIFY. */
export const NotifyByteInfo = { size: 16, fields: { address: [0, "u64"], result: [8, "i32"] } } as const;

/** NOTIFY_RESOURCE. */
export const NotifyResourceInfo = {
  size: 16,
  fields: { handle: [0, "handle"], resource: [8, "u16"], action: [10, "u16"], result: [12, "i32"] },
} as const;

/** NOTIFICATIONS_RECEIVE. */
export const NotificationsInfo = {
  size: 40,
  fields: {
    doorbells: [0, "u64"],
    doorbellsLength: [8, "u64"],
    queuePairs: [16, "u64"],
    queuePairsLength: [24, "u64"],
    result: [32, "i32"],
  },
} as const;

/** QUEUEPAIR_ALLOC since 11.0. */
export const QueuePairInfo = {
  size: 56,
  fields: {
    handle: [0, "handle"],
    peer: [8, "u32"],
    flags: [12, "u32"],
    produceSize: [16, "u64"],
    consumeSize: [24, "u64"],
    address: [32, "u64"],
    pages: [40, "u64"],
    result: [48, "i32"],
    version: [52, "u32"],
  },
} as const;

/** QUEUEPAIR_ALLOC before 11.0. */
export const OldQueuePairInfo = {
  size: 72,
  fields: {
    handle: [0, "handle"],
    peer: [8, "u32"],
    flags: [12, "u32"],
    produceSize: [16, "u64"],
    consumeSize: [24, "u64"],
    produceFile: [32, "u64"],
    consumeFile: [40, "u64"],
    produceFileLength: [48, "u64"],
    consumeFileLength: [56, "u64"],
    result: [64, "i32"],
  },
} as const;

/** QUEUEPAIR_SETPAGEFILE, 9.0 and 10.0. */
export const QueuePairMemoryInfo = {
  size: 64,
  fields: {
    handle: [0, "handle"],
    produceFile: [8, "u64"],
    consumeFile: [16, "u64"],
    produceFileLength: [24, "u64"],
    consumeFileLength: [32, "u64"],
    result: [40, "i32"],
    version: [44, "u32"],
    produceAddress: [48, "u64"],
    consumeAddress: [56, "u64"],
  },
} as const;

/** QUEUEPAIR_SETVA. */
export const QueuePairAddressInfo = {
  size: 32,
  fields: {
    handle: [0, "handle"],
    address: [8, "u64"],
    pages: [16, "u64"],
    version: [24, "u32"],
    result: [28, "i32"],
  },
} as const;

/** QUEUEPAIR_DETACH. */
export const QueuePairDetachInfo = { size: 16, fields: { handle: [0, "handle"], result: [8, "i32"] } } as const;

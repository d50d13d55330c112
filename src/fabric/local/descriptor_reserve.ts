/**
 * The last of the descriptors that a broker may have. They are for what comes and goes: connections, lanes and bells on
 * their way. Nothing that a client has the broker keep gets one of them, so that there is room for others.
 *
 * @module
 */

import { ResourceLimit, resourceLimit } from "../../../ffi/resource_limit.ts";

/** So many are kept free, or that part of all where there are few. */
const RESERVE = { most: 1024, part: 1 / 8 };

/**
 * Whether a descriptor is one of the last. The kernel gives the lowest number that is free: all below it are in use.
 *
 * @param fd A descriptor that was just made or received.
 */
export function isReserved(fd: number): boolean {
  const limit = Number(resourceLimit(ResourceLimit.NOFILE));
  return fd >= limit - Math.min(RESERVE.most, RESERVE.part * limit);
}

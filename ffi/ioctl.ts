/**
 * Requests to drivers.
 *
 * @module
 */

import { Errno, errno, libc, SystemError } from "./libc.ts";

/** A driver that is interrupted every time gives up waiting for something that nobody interrupts: it is broken. */
const MOST_ATTEMPTS = 1000;

/**
 * Makes a request of the driver behind a descriptor. The structure's form is known to the driver alone: a wrong one is
 * not always noticed.
 *
 * @param fd The descriptor.
 * @param request The request's number.
 * @param structure What is asked and answered, in the form the driver expects; `null` where it expects nothing.
 * @returns What the driver returned, 0 or above.
 * @throws {SystemError} ENOTTY or EINVAL when the driver has no such request; EFAULT for an address that is not mapped;
 * EINTR when it was interrupted again and again; whatever else the driver says.
 */
export function requestOf(fd: number, request: number, structure: Uint8Array<ArrayBuffer> | null): number {
  for (let attempt = 1;; attempt++) {
    const result = libc.ioctl(fd, BigInt(request), structure);
    const error = errno();
    if (result >= 0) return result;
    if (error !== Errno.EINTR || attempt === MOST_ATTEMPTS) throw new SystemError(error, "ioctl");
  }
}

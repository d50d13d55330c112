/**
 * What a driver refuses, in the SDK's words, with what to do.
 *
 * @module
 */

import { SystemError, UnsupportedPlatformError } from "../../ffi/libc.ts";
import { VmciError } from "../error.ts";
import { formatHandle, type Handle } from "../handle.ts";
import { type ErrorCodeName, resultCodeName } from "../result_code.ts";
import type { Subject } from "../subject.ts";

/** What the error numbers of opening and of requests mean, and what to do. */
const meanings = new Map<string, [code: ErrorCodeName, reason: string]>([
  ["EACCES", ["NO_ACCESS", "this user may not open the device; run as root, or give the node a group by a udev rule"]],
  ["EPERM", ["NO_ACCESS", "this user may not do that; run as root"]],
  ["ENOENT", ["DEVICE_NOT_FOUND", "the device is not there; load its driver as root: modprobe vmw_vmci"]],
  ["ENODEV", ["DEVICE_NOT_FOUND", "nothing drives the device; load its driver as root: modprobe vmw_vmci"]],
  ["ENXIO", ["DEVICE_NOT_FOUND", "nothing drives the device; load its driver as root: modprobe vmw_vmci"]],
  ["ENOTDIR", ["DEVICE_NOT_FOUND", "the path leads through something that is no directory"]],
  ["EISDIR", ["DEVICE_NOT_FOUND", "the path is a directory, not a device"]],
  ["EBUSY", ["UNAVAILABLE", "another program has the device; close it there"]],
  ["ENOTTY", ["UNAVAILABLE", "the driver does not know this request"]],
  ["EINVAL", ["INVALID_ARGS", "the driver refuses the request or does not know it"]],
  ["EFAULT", ["INVALID_ARGS", "an address in the request is not mapped, or may not be written"]],
  ["EEXIST", ["ALREADY_EXISTS", "that context id is taken; choose another or let the driver choose"]],
  ["ENOMEM", ["NO_MEM", "the kernel has not enough memory"]],
  ["EMFILE", ["NO_RESOURCES", "this process has too many open descriptors"]],
  ["ENFILE", ["NO_RESOURCES", "the machine has too many open files"]],
  ["EINTR", ["UNAVAILABLE", "a signal interrupted the request each time it was made"]],
  ["EBADF", ["INVALID_RESOURCE", "the device is closed"]],
]);

/** What the driver's own codes mean on a device. */
const results = new Map<ErrorCodeName, string>([
  ["INVALID_RESOURCE", "nobody receives there: no socket is bound to that port, or no such resource exists"],
  ["INVALID_ARGS", "the driver refuses an argument"],
  ["NO_MEM", "the driver has no memory or no place left, or cannot reach the memory it was given"],
  ["NO_ACCESS", "the driver forbids it: a restricted context, or a source that is not its own"],
  ["DUPLICATE_ENTRY", "it is there already"],
  ["DST_UNREACHABLE", "a context reaches itself and the host (context 2), not the hypervisor and no other context"],
  ["NO_RESOURCES", "the receiver's queue is full, or a limit of the driver is reached"],
  ["UNAVAILABLE", "the driver does not offer that"],
  ["NOT_FOUND", "there is no such thing"],
  ["ALREADY_EXISTS", "it is there already"],
  ["QUEUEPAIR_MISMATCH", "the queue pair was made with other sizes or flags"],
  ["QUEUEPAIR_NOTATTACHED", "this context is not attached to the queue pair"],
]);

/**
 * An error from below as the SDK says it.
 *
 * @param subject What the call is about.
 * @param error What was thrown.
 * @param why Why, where the caller knows better than the error number says.
 * @returns What to throw.
 */
export function deviceError(subject: Subject, error: unknown, why?: string): unknown {
  if (error instanceof UnsupportedPlatformError) {
    return new VmciError("UNAVAILABLE", { ...subject, reason: error.message, cause: error });
  }
  if (!(error instanceof SystemError)) return error;
  const [code, meaning] = meanings.get(error.code) ?? ["GENERIC", "the kernel refuses it"];
  return new VmciError(code, { ...subject, reason: `${why ?? meaning}: ${error.message}`, cause: error });
}

/**
 * A result of the driver: itself when it is none of an error.
 *
 * @param subject What the call is about.
 * @param result The number that the driver answered.
 * @param why What an error means here, where that is known better.
 * @returns The result, 0 or above.
 * @throws {VmciError} The driver's code.
 */
export function checkResult(
  subject: Subject,
  result: number,
  why: Partial<Record<ErrorCodeName, string>> = {},
): number {
  if (result >= 0) return result;
  const code = resultCodeName(result) as ErrorCodeName | undefined;
  const about = subject.handle === undefined ? "" : ` (${formatHandle(subject.handle)})`;
  const reason = code === undefined
    ? `the driver answers ${result}, which is no code of the SDK`
    : `${why[code] ?? results.get(code) ?? "the driver refuses it"}${about}`;
  throw new VmciError(code ?? "GENERIC", { ...subject, reason });
}

/** A reply that cannot be right: what the driver is, or what it was asked, is not what was thought. */
export function badReply(operation: string, reason: string, handle?: Handle): VmciError {
  return new VmciError("GENERIC", { operation, handle, reason: `the driver's reply makes no sense: ${reason}` });
}

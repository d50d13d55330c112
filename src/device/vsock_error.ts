/**
 * What sockets refuse, in the SDK's words, with what to do.
 *
 * @module
 */

import { SystemError, UnsupportedPlatformError } from "../../ffi/libc.ts";
import { VmciError } from "../error.ts";
import type { ErrorCodeName } from "../result_code.ts";
import type { Subject } from "../subject.ts";

/** What error numbers mean, by their names. */
export type Meanings = Readonly<Record<string, readonly [code: ErrorCodeName, reason: string]>>;

/**
 * What they mean whatever was called. Where a number stands for a code of VMCI, it is that one: NO_RESOURCES comes as
 * ENOBUFS, INVALID_RESOURCE as EHOSTUNREACH, NO_ACCESS as EPERM, DUPLICATE_ENTRY as EADDRINUSE.
 */
const meanings: Meanings = {
  EAFNOSUPPORT: ["DEVICE_NOT_FOUND", "this kernel has no sockets for virtual machines; load them: modprobe vsock"],
  // ESOCKTNOSUPPORT, of which no name is known.
  E94: ["UNAVAILABLE", "what leads there does not carry this kind of socket"],
  EPROTONOSUPPORT: ["UNAVAILABLE", "what leads there does not carry this kind of socket"],
  ENODEV: [
    "UNAVAILABLE",
    "nothing leads there; load what does, as root: modprobe vmw_vsock_vmci_transport (virtual machines of VMware, " +
    "contexts of /dev/vmci) or modprobe vsock_loopback (this machine alone)",
  ],
  EADDRINUSE: ["DUPLICATE_ENTRY", "the port is taken"],
  EADDRNOTAVAIL: ["INVALID_ARGS", "that context id is not this machine's, or not yet; leave it out"],
  EACCES: ["NO_ACCESS", "ports below 1024 are for root, or CAP_NET_BIND_SERVICE"],
  EPERM: ["NO_ACCESS", "the other side's context does not let this user reach it, or the option is for root"],
  EHOSTUNREACH: ["INVALID_RESOURCE", "nobody has that port"],
  ENETUNREACH: ["DST_UNREACHABLE", "no way leads to that context"],
  ENOBUFS: ["NO_RESOURCES", "the receiver's queue is full"],
  EMSGSIZE: ["INVALID_ARGS", "the message is too large"],
  ENOMEM: ["NO_MEM", "the kernel has not enough memory"],
  EMFILE: ["NO_RESOURCES", "this process has too many open descriptors"],
  ENFILE: ["NO_RESOURCES", "the machine has too many open files"],
  ETIMEDOUT: ["TIMEOUT", "nobody answered there"],
  ECONNRESET: ["DST_UNREACHABLE", "the other end is gone"],
  EPIPE: ["DST_UNREACHABLE", "nobody reads at the other end any more"],
  ENOTCONN: ["INVALID_RESOURCE", "it is not connected any more"],
  EISCONN: ["INVALID_ARGS", "it is connected already"],
  EINVAL: ["INVALID_ARGS", "the kernel refuses an argument"],
  ENOPROTOOPT: ["UNAVAILABLE", "this kernel's sockets do not have that option"],
  // EOPNOTSUPP has the same number.
  ENOTSUP: ["UNAVAILABLE", "this kind of socket cannot do that"],
  ENOTTY: ["UNAVAILABLE", "the driver does not know this request"],
  EBADF: ["INVALID_RESOURCE", "the socket is closed"],
};

/**
 * An error from below as the SDK says it.
 *
 * @param subject What the call is about.
 * @param error What was thrown.
 * @param here What error numbers mean at this place, where that differs.
 * @returns What to throw.
 */
export function vsockError(subject: Subject, error: unknown, here: Meanings = {}): unknown {
  if (error instanceof UnsupportedPlatformError) {
    return new VmciError("UNAVAILABLE", { ...subject, reason: error.message, cause: error });
  }
  if (!(error instanceof SystemError)) return error;
  const [code, reason] = here[error.code] ?? meanings[error.code] ?? ["GENERIC", "the kernel refuses it"];
  return new VmciError(code, { ...subject, reason: `${reason}: ${error.message}`, cause: error });
}

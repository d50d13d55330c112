/**
 * What the operating system refuses, in the SDK's words.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { SystemError, UnsupportedPlatformError } from "../../../ffi/libc.ts";

/** An error of the operating system as the SDK would say it. */
export function asVmciError(error: unknown, operation: string): unknown {
  if (error instanceof UnsupportedPlatformError) {
    return new VmciError("UNAVAILABLE", {
      operation,
      reason: `${error.message}; memory: works everywhere`,
      cause: error,
    });
  }
  if (!(error instanceof SystemError)) return error;
  switch (error.code) {
    case "ENOMEM":
    case "ENOSPC":
    case "EFBIG":
      return new VmciError("NO_MEM", { operation, reason: error.message, cause: error });
    case "EMFILE":
    case "ENFILE":
      return new VmciError("NO_RESOURCES", { operation, reason: error.message, cause: error });
    case "EACCES":
    case "EPERM":
      return new VmciError("NO_ACCESS", { operation, reason: error.message, cause: error });
    case "ENOSYS":
    case "EINVAL":
      return new VmciError("UNAVAILABLE", {
        operation,
        reason: `${error.message}: this kernel may lack memfd_create or its seals (Linux 5.1 has them)`,
        cause: error,
      });
    default:
      return new VmciError("UNAVAILABLE", { operation, reason: error.message, cause: error });
  }
}

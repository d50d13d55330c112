/**
 * Which number the address family of VMCI's sockets has, and who drives it.
 *
 * Linux has it as 40 since 3.9. VMware's own module of the years before takes whatever number is free when it is asked,
 * and keeps it as long as somebody holds its node open.
 *
 * @module
 */

import { closeDescriptor } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { SystemError } from "../../ffi/libc.ts";
import { askVsock, openVsock, SocketType, VsockRequest } from "../../ffi/vsock.ts";
import { VmciError } from "../error.ts";
import { HOST_CONTEXT, INVALID_ID } from "../handle.ts";
import { vsockError } from "./vsock_error.ts";

/** The family, and whose module it is: that decides what some socket options mean. */
export interface VsockFamily {
  /** The number, 40 on Linux. */
  readonly number: number;
  /** `linux` for the kernel's own sockets, `vmware` for those of VMware Tools and Workstation before 2013. */
  readonly generation: "linux" | "vmware";
}

/** How the family is looked for. */
export interface FamilyProbe {
  /** Whether a socket of that family can be made. */
  readonly hasFamily: (number: number) => boolean;
  /** What a node answers when it is asked for the family; `undefined` without it, or when it does not know. */
  readonly askFamily: (path: string) => number | undefined;
}

/** The number that Linux has. */
export const AF_VSOCK = 40;

/** The node of the sockets. */
export const VSOCK_NODE = "/dev/vsock";

/** Where the node is: on Linux, and on an ESX host. */
const NODES = [VSOCK_NODE, "/vmfs/devices/char/vsock/vsock"] as const;

/** Numbers of families are small. */
const MOST_FAMILY = 255;

const EAFNOSUPPORT = "EAFNOSUPPORT";

let known: VsockFamily | undefined;

/**
 * Looks for the family: first where Linux has it, then by asking VMware's module.
 *
 * @param probe How.
 * @returns The family.
 * @throws {VmciError} DEVICE_NOT_FOUND when this machine has none.
 */
export function findVsockFamily(probe: FamilyProbe): VsockFamily {
  if (probe.hasFamily(AF_VSOCK)) return { number: AF_VSOCK, generation: "linux" };
  for (const path of NODES) {
    const number = probe.askFamily(path);
    if (number !== undefined && number > 0 && number <= MOST_FAMILY) return { number, generation: "vmware" };
  }
  throw new VmciError("DEVICE_NOT_FOUND", {
    operation: "find the address family of vsock",
    reason: "this kernel has no sockets for virtual machines; load them as root: modprobe vmw_vsock_vmci_transport " +
      "(in a guest of VMware, or for /dev/vmci), or modprobe vsock_loopback (for this machine alone)",
  });
}

/**
 * The family of this machine, looked for once.
 *
 * @returns The family.
 * @throws {VmciError} DEVICE_NOT_FOUND when there is none; UNAVAILABLE on another system than Linux.
 */
export function vsockFamily(): VsockFamily {
  return known ??= findVsockFamily(kernelProbe);
}

const kernelProbe: FamilyProbe = {
  hasFamily: (number) => {
    // Whether there is a transport for the type is another matter.
    for (const type of [SocketType.DGRAM, SocketType.STREAM]) {
      try {
        closeDescriptor(openVsock(number, type));
        return true;
      } catch (error) {
        if (!(error instanceof SystemError)) throw vsockError({ operation: "find the address family of vsock" }, error);
        if (error.code === EAFNOSUPPORT) return false;
      }
    }
    return true;
  },
  askFamily: (path) => {
    try {
      // Stays open: the module gives the number to somebody else when nobody holds it.
      const fd = openFile(path, OpenFlag.RDONLY);
      try {
        return askVsock(fd, VsockRequest.GET_AF_VALUE);
      } catch (error) {
        closeDescriptor(fd);
        throw error;
      }
    } catch (error) {
      if (error instanceof SystemError) return undefined;
      throw error;
    }
  },
};

/**
 * The context id of the machine that this program runs on, as the sockets have it.
 *
 * @returns 2 on a host as soon as it has a virtual machine (or a context of `/dev/vmci`), a virtual machine's own id in
 * one, 1 where there is the loopback alone; `undefined` where nobody has one yet.
 * @throws {VmciError} DEVICE_NOT_FOUND without the node; NO_ACCESS when this user may not open it.
 */
export function localVsockContext(): number | undefined {
  const cid = askNode("localContext", VsockRequest.GET_LOCAL_CID);
  return cid === INVALID_ID ? undefined : cid;
}

/**
 * The context that this machine's sockets are seen as by VMCI: who has none of his own, or the loopback's, is the host.
 *
 * @param local What {@linkcode localVsockContext} says.
 * @returns 2, or a virtual machine's id.
 */
export function vmciContextOf(local: number | undefined): number {
  return local === undefined || local < HOST_CONTEXT ? HOST_CONTEXT : local;
}

/**
 * The version of VMware's module, which Linux's own does not tell.
 *
 * @returns `epoch << 24 | major << 16 | minor`, or `undefined`.
 * @throws {VmciError} DEVICE_NOT_FOUND without the node; NO_ACCESS when this user may not open it.
 */
export function vsockVersion(): number | undefined {
  try {
    const version = askNode("version", VsockRequest.VERSION);
    return version === INVALID_ID ? undefined : version;
  } catch (error) {
    const { cause } = error as VmciError;
    if (cause instanceof SystemError && (cause.code === "ENOTTY" || cause.code === "EINVAL")) return undefined;
    throw error;
  }
}

function askNode(operation: string, request: number): number {
  try {
    const fd = openFile(VSOCK_NODE, OpenFlag.RDONLY);
    try {
      return askVsock(fd, request);
    } finally {
      closeDescriptor(fd);
    }
  } catch (error) {
    throw vsockError({ operation }, error, {
      ENOENT: ["DEVICE_NOT_FOUND", `${VSOCK_NODE} is not there; load it as root: modprobe vmw_vsock_vmci_transport`],
    });
  }
}

/**
 * What only the drivers can tell: their devices are opened and asked. Done when somebody wants it, never by itself.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { formatVersion, localVsockContext, VmciDevice, vsockFamily } from "../device/mod.ts";
import { vmciContextOf } from "../device/vsock_family.ts";

/** Why a device could not be asked. */
export interface ProbeFailure {
  readonly error: string;
}

/** What the drivers told. */
export interface ProbeFacts {
  /** `/dev/vmci`: the driver's version, and the context id of the machine it runs on. */
  readonly vmci: { readonly driverVersion: string; readonly hostContext: number } | ProbeFailure;
  /** vSockets: the number of their address family, and the own context id. */
  readonly vsock: { readonly family: number; readonly localContext: number } | ProbeFailure;
}

/**
 * Opens `/dev/vmci` and `/dev/vsock` for a moment.
 *
 * @returns What the drivers told.
 */
export function probeDrivers(): ProbeFacts {
  return {
    vmci: attempt(() => {
      using device = VmciDevice.open();
      return { driverVersion: formatVersion(device.driverVersion), hostContext: device.hostContext() };
    }),
    vsock: attempt(() => ({ family: vsockFamily().number, localContext: vmciContextOf(localVsockContext()) })),
  };
}

function attempt<T>(ask: () => T): T | ProbeFailure {
  try {
    return ask();
  } catch (error) {
    if (error instanceof VmciError) return { error: error.message };
    throw error;
  }
}

/**
 * Which medium a device's name means.
 *
 * @module
 */

import { DeviceMedium } from "./device/device_medium.ts";
import { parseDeviceName } from "./device/device_name.ts";
import { VmciError } from "./error.ts";
import type { ContextId } from "./handle.ts";
import { environmentDefaults } from "./fabric/local/run_directory.ts";
import { LocalMedium } from "./fabric/local/local_medium.ts";
import { asVmciError } from "./fabric/local/system_failure.ts";
import type { Medium } from "./fabric/medium.ts";
import { MemoryMedium } from "./fabric/memory/memory_medium.ts";

/** A medium, and the context that the environment names for this process. */
export interface Device {
  /** The medium. */
  readonly medium: Medium;
  /** The context, if the environment names one. */
  readonly context: ContextId | undefined;
}

/**
 * Finds the medium for a device's name: nothing for the fabric of this user, `memory:NAME`, `fabric:PATH` or a path,
 * `vsock:` or `/dev/vmci` with their options.
 *
 * @param name The name as the program wrote it.
 * @param start Whether to start the fabric where none runs.
 * @param spin Microseconds that a wait may spin before it sleeps.
 * @returns The medium.
 * @throws {VmciError} UNAVAILABLE when there is no such device here; NO_ACCESS when it is somebody else's.
 */
export function openDevice(name: string | undefined, start: boolean, spin: number): Device {
  if (name?.startsWith("memory:")) {
    return { medium: new MemoryMedium(name.slice("memory:".length)), context: undefined };
  }
  const real = name === undefined ? undefined : parseDeviceName(name);
  if (real !== undefined) {
    // What the sockets are a program cannot choose.
    const context = real.kind === "vsock" ? undefined : localDefaults().context;
    return { medium: new DeviceMedium(name!, real), context };
  }
  if (name !== undefined) assertFabric(name);
  const defaults = localDefaults();
  const device = name ?? defaults.device;
  if (device?.startsWith("memory:")) return openDevice(device, start, spin);
  if (name === undefined && device !== undefined && parseDeviceName(device) !== undefined) {
    return openDevice(device, start, spin);
  }
  const medium = new LocalMedium({ path: fabricPath(device), start, spin });
  return { medium, context: defaults.context };
}

/**
 * Where the fabric of a name is.
 *
 * @param name `fabric:PATH`, a path, or `undefined` for what the environment says.
 * @returns The path of its directory or socket, or `undefined` for this user's own directory.
 * @throws {VmciError} UNAVAILABLE when the name is not a fabric's.
 */
export function fabricPath(name: string | undefined): string | undefined {
  const device = name ?? localDefaults().device;
  if (device === undefined) return undefined;
  assertFabric(device);
  const path = device.startsWith("fabric:") ? device.slice("fabric:".length) : device;
  return path === "" ? undefined : path;
}

function localDefaults(): ReturnType<typeof environmentDefaults> {
  try {
    return environmentDefaults();
  } catch (error) {
    throw asVmciError(error, "openVmci");
  }
}

/** What is no fabric is refused by name, before a path is looked at. */
function assertFabric(device: string): void {
  if (device.includes("\0")) {
    throw new VmciError("INVALID_ARGS", {
      operation: "openVmci",
      reason: "the device's name has a NUL character in it",
    });
  }
  const real = device === "/dev/vmci" || device === "/dev/vsock" || device.startsWith("vsock:") ||
    device.startsWith("/dev/vmci,") || device.startsWith("\\\\.");
  const scheme = /^([a-z][a-z0-9+.-]+):/.exec(device)?.[1];
  if (!real && (scheme === undefined || scheme === "fabric")) return;
  throw new VmciError("UNAVAILABLE", {
    operation: "openVmci",
    reason: real
      ? `the device ${device} is no fabric; for datagrams of this machine's VMCI there are vsock: and /dev/vmci`
      : `there is no device '${device}'; there are fabric:PATH, a path, memory:NAME, vsock: and /dev/vmci`,
  });
}

/**
 * What the name of a real device says: which one, and how it is used.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { type Handle, HOST_CONTEXT, parseHandle } from "../handle.ts";
import { DS_PORT } from "./ds_message.ts";

/** A device's name, taken apart. */
export interface DeviceName {
  /** `vsock` for the sockets of the host or of a virtual machine, `driver` for a context of `/dev/vmci`. */
  readonly kind: "vsock" | "driver";
  /** The driver's node. */
  readonly path: string;
  /** Whether datagrams are numbered and acknowledged. */
  readonly reliable: boolean;
  /** Where the discovery service is. */
  readonly service: Handle;
  /** Bytes that the kernel keeps for each endpoint, where the name says so. */
  readonly buffer: number | undefined;
}

/** The node of the driver. */
const NODE = "/dev/vmci";

/**
 * Takes a device's name apart: `vsock:` or `/dev/vmci`, and after it options with commas between them: `reliable`,
 * `ds=CID:PORT`, `buffer=BYTES`.
 *
 * @param name The name.
 * @returns What it says, or `undefined` when it is no real device's.
 * @throws {VmciError} INVALID_ARGS for an option that there is not.
 */
export function parseDeviceName(name: string): DeviceName | undefined {
  const [head = "", ...rest] = name.split(",");
  const kind = head.startsWith("vsock:") ? "vsock" : head === NODE ? "driver" : undefined;
  if (kind === undefined) return undefined;
  const first = kind === "vsock" ? head.slice("vsock:".length) : "";
  let reliable = false;
  let service: Handle = { context: HOST_CONTEXT, resource: DS_PORT };
  let buffer: number | undefined;
  for (const option of first === "" ? rest : [first, ...rest]) {
    const [key, value] = option.split("=", 2) as [string, string | undefined];
    if (key === "reliable" && value === undefined) reliable = true;
    else if (key === "ds" && value !== undefined) service = serviceOf(name, value);
    else if (key === "buffer" && kind === "vsock" && /^[1-9]\d{0,8}$/.test(value ?? "")) buffer = Number(value);
    else throw unknown(name, option);
  }
  return { kind, path: NODE, reliable, service, buffer };
}

function serviceOf(name: string, text: string): Handle {
  try {
    return parseHandle(text);
  } catch {
    throw unknown(name, `ds=${text}`);
  }
}

function unknown(name: string, option: string): VmciError {
  return new VmciError("INVALID_ARGS", {
    operation: "openVmci",
    reason:
      `the device '${name}' has an option '${option}'; there are reliable, ds=CID:PORT and, for vsock:, buffer=BYTES`,
  });
}

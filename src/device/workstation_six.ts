/**
 * The requests of the first generation.
 *
 * Shared memory was Workstation 6.0's alone (2007): later drivers gave its numbers to other requests, which would take
 * the structures for their own. Datagram handles of processes went in 2011.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { type Handle, INVALID_HANDLE, INVALID_ID } from "../handle.ts";
import { MAX_REGION_SIZE } from "../limits.ts";
import { ResultCode } from "../result_code.ts";
import { checkResult } from "./device_error.ts";
import type { Driver } from "./driver.ts";
import type { Subject } from "../subject.ts";
import { DatagramProcessInfo, SharedMemoryInfo } from "./layouts.ts";
import { formatVersion, VmciRequest, VmciVersion } from "./requests.ts";

/** How a datagram handle is made. */
export interface DatagramProcessOptions {
  /** The resource id; the driver chooses by default. */
  readonly resource?: number | undefined;
  /** Whether the handle is well-known: its context is 1, and the resource must be given. */
  readonly wellKnown?: boolean | undefined;
}

/** A region as a driver of the first generation tells it. */
export interface DeviceRegion {
  /** Its handle. */
  readonly handle: Handle;
  /** Its size in bytes. */
  readonly size: number;
  /** Where the driver mapped it into this process; 0 where it did not. */
  readonly address: bigint;
  /** The file to map instead; empty where there is none. */
  readonly file: string;
}

const WELL_KNOWN = 1;

/**
 * The requests of Workstation 6.0's drivers (2007), as {@linkcode VmciDevice.workstation6}. They are refused with
 * OBSOLETE, and not made, where the driver is too new for them.
 *
 * They were written by the public headers, which have their structures; no driver that has them could be tried.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open({ version: null });
 * console.log(device.workstation6.createSharedMemory(4096)); // OBSOLETE on every Linux since 3.9
 * ```
 */
export class WorkstationSixRequests {
  readonly #driver: Driver;
  readonly #version: number;

  /** @ignore Use {@linkcode VmciDevice.workstation6}. */
  constructor(driver: Driver, version: number) {
    this.#driver = driver;
    this.#version = version;
  }

  /**
   * Makes a region.
   *
   * @param size Its size in bytes, from 1.
   * @param file The file it lies in; guests' drivers take none.
   * @returns The region.
   * @throws {VmciError} OBSOLETE when the driver is newer than Workstation 6.0's; INVALID_SIZE; what the driver answers.
   */
  createSharedMemory(size: number, file = ""): DeviceRegion {
    if (!Number.isInteger(size) || size < 1 || size > MAX_REGION_SIZE) {
      throw new VmciError("INVALID_SIZE", {
        operation: "createSharedMemory",
        reason: `a region has 1 to ${MAX_REGION_SIZE} bytes: received ${size}`,
      });
    }
    return this.#ask("createSharedMemory", VmciRequest.SHAREDMEM_CREATE, { handle: INVALID_HANDLE, size, file }).region;
  }

  /**
   * Attaches to a region.
   *
   * @param handle The region.
   * @returns The region with its size.
   * @throws {VmciError} As `createSharedMemory`.
   */
  attachSharedMemory(handle: Handle): DeviceRegion {
    return this.#ask("attachSharedMemory", VmciRequest.SHAREDMEM_ATTACH, { handle }).region;
  }

  /**
   * Asks for a region's size.
   *
   * @param handle The region.
   * @returns Its size in bytes.
   * @throws {VmciError} As `createSharedMemory`.
   */
  querySharedMemory(handle: Handle): number {
    return this.#ask("querySharedMemory", VmciRequest.SHAREDMEM_QUERY, { handle }).region.size;
  }

  /**
   * Detaches from a region.
   *
   * @param handle The region.
   * @returns Whether that was the last attachment, so that the region is gone.
   * @throws {VmciError} As `createSharedMemory`.
   */
  detachSharedMemory(handle: Handle): boolean {
    const { result } = this.#ask("detachSharedMemory", VmciRequest.SHAREDMEM_DETACH, { handle });
    return result === ResultCode.SUCCESS_LAST_DETACH;
  }

  #ask(
    operation: string,
    request: number,
    values: { handle: Handle; size?: number; file?: string },
  ): { region: DeviceRegion; result: number } {
    const subject = { operation, handle: values.handle };
    this.#driver.assertOpen(subject);
    const why = "shared memory was Workstation 6.0's alone; openVmci has it on the fabric";
    assertBefore(subject, this.#version, VmciVersion.PRE_HOST_QUEUE_PAIRS, why);
    const reply = this.#driver.ask(subject, request, SharedMemoryInfo, values, "the driver has no shared memory");
    const result = checkResult(subject, reply.get("result"));
    const region = {
      handle: reply.get("handle"),
      size: reply.get("size"),
      address: reply.get("address"),
      file: reply.get("file"),
    };
    return { region, result };
  }
}

/**
 * Makes a descriptor a datagram handle.
 *
 * @param driver The descriptor.
 * @param version The driver's version.
 * @param options The resource id and flags.
 * @returns The handle.
 * @throws {VmciError} OBSOLETE when the driver is of 2011 or later; what the driver answers.
 */
export function createDatagramProcess(driver: Driver, version: number, options: DatagramProcessOptions): Handle {
  const subject = { operation: "createDatagramProcess" };
  assertBefore(subject, version, VmciVersion.NO_VM_TO_VM, "datagram handles of processes went in 2011");
  const resource = options.resource ?? INVALID_ID;
  const flags = options.wellKnown ? WELL_KNOWN : 0;
  const values = { resource, flags, handle: INVALID_HANDLE };
  const request = VmciRequest.CREATE_DATAGRAM_PROCESS;
  const reply = driver.ask(subject, request, DatagramProcessInfo, values, "the driver makes no such handle");
  checkResult(subject, reply.get("result"));
  return reply.get("handle");
}

/** Refuses what a driver of that version no longer has, before it takes the request for another. */
function assertBefore(subject: Subject, version: number, end: number, why: string): void {
  if (version < end) return;
  throw new VmciError("OBSOLETE", { ...subject, reason: `the driver has version ${formatVersion(version)}: ${why}` });
}

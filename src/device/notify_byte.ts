/**
 * A byte that a driver keeps up to date.
 *
 * @module
 */

import { closeDescriptor } from "../../ffi/descriptor.ts";
import { type Mapping, mapShared } from "../../ffi/mapping.ts";
import { createMemfd } from "../../ffi/memfd.ts";
import { checkResult, deviceError } from "./device_error.ts";
import type { Driver } from "./driver.ts";
import { NotifyByteInfo } from "./layouts.ts";
import { PAGE_SIZE } from "./queue_ring.ts";
import { VmciRequest } from "./requests.ts";

/**
 * A byte in memory by which the driver says whether a datagram or a doorbell waits: a look at it is no system call.
 * {@linkcode VmciDevice.notifyByte} makes it.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open();
 * device.initContext();
 * using byte = device.notifyByte();
 * if (byte.pending) console.log(device.tryReceive());
 * ```
 */
export class NotifyByte implements Disposable {
  readonly #driver: Driver;
  readonly #mapping: Mapping;
  #set = true;

  /** @ignore Use {@linkcode VmciDevice.notifyByte}. */
  constructor(driver: Driver) {
    const subject = { operation: "notifyByte" };
    this.#driver = driver;
    this.#mapping = mapMemory("notifyByte", PAGE_SIZE);
    try {
      const reply = driver.ask(subject, VmciRequest.SET_NOTIFY, NotifyByteInfo, { address: this.#mapping.address });
      checkResult(subject, reply.get("result"), {
        DUPLICATE_ENTRY: "this context has a notify byte already; close that one first",
      });
    } catch (error) {
      this.#mapping.close();
      throw error;
    }
  }

  /**
   * Whether something waits.
   *
   * @returns `true` while the driver has a datagram or a rung doorbell for this context; `false` once it is closed.
   */
  get pending(): boolean {
    const { buffer } = this.#mapping;
    return buffer.byteLength > 0 && Atomics.load(new Uint8Array(buffer, 0, 1), 0) !== 0;
  }

  /** Takes the byte back from the driver. Closing again does nothing. */
  close(): void {
    if (!this.#set) return;
    this.#set = false;
    try {
      // A closed device has let go of it.
      if (this.#driver.open) this.#driver.ask({ operation: "close" }, VmciRequest.SET_NOTIFY, NotifyByteInfo, {});
    } finally {
      this.#mapping.close();
    }
  }

  /** As {@linkcode NotifyByte.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Zeroed memory on a page boundary that the driver may keep addresses of.
 *
 * @param operation The program's call, for errors.
 * @param size How many bytes.
 * @returns The memory.
 * @throws {VmciError} NO_MEM, NO_RESOURCES.
 */
export function mapMemory(operation: string, size: number): Mapping {
  try {
    const fd = createMemfd("vmci-device", size);
    let mapping: Mapping;
    try {
      mapping = mapShared(fd, size);
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
    try {
      closeDescriptor(fd);
    } catch (error) {
      mapping.close();
      throw error;
    }
    return mapping;
  } catch (error) {
    throw deviceError({ operation }, error);
  }
}

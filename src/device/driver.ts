/**
 * A device's descriptor, and requests made of it.
 *
 * @module
 */

import { closeDescriptor } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { requestOf } from "../../ffi/ioctl.ts";
import { Errno, SystemError } from "../../ffi/libc.ts";
import { letGo } from "../../ffi/poll_loop.ts";
import { VmciError } from "../error.ts";
import type { Subject } from "../subject.ts";
import { deviceError } from "./device_error.ts";
import { type Layout, Structure, type Values } from "./structure.ts";

/** The error number of a request that no driver of that node knows. */
const ENOTTY = 25;

/** Closes the nodes of devices that a program forgot. */
const forgotten = new FinalizationRegistry<number>((fd) => closeDescriptor(fd));

/** See the module's comment. */
export class Driver {
  /** The node's path. */
  readonly path: string;
  readonly #fd: number;
  #open = true;

  /**
   * Opens a node.
   *
   * @param operation The program's call, for errors.
   * @param path The path.
   * @throws {VmciError} DEVICE_NOT_FOUND, NO_ACCESS, NO_RESOURCES; INVALID_ARGS for a path with a NUL character.
   */
  constructor(operation: string, path: string) {
    this.path = path;
    if (path.includes("\0")) {
      throw new VmciError("INVALID_ARGS", { operation, reason: "the path has a NUL character in it" });
    }
    try {
      this.#fd = openFile(path, OpenFlag.RDWR);
    } catch (error) {
      throw deviceError({ operation: `${operation} ${path}` }, error);
    }
    forgotten.register(this, this.#fd, this);
  }

  /** Whether it is still open. */
  get open(): boolean {
    return this.#open;
  }

  /** The descriptor, for waiting. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Makes a request.
   *
   * @param subject What the program's call is about.
   * @param request The request's number.
   * @param bytes The request's structure, which is filled.
   * @param why What a refusal means here.
   * @returns What the driver returned, 0 or above.
   * @throws {VmciError} With the error number as its cause; INVALID_RESOURCE when the device is closed.
   */
  request(subject: Subject, request: number, bytes: Uint8Array<ArrayBuffer> | null, why?: string): number {
    this.assertOpen(subject);
    try {
      return requestOf(this.#fd, request, bytes);
    } catch (error) {
      throw deviceError(subject, error, why);
    }
  }

  /**
   * Makes a request with a structure.
   *
   * @param subject What the program's call is about.
   * @param request The request's number.
   * @param layout The structure's form.
   * @param values Its fields.
   * @param why What a refusal means here.
   * @returns The structure as the driver left it.
   * @throws {VmciError} As `request`.
   */
  ask<L extends Layout>(
    subject: Subject,
    request: number,
    layout: L,
    values: Partial<Values<L>>,
    why?: string,
  ): Structure<L> {
    const structure = new Structure(layout, values);
    this.request(subject, request, structure.bytes, why);
    return structure;
  }

  /**
   * Makes a request that the driver may not know.
   *
   * @param subject What the program's call is about.
   * @param request The request's number.
   * @param bytes The request's structure, which is filled.
   * @returns What the driver returned, or `undefined` when it refuses the request as unknown or ill-formed.
   * @throws {VmciError} As `request`.
   */
  tryRequest(subject: Subject, request: number, bytes: Uint8Array<ArrayBuffer> | null): number | undefined {
    try {
      return this.request(subject, request, bytes);
    } catch (error) {
      const cause = (error as Error).cause;
      if (cause instanceof SystemError && (cause.errno === ENOTTY || cause.errno === Errno.EINVAL)) return undefined;
      throw error;
    }
  }

  /** @throws {VmciError} INVALID_RESOURCE when it is closed. */
  assertOpen(subject: Subject): void {
    if (!this.#open) {
      throw new VmciError("INVALID_RESOURCE", { ...subject, reason: `the device ${this.path} is closed` });
    }
  }

  /**
   * Closes the node, and with it all that the driver keeps for it. Nobody may wait for it any more.
   *
   * @throws {VmciError} What the system says of it; it is closed all the same.
   */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    forgotten.unregister(this);
    letGo(this.#fd);
    try {
      closeDescriptor(this.#fd);
    } catch (error) {
      throw deviceError({ operation: "close" }, error);
    }
  }
}

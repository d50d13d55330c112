/**
 * Handles and context ids: how the SDK names things.
 *
 * @module
 */

import { VmciError } from "./error.ts";

/** A context id (`VMCIId`): an unsigned 32-bit number that names a virtual machine, the host or the hypervisor. */
export type ContextId = number;

/** The hypervisor's context id, 0. */
export const HYPERVISOR_CONTEXT: ContextId = 0;

/** The context of well-known handles, 1: an id in it belongs to whoever asked first. */
export const WELL_KNOWN_CONTEXT: ContextId = 1;

/** The host's context id, 2. A process that says nothing is the host. */
export const HOST_CONTEXT: ContextId = 2;

/** The first context id a virtual machine may have, 16; those below are reserved. */
export const FIRST_VM_CONTEXT: ContextId = 16;

/** The resource id that stands for a context itself, 0: `{ context, resource: 0 }`. */
export const CONTEXT_RESOURCE = 0;

/** The first resource id that is handed out, 1024; those below are reserved. */
export const FIRST_DYNAMIC_RESOURCE = 1024;

/** The id that names nothing (`VMCI_INVALID_ID`), 0xFFFFFFFF. */
export const INVALID_ID = 0xFFFFFFFF;

/**
 * The name of a resource (`VMCIHandle`): the context that owns it and its number there, both unsigned 32-bit. As one
 * 64-bit number the resource is the upper half.
 *
 * @example
 * ```ts
 * import { formatHandle, type Handle } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * const handle: Handle = { context: 2, resource: 1026 };
 * assertEquals(formatHandle(handle), "2:1026");
 * ```
 */
export interface Handle {
  /** The owner's context id. */
  readonly context: ContextId;
  /** The number of the resource in that context. */
  readonly resource: number;
}

/** The handle that names nothing; as the source of a datagram, a sender who wants no answer. */
export const INVALID_HANDLE: Handle = Object.freeze({ context: INVALID_ID, resource: INVALID_ID });

/**
 * Makes a handle from its two halves.
 *
 * @param context The owner's context id, an unsigned 32-bit number.
 * @param resource The resource id, an unsigned 32-bit number.
 * @returns The handle, frozen.
 * @throws {VmciError} INVALID_ARGS when a half is not an unsigned 32-bit number.
 *
 * @example
 * ```ts
 * import { makeHandle } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(makeHandle(16, 1030), { context: 16, resource: 1030 });
 * ```
 */
export function makeHandle(context: ContextId, resource: number): Handle {
  if (!isId(context) || !isId(resource)) {
    throw new VmciError("INVALID_ARGS", {
      operation: "makeHandle",
      reason: `context and resource must be whole numbers from 0 to 4294967295: received ${context} and ${resource}`,
    });
  }
  return Object.freeze({ context, resource });
}

/**
 * The handle that stands for a context itself, as access control and events use it.
 *
 * @param context The context id.
 * @returns `{ context, resource: 0 }`.
 * @throws {VmciError} INVALID_ARGS when the id is not an unsigned 32-bit number.
 *
 * @example
 * ```ts
 * import { contextHandle } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(contextHandle(16), { context: 16, resource: 0 });
 * ```
 */
export function contextHandle(context: ContextId): Handle {
  return makeHandle(context, CONTEXT_RESOURCE);
}

/**
 * Whether two handles name the same thing.
 *
 * @param a One handle.
 * @param b The other.
 * @returns `true` when both halves are equal.
 *
 * @example
 * ```ts
 * import { handlesEqual, makeHandle } from "@vmci/vmci";
 * import { assert } from "@std/assert";
 *
 * assert(handlesEqual(makeHandle(2, 1024), { context: 2, resource: 1024 }));
 * ```
 */
export function handlesEqual(a: Handle, b: Handle): boolean {
  return a.context === b.context && a.resource === b.resource;
}

/**
 * A handle as the 64-bit number that the devices use: `resource << 32 | context`.
 *
 * @param handle The handle.
 * @returns An unsigned 64-bit number.
 *
 * @example
 * ```ts
 * import { handleToU64 } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(handleToU64({ context: 2, resource: 1 }), 0x1_0000_0002n);
 * ```
 */
export function handleToU64(handle: Handle): bigint {
  return BigInt(handle.resource) << 32n | BigInt(handle.context);
}

/**
 * The handle in a 64-bit number: the reverse of {@linkcode handleToU64}.
 *
 * @param value An unsigned 64-bit number.
 * @returns The handle.
 * @throws {VmciError} INVALID_ARGS when the number does not fit into 64 bits.
 *
 * @example
 * ```ts
 * import { handleFromU64 } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(handleFromU64(0x1_0000_0002n), { context: 2, resource: 1 });
 * ```
 */
export function handleFromU64(value: bigint): Handle {
  if (value < 0n || value > 0xFFFF_FFFF_FFFF_FFFFn) {
    throw new VmciError("INVALID_ARGS", {
      operation: "handleFromU64",
      reason: `a handle is an unsigned 64-bit number: received ${value}`,
    });
  }
  return makeHandle(Number(value & 0xFFFF_FFFFn), Number(value >> 32n));
}

/**
 * A handle as people write it, `context:resource` in decimal; the handle that names nothing is `invalid`.
 *
 * @param handle The handle.
 * @returns The text.
 *
 * @example
 * ```ts
 * import { formatHandle, INVALID_HANDLE } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatHandle({ context: 16, resource: 1030 }), "16:1030");
 * assertEquals(formatHandle(INVALID_HANDLE), "invalid");
 * ```
 */
export function formatHandle(handle: Handle): string {
  return isInvalidHandle(handle) ? "invalid" : `${handle.context}:${handle.resource}`;
}

/**
 * Reads a handle from the text that {@linkcode formatHandle} writes.
 *
 * @param text `context:resource` in decimal, or `invalid`.
 * @returns The handle.
 * @throws {VmciError} INVALID_ARGS when the text is not of that form.
 *
 * @example
 * ```ts
 * import { parseHandle } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseHandle("16:1030"), { context: 16, resource: 1030 });
 * ```
 */
export function parseHandle(text: string): Handle {
  if (text === "invalid") return INVALID_HANDLE;
  const match = /^(\d{1,10}):(\d{1,10})$/.exec(text);
  const context = Number(match?.[1] ?? NaN);
  const resource = Number(match?.[2] ?? NaN);
  if (!isId(context) || !isId(resource)) {
    throw new VmciError("INVALID_ARGS", {
      operation: "parseHandle",
      reason: `a handle is written 'context:resource' in decimal: received '${text}'`,
    });
  }
  return makeHandle(context, resource);
}

/**
 * Whether a handle names nothing.
 *
 * @param handle The handle.
 * @returns `true` when it equals {@linkcode INVALID_HANDLE}.
 *
 * @example
 * ```ts
 * import { INVALID_HANDLE, isInvalidHandle } from "@vmci/vmci";
 * import { assert } from "@std/assert";
 *
 * assert(isInvalidHandle(INVALID_HANDLE));
 * ```
 */
export function isInvalidHandle(handle: Handle): boolean {
  return handle.context === INVALID_ID && handle.resource === INVALID_ID;
}

/**
 * Whether a value has the shape of a handle: two unsigned 32-bit numbers.
 *
 * @param value Anything.
 * @returns `true` when it can be used as a handle.
 *
 * @example
 * ```ts
 * import { isHandle } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(isHandle({ context: 2, resource: 1024 }), true);
 * assertEquals(isHandle({ context: 2 }), false);
 * ```
 */
export function isHandle(value: unknown): value is Handle {
  if (typeof value !== "object" || value === null) return false;
  const { context, resource } = value as Partial<Handle>;
  return isId(context) && isId(resource);
}

/** Whether a value is an unsigned 32-bit number. */
export function isId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= INVALID_ID;
}

/**
 * The options of the family: their numbers, forms, and what they mean in which generation.
 *
 * @module
 */

import type { VsockFamily } from "./vsock_family.ts";

/** One option's value: a number (a time is in milliseconds), or a text. */
export type VsockOptionValue = number | string;

/** How a value is laid out. */
export type VsockOptionForm = "u64" | "i32" | "u8" | "timeval" | "text";

/** One option. */
export interface VsockOptionInfo {
  /** Its number; the level is the family's own number. */
  readonly number: number;
  /** How its value is laid out. */
  readonly form: VsockOptionForm;
  /** Whether it can be set. */
  readonly settable: boolean;
  /** In which generations it means this; in all without it. */
  readonly generation?: VsockFamily["generation"];
}

/** The name of an option. */
export type VsockOptionName =
  | "bufferSize"
  | "bufferMinSize"
  | "bufferMaxSize"
  | "peerHostVmId"
  | "serviceLabel"
  | "trusted"
  | "connectTimeout"
  | "nonblockingTransfer"
  | "connectTimeoutNew"
  | "disconnectCause"
  | "peerLimitRate"
  | "peerPrivLimit"
  | "peerBurstLevel";

/**
 * All options. Number 8 has two meanings: in VMware's sockets it says why a stream ended, in Linux's it is a timeout
 * whose seconds have 64 bits on every machine.
 */
export const vsockOptions: Readonly<Record<VsockOptionName, VsockOptionInfo>> = {
  /** Bytes of a stream's buffer, between the least and the most. */
  bufferSize: { number: 0, form: "u64", settable: true },
  /** The least that it may be. */
  bufferMinSize: { number: 1, form: "u64", settable: true },
  /** The most that it may be. */
  bufferMaxSize: { number: 2, form: "u64", settable: true },
  /** The id of the peer's virtual machine on its host; ESX. */
  peerHostVmId: { number: 3, form: "i32", settable: false },
  /** The name of a service; ESX. */
  serviceLabel: { number: 4, form: "text", settable: true, generation: "vmware" },
  /** Whether the peer is trusted: 1 or 0. */
  trusted: { number: 5, form: "i32", settable: false },
  /** How long connecting may take, in milliseconds. */
  connectTimeout: { number: 6, form: "timeval", settable: true },
  /** Whether endpoints of the kernel wait; not for programs. */
  nonblockingTransfer: { number: 7, form: "i32", settable: true },
  /** As `connectTimeout`, by the later number. */
  connectTimeoutNew: { number: 8, form: "timeval", settable: true, generation: "linux" },
  /** Why the stream ended: 0 as usual, 1 since a virtual machine moved. */
  disconnectCause: { number: 8, form: "i32", settable: false, generation: "vmware" },
  /** What a peer may send in a second; ESX. */
  peerLimitRate: { number: 9, form: "i32", settable: true, generation: "vmware" },
  /** What a privileged peer may; ESX. */
  peerPrivLimit: { number: 10, form: "i32", settable: true, generation: "vmware" },
  /** How far a peer may go beyond it for a moment, 1 to 4; ESX. */
  peerBurstLevel: { number: 11, form: "u8", settable: true, generation: "vmware" },
};

/** The bytes of each form; a text has so many at most. */
const sizes: Readonly<Record<VsockOptionForm, number>> = { u64: 8, i32: 4, u8: 1, timeval: 16, text: 256 };

/**
 * How many bytes the value of an option has at most.
 *
 * @param form Its form.
 * @returns Bytes.
 */
export function optionSize(form: VsockOptionForm): number {
  return sizes[form];
}

/**
 * A value as the kernel takes it.
 *
 * @param form The option's form.
 * @param value The value.
 * @returns Its bytes, or `undefined` when it is no value of that form.
 */
export function encodeOption(form: VsockOptionForm, value: VsockOptionValue): Uint8Array<ArrayBuffer> | undefined {
  if (form === "text") {
    const bytes = new TextEncoder().encode(`${value}\0`);
    return typeof value === "string" && bytes.length <= sizes.text && bytes.indexOf(0) === bytes.length - 1
      ? bytes
      : undefined;
  }
  if (typeof value !== "number" || !(value >= 0) || value > Number.MAX_SAFE_INTEGER) return undefined;
  const bytes = new Uint8Array(new ArrayBuffer(sizes[form]));
  const view = new DataView(bytes.buffer);
  if (form === "timeval") {
    const microseconds = Math.round(value * 1000);
    view.setBigInt64(0, BigInt(Math.floor(microseconds / 1e6)), true);
    view.setBigInt64(8, BigInt(microseconds % 1e6), true);
    return bytes;
  }
  if (!Number.isInteger(value)) return undefined;
  if (form === "u64") view.setBigUint64(0, BigInt(value), true);
  else if (form === "u8" && value < 2 ** 8) view.setUint8(0, value);
  else if (form === "i32" && value < 2 ** 31) view.setInt32(0, value, true);
  else return undefined;
  return bytes;
}

/**
 * A value as the kernel gave it.
 *
 * @param form The option's form.
 * @param bytes Its bytes.
 * @returns The value, or `undefined` when there are too few bytes.
 */
export function decodeOption(form: VsockOptionForm, bytes: Uint8Array<ArrayBuffer>): VsockOptionValue | undefined {
  if (form === "text") {
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  }
  if (bytes.length < sizes[form]) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (form === "u64") return Number(view.getBigUint64(0, true));
  if (form === "i32") return view.getInt32(0, true);
  if (form === "u8") return view.getUint8(0);
  return Number(view.getBigInt64(0, true)) * 1000 + Number(view.getBigInt64(8, true)) / 1000;
}

/**
 * The packets by which VMCI Sockets make streams: datagrams between the resources 1 of a context and of the host.
 *
 * @module
 */

import type { Handle } from "../handle.ts";

/** The resource that control packets come from and go to. */
export const CONTROL_RESOURCE = 1;

/** What a packet says. */
export const ControlType = {
  /** Wants a stream; the older form of it. */
  REQUEST: 1,
  /** Answers how large the queues are; the older form of it. */
  NEGOTIATE: 2,
  /** Names the queue pair. */
  OFFER: 3,
  /** Is attached to the queue pair. */
  ATTACH: 4,
  /** Wrote into the empty queue. */
  WROTE: 5,
  /** Read out of the full queue. */
  READ: 6,
  /** There is no such stream. */
  RESET: 7,
  /** Will send, or receive, no more. */
  SHUTDOWN: 8,
  /** Wants a stream, and says which protocols it knows. */
  REQUEST2: 11,
  /** Answers how large the queues are, and which protocol it is. */
  NEGOTIATE2: 12,
} as const;

/** What a SHUTDOWN says; bits. */
export const Shutdown = { RECEIVE: 1, SEND: 2, BOTH: 3 } as const;

/** The protocol in which each side tells what it wrote and read. */
export const PROTOCOL_NOTIFY = 1;

/** A packet. What its last field means depends on the type: a size, a mode or a handle. */
export interface ControlPacket {
  /** A number of {@linkcode ControlType}. */
  readonly type: number;
  /** The protocols, in a request or a negotiation. */
  readonly protocol: number;
  /** The sender's port. */
  readonly source: number;
  /** The receiver's port. */
  readonly destination: number;
  /** The last field as a number. */
  readonly value: bigint;
}

const VERSION = 1;

/** `u8 version, u8 type, u16 protocol, u32 source, u32 destination, u32 padding, union of 16 bytes` */
const SIZE = 32;
const Offset = { version: 0, type: 1, protocol: 2, source: 4, destination: 8, value: 16 } as const;

/** A packet in bytes, as the payload of a datagram. */
export function encodeControl(packet: ControlPacket): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(SIZE));
  view.setUint8(Offset.version, VERSION);
  view.setUint8(Offset.type, packet.type);
  view.setUint16(Offset.protocol, packet.protocol, true);
  view.setUint32(Offset.source, packet.source, true);
  view.setUint32(Offset.destination, packet.destination, true);
  view.setBigUint64(Offset.value, packet.value, true);
  return new Uint8Array(view.buffer);
}

/** The packet in a payload, or `undefined` when it is none of this version. */
export function decodeControl(payload: Uint8Array<ArrayBuffer>): ControlPacket | undefined {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (payload.length < SIZE || view.getUint8(Offset.version) !== VERSION) return undefined;
  return {
    type: view.getUint8(Offset.type),
    protocol: view.getUint16(Offset.protocol, true),
    source: view.getUint32(Offset.source, true),
    destination: view.getUint32(Offset.destination, true),
    value: view.getBigUint64(Offset.value, true),
  };
}

/** A handle as a packet's last field. */
export function handleValue({ context, resource }: Handle): bigint {
  return BigInt(resource) << 32n | BigInt(context);
}

/** The handle in a packet's last field. */
export function valueHandle(value: bigint): Handle {
  return { context: Number(value & 0xFFFF_FFFFn), resource: Number(value >> 32n) };
}

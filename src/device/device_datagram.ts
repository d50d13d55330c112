/**
 * Datagrams and events as a driver delivers them.
 *
 * @module
 */

import { type ContextRemovedEvent, EventCode, type PeerEvent } from "../event.ts";
import { CONTEXT_RESOURCE, type Handle, HYPERVISOR_CONTEXT } from "../handle.ts";
import { DATAGRAM_HEADER_SIZE } from "../limits.ts";

/** One datagram of a device. */
export interface DeviceDatagram {
  /** Where it was sent: the own context and any resource, for a driver does not look at that number. */
  readonly destination: Handle;
  /** Where it came from. The context is the sender's, for the driver checks it; the resource is what the sender says. */
  readonly source: Handle;
  /** What was sent: 0 to 69,608 bytes. */
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** An event that this library has no words for. */
export interface OtherEvent {
  /** What happened. */
  readonly type: "other";
  /** The event's number. */
  readonly event: number;
  /** What came with it. */
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** What a driver tells a context: a watched context is gone, or a peer attached to or detached from a queue pair. */
export type DeviceEvent = ContextRemovedEvent | PeerEvent | OtherEvent;

/** Offsets into an event's payload. */
const Event = { SIZE: 8, code: 0, context: 8, handle: 8, peer: 16, CONTEXT_REMOVED: 16, QUEUE_PAIR: 24 } as const;

/**
 * Writes a datagram as a driver takes it.
 *
 * @param into Where to; it is large enough.
 * @param destination Where it goes.
 * @param source Where it comes from.
 * @param payload What it carries.
 * @returns How many bytes it has.
 */
export function encodeDatagram(
  into: Uint8Array<ArrayBuffer>,
  destination: Handle,
  source: Handle,
  payload: Uint8Array,
): number {
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  view.setUint32(0, destination.context, true);
  view.setUint32(4, destination.resource, true);
  view.setUint32(8, source.context, true);
  view.setUint32(12, source.resource, true);
  view.setBigUint64(16, BigInt(payload.length), true);
  into.set(payload, DATAGRAM_HEADER_SIZE);
  return DATAGRAM_HEADER_SIZE + payload.length;
}

/**
 * Reads a datagram that a driver wrote.
 *
 * @param bytes The datagram, and perhaps more behind it.
 * @returns The datagram with a payload of its own, or `undefined` when it claims to be larger than what is there.
 */
export function decodeDatagram(bytes: Uint8Array<ArrayBuffer>): DeviceDatagram | undefined {
  if (bytes.length < DATAGRAM_HEADER_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = view.getBigUint64(16, true);
  if (size > BigInt(bytes.length - DATAGRAM_HEADER_SIZE)) return undefined;
  return {
    destination: handleAt(view, 0),
    source: handleAt(view, 8),
    payload: bytes.slice(DATAGRAM_HEADER_SIZE, DATAGRAM_HEADER_SIZE + Number(size)),
  };
}

/**
 * The event in a datagram.
 *
 * @param datagram Any datagram.
 * @returns The event, or `undefined` when the datagram is not from the hypervisor to the context itself.
 */
export function eventOf({ destination, source, payload }: DeviceDatagram): DeviceEvent | undefined {
  if (source.context !== HYPERVISOR_CONTEXT || source.resource !== CONTEXT_RESOURCE) return undefined;
  if (destination.resource !== CONTEXT_RESOURCE || payload.length < Event.SIZE) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const event = view.getUint32(Event.code, true);
  if (event === EventCode.CTX_REMOVED && payload.length >= Event.CONTEXT_REMOVED) {
    return { type: "context-removed", context: view.getUint32(Event.context, true) };
  }
  const type = peerEvents.get(event);
  if (type !== undefined && payload.length >= Event.QUEUE_PAIR) {
    return { type, handle: handleAt(view, Event.handle), context: view.getUint32(Event.peer, true) };
  }
  return { type: "other", event, payload: payload.slice(Event.SIZE) };
}

const peerEvents = new Map<number, PeerEvent["type"]>([
  [EventCode.QP_PEER_ATTACH, "peer-attached"],
  [EventCode.QP_PEER_DETACH, "peer-detached"],
]);

function handleAt(view: DataView, offset: number): Handle {
  return { context: view.getUint32(offset, true), resource: view.getUint32(offset + 4, true) };
}

/**
 * What a program is told without having asked.
 *
 * @module
 */

import type { ContextId, Handle } from "./handle.ts";
import type { ResourceTypeName } from "./privilege.ts";

/** The SDK's event numbers, as the devices deliver them. */
export const EventCode = {
  /** The own context id changed. */
  CTX_ID_UPDATE: 0,
  /** A context is gone. */
  CTX_REMOVED: 1,
  /** A queue pair goes on. */
  QP_RESUMED: 2,
  /** A peer attached. */
  QP_PEER_ATTACH: 3,
  /** A peer detached. */
  QP_PEER_DETACH: 4,
} as const;

/** A context is gone: its last process closed or died. */
export interface ContextRemovedEvent {
  /** What happened. */
  readonly type: "context-removed";
  /** The context. */
  readonly context: ContextId;
}

/** A resource this program used - sent to, attached to, or has in its own region of interest - is gone. */
export interface ResourceGoneEvent {
  /** What happened. */
  readonly type: "resource-gone";
  /** What kind of resource it was. */
  readonly resource: ResourceTypeName;
  /** Its handle; it is never given again. */
  readonly handle: Handle;
}

/** Somebody attached to, or detached from, a region this program is attached to. */
export interface PeerEvent {
  /** What happened. */
  readonly type: "peer-attached" | "peer-detached";
  /** The region. */
  readonly handle: Handle;
  /** The context of the one who did. */
  readonly context: ContextId;
}

/** A receiver died or closed before it had read everything this program sent to it. */
export interface DatagramsLostEvent {
  /** What happened. */
  readonly type: "datagrams-lost";
  /** Where they were sent. */
  readonly destination: Handle;
  /** How many bytes of the budget were not consumed, headers of 24 bytes included. */
  readonly bytes: number;
}

/**
 * The kernel dropped datagrams to an endpoint of this program, since they came faster than they were read. Only devices
 * do that (`vsock:`, unless it is `reliable`).
 */
export interface DatagramsDroppedEvent {
  /** What happened. */
  readonly type: "datagrams-dropped";
  /** Where they were sent. */
  readonly handle: Handle;
  /** How many, since the last such event. */
  readonly count: number;
}

/**
 * A datagram came from a context that may not send there, and was dropped. On devices it is the receiver who finds out;
 * it is told once for each source, until that may send.
 */
export interface DatagramRefusedEvent {
  /** What happened. */
  readonly type: "datagram-refused";
  /** Where it was sent. */
  readonly handle: Handle;
  /** Who sent it. */
  readonly source: Handle;
}

/** The right to send to a destination was withdrawn, and the lane to it closed. */
export interface LaneRevokedEvent {
  /** What happened. */
  readonly type: "lane-revoked";
  /** Where this program was sending. */
  readonly destination: Handle;
}

/** Another process now decides for the fabric; nothing of this program was lost by it unless `lost` says so. */
export interface BrokerChangedEvent {
  /** What happened. */
  readonly type: "broker-changed";
  /** The process that decides now. */
  readonly pid: number;
  /** What the new broker would not take back from this program, by handle; empty as a rule. */
  readonly lost: readonly Handle[];
}

/**
 * A region's buffer had been transferred away (`postMessage`) when the region was closed. Its pages were replaced by
 * private zeroes; the address range stays in use until the process ends.
 */
export interface BufferTransferredEvent {
  /** What happened. */
  readonly type: "buffer-transferred";
  /** The region. */
  readonly handle: Handle;
}

/**
 * The program forgot a resource of its own without closing it, and the garbage collector found it: it was closed for it.
 * A resource that has a name is never forgotten: others can find it.
 */
export interface ForgottenEvent {
  /** What happened. */
  readonly type: "forgotten";
  /** What kind of resource it was. */
  readonly resource: ResourceTypeName;
  /** Its handle. */
  readonly handle: Handle;
}

/** Any event. */
export type VmciEvent =
  | ContextRemovedEvent
  | ResourceGoneEvent
  | PeerEvent
  | DatagramsLostEvent
  | DatagramsDroppedEvent
  | DatagramRefusedEvent
  | LaneRevokedEvent
  | BrokerChangedEvent
  | BufferTransferredEvent
  | ForgottenEvent;

/**
 * What carries datagrams between contexts: the host's sockets, or a driver's context. Both are seen as ports of one own
 * context, each with its own datagrams.
 *
 * @module
 */

import type { ContextId, Handle } from "../handle.ts";

/** A datagram that came. */
export interface Arrival {
  /** Where from. The context is the sender's: the hypervisor sees to that. */
  readonly source: Handle;
  /** What it carries. */
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** A port of the own context. */
export interface CarrierPort {
  /** Its number. */
  readonly number: number;
  /** What is readable when something came for it; others may share it. */
  readonly descriptor: number;
  /**
   * Sends one datagram, or refuses it at once.
   *
   * @param destination Where to.
   * @param payload What, at most 69,608 bytes.
   * @returns `false` when the receiver or the kernel has no room now.
   * @throws {VmciError} INVALID_ARGS when there is no such destination; DST_UNREACHABLE, NO_ACCESS and the like.
   */
  send(destination: Handle, payload: Uint8Array): boolean;
  /** The next datagram, if there is one. */
  receive(): Arrival | undefined;
  /** How many datagrams to it the kernel dropped since it was opened, modulo 2^32. */
  readonly dropped: number;
  /** Gives the port back; what came for it is dropped. */
  close(): void;
}

/** See the module's comment. */
export interface Carrier {
  /** The own context. */
  readonly context: ContextId;
  /**
   * Opens a port.
   *
   * @param number Which one; one that is free without it.
   * @throws {VmciError} DUPLICATE_ENTRY when it is taken; NO_ACCESS when it is reserved.
   */
  open(number: number | undefined): CarrierPort;
  /** Gives everything back. */
  close(): void;
}

/** How a carrier is made: opened first, and then given a context. */
export interface CarrierSource {
  /**
   * Becomes a context.
   *
   * @param context The one that is wanted, if any.
   * @param flags The coarse flags that are wanted.
   * @throws {VmciError} INVALID_ARGS for a context that cannot be had.
   */
  enter(context: ContextId | undefined, flags: number): Carrier;
  /** Gives back what was opened, if it was not entered. */
  close(): void;
}

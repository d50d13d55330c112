/**
 * The lanes out of one source: opened at the first datagram to a destination, closed by revocation or death.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import type { Handle } from "./handle.ts";
import { isHandle } from "./handle.ts";
import { MAX_PAYLOAD_SIZE } from "./limits.ts";
import type { WaitOptions } from "./lane/waiters.ts";
import type { Idle, IdleLanes } from "./idle_lanes.ts";
import { LaneProducer, RING_START } from "./lane/ring.ts";
import type { ErrorCodeName } from "./result_code.ts";
import type { SharedPages } from "./fabric/medium.ts";
import type { Nudgeable } from "./fabric/peer.ts";
import type { Session } from "./fabric/session.ts";
import { failureOf } from "./subject.ts";

/** Why a lane can carry no more. */
export type LaneEnd = "revoked" | "gone" | "closed";

/** What who waits for room in such a lane is told. */
const LANE_ENDS: Readonly<Record<LaneEnd, readonly [ErrorCodeName, reason: string]>> = {
  revoked: ["NO_ACCESS", "the right to send there was withdrawn"],
  gone: ["DST_UNREACHABLE", "the receiver is gone"],
  closed: ["INVALID_RESOURCE", "this endpoint was closed meanwhile"],
};

/** One lane, seen from its sender. */
export class OutgoingLane implements Idle {
  readonly number: number;
  readonly destination: Handle;
  readonly producer: LaneProducer;
  /** Who receives, if it can be rung. */
  readonly peer: Nudgeable | undefined;
  /** What proves to the next broker that this client sends here. */
  readonly ticket: string;
  /** Why it is closed, once it is. */
  end: LaneEnd | undefined;
  /** Whether its memory was given back. */
  resting = true;
  readonly #pages: SharedPages;
  #roomWaiters = 0;
  #sentBefore = 0;

  constructor(number: number, destination: Handle, pages: SharedPages, peer: Nudgeable | undefined, ticket: string) {
    this.number = number;
    this.destination = destination;
    this.producer = new LaneProducer(pages.buffer);
    this.peer = peer;
    this.ticket = ticket;
    this.#pages = pages;
  }

  get over(): boolean {
    return this.end !== undefined;
  }

  rest(): boolean {
    const { sent, queued } = this.producer;
    const idle = sent === this.#sentBefore && queued === 0;
    this.#sentBefore = sent;
    if (idle) this.#pages.discard(RING_START);
    return this.resting = idle;
  }

  /** Asks to be rung when there is room; each call wants its {@linkcode OutgoingLane.unwantRoom}. */
  wantRoom(): void {
    if (this.#roomWaiters++ === 0) this.producer.wantRoom(true);
  }

  /** Takes one call of {@linkcode OutgoingLane.wantRoom} back. */
  unwantRoom(): void {
    if (--this.#roomWaiters === 0 && this.end === undefined) this.producer.wantRoom(false);
  }

  /** Closes it and gives its pages back. */
  close(end: LaneEnd): void {
    this.end = end;
    this.#pages.close();
  }
}

/** See the module's comment. */
export class Outbox {
  /** The source that goes with every datagram. */
  readonly source: Handle;
  readonly #session: Session;
  readonly #idle: IdleLanes;
  readonly #lanes = new Map<number, Map<number, OutgoingLane>>();
  /** The lane used last: as a rule the next one too. */
  #last: OutgoingLane | undefined;

  constructor(session: Session, source: Handle, idle: IdleLanes) {
    this.#session = session;
    this.#idle = idle;
    this.source = source;
  }

  /**
   * Queues one datagram; never waits.
   *
   * @returns The size of the payload in bytes.
   */
  send(operation: string, destination: Handle, payload: Uint8Array): number {
    if (!(payload instanceof Uint8Array)) {
      throw new VmciError("INVALID_ARGS", { operation, reason: "a payload is a Uint8Array" });
    }
    const length = payload.length;
    if (length > MAX_PAYLOAD_SIZE) throw this.#tooLarge(operation, destination, length);
    const lane = this.#lane(operation, destination);
    if (!lane.producer.offer(payload)) {
      throw new VmciError("NO_RESOURCES", {
        operation,
        handle: destination,
        reason:
          `the receiver has not read ${lane.producer.queued} bytes yet, and ${length + 24} more would reach the ` +
          `budget of 139264; wait for room()`,
      });
    }
    if (lane.resting) this.#stir(lane);
    lane.peer?.nudge();
    return length;
  }

  /** Whether a payload of that size could be sent now. */
  hasRoom(operation: string, destination: Handle, size: number): boolean {
    return this.#roomy(operation, destination, size).producer.hasRoom(size);
  }

  /** Waits until a payload of that size can be sent. */
  async room(operation: string, destination: Handle, size: number, options: WaitOptions | undefined): Promise<void> {
    const lane = this.#roomy(operation, destination, size);
    lane.wantRoom();
    try {
      await this.#session.wait(
        { operation, handle: destination },
        () => this.#lookForRoom(operation, lane, size),
        options,
      );
    } finally {
      lane.unwantRoom();
    }
  }

  /** Waits for room without turning the event loop. */
  roomSync(operation: string, destination: Handle, size: number, timeout: number): void {
    const lane = this.#roomy(operation, destination, size);
    lane.wantRoom();
    try {
      this.#session.waitSync(
        { operation, handle: destination },
        () => this.#lookForRoom(operation, lane, size),
        timeout,
      );
    } finally {
      lane.unwantRoom();
    }
  }

  #stir(lane: OutgoingLane): void {
    lane.resting = false;
    this.#idle.stir(lane);
  }

  /** All lanes. */
  *lanes(): Iterable<OutgoingLane> {
    for (const byResource of this.#lanes.values()) yield* byResource.values();
  }

  /** Takes a lane out, closing it. */
  remove(lane: OutgoingLane, end: LaneEnd): void {
    const byResource = this.#lanes.get(lane.destination.context);
    byResource?.delete(lane.destination.resource);
    if (byResource?.size === 0) this.#lanes.delete(lane.destination.context);
    if (this.#last === lane) this.#last = undefined;
    lane.close(end);
  }

  /** Closes every lane. */
  close(): void {
    for (const lane of [...this.lanes()]) this.remove(lane, "closed");
  }

  #lookForRoom(operation: string, lane: OutgoingLane, size: number): true | undefined {
    if (lane.end !== undefined) {
      const [code, reason] = LANE_ENDS[lane.end];
      throw new VmciError(code, { operation, handle: lane.destination, reason });
    }
    return lane.producer.hasRoom(size) ? true : undefined;
  }

  #roomy(operation: string, destination: Handle, size: number): OutgoingLane {
    if (!Number.isInteger(size) || size < 0 || size > MAX_PAYLOAD_SIZE) {
      throw this.#tooLarge(operation, destination, size);
    }
    return this.#lane(operation, destination);
  }

  #lane(operation: string, destination: Handle): OutgoingLane {
    this.#session.refresh();
    const context = destination?.context;
    const resource = destination?.resource;
    const last = this.#last;
    if (last !== undefined && last.destination.resource === resource && last.destination.context === context) {
      return last;
    }
    const lane = this.#lanes.get(context)?.get(resource) ?? this.#open(operation, destination);
    return this.#last = lane;
  }

  #open(operation: string, destination: Handle): OutgoingLane {
    if (!isHandle(destination)) {
      throw new VmciError("INVALID_ARGS", {
        operation,
        reason: "the destination must be a handle: { context, resource }, both unsigned 32-bit numbers",
      });
    }
    const session = this.#session;
    const handle = { context: destination.context, resource: destination.resource };
    const { result, shares } = session.request({ operation, handle }, "open_lane", {
      source: this.source,
      destination: handle,
    });
    const [memory, ...bell] = shares;
    if (result.fresh) session.peers.adopt(result.peer, bell);
    let pages: SharedPages;
    try {
      pages = session.medium.openLane(memory!);
    } catch (error) {
      session.tell("close_lane", { lane: result.lane });
      throw failureOf({ operation, handle }, error);
    }
    const lane = new OutgoingLane(result.lane, handle, pages, session.peer(result.peer), result.ticket);
    let byResource = this.#lanes.get(handle.context);
    if (byResource === undefined) this.#lanes.set(handle.context, byResource = new Map());
    byResource.set(handle.resource, lane);
    return lane;
  }

  #tooLarge(operation: string, destination: Handle, size: number): VmciError {
    return new VmciError("INVALID_ARGS", {
      operation,
      handle: destination,
      reason: `a payload has at most ${MAX_PAYLOAD_SIZE} bytes: received ${size}`,
    });
  }
}

/**
 * The datagram API: whole messages between handles.
 *
 * @module
 */

import { DatagramEndpoint } from "./datagram_endpoint.ts";
import { VmciError } from "./error.ts";
import type { VmciEvent } from "./event.ts";
import { formatHandle, type Handle, handlesEqual, INVALID_HANDLE, isHandle } from "./handle.ts";
import type { SharedPages } from "./fabric/medium.ts";
import type { Peer } from "./fabric/peer.ts";
import type { Session } from "./fabric/session.ts";
import { IdleLanes } from "./idle_lanes.ts";
import { type Inbox, IncomingLane } from "./inbox.ts";
import type { Requests } from "./fabric/protocol.ts";
import { Mailbox } from "./mailbox.ts";
import { type LaneEnd, Outbox, type OutgoingLane } from "./outbox.ts";

/** How a datagram handle is made. */
export interface CreateDatagramOptions {
  /**
   * The flag WELLKNOWN (1): the handle is `{ context: 1, resource: wellKnown }`, and belongs to whoever asked first.
   * Ids below 1024 are reserved for TRUSTED contexts.
   */
  readonly wellKnown?: number | undefined;
}

/** The flags of the SDK's `VMCIDatagram_CreateHnd`. */
export const DatagramFlag = {
  /** A handle that the fabric picks. */
  NONE: 0,
  /** A handle of one's own choice in context 1. */
  WELLKNOWN: 1,
} as const;

/**
 * The datagram API of one {@linkcode Vmci}.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * using server = vmci.datagrams.create();
 * vmci.datagrams.sendTo(server.handle, new Uint8Array([1, 2, 3]));
 * assertEquals((await server.receive()).payload, new Uint8Array([1, 2, 3]));
 * ```
 */
export class Datagrams {
  readonly #session: Session;
  readonly #emit: (event: VmciEvent) => void;
  readonly #mailboxes = new Map<string, Mailbox>();
  readonly #idle = new IdleLanes();
  readonly #incoming = new Map<number, { readonly lane: IncomingLane; readonly inbox: Inbox }>();
  /**
   * The last lane to each destination that has none any more: until this broker or the next says that it is gone, each
   * next one must hear who wants to be told. It said that the lane is over just before, and may have died between.
   */
  readonly #lost = new Map<string, Requests["announce_lane"]>();
  /** What is sent without a source. */
  readonly #anonymous: Outbox;
  /** Mailboxes whose endpoints the program has forgotten without closing them. */
  readonly #forgotten = new FinalizationRegistry<Mailbox>((mailbox) => {
    if (mailbox.closed || this.#session.holdings.isNamed("DATAGRAM", mailbox.handle)) return;
    mailbox.destroy();
    this.#emit({ type: "forgotten", resource: "DATAGRAM", handle: mailbox.handle });
  });

  /** @ignore Use {@linkcode openVmci}. */
  constructor(session: Session, emit: (event: VmciEvent) => void) {
    this.#session = session;
    this.#emit = emit;
    this.#anonymous = new Outbox(session, INVALID_HANDLE, this.#idle);
    session.on("lane", ({ lane, source, destination, peer, fresh, ticket }, [memory, ...bell]) => {
      if (fresh) session.peers.adopt(peer, bell);
      const mailbox = this.#mailboxes.get(formatHandle(destination));
      if (mailbox === undefined) return session.medium.release(memory!);
      let pages: SharedPages;
      try {
        pages = session.medium.openLane(memory!);
      } catch {
        // It cannot be mapped: its sender is told, and gets an error instead of a lane that nobody reads.
        return session.tell("close_lane", { lane });
      }
      const incoming = new IncomingLane(lane, source, peer, pages, session.peer(peer), ticket);
      this.#incoming.set(lane, { lane: incoming, inbox: mailbox.inbox });
      mailbox.inbox.add(incoming);
    });
    session.on("resource_gone", ({ type, handle }) => {
      if (type !== "DATAGRAM") return;
      // It may be told by two halves of lanes there: each is over, and once is enough.
      this.#closeOutgoing(({ destination }) => handlesEqual(destination, handle), "gone");
      if (this.#lost.delete(formatHandle(handle))) emit({ type: "resource-gone", resource: type, handle });
    });
    session.on("lane_closed", ({ lane, cause }) => {
      const incoming = this.#incoming.get(lane);
      if (cause !== "gone") incoming?.inbox.end(incoming.lane);
      // The broker counts it as long as something may be left in it.
      if (cause === "ended" && incoming === undefined) session.tell("close_lane", { lane });
      if (cause !== "ended") this.#closeOutgoing((outgoing) => outgoing.number === lane, cause);
      // Who may not send there any more is not told when that goes.
      for (const [key, lost] of cause === "revoked" ? this.#lost : []) {
        if (lost.lane === lane) this.#lost.delete(key);
      }
    });
    session.onAnnounce(() => this.#announce());
    session.peers.onGone((peer) => this.#peerGone(peer));
    session.onClose(() => this.#close());
  }

  /**
   * Makes a datagram handle (`VMCIDatagram_CreateHnd`).
   *
   * @param options Which one; without it, one that the fabric picks.
   * @returns The endpoint.
   * @throws {VmciError} DUPLICATE_ENTRY when that well-known id is taken; NO_ACCESS when it is reserved, or this context
   * is RESTRICTED; INVALID_ARGS when it is not an id; NO_RESOURCES when the context has its quota; UNAVAILABLE when the
   * broker does not answer.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create({ wellKnown: 5000 });
   * assertEquals(endpoint.handle, { context: 1, resource: 5000 });
   * ```
   */
  create(options?: CreateDatagramOptions): DatagramEndpoint {
    const wellKnown = options?.wellKnown;
    const operation = "datagrams.create";
    const { result } = this.#session.request({ operation }, "create_endpoint", {
      resource: wellKnown ?? null,
      wellKnown: wellKnown !== undefined,
    });
    const handle = Object.freeze(result.handle);
    const destroyed = (mailbox: Mailbox) => this.#destroyed(mailbox);
    const mailbox = new Mailbox(
      this.#session,
      handle,
      destroyed,
      (lane, shut) => this.#laneDone(lane, shut),
      this.#idle,
    );
    this.#mailboxes.set(formatHandle(handle), mailbox);
    this.#session.holdings.keep({
      type: "DATAGRAM",
      handle,
      size: 0,
      creatorOnly: false,
      ticket: result.ticket,
      share: undefined,
      gone: () => this.#forget(mailbox),
    });
    const endpoint = new DatagramEndpoint(mailbox);
    this.#forgotten.register(endpoint, mailbox, mailbox);
    return endpoint;
  }

  /**
   * Sends one datagram without a source: the receiver sees {@linkcode INVALID_HANDLE} and cannot answer.
   *
   * @param destination Where to.
   * @param payload 0 to 69,608 bytes; they are copied.
   * @returns The number of bytes of the payload.
   * @throws {VmciError} As {@linkcode DatagramEndpoint.sendTo}.
   *
   * @example
   * ```ts
   * import { INVALID_HANDLE, openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * vmci.datagrams.sendTo(endpoint.handle, new Uint8Array(0));
   * assertEquals((await endpoint.receive()).source, INVALID_HANDLE);
   * ```
   */
  sendTo(destination: Handle, payload: Uint8Array): number {
    this.#session.assertOpen("datagrams.sendTo", destination);
    return this.#anonymous.send("datagrams.sendTo", destination, payload);
  }

  /**
   * Destroys a datagram handle that may be somebody else's (`VMCIDatagram_DestroyHnd`). For one's own,
   * {@linkcode DatagramEndpoint.close} does the same.
   *
   * @param handle The handle.
   * @throws {VmciError} NO_ACCESS without DESTROY_RESOURCE on it; NOT_FOUND when there is none.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assert } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * const endpoint = vmci.datagrams.create();
   * vmci.datagrams.destroy(endpoint.handle);
   * assert(endpoint.closed);
   * ```
   */
  destroy(handle: Handle): void {
    const operation = "datagrams.destroy";
    if (!isHandle(handle)) throw new VmciError("INVALID_ARGS", { operation, reason: "that is not a handle" });
    this.#session.request({ operation, handle }, "destroy", { type: "DATAGRAM", handle });
    const mailbox = this.#mailboxes.get(formatHandle(handle));
    if (mailbox !== undefined) this.#forget(mailbox);
  }

  #close(): void {
    this.#idle.close();
    this.#anonymous.close();
    for (const mailbox of this.#mailboxes.values()) mailbox.shut();
    this.#mailboxes.clear();
  }

  /** What a peer that is gone has sent is still delivered; what it had not read is lost. */
  #peerGone(peer: Peer): void {
    for (const { lane } of this.#incoming.values()) {
      // It goes when the broker says so too, who may only hear after this that the bell is gone.
      if (lane.peer === peer) lane.end();
    }
    this.#closeOutgoing((lane) => lane.peer === peer, "gone");
  }

  *#outboxes(): Iterable<Outbox> {
    yield this.#anonymous;
    for (const { outbox } of this.#mailboxes.values()) yield outbox;
  }

  #hasLaneTo(destination: Handle): boolean {
    for (const outbox of this.#outboxes()) {
      for (const lane of outbox.lanes()) {
        if (handlesEqual(lane.destination, destination)) return true;
      }
    }
    return false;
  }

  #closeOutgoing(which: (lane: OutgoingLane) => boolean, end: LaneEnd): void {
    for (const outbox of this.#outboxes()) {
      for (const lane of [...outbox.lanes()]) {
        if (!which(lane)) continue;
        const { destination } = lane;
        const bytes = lane.producer.queued;
        // What is this program's own it has closed itself.
        if (end === "gone" && lane.peer !== this.#session.self) {
          this.#lost.set(formatHandle(destination), announcement(outbox, lane));
        }
        outbox.remove(lane, end);
        if (end === "revoked") this.#emit({ type: "lane-revoked", destination });
        else if (bytes > 0) this.#emit({ type: "datagrams-lost", destination, bytes });
      }
    }
  }

  #laneDone(lane: IncomingLane, shut: boolean): void {
    this.#incoming.delete(lane.number);
    // What it was, ended and read or full of nonsense, the broker knows: in the latter case its sender is told.
    if (!shut) this.#session.tell("close_lane", { lane: lane.number });
  }

  #destroyed(mailbox: Mailbox): void {
    this.#forget(mailbox);
    if (this.#session.closed) return;
    this.#session.destroy("close", "DATAGRAM", mailbox.handle);
  }

  #forget(mailbox: Mailbox): void {
    this.#mailboxes.delete(formatHandle(mailbox.handle));
    this.#session.forget("DATAGRAM", mailbox.handle);
    this.#forgotten.unregister(mailbox);
    mailbox.shut();
  }

  #announce(): void {
    const say = (lane: Requests["announce_lane"]) =>
      this.#session.request({ operation: "announce" }, "announce_lane", lane).result.accepted;
    for (const [destination, lost] of [...this.#lost]) {
      const isBack = this.#hasLaneTo(lost.destination);
      if (isBack || !say(lost)) this.#lost.delete(destination);
    }
    for (const outbox of [...this.#outboxes()]) {
      for (const lane of [...outbox.lanes()]) say(announcement(outbox, lane));
    }
    for (const { handle, inbox } of [...this.#mailboxes.values()]) {
      for (const { number, source, ticket } of inbox.carrying()) {
        say({ lane: number, source, destination: handle, sender: false, ticket });
      }
    }
  }
}

function announcement(outbox: Outbox, { number, destination, ticket }: OutgoingLane): Requests["announce_lane"] {
  return { lane: number, source: outbox.source, destination, sender: true, ticket };
}

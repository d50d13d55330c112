/**
 * The fabric's broker within one process, for a device: it keeps this program's own endpoints, grants and groups, and
 * decides who may send to them. Other contexts are clients of it as soon as something comes from them; what they have,
 * they have because the hypervisor says that it came from there.
 *
 * @module
 */

import { Broker, type Outcome } from "../fabric/broker.ts";
import type { Client } from "../fabric/broker/entities.ts";
import type { Bell, BrokerMedium, Packet, Share } from "../fabric/medium.ts";
import { type Operation, PROTOCOL_VERSION, replyError, type Requests, type Results } from "../fabric/protocol.ts";
import { VmciError } from "../error.ts";
import { type ContextId, formatHandle, type Handle } from "../handle.ts";
import { LANE_SIZE } from "../lane/ring.ts";
import { VERSION } from "../version.ts";

/** Numbers of the broker's own are above all ports that are given without being asked for. */
const FIRST_NUMBER = 2 ** 31;

/** One end of a bell; ringing calls the other end at once. */
export class DirectBell implements Bell {
  /** What ringing at the other end does. */
  onRung: (() => void) | undefined;
  #other: DirectBell | undefined;

  /** Two ends. */
  static pair(): readonly [DirectBell, DirectBell] {
    const a = new DirectBell();
    const b = new DirectBell();
    a.#other = b;
    b.#other = a;
    return [a, b];
  }

  ring(): boolean {
    this.#other?.onRung?.();
    return true;
  }

  drain(): boolean {
    return true;
  }

  listen(rung: () => void): void {
    this.onRung = rung;
  }

  close(): void {
    this.onRung = undefined;
  }
}

/** Another context, as the broker knows it. */
interface Remote {
  readonly client: Client;
  /** The handles that something came from. */
  readonly endpoints: Set<string>;
}

/** A lane for what comes from elsewhere. */
export interface IncomingLane {
  /** Its number. */
  readonly number: number;
  /** Its memory. */
  readonly buffer: ArrayBuffer;
}

/** What the broker tells the program, and what it says of lanes from elsewhere. */
export interface LocalBrokerHooks {
  /** A packet for the program. */
  readonly packet: (packet: Packet, kind: "reply" | "notice" | "welcome") => void;
  /** A lane from elsewhere is closed. */
  readonly laneClosed: (lane: number) => void;
  /** The program has read something that somebody waits for. */
  readonly room: () => void;
}

/** See the module's comment. */
export class LocalBroker {
  readonly #broker: Broker;
  readonly #hooks: LocalBrokerHooks;
  readonly #program: Client;
  readonly #remotes = new Map<ContextId, Remote>();
  /** The reply to another context's request under way. */
  #reply: Packet | undefined;

  constructor(kind: string, hooks: LocalBrokerHooks) {
    this.#hooks = hooks;
    this.#broker = new Broker(brokerMedium, { pid: Deno.pid, kind, version: VERSION, firstNumber: FIRST_NUMBER });
    this.#program = this.#connect();
  }

  /** Hands a packet of the program's to the broker. */
  handle(packet: Packet): void {
    this.#deliver(this.#broker.handle(this.#program, packet));
  }

  /** Gives the program an endpoint with a handle of the device's. */
  addEndpoint(handle: Handle): void {
    this.handle({ message: { id: 0, op: "announce_resource", args: endpoint(handle) }, shares: [] });
  }

  /** Lets a context be known of which nothing has come yet. */
  meet(context: ContextId): Remote | undefined {
    const known = this.#remotes.get(context);
    if (known !== undefined) return known;
    const client = this.#connect();
    const hello: Requests["hello"] = {
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      context,
      flags: 0,
      slot: -1,
      client: null,
      ticket: null,
      observer: false,
    };
    // A word that is always up: whatever this end waits for it is rung for.
    const reply = this.#request(client, "hello", hello, [new Int32Array([1])]);
    // A context that no program may be, such as one of the reserved ones.
    if (replyError(reply.message) !== undefined) return undefined;
    const remote: Remote = { client, endpoints: new Set() };
    this.#remotes.set(context, remote);
    return remote;
  }

  /**
   * Opens a lane for what comes from elsewhere, if that may send here.
   *
   * @param source Where it comes from.
   * @param destination The program's endpoint.
   * @param own Whether the source is an endpoint of this program too.
   * @returns The lane, or why there is none.
   */
  openLane(source: Handle, destination: Handle, own: boolean): IncomingLane | VmciError {
    const remote = this.meet(source.context);
    if (remote === undefined) {
      const reason = `context ${source.context} is none that a program can be in`;
      return new VmciError("NO_ACCESS", { operation: "receive", handle: destination, reason });
    }
    const key = formatHandle(source);
    if (!own && !remote.endpoints.has(key)) {
      this.#request(remote.client, "announce_resource", endpoint(source));
      remote.endpoints.add(key);
    }
    const { message, shares } = this.#request(remote.client, "open_lane", { source, destination });
    const error = replyError(message);
    if (error !== undefined) {
      return new VmciError(error.code, { operation: "receive", handle: destination, reason: error.reason });
    }
    const [buffer, bell] = shares;
    if (bell instanceof DirectBell) bell.onRung = this.#hooks.room;
    return { number: (message.result as Results["open_lane"]).lane, buffer: buffer as ArrayBuffer };
  }

  /** Nothing more comes through a lane from elsewhere. */
  closeLane({ context }: Handle, lane: number): void {
    const remote = this.#remotes.get(context);
    if (remote !== undefined) this.#request(remote.client, "close_lane", { lane });
  }

  /** Forgets a handle of another context. */
  forget(source: Handle): void {
    const remote = this.#remotes.get(source.context);
    if (remote?.endpoints.delete(formatHandle(source)) !== true) return;
    this.#request(remote.client, "destroy", { type: "DATAGRAM", handle: source, repeated: false });
  }

  #connect(): Client {
    return this.#broker.connect({ pid: Deno.pid, uid: 0, contexts: "all", privileged: true });
  }

  #request<O extends Operation>(client: Client, op: O, args: Requests[O], shares: readonly Share[] = []): Packet {
    const before = this.#reply;
    this.#reply = undefined;
    this.#deliver(this.#broker.handle(client, { message: { id: 1, op, args }, shares }));
    const reply = this.#reply as Packet | undefined;
    this.#reply = before;
    return reply!;
  }

  #deliver({ outgoing }: Outcome): void {
    for (const { to, kind, message, shares } of outgoing) {
      if (to === this.#program) this.#hooks.packet({ message, shares }, kind);
      else if (kind !== "notice") this.#reply = { message, shares };
      else if (message.notice === "lane_closed") this.#hooks.laneClosed(message.lane as number);
    }
  }
}

function endpoint(handle: Handle): Requests["announce_resource"] {
  return { type: "DATAGRAM", handle, size: 0, creatorOnly: false, ticket: null };
}

const brokerMedium: BrokerMedium = {
  makeLane: () => new ArrayBuffer(LANE_SIZE),
  makeBell: () => DirectBell.pair(),
  checkRegion: () => {
    throw new VmciError("UNAVAILABLE", { operation: "check a region", reason: "devices share no memory" });
  },
  checkAttention: () => {},
  reserveNumbers: () => {},
  release: () => {},
};

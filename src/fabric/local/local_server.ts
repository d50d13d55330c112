/**
 * The broker's server on one machine: sockets, descriptors and a loop in epoll. It decides nothing: it says who is at the
 * other end of a connection, carries packets to the broker and back, and makes what the broker asks for.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { AdaptiveSpin } from "../../lane/adaptive_spin.ts";
import { VERSION } from "../../version.ts";
import { closeDescriptor, closedOnFailure, describe, duplicate } from "../../../ffi/descriptor.ts";
import { Epoll, EpollEvent } from "../../../ffi/epoll.ts";
import { readAt, removeFile, renameFile } from "../../../ffi/file.ts";
import { Errno, SystemError } from "../../../ffi/libc.ts";
import { userId, yieldProcessor } from "../../../ffi/process.ts";
import {
  acceptSocket,
  listenSeqpacket,
  PacketSocket,
  peerCredentials,
  ringBell,
  streamPair,
} from "../../../ffi/unix_socket.ts";
import { Broker, clientSurvivor, type Outcome, type Outgoing, slotSurvivor } from "../broker.ts";
import type { Client, Identity } from "../broker/entities.ts";
import { type ContextSet, Policy } from "../policy.ts";
import { type Message, type Notices, requestId, TOLD, UNHURRIED } from "../protocol.ts";
import { AuditLog } from "./audit_log.ts";
import type { BrokerThreadConfig } from "./broker_thread_config.ts";
import { Callers, originOf } from "./callers.ts";
import { type ClientLedger, isSameProcess, type SeenProcesses } from "./client_ledger.ts";
import { isReserved } from "./descriptor_reserve.ts";
import { HmacTickets } from "./hmac_tickets.ts";
import { LocalBrokerMedium } from "./local_broker_medium.ts";
import { createWord, type MappedWord } from "./local_memory.ts";
import { NoticeQueue } from "./notice_queue.ts";
import { decodeMessage, encodeMessage } from "./packet_codec.ts";
import { type Roster, RunDirectory } from "./run_directory.ts";
import { asVmciError } from "./system_failure.ts";

/** Connections that may wait to be accepted. */
const BACKLOG = 4096;

/** So many packets, and bytes, that nothing else bounds may wait for a client that does not read; then it is dropped. */
const MOST_PENDING = 4096;
const MOST_PENDING_BYTES = 2 ** 21;

/**
 * Descriptors that may wait for a client that does not read: those of as many bells as one request may need, of the
 * reply to it, and of the bells that others may have it told of before.
 */
const MOST_PENDING_DESCRIPTORS = 768;

/** Packets taken from one client, and connections from one socket, before the others have their turn. */
const TURN = 16;

/** Milliseconds to spin for the next request before sleeping. */
const REQUEST_SPIN = 0.1;

/** Milliseconds that a client which sleeps may have to wait for a notice that does not hurry, while others are served. */
const RING_DELAY = 1;

/** Milliseconds that survivors of the broker before have to announce themselves. */
const RECOVERY_TIME = 3000;

/** Milliseconds between two looks at whether survivors still live, and at whether there are descriptors again. */
const PATROL = 20;

/** A client's connection. */
interface Door {
  readonly fd: number;
  readonly socket: PacketSocket;
  readonly client: Client;
  /** Where it comes from, if that is not the broker's own user. */
  readonly origin: string | undefined;
  /** Why it is not let in; said to each of its requests. */
  readonly refusal: VmciError | undefined;
  /** Its notice word, and this end of its bell, once it was welcomed. */
  notice: MappedWord | undefined;
  bell: number | undefined;
  /** What could not be sent yet. */
  readonly pending: NoticeQueue;
}

/** A socket that listens. */
interface Listener {
  readonly fd: number;
  /** Its path, where this server is to remove it. */
  readonly path: string | undefined;
  readonly context: number | undefined;
}

/** See the module's comment. */
export class LocalServer {
  readonly #config: BrokerThreadConfig;
  /** What to give back at the end: files and the set of descriptors. */
  readonly #opened = new DisposableStack();
  readonly #epoll: Epoll;
  readonly #visit = (fd: number, events: number): void => this.#attend(fd, events);
  readonly #adaptive = new AdaptiveSpin();
  readonly #medium: LocalBrokerMedium;
  readonly #broker: Broker;
  readonly #roster: Roster | undefined;
  readonly #ledger: ClientLedger | undefined;
  readonly #audit: AuditLog | undefined;
  #policy: Policy | undefined;
  /** Whether each survivor that is expected still lives. */
  readonly #isLiving = new Map<string, (seen: SeenProcesses) => boolean>();
  readonly #listeners = new Map<number, Listener>();
  readonly #doors = new Map<number, Door>();
  readonly #byClient = new Map<Client, Door>();
  readonly #callers = new Callers();
  /** The connection of this process. */
  readonly #own: Door;
  /** Lanes that could not be handed to their receivers; the replies to who asked for them say so. */
  readonly #keptOut = new Set<number>();
  /** Doors to close once what is being delivered is delivered. */
  readonly #leaving = new Set<Door>();
  /** Doors still to be rung, and since when there are any: waking somebody takes longer than answering a request. */
  readonly #unrung = new Set<Door>();
  #unrungSince = 0;
  /** Milliseconds that survivors have had, and when that was counted. */
  #recoveryTime = 0;
  #patrolled = performance.now();
  /** Whether connections wait for want of descriptors. */
  #starved = false;

  /** Takes over the descriptors of the configuration; if it fails, they stay the caller's, and nothing else is left. */
  constructor(config: BrokerThreadConfig) {
    this.#config = config;
    const open = <T extends { close(): void }>(it: T) => this.#opened.adopt(it, () => it.close());
    const directory = config.directory === undefined ? undefined : new RunDirectory(config.directory);
    const state = config.state === undefined ? undefined : new RunDirectory(config.state);
    try {
      this.#epoll = open(new Epoll());
      if (directory !== undefined) this.#roster = open(directory.openRoster());
      if (state !== undefined) this.#ledger = open(state.openLedger());
      const numbered = state ?? directory;
      const numbers = numbered === undefined ? undefined : open(numbered.openNumbers());
      this.#medium = new LocalBrokerMedium(numbers);
      if (config.audit !== undefined) this.#audit = open(new AuditLog(config.audit));
      this.#policy = config.policy === undefined ? undefined : Policy.parse(config.policy.text, config.policy.name);
      for (const slot of this.#roster?.living() ?? []) {
        this.#isLiving.set(slotSurvivor(slot), () => this.#roster!.isLiving(slot));
      }
      for (const entry of this.#ledger?.readSurvivors() ?? []) {
        this.#isLiving.set(clientSurvivor(entry.client), (seen) => isSameProcess(entry, seen));
      }
      this.#broker = new Broker(this.#medium, {
        pid: Deno.pid,
        kind: config.kind,
        version: VERSION,
        firstNumber: numbers?.read() ?? 0,
        survivors: this.#isLiving.keys(),
        ...(config.quota === undefined ? {} : { quota: config.quota }),
        ...(this.#policy === undefined ? {} : { policy: this.#policy }),
        ...(state === undefined ? {} : { tickets: new HmacTickets(state.readKey()) }),
        // Before it, a program of this user may have had the broker.
        followsAny: directory !== undefined,
      });
      this.#own = this.#admit(config.connection, undefined)!;
      if (directory !== undefined) this.#listen(directory.socket);
      for (const { descriptor, context } of config.sockets) this.#attendListener(descriptor, undefined, context);
    } catch (error) {
      this.#closeListeners(({ path }) => path !== undefined);
      this.#opened.dispose();
      throw error;
    }
  }

  /** Serves until the last client leaves; as a daemon, until this process closes its own connection. */
  run(): void {
    try {
      while (this.#wanted) {
        const patrol = this.#broker.recovering || this.#starved;
        const idle = this.#spin() === undefined;
        if (idle || performance.now() - this.#unrungSince > RING_DELAY) this.#ringAll();
        if (idle) this.#epoll.wait(patrol ? PATROL : -1, this.#visit);
        if (patrol) this.#patrol();
      }
    } finally {
      // Even if it failed: a broker that is gone is replaced, one that hangs holds everybody up.
      this.#close();
    }
  }

  /** Looks for a while whether somebody asks for something more: who does mostly goes on to. */
  #spin(): number | undefined {
    return this.#adaptive.spin(() => {
      const visited = this.#epoll.wait(0, this.#visit);
      if (visited > 0) return visited;
      yieldProcessor();
      return undefined;
    }, this.#config.spins ? REQUEST_SPIN : 0);
  }

  /** Whether there is somebody left to serve. */
  get #wanted(): boolean {
    if (this.#config.kind === "daemon") return this.#byClient.has(this.#own.client);
    return !this.#broker.ended && this.#doors.size > 0;
  }

  #attend(fd: number, events: number): void {
    const listener = this.#listeners.get(fd);
    if (listener !== undefined) return this.#accept(listener);
    const door = this.#doors.get(fd);
    if (door === undefined) return;
    if ((events & EpollEvent.OUT) !== 0) this.#flush(door);
    if ((events & ~EpollEvent.OUT) !== 0) this.#read(door);
    this.#closeLeaving();
  }

  // --- Letting in -----------------------------------------------------------------------------------------------------

  /** Listens at a path, in place of whatever socket was left there by a broker that is gone. */
  #listen(path: string): void {
    const fresh = `${path}.${Deno.pid}`;
    removeFile(fresh);
    let fd: number | undefined;
    try {
      fd = listenSeqpacket(fresh, BACKLOG);
      this.#attendListener(fd, path, undefined);
      renameFile(fresh, path);
    } catch (error) {
      if (fd !== undefined) {
        this.#listeners.delete(fd);
        closeDescriptor(fd);
      }
      removeFile(fresh);
      throw error;
    }
  }

  #attendListener(fd: number, path: string | undefined, context: number | undefined): void {
    this.#epoll.add(fd, EpollEvent.IN);
    this.#listeners.set(fd, { fd, path, context });
  }

  #accept(listener: Listener): void {
    for (let turn = 0; turn < TURN; turn++) {
      let door: Door | undefined;
      try {
        const fd = acceptSocket(listener.fd);
        if (fd === undefined) return;
        door = closedOnFailure(fd, () => this.#admit(fd, listener.context));
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        // Out of descriptors: those who wait go on waiting, and the others are served meanwhile.
        this.#starved = true;
        for (const fd of this.#listeners.keys()) this.#epoll.modify(fd, 0);
        return;
      }
      // Who is about to say hello has mostly said it by now.
      if (door !== undefined) this.#read(door);
      this.#closeLeaving();
    }
  }

  /** Lets somebody in. If there are too many of them, the connection is closed. */
  #admit(fd: number, context: number | undefined): Door | undefined {
    const { pid, uid, gid } = peerCredentials(fd);
    const own = uid === userId();
    const contexts: ContextSet = context !== undefined
      ? [[context, context]]
      : own
      ? "all"
      : this.#policy?.contextsOf({ uid, gid }) ?? [];
    // Who comes through a context's socket is that context and no more, whatever its user: root in a container, too.
    const identity: Identity = { pid, uid, contexts, privileged: own && context === undefined };
    const client = this.#broker.connect(identity);
    const origin = originOf(identity, context);
    const excess = origin === undefined ? undefined : this.#callers.excess(origin, isReserved(fd));
    if (excess !== undefined) {
      // Not told: who floods does not read. An honest program tries again.
      this.#audit?.refusal(origin, client, excess);
      closeDescriptor(fd);
      return undefined;
    }
    const refusal = contexts.length > 0 ? undefined : new VmciError("NO_ACCESS", {
      operation: "connect",
      reason: `this fabric is user ${userId()}'s, and process ${pid} is user ${uid}'s, whom no policy lets in`,
    });
    if (refusal !== undefined) this.#audit?.refusal(origin, client, refusal.reason);
    const socket = new PacketSocket(fd);
    const pending = new NoticeQueue();
    const door: Door = { fd, socket, client, origin, refusal, notice: undefined, bell: undefined, pending };
    this.#epoll.add(fd, EpollEvent.IN | EpollEvent.RDHUP);
    if (origin !== undefined) this.#callers.add(origin, client);
    this.#doors.set(fd, door);
    this.#byClient.set(client, door);
    return door;
  }

  // --- Packets --------------------------------------------------------------------------------------------------------

  #read(door: Door): void {
    for (let turn = 0; turn < TURN && !this.#leaving.has(door); turn++) {
      const packet = this.#receive(door);
      if (packet === undefined) return;
      const message = packet.end ? undefined : decodeMessage(packet.bytes);
      if (message === undefined || door.refusal !== undefined) {
        packet.descriptors.forEach((fd) => this.#medium.release(fd));
        if (message !== undefined) this.#refuse(door, requestId(message), door.refusal!);
        return this.#letGo(door, packet.end || message !== undefined ? undefined : "what it sent is no message");
      }
      if (packet.truncated) this.#refuseCut(door, message, packet.descriptors);
      else if (door === this.#own && message.op === "set_policy") {
        this.#setPolicy(door, message, packet.descriptors);
      } else this.#answer(door, message, packet.descriptors);
    }
  }

  /** A message that can be read was not cut itself: its descriptors were, since this process has none left. */
  #refuseCut(door: Door, message: Message, descriptors: readonly number[]): void {
    descriptors.forEach((fd) => this.#medium.release(fd));
    const reason = "the broker has no file descriptor left to take in what belongs to this";
    this.#refuse(door, requestId(message), new VmciError("NO_RESOURCES", { operation: "receive", reason }));
  }

  #answer({ client }: Door, message: Message, descriptors: readonly number[]): void {
    this.#deliver(this.#broker.handle(client, { message, shares: descriptors }));
  }

  /** The process that runs this daemon read its policy again. If it cannot be taken over, the one before stays. */
  #setPolicy(door: Door, message: Message, descriptors: readonly number[]): void {
    const id = requestId(message);
    try {
      this.#policy = readPolicy(descriptors);
    } catch (error) {
      const failure = asVmciError(error, "set the policy");
      if (!(failure instanceof VmciError)) throw failure;
      return this.#refuse(door, id, failure);
    } finally {
      descriptors.forEach((fd) => this.#medium.release(fd));
    }
    this.#deliver(this.#broker.setPolicy(this.#policy));
    this.#send(door, { id, result: {} }, [], false);
  }

  #receive(door: Door): ReturnType<PacketSocket["receive"]> {
    try {
      return door.socket.receive();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#letGo(door, `it cannot be read: ${error.message}`);
      return undefined;
    }
  }

  #refuse(door: Door, id: number, { code, reason }: VmciError): void {
    this.#send(door, { id, error: { code, reason } }, [], false);
  }

  #deliver({ outgoing, spent }: Outcome): void {
    for (const packet of outgoing) this.#dispatch(packet);
    for (const share of spent) this.#medium.release(share);
  }

  #dispatch(packet: Outgoing): void {
    const door = this.#byClient.get(packet.to);
    const { kind, message, shares } = this.#isKeptOut(packet) ? withoutLane(packet) : packet;
    this.#audit?.decision(door?.origin, { ...packet, message });
    const { request } = packet;
    if (door === undefined || (request?.id === 0 && TOLD.has(request.op))) return;
    if (kind !== "welcome") {
      return this.#send(door, message, shares as number[], kind === "notice");
    }
    try {
      this.#welcome(door, message);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      const reason = `the broker cannot make what this needs: ${error.message}`;
      this.#refuse(door, requestId(message), new VmciError("NO_RESOURCES", { operation: "hello", reason }));
      this.#letGo(door, reason);
    }
  }

  /** Whether this is the reply about a lane that its receiver could not be handed. */
  #isKeptOut({ message, request }: Outgoing): boolean {
    const lane = request?.op === "open_lane" ? (message.result as { lane: number } | undefined)?.lane : undefined;
    return lane !== undefined && this.#keptOut.delete(lane);
  }

  /** The reply to hello, with a notice word and a bell. */
  #welcome(door: Door, message: Message): void {
    const { word, fd } = createWord("vmci-notice");
    door.notice = word;
    try {
      // Who holds a byte of the roster is found by that.
      const { number, survivor, identity } = door.client;
      if (survivor === clientSurvivor(number)) this.#ledger?.add(number, identity.pid);
      const [mine, theirs] = streamPair();
      door.bell = mine;
      this.#send(door, message, [fd, theirs], false);
      closeDescriptor(theirs);
    } finally {
      closeDescriptor(fd);
    }
  }

  #send(door: Door, message: Message, descriptors: readonly number[], notify: boolean): void {
    if (this.#leaving.has(door)) return;
    try {
      if (door.pending.length === 0 && transmit(door, message, descriptors)) {
        if (notify) this.#notify(door, message);
        return;
      }
      // What waits here dies with this process: a lane is handed over before its sender is answered, or not at all.
      if (message.notice === "lane") return this.#keepOut(door, message as unknown as Notices["lane"]);
      const fits = door.pending.descriptors + descriptors.length <= MOST_PENDING_DESCRIPTORS;
      const copies = fits ? duplicates(descriptors) : undefined;
      if (copies === undefined) {
        return this.#letGo(door, `it does not read: ${door.pending.descriptors} file descriptors wait for it`);
      }
      door.pending.push({ message, descriptors: copies, notify });
      door.client.unread = door.pending.length;
      const { caused, causedBytes } = door.pending;
      if (caused > MOST_PENDING || causedBytes > MOST_PENDING_BYTES) {
        return this.#letGo(door, `it does not read: ${caused} packets of ${causedBytes} bytes wait for it`);
      }
      if (door.pending.length > 1) return;
      this.#epoll.modify(door.fd, EpollEvent.IN | EpollEvent.RDHUP | EpollEvent.OUT);
      // Whatever its socket is full of, it is to be read.
      this.#notify(door, message);
    } catch (error) {
      this.#cannotSend(door, error);
    }
  }

  #cannotSend(door: Door, error: unknown): void {
    if (!(error instanceof SystemError)) throw error;
    // Who has closed his end has left.
    const left = error.code === "EPIPE" || error.code === "ECONNRESET";
    this.#letGo(door, left ? undefined : `it cannot be sent to: ${error.message}`);
  }

  /** A receiver cannot be handed a lane now: its sender gets an error instead, for the reply to it comes after this. */
  #keepOut(door: Door, { lane, peer, fresh }: Notices["lane"]): void {
    this.#keptOut.add(lane);
    // With the lane goes the bell that should have come with it.
    const forgetting = fresh ? [{ id: 0, op: "forget_peer", args: { peer } }] : [];
    for (const request of [...forgetting, { id: 0, op: "close_lane", args: { lane } }]) {
      const { outgoing, spent } = this.#broker.handle(door.client, { message: request, shares: [] });
      // It has never heard of that lane.
      this.#deliver({ outgoing: outgoing.filter((it) => it.to !== door.client || it.message.lane !== lane), spent });
    }
  }

  #flush(door: Door): void {
    try {
      for (let first = door.pending.first(); first !== undefined; first = door.pending.first()) {
        if (!transmit(door, first.message, first.descriptors)) return;
        door.pending.shift();
        door.client.unread = door.pending.length;
        for (const fd of first.descriptors) closeDescriptor(fd);
        if (first.notify) this.#notify(door, first.message);
      }
      this.#epoll.modify(door.fd, EpollEvent.IN | EpollEvent.RDHUP);
    } catch (error) {
      this.#cannotSend(door, error);
    }
  }

  /** Says that something was sent unasked: to who looks at the word, and to who listens for the bell. */
  #notify(door: Door, message: Message): void {
    if (door.notice !== undefined) Atomics.add(door.notice.word, 0, 1);
    if (!UNHURRIED.has(message.notice)) return this.#ring(door);
    if (this.#unrung.size === 0) this.#unrungSince = performance.now();
    this.#unrung.add(door);
  }

  #ring(door: Door): void {
    this.#unrung.delete(door);
    if (door.bell !== undefined) ringBell(door.bell);
  }

  #ringAll(): void {
    for (const door of this.#unrung) this.#ring(door);
  }

  // --- Leaving --------------------------------------------------------------------------------------------------------

  /** Closes a connection soon; with a reason if that was not its client's wish. */
  #letGo(door: Door, reason: string | undefined): void {
    if (reason !== undefined && !this.#leaving.has(door)) this.#audit?.dropped(door.origin, door.client, reason);
    this.#leaving.add(door);
  }

  #closeLeaving(): void {
    for (const door of this.#leaving) {
      this.#leaving.delete(door);
      this.#doors.delete(door.fd);
      this.#unrung.delete(door);
      this.#byClient.delete(door.client);
      if (door.origin !== undefined) this.#callers.remove(door.origin, door.client);
      this.#closeDoor(door);
      this.#ledger?.remove(door.client.number);
      this.#deliver(this.#broker.disconnect(door.client));
    }
  }

  #closeDoor(door: Door): void {
    this.#epoll.remove(door.fd);
    closeDescriptor(door.fd);
    door.notice?.close();
    if (door.bell !== undefined) closeDescriptor(door.bell);
    for (const { descriptors } of door.pending) descriptors.forEach(closeDescriptor);
  }

  #patrol(): void {
    if (this.#starved) {
      this.#starved = false;
      for (const fd of this.#listeners.keys()) this.#epoll.modify(fd, EpollEvent.IN);
    }
    if (!this.#broker.recovering) return;
    // However much there is to do meanwhile: a look at each of them takes long.
    const now = performance.now();
    if (now - this.#patrolled < PATROL) return;
    // Time in which this process was stopped is not time that they had.
    this.#recoveryTime += Math.min(now - this.#patrolled, 5 * PATROL);
    this.#patrolled = now;
    if (this.#recoveryTime > RECOVERY_TIME) this.#deliver(this.#broker.endRecovery());
    const seen: SeenProcesses = new Map();
    for (const survivor of [...this.#broker.survivors]) {
      if (!this.#isLiving.get(survivor)!(seen)) this.#deliver(this.#broker.survivorGone(survivor));
    }
    if (!this.#broker.recovering) this.#ledger?.forgetMissing();
    this.#closeLeaving();
  }

  /** The path goes first, while the lock is held: nobody else's socket can be there yet. */
  #closeListeners(which: (listener: Listener) => boolean): void {
    for (const listener of [...this.#listeners.values()].filter(which)) {
      try {
        if (listener.path !== undefined) removeFile(listener.path);
      } finally {
        closeDescriptor(listener.fd);
      }
    }
  }

  /** Gives everything back, the last thing first, whatever of it fails. */
  #close(): void {
    using all = new DisposableStack();
    const { lock } = this.#config;
    if (lock !== undefined) all.defer(() => closeDescriptor(lock));
    all.use(this.#opened);
    all.defer(() => this.#closeDoors());
    all.defer(() => this.#closeListeners(() => true));
  }

  #closeDoors(): void {
    const doors = [...this.#doors.values()];
    this.#doors.clear();
    // What they have goes with none of them: they take it to the next broker. So nobody is told that others are gone.
    this.#byClient.clear();
    for (const door of doors) this.#closeDoor(door);
    for (const { client } of doors) this.#deliver(this.#broker.disconnect(client));
  }
}

/** Sends a packet, if there is room; without its descriptors where no more of them may be on their way. */
function transmit({ socket }: Door, message: Message, descriptors: readonly number[]): boolean {
  try {
    return socket.send(encodeMessage(message), descriptors);
  } catch (error) {
    // Others leave theirs unread; whom this is for is not to blame.
    if (!(error instanceof SystemError) || error.errno !== Errno.ETOOMANYREFS) throw error;
    return socket.send(encodeMessage({ ...message, incomplete: true }), []);
  }
}

/** The reply to who asked for a lane that its receiver could not be handed. */
function withoutLane(packet: Outgoing): Outgoing {
  const reason = "the receiver's process is busy and can be handed no lane now; try again later";
  return { ...packet, message: { id: requestId(packet.message), error: { code: "NO_RESOURCES", reason } }, shares: [] };
}

/** The policy that was handed over: in memory of its own, for it may be larger than a packet. */
function readPolicy([fd]: readonly number[]): Policy {
  const bytes = new Uint8Array(fd === undefined ? 0 : describe(fd).size);
  if (fd !== undefined) readAt(fd, bytes, 0);
  const { text, name } = decodeMessage(bytes) ?? {};
  if (typeof text === "string" && typeof name === "string") return Policy.parse(text, name);
  throw new VmciError("INVALID_ARGS", { operation: "set the policy", reason: "what was handed over is no policy" });
}

/** Duplicates of all, to be kept for a while, or `undefined` when there are no descriptors left for that. */
function duplicates(descriptors: readonly number[]): number[] | undefined {
  const copies: number[] = [];
  try {
    for (const fd of descriptors) copies.push(duplicate(fd));
    if (!copies.some(isReserved)) return copies;
    copies.forEach(closeDescriptor);
    return undefined;
  } catch (error) {
    copies.forEach(closeDescriptor);
    if (!(error instanceof SystemError)) throw error;
    return undefined;
  }
}

/**
 * One client's half of the control protocol: it says hello, asks, waits for replies, takes in what the broker says
 * unasked, and when the broker is gone finds or becomes the next one and announces what this client owns.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import type { ContextId, Handle } from "../handle.ts";
import { closedMeanwhile, type Look, timedOut, type WaitOptions } from "../lane/waiters.ts";
import { type Parking, Waiting } from "../lane/waiting.ts";
import type { ResourceTypeName } from "../privilege.ts";
import type { Subject } from "../subject.ts";
import { VERSION } from "../version.ts";
import { Holdings, pages } from "./holdings.ts";
import type { Bell, Connection, Medium, Packet, Share, SharedWord } from "./medium.ts";
import type { Nudgeable } from "./peer.ts";
import { Peers } from "./peers.ts";
import {
  type Message,
  type NoticeName,
  type Notices,
  type Operation,
  PROTOCOL_VERSION,
  replyError,
  type Requests,
  type Results,
} from "./protocol.ts";
import { isRepeatable, Unanswered } from "./unanswered.ts";

/** How a session starts. */
export interface SessionOptions {
  /** The context to be in, or `undefined` for what the medium says, or else the host. */
  readonly context: ContextId | undefined;
  /** Coarse flags of the context. */
  readonly flags: number;
  /** Only looks: makes nothing, belongs to no context, and keeps nothing alive. */
  readonly observer: boolean;
  /** Milliseconds that a control call may take. */
  readonly timeout: number;
  /** Microseconds that a wait may spin. */
  readonly spin: number;
}

/** What a request is answered with. */
export interface Reply<O extends Operation> {
  /** The result. */
  readonly result: Results[O];
  /** What came with it; the caller's. */
  readonly shares: readonly Share[];
}

type NoticeHandler<N extends NoticeName> = (body: Notices[N], shares: readonly Share[]) => void;

/** The broker went away while it was told what this client has. */
class BrokerGone extends Error {}

/** A hello that was said and not answered yet. */
interface Greeting {
  readonly connection: Connection;
  readonly id: number;
}

/**
 * Milliseconds that a search for the next broker, which nobody waits for, may hold the thread up: until it answers, and
 * for what it is then told.
 */
const PATIENCE = { greeting: 100, announcing: 1000 };

/** So often a busy thread that only sends asks the kernel whether the broker is gone. */
const HANG_UP_CHECK = 4096;

/** Milliseconds that one session of a thread waits before it sees to the others. */
const OTHERS_TURN = 20;

/** The sessions of this thread whose brokers may go. While one of them waits for a reply no other can turn. */
const sessions = new Set<Session>();

/** Milliseconds between two tries to find a broker, at first and at most. */
const RETRY = { first: 2, most: 200 };

const OUT_OF_DESCRIPTORS =
  "there is no file descriptor left for what the broker hands over, in this process or among its user's processes";

/** See the module's comment. */
export class Session implements Parking {
  /** The medium. */
  readonly medium: Medium;
  /** All waits of this session. */
  readonly waiting: Waiting;
  /** This client's attention word. */
  readonly attention: Int32Array;
  /** Those it has a bell with. */
  readonly peers: Peers;
  /** What it has made. */
  readonly holdings: Holdings = new Holdings();
  /** This session as its own peer. */
  readonly self: Nudgeable;
  readonly #options: SessionOptions;
  readonly #attentionWord: SharedWord;
  readonly #attentionShare: Share;
  readonly #handlers = new Map<string, NoticeHandler<NoticeName>[]>();
  readonly #announcers: (() => void)[] = [];
  readonly #recoveredHooks: ((pid: number, lost: readonly Handle[]) => void)[] = [];
  readonly #closeHooks: (() => void)[] = [];
  readonly #unanswered = new Unanswered();
  readonly #arrived: Packet[] = [];
  /** What is to be said as soon as there is room. */
  readonly #untold: Message[] = [];

  #connection: Connection | undefined;
  #notice: SharedWord | undefined;
  /** The notice word itself, one property away on the hot path; an own word while there is no broker. */
  #noticeWord: Int32Array = new Int32Array(1);
  #noticeSeen = 0;
  /** The broker's bell. */
  #bell: Bell | undefined;
  #hello: Results["hello"] | undefined;
  #greeting: Greeting | undefined;
  /** Milliseconds that a request may take now. */
  #patience: number;
  /** Whether the broker does not know yet what this client has. */
  #unannounced = false;
  /** What was not taken back by brokers since one was announced all to: one may die meanwhile, or the announcing be broken off. */
  readonly #refused: Handle[] = [];
  /** Whether a request is under way: what arrives then is for it. */
  #exchanging = false;
  #requests = 0;
  #refreshes = 0;
  #dispatching = false;
  #recovering = false;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #retryDelay = RETRY.first;
  /** Not before then does a thread that is busy try again. */
  #retryAt = 0;
  #closed = false;

  private constructor(medium: Medium, options: SessionOptions) {
    this.medium = medium;
    this.#options = options;
    this.#patience = options.timeout;
    const { attention, share } = medium.createAttention();
    this.#attentionWord = attention;
    this.#attentionShare = share;
    this.attention = attention.word;
    this.waiting = new Waiting(this, options.spin);
    this.self = {
      nudge: () => {
        if (Atomics.load(this.attention, 0) !== 0) this.waiting.nudge();
      },
    };
    this.peers = new Peers(medium, {
      ending: () => {
        if (this.#connection !== undefined) this.#drain();
      },
      rung: () => {
        this.refresh();
        this.waiting.wake();
      },
      ended: ({ number }) => {
        this.tell("forget_peer", { peer: number });
        this.waiting.wake();
      },
    });
    this.on("peer", ({ peer }, shares) => this.peers.adopt(peer, shares));
    this.on("peer_gone", ({ peer }) => this.peers.remove(peer));
    this.on("destroyed", ({ type, handle }) => this.holdings.get(type, handle)?.gone());
    this.on("ping", ({ client, token }) => this.tell("pong", { client, token }));
    this.on("keep_grant", (notice) => this.holdings.keepGrant(notice));
    this.on("keep_name", (notice) => this.holdings.keepName(notice));
    this.on("keep_member", (notice) => this.holdings.keepMember(notice));
  }

  /**
   * Joins a fabric.
   *
   * @param medium The medium; closed when this fails.
   * @param options See {@linkcode SessionOptions}.
   * @param signal Ends the wait.
   * @returns The session.
   */
  static async open(medium: Medium, options: SessionOptions, signal: AbortSignal | undefined): Promise<Session> {
    let session: Session | undefined;
    try {
      session = new Session(medium, options);
      await session.#join(signal);
      if (medium.concurrent) sessions.add(session);
      return session;
    } catch (error) {
      if (session === undefined) await medium.close(false);
      else await session.close();
      throw error;
    }
  }

  /** This client's context. */
  get context(): ContextId {
    return this.#hello!.context;
  }

  /** This client's number in the fabric. */
  get number(): number {
    return this.#hello!.client;
  }

  /** What the broker said of itself. */
  get broker(): { readonly pid: number; readonly kind: string; readonly version: string } {
    return this.#hello!;
  }

  /** Whether it is closed. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Adds something to be done when the broker says something. Shares are for the one handler that takes them over. */
  on<N extends NoticeName>(notice: N, handler: NoticeHandler<N>): void {
    const handlers = this.#handlers.get(notice) ?? [];
    this.#handlers.set(notice, [...handlers, handler as NoticeHandler<NoticeName>]);
  }

  /** Adds something that a facet tells, or asks again, a new broker. */
  onAnnounce(hook: () => void): void {
    this.#announcers.push(hook);
  }

  /** Adds something to be done after a new broker took this client in; it hears what the broker refused. */
  onRecovered(hook: (pid: number, lost: readonly Handle[]) => void): void {
    this.#recoveredHooks.push(hook);
  }

  /** Adds something to be done when the session is closed; the broker drops by itself what it knows of this client. */
  onClose(hook: () => void): void {
    this.#closeHooks.push(hook);
  }

  // --- Asking ---------------------------------------------------------------------------------------------------------

  /**
   * Asks the broker and waits for its reply. If the broker goes meanwhile, the request is repeated to the next one.
   *
   * @param subject What it is about.
   * @param op The request.
   * @param args What it carries.
   * @param shares What goes with it; they stay the caller's.
   * @returns The reply.
   * @throws {VmciError} What the broker answered; UNAVAILABLE when it does not answer in time; INVALID_RESOURCE when
   * the session is closed.
   */
  request<O extends Operation>(
    subject: Subject,
    op: O,
    args: Requests[O],
    shares: readonly Share[] = [],
  ): Reply<O> {
    this.assertOpen(subject.operation, subject.handle);
    const deadline = performance.now() + this.#patience;
    let sent: Requests[O] = this.#unanswered.claim({ op, args }) ? { ...args, repeated: true } : args;
    for (;;) {
      // What is announced to one broker is not for the next, which must be told all from the beginning.
      if (this.#recovering && this.#connection === undefined) throw new BrokerGone();
      const connection = this.#ready ? this.#connection! : this.#reconnect(subject, deadline);
      const packet = this.#exchange(connection, op, sent, shares, deadline, args);
      if (packet === "closed") {
        this.#lost(connection);
        // What the broker did before it died may have survived it in what others announce.
        if (isRepeatable(op)) sent = { ...args, repeated: true };
        continue;
      }
      if (packet === undefined) throw this.#silent(subject);
      this.#dispatch();
      if (packet.incomplete) {
        this.#undo(op, args, packet);
        throw new VmciError("NO_RESOURCES", { ...subject, reason: OUT_OF_DESCRIPTORS });
      }
      const error = replyError(packet.message);
      if (error === undefined) return { result: packet.message.result as Results[O], shares: packet.shares };
      throw new VmciError(error.code, { ...subject, reason: error.reason });
    }
  }

  /** Throws INVALID_RESOURCE when the session is closed. */
  assertOpen(operation: string, handle?: Handle): void {
    if (!this.#closed) return;
    throw new VmciError("INVALID_RESOURCE", { operation, handle, reason: "this Vmci is closed; open another one" });
  }

  /**
   * Sends a request and waits for its reply; notices that come before it are kept for later. `asked` is the request as
   * the program made it, by which it is known when the program makes it again.
   */
  #exchange<O extends Operation>(
    connection: Connection,
    op: O,
    args: Requests[O],
    shares: readonly Share[],
    deadline: number,
    asked: Requests[O] = args,
  ): Packet | undefined | "closed" {
    const id = this.#ask(connection, op, args, shares, deadline);
    if (id === "closed") return id;
    // Without room for it there is nothing that could be answered late.
    if (id === "full") return undefined;
    let packet: Packet | undefined | "closed";
    try {
      packet = this.#awaitReply(connection, id, deadline);
      return packet;
    } finally {
      // Also when waiting fails.
      if (packet === undefined) this.#unanswered.add(id, { op, args: asked });
    }
  }

  /** Sends a request; answers its id. */
  #ask<O extends Operation>(
    connection: Connection,
    op: O,
    args: Requests[O],
    shares: readonly Share[],
    deadline: number,
  ): number | "full" | "closed" {
    const id = ++this.#requests;
    this.#flush(connection, deadline);
    const sent = connection.send({ message: { id, op, args }, shares }, Math.max(0, deadline - performance.now()));
    return sent === "sent" ? id : sent;
  }

  /** Waits for the reply of that id; `undefined` when it does not come in time. */
  #awaitReply(connection: Connection, id: number, deadline: number): Packet | undefined | "closed" {
    const nested = this.#exchanging;
    this.#exchanging = true;
    try {
      const left = () => Math.max(0, deadline - performance.now());
      for (;;) {
        const packet = connection.receive(sessions.size > 1 ? Math.min(left(), OTHERS_TURN) : left());
        if (packet === "closed") return packet;
        if (packet === undefined) {
          if (left() === 0) return undefined;
          this.#mindOthers();
        } else if (packet.message.id === id) {
          return packet;
        } else {
          this.#arrived.push(packet);
        }
      }
    } finally {
      this.#exchanging = nested;
    }
  }

  /** Sends a request whose reply does not matter; never waits. */
  tell<O extends Operation>(op: O, args: Requests[O]): void {
    if (this.#connection === undefined) return;
    // See TOLD.
    this.#untold.push({ id: 0, op, args });
    this.#flush(this.#connection, 0);
  }

  /** Sends what is untold. */
  #flush(connection: Connection, deadline: number): void {
    for (let message = this.#untold[0]; message !== undefined; message = this.#untold[0]) {
      let sent: ReturnType<Connection["send"]>;
      try {
        sent = connection.send({ message, shares: [] }, Math.max(0, deadline - performance.now()));
      } catch {
        // It stays the first that is told.
        return;
      }
      if (sent !== "sent") return;
      this.#untold.shift();
    }
  }

  /** The broker may wait for what other sessions of this thread announce, and they for this one to let them. */
  #mindOthers(): void {
    for (const other of [...sessions]) {
      if (other === this || other.#exchanging || other.#closed) continue;
      other.#drain();
      other.#retry();
    }
  }

  /** Whether there is a broker that knows what this client has. */
  get #ready(): boolean {
    return this.#connection !== undefined && (!this.#unannounced || this.#recovering);
  }

  #silent(subject: Subject): VmciError {
    return new VmciError("UNAVAILABLE", {
      ...subject,
      reason: `the broker did not answer within ${this.#patience} ms: ${this.medium.explainSilence()}`,
    });
  }

  // --- Being told -----------------------------------------------------------------------------------------------------

  /** Takes in what the broker said since the last time. Costs one load when that is nothing. */
  refresh(): void {
    if (
      Atomics.load(this.#noticeWord, 0) === this.#noticeSeen &&
      (this.#refreshes = (this.#refreshes + 1) % HANG_UP_CHECK) !== 0
    ) return;
    this.#drain();
  }

  #drain(): void {
    const connection = this.#connection;
    // A thread that never lets the event loop turn must find the next broker too.
    if (connection === undefined) return this.#retry();
    if (this.#untold.length > 0) this.#flush(connection, 0);
    // Seen first: what comes after this is another change.
    this.#noticeSeen = Atomics.load(this.#noticeWord, 0);
    for (;;) {
      const packet = connection.receive(0);
      if (packet === "closed") {
        this.#lost(connection);
        break;
      }
      if (packet === undefined) break;
      this.#arrived.push(packet);
    }
    this.#dispatch();
  }

  #dispatch(): void {
    // A handler may ask the broker something; what arrives then is handled after it, by the loop under way.
    if (this.#dispatching) return;
    this.#dispatching = true;
    try {
      this.#handleArrived();
    } finally {
      this.#dispatching = false;
    }
  }

  #handleArrived(): void {
    for (let packet = this.#arrived.shift(); packet !== undefined; packet = this.#arrived.shift()) this.#handle(packet);
  }

  #handle(packet: Packet): void {
    const { message, incomplete } = packet;
    let { shares } = packet;
    const { notice } = message;
    if (typeof notice === "string") {
      if (incomplete) {
        // Its sender is told, and gets an error instead of a lane that nobody reads.
        if (notice === "lane") this.#refuseLane(message as unknown as Notices["lane"]);
        return;
      }
      const handlers = this.#handlers.get(notice);
      if (handlers !== undefined) {
        for (const handler of handlers) handler(message as unknown as Notices[NoticeName], shares);
        return;
      }
    } else {
      // The reply to a request that was given up.
      const request = this.#unanswered.answered(message.id as number);
      if (request !== undefined) shares = this.#undo(request.op, request.args, packet);
    }
    for (const share of shares) this.medium.release(share);
  }

  /** There is a lane that this client cannot have; if a bell should have come with it, that is lost too. */
  #refuseLane({ lane, peer, fresh }: { readonly lane: number; readonly peer: number; readonly fresh: boolean }): void {
    if (fresh) this.tell("forget_peer", { peer });
    else this.tell("close_lane", { lane });
  }

  /** Nobody has what a request made: it must not stay. What is left of the reply's shares is to be released. */
  #undo(op: Operation, args: unknown, { message: reply, shares, incomplete }: Packet): readonly Share[] {
    if (reply.result === undefined) return shares;
    if (op === "open_lane") {
      const result = reply.result as Results["open_lane"];
      if (incomplete) this.#refuseLane(result);
      else this.tell("close_lane", { lane: result.lane });
      if (!result.fresh || incomplete) return shares;
      // The lane goes, the bell stays: for the broker the two have one, and it gives them no other.
      const [memory, ...bell] = shares;
      this.peers.adopt(result.peer, bell);
      return [memory!];
    }
    const { handle, name, watch } = { ...args as object, ...reply.result as object } as {
      handle: Handle;
      name: string;
      watch: number;
    };
    if (op === "create_endpoint") this.tell("destroy", { type: "DATAGRAM", handle });
    else if (op === "create_group") this.tell("destroy", { type: "GROUP", handle });
    else if (op === "create_region" || op === "attach") this.tell("detach", { handle });
    else if (op === "register") this.tell("unregister", { name });
    else if (op === "watch_names") this.tell("unwatch_names", { watch });
    return shares;
  }

  // --- Waiting --------------------------------------------------------------------------------------------------------

  /**
   * Waits as a promise; the process stays alive meanwhile.
   *
   * @param subject What it is about.
   * @param look Looks for the result.
   * @param options How the wait may end.
   * @returns The result.
   */
  wait<T>(subject: Subject, look: Look<T>, options: WaitOptions | undefined): Promise<T> {
    return this.waiting.park(subject, look, options);
  }

  /**
   * Waits without turning the event loop.
   *
   * @param subject What it is about.
   * @param look Looks for the result.
   * @param timeout Milliseconds, or -1 without end.
   * @returns The result.
   * @throws {VmciError} TIMEOUT; WOULD_BLOCK where nothing can come while this thread waits.
   */
  waitSync<T>(subject: Subject, look: Look<T>, timeout: number): T {
    this.assertOpen(subject.operation, subject.handle);
    const result = this.waiting.block(look, this.medium.concurrent ? timeout : 0);
    if (result !== undefined) return result;
    // The look itself may have closed it.
    this.assertOpen(subject.operation, subject.handle);
    if (this.medium.concurrent) throw timedOut(subject, timeout);
    throw new VmciError("WOULD_BLOCK", {
      ...subject,
      reason: `nothing can come to ${this.medium.device} while its only thread waits: await it instead`,
    });
  }

  /** Has the event loop watch every bell. */
  listen(): void {
    this.peers.listen();
  }

  /** Blocks until a bell rings, the broker says something, or the time is over. */
  block(timeout: number): void {
    this.#retry();
    const bound = this.#connection === undefined ? Math.min(timeout, RETRY.most) : timeout;
    this.medium.block(this.peers.bells, this.#connection, bound);
    this.peers.drain();
    this.#drain();
  }

  /** The client of that number, if there is a bell to it. */
  peer(number: number): Nudgeable | undefined {
    return number === this.number ? this.self : this.peers.get(number);
  }

  /**
   * Has a resource of this client destroyed, which the program has closed and this client forgotten: whatever fails, for
   * them it is gone, and nobody announces it to a next broker.
   */
  destroy(operation: string, type: ResourceTypeName, handle: Handle): void {
    try {
      this.request({ operation, handle }, "destroy", { type, handle });
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
      // Somebody else may have destroyed it just before. A broker that could not be asked is told when it can be.
      if (error.code !== "NOT_FOUND") this.tell("destroy", { type, handle });
    }
  }

  /** Forgets a resource of this client, and releases its share. */
  forget(type: ResourceTypeName, handle: Handle): void {
    const share = this.holdings.get(type, handle)?.share;
    if (share !== undefined) this.medium.release(share);
    this.holdings.forget(type, handle);
  }

  // --- Finding a broker -----------------------------------------------------------------------------------------------

  async #join(signal: AbortSignal | undefined): Promise<void> {
    const deadline = performance.now() + this.#options.timeout;
    let delay = RETRY.first;
    for (;;) {
      signal?.throwIfAborted();
      if (this.#greet(deadline, "openVmci")) return;
      if (performance.now() > deadline) throw this.#silent({ operation: "openVmci" });
      await pause(delay, signal);
      delay = Math.min(2 * delay, RETRY.most);
    }
  }

  /**
   * Connects and says hello, or waits on for the answer to the hello that was said before.
   *
   * @returns `false` when there is nobody to connect to now, or the broker went away before it answered.
   * @throws {VmciError} UNAVAILABLE when it does not answer in time; then the next call waits on.
   */
  #greet(deadline: number, operation: string): boolean {
    const greeting = this.#greeting ??= this.#sayHello(deadline);
    if (greeting === undefined) return false;
    const { connection, id } = greeting;
    const packet = this.#awaitReply(connection, id, deadline);
    if (packet === undefined) throw this.#silent({ operation });
    this.#greeting = undefined;
    if (packet === "closed") {
      connection.close();
      return false;
    }
    const error = replyError(packet.message);
    if (error !== undefined || packet.incomplete) {
      connection.close();
      throw new VmciError(error?.code ?? "NO_RESOURCES", { operation, reason: error?.reason ?? OUT_OF_DESCRIPTORS });
    }
    this.#welcomed(connection, packet);
    return true;
  }

  #sayHello(deadline: number): Greeting | undefined {
    const connection = this.medium.tryConnect();
    if (connection === undefined) return undefined;
    const { context, flags, observer } = this.#options;
    const args: Requests["hello"] = {
      protocol: PROTOCOL_VERSION,
      version: VERSION,
      // Once it has a context it keeps it, and the context its flags.
      context: this.#hello?.context ?? context ?? null,
      flags: this.#hello?.flags ?? flags,
      slot: this.medium.slot,
      client: this.#hello?.client ?? null,
      ticket: this.#hello?.ticket ?? null,
      observer,
    };
    const id = this.#ask(connection, "hello", args, [this.#attentionShare], deadline);
    if (typeof id === "number") return { connection, id };
    connection.close();
    return undefined;
  }

  #welcomed(connection: Connection, packet: Packet): void {
    const [notice, share] = packet.shares;
    const bell = this.medium.openBell(share!);
    try {
      this.#notice = this.medium.openWord(notice!);
    } catch (error) {
      bell.close();
      connection.close();
      throw error;
    }
    this.#hello = packet.message.result as Results["hello"];
    this.#connection = connection;
    this.#noticeWord = this.#notice.word;
    this.#noticeSeen = Atomics.load(this.#noticeWord, 0);
    this.#bell = bell;
    this.#bell.listen(
      () => {
        this.#drain();
        this.waiting.wake();
      },
      () => {
        this.#lost(connection);
        this.#dispatch();
        this.waiting.wake();
      },
    );
  }

  /** The broker is gone. What it had said before that, and rung for or not, is still to be handled. */
  #lost(connection: Connection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#takeIn(connection);
    connection.close();
    this.#notice?.close();
    this.#notice = undefined;
    this.#noticeWord = new Int32Array(1);
    this.#noticeSeen = 0;
    this.#bell?.close();
    this.#bell = undefined;
    this.#unanswered.brokerGone();
    this.#untold.length = 0;
    this.#retryAt = 0;
    if (!this.#closed) this.#retryLater(0);
  }

  /** Takes in what is left in a connection whose other end is gone. */
  #takeIn(connection: Connection): void {
    try {
      for (let packet = connection.receive(0); typeof packet === "object"; packet = connection.receive(0)) {
        this.#arrived.push(packet);
      }
    } catch {
      // What cannot be taken in is lost with the broker.
    }
  }

  #retryLater(delay: number): void {
    if (this.#retryTimer !== undefined) return;
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      this.#retryAt = 0;
      this.#retry();
      this.waiting.wake();
    }, delay);
    // It must not keep a program alive that waits for nothing.
    this.#retryTimer.unref();
  }

  /** Tries once to find a broker, and if there is none, sees to it that this is tried again. */
  #retry(): void {
    if (this.#closed || this.#ready || this.#recovering) return;
    if (performance.now() < this.#retryAt) return;
    // What it owes may have come: nothing else tells.
    if (this.#connection !== undefined) this.#drain();
    const { timeout } = this.#options;
    this.#patience = Math.min(timeout, PATIENCE.announcing);
    try {
      // A broker that owes answers is asked nothing more: it would hold this thread up again.
      const owed = this.#connection !== undefined && this.#unanswered.size > 0;
      if (!owed && this.#recover(performance.now() + Math.min(timeout, PATIENCE.greeting), "find the broker")) {
        this.#retryDelay = RETRY.first;
        return;
      }
    } catch {
      // Whoever asks for something next is told why; until then lanes and regions go on without a broker.
    } finally {
      this.#patience = timeout;
    }
    this.#retryDelay = Math.min(2 * this.#retryDelay, RETRY.most);
    this.#retryAt = performance.now() + this.#retryDelay;
    this.#retryLater(this.#retryDelay);
  }

  /** Finds a broker now, for a request that needs one. */
  #reconnect(subject: Subject, deadline: number): Connection {
    for (let delay = RETRY.first;; delay = Math.min(2 * delay, RETRY.most)) {
      try {
        if (this.#recover(deadline, subject.operation)) return this.#connection!;
      } catch (error) {
        // What the program asked for, not what had to be asked before that.
        if (!(error instanceof VmciError)) throw error;
        throw new VmciError(error.code, { ...subject, reason: error.reason, cause: error });
      }
      if (performance.now() > deadline) throw this.#silent(subject);
      sleep(delay);
    }
  }

  /** Connects, greets and announces; `false` when there is nobody to connect to now, or it went away meanwhile. */
  #recover(deadline: number, operation: string): boolean {
    if (this.#connection === undefined) {
      if (!this.#greet(deadline, operation)) return false;
      this.#unannounced = true;
    }
    // If announcing is broken off it is done all over: a broker can be told twice.
    if (this.#ready) return true;
    this.#recovering = true;
    try {
      this.#announce();
      const lost = this.#refused.splice(0);
      this.#unannounced = false;
      for (const hook of this.#recoveredHooks) hook(this.#hello!.pid, lost);
      return true;
    } catch (error) {
      if (error instanceof BrokerGone) return false;
      throw error;
    } finally {
      this.#recovering = false;
    }
  }

  #announce(): void {
    const operation = "announce";
    // What the broker before has said is part of what this client has; even if that is handled just now.
    this.#handleArrived();
    for (const holding of [...this.holdings]) {
      const { type, handle, size, creatorOnly, ticket, share } = holding;
      const shares = share === undefined ? [] : [share];
      const resource = { type, handle, size, creatorOnly, ticket };
      const { accepted } = this.request({ operation }, "announce_resource", resource, shares).result;
      if (accepted) {
        for (const entries of this.holdings.entries(holding)) {
          const { refused } = this.request({ operation, handle }, "announce_entries", entries).result;
          // Somebody else has them now, and is not to lose them to this client under a later broker.
          for (const name of refused) this.holdings.loseName(type, handle, name);
        }
      } else {
        this.#refused.push(handle);
        holding.gone();
      }
    }
    const belongs = this.holdings.publicEntries();
    if (belongs !== undefined) this.request({ operation }, "announce_entries", belongs);
    // First: whom it has a bell with is given no other one for what it announces, and watches, now.
    for (const peers of pages(this.peers.numbers)) this.request({ operation }, "announce_peers", { peers });
    for (const announcer of this.#announcers) announcer();
    this.request({ operation }, "announced", {});
  }

  // --- Leaving --------------------------------------------------------------------------------------------------------

  /** Leaves the fabric. The broker drops what this client has. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    const last = this.#sayBye();
    this.#closed = true;
    sessions.delete(this);
    clearTimeout(this.#retryTimer);
    this.waiting.failAll(closedMeanwhile);
    this.waiting.close();
    this.#greeting?.connection.close();
    this.#connection?.close();
    this.#connection = undefined;
    this.#notice?.close();
    this.#noticeWord = new Int32Array(1);
    this.#bell?.close();
    for (const hook of this.#closeHooks) hook();
    this.peers.close();
    for (const packet of this.#arrived.splice(0)) {
      for (const share of packet.shares) this.medium.release(share);
    }
    for (const { type, handle } of [...this.holdings]) this.forget(type, handle);
    this.#attentionWord.close();
    this.medium.release(this.#attentionShare);
    return this.medium.close(last);
  }

  /**
   * Tells a broker of this process' own that this client leaves.
   *
   * @returns Whether it was the last one, so that the broker ends too.
   */
  #sayBye(): boolean {
    const connection = this.#connection;
    if (connection === undefined || !this.medium.hostsBroker) return false;
    try {
      const packet = this.#exchange(connection, "bye", {}, [], performance.now() + this.#options.timeout);
      return typeof packet === "object" && (packet.message.result as Results["bye"]).last;
    } catch {
      // It hears that the connection is closed.
      return false;
    }
  }
}

/** Holds the thread for a moment: only while another process starts its broker. */
function sleep(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  const abort = () => resolve();
  signal?.addEventListener("abort", abort, { once: true });
  await promise;
  clearTimeout(timer);
  signal?.removeEventListener("abort", abort);
  signal?.throwIfAborted();
}

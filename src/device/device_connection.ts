/**
 * The control channel of a device: the program's requests are answered here, by the broker of this process, by the
 * device and by the service that keeps names. And the other ends of all lanes, which take datagrams to the device and
 * bring them from it.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import type { VmciEvent } from "../event.ts";
import { PUBLIC_GROUP } from "../fabric/broker.ts";
import type { Connection, Packet, Share } from "../fabric/medium.ts";
import { type NoticeName, type Notices, replyError, type Requests } from "../fabric/protocol.ts";
import {
  formatHandle,
  type Handle,
  HYPERVISOR_CONTEXT,
  INVALID_ID,
  isInvalidHandle,
  WELL_KNOWN_CONTEXT,
} from "../handle.ts";
import { LANE_SIZE } from "../lane/ring.ts";
import { PUBLIC_GROUP_NAME } from "../limits.ts";
import { ResultCode, resultCodeName } from "../result_code.ts";
import type { Arrival, Carrier, CarrierPort, CarrierSource } from "./carrier.ts";
import { noMemory } from "./device_memory.ts";
import { DsClient } from "./ds_client.ts";
import { IncomingFlow } from "./incoming_flow.ts";
import { DirectBell, LocalBroker } from "./local_broker.ts";
import { entry, NameWatches } from "./name_watches.ts";
import { OutgoingFlow } from "./outgoing_flow.ts";
import { canBegin, decodeFrame, encodeRefusal, FrameKind } from "./reliable.ts";

/** What a connection is made of. */
export interface DeviceConnectionOptions {
  /** Where the carrier comes from. */
  readonly source: CarrierSource;
  /** What the device is called in errors. */
  readonly kind: string;
  /** Whether datagrams are numbered and acknowledged. */
  readonly reliable: boolean;
  /** Where the discovery service is. */
  readonly service: Handle;
  /** Called when it may have become another time, or another descriptor, that it waits for. */
  readonly changed: () => void;
  /** Tells the program something. */
  readonly emit: (event: VmciEvent) => void;
}

/** One port of this program, and what comes to it. */
interface Endpoint {
  /** Its handle; the invalid handle for what is sent without a source. */
  readonly handle: Handle;
  readonly port: CarrierPort;
  /** By the source's handle. */
  readonly incoming: Map<string, IncomingFlow>;
  /** Sources that may not send here and were told of. */
  readonly refused: Set<string>;
  /** What waits for room: until there is some, nothing more is taken in. */
  full: IncomingFlow | undefined;
  /** How many datagrams the kernel had dropped when it was asked last. */
  dropped: number;
  /** Until when it stays only for what is still on its way from it; `undefined` as long as the program has it. */
  leaving: number | undefined;
}

/** So many datagrams are taken in from one port before the others have their turn. */
const BATCH = 256;

/** So many sources send at once; each costs a lane. Above that, those go of which everything is read. */
const MOST_SOURCES = 256;

/** A program is told of so many sources that may not send to an endpoint. */
const MOST_REFUSED = 1024;

/** Milliseconds for which a port stays for what is still on its way from it. */
const LINGER = 1000;

/**
 * Milliseconds between two looks at what came for a program that waits for nothing: who sends numbered datagrams wants to
 * hear something, and takes for gone who is silent.
 */
const ATTEND = 500;

/** Requests that a device has no answer to. */
const ofMemory: ReadonlySet<string> = new Set(["create_region", "attach", "query", "detach", "watch_region"]);

/** See the module's comment. */
export class DeviceConnection implements Connection {
  readonly #options: DeviceConnectionOptions;
  readonly #inbox: Packet[] = [];
  readonly #notice = new Int32Array(1);
  /** This end, and the program's. */
  readonly #bell = DirectBell.pair();
  readonly #endpoints = new Map<string, Endpoint>();
  /** By lane; its number is also that of the peer that stands for it. */
  readonly #outgoing = new Map<number, OutgoingFlow>();
  /** Those of them that something is on its way of. */
  readonly #active = new Set<OutgoingFlow>();
  /** By lane. */
  readonly #incoming = new Map<number, readonly [Endpoint, IncomingFlow]>();
  /** Those that something came to since they were acknowledged. */
  readonly #heard = new Map<IncomingFlow, Endpoint>();
  readonly #watches: NameWatches;
  #carrier: Carrier | undefined;
  #broker: LocalBroker | undefined;
  #names: DsClient | undefined;
  #anonymous: Endpoint | undefined;
  /** Lanes to the device count down: the broker of this process numbers those from it, and counts up. */
  #nextLane = INVALID_ID;
  #workedAt = 0;
  #working = false;
  #ended = false;
  #ringing = false;

  constructor(options: DeviceConnectionOptions) {
    this.#options = options;
    this.#watches = new NameWatches((notice) => this.#tell("name", notice));
  }

  // --- What the medium asks -------------------------------------------------------------------------------------------

  /** Whether it is over. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether something is on its way from here. */
  get busy(): boolean {
    return !this.#ended && this.#active.size > 0;
  }

  /** What is readable when something has come. */
  get descriptors(): number[] {
    const descriptors = new Set<number>();
    for (const { port, full } of this.#ports()) if (full === undefined) descriptors.add(port.descriptor);
    if (this.#names !== undefined) descriptors.add(this.#names.descriptor);
    return [...descriptors];
  }

  /** When something is to be done next, in milliseconds; `Infinity` when nothing is. */
  get due(): number {
    let due = Math.min(this.#names?.due ?? Infinity, this.#watches.due);
    for (const flow of this.#active) due = Math.min(due, flow.due);
    for (const { leaving } of this.#ports()) due = Math.min(due, leaving ?? Infinity);
    if (this.#options.reliable && this.#endpoints.size > 0) due = Math.min(due, this.#workedAt + ATTEND);
    return due;
  }

  /** Has the program look. */
  ring(): void {
    if (!this.#ended) this.#bell[0].ring();
  }

  /** Takes in what has come, sends what can be sent, and does what it is time for. */
  work(): void {
    if (this.#working || this.#ended || this.#carrier === undefined) return;
    this.#working = true;
    try {
      const now = this.#workedAt = performance.now();
      for (const endpoint of [...this.#ports()]) this.#receive(endpoint, now);
      for (const flow of [...this.#active]) this.#pumpLater(flow, now);
      this.#acknowledge();
      if (this.#names !== undefined) {
        this.#names.work(now);
        this.#watches.work(this.#names, now);
      }
      for (const endpoint of [...this.#ports()]) {
        if (endpoint.leaving !== undefined) this.#leave(endpoint, now);
      }
    } finally {
      this.#working = false;
    }
    this.#options.changed();
  }

  /** Gives everything back. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#names?.close();
    for (const { port } of this.#ports()) port.close();
    if (this.#carrier === undefined) this.#options.source.close();
    else this.#carrier.close();
  }

  // --- The control channel --------------------------------------------------------------------------------------------

  send(packet: Packet, timeout: number): "sent" {
    const { id, op, args } = packet.message as { id: number; op: string; args: unknown };
    this.#changeNotice();
    try {
      if (ofMemory.has(op)) throw noMemory(op);
      const answer = this.#answer(op, args, timeout);
      if (answer === undefined) {
        this.#broker!.handle(packet);
      } else {
        const { shares = [], ...result } = answer;
        this.#inbox.push({ message: { id, result }, shares });
      }
      if (op === "destroy") this.#destroyed(id, args as Requests["destroy"]);
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
      const { code, reason } = error;
      this.#inbox.push({ message: { id, error: { code, reason } }, shares: [] });
    }
    this.#options.changed();
    return "sent";
  }

  receive(): Packet | undefined {
    let packet = this.#inbox.shift();
    if (packet !== undefined) return packet;
    this.work();
    packet = this.#inbox.shift();
    if (packet === undefined) this.#changeNotice();
    return packet;
  }

  /** The session has left; the medium ends this when nothing is on its way any more. */
  close(): void {}

  /** What a request is answered with here; `undefined` when the broker is to answer. */
  #answer(op: string, args: unknown, timeout: number): Answer | undefined {
    switch (op) {
      case "hello":
        return this.#enter(args as Requests["hello"]);
      case "create_endpoint":
        return this.#create(args as Requests["create_endpoint"]);
      case "open_lane":
        return this.#openLane(args as Requests["open_lane"]);
      case "close_lane":
        return this.#closeLane(args as Requests["close_lane"]);
      case "add_member":
        this.#broker!.meet((args as Requests["add_member"]).member);
        return undefined;
      case "register":
        return this.#register(args as Requests["register"], timeout);
      case "lookup": {
        const { name } = args as Requests["lookup"];
        if (name === PUBLIC_GROUP_NAME) return { handle: PUBLIC_GROUP };
        return { handle: this.#service().lookup(name, timeout) };
      }
      case "unregister": {
        const { name } = args as Requests["unregister"];
        if (name === PUBLIC_GROUP_NAME) throw refusal("NO_ACCESS", "that name belongs to nobody");
        this.#service().unregister(name, timeout);
        return {};
      }
      case "list": {
        const { prefix, after } = args as Requests["list"];
        const found = this.#service().list(prefix, after ?? undefined, timeout);
        return { entries: found.map(({ name, handle }) => entry(name, handle)), more: false };
      }
      case "watch_names":
        return this.#watchNames(args as Requests["watch_names"], timeout);
      case "unwatch_names":
        this.#watches.remove((args as Requests["unwatch_names"]).watch);
        return {};
      default:
        return undefined;
    }
  }

  /** Becomes a context, and has the broker of this process greet the program in it. */
  #enter(args: Requests["hello"]): undefined {
    const carrier = this.#options.source.enter(args.context ?? undefined, args.flags);
    this.#carrier = carrier;
    args.context = carrier.context;
    this.#broker = new LocalBroker(this.#options.kind, {
      packet: (packet, kind) =>
        this.#inbox.push(kind === "welcome" ? { ...packet, shares: [this.#notice, this.#bell[1]] } : packet),
      laneClosed: (lane) => this.#forgetIncoming(lane),
      room: () => this.#roomMade(),
    });
    return undefined;
  }

  #create({ resource, wellKnown }: Requests["create_endpoint"]): Answer {
    if (wellKnown && (resource === null || resource === INVALID_ID)) {
      throw refusal("INVALID_ARGS", "a handle of one's own choice needs an id");
    }
    const port = this.#carrier!.open(wellKnown ? resource! : undefined);
    const handle = { context: this.#carrier!.context, resource: port.number };
    this.#endpoints.set(formatHandle(handle), newEndpoint(handle, port));
    this.#broker!.addEndpoint(handle);
    return { handle, ticket: "" };
  }

  /** An endpoint was destroyed, if the broker's reply says so. */
  #destroyed(id: number, { type, handle }: Requests["destroy"]): void {
    const reply = this.#inbox.findLast(({ message }) => message.id === id);
    const endpoint = this.#endpoints.get(formatHandle(handle));
    if (type !== "DATAGRAM" || endpoint === undefined) return;
    if (reply === undefined || replyError(reply.message) !== undefined) return;
    this.#names?.forget(handle);
    for (const flow of [...this.#outgoing.values()]) {
      if (flow.port === endpoint.port && !this.#active.has(flow)) this.#forgetOutgoing(flow);
    }
    const now = performance.now();
    endpoint.leaving = now + LINGER;
    this.#leave(endpoint, now);
  }

  /** Gives the port of a destroyed endpoint back, when nothing is on its way from it any more. */
  #leave(endpoint: Endpoint, now: number): void {
    const flows = [...this.#active].filter(({ port }) => port === endpoint.port);
    if (flows.length > 0 && now < endpoint.leaving!) return;
    for (const flow of flows) this.#forgetOutgoing(flow);
    for (const [number, [of]] of [...this.#incoming]) if (of === endpoint) this.#incoming.delete(number);
    for (const [flow, of] of [...this.#heard]) if (of === endpoint) this.#heard.delete(flow);
    this.#endpoints.delete(formatHandle(endpoint.handle));
    endpoint.port.close();
  }

  // --- Names ----------------------------------------------------------------------------------------------------------

  #service(): DsClient {
    if (this.#names === undefined) {
      this.#names = new DsClient(this.#carrier!.open(undefined), this.#options.service);
    }
    return this.#names;
  }

  #register({ name, handle }: Requests["register"], timeout: number): Answer {
    if (handle.context !== this.#carrier!.context) {
      if (isInvalidHandle(handle)) throw refusal("INVALID_ARGS", "the invalid handle cannot have a name");
      throw refusal("NO_ACCESS", `it belongs to context ${handle.context}, and a context names its own only`);
    }
    this.#service().register(name, handle, timeout);
    return {};
  }

  #watchNames({ watch, prefix, exact }: Requests["watch_names"], timeout: number): Answer {
    if (exact && prefix === PUBLIC_GROUP_NAME) {
      this.#watches.add(watch, prefix, exact, [{ name: prefix, handle: PUBLIC_GROUP }]);
      return {};
    }
    const found = exact ? this.#exactly(prefix, timeout) : this.#service().list(prefix, undefined, timeout);
    this.#watches.add(watch, prefix, exact, found);
    return {};
  }

  #exactly(name: string, timeout: number): { readonly name: string; readonly handle: Handle }[] {
    try {
      return [{ name, handle: this.#service().lookup(name, timeout) }];
    } catch (error) {
      if (error instanceof VmciError && error.code === "NOT_FOUND") return [];
      throw error;
    }
  }

  // --- Sending --------------------------------------------------------------------------------------------------------

  #openLane({ source, destination }: Requests["open_lane"]): Answer {
    const endpoint = this.#sourceOf(source);
    const { context, resource } = destination;
    if (context === HYPERVISOR_CONTEXT || context === WELL_KNOWN_CONTEXT) {
      throw refusal("DST_UNREACHABLE", "a device reaches the host, and the host its virtual machines");
    }
    if (isInvalidHandle(destination) || resource === 0 || resource === INVALID_ID) {
      throw refusal("INVALID_ARGS", `${formatHandle(destination)} is no datagram handle`);
    }
    for (const old of [...this.#outgoing.values()]) {
      // A sender that asks again has closed the lane it had.
      const same = old.port === endpoint.port && formatHandle(old.destination) === formatHandle(destination);
      if (same && !this.#active.has(old)) this.#forgetOutgoing(old);
    }
    const lane = --this.#nextLane;
    const buffer = new ArrayBuffer(LANE_SIZE);
    const room = () => this.#ringSoon();
    const flow = new OutgoingFlow(lane, source, destination, endpoint.port, buffer, this.#options.reliable, room);
    this.#outgoing.set(lane, flow);
    const [own, theirs] = DirectBell.pair();
    own.onRung = () => this.#pump(flow);
    // A word that is always up: this end is rung for every datagram.
    const shares = [buffer, theirs, new Int32Array([1])];
    return { lane, peer: lane, fresh: true, ticket: "", shares };
  }

  #sourceOf(source: Handle): Endpoint {
    if (isInvalidHandle(source)) {
      return this.#anonymous ??= newEndpoint(source, this.#carrier!.open(undefined));
    }
    const endpoint = this.#endpoints.get(formatHandle(source));
    if (endpoint === undefined || endpoint.leaving !== undefined) {
      throw refusal("INVALID_ARGS", `there is no source ${formatHandle(source)}`);
    }
    return endpoint;
  }

  #closeLane({ lane }: Requests["close_lane"]): Answer | undefined {
    const flow = this.#outgoing.get(lane);
    if (flow === undefined) return undefined;
    if (!this.#active.has(flow)) this.#forgetOutgoing(flow);
    return {};
  }

  /** The program has put a datagram into a lane: what is wrong with it is told to who sends it. */
  #pump(flow: OutgoingFlow): void {
    if (this.#ended || !this.#outgoing.has(flow.lane)) return;
    const first = !this.#active.has(flow);
    try {
      flow.pump(performance.now());
    } catch (error) {
      if (first && error instanceof VmciError) {
        this.#closeOutgoing(flow, "gone");
        const { code, reason, cause } = error;
        const operation = isInvalidHandle(flow.source) ? "datagrams.sendTo" : "sendTo";
        throw new VmciError(code, { operation, handle: flow.destination, reason, cause });
      }
      this.#failed(flow, error);
    }
    this.#mark(flow);
    if (this.#active.has(flow)) this.#options.changed();
  }

  /** Nobody is there who could be told otherwise. */
  #pumpLater(flow: OutgoingFlow, now: number): void {
    try {
      if (!flow.pump(now)) this.#lose(flow);
    } catch (error) {
      this.#failed(flow, error);
    }
    this.#mark(flow);
  }

  #failed(flow: OutgoingFlow, error: unknown): void {
    if (!(error instanceof VmciError)) throw error;
    this.#lose(flow);
  }

  #mark(flow: OutgoingFlow): void {
    if (flow.idle || !this.#outgoing.has(flow.lane)) this.#active.delete(flow);
    else this.#active.add(flow);
  }

  /** The receiver is gone, with what had not arrived. */
  #lose(flow: OutgoingFlow): void {
    const { destination, outstanding } = flow;
    this.#closeOutgoing(flow, "gone");
    if (outstanding > 0) this.#options.emit({ type: "datagrams-lost", destination, bytes: outstanding });
    this.#ringSoon();
  }

  #closeOutgoing(flow: OutgoingFlow, cause: "gone" | "revoked"): void {
    this.#tell("lane_closed", { lane: flow.lane, cause });
    this.#forgetOutgoing(flow);
  }

  #forgetOutgoing(flow: OutgoingFlow): void {
    this.#outgoing.delete(flow.lane);
    this.#active.delete(flow);
    this.#tell("peer_gone", { peer: flow.lane });
  }

  // --- Receiving ------------------------------------------------------------------------------------------------------

  *#ports(): Iterable<Endpoint> {
    yield* this.#endpoints.values();
    if (this.#anonymous !== undefined) yield this.#anonymous;
  }

  #receive(endpoint: Endpoint, now: number): void {
    const { port, handle } = endpoint;
    let count = 0;
    for (; count < BATCH; count++) {
      if (endpoint.full !== undefined) {
        endpoint.full.drain();
        if (endpoint.full.full) break;
        endpoint.full = undefined;
      }
      const arrival = port.receive();
      if (arrival === undefined) break;
      if (this.#options.reliable) this.#hear(endpoint, arrival, now);
      else this.#deliver(endpoint, arrival);
    }
    if (count === 0 || this.#options.reliable) return;
    const { dropped } = port;
    const more = (dropped - endpoint.dropped) >>> 0;
    endpoint.dropped = dropped;
    if (more > 0) this.#options.emit({ type: "datagrams-dropped", handle, count: more });
  }

  #deliver(endpoint: Endpoint, { source, payload }: Arrival): void {
    const flow = this.#incomingOf(endpoint, source);
    if (!(flow instanceof IncomingFlow)) return;
    flow.deliver(payload);
    if (flow.full) endpoint.full = flow;
  }

  /** Something came that should be a frame; what is none is no sender's of numbered datagrams. */
  #hear(endpoint: Endpoint, { source, payload }: Arrival, now: number): void {
    const frame = decodeFrame(payload);
    if (frame === undefined) return;
    if (frame.kind !== FrameKind.DATA) {
      for (const flow of this.#outgoing.values()) {
        if (flow.port !== endpoint.port || formatHandle(flow.destination) !== formatHandle(source)) continue;
        const code = flow.hear(frame, now);
        if (code === undefined) continue;
        if (resultCodeName(code) !== "NO_ACCESS") this.#lose(flow);
        else this.#closeOutgoing(flow, "revoked");
      }
      return;
    }
    const known = endpoint.incoming.get(formatHandle(source));
    if (known?.epoch !== frame.epoch && !canBegin(frame)) {
      // Its receiver was another program, which is gone; or it may send here no more.
      const may = known ?? this.#incomingOf(endpoint, source);
      return this.#refuse(endpoint, source, frame.epoch, may instanceof VmciError ? may.code : "DST_UNREACHABLE");
    }
    const flow = this.#incomingOf(endpoint, source);
    if (flow === undefined) return;
    if (!(flow instanceof IncomingFlow)) return this.#refuse(endpoint, source, frame.epoch, flow.code);
    flow.accept(frame);
    this.#heard.set(flow, endpoint);
  }

  #refuse(endpoint: Endpoint, source: Handle, epoch: number, code: keyof typeof ResultCode): void {
    this.#say(endpoint, source, encodeRefusal(epoch, ResultCode[code]));
  }

  /** Says something to a sender; if it does not arrive, it asks again. */
  #say(endpoint: Endpoint, to: Handle, frame: Uint8Array<ArrayBuffer>): void {
    try {
      endpoint.port.send(to, frame);
    } catch (error) {
      // It is gone: then nobody asks.
      if (!(error instanceof VmciError)) throw error;
    }
  }

  #acknowledge(): void {
    for (const [flow, endpoint] of this.#heard) {
      const frame = flow.acknowledgement();
      if (frame !== undefined) this.#say(endpoint, flow.source, frame);
    }
    this.#heard.clear();
  }

  /** The lane for what comes from a source; the refusal when that may not send here; `undefined` when there is no room. */
  #incomingOf(endpoint: Endpoint, source: Handle): IncomingFlow | VmciError | undefined {
    const key = formatHandle(source);
    const known = endpoint.incoming.get(key);
    if (known !== undefined) return known;
    if (isInvalidHandle(endpoint.handle) || endpoint.leaving !== undefined) return undefined;
    if (this.#incoming.size >= MOST_SOURCES && !this.#evict()) return undefined;
    const lane = this.#broker!.openLane(source, endpoint.handle, this.#endpoints.has(key));
    if (lane instanceof VmciError) {
      if (!endpoint.refused.has(key) && endpoint.refused.size < MOST_REFUSED) {
        endpoint.refused.add(key);
        this.#options.emit({ type: "datagram-refused", handle: endpoint.handle, source });
      }
      return lane;
    }
    endpoint.refused.delete(key);
    const flow = new IncomingFlow(lane.number, source, lane.buffer);
    endpoint.incoming.set(key, flow);
    this.#incoming.set(lane.number, [endpoint, flow]);
    return flow;
  }

  /** Makes room for another source, where everything of one is read. */
  #evict(): boolean {
    for (const [number, [, flow]] of this.#incoming) {
      if (!flow.idle) continue;
      this.#broker!.closeLane(flow.source, number);
      this.#forgetIncoming(number);
      this.#broker!.forget(flow.source);
      return true;
    }
    return false;
  }

  #forgetIncoming(number: number): void {
    const known = this.#incoming.get(number);
    if (known === undefined) return;
    const [endpoint, flow] = known;
    this.#incoming.delete(number);
    this.#heard.delete(flow);
    endpoint.incoming.delete(formatHandle(flow.source));
    if (endpoint.full === flow) endpoint.full = undefined;
  }

  /** The program has read something that somebody waited for. */
  #roomMade(): void {
    for (const [endpoint, flow] of this.#incoming.values()) {
      if (!flow.full) continue;
      flow.drain();
      if (flow.full) continue;
      if (endpoint.full === flow) endpoint.full = undefined;
      if (this.#options.reliable) this.#heard.set(flow, endpoint);
    }
    if (!this.#working) this.#acknowledge();
    this.#options.changed();
  }

  // --------------------------------------------------------------------------------------------------------------------

  /** What comes from a device changes no word: so the next look is to look here again. */
  #changeNotice(): void {
    Atomics.add(this.#notice, 0, 1);
  }

  #tell<N extends NoticeName>(notice: N, body: Notices[N]): void {
    this.#inbox.push({ message: { notice, ...body }, shares: [] });
  }

  /** Has the program look once it is done with what it does now. */
  #ringSoon(): void {
    if (this.#ringing) return;
    this.#ringing = true;
    queueMicrotask(() => {
      this.#ringing = false;
      this.ring();
    });
  }
}

/** A result, and what goes with it. */
type Answer = { readonly shares?: readonly Share[] } & Readonly<Record<string, unknown>>;

function newEndpoint(handle: Handle, port: CarrierPort): Endpoint {
  return {
    handle,
    port,
    incoming: new Map(),
    refused: new Set(),
    full: undefined,
    dropped: port.dropped,
    leaving: undefined,
  };
}

function refusal(code: "INVALID_ARGS" | "NO_ACCESS" | "DST_UNREACHABLE", reason: string): VmciError {
  return new VmciError(code, { operation: "decide", reason });
}

/**
 * The driver of VMCI, through its node.
 *
 * @module
 */

import { addressOf } from "../../ffi/libc.ts";
import { VmciError } from "../error.ts";
import { type ContextId, FIRST_VM_CONTEXT, type Handle, HOST_CONTEXT, INVALID_ID, isHandle, isId } from "../handle.ts";
import type { WaitOptions } from "../lane/waiters.ts";
import { MAX_DATAGRAM_SIZE, MAX_PAYLOAD_SIZE } from "../limits.ts";
import { ResultCode } from "../result_code.ts";
import type { Subject } from "../subject.ts";
import { CONTROL_RESOURCE } from "./control_packet.ts";
import { type DeviceDatagram, type DeviceEvent, encodeDatagram } from "./device_datagram.ts";
import { badReply, checkResult } from "./device_error.ts";
import { DeviceInbox } from "./device_inbox.ts";
import type { DeviceStream } from "./device_stream.ts";
import { DeviceWaits } from "./device_waits.ts";
import { Driver } from "./driver.ts";
import { CheckpointInfo, ContextInfo, DatagramInfo, NotifyResourceInfo, WatchInfo, Word } from "./layouts.ts";
import { NotifyByte } from "./notify_byte.ts";
import { QueuePair, type QueuePairOptions } from "./queue_pair.ts";
import { formatVersion, VmciRequest, VmciVersion } from "./requests.ts";
import { type ConnectOptions, StreamControl, type StreamListener } from "./stream_control.ts";
import { Structure } from "./structure.ts";
import { createDatagramProcess, type DatagramProcessOptions, WorkstationSixRequests } from "./workstation_six.ts";

/** How a device is opened. */
export interface OpenDeviceOptions {
  /** The node; `/dev/vmci` by default. */
  readonly path?: string | undefined;
  /** The version that is announced, `major << 16 | minor`; 11.0 by default. `null` announces none yet. */
  readonly version?: number | null | undefined;
}

/** What kind of context a descriptor becomes. */
export interface InitContextOptions {
  /** The id that is wanted; 16 by default. The driver gives the next free one when it is taken. */
  readonly context?: ContextId | undefined;
  /** Whether another id than the one wanted is an error. */
  readonly exact?: boolean | undefined;
  /** Whether the context is restricted: it then reaches only the hypervisor, and the host's sockets of its own user. */
  readonly restricted?: boolean | undefined;
}

/** The parts of a context's state that can be read and written, for virtual machines that are suspended. */
export type CheckpointKind = "watches" | "doorbells";

const DEFAULT_PATH = "/dev/vmci";

const RESTRICTED = 1;

/** What NOTIFY_RESOURCE does, and to what. */
const NOTIFY_DOORBELL = 1;
const NotifyAction = { NOTIFY: 0, CREATE: 1, DESTROY: 2 } as const;

/** The numbers of the parts of a context's state, the bytes of one entry, and where in it the id is. */
const checkpoints = { watches: { kind: 1, size: 4, id: 0 }, doorbells: { kind: 6, size: 16, id: 4 } } as const;

/** A context's state is never larger: that would be 65,536 doorbells. */
const MOST_CHECKPOINT = 1 << 20;

/**
 * The driver of VMCI on Linux, through `/dev/vmci`: a program that opens it and calls {@linkcode VmciDevice.initContext}
 * is a context of the driver, as a virtual machine is. It reaches the host's sockets (`AF_VSOCK`) and itself.
 *
 * The node belongs to root as a rule. Every wait has an `AbortSignal` and a timeout, and a device that is closed gives
 * everything back: its context id, doorbells, watches and queue pairs.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open();
 * const context = device.initContext();
 * device.send({ context, resource: 7 }, 8, new TextEncoder().encode("hello"));
 * const { source, payload } = await device.receive({ timeout: 1000 });
 * console.log(source, new TextDecoder().decode(payload));
 * ```
 */
export class VmciDevice implements Disposable {
  /** The node's path. */
  readonly path: string;
  /** The version of the driver: `major << 16 | minor`. */
  readonly driverVersion: number;
  /** The requests of the first generation, which drivers since 2011 do not have. */
  readonly workstation6: WorkstationSixRequests;
  readonly #driver: Driver;
  readonly #inbox: DeviceInbox;
  readonly #waits: DeviceWaits;
  readonly #queuePairs = new Set<QueuePair>();
  #version: number | undefined;
  #context: ContextId | undefined;
  #process: Handle | undefined;
  /** The datagram that is sent; made at the first one. */
  #outgoing: Uint8Array<ArrayBuffer> | undefined;
  /**
   * Ids in a row from anywhere: the host stays attached for a moment to queue pairs of a context that is gone, whose id
   * this one may have got.
   */
  #nextQueuePair = 0x10000 + crypto.getRandomValues(new Uint32Array(1))[0]! % 0x4000_0000;
  #streams: StreamControl | undefined;
  #notifyByte: NotifyByte | undefined;

  private constructor(path: string) {
    this.path = path;
    this.#driver = new Driver("open", path);
    this.#inbox = new DeviceInbox(this.#driver);
    this.#waits = new DeviceWaits(this.#driver.fd, () => this.#inbox.refresh());
    try {
      this.driverVersion = this.#askVersion();
    } catch (error) {
      this.#driver.close();
      throw error;
    }
    this.#inbox.onEvent = (event) => this.#forward(event);
    this.#inbox.onRoom = () => this.#waits.watchAgain();
    this.workstation6 = new WorkstationSixRequests(this.#driver, this.driverVersion);
  }

  /**
   * Opens a device and agrees on a version with its driver.
   *
   * @param options Which node, and which version to announce.
   * @returns The device, which is no context yet.
   * @throws {VmciError} DEVICE_NOT_FOUND when the node is missing, has no driver, or is not VMCI's; NO_ACCESS when this
   * user may not open it; INVALID_ARGS for a version that cannot be; UNAVAILABLE on another system than Linux.
   *
   * @example
   * ```ts ignore
   * import { formatVersion, VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open({ path: "/dev/vmci" });
   * console.log(formatVersion(device.driverVersion), device.hostContext());
   * ```
   */
  static open(options: OpenDeviceOptions = {}): VmciDevice {
    const device = new VmciDevice(options.path ?? DEFAULT_PATH);
    try {
      const version = options.version === undefined ? VmciVersion.NO_VM_TO_VM : options.version;
      if (version !== null) device.negotiate(version);
      return device;
    } catch (error) {
      device.close();
      throw error;
    }
  }

  // --- Version and context --------------------------------------------------------------------------------------------

  /**
   * The version agreed on with the driver.
   *
   * @returns `major << 16 | minor`; `undefined` before {@linkcode VmciDevice.negotiate}.
   */
  get version(): number | undefined {
    return this.#version;
  }

  /**
   * The own context id.
   *
   * @returns The id; `undefined` before {@linkcode VmciDevice.initContext}.
   */
  get context(): ContextId | undefined {
    return this.#context;
  }

  /**
   * Whether the device is closed.
   *
   * @returns `true` after {@linkcode VmciDevice.close}.
   */
  get closed(): boolean {
    return !this.#driver.open;
  }

  /**
   * The descriptor, for those who wait for several at once.
   *
   * @ignore Internal to the library.
   */
  get descriptor(): number {
    return this.#driver.fd;
  }

  /**
   * Announces a version and learns the one to use: the driver's own, when that is older.
   *
   * @param version `major << 16 | minor`, from 1.0.
   * @returns The version that both sides keep to from now on.
   * @throws {VmciError} INVALID_ARGS for a version that cannot be, and for a device that is a context already.
   */
  negotiate(version: number): number {
    const subject = { operation: "negotiate" };
    if (!isId(version) || version < VmciVersion.WORKSTATION_6 || version > 0x7FFF_FFFF) {
      throw new VmciError("INVALID_ARGS", {
        ...subject,
        reason: `a version is major << 16 | minor, from 0x10000 (1.0) to 0x7fffffff: received ${version}`,
      });
    }
    this.#assertNew(subject);
    // A driver remembers what was announced, not what it answered.
    const agreed = this.#announce(subject, version);
    if (agreed < version) this.#announce(subject, agreed);
    return this.#version = Math.min(agreed, version);
  }

  /**
   * Makes the device a context. Its id is free again when the device is closed.
   *
   * @param options Which id is wanted, and whether the context is restricted.
   * @returns The id that the driver gave.
   * @throws {VmciError} ALREADY_EXISTS when the id is taken and `exact` is set: the device is closed then; INVALID_ARGS
   * for an id that cannot be, for a device that is a context already, and before a version is agreed on.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * console.log(device.initContext({ context: 100, exact: true })); // 100
   * ```
   */
  initContext(options: InitContextOptions = {}): ContextId {
    const subject = { operation: "initContext" };
    const wanted = options.context ?? FIRST_VM_CONTEXT;
    if (!isId(wanted) || wanted === INVALID_ID) {
      throw new VmciError("INVALID_ARGS", {
        ...subject,
        reason: `a context id is a whole number from 0 to 4294967294: received ${wanted}`,
      });
    }
    this.#assertNew(subject);
    if (this.#version === undefined) {
      throw new VmciError("INVALID_ARGS", { ...subject, reason: "no version is agreed on; call negotiate first" });
    }
    const flags = options.restricted ? RESTRICTED : 0;
    const reply = this.#driver.ask(subject, VmciRequest.INIT_CONTEXT, ContextInfo, { context: wanted, flags });
    const given = reply.get("context");
    if (given === INVALID_ID) throw badReply(subject.operation, "a context without an id");
    this.#context = given;
    if (options.exact && given !== wanted) {
      this.close();
      throw new VmciError("ALREADY_EXISTS", {
        ...subject,
        reason: `the context id ${wanted} is taken, and ${given} was free; choose another or leave exact out`,
      });
    }
    return given;
  }

  /**
   * The context id of the machine this program runs on: 2 on a host.
   *
   * @returns The id. It is not this device's own.
   * @throws {VmciError} INVALID_RESOURCE when the device is closed.
   */
  hostContext(): ContextId {
    return this.#driver.ask({ operation: "hostContext" }, VmciRequest.GET_CONTEXT_ID, Word, {}).get("value");
  }

  // --- Datagrams ------------------------------------------------------------------------------------------------------

  /**
   * Sends one datagram. It never waits: the datagram is queued or refused.
   *
   * @param destination Where to: the own context, or the host's (2) with a socket's port as the resource.
   * @param source The resource of the own context that it comes from, any number; or the whole handle.
   * @param payload 0 to 69,608 bytes; they are copied.
   * @returns The number of bytes of the payload.
   * @throws {VmciError} DST_UNREACHABLE for another context; INVALID_RESOURCE when no socket is bound to that port;
   * NO_RESOURCES when the receiver's queue is full; NO_ACCESS for a restricted context, or a source of another context;
   * INVALID_ARGS for a payload that is too large, and when the device is no context.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext();
   * device.send({ context: 2, resource: 5000 }, 1, new TextEncoder().encode("to the host's port 5000"));
   * ```
   */
  send(destination: Handle, source: number | Handle, payload: Uint8Array): number {
    const subject = { operation: "send", handle: destination };
    const from = typeof source === "number" ? { context: this.#endpoint(subject), resource: source } : source;
    this.#endpoint(subject);
    assertHandle("send", "a destination", destination);
    assertHandle("send", "a source", from);
    if (payload.length > MAX_PAYLOAD_SIZE) {
      throw new VmciError("INVALID_ARGS", {
        ...subject,
        reason: `a payload has at most ${MAX_PAYLOAD_SIZE} bytes: received ${payload.length}`,
      });
    }
    const outgoing = this.#outgoing ??= new Uint8Array(new ArrayBuffer(MAX_DATAGRAM_SIZE));
    const length = encodeDatagram(outgoing, destination, from, payload);
    const values = { address: addressOf(outgoing), length };
    const reply = this.#driver.ask(subject, VmciRequest.DATAGRAM_SEND, DatagramInfo, values);
    const sent = checkResult(subject, reply.get("result"));
    if (sent > length) throw badReply("send", `${sent} bytes were sent of ${length}`, destination);
    return payload.length;
  }

  /**
   * Waits for the next datagram. What was queued before the first look comes in the order it was sent, although the
   * driver hands out the last first; what arrives while the queue is being emptied may come before what is older.
   *
   * @param options How the wait may end.
   * @returns The datagram.
   * @throws {VmciError} TIMEOUT; INVALID_RESOURCE when the device is or gets closed; INVALID_ARGS when it is no context;
   * GENERIC when the driver's reply makes no sense. The signal's reason when it was aborted.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext();
   * const { destination, source, payload } = await device.receive({ signal: AbortSignal.timeout(5000) });
   * console.log(`${payload.length} bytes from ${source.context} for ${destination.resource}`);
   * ```
   */
  receive(options?: WaitOptions): Promise<DeviceDatagram> {
    return this.#wait({ operation: "receive" }, () => this.#inbox.shift(), options);
  }

  /**
   * As {@linkcode VmciDevice.receive}, without turning the event loop.
   *
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @returns The datagram.
   * @throws {VmciError} As `receive`.
   */
  receiveSync(timeout: number = -1): DeviceDatagram {
    const subject = { operation: "receiveSync" };
    this.#endpoint(subject);
    return this.#waits.waitSync(subject, () => this.#inbox.shift(), timeout);
  }

  /**
   * The next datagram, if there is one.
   *
   * @returns The datagram, or `undefined`.
   * @throws {VmciError} As `receive`, but for TIMEOUT.
   */
  tryReceive(): DeviceDatagram | undefined {
    this.#endpoint({ operation: "tryReceive" });
    if (this.#inbox.datagrams.length === 0) this.#waits.refresh();
    return this.#inbox.shift();
  }

  // --- Events ---------------------------------------------------------------------------------------------------------

  /**
   * Waits for the next event: a watched context that goes, a peer that attaches to or detaches from a queue pair.
   *
   * @param options How the wait may end.
   * @returns The event.
   * @throws {VmciError} As `receive`.
   */
  nextEvent(options?: WaitOptions): Promise<DeviceEvent> {
    return this.#wait({ operation: "nextEvent" }, () => this.#inbox.events.shift(), options);
  }

  /**
   * The next event, if there is one.
   *
   * @returns The event, or `undefined`.
   * @throws {VmciError} As `receive`, but for TIMEOUT.
   */
  tryNextEvent(): DeviceEvent | undefined {
    this.#endpoint({ operation: "tryNextEvent" });
    if (this.#inbox.events.length === 0) this.#waits.refresh();
    return this.#inbox.events.shift();
  }

  /**
   * Asks to be told when a context goes; the event is `context-removed`. A context may watch the host and the reserved
   * ids; only the well-known context (1) may watch any.
   *
   * @param context The context's id.
   * @throws {VmciError} DST_UNREACHABLE for another context; ALREADY_EXISTS when it is watched already; NO_ACCESS for a
   * restricted context.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext({ context: 1 });
   * device.watchContext(100);
   * console.log(await device.nextEvent()); // { type: "context-removed", context: 100 }
   * ```
   */
  watchContext(context: ContextId): void {
    this.#watch("watchContext", VmciRequest.CTX_ADD_NOTIFICATION, context);
  }

  /**
   * Takes {@linkcode VmciDevice.watchContext} back.
   *
   * @param context The context's id.
   * @throws {VmciError} NOT_FOUND when it is not watched.
   */
  unwatchContext(context: ContextId): void {
    this.#watch("unwatchContext", VmciRequest.CTX_REMOVE_NOTIFICATION, context);
  }

  // --- Doorbells ------------------------------------------------------------------------------------------------------

  /**
   * Makes a doorbell of this context. There may be 4,096.
   *
   * @param resource Its resource id.
   * @returns Its handle.
   * @throws {VmciError} DUPLICATE_ENTRY when it is there already; NO_MEM when there are too many; OBSOLETE when the
   * agreed version is below 10.0.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext();
   * const doorbell = device.createDoorbell(7);
   * device.ringDoorbell(doorbell);
   * console.log(await device.receiveDoorbells()); // [doorbell]
   * ```
   */
  createDoorbell(resource: number): Handle {
    const context = this.#own({ operation: "createDoorbell" });
    const handle = { context, resource };
    this.#notify("createDoorbell", handle, NotifyAction.CREATE);
    this.#inbox.expectDoorbells();
    return handle;
  }

  /**
   * Rings a doorbell. Until it is received, ringing it again changes nothing.
   *
   * @param handle The doorbell: of this context, or of the well-known one (1).
   * @throws {VmciError} NOT_FOUND when there is no such doorbell; DST_UNREACHABLE for another context's; OBSOLETE when
   * the agreed version is below 10.0.
   */
  ringDoorbell(handle: Handle): void {
    this.#notify("ringDoorbell", handle, NotifyAction.NOTIFY);
  }

  /**
   * Destroys a doorbell of this context.
   *
   * @param handle The doorbell.
   * @throws {VmciError} NOT_FOUND when there is no such doorbell.
   */
  destroyDoorbell(handle: Handle): void {
    this.#notify("destroyDoorbell", handle, NotifyAction.DESTROY);
    this.#inbox.rung.delete(`${handle.context}:${handle.resource}`);
  }

  /**
   * Waits for doorbells to be rung.
   *
   * @param options How the wait may end.
   * @returns All that were rung since the last call, each once.
   * @throws {VmciError} As `receive`.
   */
  receiveDoorbells(options?: WaitOptions): Promise<Handle[]> {
    return this.#wait({ operation: "receiveDoorbells" }, () => this.#inbox.shiftDoorbells(), options);
  }

  /**
   * The doorbells that were rung since the last call.
   *
   * @returns Their handles, each once; empty when none was.
   * @throws {VmciError} As `receive`, but for TIMEOUT.
   */
  tryReceiveDoorbells(): Handle[] {
    this.#endpoint({ operation: "tryReceiveDoorbells" });
    this.#waits.refresh();
    return this.#inbox.shiftDoorbells() ?? [];
  }

  // --- Memory ---------------------------------------------------------------------------------------------------------

  /**
   * Has the driver keep a byte that says whether something waits. A context has one at most.
   *
   * @returns The byte.
   * @throws {VmciError} DUPLICATE_ENTRY when there is one; NO_MEM.
   */
  notifyByte(): NotifyByte {
    this.#own({ operation: "notifyByte" });
    return this.#notifyByte = new NotifyByte(this.#driver);
  }

  /**
   * Creates a queue pair in memory of this process, or attaches to one that the peer created.
   *
   * @param options The sizes, and who may attach.
   * @returns The queue pair.
   * @throws {VmciError} DST_UNREACHABLE when the peer is another context; NOT_FOUND when there is nothing to attach to;
   * ALREADY_EXISTS when the handle is taken; NO_RESOURCES for more than 128 MiB; INVALID_ARGS, INVALID_SIZE and
   * NOT_PAGE_ALIGNED for sizes and memory that cannot be; NO_MEM; OBSOLETE when the agreed version is below 9.0.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext();
   * using pair = device.openQueuePair({ produceSize: 65536, consumeSize: 65536, peer: 2 });
   * console.log(pair.handle, pair.tryWrite(new Uint8Array(100))); // 100
   * ```
   */
  openQueuePair(options: QueuePairOptions): QueuePair {
    const subject = { operation: "openQueuePair" };
    const context = this.#own(subject);
    if (this.#version! < VmciVersion.HOST_QUEUE_PAIRS) throw this.#tooOld(subject, VmciVersion.HOST_QUEUE_PAIRS);
    const handle = options.handle ?? { context, resource: this.#nextQueuePair++ };
    assertHandle(subject.operation, "a queue pair", handle);
    const pair = new QueuePair(this.#driver, this.#waits, this.#version!, handle, options, () => {
      this.#queuePairs.delete(pair);
    });
    this.#queuePairs.add(pair);
    return pair;
  }

  // --- Streams --------------------------------------------------------------------------------------------------------

  /**
   * Connects to a stream socket of the host (`AF_VSOCK`), as a program in a virtual machine does.
   *
   * @param options The host's port, the size of the queues, and how the wait may end.
   * @returns The stream.
   * @throws {VmciError} NOT_FOUND when nobody listens there; TIMEOUT; INVALID_ARGS and INVALID_SIZE for a port or
   * a size that cannot be; NO_ACCESS for a restricted context and a socket of another user. The signal's reason when it
   * was aborted.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext();
   * using stream = await device.connect({ port: 5000 });
   * await stream.write(new TextEncoder().encode("hello"));
   * ```
   */
  async connect(options: ConnectOptions): Promise<DeviceStream> {
    return await this.#streamControl({ operation: "connect" }).connect(options);
  }

  /**
   * Listens for stream sockets of the host that connect to this context. They are answered while somebody waits for
   * anything of this device, such as for the next stream.
   *
   * @param options The own port.
   * @returns The listener.
   * @throws {VmciError} DUPLICATE_ENTRY when the port is taken; INVALID_ARGS for a port that cannot be.
   *
   * @example
   * ```ts ignore
   * import { VmciDevice } from "@vmci/vmci/device";
   *
   * using device = VmciDevice.open();
   * device.initContext({ context: 100 });
   * using listener = device.listen({ port: 5000 });
   * using stream = await listener.accept();
   * console.log(stream.remoteAddr);
   * ```
   */
  listen(options: { readonly port: number }): StreamListener {
    return this.#streamControl({ operation: "listen" }).listen(options.port);
  }

  // --- State ----------------------------------------------------------------------------------------------------------

  /**
   * Reads a part of the context's state: the contexts it watches, or its doorbells.
   *
   * @param kind Which part.
   * @returns Context ids, or the resource ids of doorbells.
   * @throws {VmciError} INVALID_ARGS when the driver does not have that part; GENERIC when its reply makes no sense.
   */
  checkpointState(kind: CheckpointKind): number[] {
    const subject = { operation: "checkpointState" };
    this.#own(subject);
    const entry = checkpoints[kind];
    let buffer = new Uint8Array(new ArrayBuffer(256 * entry.size));
    for (;;) {
      const [result, length] = this.#checkpoint(
        subject,
        VmciRequest.CTX_GET_CPT_STATE,
        entry.kind,
        buffer,
        buffer.length,
      );
      if (result === ResultCode.MORE_DATA && length > buffer.length && length <= MOST_CHECKPOINT) {
        buffer = new Uint8Array(new ArrayBuffer(length));
        continue;
      }
      checkResult(subject, result);
      if (length > buffer.length || length % entry.size !== 0) {
        throw badReply(subject.operation, `${length} bytes of ${kind} in a buffer of ${buffer.length}`);
      }
      const view = new DataView(buffer.buffer);
      return Array.from({ length: length / entry.size }, (_, i) => view.getUint32(i * entry.size + entry.id, true));
    }
  }

  /**
   * Writes a part of the context's state: the contexts it watches.
   *
   * @param kind Which part; drivers take `"watches"`.
   * @param ids Context ids, or the resource ids of doorbells.
   * @throws {VmciError} INVALID_ARGS when the driver does not take that part.
   */
  restoreCheckpoint(kind: CheckpointKind, ids: readonly number[]): void {
    const subject = { operation: "restoreCheckpoint" };
    const context = this.#own(subject);
    const entry = checkpoints[kind];
    const buffer = new Uint8Array(new ArrayBuffer(Math.max(1, ids.length) * entry.size));
    const view = new DataView(buffer.buffer);
    ids.forEach((id, i) => {
      if (kind === "doorbells") view.setUint32(i * entry.size, context, true);
      view.setUint32(i * entry.size + entry.id, id, true);
    });
    const length = ids.length * entry.size;
    const [result] = this.#checkpoint(subject, VmciRequest.CTX_SET_CPT_STATE, entry.kind, buffer, length);
    checkResult(subject, result);
  }

  // --- The first generation -------------------------------------------------------------------------------------------

  /**
   * Makes the device a datagram handle instead of a context, as programs did before 2011. Afterwards `send` and
   * `receive` are that handle's.
   *
   * @param options The resource id and flags.
   * @returns The handle.
   * @throws {VmciError} OBSOLETE when the driver is of 2011 or later.
   */
  createDatagramProcess(options: DatagramProcessOptions = {}): Handle {
    this.#assertNew({ operation: "createDatagramProcess" });
    this.#process = createDatagramProcess(this.#driver, this.driverVersion, options);
    this.#inbox.blocking = true;
    return this.#process;
  }

  // --- Anything else --------------------------------------------------------------------------------------------------

  /**
   * Makes any request. The driver believes what it is given: with a wrong structure, or a wrong address in it, it may
   * write anywhere in this process.
   *
   * @param request The request's number.
   * @param structure The request's structure, which is filled; `null` for none.
   * @returns What the driver returned, 0 or above.
   * @throws {VmciError} With the error number as its cause.
   */
  unsafeRequest(request: number, structure: Uint8Array<ArrayBuffer> | null): number {
    return this.#driver.request({ operation: "unsafeRequest" }, request, structure);
  }

  /**
   * Closes the device: the context and all that it has are gone, and pending waits end with INVALID_RESOURCE. Closing
   * again does nothing.
   *
   * @throws {VmciError} What the system says of it; the device is closed all the same.
   */
  close(): void {
    if (this.closed) return;
    this.#waits.failAll((subject) =>
      new VmciError("INVALID_RESOURCE", { ...subject, reason: `the device ${this.path} was closed` })
    );
    const failures: unknown[] = [];
    for (const part of [this.#driver, ...this.#queuePairs, this.#notifyByte]) {
      try {
        part?.close();
      } catch (error) {
        // The others are closed all the same.
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  /** As {@linkcode VmciDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  // --------------------------------------------------------------------------------------------------------------------

  #askVersion(): number {
    const version = this.#driver.tryRequest({ operation: "open" }, VmciRequest.VERSION, null);
    if (version !== undefined && version >= VmciVersion.WORKSTATION_6) return version;
    const answer = version === undefined ? "does not answer" : `answers ${version}`;
    throw new VmciError("DEVICE_NOT_FOUND", {
      operation: "open",
      reason: `${this.path} is not VMCI's: it ${answer} when asked for its version; the node is ${DEFAULT_PATH}`,
    });
  }

  #announce(subject: Subject, version: number): number {
    const word = new Structure(Word, { value: version });
    // The first drivers knew no such request.
    const agreed = this.#driver.tryRequest(subject, VmciRequest.VERSION2, word.bytes) ?? this.driverVersion;
    if (agreed < VmciVersion.WORKSTATION_6) throw badReply(subject.operation, `the version ${agreed}`);
    return agreed;
  }

  #assertNew(subject: Subject): void {
    this.#driver.assertOpen(subject);
    if (this.#context === undefined && this.#process === undefined) return;
    throw new VmciError("INVALID_ARGS", {
      ...subject,
      reason: this.#context === undefined
        ? "this device is a datagram handle already; open another"
        : `this device is the context ${this.#context} already; open another`,
    });
  }

  /** The own context, which this must be. */
  #own(subject: Subject): ContextId {
    this.#driver.assertOpen(subject);
    if (this.#context !== undefined) return this.#context;
    throw new VmciError("INVALID_ARGS", {
      ...subject,
      reason: "this device is no context yet; call initContext first",
    });
  }

  /** The context that datagrams come from: the own one, or the datagram handle's. */
  #endpoint(subject: Subject): ContextId {
    if (this.#process === undefined) return this.#own(subject);
    this.#driver.assertOpen(subject);
    return this.#process.context;
  }

  #wait<T>(subject: Subject, look: () => T | undefined, options: WaitOptions | undefined): Promise<T> {
    try {
      this.#endpoint(subject);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#waits.wait(subject, look, options);
  }

  #watch(operation: string, request: number, context: ContextId): void {
    const subject = { operation, handle: { context, resource: 0 } };
    this.#own(subject);
    assertHandle(operation, "a context", subject.handle);
    checkResult(subject, this.#driver.ask(subject, request, WatchInfo, { context }).get("result"));
  }

  #notify(operation: string, handle: Handle, action: number): void {
    const subject = { operation, handle };
    this.#own(subject);
    if (this.#version! < VmciVersion.DOORBELLS) throw this.#tooOld(subject, VmciVersion.DOORBELLS);
    assertHandle(operation, "a doorbell", handle);
    const values = { handle, resource: NOTIFY_DOORBELL, action };
    const reply = this.#driver.ask(subject, VmciRequest.NOTIFY_RESOURCE, NotifyResourceInfo, values);
    checkResult(subject, reply.get("result"), { NO_MEM: "a context has at most 4096 doorbells" });
  }

  #tooOld(subject: Subject, needed: number): VmciError {
    const reason = `the version agreed on is ${formatVersion(this.#version!)}, and this needs ${formatVersion(needed)}`;
    return new VmciError("OBSOLETE", { ...subject, reason });
  }

  #checkpoint(
    subject: Subject,
    request: number,
    kind: number,
    buffer: Uint8Array<ArrayBuffer>,
    length: number,
  ): [result: number, length: number] {
    const reply = this.#driver.ask(subject, request, CheckpointInfo, { address: addressOf(buffer), kind, length });
    return [reply.get("result"), reply.get("length")];
  }

  /** What makes streams; from the first call on, control packets are not received as datagrams any more. */
  #streamControl(subject: Subject): StreamControl {
    const context = this.#own(subject);
    if (this.#streams !== undefined) return this.#streams;
    const control = { context, resource: CONTROL_RESOURCE };
    const streams = this.#streams = new StreamControl({
      context,
      send: (payload) => this.send({ context: HOST_CONTEXT, resource: CONTROL_RESOURCE }, control, payload),
      openQueuePair: (options) => this.openQueuePair(options),
      wait: (about, look, options) => this.#wait(about, look, options),
      wake: () => this.#waits.wake(),
    });
    this.#inbox.onDatagram = (datagram) => streams.receive(datagram);
    return streams;
  }

  /** Tells a queue pair of its peer. */
  #forward(event: DeviceEvent): void {
    if (event.type !== "peer-attached" && event.type !== "peer-detached") return;
    for (const pair of this.#queuePairs) pair.onPeer(event);
  }
}

function assertHandle(operation: string, what: string, handle: Handle): void {
  if (isHandle(handle)) return;
  throw new VmciError("INVALID_ARGS", {
    operation,
    reason: `${what} has unsigned 32-bit numbers: received ${Deno.inspect(handle)}`,
  });
}

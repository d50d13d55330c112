/**
 * Making streams: a context's half of the protocol of VMCI Sockets.
 *
 * A context that connects asks (REQUEST2), is told the size of the queues (NEGOTIATE2), creates a queue pair and names it
 * (OFFER), and is told that the host is attached (ATTACH). Where the host connects, the host makes the queue pair and
 * this side attaches. Either side tells the other what it wrote and read, and when it is done.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { type ContextId, HOST_CONTEXT } from "../handle.ts";
import type { Look, WaitOptions } from "../lane/waiters.ts";
import { failureOf, type Subject } from "../subject.ts";
import {
  CONTROL_RESOURCE,
  type ControlPacket,
  ControlType,
  decodeControl,
  encodeControl,
  handleValue,
  PROTOCOL_NOTIFY,
  Shutdown,
  valueHandle,
} from "./control_packet.ts";
import type { DeviceDatagram } from "./device_datagram.ts";
import { DeviceStream, type StreamAddress } from "./device_stream.ts";
import type { QueuePair, QueuePairOptions } from "./queue_pair.ts";

/** What making streams needs of the device. */
export interface StreamDevice {
  /** The context. */
  readonly context: ContextId;
  /** Sends a datagram from the resource of control packets to the host's. */
  send(payload: Uint8Array<ArrayBuffer>): void;
  /** Creates a queue pair or attaches to one. */
  openQueuePair(options: QueuePairOptions): QueuePair;
  /** Waits for what packets bring. */
  wait<T>(subject: Subject, look: Look<T>, options: WaitOptions | undefined): Promise<T>;
  /** Everybody who waits looks again. */
  wake(): void;
}

/** How a stream is made. */
export interface ConnectOptions extends WaitOptions {
  /** The host's port. */
  readonly port: number;
  /** Bytes of each of the two queues, 128 to 262,144; the host may make them smaller. 262,144 by default. */
  readonly bufferSize?: number | undefined;
}

/** The limits of the sizes of queues, as the host's sockets have them unless they were told otherwise. */
const LEAST_BUFFER = 128;
const MOST_BUFFER = 262144;

/** Ports that are given to streams of this side. */
const FIRST_PORT = 49152;
const PORTS = 16384;

/** So many streams may wait to be accepted. */
const MOST_PENDING = 128;

/** One stream in the making, or made. */
interface Link {
  readonly local: number;
  readonly remote: number;
  /** The listener it came to; none for one that was asked for here. */
  readonly listener: StreamListener | undefined;
  size: number;
  pair: QueuePair | undefined;
  stream: DeviceStream | undefined;
  /** Why there will be no stream. */
  failure: VmciError | undefined;
}

/** All streams of one context. */
export class StreamControl {
  readonly #device: StreamDevice;
  readonly #links = new Map<string, Link>();
  readonly #listeners = new Map<number, StreamListener>();
  #lastPort = Math.floor(Math.random() * PORTS);

  /** @param device Whose. */
  constructor(device: StreamDevice) {
    this.#device = device;
  }

  /**
   * Connects to a port of the host.
   *
   * @param options Which port, and how the wait may end.
   * @returns The stream.
   */
  async connect(options: ConnectOptions): Promise<DeviceStream> {
    const { port, bufferSize = MOST_BUFFER } = options;
    assertPort("connect", port);
    if (!Number.isInteger(bufferSize) || bufferSize < LEAST_BUFFER || bufferSize > MOST_BUFFER) {
      throw new VmciError("INVALID_SIZE", {
        operation: "connect",
        reason: `a queue has ${LEAST_BUFFER} to ${MOST_BUFFER} bytes: received ${bufferSize}`,
      });
    }
    options.signal?.throwIfAborted();
    const subject = { operation: "connect", handle: { context: HOST_CONTEXT, resource: port } };
    const link = this.#addLink(this.#freePort(port), port, undefined, bufferSize);
    const look = () => {
      if (link.failure !== undefined) throw link.failure;
      return link.stream;
    };
    try {
      this.#send(link, ControlType.REQUEST2, BigInt(bufferSize), PROTOCOL_NOTIFY);
      return await this.#device.wait(subject, look, options);
    } catch (error) {
      if (this.#links.has(keyOf(link.local, link.remote))) this.#drop(link, true);
      // The host's sockets answer so at once, or by a packet.
      if (error instanceof VmciError && error.code === "NOT_FOUND") throw refused(port);
      throw failureOf(subject, error);
    }
  }

  /**
   * Takes streams that the host's sockets ask for.
   *
   * @param port The own port.
   * @returns The listener.
   */
  listen(port: number): StreamListener {
    assertPort("listen", port);
    if (this.#listeners.has(port)) {
      throw new VmciError("DUPLICATE_ENTRY", { operation: "listen", reason: `port ${port} is listened on already` });
    }
    const address: StreamAddress = { transport: "vsock", cid: this.#device.context, port };
    const listener = new StreamListener(address, this.#device, () => {
      this.#listeners.delete(port);
      for (const link of [...this.#links.values()]) {
        if (link.listener === listener && link.stream === undefined) this.#drop(link, true);
      }
    });
    this.#listeners.set(port, listener);
    return listener;
  }

  /**
   * Looks whether a datagram is a control packet, and does what it says.
   *
   * @param datagram What was received.
   * @returns Whether it was one.
   */
  receive({ destination, source, payload }: DeviceDatagram): boolean {
    if (destination.resource !== CONTROL_RESOURCE) return false;
    if (source.context !== HOST_CONTEXT || source.resource !== CONTROL_RESOURCE) return false;
    const packet = decodeControl(payload);
    if (packet === undefined) return false;
    const link = this.#links.get(keyOf(packet.destination, packet.source));
    try {
      if (link !== undefined) this.#advance(link, packet);
      else this.#begin(packet);
    } catch (error) {
      // It is that stream's misfortune and nobody else's.
      if (!(error instanceof VmciError)) throw error;
      if (link !== undefined) {
        link.failure ??= error;
        this.#drop(link, true);
      }
    }
    return true;
  }

  #begin(packet: ControlPacket): void {
    if (packet.type === ControlType.RESET) return;
    const listener = this.#listeners.get(packet.destination);
    const size = Number(packet.value);
    const wanted = packet.type === ControlType.REQUEST2 && (packet.protocol & PROTOCOL_NOTIFY) !== 0;
    if (!wanted || listener === undefined || this.#isFull(listener) || size < LEAST_BUFFER) {
      this.#send({ local: packet.destination, remote: packet.source }, ControlType.RESET, 0n);
      return;
    }
    const link = this.#addLink(packet.destination, packet.source, listener, Math.min(size, MOST_BUFFER));
    this.#send(link, ControlType.NEGOTIATE2, BigInt(link.size), PROTOCOL_NOTIFY);
  }

  /** Whether as many streams wait, or are in the making, as may. */
  #isFull(listener: StreamListener): boolean {
    let count = listener.waiting;
    for (const link of this.#links.values()) if (link.listener === listener && link.stream === undefined) count++;
    return count >= MOST_PENDING;
  }

  #advance(link: Link, packet: ControlPacket): void {
    switch (packet.type) {
      case ControlType.NEGOTIATE2:
        if (link.listener === undefined && link.pair === undefined) this.#offer(link, Number(packet.value));
        break;
      case ControlType.OFFER:
        if (link.listener !== undefined && link.pair === undefined) this.#attach(link, packet);
        break;
      case ControlType.ATTACH:
        if (link.listener === undefined && link.stream === undefined && link.pair !== undefined) {
          this.#establish(link, link.pair);
        }
        break;
      case ControlType.WROTE:
      case ControlType.READ:
        link.pair?.wake();
        break;
      case ControlType.SHUTDOWN:
        if ((packet.value & BigInt(Shutdown.SEND)) !== 0n) link.pair?.endOfPeersWriting();
        if ((packet.value & BigInt(Shutdown.RECEIVE)) !== 0n) link.pair?.endOfPeersReading();
        break;
      case ControlType.RESET:
        link.failure ??= refused(link.remote);
        this.#drop(link, false);
        break;
    }
  }

  /** The host says how large the queues may be: the queue pair is made and named to it. */
  #offer(link: Link, size: number): void {
    if (size < LEAST_BUFFER || size > link.size) {
      throw new VmciError("QUEUEPAIR_MISMATCH", {
        operation: "connect",
        reason: `the host wants queues of ${size} bytes, this side offered ${link.size}`,
      });
    }
    link.size = size;
    const pair = link.pair = this.#device.openQueuePair({ produceSize: size, consumeSize: size, peer: HOST_CONTEXT });
    this.#send(link, ControlType.OFFER, handleValue(pair.handle));
  }

  /** The host names its queue pair: this side attaches to it. */
  #attach(link: Link, packet: ControlPacket): void {
    const pair = link.pair = this.#device.openQueuePair({
      handle: valueHandle(packet.value),
      produceSize: link.size,
      consumeSize: link.size,
      peer: HOST_CONTEXT,
      attach: true,
    });
    this.#send(link, ControlType.ATTACH, handleValue(pair.handle));
    link.listener!.add(this.#establish(link, pair));
  }

  #establish(link: Link, pair: QueuePair): DeviceStream {
    pair.signals = {
      wrote: () => this.#send(link, ControlType.WROTE, 0n),
      read: () => this.#send(link, ControlType.READ, 0n),
    };
    const control = {
      endOfWriting: () => {
        try {
          this.#send(link, ControlType.SHUTDOWN, BigInt(Shutdown.SEND));
        } catch (error) {
          // The host has closed its end, with everything read: there is nobody to be told.
          if (!(error instanceof VmciError) || error.code !== "NOT_FOUND") throw error;
        }
      },
      over: () => {
        this.#links.delete(keyOf(link.local, link.remote));
        this.#trySend(link, ControlType.SHUTDOWN, BigInt(Shutdown.BOTH));
      },
    };
    const local: StreamAddress = { transport: "vsock", cid: this.#device.context, port: link.local };
    const remote: StreamAddress = { transport: "vsock", cid: HOST_CONTEXT, port: link.remote };
    return link.stream = new DeviceStream(pair, control, local, remote);
  }

  /** There is no such stream any more. What was received can still be read. */
  #drop(link: Link, tell: boolean): void {
    this.#links.delete(keyOf(link.local, link.remote));
    if (tell) this.#trySend(link, ControlType.RESET, 0n);
    if (link.stream === undefined) {
      link.pair?.close();
      return;
    }
    link.pair?.endOfPeersWriting();
    link.pair?.endOfPeersReading();
  }

  #send(link: Pick<Link, "local" | "remote">, type: number, value: bigint, protocol = 0): void {
    this.#device.send(encodeControl({ type, protocol, source: link.local, destination: link.remote, value }));
  }

  /** Says something to a host that perhaps does not listen any more. */
  #trySend(link: Link, type: number, value: bigint): void {
    try {
      this.#send(link, type, value);
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
    }
  }

  #addLink(local: number, remote: number, listener: StreamListener | undefined, size: number): Link {
    const link: Link = { local, remote, listener, size, pair: undefined, stream: undefined, failure: undefined };
    this.#links.set(keyOf(local, remote), link);
    return link;
  }

  #freePort(remote: number): number {
    for (let tries = 0; tries < PORTS; tries++) {
      const port = FIRST_PORT + (this.#lastPort = (this.#lastPort + 1) % PORTS);
      if (!this.#links.has(keyOf(port, remote)) && !this.#listeners.has(port)) return port;
    }
    throw new VmciError("NO_RESOURCES", { operation: "connect", reason: `all ${PORTS} ports have a stream` });
  }
}

/**
 * A port of a context to which the host's sockets connect. {@linkcode VmciDevice.listen} makes it; it has the shape of a
 * `Deno.Listener`.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open();
 * device.initContext({ context: 100 });
 * using listener = device.listen({ port: 5000 });
 * for await (const stream of listener) await stream.readable.pipeTo(stream.writable);
 * ```
 */
export class StreamListener implements Disposable, AsyncIterable<DeviceStream> {
  /** Where it listens. */
  readonly addr: StreamAddress;
  readonly #device: StreamDevice;
  readonly #done: () => void;
  readonly #waiting: DeviceStream[] = [];
  #open = true;

  /** @ignore Use {@linkcode VmciDevice.listen}. */
  constructor(addr: StreamAddress, device: StreamDevice, done: () => void) {
    this.addr = addr;
    this.#device = device;
    this.#done = done;
  }

  /** @ignore How many wait to be accepted. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** @ignore A stream was made. */
  add(stream: DeviceStream): void {
    this.#waiting.push(stream);
  }

  /**
   * Waits for the next stream.
   *
   * @param options How the wait may end.
   * @returns The stream.
   * @throws {VmciError} INVALID_RESOURCE when the listener is closed; TIMEOUT. The signal's reason when it was aborted.
   */
  accept(options?: WaitOptions): Promise<DeviceStream> {
    const look = () => {
      if (this.#open) return this.#waiting.shift();
      throw new VmciError("INVALID_RESOURCE", { operation: "accept", reason: "the listener is closed" });
    };
    return this.#device.wait({ operation: "accept" }, look, options);
  }

  /**
   * The streams as they come, until the listener is closed.
   *
   * @returns An iterator.
   */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<DeviceStream> {
    while (this.#open) {
      let stream: DeviceStream;
      try {
        stream = await this.accept();
      } catch (error) {
        if (!this.#open) return;
        throw error;
      }
      yield stream;
    }
  }

  /** Takes no more streams; those not yet accepted are closed. Closing again does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#done();
    for (const stream of this.#waiting) stream.close();
    this.#device.wake();
  }

  /** As {@linkcode StreamListener.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function refused(port: number): VmciError {
  return new VmciError("NOT_FOUND", {
    operation: "connect",
    handle: { context: HOST_CONTEXT, resource: port },
    reason: `nobody listens on the host's port ${port}, or not for streams`,
  });
}

function keyOf(local: number, remote: number): string {
  return `${local}:${remote}`;
}

function assertPort(operation: string, port: number): void {
  if (Number.isInteger(port) && port >= 0 && port < 0xFFFF_FFFF) return;
  throw new VmciError("INVALID_ARGS", {
    operation,
    reason: `a port is a whole number from 0 to 4294967294: received ${port}`,
  });
}

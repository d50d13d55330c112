/**
 * A datagram handle as a program has it.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import type { Handle } from "./handle.ts";
import { Gathering } from "./lane/gathering.ts";
import { ReceiveBuffer, ReceiveBuffers } from "./lane/receive_buffer.ts";
import type { Look, WaitOptions } from "./lane/waiters.ts";
import { MAX_PAYLOAD_SIZE } from "./limits.ts";
import type { Mailbox } from "./mailbox.ts";
import type { Subject } from "./subject.ts";

const NOWHERE = new ReceiveBuffer<Uint8Array>(new Uint8Array());

/** One datagram as it was received. */
export interface Datagram {
  /** The handle it came from, as the broker knows it; {@linkcode INVALID_HANDLE} when the sender wants no answer. */
  readonly source: Handle;
  /**
   * What was sent: 0 to 69,608 bytes, the receiver's own copy. As small payloads share an ArrayBuffer with others
   * received at the same endpoint, give `byteOffset` along with `payload.buffer`, and transfer a `payload.slice()`.
   */
  readonly payload: Uint8Array<ArrayBuffer>;
}

/**
 * A datagram handle of this program (`VMCIDatagram_CreateHnd` made it): where others send to, and what datagrams sent
 * from here have as their source.
 *
 * Datagrams are whole messages. From one source they arrive in order; several sources are served in turn. A datagram
 * that was accepted is queued in shared memory: it is delivered even if its sender dies.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * using a = vmci.datagrams.create();
 * using b = vmci.datagrams.create();
 *
 * a.sendTo(b.handle, new TextEncoder().encode("hello"));
 * const { source, payload } = await b.receive();
 * assertEquals(source, a.handle);
 * assertEquals(new TextDecoder().decode(payload), "hello");
 * ```
 */
export class DatagramEndpoint implements Disposable, AsyncIterable<Datagram> {
  /** Its handle: the own context and a number that is never given again. */
  readonly handle: Handle;
  readonly #mailbox: Mailbox;
  readonly #receiveIntoSync: Subject;
  readonly #receive: Subject;
  readonly #fresh = new ReceiveBuffers();
  readonly #gathering = new Gathering();
  /** How long the last payload was, and an array for one more. */
  #expected = 0;
  #spare: ReceiveBuffer<Uint8Array<ArrayBuffer>> | undefined;
  /** The program's own buffer, as it gave it last: as a rule it gives it again. */
  #own: ReceiveBuffer = NOWHERE;
  /** Where the datagram goes that is waited for without turning the event loop. */
  #buffer: Uint8Array = NOWHERE.bytes;

  /** @ignore Use {@linkcode Datagrams.create}. */
  constructor(mailbox: Mailbox) {
    this.#mailbox = mailbox;
    this.handle = mailbox.handle;
    this.#receive = { operation: "receive", handle: mailbox.handle };
    this.#receiveIntoSync = { operation: "receiveIntoSync", handle: mailbox.handle };
  }

  /**
   * The source of the datagram that `receiveInto`, `receiveIntoSync` or `tryReceiveInto` took last;
   * {@linkcode INVALID_HANDLE} for a sender who wants no answer, and before the first one.
   *
   * @returns A handle.
   */
  get source(): Handle {
    return this.#mailbox.inbox.source;
  }

  /**
   * Whether it is closed.
   *
   * @returns `true` after {@linkcode DatagramEndpoint.close}, or when somebody with the right destroyed it.
   */
  get closed(): boolean {
    return this.#mailbox.closed;
  }

  /**
   * Sends one datagram (`VMCIDatagram_SendTo`). It never waits: the datagram is queued or refused.
   *
   * @param destination Where to.
   * @param payload 0 to 69,608 bytes; they are copied.
   * @returns The number of bytes of the payload.
   * @throws {VmciError} NO_RESOURCES when the receiver's queue is full, and for the first datagram to it also when it has
   * its quota of senders, or so much else to read that it can be told of none now; NO_ACCESS without DG_SEND on the
   * destination, or by the coarse flags; INVALID_ARGS when there is no such destination, or the payload is too large;
   * DST_UNREACHABLE for the hypervisor, and for a well-known handle that nobody owns; INVALID_RESOURCE when this endpoint
   * is closed; UNAVAILABLE when the broker does not answer.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * assertEquals(endpoint.sendTo(endpoint.handle, new Uint8Array(64)), 64);
   * ```
   */
  sendTo(destination: Handle, payload: Uint8Array): number {
    this.#mailbox.assertOpen("sendTo");
    return this.#mailbox.outbox.send("sendTo", destination, payload);
  }

  /**
   * Whether a payload of that size could be sent now.
   *
   * @param destination Where to.
   * @param size Bytes of payload, 0 to 69,608.
   * @returns `true` when {@linkcode DatagramEndpoint.sendTo} would not find the queue full.
   * @throws {VmciError} As `sendTo`, but not when the queue is full.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assert } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * assert(endpoint.hasRoom(endpoint.handle, 1024));
   * ```
   */
  hasRoom(destination: Handle, size: number): boolean {
    this.#mailbox.assertOpen("hasRoom");
    return this.#mailbox.outbox.hasRoom("hasRoom", destination, size);
  }

  /**
   * Waits until a payload of that size can be sent.
   *
   * @param destination Where to.
   * @param size Bytes of payload, 0 to 69,608.
   * @param options How the wait may end.
   * @returns When there is room. As long as nobody else sends from this endpoint, `sendTo` then succeeds.
   * @throws {VmciError} As `sendTo`; TIMEOUT. The signal's reason when it was aborted.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * const payload = new Uint8Array(65536);
   * endpoint.sendTo(endpoint.handle, payload);
   * endpoint.sendTo(endpoint.handle, payload);
   * assertEquals(endpoint.hasRoom(endpoint.handle, payload.length), false);
   * setTimeout(() => endpoint.tryReceive());
   * await endpoint.room(endpoint.handle, payload.length);
   * endpoint.sendTo(endpoint.handle, payload);
   * ```
   */
  async room(destination: Handle, size: number, options?: WaitOptions): Promise<void> {
    this.#mailbox.assertOpen("room");
    await this.#mailbox.outbox.room("room", destination, size, options);
  }

  /**
   * As {@linkcode DatagramEndpoint.room}, without turning the event loop.
   *
   * @param destination Where to.
   * @param size Bytes of payload, 0 to 69,608.
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @throws {VmciError} As `room`; WOULD_BLOCK on `memory:`.
   */
  roomSync(destination: Handle, size: number, timeout: number = -1): void {
    this.#mailbox.assertOpen("roomSync");
    this.#mailbox.outbox.roomSync("roomSync", destination, size, timeout);
  }

  /**
   * Waits for the next datagram (`VMCIDatagram_RecvFrom`).
   *
   * @param options How the wait may end.
   * @returns The datagram.
   * @throws {VmciError} TIMEOUT; INVALID_RESOURCE when this endpoint is or gets closed. The signal's reason when it was
   * aborted.
   *
   * @example
   * ```ts
   * import { openVmci, VmciError } from "@vmci/vmci";
   * import { assertEquals, assertRejects } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * const error = await assertRejects(() => endpoint.receive({ timeout: 1 }), VmciError);
   * assertEquals(error.code, "TIMEOUT");
   * ```
   */
  receive(options?: WaitOptions): Promise<Datagram> {
    return this.#mailbox.session.wait(this.#receive, this.#lookForDatagram, options);
  }

  /**
   * As {@linkcode DatagramEndpoint.receive}, without turning the event loop.
   *
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @returns The datagram.
   * @throws {VmciError} As `receive`; WOULD_BLOCK on `memory:` when none is there.
   */
  receiveSync(timeout: number = -1): Datagram {
    this.#mailbox.assertOpen("receiveSync");
    const subject = { operation: "receiveSync", handle: this.handle };
    return this.#mailbox.session.waitSync(subject, () => this.#take("receiveSync"), timeout);
  }

  /**
   * The next datagram, if there is one.
   *
   * @returns The datagram, or `undefined`.
   * @throws {VmciError} INVALID_RESOURCE when this endpoint is closed.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * assertEquals(endpoint.tryReceive(), undefined);
   * ```
   */
  tryReceive(): Datagram | undefined {
    this.#mailbox.session.refresh();
    return this.#take("tryReceive");
  }

  /**
   * Waits for the next datagram and puts its payload into a buffer of the caller's; {@linkcode DatagramEndpoint.source}
   * then says who sent it.
   *
   * @param buffer Where the payload goes, from its start.
   * @param options How the wait may end.
   * @returns The number of bytes of the payload.
   * @throws {VmciError} NO_MEM when the buffer is too small: that datagram stays and is the next one delivered.
   * Otherwise as `receive`.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * vmci.datagrams.sendTo(endpoint.handle, new Uint8Array([7, 8]));
   * const buffer = new Uint8Array(4096);
   * assertEquals(await endpoint.receiveInto(buffer), 2);
   * assertEquals(buffer[1], 8);
   * ```
   */
  receiveInto(buffer: Uint8Array, options?: WaitOptions): Promise<number> {
    const subject = { operation: "receiveInto", handle: this.handle };
    return this.#mailbox.session.wait(subject, () => this.#takeInto("receiveInto", buffer), options);
  }

  /**
   * As {@linkcode DatagramEndpoint.receiveInto}, without turning the event loop.
   *
   * @param buffer Where the payload goes, from its start.
   * @param timeout Milliseconds to wait at most; without it, the wait has no end.
   * @returns The number of bytes of the payload.
   * @throws {VmciError} As `receiveInto`; WOULD_BLOCK on `memory:` when none is there.
   */
  receiveIntoSync(buffer: Uint8Array, timeout: number = -1): number {
    this.#mailbox.session.refresh();
    const size = this.#takeInto("receiveIntoSync", buffer);
    if (size !== undefined) return size;
    if (timeout !== 0) this.#gathering.pause(this.#mailbox.inbox.taken);
    this.#buffer = buffer;
    return this.#mailbox.session.waitSync(this.#receiveIntoSync, this.#lookInto, timeout);
  }

  /**
   * Puts the next datagram's payload into a buffer of the caller's, if there is one. It allocates nothing.
   *
   * @param buffer Where the payload goes, from its start.
   * @returns The number of bytes of the payload, or `undefined` when no datagram is there.
   * @throws {VmciError} NO_MEM when the buffer is too small: that datagram stays and is the next one delivered;
   * INVALID_RESOURCE when this endpoint is closed.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * assertEquals(endpoint.tryReceiveInto(new Uint8Array(4096)), undefined);
   * ```
   */
  tryReceiveInto(buffer: Uint8Array): number | undefined {
    this.#mailbox.session.refresh();
    return this.#takeInto("tryReceiveInto", buffer);
  }

  /**
   * The datagrams as they come, until the endpoint is closed.
   *
   * @returns An iterator; several at once share the datagrams between them.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * for (let i = 1; i <= 3; i++) vmci.datagrams.sendTo(endpoint.handle, new Uint8Array(i));
   *
   * const sizes: number[] = [];
   * for await (const { payload } of endpoint) {
   *   if (sizes.push(payload.length) === 3) break;
   * }
   * assertEquals(sizes, [1, 2, 3]);
   * ```
   */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<Datagram> {
    while (!this.closed) {
      let datagram: Datagram;
      try {
        datagram = await this.receive();
      } catch (error) {
        if (this.closed) return;
        throw error;
      }
      yield datagram;
    }
  }

  /**
   * Destroys the handle (`VMCIDatagram_DestroyHnd`): what is queued is dropped, its names go, and pending receives end
   * with INVALID_RESOURCE. Closing again does nothing.
   */
  close(): void {
    this.#mailbox.destroy();
  }

  /** As {@linkcode DatagramEndpoint.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  readonly #lookForDatagram: Look<Datagram> = () => this.#take("receive");
  /** Made once: a wait that blocks leaves no garbage. */
  readonly #lookInto: Look<number> = () => this.#takeInto("receiveIntoSync", this.#buffer);

  #take(operation: string): Datagram | undefined {
    this.#mailbox.assertOpen(operation);
    const { inbox } = this.#mailbox;
    const lane = inbox.next();
    if (lane === undefined) {
      // To make an array takes longer than all else: who waits makes the one that the next datagram will need, as likely
      // as not, while it is not there yet.
      this.#spare ??= this.#fresh.next(this.#expected);
      return undefined;
    }
    const size = lane.consumer.peek();
    const into = this.#spare?.bytes.length === size ? this.#spare : this.#fresh.next(size);
    this.#spare = undefined;
    this.#expected = size;
    inbox.take(lane, into);
    return { source: lane.source, payload: into.bytes };
  }

  #takeInto(operation: string, buffer: Uint8Array): number | undefined {
    this.#mailbox.assertOpen(operation);
    const { inbox } = this.#mailbox;
    const lane = inbox.next();
    if (lane === undefined) return undefined;
    const size = lane.consumer.peek();
    if (size > buffer.length) {
      throw new VmciError("NO_MEM", {
        operation,
        handle: this.handle,
        reason: `the next datagram has ${size} bytes, the buffer ${buffer.length}; ${MAX_PAYLOAD_SIZE} always suffice`,
      });
    }
    if (this.#own.bytes !== buffer) this.#own = ReceiveBuffer.of(buffer);
    inbox.take(lane, this.#own);
    return size;
  }
}

/**
 * What a driver has for a context, taken in and sorted.
 *
 * The driver hands out last what came first. So everything is taken at one go and turned round. What arrives in the
 * middle of that comes before what is older, and nothing in it tells: a sender that needs the order kept while it sends
 * without a pause must number its datagrams.
 *
 * @module
 */

import { addressOf } from "../../ffi/libc.ts";
import { pollDescriptor, PollEvent } from "../../ffi/poll_loop.ts";
import type { Handle } from "../handle.ts";
import { DATAGRAM_HEADER_SIZE, MAX_DATAGRAM_SIZE } from "../limits.ts";
import { ResultCode } from "../result_code.ts";
import { decodeDatagram, type DeviceDatagram, type DeviceEvent, eventOf } from "./device_datagram.ts";
import { badReply, checkResult } from "./device_error.ts";
import type { Driver } from "./driver.ts";
import { DatagramInfo, NotificationsInfo } from "./layouts.ts";
import { VmciRequest } from "./requests.ts";
import { Structure } from "./structure.ts";

/** The driver's queue has room for two of the largest datagrams; what arrives meanwhile gets as much again. */
const ARENA = 4 * MAX_DATAGRAM_SIZE;

/** So many bytes of datagrams, headers included, are taken in before somebody receives them. */
const MOST_BYTES = 1 << 20;

/** So many events are kept for somebody who does not read them; then the oldest go. */
const MOST_EVENTS = 4096;

/** A context has at most so many doorbells. */
const MOST_DOORBELLS = 4096;
const HANDLE_SIZE = 8;

const OPERATION = "receive";

/** Where datagrams are taken to; one for all devices, for it is empty again before anybody else can use it. */
let shared: Uint8Array<ArrayBuffer> | undefined;

/** See the module's comment. */
export class DeviceInbox {
  /** Datagrams, oldest first. */
  readonly datagrams: DeviceDatagram[] = [];
  /** Events, oldest first. */
  readonly events: DeviceEvent[] = [];
  /** Doorbells that were rung and not yet told. */
  readonly rung: Map<string, Handle> = new Map();
  /** Sees every event before it is kept. */
  onEvent: ((event: DeviceEvent) => void) | undefined;
  /** Is told when there is room again for what stayed with the driver. */
  onRoom: (() => void) | undefined;
  /** Sees every datagram before it is kept, and may take it. */
  onDatagram: ((datagram: DeviceDatagram) => boolean) | undefined;

  readonly #driver: Driver;
  readonly #request = new Structure(DatagramInfo, {});
  #doorbells: Uint8Array<ArrayBuffer> | undefined;
  #bytes = 0;
  /** Whether the driver's receive would wait: that of a datagram process does. */
  blocking = false;

  /** @param driver Whose. */
  constructor(driver: Driver) {
    this.#driver = driver;
  }

  /** Has the doorbells taken in from now on. */
  expectDoorbells(): void {
    this.#doorbells ??= new Uint8Array(new ArrayBuffer(MOST_DOORBELLS * HANDLE_SIZE));
  }

  /**
   * Takes in what is there.
   *
   * @returns Whether more could be taken in; not while too much is unread.
   */
  refresh(): boolean {
    if (this.#doorbells !== undefined) this.#takeDoorbells(this.#doorbells);
    if (this.#bytes < MOST_BYTES) this.#takeDatagrams();
    return this.#bytes < MOST_BYTES;
  }

  /** The oldest datagram, which is no longer here then. */
  shift(): DeviceDatagram | undefined {
    const datagram = this.datagrams.shift();
    if (datagram === undefined) return undefined;
    const full = this.#bytes >= MOST_BYTES;
    this.#bytes -= DATAGRAM_HEADER_SIZE + datagram.payload.length;
    if (full && this.#bytes < MOST_BYTES) this.onRoom?.();
    return datagram;
  }

  /** The doorbells that were rung, which then are not any more; `undefined` when none was. */
  shiftDoorbells(): Handle[] | undefined {
    if (this.rung.size === 0) return undefined;
    const handles = [...this.rung.values()];
    this.rung.clear();
    return handles;
  }

  #takeDatagrams(): void {
    const arena = shared ??= new Uint8Array(new ArrayBuffer(ARENA));
    const starts: number[] = [];
    let end = 0;
    let failure: unknown;
    try {
      while (end + MAX_DATAGRAM_SIZE <= ARENA) {
        if (this.blocking && pollDescriptor(this.#driver.fd, PollEvent.IN, 0) === 0) break;
        const next = this.#takeOne(arena.subarray(end, end + MAX_DATAGRAM_SIZE));
        if (next === undefined) break;
        starts.push(end);
        // Its own length is all that tells; a false one is found when it is decoded.
        const size = new DataView(arena.buffer, end).getUint32(16, true);
        end += Math.ceil(Math.min(MAX_DATAGRAM_SIZE, DATAGRAM_HEADER_SIZE + size) / 8) * 8;
        if (next === 0) break;
      }
    } catch (error) {
      failure = error;
    }
    for (let i = starts.length - 1; i >= 0; i--) {
      const bytes = arena.subarray(starts[i]!, starts[i]! + MAX_DATAGRAM_SIZE);
      const datagram = decodeDatagram(bytes);
      if (datagram === undefined) failure ??= badReply(OPERATION, "a datagram that is larger than a datagram can be");
      else this.#sort(datagram);
    }
    if (failure !== undefined) throw failure;
  }

  /** The size of the next one, 0 when that is not known or there is none; `undefined` when there was none now. */
  #takeOne(into: Uint8Array<ArrayBuffer>): number | undefined {
    const request = this.#request;
    request.set("address", addressOf(into));
    request.set("length", into.length);
    request.set("result", 0);
    // A header that is not overwritten must not look like a datagram.
    into.fill(0xff, 0, DATAGRAM_HEADER_SIZE);
    this.#driver.request({ operation: OPERATION }, VmciRequest.DATAGRAM_RECEIVE, request.bytes);
    const result = request.get("result");
    if (result === ResultCode.NO_MORE_DATAGRAMS) return undefined;
    return checkResult({ operation: OPERATION }, result);
  }

  #sort(datagram: DeviceDatagram): void {
    const event = eventOf(datagram);
    if (event !== undefined) {
      if (this.events.push(event) > MOST_EVENTS) this.events.shift();
      this.onEvent?.(event);
    } else if (this.onDatagram?.(datagram) !== true) {
      this.datagrams.push(datagram);
      this.#bytes += DATAGRAM_HEADER_SIZE + datagram.payload.length;
    }
  }

  #takeDoorbells(buffer: Uint8Array<ArrayBuffer>): void {
    const subject = { operation: "receiveDoorbells" };
    const reply = this.#driver.ask(subject, VmciRequest.NOTIFICATIONS_RECEIVE, NotificationsInfo, {
      doorbells: addressOf(buffer),
      doorbellsLength: BigInt(buffer.length),
    });
    checkResult(subject, reply.get("result"));
    const length = reply.get("doorbellsLength");
    if (length > BigInt(buffer.length) || length % BigInt(HANDLE_SIZE) !== 0n) {
      throw badReply(subject.operation, `${length} bytes of doorbells in a buffer of ${buffer.length}`);
    }
    const view = new DataView(buffer.buffer, 0, Number(length));
    for (let at = 0; at < view.byteLength; at += HANDLE_SIZE) {
      const handle = { context: view.getUint32(at, true), resource: view.getUint32(at + 4, true) };
      this.rung.set(`${handle.context}:${handle.resource}`, handle);
    }
  }
}

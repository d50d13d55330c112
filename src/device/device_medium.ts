/**
 * A real device as a medium of the fabric. The facets, the session and the broker are the fabric's own; the broker is in
 * this process and keeps what this program has. What differs is where lanes lead: the other end of every lane is here,
 * and takes its datagrams to the device or brings them from it; and names are kept by a service on the host.
 *
 * @module
 */

import { PollEvent, type PollWatch, watchDescriptor } from "../../ffi/poll_loop.ts";
import { waitReadable } from "../../ffi/unix_socket.ts";
import type { VmciEvent } from "../event.ts";
import type {
  Bell,
  Connection,
  CreatedRegion,
  Medium,
  RegionMemory,
  Share,
  SharedPages,
  SharedWord,
} from "../fabric/medium.ts";
import { asVmciError } from "../fabric/local/system_failure.ts";
import type { CarrierSource } from "./carrier.ts";
import { noMemory } from "./device_memory.ts";
import { DeviceConnection } from "./device_connection.ts";
import type { DeviceName } from "./device_name.ts";
import { driverCarriers } from "./driver_carrier.ts";
import { DirectBell } from "./local_broker.ts";
import { vsockCarriers } from "./vsock_carrier.ts";

/** Milliseconds between two looks while somebody waits, at what no descriptor tells. */
const LOOK = 100;

/** Milliseconds for which leaving waits for what is on its way. */
const LINGER = 1000;

/** See the module's comment. */
export class DeviceMedium implements Medium {
  readonly device: string;
  readonly slot = -1;
  readonly concurrent = true;
  readonly hostsBroker = false;
  /** What is told to the program beside what the broker tells. */
  onEvent: ((event: VmciEvent) => void) | undefined;
  readonly #name: DeviceName;
  readonly #attention = new Int32Array(1);
  readonly #watches = new Map<number, PollWatch>();
  #source: CarrierSource | undefined;
  #connection: DeviceConnection | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDue = Infinity;

  /**
   * @param device The name as it was written.
   * @param name The name, taken apart.
   */
  constructor(device: string, name: DeviceName) {
    this.device = device;
    this.#name = name;
  }

  tryConnect(): Connection | undefined {
    const { kind, path, reliable, service, buffer } = this.#name;
    try {
      this.#source = kind === "vsock" ? vsockCarriers(buffer) : driverCarriers(path);
    } catch (error) {
      throw asVmciError(error, "openVmci");
    }
    return this.#connection = new DeviceConnection({
      source: this.#source,
      kind,
      reliable,
      service,
      changed: () => this.#arrange(),
      emit: (event) => this.onEvent?.(event),
    });
  }

  explainSilence(): string {
    return "it runs in this thread";
  }

  createRegion(): CreatedRegion {
    throw noMemory("create shared memory");
  }

  openRegion(): RegionMemory {
    throw noMemory("attach to shared memory");
  }

  openLane(share: Share): SharedPages {
    return { buffer: share as ArrayBuffer, discard: () => {}, close: () => {} };
  }

  createAttention(): { readonly attention: SharedWord; readonly share: Share } {
    return { attention: { word: this.#attention, close: () => {} }, share: this.#attention };
  }

  openWord(share: Share): SharedWord {
    return { word: share as Int32Array, close: () => {} };
  }

  openBell(share: Share): Bell {
    return share as DirectBell;
  }

  block(_bells: Iterable<Bell>, _connection: Connection | undefined, timeout: number): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const due = connection.due - performance.now();
    waitReadable(connection.descriptors, Math.max(0, Math.min(timeout, Math.ceil(due))));
    connection.work();
  }

  release(share: Share): void {
    if (share instanceof DirectBell) share.close();
  }

  async close(): Promise<void> {
    const connection = this.#connection;
    // What was accepted is still taken to where it goes, if that is a matter of moments.
    for (const end = performance.now() + LINGER; connection?.busy === true && performance.now() < end;) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      try {
        connection.work();
      } catch {
        break;
      }
    }
    this.#stopWatching();
    clearTimeout(this.#timer);
    if (connection === undefined) this.#source?.close();
    else connection.end();
    this.#connection = undefined;
  }

  /** Somebody waits, or does no longer; or there is something to be done later. */
  #arrange(): void {
    const connection = this.#connection;
    if (connection === undefined || connection.ended) return;
    const parked = Atomics.load(this.#attention, 0) !== 0;
    if (parked) this.#watch(connection);
    else this.#stopWatching();
    const now = performance.now();
    this.#wakeAt(Math.min(connection.due, parked ? now + LOOK : Infinity), now);
  }

  /** Watches the descriptors that something may come from, and no others. */
  #watch(connection: DeviceConnection): void {
    const wanted = new Set(connection.descriptors);
    for (const [fd, watch] of this.#watches) {
      if (wanted.has(fd)) continue;
      watch.stop();
      this.#watches.delete(fd);
    }
    for (const fd of wanted) {
      if (!this.#watches.has(fd)) this.#watches.set(fd, watchDescriptor(fd, PollEvent.IN, () => this.#found()));
    }
  }

  #stopWatching(): void {
    for (const watch of this.#watches.values()) watch.stop();
    this.#watches.clear();
  }

  #found(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    try {
      connection.work();
    } catch {
      // Whoever waits looks next, and is told.
    }
    connection.ring();
    this.#arrange();
  }

  /** Works again at that time, if nothing else has it work before. That keeps no program alive. */
  #wakeAt(due: number, now: number): void {
    if (this.#timer !== undefined && this.#timerDue <= due) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerDue = due;
    if (due === Infinity) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#found();
    }, Math.max(1, due - now));
    this.#timer.unref();
  }
}

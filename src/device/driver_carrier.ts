/**
 * Datagrams as a context of the driver: all endpoints share one descriptor, and the driver does not look at the resource
 * that a datagram is for.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { type ContextId, FIRST_DYNAMIC_RESOURCE, FIRST_VM_CONTEXT, type Handle, INVALID_ID } from "../handle.ts";
import { DATAGRAM_HEADER_SIZE } from "../limits.ts";
import { PrivilegeFlags } from "../privilege.ts";
import type { Arrival, Carrier, CarrierPort, CarrierSource } from "./carrier.ts";
import { CONTROL_RESOURCE } from "./control_packet.ts";
import { VmciDevice } from "./vmci_device.ts";

/** So many bytes, headers included, are sorted by port before they are received; the rest stays with the driver. */
const MOST_SORTED = 1 << 20;

/** Opens the driver. */
export function driverCarriers(path: string): CarrierSource {
  const device = VmciDevice.open({ path });
  return {
    enter: (wanted, flags) => {
      if (wanted !== undefined && wanted < FIRST_VM_CONTEXT) {
        throw new VmciError("INVALID_ARGS", {
          operation: "openVmci",
          reason:
            `a program is a virtual machine's context to ${path}, ${FIRST_VM_CONTEXT} and up: received ${wanted}; ` +
            "the host's programs open vsock:",
        });
      }
      const restricted = (flags & PrivilegeFlags.RESTRICTED) !== 0;
      device.initContext({ context: wanted, exact: wanted !== undefined, restricted });
      return new DriverCarrier(device);
    },
    close: () => device.close(),
  };
}

class DriverCarrier implements Carrier {
  readonly context: ContextId;
  readonly #device: VmciDevice;
  readonly #ports = new Map<number, DriverPort>();
  #next = FIRST_DYNAMIC_RESOURCE;
  /** Bytes that were sorted and not received. */
  #sorted = 0;

  constructor(device: VmciDevice) {
    this.#device = device;
    this.context = device.context!;
  }

  open(number: number | undefined): CarrierPort {
    const port = new DriverPort(this, number ?? this.#free());
    if (this.#ports.has(port.number)) {
      throw new VmciError("DUPLICATE_ENTRY", { operation: "open a port", reason: `the id ${port.number} is taken` });
    }
    if (port.number <= CONTROL_RESOURCE || port.number === INVALID_ID) {
      throw new VmciError("NO_ACCESS", {
        operation: "open a port",
        reason: `the id ${port.number} is the driver's: 0 is for its events, 1 for the control of streams`,
      });
    }
    this.#ports.set(port.number, port);
    return port;
  }

  close(): void {
    this.#device.close();
  }

  get descriptor(): number {
    return this.#device.descriptor;
  }

  send(source: number, destination: Handle, payload: Uint8Array): boolean {
    try {
      this.#device.send(destination, source, payload);
      return true;
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
      if (error.code === "NO_RESOURCES") return false;
      // As the SDK says it: there is no such destination.
      if (error.code !== "INVALID_RESOURCE") throw error;
      const { handle, reason, cause } = error;
      throw new VmciError("INVALID_ARGS", { operation: "sendTo", handle, reason, cause });
    }
  }

  /** Takes in what the driver has, and gives it to the ports it is for. What is for none is dropped. */
  sort(): void {
    while (this.#sorted < MOST_SORTED) {
      const datagram = this.#device.tryReceive();
      if (datagram === undefined) return;
      const port = this.#ports.get(datagram.destination.resource);
      if (port === undefined) continue;
      this.#sorted += cost(datagram.payload);
      port.arrivals.push({ source: datagram.source, payload: datagram.payload });
    }
  }

  received(payload: Uint8Array): void {
    this.#sorted -= cost(payload);
  }

  closed(port: DriverPort): void {
    this.#ports.delete(port.number);
    for (const { payload } of port.arrivals.splice(0)) this.received(payload);
  }

  /** Ids are given in a row, so that the last ones that were closed are not taken for those that are open. */
  #free(): number {
    do {
      this.#next = this.#next + 1 >= 2 ** 31 ? FIRST_DYNAMIC_RESOURCE + 1 : this.#next + 1;
    } while (this.#ports.has(this.#next));
    return this.#next;
  }
}

class DriverPort implements CarrierPort {
  readonly number: number;
  /** What came for it, oldest first. */
  readonly arrivals: Arrival[] = [];
  /** A driver drops nothing: whose queue is full has its senders told. */
  readonly dropped = 0;
  readonly #carrier: DriverCarrier;

  constructor(carrier: DriverCarrier, number: number) {
    this.#carrier = carrier;
    this.number = number;
  }

  get descriptor(): number {
    return this.#carrier.descriptor;
  }

  send(destination: Handle, payload: Uint8Array): boolean {
    return this.#carrier.send(this.number, destination, payload);
  }

  receive(): Arrival | undefined {
    if (this.arrivals.length === 0) this.#carrier.sort();
    const arrival = this.arrivals.shift();
    if (arrival !== undefined) this.#carrier.received(arrival.payload);
    return arrival;
  }

  close(): void {
    this.#carrier.closed(this);
  }
}

function cost(payload: Uint8Array): number {
  return DATAGRAM_HEADER_SIZE + payload.length;
}

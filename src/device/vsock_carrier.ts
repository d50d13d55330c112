/**
 * Datagrams over the sockets of the host or of a virtual machine: a handle is a context and a port, and each endpoint a
 * socket.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { PUBLIC_GROUP } from "../fabric/broker.ts";
import type { ContextId, Handle } from "../handle.ts";
import type { Arrival, Carrier, CarrierPort, CarrierSource } from "./carrier.ts";
import { listenVsockDatagram, type VsockDatagramSocket } from "./vsock_datagram.ts";
import { localVsockContext, vmciContextOf, vsockFamily } from "./vsock_family.ts";

/** Looks for the sockets of this machine. */
export function vsockCarriers(receiveBuffer: number | undefined): CarrierSource {
  vsockFamily();
  const context = vmciContextOf(localContext());
  return {
    enter: (wanted) => {
      if (wanted === undefined || wanted === context) return new VsockCarrier(context, receiveBuffer);
      throw new VmciError("INVALID_ARGS", {
        operation: "openVmci",
        reason: `this machine is context ${context}, and no program of it can be another (${wanted}); ` +
          "leave contextId out, or open /dev/vmci",
      });
    },
    close: () => {},
  };
}

/** Without a node, the sockets go all the same; then nobody but the kernel knows better. */
function localContext(): ContextId | undefined {
  try {
    return localVsockContext();
  } catch (error) {
    if (error instanceof VmciError) return undefined;
    throw error;
  }
}

class VsockCarrier implements Carrier {
  readonly context: ContextId;
  readonly #receiveBuffer: number | undefined;

  constructor(context: ContextId, receiveBuffer: number | undefined) {
    this.context = context;
    this.#receiveBuffer = receiveBuffer;
  }

  open(number: number | undefined): CarrierPort {
    if (number === PUBLIC_GROUP.resource) {
      throw new VmciError("DUPLICATE_ENTRY", { operation: "open a port", reason: "the public group has that id" });
    }
    const socket = listenVsockDatagram({ port: number, receiveBuffer: this.#receiveBuffer });
    if (socket.addr.port !== PUBLIC_GROUP.resource) return new VsockPort(socket);
    // The kernel gives another one only as long as this is held.
    using _held = socket;
    return this.open(number);
  }

  close(): void {}
}

class VsockPort implements CarrierPort {
  readonly number: number;
  readonly descriptor: number;
  readonly #socket: VsockDatagramSocket;

  constructor(socket: VsockDatagramSocket) {
    this.#socket = socket;
    this.number = socket.addr.port;
    this.descriptor = socket.descriptor;
  }

  get dropped(): number {
    return this.#socket.dropped ?? 0;
  }

  send(destination: Handle, payload: Uint8Array): boolean {
    const { context, resource } = destination;
    try {
      return this.#socket.trySend(payload, { cid: context, port: resource }) !== undefined;
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
      if (error.code === "NO_RESOURCES") return false;
      // As the SDK says it: there is no such destination.
      const missing = error.code === "INVALID_RESOURCE" || error.code === "DST_UNREACHABLE";
      if (!missing) throw error;
      const reason = error.code === "INVALID_RESOURCE"
        ? `context ${context} has no datagram handle ${resource}: ${(error.cause as Error).message}`
        : `there is no context ${context}, or no way leads there: ${(error.cause as Error).message}`;
      throw new VmciError("INVALID_ARGS", { operation: "sendTo", handle: destination, reason, cause: error.cause });
    }
  }

  receive(): Arrival | undefined {
    const arrived = this.#socket.tryReceive();
    if (arrived === undefined) return undefined;
    const [payload, { cid, port }] = arrived;
    return { source: { context: cid, resource: port }, payload };
  }

  close(): void {
    this.#socket.close();
  }
}

/**
 * The discovery service of a host, on its sockets: what the SDK's driver had within.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import type { ContextId, Handle } from "../handle.ts";
import { DS_PORT } from "./ds_message.ts";
import { DsTable } from "./ds_table.ts";
import { listenVsockDatagram, type VsockDatagramSocket } from "./vsock_datagram.ts";
import { localVsockContext, vmciContextOf } from "./vsock_family.ts";

/** How a service starts. */
export interface DsServiceOptions {
  /** The port; {@linkcode DS_PORT} without it. */
  readonly port?: number | undefined;
  /** Names of one context; 4096 without it. */
  readonly names?: number | undefined;
}

/** Bytes that the kernel keeps of questions that are not answered yet. */
const RECEIVE_BUFFER = 1 << 20;

/** See the module's comment. */
export class DsService implements Disposable {
  /** Where it answers. */
  readonly address: Handle;
  /** When it has ended. */
  readonly ended: Promise<void>;
  readonly #socket: VsockDatagramSocket;
  readonly #table: DsTable;

  /** Starts it. */
  constructor({ port = DS_PORT, names = 4096 }: DsServiceOptions = {}) {
    this.#socket = listenVsockDatagram({ port, receiveBuffer: RECEIVE_BUFFER });
    const own = ownContext();
    this.address = { context: own, resource: this.#socket.addr.port };
    this.#table = new DsTable({ names }, ({ context, resource }) => context !== own || hasPort(resource));
    this.ended = this.#run();
  }

  /** How many names there are. */
  get names(): number {
    return this.#table.size;
  }

  /** Ends it: all names are forgotten, and programs that keep theirs give them to the next. */
  close(): void {
    this.#socket.close();
  }

  /** As {@linkcode DsService.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  async #run(): Promise<void> {
    for await (const [payload, from] of this.#socket) {
      const answer = this.#table.answer(payload, from.cid, performance.now());
      if (answer === undefined) continue;
      try {
        this.#socket.trySend(answer, from);
      } catch (error) {
        // Who asked is gone, or has no room: then it asks again.
        if (!(error instanceof VmciError)) throw error;
      }
    }
  }
}

function ownContext(): ContextId {
  try {
    return vmciContextOf(localVsockContext());
  } catch (error) {
    // Without the node there is nobody else to ask.
    if (error instanceof VmciError) return vmciContextOf(undefined);
    throw error;
  }
}

/** Whether a port of this machine is somebody's: if it can be had, it is nobody's. */
function hasPort(port: number): boolean {
  try {
    listenVsockDatagram({ port }).close();
    return false;
  } catch (error) {
    if (error instanceof VmciError) return true;
    throw error;
  }
}

/**
 * A client that speaks to a broker by itself: packets as bytes, descriptors as it likes.
 *
 * @module
 */

import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { addSeals, createMemfd, Seal } from "../../../ffi/memfd.ts";
import { connectSeqpacket, PacketSocket, waitReadable } from "../../../ffi/unix_socket.ts";
import { LANE_SIZE } from "../../../src/lane/ring.ts";
import { PROTOCOL_VERSION } from "../../../src/fabric/protocol.ts";

/** What a broker said. */
export interface Said {
  readonly message: Readonly<Record<string, unknown>>;
  readonly descriptors: readonly number[];
}

/** A reply, without the packets that came before it. */
export interface RawReply {
  readonly result?: Record<string, unknown>;
  readonly code?: string;
  readonly reason?: string;
  readonly descriptors: readonly number[];
}

/** So long a broker has for an answer, in milliseconds; it is only ever over when something is broken. */
const PATIENCE = 30_000;

/** See the module's comment. */
export class RawClient {
  readonly fd: number;
  readonly socket: PacketSocket;
  /** What came beside replies. */
  readonly notices: Said[] = [];
  #ids = 0;
  #open = true;

  constructor(path: string) {
    this.fd = connectSeqpacket(path);
    this.socket = new PacketSocket(this.fd);
  }

  /** Sends bytes as they are; waits for room. */
  bytes(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    while (!this.socket.send(bytes, descriptors)) waitReadable([], 1);
  }

  /** Sends bytes if there is room. */
  tryBytes(bytes: Uint8Array, descriptors: readonly number[] = []): boolean {
    return this.socket.send(bytes, descriptors);
  }

  /** Sends a text as it is. */
  text(text: string, descriptors: readonly number[] = []): void {
    this.bytes(new TextEncoder().encode(text), descriptors);
  }

  /** Sends a request and does not wait; answers its id. */
  tell(op: unknown, args: unknown, descriptors: readonly number[] = []): number {
    const id = ++this.#ids;
    this.text(JSON.stringify({ id, op, args }), descriptors);
    return id;
  }

  /** Sends a request and waits for its reply. */
  ask(op: unknown, args: unknown, descriptors: readonly number[] = []): RawReply {
    const id = this.tell(op, args, descriptors);
    return this.reply(id);
  }

  /** Waits for the reply of that id. */
  reply(id: number): RawReply {
    for (;;) {
      const said = this.next();
      if (said === "closed") return { code: "closed", descriptors: [] };
      if (said.message.id !== id) {
        this.notices.push(said);
        continue;
      }
      const { result, error } = said.message as { result?: Record<string, unknown>; error?: RawReply };
      return { ...error, ...(result === undefined ? {} : { result }), descriptors: said.descriptors };
    }
  }

  /** Waits for the next packet. */
  next(): Said | "closed" {
    if (waitReadable([this.fd], PATIENCE) === 0) throw new Error("the broker says nothing");
    const packet = this.socket.receive();
    if (packet === undefined || packet.end) return "closed";
    const message = JSON.parse(new TextDecoder().decode(packet.bytes));
    return { message, descriptors: packet.descriptors };
  }

  /** Waits until the broker has closed the connection; what it said before is dropped. */
  closedByBroker(): boolean {
    for (;;) {
      const said = this.next();
      if (said === "closed") return true;
      for (const fd of said.descriptors) closeDescriptor(fd);
    }
  }

  /** Says hello as any client would. */
  hello(changes: Readonly<Record<string, unknown>> = {}): RawReply {
    const attention = sealedMemory(4096, true);
    try {
      return this.ask("hello", {
        protocol: PROTOCOL_VERSION,
        version: "raw",
        context: null,
        flags: 0,
        slot: -1,
        client: null,
        ticket: null,
        observer: false,
        ...changes,
      }, [attention]);
    } finally {
      closeDescriptor(attention);
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeDescriptor(this.fd);
    for (const { descriptors } of this.notices.splice(0)) descriptors.forEach(closeDescriptor);
  }
}

/** Memory as the library makes it: sealed to its size, and where asked against future writing. */
export function sealedMemory(size: number, creatorOnly: boolean): number {
  const fd = createMemfd("vmci-raw", size);
  addSeals(fd, Seal.SHRINK | Seal.GROW | Seal.SEAL | (creatorOnly ? Seal.FUTURE_WRITE : 0));
  return fd;
}

/** The size of a lane. */
export const RAW_LANE_SIZE: number = LANE_SIZE;

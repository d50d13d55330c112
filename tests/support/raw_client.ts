/**
 * A client that speaks the broker's protocol itself, and says whatever it is told to.
 *
 * @module
 */

import { closeDescriptor } from "../../ffi/descriptor.ts";
import { addSeals, createMemfd, Seal } from "../../ffi/memfd.ts";
import { connectSeqpacket, PacketSocket, waitReadable } from "../../ffi/unix_socket.ts";
import { decodeMessage, encodeMessage } from "../../src/fabric/local/packet_codec.ts";
import type { Message } from "../../src/fabric/protocol.ts";

/** What came back: a result or an error, and descriptors, which are the caller's. */
export interface RawReply {
  // deno-lint-ignore no-explicit-any
  readonly result?: any;
  readonly error?: { readonly code: string; readonly reason: string };
  readonly descriptors: readonly number[];
}

/** See the module's comment. */
export class RawClient implements Disposable {
  readonly #socket: PacketSocket;
  #requests = 0;

  /** Connects to a broker's socket. */
  constructor(path: string) {
    this.#socket = new PacketSocket(connectSeqpacket(path));
  }

  /** Asks, and waits for the reply; what the broker says unasked meanwhile is dropped. */
  ask(op: string, args: Message = {}, descriptors: readonly number[] = []): RawReply {
    const id = ++this.#requests;
    this.#socket.send(encodeMessage({ id, op, args }), descriptors);
    for (;;) {
      if (waitReadable([this.#socket.fd], 60_000) === 0) throw new Error(`the broker did not answer '${op}' for 60 s`);
      const packet = this.#socket.receive();
      if (packet === undefined) continue;
      const message = packet.end ? undefined : decodeMessage(packet.bytes);
      if (message === undefined) throw new Error(`the broker closed the connection at '${op}'`);
      if (message.id === id) return { ...message, descriptors: packet.descriptors } as unknown as RawReply;
      packet.descriptors.forEach(closeDescriptor);
    }
  }

  /** Asks, when there is room for it, and does not look for the reply. */
  send(op: string, args: Message = {}): void {
    const bytes = encodeMessage({ id: ++this.#requests, op, args });
    while (!this.#socket.send(bytes)) waitReadable([], 1);
  }

  /** Says hello; what comes with the reply is closed. */
  hello(fields: Message = {}): RawReply {
    const attention = createMemfd("attention", 4096);
    addSeals(attention, Seal.SHRINK | Seal.GROW | Seal.SEAL | Seal.FUTURE_WRITE);
    const args = { protocol: 1, version: "raw", context: null, flags: 0, slot: -1, client: null, observer: false };
    const reply = this.ask("hello", { ...args, ...fields }, [attention]);
    closeDescriptor(attention);
    reply.descriptors.forEach(closeDescriptor);
    return reply;
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.#socket.fd);
  }
}

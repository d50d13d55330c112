/**
 * The connection that a daemon's process keeps to its broker's thread. The thread lives as long as it, and is told of
 * another policy through it.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { writeAt } from "../../../ffi/file.ts";
import { createMemfd } from "../../../ffi/memfd.ts";
import { type Packet, PacketSocket, waitReadable } from "../../../ffi/unix_socket.ts";
import { type Message, replyError } from "../protocol.ts";
import type { PolicyText } from "./broker_thread_config.ts";
import { decodeMessage, encodeMessage } from "./packet_codec.ts";
import { asVmciError } from "./system_failure.ts";

/** Milliseconds in which the broker's thread answers. */
const REPLY_TIME = 5000;

const OPERATION = "set the policy";

/** See the module's comment. */
export class Lifeline {
  readonly #thread: PacketSocket;
  #requests = 0;

  /**
   * Speaks to a thread.
   *
   * @param fd This process' end of the connection; the lifeline's from now on.
   */
  constructor(fd: number) {
    this.#thread = new PacketSocket(fd);
  }

  /**
   * Has the thread put another policy in force.
   *
   * @param policy The policy.
   * @throws {VmciError} What the thread refuses it for; UNAVAILABLE when it does not answer, and may take it later;
   * NO_MEM and NO_RESOURCES when the system has nothing to hand it over in.
   */
  setPolicy(policy: PolicyText): void {
    try {
      const id = ++this.#requests;
      this.#send(id, policy);
      const error = replyError(this.#replyTo(id));
      if (error !== undefined) throw new VmciError(error.code, { operation: OPERATION, reason: error.reason });
    } catch (error) {
      throw asVmciError(error, OPERATION);
    }
  }

  /** The policy goes in memory of its own: it may be larger than a packet. */
  #send(id: number, policy: PolicyText): void {
    const bytes = encodeMessage({ ...policy });
    const fd = createMemfd("vmci-policy", bytes.length);
    try {
      writeAt(fd, bytes, 0);
      if (this.#thread.send(encodeMessage({ id, op: "set_policy", args: {} }), [fd])) return;
    } finally {
      closeDescriptor(fd);
    }
    throw unavailable("the broker's thread takes nothing now: try again");
  }

  /** The reply says that it is in force, or why not. One that comes too late is passed over by the next request. */
  #replyTo(id: number): Message {
    const deadline = performance.now() + REPLY_TIME;
    for (let left = REPLY_TIME; left > 0; left = deadline - performance.now()) {
      waitReadable([this.#thread.fd], left);
      for (let packet = this.#receive(); packet !== undefined; packet = this.#receive()) {
        const message = decodeMessage(packet.bytes);
        if (message?.id === id) return message;
      }
    }
    throw unavailable("the broker's thread does not answer: it may take this policy later; set it again to be sure");
  }

  #receive(): Packet | undefined {
    const packet = this.#thread.receive();
    if (packet?.end) throw unavailable("the broker's thread has ended: start the daemon again");
    return packet;
  }

  /** Lets the thread end. */
  close(): void {
    closeDescriptor(this.#thread.fd);
  }
}

function unavailable(reason: string): VmciError {
  return new VmciError("UNAVAILABLE", { operation: OPERATION, reason });
}

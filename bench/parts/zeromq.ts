/**
 * libzmq over ipc, called through Deno's FFI: what a Deno program could use instead.
 *
 * @module
 */

import { rateOf } from "../../src/cli/bench_exchange.ts";
import { sampleSync, summarize } from "../../src/cli/bench_measure.ts";
import { type Job, PATIENCE, payloadOf, say } from "./part.ts";

const PAIR = 0;
const RCVTIMEO = 27;
const SNDTIMEO = 28;

/** One socket of its own context. */
class ZeroSocket {
  readonly #library;
  readonly #socket: Deno.PointerValue;

  constructor(path: string) {
    this.#library = Deno.dlopen(path, {
      zmq_ctx_new: { parameters: [], result: "pointer" },
      zmq_socket: { parameters: ["pointer", "i32"], result: "pointer" },
      zmq_setsockopt: { parameters: ["pointer", "i32", "buffer", "usize"], result: "i32" },
      zmq_bind: { parameters: ["pointer", "buffer"], result: "i32" },
      zmq_connect: { parameters: ["pointer", "buffer"], result: "i32" },
      zmq_send: { parameters: ["pointer", "buffer", "usize", "i32"], result: "i32" },
      zmq_recv: { parameters: ["pointer", "buffer", "usize", "i32"], result: "i32" },
    }).symbols;
    this.#socket = this.#library.zmq_socket(this.#library.zmq_ctx_new(), PAIR);
    for (const option of [RCVTIMEO, SNDTIMEO]) {
      this.#check(this.#library.zmq_setsockopt(this.#socket, option, new Int32Array([PATIENCE]), 4n));
    }
  }

  bind(directory: string): void {
    this.#check(this.#library.zmq_bind(this.#socket, addressIn(directory)));
  }

  connect(directory: string): void {
    this.#check(this.#library.zmq_connect(this.#socket, addressIn(directory)));
  }

  send(bytes: Uint8Array<ArrayBuffer>, size: bigint): void {
    this.#check(this.#library.zmq_send(this.#socket, bytes, size, 0));
  }

  receive(into: Uint8Array<ArrayBuffer>): number {
    return this.#check(this.#library.zmq_recv(this.#socket, into, BigInt(into.length), 0));
  }

  #check(result: number): number {
    if (result < 0) throw new Error("ZeroMQ failed, or the other party is gone");
    return result;
  }
}

function addressIn(directory: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`ipc://${directory}/bench.zeromq\0`);
}

/** Sends back what comes. */
export function echo({ directory, variant, size }: Job): void {
  const socket = new ZeroSocket(variant);
  socket.bind(directory);
  say({});
  const buffer = new Uint8Array(size);
  while (true) {
    socket.receive(buffer);
    socket.send(buffer, BigInt(size));
  }
}

/** Measures round trips. */
export function roundTrips({ directory, variant, size, span }: Job): void {
  const socket = new ZeroSocket(variant);
  socket.connect(directory);
  const payload = payloadOf(size);
  const buffer = new Uint8Array(size);
  const length = BigInt(size);
  say(summarize(sampleSync(() => {
    socket.send(payload, length);
    socket.receive(buffer);
  }, span)));
}

/** Sends until nobody receives. */
export function pour({ directory, variant, size }: Job): void {
  const socket = new ZeroSocket(variant);
  socket.connect(directory);
  const payload = payloadOf(size);
  const length = BigInt(size);
  while (true) socket.send(payload, length);
}

/** Counts what comes: messages a second. */
export function drain({ directory, variant, size, span }: Job): void {
  const socket = new ZeroSocket(variant);
  socket.bind(directory);
  say({});
  const buffer = new Uint8Array(size);
  say([rateOf(() => socket.receive(buffer), span)]);
}

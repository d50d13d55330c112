/** Datagram sockets of the host (AF_VSOCK), by libc and with nothing of the library: what contexts talk to. */

import { inGuest } from "./guest.ts";

const AF_VSOCK = 40;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;
const ANY = 0xFFFFFFFF;

function open() {
  return Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
    recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "isize" },
    connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    __errno_location: { parameters: [], result: "pointer" },
  }).symbols;
}

// Opened here and not in a test, which would be charged with it.
const libc = inGuest ? open() : undefined;

/** Where a socket is. */
export interface SocketAddress {
  readonly context: number;
  readonly port: number;
}

/** A datagram socket bound to a port of the host. */
export class HostSocket implements Disposable {
  readonly port: number;
  readonly #fd: number;
  readonly #libc = libc!;

  constructor(port: number = ANY) {
    this.#fd = this.#libc.socket(AF_VSOCK, SOCK_DGRAM, 0);
    this.#assert(this.#fd, "socket");
    this.#assert(this.#libc.bind(this.#fd, encode({ context: ANY, port }), 16), "bind");
    const name = new Uint8Array(16);
    this.#assert(this.#libc.getsockname(this.#fd, name, new Uint32Array([16])), "getsockname");
    this.port = decode(name).port;
  }

  /** Sends, where it is connected to without an address; an error number is the negative result. */
  send(to: SocketAddress | undefined, payload: Uint8Array<ArrayBuffer>): number {
    const size = BigInt(payload.length);
    const [name, length] = to === undefined ? [null, 0] : [encode(to), 16];
    const sent = Number(this.#libc.sendto(this.#fd, payload, size, MSG_DONTWAIT, name, length));
    return sent < 0 ? -this.#errno() : sent;
  }

  /** Says where it sends to from now on. */
  connect(to: SocketAddress): void {
    this.#assert(this.#libc.connect(this.#fd, encode(to), 16), "connect");
  }

  /** The next datagram, if there is one: so many bytes of it at most, and with more flags. */
  receive(most = 69632, flags = 0): { from: SocketAddress; payload: Uint8Array<ArrayBuffer> } | undefined {
    const bytes = new Uint8Array(most);
    const name = new Uint8Array(16);
    const size = Number(
      this.#libc.recvfrom(this.#fd, bytes, BigInt(bytes.length), MSG_DONTWAIT | flags, name, new Uint32Array([16])),
    );
    return size < 0 ? undefined : { from: decode(name), payload: bytes.slice(0, size) };
  }

  [Symbol.dispose](): void {
    this.#libc.close(this.#fd);
  }

  #assert(result: number, call: string): void {
    if (result < 0) throw new Error(`Cannot ${call}: error ${this.#errno()}`);
  }

  #errno(): number {
    return new Deno.UnsafePointerView(this.#libc.__errno_location()!).getInt32();
  }
}

function encode({ context, port }: SocketAddress): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_VSOCK, true);
  view.setUint32(4, port, true);
  view.setUint32(8, context, true);
  return bytes;
}

function decode(bytes: Uint8Array<ArrayBuffer>): SocketAddress {
  const view = new DataView(bytes.buffer);
  return { context: view.getUint32(8, true), port: view.getUint32(4, true) };
}

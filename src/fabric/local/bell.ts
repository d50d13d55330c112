/**
 * A bell between two processes: a Unix stream pair.
 *
 * @module
 */

import type { Socket, SocketConstructorOpts } from "node:net";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { drainBell, ringBell } from "../../../ffi/unix_socket.ts";
import type { Bell } from "../medium.ts";

let net: Promise<typeof import("node:net")> | undefined;

/**
 * What watches sockets, which takes 10 ms to load. Whoever never lets the event loop turn is never called by it: so it
 * is loaded at the loop's first turn, and who opens a fabric does not wait for it.
 */
function loadNet(): Promise<typeof import("node:net")> {
  return net ??= new Promise<void>((resolve) => Deno.unrefTimer(setTimeout(resolve))).then(() => import("node:net"));
}

/** One end, by its descriptor. Deno's own event loop watches it, no thread is held. */
export class LocalBell implements Bell {
  /** The descriptor, for a thread that blocks on it. */
  readonly fd: number;
  #socket: Socket | undefined;
  #open = true;

  /** @param fd The descriptor; taken over. */
  constructor(fd: number) {
    this.fd = fd;
  }

  ring(): boolean {
    return this.#open && ringBell(this.fd);
  }

  drain(): boolean {
    return this.#open && drainBell(this.fd);
  }

  listen(rung: () => void, ended: () => void): void {
    // What is rung before the socket is adopted stays in it and is seen then.
    loadNet().then(({ Socket }) => {
      if (!this.#open) return;
      // Strokes say nothing but that they came: they are read into one buffer, and make no stream of data.
      const onread = { buffer: new Uint8Array(64), callback: () => (rung(), true) };
      const socket = new Socket({ fd: this.fd, onread } as SocketConstructorOpts);
      this.#socket = socket;
      let over = false;
      const end = () => {
        if (over || !this.#open) return;
        over = true;
        ended();
      };
      socket.resume();
      // Without a listener an error would be thrown; the close that follows says the same.
      socket.on("error", end);
      socket.on("end", end);
      socket.on("close", end);
      socket.unref();
    });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    // The socket owns the descriptor once it has adopted it.
    if (this.#socket === undefined) closeDescriptor(this.fd);
    else this.#socket.destroy();
  }
}

/**
 * A driver that is played by a function: what drivers of other generations, and broken ones, would do. No node is
 * touched: the descriptor is an eventfd, which can be polled and closed as a device's can.
 *
 * @module
 */

import { interposeLibc, libc, type LibcCall, setErrno } from "../../ffi/libc.ts";
import { pollingEnded } from "../../ffi/poll_loop.ts";

// The libraries stay open by design, and the test runner would take one that is opened inside a test for a leak.
for (const name of Object.keys(libc)) void libc[name as keyof typeof libc];

/** The kernel's own, whatever stands in their place. */
const { eventfd, eventfd_read, eventfd_write } = libc;

/** The path that opens it. */
export const FAKE = "/fake/vmci";

const EFD_NONBLOCK = 0o4000;

export const ENOMEM = 12;
export const ENOTTY = 25;
export const EINVAL = 22;

/** A request as the driver sees it. */
export interface Request {
  /** Its number. */
  readonly number: number;
  /** Its structure; of no bytes when there is none. */
  readonly view: DataView<ArrayBuffer>;
}

/** Answers a request: what the ioctl returns, or a negative error number. */
export type Answer = (request: Request) => number;

/** See the module's comment. */
export class FakeDriver implements Disposable, AsyncDisposable {
  /** The requests that were made, in order. */
  readonly requests: number[] = [];
  /** The error number that opening fails with; 0 for none. */
  openError = 0;
  /** Which call of libc fails, counted from 1; 0 for none. A `close` that fails closes all the same. */
  failing = 0;
  /** How many calls of libc were made, and the name of the one that failed. */
  calls = 0;
  failed: string | undefined;
  #fd = -1;

  /** @param answer Answers requests; until it is disposed of, every request of this process. */
  constructor(answer: Answer) {
    interposeLibc((name, call) => {
      const played = this.#play(name, call, answer);
      return (...args) => {
        if (++this.calls !== this.failing) return played(...args);
        this.failed = name;
        if (name === "close") call(...args);
        setErrno(ENOMEM);
        return -1;
      };
    });
  }

  /** A symbol, or what stands in its place. */
  #play(name: string, call: LibcCall, answer: Answer): LibcCall {
    if (name === "open") return (...args) => this.#open(args[0] as Uint8Array) ?? call(...args);
    if (name !== "ioctl") return call;
    return (...args) => {
      const [fd, number, bytes] = args as [number, bigint, Uint8Array<ArrayBuffer> | null];
      if (fd !== this.#fd) return call(...args);
      this.requests.push(Number(number));
      const structure = bytes ?? new Uint8Array();
      const view = new DataView(structure.buffer, structure.byteOffset, structure.byteLength);
      const result = answer({ number: Number(number), view });
      if (result >= 0) return result;
      setErrno(-result);
      return -1;
    };
  }

  /** Whether the device is ready to be read. */
  set ready(ready: boolean) {
    eventfd_read(this.#fd, new BigUint64Array(1));
    if (ready) eventfd_write(this.#fd, 1n);
  }

  [Symbol.dispose](): void {
    interposeLibc(undefined);
  }

  /** As `using` does, once nothing of the device is waited for any more: it must be closed by then. */
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
    await pollingEnded();
  }

  #open(path: Uint8Array): number | undefined {
    if (new TextDecoder().decode(path) !== `${FAKE}\0`) return undefined;
    if (this.openError !== 0) {
      setErrno(this.openError);
      return -1;
    }
    return this.#fd = eventfd(0, EFD_NONBLOCK);
  }
}

/** The memory that a request's address names. */
export function memoryAt(view: DataView, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const pointer = Deno.UnsafePointer.create(view.getBigUint64(offset, true));
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer!, length));
}

/** A datagram in bytes. */
export function datagram(
  destination: readonly [number, number],
  source: readonly [number, number],
  payload: readonly number[],
  claimed: number = payload.length,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(24 + payload.length);
  const view = new DataView(bytes.buffer);
  [...destination, ...source].forEach((half, i) => view.setUint32(4 * i, half, true));
  view.setBigUint64(16, BigInt(claimed), true);
  bytes.set(payload, 24);
  return bytes;
}

/** What every driver since 2011 answers: version 11.0, the context that is wanted, and datagrams from a stack. */
export function modern(stack: Uint8Array<ArrayBuffer>[] = []): Answer {
  return ({ number, view }) => {
    switch (number) {
      case 0x79f:
      case 0x7a7:
        return 0xB0000;
      case 0x7a0:
        return 0;
      case 0x7ac: {
        const next = stack.pop();
        if (next !== undefined) memoryAt(view, 0, view.getUint32(8, true)).set(next);
        view.setInt32(12, next === undefined ? -6 : stack.at(-1)?.length ?? 0, true);
        return 0;
      }
      default:
        return 0;
    }
  };
}

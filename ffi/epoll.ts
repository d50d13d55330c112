/**
 * Waiting for many descriptors at once.
 *
 * @module
 */

import { closeDescriptor } from "./descriptor.ts";
import { check, libc, waitThroughSignals } from "./libc.ts";

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/**
 * `struct epoll_event { uint32_t events; epoll_data_t data; }`, which is packed on x86-64 only, so that 32-bit programs
 * could share it.
 */
const EpollRecord = Deno.build.arch === "x86_64"
  ? { SIZE: 12, events: 0, data: 4 } as const
  : { SIZE: 16, events: 0, data: 8 } as const;

/** How many events one wait can bring; the others come with the next. */
const BATCH = 64;

/** What can be asked for and told about a descriptor; bits. ERR and HUP are told without being asked for. */
export const EpollEvent = {
  /** Something can be read, or the end was reached. */
  IN: 0x1,
  /** Something can be written. */
  OUT: 0x4,
  /** The descriptor is in error. */
  ERR: 0x8,
  /** The other end is gone. */
  HUP: 0x10,
  /** The other end will write no more. */
  RDHUP: 0x2000,
} as const;

/** A set of descriptors and what is of interest about each; level-triggered. */
export class Epoll {
  /** The set's own descriptor. */
  readonly fd: number;

  readonly #ready = new DataView(new ArrayBuffer(BATCH * EpollRecord.SIZE));
  readonly #record = new DataView(new ArrayBuffer(EpollRecord.SIZE));
  #open = true;

  /**
   * Makes an empty set.
   *
   * @throws {SystemError} EMFILE and the like.
   */
  constructor() {
    this.fd = check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  }

  /**
   * Takes a descriptor into the set.
   *
   * @param fd The descriptor.
   * @param interest Bits of {@linkcode EpollEvent}.
   * @throws {SystemError} EEXIST when it is in already; EPERM when it cannot be waited for, as a file.
   */
  add(fd: number, interest: number): void {
    this.#control(EPOLL_CTL_ADD, fd, interest);
  }

  /**
   * Changes what is of interest about a descriptor of the set.
   *
   * @param fd The descriptor.
   * @param interest Bits of {@linkcode EpollEvent}.
   * @throws {SystemError} ENOENT when it is not in the set.
   */
  modify(fd: number, interest: number): void {
    this.#control(EPOLL_CTL_MOD, fd, interest);
  }

  /**
   * Takes a descriptor out of the set. Do so before closing it: while a duplicate lives elsewhere, closing does not.
   *
   * @param fd The descriptor.
   * @throws {SystemError} ENOENT when it is not in the set.
   */
  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0);
  }

  #control(operation: number, fd: number, interest: number): void {
    this.#record.setUint32(EpollRecord.events, interest, true);
    this.#record.setInt32(EpollRecord.data, fd, true);
    check(libc.epoll_ctl(this.fd, operation, fd, this.#record), "epoll_ctl");
  }

  /**
   * Waits until something happens to a descriptor of the set. The thread sleeps.
   *
   * @param timeoutMs How long to wait at most, in milliseconds: 0 only looks, -1 waits for ever.
   * @param visit Is told each descriptor and its bits of {@linkcode EpollEvent}. All of them were taken before the
   * first visit: a descriptor that one visit removes may still be visited after it.
   * @returns How many were visited; 0 when the time is over.
   * @throws {SystemError} EBADF and the like.
   */
  wait(timeoutMs: number, visit: (fd: number, events: number) => void): number {
    const ready = this.#ready;
    const count = waitThroughSignals(
      "epoll_wait",
      timeoutMs,
      (remaining) => libc.epoll_wait(this.fd, ready, BATCH, remaining),
    );
    for (let offset = 0; offset < count * EpollRecord.SIZE; offset += EpollRecord.SIZE) {
      visit(ready.getInt32(offset + EpollRecord.data, true), ready.getUint32(offset + EpollRecord.events, true));
    }
    return count;
  }

  /** Closes the set; the descriptors in it stay open. Closing again does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeDescriptor(this.fd);
  }
}

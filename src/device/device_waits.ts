/**
 * Waits for what a device brings.
 *
 * @module
 */

import { pollDescriptor, PollEvent, type PollWatch, watchDescriptor } from "../../ffi/poll_loop.ts";
import { type Look, timedOut, Waiters, type WaitOptions } from "../lane/waiters.ts";
import type { Subject } from "../subject.ts";

/** All waits for one device. */
export class DeviceWaits {
  readonly #fd: number;
  readonly #refresh: () => boolean;
  readonly #waiters = new Waiters(() => {
    if (this.#waiters.size === 0) this.#disarm();
  });
  #watch: PollWatch | undefined;

  /**
   * @param fd The device's descriptor.
   * @param refresh Takes in what is there; says whether more could be taken in, so that it is worth watching.
   */
  constructor(fd: number, refresh: () => boolean) {
    this.#fd = fd;
    this.#refresh = refresh;
  }

  /**
   * Takes in what is there; whoever waits for some of it gets it, for nothing tells him otherwise that it has come.
   *
   * @returns Whether more could be taken in.
   */
  refresh(): boolean {
    try {
      return this.#refresh();
    } finally {
      this.#waiters.settle();
    }
  }

  /**
   * Waits as a promise; the process stays alive meanwhile.
   *
   * @param subject What it is about.
   * @param look Looks for the result.
   * @param options How the wait may end.
   * @returns The result.
   */
  wait<T>(subject: Subject, look: Look<T>, options: WaitOptions | undefined): Promise<T> {
    try {
      options?.signal?.throwIfAborted();
      this.refresh();
      const found = look();
      if (found !== undefined) return Promise.resolve(found);
      const promise = this.#waiters.add(subject, look, options);
      this.#arm();
      return promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Waits without turning the event loop.
   *
   * @param subject What it is about.
   * @param look Looks for the result.
   * @param timeout Milliseconds, or -1 without end.
   * @returns The result.
   * @throws {VmciError} TIMEOUT.
   */
  waitSync<T>(subject: Subject, look: Look<T>, timeout: number): T {
    const end = timeout < 0 ? Infinity : performance.now() + timeout;
    for (;;) {
      this.refresh();
      const found = look();
      if (found !== undefined) return found;
      const left = end - performance.now();
      if (left <= 0) throw timedOut(subject, timeout);
      pollDescriptor(this.#fd, PollEvent.IN, left === Infinity ? -1 : left);
    }
  }

  /** Everybody looks again. */
  wake(): void {
    this.#arm();
    this.#waiters.settle();
  }

  /** What stayed with the device is of interest again. */
  watchAgain(): void {
    this.#arm();
  }

  /** Ends every wait with an error. */
  failAll(makeError: (subject: Subject) => unknown): void {
    this.#waiters.failAll(makeError);
  }

  #arm(): void {
    if (this.#waiters.size > 0) this.#watch ??= watchDescriptor(this.#fd, PollEvent.IN, () => this.#found());
  }

  #disarm(): void {
    this.#watch?.stop();
    this.#watch = undefined;
  }

  #found(): void {
    let more: boolean;
    try {
      more = this.#refresh();
    } catch (error) {
      this.failAll(() => error);
      return;
    }
    this.#waiters.settle();
    // What has no room here stays with the driver, and is no news until somebody takes something.
    if (!more) this.#disarm();
  }
}

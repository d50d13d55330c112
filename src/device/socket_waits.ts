/**
 * Waits for what a socket brings or takes.
 *
 * @module
 */

import { pollDescriptor, watchDescriptor } from "../../ffi/poll_loop.ts";
import { timedOut, type WaitOptions } from "../lane/waiters.ts";
import type { Subject } from "../subject.ts";

/** Timers do not count further, nobody waits that long. */
const LONG = 0x7FFF_FFFF;

interface Waiter {
  readonly subject: Subject;
  readonly look: () => boolean;
  readonly fail: (error: unknown) => void;
}

/** All waits for one descriptor. Those that wait for the same are served in the order they came. */
export class SocketWaits {
  readonly #fd: number;
  readonly #waiters = new Set<Waiter>();

  /** @param fd The descriptor. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Tries until it succeeds; the process stays alive meanwhile.
   *
   * @param subject What it is about.
   * @param events What the descriptor must be ready for, bits of `PollEvent`.
   * @param attempt Tries: the result, or `undefined` when that is not possible yet. It may throw.
   * @param options How the wait may end.
   * @returns The result.
   */
  wait<T>(
    subject: Subject,
    events: number,
    attempt: () => T | undefined,
    options: WaitOptions | undefined,
  ): Promise<T> {
    try {
      options?.signal?.throwIfAborted();
      const found = attempt();
      if (found !== undefined) return Promise.resolve(found);
      return this.#enqueue(subject, events, attempt, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Tries until it succeeds, without turning the event loop.
   *
   * @param subject What it is about.
   * @param events What the descriptor must be ready for.
   * @param attempt Tries.
   * @param timeout Milliseconds, or -1 without end.
   * @returns The result.
   * @throws {VmciError} TIMEOUT.
   */
  waitSync<T>(subject: Subject, events: number, attempt: () => T | undefined, timeout: number): T {
    const end = timeout < 0 ? Infinity : performance.now() + timeout;
    for (;;) {
      const found = attempt();
      if (found !== undefined) return found;
      const left = end - performance.now();
      if (left <= 0) throw timedOut(subject, timeout);
      pollDescriptor(this.#fd, events, left === Infinity ? -1 : left);
    }
  }

  /** Everybody tries again, for something that no descriptor tells. */
  lookAgain(): void {
    for (const waiter of [...this.#waiters]) waiter.look();
  }

  /** Ends every wait with an error. */
  failAll(makeError: (subject: Subject) => unknown): void {
    for (const waiter of [...this.#waiters]) waiter.fail(makeError(waiter.subject));
  }

  #enqueue<T>(
    subject: Subject,
    events: number,
    attempt: () => T | undefined,
    options: WaitOptions | undefined,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const { signal, timeout } = options ?? {};
    const leave = () => {
      watch.stop();
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#waiters.delete(waiter);
    };
    const look = (): boolean => {
      // Whoever was served before may have closed the socket.
      if (!this.#waiters.has(waiter)) return true;
      try {
        const found = attempt();
        if (found === undefined) return false;
        leave();
        resolve(found);
      } catch (error) {
        leave();
        reject(error);
      }
      return true;
    };
    const waiter: Waiter = {
      subject,
      look,
      fail: (error) => {
        leave();
        reject(error);
      },
    };
    const abort = () => waiter.fail(signal?.reason);
    const watch = watchDescriptor(this.#fd, events, look);
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", abort, { once: true });
    const timer = timeout === undefined || timeout >= LONG ? undefined : setTimeout(() => {
      if (!look()) waiter.fail(timedOut(subject, timeout));
    }, timeout);
    // The attempt before may have aborted it, when nobody listened yet.
    if (signal?.aborted) abort();
    return promise;
  }
}

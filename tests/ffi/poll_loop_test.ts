/** Waiting for descriptors that the event loop cannot watch: eventfds and sockets play them here. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { libc, SystemError } from "../../ffi/libc.ts";
import { letGo, pollDescriptor, PollEvent, pollingEnded, watchDescriptor } from "../../ffi/poll_loop.ts";
import { streamPair } from "../../ffi/unix_socket.ts";
import { withFailures } from "./support.ts";

const EFD_NONBLOCK = 0o4000;

/** A descriptor that can be read as soon as it is rung. */
class Signal implements Disposable {
  readonly fd: number = libc.eventfd(0, EFD_NONBLOCK);

  ring(): void {
    libc.eventfd_write(this.fd, 1n);
  }

  take(): void {
    libc.eventfd_read(this.fd, new BigUint64Array(1));
  }

  [Symbol.dispose](): void {
    letGo(this.fd);
    closeDescriptor(this.fd);
  }
}

/** The next thing found on a descriptor. */
function next(fd: number, events: number = PollEvent.IN): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const watch = watchDescriptor(fd, events, (found) => {
    watch.stop();
    resolve(found);
  });
  return promise;
}

/** The waker stays open, so the first test must not be charged with it. */
watchDescriptor(0, 0, () => {}).stop();

/** A test that is over when the last native call is. */
function test(name: string, body: () => Promise<void>): void {
  Deno.test(name, () => body().finally(pollingEnded));
}

test("poll loop: what is found on one of many descriptors goes to whoever waits for that one", async () => {
  using first = new Signal();
  using second = new Signal();
  let called = false;
  const other = watchDescriptor(first.fd, PollEvent.IN, () => called = true);
  const found = next(second.fd);
  second.ring();
  assertEquals(await found, PollEvent.IN);
  assertEquals(called, false);
  other.stop();
});

test("poll loop: a wait that begins while another is under way is seen to at once", async () => {
  using first = new Signal();
  using second = new Signal();
  const early = next(first.fd);
  await new Promise((resolve) => setImmediate(resolve));
  second.ring();
  await next(second.fd);
  first.ring();
  await early;
});

test("poll loop: what is not taken is found again, and no more after stopping", async () => {
  using signal = new Signal();
  signal.ring();
  const { promise, resolve } = Promise.withResolvers<void>();
  let times = 0;
  const watch = watchDescriptor(signal.fd, PollEvent.IN, () => {
    if (++times < 3) return;
    watch.stop();
    watch.stop();
    resolve();
  });
  await promise;
  using another = new Signal();
  another.ring();
  await next(another.fd);
  assertEquals(times, 3);
});

test("poll loop: room to write and the other end's death are found", async () => {
  const [one, other] = streamPair();
  assertEquals(await next(one, PollEvent.OUT), PollEvent.OUT);
  const found = next(one);
  letGo(other);
  closeDescriptor(other);
  assert((await found & PollEvent.HUP) !== 0);
  letGo(one);
  closeDescriptor(one);
});

test("poll loop: once it is let go, closing a descriptor releases what is behind it", async () => {
  const [one, other] = streamPair();
  watchDescriptor(one, PollEvent.IN, () => {}).stop();
  const watch = watchDescriptor(one, PollEvent.IN, () => {});
  await new Promise((resolve) => setImmediate(resolve));
  watch.stop();
  letGo(one);
  closeDescriptor(one);
  // Not awaited in between: the other end sees the end of the file already now.
  assert((pollDescriptor(other, PollEvent.IN, 0) & PollEvent.HUP) !== 0);
  closeDescriptor(other);
});

Deno.test("poll loop: blocking ends with what was found, or after the time", () => {
  using signal = new Signal();
  assertEquals(pollDescriptor(signal.fd, PollEvent.IN, 1), 0);
  signal.ring();
  assertEquals(pollDescriptor(signal.fd, PollEvent.IN, -1), PollEvent.IN);
  signal.take();
  assertEquals(pollDescriptor(signal.fd, PollEvent.IN, 0), 0);
  assertThrows(() => withFailures("poll", 22, 1, () => pollDescriptor(signal.fd, PollEvent.IN, 0)), SystemError);
});

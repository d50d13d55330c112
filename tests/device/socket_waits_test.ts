/** Waits for a socket. An eventfd plays it. */

import { assertRejects, assertStrictEquals } from "@std/assert";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { libc } from "../../ffi/libc.ts";
import { letGo, PollEvent, pollingEnded, watchDescriptor } from "../../ffi/poll_loop.ts";
import { SocketWaits } from "../../src/device/socket_waits.ts";

/** The waker and the library stay open, so the first test must not be charged with them. */
watchDescriptor(0, 0, () => {}).stop();
closeDescriptor(libc.eventfd(0, 0));

Deno.test("socket waits: a signal that the first attempt aborts ends the wait with its reason", async () => {
  const fd = libc.eventfd(0, 0o4000);
  const waits = new SocketWaits(fd);
  const [reason, controller] = [new Error("enough"), new AbortController()];
  const { signal } = controller;
  const attempt = () => controller.abort(reason);
  const wait = waits.wait<void>({ operation: "wait" }, PollEvent.IN, attempt, { signal });
  const ended = assertRejects(() => wait);
  // One that goes on in spite of it is ended here.
  const bound = setTimeout(() => waits.failAll(() => new Error("it goes on")));
  assertStrictEquals(await ended, reason);
  clearTimeout(bound);
  letGo(fd);
  closeDescriptor(fd);
  await pollingEnded();
});

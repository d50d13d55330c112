import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, duplicate } from "../../ffi/descriptor.ts";
import { Epoll, EpollEvent } from "../../ffi/epoll.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { Errno, SystemError } from "../../ffi/libc.ts";
import { drainBell, ringBell, streamPair } from "../../ffi/unix_socket.ts";
import { descriptorFlags, NOT_OPEN, test, withFailures } from "./support.ts";

/** What one wait brings, by descriptor. */
function eventsOf(epoll: Epoll, timeoutMs = 0): Map<number, number> {
  const events = new Map<number, number>();
  const count = epoll.wait(timeoutMs, (fd, bits) => events.set(fd, bits));
  assertEquals(events.size, count);
  return events;
}

test("a set tells who is ready and for what, until it is taken care of", () => {
  const epoll = new Epoll();
  assert(descriptorFlags(epoll.fd).closeOnExec);
  const [a, b] = streamPair();
  epoll.add(a, EpollEvent.IN);
  assertEquals(eventsOf(epoll), new Map());

  ringBell(b);
  assertEquals(eventsOf(epoll, -1), new Map([[a, EpollEvent.IN]]));
  assertEquals(eventsOf(epoll), new Map([[a, EpollEvent.IN]]));
  drainBell(a);
  assertEquals(eventsOf(epoll), new Map());

  epoll.modify(a, EpollEvent.IN | EpollEvent.OUT);
  assertEquals(eventsOf(epoll), new Map([[a, EpollEvent.OUT]]));
  epoll.remove(a);
  assertEquals(eventsOf(epoll), new Map());
  [a, b].forEach(closeDescriptor);
  epoll.close();
});

test("a closed other end is told as HUP and RDHUP", () => {
  const epoll = new Epoll();
  const [a, b] = streamPair();
  epoll.add(a, EpollEvent.IN | EpollEvent.RDHUP);
  closeDescriptor(b);
  assertEquals(eventsOf(epoll), new Map([[a, EpollEvent.IN | EpollEvent.HUP | EpollEvent.RDHUP]]));
  closeDescriptor(a);
  epoll.close();
});

test("more events than fit into one wait come with the next", () => {
  const epoll = new Epoll();
  const ends: number[] = [];
  for (let pair = 0; pair < 100; pair++) ends.push(...streamPair());
  for (const fd of ends) epoll.add(fd, EpollEvent.OUT);
  const visited = new Set<number>();
  for (let round = 0; round < 8; round++) for (const fd of eventsOf(epoll).keys()) visited.add(fd);
  assertEquals([...visited].sort(), ends.sort());
  ends.forEach(closeDescriptor);
  epoll.close();
});

test("a wait that nothing happens in takes its time", () => {
  const epoll = new Epoll();
  const start = performance.now();
  assertEquals(epoll.wait(30, () => assert(false)), 0);
  assert(performance.now() - start >= 29);
  assertEquals(withFailures("epoll_wait", Errno.EINTR, 2, () => epoll.wait(1, () => {})), 0);
  assertThrows(() => withFailures("epoll_wait", Errno.EINVAL, 1, () => epoll.wait(1, () => {})), SystemError, "EINVAL");
  epoll.close();
});

test("wrong uses are errors", () => {
  const epoll = new Epoll();
  const [a, b] = streamPair();
  const file = openFile("/proc/self/exe", OpenFlag.RDONLY);
  epoll.add(a, 0);
  assertEquals(assertThrows(() => epoll.add(a, 0), SystemError).code, "EEXIST");
  assertEquals(assertThrows(() => epoll.modify(b, 0), SystemError).code, "ENOENT");
  assertEquals(assertThrows(() => epoll.remove(b), SystemError).code, "ENOENT");
  assertEquals(assertThrows(() => epoll.add(file, 0), SystemError).code, "EPERM");
  assertEquals(assertThrows(() => epoll.add(NOT_OPEN, 0), SystemError).call, "epoll_ctl");
  epoll.close();
  epoll.close();
  [a, b, file].forEach(closeDescriptor);
});

test("a descriptor is told even after its number was closed, as long as a duplicate lives", () => {
  const epoll = new Epoll();
  const [a, b] = streamPair();
  const copy = duplicate(a);
  epoll.add(a, EpollEvent.OUT);
  closeDescriptor(a);
  assertEquals(eventsOf(epoll), new Map([[a, EpollEvent.OUT]]));
  closeDescriptor(copy);
  assertEquals(eventsOf(epoll), new Map());
  closeDescriptor(b);
  epoll.close();
});

test("a set that cannot be made is an error", () => {
  assertThrows(() => withFailures("epoll_create1", Errno.EMFILE, 1, () => new Epoll()), SystemError, "EMFILE");
});

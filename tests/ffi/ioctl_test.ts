/** Requests to drivers, made of descriptors that every machine has. */

import { assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { requestOf } from "../../ffi/ioctl.ts";
import { Errno, SystemError } from "../../ffi/libc.ts";
import { streamPair } from "../../ffi/unix_socket.ts";
import { NOT_OPEN, test, withFailures, withSymbol } from "./support.ts";

/** How many bytes wait to be read: an int. */
const FIONREAD = 0x541B;

test("ioctl: a structure is filled by the driver", () => {
  const [one, other] = streamPair();
  const answer = new Uint8Array(4).fill(0xff);
  assertEquals(requestOf(one, FIONREAD, answer), 0);
  assertEquals([...answer], [0, 0, 0, 0]);
  closeDescriptor(one);
  closeDescriptor(other);
});

test("ioctl: an unknown request and a descriptor that is not open are refused", () => {
  const [one, other] = streamPair();
  const errnoOf = (act: () => unknown) => assertThrows(act, SystemError).errno;
  assertEquals(errnoOf(() => requestOf(one, 0x79f, null)), 25);
  assertEquals(errnoOf(() => requestOf(NOT_OPEN, FIONREAD, new Uint8Array(4))), Errno.EBADF);
  assertEquals(errnoOf(() => requestOf(one, FIONREAD, null)), 14);
  closeDescriptor(one);
  closeDescriptor(other);
});

test("ioctl: an interrupted request is made again, but not for ever", () => {
  const [one, other] = streamPair();
  withFailures("ioctl", Errno.EINTR, 3, () => assertEquals(requestOf(one, FIONREAD, new Uint8Array(4)), 0));
  const error = withFailures(
    "ioctl",
    Errno.EINTR,
    Infinity,
    () => assertThrows(() => requestOf(one, FIONREAD, new Uint8Array(4)), SystemError),
  );
  assertEquals([error.code, error.call], ["EINTR", "ioctl"]);
  closeDescriptor(one);
  closeDescriptor(other);
});

test("ioctl: what the driver returns comes back", () => {
  const result = withSymbol("ioctl", () => () => 720896, () => requestOf(NOT_OPEN, 0x79f, null));
  assertEquals(result, 720896);
});

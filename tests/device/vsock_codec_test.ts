/** Addresses, options and the family's number, without a socket. */

import { assertEquals, assertThrows } from "@std/assert";
import { Errno, SystemError, UnsupportedPlatformError } from "../../ffi/libc.ts";
import { decodeVsockName, encodeVsockName } from "../../ffi/vsock.ts";
import { VmciError } from "../../src/error.ts";
import { vsockError } from "../../src/device/vsock_error.ts";
import { type FamilyProbe, findVsockFamily, vmciContextOf } from "../../src/device/vsock_family.ts";
import {
  decodeOption,
  encodeOption,
  optionSize,
  type VsockOptionForm,
  vsockOptions,
  type VsockOptionValue,
} from "../../src/device/vsock_option.ts";

function hex(bytes: Uint8Array): string {
  return bytes.toHex();
}

Deno.test("vsock: an address is sockaddr_vm, byte by byte", () => {
  const bytes = encodeVsockName(40, { cid: 0x01020304, port: 0x05060708, flags: 1 });
  assertEquals(hex(bytes), "28000000" + "08070605" + "04030201" + "01000000");
  assertEquals(decodeVsockName(bytes), { cid: 0x01020304, port: 0x05060708, flags: 1 });
  assertEquals(hex(encodeVsockName(40, { cid: 0xFFFFFFFF, port: 0xFFFFFFFF })), "28000000ffffffffffffffff00000000");
  // Older kernels give no flags.
  assertEquals(decodeVsockName(bytes.slice(0, 12)).flags, 0);
});

Deno.test("vsock: each option has the number and the form of the headers", () => {
  const table = Object.entries(vsockOptions).map(([name, { number, form, settable, generation }]) =>
    `${number} ${name} ${form} ${optionSize(form)} ${settable ? "rw" : "r"} ${generation ?? "all"}`
  );
  assertEquals(table, [
    "0 bufferSize u64 8 rw all",
    "1 bufferMinSize u64 8 rw all",
    "2 bufferMaxSize u64 8 rw all",
    "3 peerHostVmId i32 4 r all",
    "4 serviceLabel text 256 rw vmware",
    "5 trusted i32 4 r all",
    "6 connectTimeout timeval 16 rw all",
    "7 nonblockingTransfer i32 4 rw all",
    "8 connectTimeoutNew timeval 16 rw linux",
    "8 disconnectCause i32 4 r vmware",
    "9 peerLimitRate i32 4 rw vmware",
    "10 peerPrivLimit i32 4 rw vmware",
    "11 peerBurstLevel u8 1 rw vmware",
  ]);
});

Deno.test("vsock: values of options, byte by byte, and back", () => {
  const cases: readonly [VsockOptionForm, VsockOptionValue, bytes: string][] = [
    ["u64", 262144, "0000040000000000"],
    ["i32", 16384, "00400000"],
    ["u8", 4, "04"],
    ["timeval", 2000, "02000000000000000000000000000000"],
    ["timeval", 1.5, "0000000000000000dc05000000000000"],
    ["timeval", 999.9999, "01000000000000000000000000000000"],
    ["text", "a b", "61206200"],
  ];
  for (const [form, value, bytes] of cases) {
    const encoded = encodeOption(form, value)!;
    assertEquals(hex(encoded), bytes, `${form} ${value}`);
    if (value !== 999.9999) assertEquals(decodeOption(form, encoded), value);
  }
  const faults: readonly [VsockOptionForm, VsockOptionValue][] = [
    ["u64", -1],
    ["u64", 2 ** 60],
    ["u64", "1"],
    ["i32", 2 ** 31],
    ["i32", 0.5],
    ["u8", 256],
    ["timeval", -1],
    ["timeval", Infinity],
    ["timeval", NaN],
    ["text", 5],
    ["text", "a\0b"],
    ["text", "x".repeat(256)],
  ];
  for (const [form, value] of faults) assertEquals(encodeOption(form, value), undefined, `${form} ${value}`);
  assertEquals(decodeOption("u64", new Uint8Array(7)), undefined);
  assertEquals(decodeOption("text", new Uint8Array([65, 66])), "AB");
});

Deno.test("vsock: the family is 40, or what an old module's node says, or none", () => {
  const asked: string[] = [];
  const probe = (has: boolean, answers: Record<string, number>): FamilyProbe => ({
    hasFamily: (number) => has && number === 40,
    askFamily: (path) => {
      asked.push(path);
      return answers[path];
    },
  });
  assertEquals(findVsockFamily(probe(true, { "/dev/vsock": 27 })), { number: 40, generation: "linux" });
  assertEquals(asked, []);
  assertEquals(findVsockFamily(probe(false, { "/dev/vsock": 27 })), { number: 27, generation: "vmware" });
  const esx = "/vmfs/devices/char/vsock/vsock";
  assertEquals(findVsockFamily(probe(false, { [esx]: 28 })), { number: 28, generation: "vmware" });
  for (const answers of [{}, { "/dev/vsock": 0xFFFFFFFF }, { "/dev/vsock": 0 }]) {
    const error = assertThrows(() => findVsockFamily(probe(false, answers)), VmciError, "modprobe");
    assertEquals(error.code, "DEVICE_NOT_FOUND");
  }
});

Deno.test("vsock: a machine without a context of its own is the host", () => {
  assertEquals([undefined, 0, 1, 2, 3, 4711].map(vmciContextOf), [2, 2, 2, 2, 3, 4711]);
});

Deno.test("vsock: error numbers are told as the SDK's codes, with the number as the cause", () => {
  const code = (errno: number) =>
    (vsockError({ operation: "send" }, new SystemError(errno, "sendto")) as VmciError).code;
  // The codes of VMCI, as its sockets turn them into error numbers.
  assertEquals(code(Errno.ENOBUFS), "NO_RESOURCES");
  assertEquals([code(113), code(Errno.EPERM), code(98)], ["INVALID_RESOURCE", "NO_ACCESS", "DUPLICATE_ENTRY"]);
  assertEquals([code(94), code(95), code(19), code(97)], [
    "UNAVAILABLE",
    "UNAVAILABLE",
    "UNAVAILABLE",
    "DEVICE_NOT_FOUND",
  ]);
  assertEquals(code(999), "GENERIC");
  const here = { EINVAL: ["DST_UNREACHABLE", "there is no such context"] } as const;
  const cause = new SystemError(Errno.EINVAL, "sendto");
  const error = vsockError({ operation: "send" }, cause, here) as VmciError;
  assertEquals([error.code, error.cause], ["DST_UNREACHABLE", cause]);
  assertEquals((vsockError({ operation: "x" }, new UnsupportedPlatformError("no")) as VmciError).code, "UNAVAILABLE");
  const other = new RangeError("other");
  assertEquals(vsockError({ operation: "x" }, other), other);
});

/** What the system says, in the SDK's words. */

import { assertEquals, assertInstanceOf, assertStrictEquals } from "@std/assert";
import { SystemError, UnsupportedPlatformError } from "../ffi/libc.ts";
import { VmciError } from "../mod.ts";
import { asVmciError } from "../src/fabric/local/system_failure.ts";

const CODES = [
  ["ENOMEM", 12, "NO_MEM"],
  ["ENOSPC", 28, "NO_MEM"],
  ["EFBIG", 27, "NO_MEM"],
  ["EMFILE", 24, "NO_RESOURCES"],
  ["ENFILE", 23, "NO_RESOURCES"],
  ["EACCES", 13, "NO_ACCESS"],
  ["EPERM", 1, "NO_ACCESS"],
  ["ENOSYS", 38, "UNAVAILABLE"],
  ["EINVAL", 22, "UNAVAILABLE"],
  ["EPIPE", 32, "UNAVAILABLE"],
] as const;

for (const [name, errno, code] of CODES) {
  Deno.test(`system failures: ${name} is ${code}, with its cause`, () => {
    const cause = new SystemError(errno, "open");
    assertEquals(cause.code, name);
    const error = asVmciError(cause, "open the fabric");
    assertInstanceOf(error, VmciError);
    assertEquals([error.code, error.operation, error.cause], [code, "open the fabric", cause]);
  });
}

Deno.test("system failures: where there is no such library it is UNAVAILABLE; anything else stays what it is", () => {
  const error = asVmciError(new UnsupportedPlatformError("this is Plan 9"), "open the fabric");
  assertInstanceOf(error, VmciError);
  assertEquals(error.code, "UNAVAILABLE");
  const other = new TypeError("no");
  assertStrictEquals(asVmciError(other, "open the fabric"), other);
});

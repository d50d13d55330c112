import { assertEquals } from "@std/assert";
import { libc } from "../../ffi/libc.ts";
import { raiseResourceLimit, ResourceLimit, resourceLimit } from "../../ffi/resource_limit.ts";
import { test } from "./support.ts";

test("the process knows how many descriptors it may have, and may have as many as it is allowed at most", () => {
  const [, soft, hard] = /^Max open files\s+(\d+)\s+(\d+)/m.exec(Deno.readTextFileSync("/proc/self/limits"))!;
  const limits = (count: number) => new BigUint64Array([BigInt(count), BigInt(hard!)]);
  assertEquals(resourceLimit(ResourceLimit.NOFILE), BigInt(soft!));
  libc.setrlimit(ResourceLimit.NOFILE, limits(200));
  assertEquals(resourceLimit(ResourceLimit.NOFILE), 200n);
  raiseResourceLimit(ResourceLimit.NOFILE);
  assertEquals(resourceLimit(ResourceLimit.NOFILE), BigInt(hard!));
  libc.setrlimit(ResourceLimit.NOFILE, limits(Number(soft)));
});

test("a limit that there is not is the largest number", () => {
  const text = Deno.readTextFileSync("/proc/self/limits");
  const [, soft] = /^Max file size\s+(\S+)/m.exec(text)!;
  assertEquals(resourceLimit(ResourceLimit.FSIZE), soft === "unlimited" ? 2n ** 64n - 1n : BigInt(soft!));
});

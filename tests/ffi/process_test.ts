import { assertEquals } from "@std/assert";
import { libc } from "../../ffi/libc.ts";
import { descriptorLimit, environment, processId, raiseDescriptorLimit, userId } from "../../ffi/process.ts";
import { test } from "./support.ts";

test("the process knows who it is", () => {
  assertEquals([userId(), processId()], [Deno.uid(), Deno.pid]);
});

test("the process knows how many descriptors it may have, and may have as many as it is allowed at most", () => {
  const [, soft, hard] = /^Max open files\s+(\d+)\s+(\d+)/m.exec(Deno.readTextFileSync("/proc/self/limits"))!;
  const limits = (count: number) => new BigUint64Array([BigInt(count), BigInt(hard!)]);
  assertEquals(descriptorLimit(), Number(soft));
  libc.prlimit(0, 7, limits(200), null);
  assertEquals(descriptorLimit(), 200);
  raiseDescriptorLimit();
  assertEquals(descriptorLimit(), Number(hard));
  libc.prlimit(0, 7, limits(Number(soft)), null);
});

test("environment variables are seen as Deno sets them", () => {
  const name = `VMCI_TEST_${Deno.pid}`;
  assertEquals(environment(name), undefined);
  Deno.env.set(name, "Grüße");
  assertEquals(environment(name), "Grüße");
  Deno.env.set(name, "");
  assertEquals(environment(name), "");
  Deno.env.delete(name);
  assertEquals(environment(name), undefined);
});

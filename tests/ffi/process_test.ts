import { assertEquals } from "@std/assert";
import { environment, processId, userId } from "../../ffi/process.ts";
import { test } from "./support.ts";

test("the process knows who it is", () => {
  assertEquals([userId(), processId()], [Deno.uid(), Deno.pid]);
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

/** A region that many are attached to and one watches: the daemon hands it a bell to each of them. */

import { assertEquals } from "@std/assert";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { addSeals, createMemfd, Seal } from "../../ffi/memfd.ts";
import "../ffi/support.ts";
import { House } from "../support/house.ts";
import { RawClient } from "../support/raw_client.ts";

Deno.test("who watches with many others is handed all their bells, or told that there are too many", async () => {
  await using house = await House.serving();
  using clients = new DisposableStack();
  const come = () => {
    const client = clients.use(new RawClient(house.main));
    client.hello();
    return client;
  };
  const memory = createMemfd("region", 4096);
  addSeals(memory, Seal.SHRINK | Seal.GROW | Seal.SEAL);
  const { handle } = come().ask("create_region", { size: 4096, creatorOnly: false }, [memory]).result;
  closeDescriptor(memory);
  const attach = () => {
    const client = come();
    client.ask("attach", { handle }).descriptors.forEach(closeDescriptor);
    return client;
  };
  const watchers = Array.from({ length: 256 }, attach);
  assertEquals(watchers[0]!.ask("watch_region", { handle }).error, undefined);
  for (let more = 0; more < 2; more++) attach();
  // To the first one it has a bell.
  const { code, reason } = watchers[1]!.ask("watch_region", { handle }).error!;
  assertEquals([code, reason], ["NO_RESOURCES", "257 processes would each need a bell for it, and 256 may"]);
  assertEquals(house.entries().filter(({ event }) => event === "dropped"), []);
});

/** The broker goes while eight processes send and publish and five ask for everything; see takeover_under_load.ts. */

import "../ffi/support.ts";
import { takeoverUnderLoad } from "./takeover_under_load.ts";

Deno.test("takeover: whoever has the broker is killed 4 times under load", async () => {
  console.log(await takeoverUnderLoad({ kills: 4, seed: 1 }));
});

Deno.test("takeover: the daemon is killed and started again 3 times under load", async () => {
  console.log(await takeoverUnderLoad({ kills: 3, seed: 1, daemon: true }));
});

Deno.test("takeover: the daemon is stopped under load: calls end in time and lanes go on", async () => {
  console.log(await takeoverUnderLoad({ kills: 0, stops: 1, seed: 5, daemon: true }));
});

Deno.test("takeover: the process that has the broker is stopped under load: calls end in time and lanes go on", async () => {
  console.log(await takeoverUnderLoad({ kills: 0, stops: 1, seed: 6 }));
});

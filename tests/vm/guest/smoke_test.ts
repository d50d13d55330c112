/** The guest itself. */

import { assertEquals } from "@std/assert";
import { guestTest } from "./support/guest.ts";

guestTest("guest: the driver's device is there and belongs to root", () => {
  const { isCharDevice, uid } = Deno.statSync("/dev/vmci");
  assertEquals({ isCharDevice, uid }, { isCharDevice: true, uid: 0 });
});

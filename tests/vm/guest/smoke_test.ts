/** The guest itself, before anybody has been a context of the driver. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { listenVsockDatagram, localVsockContext, VmciError } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";

guestTest("guest: the driver's device is there and belongs to root, and to nobody else", () => {
  const { isCharDevice, uid, mode } = Deno.statSync("/dev/vmci");
  assertEquals({ isCharDevice, uid, mode: mode! & 0o777 }, { isCharDevice: true, uid: 0, mode: 0o600 });
});

guestTest("guest: before the first context this machine has no id, with the loopback that one's", async () => {
  const run = async (program: string, ...args: string[]) => {
    const { success, stderr } = await new Deno.Command(program, { args }).output();
    assert(success, new TextDecoder().decode(stderr));
  };
  assertEquals(localVsockContext(), undefined);
  const error = assertThrows(() => listenVsockDatagram({ cid: 2, port: 7000 }), VmciError);
  assertEquals([error.code, (error.cause as { code: string }).code], ["INVALID_ARGS", "EADDRNOTAVAIL"]);
  const modules = ["vmw_vsock_virtio_transport_common", "vsock_loopback"];
  for (const module of modules) await run("insmod", `/lib/modules/${module}.ko`);
  assertEquals(localVsockContext(), 1);
  for (const module of modules.reverse()) await run("rmmod", module);
});

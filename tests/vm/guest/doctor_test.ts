/** `vmci doctor` where the drivers really are. */

import { assertEquals } from "@std/assert";
import { run } from "../../support/program.ts";
import { guestTest } from "./support/guest.ts";

guestTest("doctor: finds the drivers, their versions and nodes, and asks them when told to", async () => {
  const { code, stdout, stderr } = await run("cli.ts", ["doctor", "--probe", "--json"], {
    permissions: ["--no-check", "--no-lock", "--cached-only", "--allow-ffi"],
  });
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  const { system, modules, nodes, vsock, probe, uses, findings } = JSON.parse(stdout);
  assertEquals(system.kernel, Deno.osRelease());
  const version = (name: string) => Deno.readTextFileSync(`/sys/module/${name}/version`).trim();
  for (const name of ["vmw_vmci", "vmw_vsock_vmci_transport"]) {
    const { state, version: told } = modules.find((it: { name: string }) => it.name === name);
    assertEquals([state, told], ["loaded", version(name)]);
  }
  assertEquals(nodes[0], { path: "/dev/vmci", kind: "device", mode: "600", uid: 0, gid: 0, usable: true });
  assertEquals([vsock.registered, vsock.family], [true, 40]);
  assertEquals(probe.vmci, { driverVersion: "11.0", hostContext: 2 });
  assertEquals(probe.vsock, { family: 40, localContext: 2 });
  for (const medium of ["vsock:", "/dev/vmci"]) {
    assertEquals(uses.filter((it: { medium: string; ready: boolean }) => it.medium === medium && !it.ready), []);
  }
  assertEquals(findings.filter((it: { level: string }) => it.level === "problem"), []);
});

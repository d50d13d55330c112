/** Out of descriptors, addresses and room on a file system, for real. */

import { assertEquals } from "@std/assert";
import "../ffi/support.ts";
import { openVmci } from "../../mod.ts";
import { fails } from "../support/failure.ts";
import { makeRunDirectory } from "../support/media.ts";
import { OwnDirectory, run } from "../support/program.ts";

/** Runs the program that has too little. */
async function starved(what: string, device: string): Promise<unknown> {
  const program = "tests/faults/hostile_support/starved.ts";
  const { code, signal, stdout, stderr } = await run(program, [what, device], {
    permissions: ["--allow-all"],
  });
  assertEquals([code, signal, stderr], [0, null, ""]);
  return JSON.parse(stdout);
}

Deno.test("out of descriptors: a client is told NO_RESOURCES, what it has goes on, and later it works again", async () => {
  await using directory = await OwnDirectory.make();
  await using _broker = await openVmci({ device: directory.path });
  assertEquals(await starved("descriptors", directory.path), {
    made: true,
    refused: "NO_RESOURCES EMFILE",
    goesOn: true,
    steady: true,
    after: "done",
    leftOpen: 0,
  });
});

Deno.test("out of descriptors: so is a client whose process has the broker", async () => {
  await using directory = await OwnDirectory.make();
  const report = await starved("descriptors", directory.path) as Record<string, unknown>;
  // Whichever of the two runs out first says so; the broker's error has no cause here.
  assertEquals({ ...report, refused: String(report.refused).split(" ")[0] }, {
    made: true,
    refused: "NO_RESOURCES",
    goesOn: true,
    steady: true,
    after: "done",
    leftOpen: 0,
  });
});

Deno.test("out of addresses: a region that cannot be mapped is NO_MEM, and later it can", async () => {
  await using directory = await OwnDirectory.make();
  await using _broker = await openVmci({ device: directory.path });
  assertEquals(await starved("memory", directory.path), {
    made: true,
    refused: "NO_MEM ENOMEM",
    goesOn: true,
    steady: true,
    after: "done",
    leftOpen: 0,
  });
});

/** Mounts a file system of 64 KiB; says why it cannot. */
function mount(path: string): string | undefined {
  if (Deno.uid() !== 0) return "only root mounts";
  const { success, stderr } = new Deno.Command("mount", {
    args: ["-t", "tmpfs", "-o", "size=64k,mode=700", "vmci-test", path],
  }).outputSync();
  return success ? undefined : new TextDecoder().decode(stderr).trim();
}

Deno.test("a full run directory: joining is an error until there is room, and a fabric that runs there goes on", async () => {
  const device = await makeRunDirectory();
  const reason = mount(device);
  if (reason !== undefined) {
    console.log(`skipped: ${reason}`);
    await Deno.remove(device);
    return;
  }
  try {
    const fill = () => {
      using file = Deno.openSync(`${device}/filler`, { create: true, write: true });
      try {
        for (;;) file.writeSync(new Uint8Array(4096));
      } catch {
        // It is full.
      }
    };
    fill();
    for (let i = 0; i < 3; i++) await fails("NO_MEM", () => openVmci({ device }));
    await Deno.remove(`${device}/filler`);
    {
      await using host = await openVmci({ device });
      fill();
      await using guest = await openVmci({ device, contextId: 16 });
      for (let i = 0; i < 5000; i++) host.datagrams.create().close();
      using endpoint = host.datagrams.create();
      host.discovery.register("in no room", endpoint.handle);
      assertEquals(guest.discovery.lookup("in no room"), endpoint.handle);
    }
  } finally {
    new Deno.Command("umount", { args: ["--lazy", device] }).outputSync();
    await Deno.remove(device, { recursive: true });
  }
});

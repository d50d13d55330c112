/** Out of descriptors, addresses, size of files and room on a file system, for real. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import "../ffi/support.ts";
import { openVmci, VmciError } from "../../mod.ts";
import { fails } from "../support/failure.ts";
import { makeRunDirectory } from "../support/media.ts";
import { OwnDirectory, Program, run } from "../support/program.ts";
import { ROOT } from "../tools/deno.ts";

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
  assertEquals(await starved("addresses", directory.path), {
    made: true,
    refused: "NO_MEM ENOMEM",
    goesOn: true,
    steady: true,
    after: "done",
    leftOpen: 0,
  });
});

Deno.test("files too large: a region above the limit of a process' files is NO_MEM, and no signal", async () => {
  await using directory = await OwnDirectory.make();
  await using _broker = await openVmci({ device: directory.path });
  assertEquals(await starved("file size", directory.path), {
    made: false,
    refused: "NO_MEM EFBIG",
    goesOn: true,
    steady: true,
    after: "done",
    leftOpen: 0,
  });
});

/** Changes a limit of a process that runs; says why it cannot. */
function limit(pid: number, what: string): string | undefined {
  try {
    const { success, stderr } = new Deno.Command("prlimit", { args: ["--pid", `${pid}`, what] }).outputSync();
    return success ? undefined : new TextDecoder().decode(stderr).trim();
  } catch (error) {
    return String(error);
  }
}

/** How many descriptors a process has open. */
function descriptorsOf(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

async function servedBy(device: string, ...args: string[]): Promise<Program> {
  const daemon = new Program("cli.ts", ["fabric", "serve", "--socket", device, ...args]);
  await daemon.printed("listening at");
  return daemon;
}

Deno.test("out of descriptors in the broker, for what others do: who asks is told, all else goes on, later it works again", async () => {
  await using directory = await OwnDirectory.make();
  const device = `${directory.path}/daemon`;
  await using daemon = await servedBy(device);
  await using host = await openVmci({ device });
  await using guest = await openVmci({ device, contextId: 16 });
  using mailbox = host.datagrams.create();
  host.access.addClientPrivileges(mailbox.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
  host.discovery.register("mailbox", mailbox.handle);
  using from = guest.datagrams.create();
  const goesOn = () => {
    from.sendTo(mailbox.handle, new Uint8Array([1]));
    assertEquals(mailbox.receiveSync(5000).payload, new Uint8Array([1]));
    assertEquals(guest.discovery.lookup("mailbox"), mailbox.handle);
  };
  goesOn();
  const before = descriptorsOf(daemon.pid);
  const reason = limit(daemon.pid, `--nofile=${before + 30}`);
  if (reason !== undefined) return console.log(`skipped: ${reason}`);
  {
    await using greedy = await openVmci({ device, contextId: 17 });
    // The broker keeps a descriptor of every region.
    const fill = () => {
      for (let i = 0; i < 1000; i++) greedy.sharedMemory.create(4096);
    };
    await fails("NO_RESOURCES", fill);
    goesOn();
    await fails("NO_RESOURCES", () => host.sharedMemory.create(4096));
    // The last ones are for who connects. When they too are used up, who comes is told; or, if the broker cannot even
    // take him in, waits in vain.
    await using crowd = new AsyncDisposableStack();
    crowd.use(await openVmci({ device, contextId: 18 }));
    goesOn();
    const { code } = await assertRejects(async () => {
      for (let i = 0; i < 30; i++) crowd.use(await openVmci({ device, timeout: 500 }));
    }, VmciError);
    assert(code === "NO_RESOURCES" || code === "UNAVAILABLE", code);
    goesOn();
  }
  await using _another = await openVmci({ device, contextId: 18 });
  host.sharedMemory.create(4096).detach();
  goesOn();
});

Deno.test("files too large: a daemon whose audit log may grow no more says so and goes on", async () => {
  await using directory = await OwnDirectory.make();
  const [device, audit] = [`${directory.path}/daemon`, `${directory.path}/audit`];
  await using daemon = await servedBy(device, "--audit", audit);
  await using host = await openVmci({ device });
  const reason = limit(daemon.pid, "--fsize=8192");
  if (reason !== undefined) return console.log(`skipped: ${reason}`);
  for (let i = 0; i < 100; i++) host.datagrams.create().close();
  await daemon.printed("cannot write to the audit log");
  assertEquals((await Deno.stat(audit)).size, 8192);
  using endpoint = host.datagrams.create();
  host.discovery.register("goes on", endpoint.handle);
  assertEquals(host.discovery.lookup("goes on"), endpoint.handle);
});

Deno.test("/dev/shm full: regions and lanes need no room there", async () => {
  if (Deno.uid() !== 0) return console.log("skipped: only root mounts");
  await using directory = await OwnDirectory.make();
  const program = `${ROOT}tests/faults/hostile_support/starved.ts`;
  // In a mount namespace of its own there is a small one, which nobody else sees.
  const mount = 'mount -t tmpfs -o size=64k vmci-test /dev/shm || exit 99; exec "$@"';
  const args = ["-m", "sh", "-c", mount, "sh", Deno.execPath(), "run", "--allow-all", program, "shm", directory.path];
  const { code, stdout, stderr } = await new Deno.Command("unshare", { args }).output();
  const text = new TextDecoder();
  if (code === 99 || text.decode(stderr).startsWith("unshare:")) {
    return console.log(`skipped: ${text.decode(stderr).trim()}`);
  }
  assertEquals([code, text.decode(stderr)], [0, ""]);
  const report = JSON.parse(text.decode(stdout));
  assertEquals(report, { full: true, written: 7, first: 3, goesOn: true, after: "done", leftOpen: 0 });
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

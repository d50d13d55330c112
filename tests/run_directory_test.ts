/** The directory of a fabric: what may be one, and what is in it. */

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { describeProcess, readFileText, RunDirectory } from "../src/fabric/local/run_directory.ts";
import { test } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";

/** Does something in a directory that may be a fabric's. */
function inDirectory(act: (path: string) => void): void {
  const path = Deno.makeTempDirSync({ prefix: "vmci-" });
  Deno.chmodSync(path, 0o700);
  try {
    act(path);
  } finally {
    Deno.chmodSync(path, 0o700);
    Deno.removeSync(path, { recursive: true });
  }
}

test("run directory: what is none, or not this user's alone, is refused and says why", () =>
  inDirectory((path) => {
    assertStringIncludes(failsSync("UNAVAILABLE", () => new RunDirectory(`${path}/none`)).message, "no directory");
    Deno.writeTextFileSync(`${path}/file`, "");
    assertStringIncludes(failsSync("UNAVAILABLE", () => new RunDirectory(`${path}/file`)).message, "not a directory");
    Deno.symlinkSync(path, `${path}/link`);
    failsSync("UNAVAILABLE", () => new RunDirectory(`${path}/link`));
    Deno.chmodSync(path, 0o701);
    assertStringIncludes(failsSync("NO_ACCESS", () => new RunDirectory(path)).message, "others may enter");
  }));

test("run directory: another user's is refused", () => {
  // Only root can make one; everybody else has root's.
  if (Deno.uid() !== 0) return void failsSync("NO_ACCESS", () => new RunDirectory("/proc/1"));
  inDirectory((path) => {
    Deno.mkdirSync(`${path}/theirs`, { mode: 0o700 });
    Deno.chownSync(`${path}/theirs`, 65534, 65534);
    assertStringIncludes(failsSync("NO_ACCESS", () => new RunDirectory(`${path}/theirs`)).message, "user 65534");
  });
});

test("run directory: this user's own is where it should be, and is made if need be", () => {
  const { path } = RunDirectory.ofUser();
  assert([`/run/user/${Deno.uid()}/vmci`, `/tmp/vmci-${Deno.uid()}`].includes(path), path);
  assertEquals(Deno.lstatSync(path).isDirectory, true);
});

test("run directory: one that cannot be made says why", () =>
  inDirectory((path) => {
    assertEquals(RunDirectory.make(`${path}/new`).path, `${path}/new`);
    failsSync("UNAVAILABLE", () => RunDirectory.make(`${path}/none/new`));
  }));

test("run directory: its socket's path must fit into an address", () =>
  inDirectory((path) => {
    assertEquals(new RunDirectory(path).socket, `${path}/socket`);
    const long = `${path}/${"ä".repeat(45)}`;
    Deno.mkdirSync(long, { mode: 0o700 });
    assertStringIncludes(failsSync("UNAVAILABLE", () => new RunDirectory(long).socket).message, "at most 92 bytes");
  }));

test("run directory: the lock has one holder", () =>
  inDirectory((path) => {
    const directory = new RunDirectory(path);
    const lock = directory.tryLock();
    assertEquals(directory.tryLock(), undefined);
    closeDescriptor(lock!);
    closeDescriptor(directory.tryLock()!);
  }));

test("run directory: a client's place in the roster is its own while it lives", () =>
  inDirectory((path) => {
    const directory = new RunDirectory(path);
    const roster = directory.openRoster();
    assertEquals(roster.living(), []);
    const places = Array.from({ length: 40 }, () => directory.takeSlot());
    const slots = places.map(({ slot }) => slot);
    assertEquals(new Set(slots).size, slots.length);
    assertEquals(new Set(roster.living()), new Set(slots));
    for (const { fd } of places) closeDescriptor(fd);
    assertEquals(roster.living(), []);
    roster.close();
  }));

test("run directory: the mark of used numbers and the key outlive who made them", () =>
  inDirectory((path) => {
    const directory = new RunDirectory(path);
    const numbers = directory.openNumbers();
    assertEquals(numbers.read(), 0);
    numbers.write(2 ** 32 - 1);
    numbers.close();
    const again = directory.openNumbers();
    assertEquals(again.read(), 2 ** 32 - 1);
    again.close();
    const ticket = directory.openTickets().issue("a claim");
    assertEquals(directory.openTickets().isGenuine("a claim", ticket), true);
    assertEquals(directory.openTickets().isGenuine("another", ticket), false);
    Deno.removeSync(`${path}/key`);
    assertNotEquals(directory.openTickets().issue("a claim"), ticket);
  }));

test("run directory: a process is described by what the kernel says of it", () => {
  const { pid } = Deno;
  // The thread that asks need not be the one that the kernel describes.
  assertStringIncludes(["running", "sleeping"].map((it) => `process ${pid} is ${it}`).join(), describeProcess(pid));
  assertEquals(describeProcess(2 ** 22 + 1), `process ${2 ** 22 + 1} is gone`);
});

test("run directory: a file is read whole, or says why not", () =>
  inDirectory((path) => {
    Deno.writeTextFileSync(`${path}/file`, "text\n");
    assertEquals(readFileText(`${path}/file`), "text\n");
    failsSync("UNAVAILABLE", () => readFileText(`${path}/none`));
  }));

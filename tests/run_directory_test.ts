/** The directory of a fabric: what may be one, and what is in it. */

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { HmacTickets } from "../src/fabric/local/hmac_tickets.ts";
import { describeProcess, environmentDefaults, readFileText, RunDirectory } from "../src/fabric/local/run_directory.ts";
import { test, withFailures } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";

const EAGAIN = 11;

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

test("run directory: a roster in which every place is taken says so, and is not kept open", () =>
  inDirectory((path) => {
    const taken = () => withFailures("fcntl_flock", EAGAIN, 1e6, () => new RunDirectory(path).takeSlot());
    assertStringIncludes(failsSync("NO_RESOURCES", taken).reason, "65536 clients live in");
  }));

test("run directory: a daemon's list of clients tells the next one who lives, until they came back or will not", () =>
  inDirectory((path) => {
    const directory = new RunDirectory(path);
    const nobody = 2 ** 22 + 1;
    /** What one daemon finds, and does then. */
    const daemon = (act: (ledger: ReturnType<RunDirectory["openLedger"]>) => void) => {
      const ledger = directory.openLedger();
      const found = ledger.readSurvivors().map(({ client, pid }) => [client, pid]);
      act(ledger);
      ledger.close();
      return found;
    };
    const { pid } = Deno;
    const first = daemon((ledger) => {
      for (const client of [2000, 2001, 2002]) ledger.add(client, pid);
      ledger.add(2003, nobody);
      // The place of one that left is the next one's.
      ledger.remove(2001);
      ledger.add(2004, pid);
      ledger.remove(3000);
    });
    assertEquals(first, []);
    assertEquals(Deno.statSync(`${path}/clients`).size, 4 * 16);
    assertEquals(daemon(() => {}), [[2000, pid], [2004, pid], [2002, pid]]);
    const third = daemon((ledger) => {
      ledger.add(2004, pid);
      ledger.forgetMissing();
      ledger.forgetMissing();
    });
    assertEquals(third.length, 3);
    assertEquals(daemon((ledger) => ledger.remove(2004)), [[2004, pid]]);
    assertEquals(daemon(() => {}), []);
  }));

test("run directory: the environment says where, and as which context, or nothing", () => {
  const before = ["VMCI_FABRIC", "VMCI_CID"].map((name) => [name, Deno.env.get(name)] as const);
  const set = (name: string, value: string | undefined) =>
    value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
  try {
    for (const [name] of before) Deno.env.delete(name);
    assertEquals(environmentDefaults(), { device: undefined, context: undefined });
    set("VMCI_FABRIC", "memory:");
    set("VMCI_CID", "17");
    assertEquals(environmentDefaults(), { device: "memory:", context: 17 });
    for (const wrong of ["", "-1", "seventeen", "12345678901"]) {
      set("VMCI_CID", wrong);
      assertStringIncludes(failsSync("INVALID_ARGS", environmentDefaults).reason, `it is '${wrong}'`);
    }
  } finally {
    for (const [name, value] of before) set(name, value);
  }
});

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
    const ticket = new HmacTickets(directory.readKey()).issue("a claim");
    assertEquals(new HmacTickets(directory.readKey()).isGenuine("a claim", ticket), true);
    assertEquals(new HmacTickets(directory.readKey()).isGenuine("another", ticket), false);
    Deno.removeSync(`${path}/key`);
    assertNotEquals(new HmacTickets(directory.readKey()).issue("a claim"), ticket);
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

test("run directory: a file that is too long to be read whole is refused, not cut", () =>
  inDirectory((path) => {
    const longest = "x".repeat(1 << 20);
    Deno.writeTextFileSync(`${path}/file`, longest);
    assertEquals(readFileText(`${path}/file`) === longest, true);
    Deno.writeTextFileSync(`${path}/file`, `${longest}\n`);
    assertStringIncludes(
      failsSync("NO_RESOURCES", () => void readFileText(`${path}/file`)).message,
      `Cannot read ${path}/file: it is longer than 1048576 bytes`,
    );
  }));

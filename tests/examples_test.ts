/** The examples, as users run them: processes with `--allow-ffi` alone, each test on a fabric of its own. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openVmci, PUBLIC_GROUP_NAME, recordSize } from "../mod.ts";
import { openSession } from "../src/vmci.ts";
import { listNames } from "../src/cli/inspect.ts";
// Opens the libraries before the first test, which would be blamed for it.
import "./ffi/support.ts";
import { OwnDirectory, Program, run } from "./support/program.ts";
import { bundle } from "./tools/bundle.ts";
import { ROOT } from "./tools/deno.ts";

const SHARED_MEM = "examples/shared_mem_app.ts";
const DATAGRAM = "examples/datagram_app.ts";

const DATES = /^(?:(?:Sun|Mon|Tue|Wed|Thu|Fri|Sat) [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d UTC \d{4}\n){3}$/;

const sharing = "Sharing the time as 'HOST TIME' for 10 seconds.\n";
const answering = "Answering 3 queries to 'HOST INFO'.\n";
const query = "Received: HELLO, SERVER!\n";
const answer = "Received: HELLO, CLIENT!\n";

const done = { code: 0, signal: null, stderr: "" };

/** Checks that nothing is left in a fabric that has no program any more, and that the next one can start it. */
async function assertNothingLeft(device: string): Promise<void> {
  const session = await openSession({ device }, { start: true, observer: true });
  assertEquals(listNames(session).map(({ name }) => name), [PUBLIC_GROUP_NAME]);
  await session.close();
}

Deno.test("sharedMemApp: a server of ten rounds, clients of three", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["--device", directory.path];
  await using server = new Program(SHARED_MEM, ["-s", ...on, "--context", "2"]);
  await server.printed(sharing);
  const clients = await Promise.all([
    run(SHARED_MEM, ["-c", ...on, "--context", "16"]),
    run(SHARED_MEM, ["--client", ...on, "--context", "17"]),
    run(SHARED_MEM, ["-c", ...on]),
  ]);
  for (const { stdout, ...ended } of clients) {
    assertEquals(ended, done);
    assertMatch(stdout, DATES);
    // A second apart, unless the machine is very busy.
    const times = stdout.trimEnd().split("\n").map((line) => Date.parse(line.replace("UTC", "GMT")));
    assert(times[0]! <= times[1]! && times[1]! <= times[2]!, stdout);
  }
  assertEquals(await server.ended, { ...done, stdout: sharing, stderr: "0.1.2.3.4.5.6.7.8.9.\n" });
  await assertNothingLeft(directory.path);
});

Deno.test("datagramApp: a server of three queries, a client of one", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  await using server = new Program(DATAGRAM, ["--server", ...on, "--context", "2"]);
  await server.printed(answering);
  for (const context of ["16", "17", "2"]) {
    assertEquals(await run(DATAGRAM, ["-c", ...on, "--context", context]), { ...done, stdout: answer });
  }
  assertEquals(await server.ended, { ...done, stdout: answering + query.repeat(3) });
  await assertNothingLeft(directory.path);
});

Deno.test("datagramApp: three clients at once, and a server in a virtual machine", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  await using server = new Program(DATAGRAM, ["-s", ...on, "--context", "40"]);
  await server.printed(answering);
  const clients = ["2", "41", "42"].map((context) => run(DATAGRAM, ["-c", ...on, "--context", context]));
  for (const ended of await Promise.all(clients)) assertEquals(ended, { ...done, stdout: answer });
  assertEquals(await server.ended, { ...done, stdout: answering + query.repeat(3) });
});

Deno.test("without the grant a client of another context gets NO_ACCESS", async () => {
  await using directory = await OwnDirectory.make();
  await using server = new Program("tests/programs/party.ts", [directory.path, "ungranted"]);
  await server.printed("ready");
  const on = ["-c", "-d", directory.path, "--context", "16"];
  for (
    const [program, call, privilege] of [[SHARED_MEM, "sharedMemory.attach", "SM_ATTACH"], [
      DATAGRAM,
      "sendTo",
      "DG_SEND",
    ]] as const
  ) {
    const { stderr, ...ended } = await run(program, on);
    assertEquals(ended, { code: 0, signal: null, stdout: "" });
    assertMatch(
      stderr,
      new RegExp(
        String.raw`^VMCI error -7: Cannot ${call}: context 16 does not have ${privilege} on 2:\d+; ` +
          String.raw`context 2 can grant it \(NO_ACCESS\)\n$`,
      ),
    );
  }
  // The owner's own context needs no grant.
  const { code, stdout } = await run(SHARED_MEM, ["-c", "-d", directory.path]);
  assertEquals({ code, stdout }, { code: 0, stdout: "\n\n\n" });
});

Deno.test("sharedMemApp: a region of another size is reported", async () => {
  await using directory = await OwnDirectory.make();
  await using server = new Program("tests/programs/party.ts", [directory.path, "small"]);
  await server.printed("ready");
  const stderr = "The region 'HOST TIME' should have 128 bytes, but has 64.\n";
  assertEquals(await run(SHARED_MEM, ["-c", "-d", directory.path]), { ...done, stdout: "", stderr });
});

Deno.test("a second server finds the name taken", async () => {
  await using directory = await OwnDirectory.make();
  await using server = new Program("tests/programs/party.ts", [directory.path, "ungranted"]);
  await server.printed("ready");
  for (const [program, name] of [[SHARED_MEM, "HOST TIME"], [DATAGRAM, "HOST INFO"]] as const) {
    const { code, stdout, stderr } = await run(program, ["-s", "-d", directory.path]);
    assertEquals({ code, stdout }, { code: 0, stdout: "" });
    assertMatch(stderr, new RegExp(`^VMCI error -22: .*'${name}'.*\\(ALREADY_EXISTS\\)\n$`));
  }
});

for (const [program, name] of [[SHARED_MEM, "HOST TIME"], [DATAGRAM, "HOST INFO"]] as const) {
  const file = program.slice("examples/".length);

  Deno.test(`${file}: a client without a server`, async () => {
    await using directory = await OwnDirectory.make();
    const stderr = `VMCI error -21: Cannot discovery.lookup: nothing is registered as '${name}' (NOT_FOUND)\n`;
    assertEquals(await run(program, ["-c", "-d", directory.path]), { ...done, stdout: "", stderr });
  });

  Deno.test(`${file}: the command line`, async () => {
    const help = await run(program, ["-h"]);
    assertEquals({ ...help, stdout: "" }, { ...done, stdout: "" });
    const usage = help.stdout;
    assertMatch(
      usage,
      new RegExp(`^Usage: ${file} \\[-d <VMCI device>\\] .*\nExactly one of -s .* and -c .* is required`),
    );
    assertEquals(await run(program, ["--help", "--nonsense"]), help);
    for (
      const wrong of [
        [],
        ["-s", "-c"],
        ["-x", "-s"],
        ["-c", "operand"],
        ["-c", "-d"],
        ["-c", "--device="],
        ["-c", "--context"],
        ["-c", "--context", "sixteen"],
        ["-c", "--context", "-1"],
      ]
    ) {
      assertEquals(await run(program, wrong), { code: 255, signal: null, stdout: "", stderr: usage }, wrong.join(" "));
    }
  });

  Deno.test(`${file}: a device that does not open`, async () => {
    await using directory = await OwnDirectory.make();
    await using open = await OwnDirectory.make();
    await Deno.chmod(open.path, 0o755);
    await Deno.writeTextFile(`${directory.path}/file`, "");
    for (
      const [args, number, why] of [
        [["-d", `${directory.path}/missing`], -20, "there is no directory"],
        [["-d", `${directory.path}/file`], -20, "is a file, not a directory"],
        [["-d", open.path], -7, "others may enter"],
        [["-d", "/dev/vsock"], -20, "is no fabric"],
        [["-d", "carrier-pigeon:"], -20, "there is no device"],
        [["-d", directory.path, "--context", "5"], -2, "context 5 is reserved"],
        [["-d", directory.path, "--context", "9999999999"], -2, "contextId must be"],
      ] as const
    ) {
      const { code, stdout, stderr } = await run(program, ["-c", ...args]);
      assertEquals({ code, stdout }, { code: 254, stdout: "" });
      assertMatch(stderr, new RegExp(`^VMCI error ${number}: .*\n$`));
      assertStringIncludes(stderr, why);
    }
  });

  Deno.test(`${file}: bundled, it serves and asks`, async () => {
    await using directory = await OwnDirectory.make();
    const made = await bundle(program, `${directory.path}/app.js`);
    assert(made.ok, made.stderr);
    await using fabric = await OwnDirectory.make();
    const app = `${directory.path}/app.js`;
    const elsewhere = { cwd: directory.path };
    await using server = new Program(app, ["-s", "-d", fabric.path], elsewhere);
    await server.printed(`'${name}'`);
    const { stdout, ...ended } = await run(app, ["-c", "-d", fabric.path, "--context", "16"], elsewhere);
    assertEquals(ended, done);
    if (program === SHARED_MEM) assertMatch(stdout, DATES);
    else assertEquals(stdout, answer);
  });
}

Deno.test("Ctrl-C: a server that is interrupted leaves nothing behind, and its clients go on", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  for (let round = 0; round < 2; round++) {
    await using time = new Program(SHARED_MEM, ["-s", ...on]);
    await time.printed(sharing);
    await using info = new Program(DATAGRAM, ["-s", ...on]);
    await info.printed(answering);
    await using client = new Program(SHARED_MEM, ["-c", ...on, "--context", "16"]);
    await client.printed("UTC");
    // The broker is in the first server: the others find another one.
    time.kill("SIGINT");
    info.kill("SIGINT");
    assertEquals((await time.ended).signal, "SIGINT");
    assertEquals((await info.ended).signal, "SIGINT");
    // It is attached, so it has the last time that was written.
    const { stdout, ...ended } = await client.ended;
    assertEquals(ended, done);
    assertMatch(stdout, DATES);
    await assertNothingLeft(directory.path);
  }
});

Deno.test("Ctrl-C: a client that is interrupted leaves nothing behind, and its server goes on", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  // This client waits for an answer that does not come.
  await using silent = new Program("tests/programs/party.ts", [directory.path, "ungranted"]);
  await silent.printed("ready");
  await using waiting = new Program(SHARED_MEM, ["-c", ...on]);
  await waiting.printed("\n");
  waiting.kill("SIGINT");
  assertEquals((await waiting.ended).signal, "SIGINT");
  silent.kill("SIGINT");
  await silent.ended;

  await using server = new Program(DATAGRAM, ["-s", ...on]);
  await server.printed(answering);
  for (let i = 0; i < 3; i++) {
    assertEquals(await run(DATAGRAM, ["-c", ...on, "--context", "16"]), { ...done, stdout: answer });
  }
  assertEquals((await server.ended).code, 0);
  await assertNothingLeft(directory.path);
});

const DEMO = { permissions: ["--allow-ffi", "--allow-run", "--allow-read", "--allow-write"] };

Deno.test("the demo: every line, exit code 0, and nothing left", async () => {
  await using temporary = await OwnDirectory.make();
  const { code, stdout, stderr } = await run("examples/demo.ts", [], { ...DEMO, env: { TMPDIR: temporary.path } });
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  const lines = stdout.trimEnd().split("\n");
  assertEquals(lines.pop(), "All went as it should.");
  const said = Map.groupBy(
    lines.map((line) => line.split(" | ")),
    ([who]) => who!.trim(),
  );
  const saidBy = (who: string) => said.get(who)?.map(([, what]) => `${what}\n`).join("");
  assertEquals([...said.keys()].sort(), [
    "VM 16  datagram_app -c",
    "VM 16  shared_mem_app -c",
    "VM 17  datagram_app -c",
    "VM 18  datagram_app -c",
    "host  datagram_app -s",
    "host  shared_mem_app -s",
  ]);
  assertEquals(saidBy("host  shared_mem_app -s"), `${sharing}0.1.2.3.4.5.6.7.8.9.\n`);
  assertEquals(saidBy("host  datagram_app -s"), answering + query.repeat(3));
  assertMatch(saidBy("VM 16  shared_mem_app -c")!, DATES);
  for (const vm of [16, 17, 18]) assertEquals(saidBy(`VM ${vm}  datagram_app -c`), answer);
  assertEquals(temporary.entries(), []);
});

Deno.test("the demo: exit code 1 when a program does something else", async () => {
  await using directory = await OwnDirectory.make();
  const made = await bundle("examples/demo.ts", `${directory.path}/demo.js`);
  assert(made.ok, made.stderr);
  for (
    const [program, says] of [
      [`console.log("something else")`, "datagram_app -s should have printed"],
      ["Deno.exit(3)", "datagram_app -s ended with exit code 3"],
    ] as const
  ) {
    await Deno.writeTextFile(`${directory.path}/datagram_app.ts`, program);
    await Deno.writeTextFile(
      `${directory.path}/shared_mem_app.ts`,
      "await new Promise(() => setTimeout(() => {}, 1e6));",
    );
    const { code, stderr } = await run(`${directory.path}/demo.js`, [], DEMO);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "The demo failed: ");
    assertStringIncludes(stderr, says);
  }
});

Deno.test("the demo: Ctrl-C ends it, with exit code 1 and nothing left", async () => {
  await using temporary = await OwnDirectory.make();
  await using demo = new Program("examples/demo.ts", [], { ...DEMO, env: { TMPDIR: temporary.path } });
  await demo.printed(answer);
  demo.kill("SIGINT");
  const { code, stderr } = await demo.ended;
  assertEquals({ code, stderr }, { code: 1, stderr: "The demo failed: it was interrupted\n" });
  assertEquals(temporary.entries(), []);
});

Deno.test("groups.ts: who may, and why", async () => {
  await using directory = await OwnDirectory.make();
  const { code, stdout, stderr } = await run("examples/groups.ts", [], { env: { VMCI_FABRIC: directory.path } });
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  assertEquals(
    stdout,
    `VM 16 sends: true by group
VM 17 does not: false by own, NO_ACCESS
VM 18 does not: false by nothing, NO_ACCESS
`,
  );
});

Deno.test("counter.ts: ten processes lose no count", async () => {
  await using directory = await OwnDirectory.make();
  const env = { VMCI_FABRIC: directory.path };
  await using watcher = new Program("examples/counter.ts", ["watch"], { env });
  const counting = Array.from({ length: 10 }, () => run("examples/counter.ts", ["count"], { env }));
  for (const ended of await Promise.all(counting)) assertEquals(ended, { ...done, stdout: "" });
  assertEquals(await watcher.ended, { ...done, stdout: "counted to 10000\n" });
});

Deno.test("record.ts: readers of whole records only", async () => {
  await using directory = await OwnDirectory.make();
  const env = { VMCI_FABRIC: directory.path };
  const check = (positions: readonly (readonly number[])[]) => {
    for (const [x, y, z] of positions) assertEquals([y, z], [2 * x!, 3 * x!]);
    assertEquals(positions.at(-1), [20, 40, 60]);
  };
  await using vmci = await openVmci({ device: directory.path });
  {
    // Whoever publishes does not wait for those who read: so here it is the test that publishes.
    using region = vmci.sharedMemory.create(recordSize(24), { writers: "creator" });
    const record = region.record(0, 24);
    vmci.discovery.register("position", region.handle);
    const publish = (step: number) => record.publish(new Uint8Array(Float64Array.of(step, 2 * step, 3 * step).buffer));
    publish(1);
    await using first = new Program("examples/record.ts", ["read"], { env });
    await using second = new Program("examples/record.ts", ["read"], { env });
    for (const reader of [first, second]) await reader.printed("position 1 2 3");
    for (let step = 2; step <= 20; step++) publish(step);
    for (const { stdout, ...ended } of await Promise.all([first.ended, second.ended])) {
      assertEquals(ended, done);
      check(stdout.trimEnd().split("\n").map((line) => line.split(" ").slice(1).map(Number)));
    }
  }
  const name = vmci.discovery.wait("position");
  await using publisher = new Program("examples/record.ts", ["publish"], { env });
  using region = vmci.sharedMemory.attach(await name);
  const record = region.record(0, 24);
  const positions: number[][] = [];
  for (let version = 0; version < 20;) {
    version = await record.wait(version);
    positions.push([...new Float64Array(record.read()!.buffer)]);
  }
  check(positions);
  assertEquals(await publisher.ended, { ...done, stdout: "" });
});

Deno.test("watch_names.ts: names as they come and go", async () => {
  await using directory = await OwnDirectory.make();
  const env = { VMCI_FABRIC: directory.path };
  await using watcher = new Program("examples/watch_names.ts", [], { env });
  await watcher.printed(`+ "${PUBLIC_GROUP_NAME}" is GROUP 2:1024`);
  await using server = new Program(DATAGRAM, ["-s"], { env });
  await watcher.printed(`+ "HOST INFO" is DATAGRAM`);
  server.kill("SIGINT");
  await watcher.printed(`- "HOST INFO" is DATAGRAM`);
});

Deno.test("every example begins with the line that runs it", async () => {
  for await (const { name } of Deno.readDir(`${ROOT}examples`)) {
    if (name.startsWith("_")) continue;
    const [first] = (await Deno.readTextFile(`${ROOT}examples/${name}`)).split("\n");
    assertMatch(first!, new RegExp(`^// deno run (?:--allow-\\w+ )+examples/${name}(?: |$)`));
  }
});

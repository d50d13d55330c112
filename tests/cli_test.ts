/** The `vmci` command, as users run it: processes with `--allow-ffi` alone, each test on a fabric of its own. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { VERSION } from "../src/version.ts";
import { bundle } from "./tools/bundle.ts";
import { type Ended, OwnDirectory, Program, run, type StartOptions } from "./support/program.ts";

const PARTY = "tests/programs/party.ts";
const DATAGRAM = "examples/datagram_app.ts";

/** Runs a command to its end. */
function vmci(args: readonly string[], options?: StartOptions): Promise<Ended> {
  return run("cli.ts", args, options);
}

/** Runs a command that must succeed, and reads the line of JSON it prints. */
// deno-lint-ignore no-explicit-any
async function vmciJson(...args: string[]): Promise<any> {
  const { code, stdout, stderr } = await vmci([...args, "--json"]);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  assertMatch(stdout, /^.+\n$/);
  return JSON.parse(stdout);
}

/** Starts a daemon, and waits until it listens. */
async function serve(...args: string[]): Promise<Program> {
  const daemon = new Program("cli.ts", ["fabric", "serve", ...args]);
  await daemon.printed("\n");
  return daemon;
}

/** The handles of a server of `tests/programs/party.ts`, once it is ready. */
async function handlesOf(server: Program): Promise<{ region: string; endpoint: string }> {
  const [, region, endpoint] = /ready (\d+) (\d+)/.exec(await server.printed("ready"))!;
  return { region: `2:${region}`, endpoint: `2:${endpoint}` };
}

Deno.test("help, version and wrong usage", async () => {
  const help = await vmci(["--help"]);
  assertEquals({ ...help, stdout: "" }, { code: 0, signal: null, stdout: "", stderr: "" });
  for (const command of ["fabric serve", "fabric status", "ls", "ping"]) {
    assertStringIncludes(help.stdout, `  ${command} `);
    for (const flag of ["--help", "-h"]) {
      const { code, stdout, stderr } = await vmci([...command.split(" "), flag]);
      assertEquals({ code, stderr }, { code: 0, stderr: "" });
      assertMatch(stdout, new RegExp(`^Usage: vmci ${command} `));
    }
  }
  assertEquals(await vmci(["-h"]), help);
  assertEquals((await vmci(["--version"])).stdout, `vmci ${VERSION}\n`);
  assertMatch((await vmci(["fabric", "--help"])).stdout, /Usage: vmci fabric serve [^]*Usage: vmci fabric status /);

  for (
    const [args, why] of [
      [[], "vmci: which command?"],
      [["fabric"], "vmci: there is no command 'fabric'"],
      [["fabric", "burn"], "vmci: there is no command 'fabric burn'"],
      [["lsd"], "vmci: there is no command 'lsd'"],
      [["ls", "--nonsense"], "vmci ls: there is no option --nonsense"],
      [["ls", "-x"], "vmci ls: there is no option -x"],
      [["ls", "--device"], "vmci ls: the option --device needs a value"],
      [["ls", "cows"], "vmci ls: there is no topic 'cows'; there are contexts, names, resources, attachments, lanes"],
      [["fabric", "status", "now"], "vmci fabric status: there is nothing to do with 'now'"],
      [["ping"], "vmci ping: give one handle or name"],
      [["ping", "a", "b"], "vmci ping: give one handle or name"],
      [["ping", "a", "--count", "0"], "vmci ping: --count must be a whole number from 1 to 1000000: '0'"],
      [["ping", "a", "--count", "many"], "vmci ping: --count must be a whole number from 1 to 1000000: 'many'"],
      [["fabric", "serve", "here"], "vmci fabric serve: there is nothing to do with 'here'"],
      [["fabric", "serve", "--socket", "a", "-d", "b"], "vmci fabric serve: --socket serves no directory"],
      [["fabric", "serve", "--context", "16"], "vmci fabric serve: --context is written CID=PATH: '16'"],
      [["fabric", "serve", "--context", "16="], "vmci fabric serve: --context is written CID=PATH: '16='"],
      [["fabric", "serve", "--context", "5=a"], "vmci fabric serve: context 5 is reserved"],
      [["fabric", "serve", "--context", "4294967295=a"], "vmci fabric serve: the CID of --context must be"],
      [
        ["fabric", "serve", "--quota", "cows=3"],
        "vmci fabric serve: --quota is written NAME=N, NAME one of contexts, ",
      ],
      [["fabric", "serve", "--quota", "names=-3"], "vmci fabric serve: the quota of names must be a whole number"],
      [["fabric", "serve", "--quota"], "vmci fabric serve: the option --quota needs a value"],
    ] as const
  ) {
    const { code, stdout, stderr } = await vmci(args);
    assertEquals({ code, stdout }, { code: 2, stdout: "" }, args.join(" "));
    assert(stderr.startsWith(why), stderr);
    assertMatch(stderr, /\nvmci.* --help says more\.\n$/);
  }
});

Deno.test("looking never starts a fabric", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  const why = `Cannot open the fabric: no fabric is running at ${directory.path}/socket (UNAVAILABLE)`;
  for (const command of ["fabric status", "ls", "ping x"]) {
    const words = command.split(" ");
    const stderr = `vmci ${command.replace(" x", "")}: ${why}\n`;
    assertEquals(await vmci([...words, ...on]), { code: 1, signal: null, stdout: "", stderr });
    const { stdout, ...ended } = await vmci([...words, ...on, "--json"]);
    assertEquals(ended, { code: 1, signal: null, stderr });
    const { error: { code, message } } = JSON.parse(stdout);
    assertEquals({ code, message }, { code: "UNAVAILABLE", message: why });
  }
  const { device, running } = JSON.parse((await vmci(["fabric", "status", ...on, "--json"])).stdout);
  assertEquals({ device, running }, { device: `fabric:${directory.path}`, running: false });
  // The environment names the fabric as well.
  assertStringIncludes((await vmci(["ls"], { env: { VMCI_FABRIC: directory.path } })).stderr, why);
  assertEquals(directory.entries(), []);
});

Deno.test("ls and status: what is in a fabric, for people and as JSON", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  await using server = new Program(PARTY, [directory.path, "ungranted"]);
  const { region, endpoint } = await handlesOf(server);
  await using user = new Program(PARTY, [directory.path, "user"]);
  const [, number] = /ready (\d+)/.exec(await user.printed("ready"))!;
  const source = `2:${number}`;

  const { contexts, names, resources, attachments, lanes, ...rest } = await vmciJson("ls", ...on);
  assertEquals(rest, {});
  const processes = [server, user].map(({ pid }) => ({ pid, uid: Deno.uid() }));
  assertEquals(contexts, [{ context: 2, flags: 0, processes, clients: 2, resources: 3, regionBytes: 4096, names: 2 }]);
  assertEquals(names, [
    { name: "HOST INFO", handle: endpoint, type: "DATAGRAM" },
    { name: "HOST TIME", handle: region, type: "SHAREDMEM" },
    { name: "vmci public group", handle: "2:1024", type: "GROUP" },
  ]);
  const { pid } = server;
  assertEquals(resources, [
    { type: "GROUP", handle: "2:1024", pid: null, names: ["vmci public group"], grants: 0, members: 1 },
    { type: "DATAGRAM", handle: endpoint, pid, names: ["HOST INFO"], grants: 0, lanes: 1 },
    { type: "DATAGRAM", handle: source, pid: user.pid, names: [], grants: 0, lanes: 0 },
    {
      type: "SHAREDMEM",
      handle: region,
      pid,
      names: ["HOST TIME"],
      grants: 0,
      size: 128,
      writers: "everybody",
      attachments: 2,
    },
  ]);
  assertEquals(attachments, [
    { handle: region, context: 2, pid, count: 1 },
    { handle: region, context: 2, pid: user.pid, count: 1 },
  ]);
  assertEquals(lanes, [{ source, destination: endpoint, context: 2, pid: user.pid, receiver: pid }]);

  const { code, stdout, stderr } = await vmci(["ls", ...on]);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  assertEquals(stdout.match(/^\w.*$/gm), [
    "contexts (1)",
    "names (3)",
    "resources (4)",
    "attachments (2)",
    "lanes (1)",
  ]);
  assertMatch(
    stdout,
    new RegExp(`^  ${region} +SHAREDMEM +${pid} +0 +128 bytes, all write, 2 attached, "HOST TIME"$`, "m"),
  );
  const { stdout: two } = await vmci(["ls", "lanes", "names", ...on]);
  assertEquals(two.match(/^\w.*$/gm), ["names (3)", "lanes (1)"]);

  assertEquals(await vmciJson("fabric", "status", ...on), {
    device: `fabric:${directory.path}`,
    running: true,
    pid,
    kind: "embedded",
    version: VERSION,
    context: 2,
    names: 3,
    contexts: 1,
    processes: 2,
    resources: 4,
    attachments: 2,
    lanes: 1,
  });
  assertEquals(
    (await vmci(["fabric", "status", ...on], { env: { VMCI_CID: "44" } })).stdout,
    `\
device    fabric:${directory.path}
broker    process ${pid}, embedded, version ${VERSION}
context   44
names     3
contexts  1 with 2 processes
resources 4, attachments 2, lanes 1
`,
  );
});

Deno.test("ls: more than fits into one packet", async () => {
  await using directory = await OwnDirectory.make();
  await using many = new Program("tests/programs/many_names.ts", [directory.path, "100"]);
  await many.printed("ready");
  const { names, resources } = await vmciJson("ls", "names", "resources", "-d", directory.path);
  assertEquals(names.length, 201);
  assertEquals(resources.length, 101);
  assertEquals(resources.at(-1).names.length, 2);
});

Deno.test("ping: by handle and by name, and what does not answer", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  // The broker is in another process than the one that is asked.
  await using _broker = await serve(...on);
  await using server = new Program(PARTY, [directory.path, "ungranted"]);
  const { region, endpoint } = await handlesOf(server);

  const { code, stdout, stderr } = await vmci(["ping", "HOST INFO", ...on]);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  assertMatch(stdout, new RegExp(`^${endpoint} \\(process ${server.pid}\\) answered in \\d+\\.\\d{3} ms\n$`));
  const three = await vmci(["ping", region, "--count", "3", ...on]);
  assertMatch(
    three.stdout,
    new RegExp(
      `^(${region} \\(process \\d+\\) answered in \\S+ ms\n){3}least \\S+ ms, average \\S+ ms, most \\S+ ms\n$`,
    ),
  );
  const { milliseconds: { least, average, most }, ...answer } = await vmciJson(
    "ping",
    "HOST TIME",
    "--count",
    "5",
    ...on,
  );
  assertEquals(answer, { handle: region, pid: server.pid, count: 5 });
  assert(0 < least && least <= average && average <= most);

  for (
    const [target, code, why] of [
      ["nobody", "NOT_FOUND", "nothing is registered as 'nobody'"],
      ["2:1", "NOT_FOUND", "there is no resource 2:1"],
      ["vmci public group", "UNAVAILABLE", "no process stands behind it"],
    ] as const
  ) {
    const stderr = `vmci ping: Cannot ping: ${why} (${code})\n`;
    assertEquals(await vmci(["ping", target, ...on]), { code: 1, signal: null, stdout: "", stderr });
  }
  assertMatch(
    (await vmci(["ping", "99999999999:1", ...on])).stderr,
    /^vmci ping: Cannot parseHandle: .*\(INVALID_ARGS\)\n$/,
  );

  server.kill("SIGSTOP");
  const silent = await vmci(["ping", endpoint, ...on]);
  server.kill("SIGCONT");
  assertEquals({ code: silent.code, stdout: silent.stdout }, { code: 1, stdout: "" });
  assertMatch(
    silent.stderr,
    new RegExp(`process ${server.pid}, which has ${endpoint}, did not answer .*\\(TIMEOUT\\)`),
  );
});

Deno.test("a stopped broker is named", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  await using broker = await serve(...on);
  broker.kill("SIGSTOP");
  const { code, stderr } = await vmci(["fabric", "status", ...on]);
  broker.kill("SIGCONT");
  assertEquals(code, 1);
  assertMatch(stderr, new RegExp(`process ${broker.pid} is stopped .*\\(UNAVAILABLE\\)`));
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`serve: a run directory, until ${signal}`, async () => {
    await using directory = await OwnDirectory.make();
    const on = ["-d", directory.path];
    await using daemon = await serve(...on);
    const { kind, pid, processes } = await vmciJson("fabric", "status", ...on);
    assertEquals({ kind, pid, processes }, { kind: "daemon", pid: daemon.pid, processes: 0 });

    // It outlives its clients.
    for (let round = 0; round < 2; round++) {
      await using server = new Program(DATAGRAM, ["-s", ...on]);
      await server.printed("HOST INFO");
      for (let query = 0; query < 3; query++) {
        assertEquals((await run(DATAGRAM, ["-c", ...on, "--context", "16"])).stdout, "Received: HELLO, CLIENT!\n");
      }
      assertEquals((await server.ended).code, 0);
    }
    assertEquals((await vmciJson("fabric", "status", ...on)).pid, daemon.pid);

    daemon.kill(signal);
    const stdout = `listening at ${directory.path}/socket\n`;
    assertEquals(await daemon.ended, { code: 0, signal: null, stdout, stderr: "" });
    assertEquals(directory.entries().includes("socket"), false);
    assertEquals((await vmci(["ls", ...on])).code, 1);
  });
}

Deno.test("serve: clients of a run directory go on without their daemon, and find the next one", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  const daemon = await serve(...on);
  await using server = new Program(DATAGRAM, ["-s", ...on]);
  await server.printed("HOST INFO");
  daemon.kill("SIGTERM");
  assertEquals((await daemon.ended).code, 0);
  assertEquals((await run(DATAGRAM, ["-c", ...on, "--context", "16"])).stdout, "Received: HELLO, CLIENT!\n");
});

Deno.test("serve: a broker that runs already is named", async () => {
  await using directory = await OwnDirectory.make();
  const on = ["-d", directory.path];
  await using embedded = new Program(PARTY, [directory.path, "ungranted"]);
  await embedded.printed("ready");
  const { code, stdout, stderr } = await vmci(["fabric", "serve", ...on]);
  assertEquals({ code, stdout }, { code: 1, stdout: "" });
  assertEquals(
    stderr,
    `vmci fabric serve: Cannot serve the fabric: process ${embedded.pid} serves ${directory.path}/socket already: ` +
      "end it first, or serve another place (ALREADY_EXISTS)\n",
  );
  // And it was not disturbed.
  assertEquals((await vmciJson("fabric", "status", ...on)).pid, embedded.pid);
});

Deno.test("serve: a socket of its own, and sockets that are contexts", async () => {
  await using directory = await OwnDirectory.make();
  const [main, vm16, vm17] = ["main", "vm16", "vm17"].map((name) => `${directory.path}/${name}`) as [
    string,
    string,
    string,
  ];
  await using daemon = await serve("--socket", main, "--context", `16=${vm16}`, "--context", `17=${vm17}`, "--json");
  const { pid, version, listening } = JSON.parse((await daemon.printed("}")).trim());
  assertEquals({ pid, version }, { pid: daemon.pid, version: VERSION });
  assertEquals(listening, [{ path: main }, { path: vm16, context: 16 }, { path: vm17, context: 17 }]);
  assertEquals(directory.entries(), ["main", "main.state", "vm16", "vm17"]);

  assertEquals((await vmciJson("fabric", "status", "-d", vm16)).context, 16);
  await using server = new Program(DATAGRAM, ["-s", "-d", main]);
  await server.printed("HOST INFO");
  assertEquals((await run(DATAGRAM, ["-c", "-d", vm16])).stdout, "Received: HELLO, CLIENT!\n");
  assertEquals((await run(DATAGRAM, ["-c", "-d", vm17, "--context", "17"])).stdout, "Received: HELLO, CLIENT!\n");
  const foreign = await run(DATAGRAM, ["-c", "-d", vm16, "--context", "17"]);
  assertEquals({ code: foreign.code, stdout: foreign.stdout }, { code: 254, stdout: "" });
  assertMatch(foreign.stderr, /^VMCI error -7: .* may not be context 17; it may be 16 \(NO_ACCESS\)\n$/);
  assertEquals((await run(DATAGRAM, ["-c", "-d", main, "--context", "99"])).stdout, "Received: HELLO, CLIENT!\n");
  assertEquals((await server.ended).code, 0);

  daemon.kill("SIGTERM");
  assertEquals((await daemon.ended).code, 0);
  // What the next daemon needs to know its clients again.
  assertEquals(directory.entries(), ["main.state"]);
});

Deno.test("serve: the mode of a socket is what the umask leaves", async () => {
  await using directory = await OwnDirectory.make();
  const path = `${directory.path}/socket`;
  await using daemon = await serve("--socket", path);
  const wanted = 0o777 & ~Deno.umask();
  assertEquals((await Deno.lstat(path)).mode! & 0o777, wanted);
  daemon.kill("SIGTERM");
  await daemon.ended;
});

Deno.test("serve: what is at a socket's place already", async () => {
  await using directory = await OwnDirectory.make();
  const path = `${directory.path}/socket`;
  const refused = async (...args: string[]) => {
    const { code, stdout, stderr } = await vmci(["fabric", "serve", ...args]);
    assertEquals({ code, stdout }, { code: 1, stdout: "" });
    return stderr.replace("vmci fabric serve: Cannot ", "").trimEnd();
  };
  {
    await using daemon = await serve("--socket", path);
    assertEquals(
      await refused("--socket", path),
      `serve the fabric: process ${daemon.pid} serves ${path} already: end it first, or serve another place (ALREADY_EXISTS)`,
    );
    // One of several sockets cannot be had: the others are not left behind.
    assertEquals(
      await refused("--socket", `${directory.path}/other`, "--context", `16=${path}`),
      `serve the fabric: process ${daemon.pid} listens at ${path} already (ALREADY_EXISTS)`,
    );
    assertEquals(directory.entries(), ["other.state", "socket", "socket.state"]);
    assertEquals((await vmciJson("fabric", "status", "-d", path)).pid, daemon.pid);
    daemon.kill("SIGKILL");
    await daemon.ended;
  }
  // A socket where nobody listens any more is replaced.
  assert(directory.entries().includes("socket"));
  {
    await using daemon = await serve("--socket", path);
    // Removed under it, and in another's place by now: that one is let alone.
    await Deno.remove(path);
    await Deno.writeTextFile(path, "a file");
    daemon.kill("SIGTERM");
    assertEquals((await daemon.ended).code, 0);
  }
  assertEquals(await Deno.readTextFile(path), "a file");
  assertEquals(
    await refused("--socket", path),
    `serve the fabric: ${path} is a file, not a socket (ALREADY_EXISTS)`,
  );
  assertMatch(
    await refused("--socket", `${directory.path}/missing/socket`),
    /^make the directory .*ENOENT.*\(UNAVAILABLE\)$/,
  );
  assertMatch(
    await refused("--socket", `${directory.path}/${"x".repeat(108)}`),
    /^listen at .*ENAMETOOLONG.*\(UNAVAILABLE\)$/,
  );
  const stream = `${directory.path}/stream`;
  using _listener = Deno.listen({ transport: "unix", path: stream });
  assertMatch(await refused("--socket", stream), /^serve the fabric: .* is a socket of another kind/);
});

Deno.test("serve: of many that want one stale socket at once, one gets it", async () => {
  await using directory = await OwnDirectory.make();
  const path = `${directory.path}/socket`;
  {
    await using killed = await serve("--socket", path);
    killed.kill("SIGKILL");
  }
  const rivals = Array.from({ length: 6 }, () => new Program("cli.ts", ["fabric", "serve", "--socket", path]));
  try {
    const served = await Promise.all(
      rivals.map((it) => Promise.race([it.printed("listening").then(() => true, () => false)])),
    );
    assertEquals(served.filter(Boolean).length, 1);
    const winner = rivals[served.indexOf(true)]!;
    assertEquals((await vmciJson("fabric", "status", "-d", path)).pid, winner.pid);
  } finally {
    for (const rival of rivals) await rival[Symbol.asyncDispose]();
  }
});

Deno.test("serve: quotas", async () => {
  await using directory = await OwnDirectory.make();
  const path = `${directory.path}/socket`;
  await using _daemon = await serve("--socket", path, "--quota", "regionBytes=4096", "--quota", "names=1");
  const { code, stderr } = await run(PARTY, [path, "ungranted"]);
  assertEquals(code, 1);
  assertMatch(stderr, /Cannot discovery\.register: context 2 has its quota of 1 names \(NO_RESOURCES\)/);
});

Deno.test("serve: another user comes through a context's socket only", {
  ignore: Deno.build.os !== "linux" || Deno.uid() !== 0,
}, async () => {
  await using directory = await OwnDirectory.make();
  await Deno.chmod(directory.path, 0o755);
  const [main, vm] = [`${directory.path}/main`, `${directory.path}/vm`];
  await using _daemon = await serve("--socket", main, "--context", `16=${vm}`);
  for (const path of [main, vm]) await Deno.chmod(path, 0o777);
  await using server = new Program(DATAGRAM, ["-s", "-d", main]);
  await server.printed("HOST INFO");
  const client = await bundle(DATAGRAM, `${directory.path}/client.js`);
  assert(client.ok, client.stderr);
  const cli = await bundle("cli.ts", `${directory.path}/cli.js`);
  assert(cli.ok, cli.stderr);
  await using cache = await OwnDirectory.make();
  await Deno.chmod(cache.path, 0o777);
  const asNobody = async (file: string, ...args: string[]) => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--allow-ffi", `${directory.path}/${file}.js`, ...args],
      cwd: directory.path,
      env: { DENO_DIR: cache.path, HOME: cache.path, NO_COLOR: "1" },
      uid: 65534,
      gid: 65534,
    }).output();
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  };
  assertEquals(await asNobody("client", "-c", "-d", vm), { code: 0, stdout: "Received: HELLO, CLIENT!\n", stderr: "" });
  const refused = await asNobody("client", "-c", "-d", main);
  assertEquals(refused.code, 254);
  assertMatch(
    refused.stderr,
    /this fabric is user 0's, and process \d+ is user 65534's, whom no policy lets in \(NO_ACCESS\)/,
  );

  // It is told names, and how it stands, but not what others have.
  const status = JSON.parse((await asNobody("cli", "fabric", "status", "--json", "-d", vm)).stdout);
  assertEquals(Object.keys(status), ["device", "running", "pid", "kind", "version", "context", "names"]);
  assertStringIncludes((await asNobody("cli", "ls", "names", "-d", vm)).stdout, `"HOST INFO"`);
  const ls = await asNobody("cli", "ls", "-d", vm);
  assertEquals(ls.code, 1);
  assertStringIncludes(ls.stderr, "only the broker's own user may look at everything (NO_ACCESS)");
});

/** With the path of the C library alone allowed (`--allow-ffi=/lib/…/libc.so.6`) everything works, without raw pointers. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { conformance } from "./conformance/suite.ts";
import { datagrams } from "./conformance/datagrams.ts";
import { sharedMemory } from "./conformance/shared_memory.ts";
import "./ffi/support.ts";
import { runProgram } from "./ffi/support.ts";
import { LEAST, LIBC_PATH } from "./support/least_permission.ts";
import { twoProcesses } from "./support/media.ts";
import { OwnDirectory, Program, run } from "./support/program.ts";
import { Agent } from "./support/remote.ts";
import { deno, ROOT } from "./tools/deno.ts";

const NO_COLOR = { NO_COLOR: "1", VMCI_TEST: "Grüße" };

const agent = new Agent({ permissions: LEAST });
Deno.test.afterAll(() => agent[Symbol.asyncDispose]());

// Here, where the broker is, raw pointers are allowed; there they are not.
conformance(twoProcesses(agent, "least permission, the other process"), { datagrams, "shared memory": sharedMemory });

Deno.test("least permission: the conformance suite, in one process and between two", async () => {
  // What else the tests themselves need.
  const tests = ["--allow-read", "--allow-write", "--allow-run", "--allow-env"];
  const { ok, stdout, stderr } = await deno(
    [
      "test",
      "--no-prompt",
      ...LEAST,
      ...tests,
      "--v8-flags=--expose-gc",
      `${ROOT}tests/least_permission/conformance.ts`,
    ],
    NO_COLOR,
  );
  assert(ok, stdout + stderr);
  assertMatch(stdout, /^ok \| \d{3} passed/m);
});

Deno.test("least permission: memory, sockets, files and locks", async () => {
  const { code, output, errors } = await runProgram("with_ffi_alone.ts", LEAST);
  assertEquals([code, output], [0, "all good\n"], errors);
});

Deno.test("least permission: the first failing call of a process has the right errno", async () => {
  for (let round = 0; round < 5; round++) {
    const { code, output, errors } = await runProgram("first_error.ts", LEAST);
    assertEquals([code, output], [0, "ENOENT connect\n"], errors);
  }
});

Deno.test("least permission: mappings without raw pointers", async () => {
  const permissions = [...LEAST, "--v8-flags=--expose-gc"];
  const { stdout, stderr } = await run("tests/ffi/programs/windows.ts", [], { permissions, env: NO_COLOR });
  assertEquals([stdout, stderr], ["10 parts\n", ""]);
});

Deno.test("least permission: the kernel ends a process that stores through a read-only mapping", async () => {
  const { code } = await runProgram("store_read_only.ts", LEAST);
  assertEquals(code, 139);
});

Deno.test("least permission: each spelling of the path that is there will do, and no other path", async () => {
  for (const path of new Set([LIBC_PATH, Deno.realPathSync(LIBC_PATH)])) {
    const { code, output, errors } = await runProgram("with_ffi_alone.ts", [`--allow-ffi=${path}`]);
    assertEquals([code, output], [0, "all good\n"], errors);
  }
  // One that is not there, and one that is.
  const both = await runProgram("with_ffi_alone.ts", [`--allow-ffi=/usr/lib64/libc.so.6,${LIBC_PATH}`]);
  assertEquals([both.code, both.output], [0, "all good\n"], both.errors);
  const other = await runProgram("with_ffi_alone.ts", ["--allow-ffi=/lib/libvmci.so"]);
  assertEquals(other.code, 1);
  assertStringIncludes(other.errors, "NotCapable");
});

for (
  const [broker, server, client] of [["without", LEAST, ["--allow-ffi"]], ["with", ["--allow-ffi"], LEAST]] as const
) {
  Deno.test(`least permission: both samples, with the broker in the process ${broker} raw pointers`, async () => {
    await using directory = await OwnDirectory.make();
    const on = ["--device", directory.path];
    {
      await using serving = new Program("examples/datagram_app.ts", ["-s", ...on, "--context", "2"], {
        permissions: server,
      });
      await serving.printed("Answering");
      for (const permissions of [client, server, client]) {
        const { code, stdout, stderr } = await run("examples/datagram_app.ts", ["-c", ...on, "--context", "16"], {
          permissions,
        });
        assertEquals([code, stdout, stderr], [0, "Received: HELLO, CLIENT!\n", ""]);
      }
      assertEquals((await serving.ended).code, 0);
    }
    await using serving = new Program("examples/shared_mem_app.ts", ["-s", ...on, "--context", "2"], {
      permissions: server,
    });
    await serving.printed("Sharing");
    const clients = await Promise.all(
      [client, server].map((permissions) =>
        run("examples/shared_mem_app.ts", ["-c", ...on, "--context", "16"], { permissions })
      ),
    );
    for (const { code, stdout, stderr } of clients) {
      assertEquals([code, stderr], [0, ""]);
      assertMatch(stdout, /^(?:.* UTC \d{4}\n){3}$/);
    }
  });
}

for (const [what, permissions] of [["the library", LEAST], ["libraries", ["--allow-ffi"]]] as const) {
  Deno.test(`least permission: who is allowed ${what} alone is asked at a terminal for nothing else`, async () => {
    await using directory = await OwnDirectory.make();
    const on = ["--device", directory.path];
    const audit = `${directory.path}/audit`;
    const env = { DENO_AUDIT_PERMISSIONS: audit };
    await using serving = new Program("examples/datagram_app.ts", ["-s", ...on, "--context", "2"], {
      permissions,
      env,
    });
    await serving.printed("Answering");
    for (let i = 0; i < 3; i++) await run("examples/datagram_app.ts", ["-c", ...on], { permissions });
    assertEquals((await serving.ended).code, 0);
    const lines = (await Deno.readTextFile(audit)).trimEnd().split("\n").map((line) => JSON.parse(line));
    const asked = new Set(
      lines.map(({ permission, value }) => permission === "ffi" && value === null ? "*" : permission),
    );
    assertEquals([...asked].sort(), permissions === LEAST ? ["ffi"] : ["*", "ffi"]);
  });
}

Deno.test("least permission: nothing is left of a thousand of anything", async () => {
  await using directory = await OwnDirectory.make();
  const permissions = [...LEAST, "--v8-flags=--expose-gc"];
  const { code, stdout, stderr } = await run("tests/programs/leak_without_pointers.ts", [directory.path], {
    permissions,
  });
  assertEquals([code, stdout, stderr], [0, "nothing\n", ""]);
});

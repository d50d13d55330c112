/** What the README says is true: its code runs, and what it names is there. */

import { assert, assertEquals, assertExists } from "@std/assert";
import { openVmci, ResultCode } from "../mod.ts";
import { OwnDirectory, run } from "./support/program.ts";
import { ROOT, sourceFiles } from "./tools/deno.ts";

const README = await Deno.readTextFile(`${ROOT}README.md`);

/** The fenced blocks of a language, in order. */
function blocks(language: string): string[] {
  return [...README.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, "gm"))].map(([, text]) => text!);
}

Deno.test("the README's program runs as it is, and prints what the README says", async () => {
  const [program, ...others] = blocks("ts ignore");
  assertEquals([others.length, blocks("ts").length], [0, 0], "programs that are not run here");
  const [printed] = blocks("text");
  const lines = program!.split("\n").filter((line) => line !== "");
  assertEquals(lines.length, 10);
  await using directory = await OwnDirectory.make();
  await using fabric = await OwnDirectory.make();
  await Deno.writeTextFile(`${directory.path}/greeting.ts`, program!);
  const { code, stdout, stderr } = await run(`${directory.path}/greeting.ts`, [], {
    // The package's name leads to this copy of it.
    permissions: ["--allow-ffi", "--config", `${ROOT}deno.json`],
    cwd: directory.path,
    env: { VMCI_FABRIC: fabric.path },
  });
  assertEquals({ code, stdout, stderr }, { code: 0, stdout: printed!, stderr: "" });
});

Deno.test("every call that the README names exists", async () => {
  await using vmci = await openVmci({ device: "memory:readme" });
  using endpoint = vmci.datagrams.create();
  using region = vmci.sharedMemory.create(64);
  using group = vmci.access.createGroup();
  const objects: Record<string, unknown> = { vmci, endpoint, region, group, discovery: vmci.discovery };
  const names = [...README.matchAll(/`(?:for await \(.* of )?((?:vmci|endpoint|region|group|discovery)(?:\.\w+)+)/g)];
  assert(names.length > 40, `${names.length}`);
  for (const [, path] of names) {
    const [first, ...rest] = path!.split(".");
    let value = objects[first!];
    for (const key of rest) value = (value as Record<string, unknown>)[key];
    assertExists(value, path);
  }
});

Deno.test("every function of the SDK has its place in the README", () => {
  for (
    const name of [
      ...["VMCI_InitApp", "VMCI_CleanupApp", "VMCI_Version", "VMCI_GetContextID"],
      ...["CreateHnd", "DestroyHnd", "SendTo", "RecvFrom"].map((it) => `VMCIDatagram_${it}`),
      ...["Create", "Query", "Attach", "Detach"].map((it) => `VMCISharedMem_${it}`),
      ...["Register", "Lookup", "Unregister"].map((it) => `VMCIDs_${it}`),
      ...["AddClientPrivileges", "RemoveClientPrivileges", "RemoveAllClientPrivileges", "CheckClientPrivilege"]
        .map((it) => `VMCIResource_${it}`),
      ...["Create", "Destroy", "AddMember", "RemoveMember", "IsMember"].map((it) => `VMCIGroup_${it}`),
    ]
  ) assert(README.includes(`| \`${name}(`), name);
});

Deno.test("every code, task, file and command that the README names exists", async () => {
  for (const [code] of README.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)) {
    const known = code in ResultCode || /^(?:VMCI_|DG_|SM_|CTX_|QP_|AF_|SOCK_|CAP_)/.test(code);
    assert(known, code);
  }
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`)) as { tasks: Record<string, unknown> };
  for (const [, task] of README.matchAll(/deno task ([\w:]+)/g)) assert(task! in tasks, task);
  for (const [, file] of README.matchAll(/\]\(([^)#]+)\)/g)) await Deno.stat(ROOT + file);
  for await (const { name } of Deno.readDir(`${ROOT}examples`)) {
    if (!name.startsWith("_")) assert(README.includes(`(examples/${name})`), name);
  }
  const named = [...README.matchAll(/^\| `vmci ([a-z]+(?: [a-z]+)*)/gm)].map(([, command]) => command!);
  const { stdout: help } = await run("cli.ts", ["--help"]);
  const commands = [...help.matchAll(/^ {2}([a-z]+(?: [a-z]+)*) {2,}[a-z]/gm)].map(([, command]) => command!);
  assertEquals(named, commands);
});

Deno.test("every error that the README quotes can still be seen", async () => {
  const files = await sourceFiles("src/access.ts", "src/device.ts", "src/fabric", "ffi");
  const texts = await Promise.all(
    files.filter((it) => !it.endsWith("broker_thread_source.ts")).map((it) => Deno.readTextFile(ROOT + it)),
  );
  // What is put in is left out, and what was broken into lines is joined.
  const source = texts.join("\n").replaceAll(/\$\{[^}]*\}/g, "…").replaceAll(/["`] \+\s+["`]/g, "");
  const quotes = [...README.matchAll(/^\| `([^`]+) \([A-Z_]+\)` +\|/gm)].map(([, quote]) => quote!);
  assert(quotes.length > 15, `${quotes.length}`);
  for (const quote of quotes) {
    const pieces = quote.split("…").map((it) => it.trim()).filter((it) => it !== "");
    for (const piece of pieces) assert(source.includes(piece), `'${piece}' of '${quote}'`);
  }
});

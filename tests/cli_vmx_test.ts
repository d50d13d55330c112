/** `vmci vmx`: what the commands say of files and do to them, and that a file is never half written. */

import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { VmciError } from "../src/error.ts";
import { contextIdOf, findFaults, readTruth } from "../src/vmx/vmci_settings.ts";
import { readVmx, replaceVmx } from "../src/vmx/vmx_store.ts";
import { VmxText } from "../src/vmx/vmx_text.ts";
import { type LibcCall, UnsupportedPlatformError } from "../ffi/libc.ts";
import { failEveryCall, withSymbol } from "./ffi/support.ts";
import { type Ended, OwnDirectory, run } from "./support/program.ts";

const TYPICAL = '.encoding = "UTF-8"\r\nvirtualHW.version = "7"\r\ndisplayName = "Büro"\r\nvmci0.present = "FALSE"\r\n';

function vmx(...args: string[]): Promise<Ended> {
  return run("cli.ts", ["vmx", ...args]);
}

// deno-lint-ignore no-explicit-any
async function vmxJson(code: number, ...args: string[]): Promise<any> {
  const { stdout, ...ended } = await vmx(...args, "--json");
  assertEquals(ended, { code, signal: null, stderr: "" });
  return JSON.parse(stdout);
}

/** Writes files into a directory, and says where they are. */
function write(directory: OwnDirectory, files: Record<string, string>): string[] {
  return Object.entries(files).map(([name, text]) => {
    Deno.writeTextFileSync(`${directory.path}/${name}`, text);
    return `${directory.path}/${name}`;
  });
}

Deno.test("vmx: help names the commands, and each explains itself", async () => {
  const all = await run("cli.ts", ["--help"]);
  const family = await vmx("--help");
  for (const command of ["doctor", "vmx show", "vmx enable", "vmx check"]) {
    assertStringIncludes(all.stdout, `  ${command} `);
    const { code, stdout, stderr } = await run("cli.ts", [...command.split(" "), "--help"]);
    assertEquals({ code, stderr }, { code: 0, stderr: "" });
    assert(stdout.startsWith(`Usage: vmci ${command} `), stdout);
    if (command !== "doctor") assertStringIncludes(family.stdout, stdout);
  }
});

Deno.test("vmx show: what a file says, its context id from a signed number, and whether it is in use", async () => {
  await using directory = await OwnDirectory.make();
  const [a, b] = write(directory, {
    "a.vmx": 'virtualHW.version = "13"\nVMCI0.present = "true"\nvmci0.id = "-374501799"\nvmci0.pciSlotNumber = "35"\n' +
      'vmci.filter.Enable = "true"\ncheckpoint.vmState = ""\n',
    "b.vmx": TYPICAL,
  }) as [string, string];
  Deno.mkdirSync(`${b}.lck`);
  Deno.writeTextFileSync(`${b}.lck/M1.lck`, "");
  const nothing = { displayName: null, unrestricted: null, domain: null, filters: {}, pciSlotNumber: null };
  assertEquals(await vmxJson(0, "show", a, b), [
    {
      ...nothing,
      file: a,
      hardwareVersion: 13,
      present: true,
      id: "-374501799",
      contextId: 3920465497,
      pciSlotNumber: "35",
      filters: { "vmci.filter.enable": "true" },
      suspended: false,
      encrypted: false,
      inUse: false,
    },
    {
      ...nothing,
      file: b,
      displayName: "Büro",
      hardwareVersion: 7,
      present: false,
      id: null,
      contextId: null,
      suspended: false,
      encrypted: false,
      inUse: true,
    },
  ]);
  const { code, stdout } = await vmx("show", a, b);
  assertEquals(code, 0);
  assertMatch(stdout, /^virtual machines \(2\)\n {2}file +name +hardware /);
  assertMatch(stdout, /a\.vmx +- +13 +true +3920465497 +-374501799 +- +true +off\n/);
  assertMatch(stdout, /b\.vmx +Büro +7 +false +- +- +- +- +in use\n$/);
});

Deno.test("vmx enable: only the asked values change, the mode stays, and a copy of what was there", async () => {
  await using directory = await OwnDirectory.make();
  const [file] = write(directory, { "vm.vmx": TYPICAL }) as [string];
  Deno.chmodSync(file, 0o755);
  const [result] = await vmxJson(0, "enable", file, "--id", "3920465497", "--unrestricted", "false", "--filter=yes");
  assertEquals([result.changed, result.backup, result.contextId], [true, `${file}.bak`, 3920465497]);
  assertEquals(
    Deno.readTextFileSync(file),
    TYPICAL.replace("FALSE", "TRUE") +
      'vmci0.id = "-374501799"\r\nvmci0.unrestricted = "FALSE"\r\nvmci.filter.enable = "TRUE"\r\n',
  );
  assertEquals(Deno.readTextFileSync(`${file}.bak`), TYPICAL);
  for (const path of [file, `${file}.bak`]) assertEquals(Deno.statSync(path).mode! & 0o7777, 0o755);
  assertEquals(directory.entries(), ["vm.vmx", "vm.vmx.bak"]);
});

Deno.test("vmx enable: what is so already is left alone; older copies are never lost", async () => {
  await using directory = await OwnDirectory.make();
  const [file] = write(directory, { "vm.vmx": 'vmci0.present = "true"\nvmci0.id = "4294967280"\n' }) as [string];
  const before = Deno.statSync(file);
  const same = await vmx("enable", file, "--id=-16");
  assertEquals([same.code, same.stdout, Deno.statSync(file).ino], [0, `${file}: says so already\n`, before.ino]);
  assertEquals(directory.entries(), ["vm.vmx"]);
  const said: string[] = [];
  for (const id of ["16", "17", "18"]) said.push((await vmx("enable", file, "--id", id)).stdout);
  assertEquals(said, ["", ".1", ".2"].map((it) => `${file}: changed; what was there is ${file}.bak${it}\n`));
  assertEquals(directory.entries(), ["vm.vmx", "vm.vmx.bak", "vm.vmx.bak.1", "vm.vmx.bak.2"]);
  assertStringIncludes(Deno.readTextFileSync(`${file}.bak.2`), 'vmci0.id = "17"');
  // A copy of just this content is there already: no other one is made.
  Deno.copyFileSync(`${file}.bak.1`, file);
  assertEquals((await vmx("enable", file, "--id", "30")).stdout.endsWith(".bak.1\n"), true);
});

Deno.test("vmx enable: a symbolic link stays one, and a file under two names is one file", async () => {
  await using directory = await OwnDirectory.make();
  const [file] = write(directory, { "vm.vmx": TYPICAL }) as [string];
  const link = `${directory.path}/link.vmx`;
  Deno.symlinkSync("vm.vmx", link);
  assertEquals((await vmxJson(0, "enable", link, file)).length, 1);
  assertEquals(Deno.readLinkSync(link), "vm.vmx");
  assertStringIncludes(Deno.readTextFileSync(file), 'vmci0.present = "TRUE"');
});

Deno.test("vmx enable: a file in use or of a suspended machine is refused without --force, and no other is changed", async () => {
  await using directory = await OwnDirectory.make();
  const [good, busy, asleep, locked, hidden] = write(directory, {
    "good.vmx": TYPICAL,
    "busy.vmx": TYPICAL,
    "asleep.vmx": `${TYPICAL}checkpoint.vmState = "asleep.vmss"\r\n`,
    "locked.vmx": TYPICAL,
    "hidden.vmx": 'encryption.keySafe = "x"\nencryption.data = "y"\n',
  }) as [string, string, string, string, string];
  Deno.mkdirSync(`${busy}.lck`);
  Deno.writeTextFileSync(`${busy}.lck/M12.lck`, "");
  Deno.writeTextFileSync(`${locked}.lck`, "");
  // An empty folder is left of a lock that was taken off.
  Deno.mkdirSync(`${good}.lck`);
  for (
    const [file, why] of [
      [busy, `${busy}.lck says that VMware has it open: turn the virtual machine off, or --force`],
      [locked, `${locked}.lck says that VMware has it open`],
      [asleep, "its virtual machine is suspended"],
      [hidden, "it is encrypted"],
    ] as const
  ) {
    const before = Deno.readTextFileSync(file);
    const { code, stdout, stderr } = await vmx("enable", good, file);
    assertEquals({ code, stdout }, { code: 1, stdout: "" });
    assert(stderr.startsWith(`vmci vmx enable: Cannot change ${file}: ${why}`), stderr);
    assertEquals([Deno.readTextFileSync(good), Deno.readTextFileSync(file)], [TYPICAL, before]);
    assertEquals((await vmx("enable", file, "--force")).code, 0);
    assertStringIncludes(Deno.readTextFileSync(file), 'vmci0.present = "TRUE"');
  }
  assertEquals((await vmx("enable", good)).code, 0);
});

Deno.test("vmx: files that are not there, no files, or ambiguous are refused, with the reason", async () => {
  await using directory = await OwnDirectory.make();
  const [wide, twice] = write(directory, {
    "wide.vmx": "a\0",
    "twice.vmx": 'vmci0.present = "TRUE"\nVMCI0.PRESENT = "FALSE"\n',
  }) as [string, string];
  const none = `${directory.path}/none.vmx`;
  for (
    const [args, code, why] of [
      [
        ["show", none],
        1,
        `vmci vmx show: Cannot read ${none}: realpath failed: no such file or directory (ENOENT) (NOT_FOUND)`,
      ],
      [
        ["show", directory.path],
        1,
        `vmci vmx show: Cannot read ${directory.path}: it is no file, but a directory (INV`,
      ],
      [["show", wide], 1, `vmci vmx show: Cannot read ${wide}: it has zero bytes in it`],
      [["enable", twice], 1, `vmci vmx enable: Cannot change ${twice}: vmci0.present is there 2 times, in lines 1, 2`],
      [["show"], 2, "vmci vmx show: give one .vmx file or more"],
      [["enable", twice, "--id", "15"], 2, "vmci vmx enable: --id must be a context id from 16 to 4294967294: '15'"],
      [["enable", twice, "--id=-1"], 2, "vmci vmx enable: --id must be a context id from 16 to 4294967294: '-1'"],
      [["enable", twice, wide, "--id=16"], 2, "vmci vmx enable: --id is for one file"],
      [["enable", twice, "--filter", "perhaps"], 2, "vmci vmx enable: --filter must be TRUE or FALSE: 'perhaps'"],
      [["burn"], 2, "vmci: there is no command 'vmx burn'"],
    ] as const
  ) {
    const ended = await vmx(...args);
    assertEquals([ended.code, ended.stdout], [code, ""], args.join(" "));
    assert(ended.stderr.startsWith(why), ended.stderr);
  }
  assertEquals(directory.entries(), ["twice.vmx", "wide.vmx"]);
  const { stdout } = await vmx("show", none, "--json");
  assertEquals(JSON.parse(stdout).error.code, "NOT_FOUND");
});

Deno.test("vmx check: two machines with one id are a problem, remarks are none", async () => {
  await using directory = await OwnDirectory.make();
  const machine = (id: string, present = "TRUE", version = 10) =>
    `virtualHW.version = "${version}"\nvmci0.present = "${present}"\nvmci0.id = "${id}"\n`;
  const [a, b, c, d] = write(directory, {
    "a.vmx": machine("-16"),
    "b.vmx": machine("4294967280"),
    "c.vmx": machine("4294967280", "FALSE"),
    "d.vmx": machine("17"),
  }) as [string, string, string, string];
  const message = "context id 4294967280 is that of 2 virtual machines, of which one at a time can run";
  const off = { level: "remark", files: [c], message: "VMCI is off", remedy: 'vmci0.present = "TRUE"' };
  assertEquals(await vmxJson(1, "check", a, b, c, d), {
    problems: 1,
    findings: [off, { level: "problem", files: [a, b], message, remedy: null }],
  });
  assertEquals(await vmxJson(0, "check", a, a, c, d), { problems: 0, findings: [off] });
  assertEquals((await vmx("check", a, b, d)).stdout, `problem: ${a}, ${b}: ${message}\n1 problems, 0 remarks\n`);
});

Deno.test("vmx check: what is wrong with one file", () => {
  const found = (text: string) =>
    findFaults([{ file: "f", vmx: VmxText.parse(new TextEncoder().encode(text)) }])
      .map(({ level, message }) => `${level}: ${message}`);
  const on = 'vmci0.present = "TRUE"\n';
  const hardware = (version: number) => `virtualHW.version = "${version}"\n`;
  assertEquals(found(hardware(7) + on + 'vmci0.id = "16"'), []);
  assertEquals(found(on), ["remark: virtualHW.version does not say which virtual hardware this is"]);
  assertEquals(found(hardware(4)), ["remark: virtual hardware 4 has no VMCI: it came with version 6"]);
  assertEquals(found(hardware(4) + on), ["problem: virtual hardware 4 has no VMCI: it came with version 6"]);
  assertEquals(found(hardware(6)), ["remark: VMCI is off, as hardware version 6 has it by hand only"]);
  assertEquals(found(hardware(7)), ["remark: VMCI is not said to be there"]);
  assertEquals(found(hardware(6) + on), [
    "remark: hardware version 6 lets the host choose a context id unless vmci0.id says one",
  ]);
  for (
    const [id, why] of [
      ["15", "'15' is 15"],
      ["-1", "'-1' is 4294967295"],
      ["0x10", "'0x10'"],
      [
        "4294967296",
        "'4294967296'",
      ],
      ["-2147483649", "'-2147483649'"],
      ["", "''"],
    ] as const
  ) {
    const [message, ...rest] = found(hardware(7) + on + `vmci0.id = "${id}"`);
    assertEquals(rest, []);
    assertMatch(message!, /^problem: vmci0\.id must be a context id from 16 to 4294967294/);
    assert(message!.endsWith(why), message);
  }
  const open = 'vmci0.unrestricted = "TRUE"\n';
  assertMatch(found(hardware(7) + on + open)[0]!, /^problem: VMCI is unrestricted/);
  assertEquals(found(hardware(9) + on + open), [
    "remark: vmci0.unrestricted means nothing since Workstation 9 and ESXi 5.1",
  ]);
  assertEquals(found(hardware(7) + on + 'vmci0.unrestricted = "maybe"\n'), [
    "problem: vmci0.unrestricted is neither TRUE nor FALSE: 'maybe'",
  ]);
  assertEquals(found(hardware(7) + on + on.toUpperCase() + "junk\n"), [
    "problem: vmci0.present is there 2 times, in lines 2, 3: VMware refuses such a file",
    'remark: line 4 is neither key = "value" nor a comment',
  ]);
  assertEquals(found(hardware(8) + on + 'vmci0.domain = "a"\nvmci.filter.enable = "TRUE"\n'), [
    "remark: vmci0.domain means something to ESX 4.0 to 5.0 only",
    "remark: vmci.filter keys mean something from vSphere 6 (hardware version 11) on",
  ]);
});

Deno.test("vmx settings: truth values and context ids as VMware writes them", () => {
  assertEquals(["TRUE", "yes", "1", "On", "false", "No", "0", "off", "", "2"].map(readTruth), [
    ...[true, true, true, true],
    ...[false, false, false, false],
    ...[undefined, undefined],
  ]);
  assertEquals(["16", "-1", "-2147483648", "2147483648", "1e3", "+5"].map(contextIdOf), [
    ...[16, 0xffffffff, 0x80000000, 0x80000000],
    ...[undefined, undefined],
  ]);
});

Deno.test("vmx: whichever call fails, the file is the old or the new one, whole, and nothing else is left", async () => {
  await using directory = await OwnDirectory.make();
  const path = `${directory.path}/vm.vmx`;
  const old = 'vmci0.present = "FALSE"\n';
  const seen = new Set<string>();
  const failed = failEveryCall(28, () => {
    for (const name of directory.entries()) Deno.removeSync(`${directory.path}/${name}`);
    Deno.writeTextFileSync(path, old, { mode: 0o640 });
    // Read without libc: only what replaces the file is to fail.
    const { ino, dev, mode, uid, gid, size } = Deno.lstatSync(path);
    const status = {
      kind: "file" as const,
      mode: mode! & 0o7777,
      uid: uid!,
      gid: gid!,
      size,
      inode: BigInt(ino!),
      device: BigInt(dev),
    };
    const file = { name: "vm.vmx", path, status, vmx: VmxText.parse(new TextEncoder().encode(old)) };
    let done = true;
    try {
      replaceVmx(file, file.vmx.with("vmci0.present", "TRUE"));
    } catch (error) {
      assert(error instanceof VmciError, `${error}`);
      assertEquals(error.code, "NO_MEM");
      done = false;
    }
    assertEquals(Deno.readTextFileSync(path), done ? 'vmci0.present = "TRUE"\n' : old);
    assertEquals(directory.entries(), done ? ["vm.vmx", "vm.vmx.bak"] : ["vm.vmx"]);
    for (const name of directory.entries()) {
      assertEquals(Deno.statSync(`${directory.path}/${name}`).mode! & 0o777, 0o640);
    }
    seen.add(`${done}`);
  });
  assertEquals(seen, new Set(["true", "false"]));
  for (const call of ["open", "pwrite", "fchmod", "fsync", "rename", "pread", "close", "statx"]) {
    assert(failed.includes(call), call);
  }
});

Deno.test("vmx: whoever exchanges the new file before it is in its place changes no other file's permissions", async () => {
  await using directory = await OwnDirectory.make();
  const [path] = write(directory, { "vm.vmx": TYPICAL }) as [string];
  Deno.chmodSync(path, 0o666);
  const other = `${directory.path}/other`;
  Deno.writeTextFileSync(other, "another's", { mode: 0o600 });
  const file = readVmx(path);
  let exchanged = 0;
  const exchanging = (call: LibcCall): LibcCall => (...args) => {
    for (const name of directory.entries().filter((it) => it.endsWith(".tmp"))) {
      Deno.removeSync(`${directory.path}/${name}`);
      Deno.symlinkSync(other, `${directory.path}/${name}`);
      exchanged++;
    }
    return call(...args);
  };
  withSymbol("fchmod", exchanging, () => replaceVmx(file, file.vmx.with("vmci0.id", "16")));
  assertEquals(exchanged, 1);
  assertEquals(Deno.statSync(other).mode! & 0o777, 0o600);
});

Deno.test("vmx: where there is no C library of Linux, that is the reason", () => {
  const missing = () => () => {
    throw new UnsupportedPlatformError("Cannot open libc.so.6: this is darwin, not Linux");
  };
  const error = withSymbol("realpath", missing, () => assertThrows(() => readVmx("a.vmx"), VmciError));
  assertEquals(
    error.message,
    "Cannot read a.vmx: Cannot open libc.so.6: this is darwin, not Linux; .vmx files are read and changed on Linux only " +
      "(UNAVAILABLE)",
  );
});

Deno.test("vmx: a file that somebody else changed in the meantime is left as he left it", async () => {
  await using directory = await OwnDirectory.make();
  const [path] = write(directory, { "vm.vmx": TYPICAL }) as [string];
  const file = readVmx(path);
  Deno.writeTextFileSync(path, `${TYPICAL}his = "1"\r\n`);
  const error = assertThrows(() => replaceVmx(file, file.vmx.with("vmci0.id", "16")), VmciError);
  assertEquals(error.code, "UNAVAILABLE");
  assertStringIncludes(error.message, "somebody else has changed it in the meantime");
  assertEquals(Deno.readTextFileSync(path), `${TYPICAL}his = "1"\r\n`);
  assertEquals(directory.entries(), ["vm.vmx"]);
});

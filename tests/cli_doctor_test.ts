/** `vmci doctor`: what it says of made-up machines - folders with /proc, /sys and /dev in them - and of this one. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fabricFacts } from "../src/cli/doctor.ts";
import { diagnose, type FabricFacts, type Finding } from "../src/doctor/diagnosis.ts";
import { type Facts, gatherFacts } from "../src/doctor/facts.ts";
import { LinuxMachine, type NodeStatus, OtherMachine, thisMachine } from "../src/doctor/machine.ts";
import { interposeLibc, UnsupportedPlatformError } from "../ffi/libc.ts";
import { withSymbol } from "./ffi/support.ts";
import { asRoot, House, NOBODY } from "./support/house.ts";
import { type Ended, OwnDirectory, Program, run } from "./support/program.ts";

const USER = 1000;
const KERNEL = "6.1.0-28-amd64";

/** The files of a machine by their paths; a folder's ends with a slash, a link's begins with an arrow and a space. */
type Files = Record<string, string>;

/** A machine in a folder. Plain files in its /dev stand for devices, since only root can make those. */
class MadeUpMachine extends LinuxMachine {
  readonly #nodes: Readonly<Record<string, Partial<NodeStatus> & { usable?: boolean }>>;

  constructor(root: string, nodes: Readonly<Record<string, Partial<NodeStatus> & { usable?: boolean }>>) {
    super(root);
    this.#nodes = nodes;
  }

  override get uid(): number {
    return USER;
  }

  override node(path: string): NodeStatus | undefined {
    const status = super.node(path);
    if (status === undefined || !path.startsWith("/dev/")) return status;
    return { ...status, kind: status.kind === "file" ? "device" : status.kind, ...this.#nodes[path] };
  }

  override mayUse(path: string): boolean {
    return this.#nodes[path]?.usable ?? super.mayUse(path);
  }
}

async function machineOf(
  files: Files,
  nodes: ConstructorParameters<typeof MadeUpMachine>[1] = {},
): Promise<{ facts: Facts } & AsyncDisposable> {
  const directory = await OwnDirectory.make();
  for (const [path, content] of Object.entries(files)) {
    const full = directory.path + path;
    const folder = full.slice(0, full.lastIndexOf("/"));
    Deno.mkdirSync(folder, { recursive: true });
    if (content.startsWith("-> ")) Deno.symlinkSync(content.slice(3), full);
    else if (!path.endsWith("/")) Deno.writeTextFileSync(full, content);
  }
  const facts = gatherFacts(new MadeUpMachine(directory.path, nodes));
  return { facts, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

/** A Debian with all modules on the disk and none of them loaded. */
const DEBIAN: Files = {
  "/proc/sys/kernel/osrelease": `${KERNEL}\n`,
  "/proc/modules": "ext4 1015808 1 - Live 0x0000000000000000\n",
  "/proc/net/protocols": "protocol  size sockets\nUNIX 1 2\n",
  "/etc/os-release": 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\nHOME_URL="x"\n',
  [`/lib/modules/${KERNEL}/modules.builtin`]: "kernel/fs/ext4.ko\n",
  [`/lib/modules/${KERNEL}/modules.dep`]: ["misc/vmw_vmci/vmw_vmci", "vsock", "vmw_vsock_vmci_transport", "vhost_vsock"]
    .map((it) => `kernel/drivers/${it}.ko.xz:\n`).join("") +
    "kernel/net/vsock_loopback.ko: kernel/net/vsock.ko\nkernel/net/vmw_vsock_virtio_transport.ko.zst:\n",
  "/dev/": "",
};

/** Files of a machine that has loaded modules. */
function loaded(...names: string[]): Files {
  return {
    "/proc/modules": names.map((name) => `${name} 16384 0 - Live 0x0000000000000000\n`).join(""),
    "/proc/net/protocols": names.some((it) => it.includes("vsock")) ? "AF_VSOCK  1240 0 -1 NI 0 yes kernel\n" : "",
    ...Object.fromEntries(names.map((name) => [`/sys/module/${name}/version`, "1.1.6.0-k\n"])),
  };
}

/** The files of a PCI device. */
function pci(slot: string, vendor: string, device: string, files: Files = {}): Files {
  const all = { vendor: `0x${vendor}\n`, device: `0x${device}\n`, ...files };
  return Object.fromEntries(
    Object.entries(all).map(([name, content]) => [`/sys/bus/pci/devices/${slot}/${name}`, content]),
  );
}

const IDLE: FabricFacts = {
  device: "fabric:/run/user/1000/vmci",
  state: "idle",
  reason: null,
  path: "/run/user/1000/vmci",
  node: { kind: "directory", mode: 0o700, uid: USER, gid: USER },
  broker: null,
  context: null,
};

/** What is ready, as "api through". */
function ready(facts: Facts, fabric = IDLE): string[] {
  return diagnose(facts, fabric, null).uses.filter((it) => it.ready).map(({ api, medium }) => `${api} ${medium}`);
}

/** The findings as "level: remedy". */
function remedies(facts: Facts, fabric = IDLE): string[] {
  return diagnose(facts, fabric, null).findings.map(({ level, remedy }) => {
    if (remedy === null) return `${level}: none`;
    return `${level}: ${remedy.where === "host" ? "host " : ""}${remedy.kind} ${remedy.text}`;
  });
}

const FABRIC = ["sharedMemory", "datagrams", "access", "discovery"].map((api) => `${api} ${IDLE.device}`);
const VSOCK = ["datagrams", "access", "discovery"].map((api) => `${api} vsock:`);

Deno.test("doctor, plain Linux: the fabric works, and each module is one command away", async () => {
  await using machine = await machineOf(DEBIAN);
  const { facts } = machine;
  assertEquals(facts.system, {
    os: "linux",
    arch: Deno.build.arch,
    kernel: KERNEL,
    distribution: "debian",
    product: null,
    roles: [],
    container: null,
    uid: USER,
  });
  assertEquals(facts.modules.map(({ name, state }) => `${name} ${state}`), [
    "vmw_vmci available",
    "vsock available",
    "vmw_vsock_vmci_transport available",
    "vsock_loopback available",
    "vmw_vsock_virtio_transport available",
    "vhost_vsock available",
    "vmmon absent",
  ]);
  assertEquals(facts.nodes.map(({ path, kind }) => [path, kind]), [
    ["/dev/vmci", null],
    ["/dev/vsock", null],
    ["/dev/vhost-vsock", null],
  ]);
  assertEquals([facts.vsock.registered, facts.vsock.family, facts.ivshmem], [false, 40, []]);
  assertEquals(ready(facts), FABRIC);
  assertEquals(remedies(facts), [
    "option: command sudo modprobe vmw_vmci",
    "option: command sudo modprobe vmw_vsock_vmci_transport",
    "option: command sudo modprobe vsock_loopback",
  ]);
});

Deno.test("doctor, plain Linux with the driver: everything but streams between machines", async () => {
  await using machine = await machineOf({
    ...DEBIAN,
    ...loaded("vmw_vmci", "vsock", "vmw_vsock_vmci_transport", "vsock_loopback"),
    "/dev/vmci": "",
    "/dev/vsock": "",
  });
  const { facts } = machine;
  assertEquals(facts.modules[0], {
    name: "vmw_vmci",
    purpose: "VMCI itself: /dev/vmci",
    state: "loaded",
    version: "1.1.6.0-k",
  });
  assertEquals(facts.nodes.map(({ usable }) => usable), [true, true, false]);
  assertEquals(
    ready(facts).sort(),
    [
      ...FABRIC,
      ...VSOCK,
      "datagrams /dev/vmci",
      "VmciDevice /dev/vmci",
      "VsockSocket AF_VSOCK over vmci",
      "VsockSocket AF_VSOCK over loopback",
    ].sort(),
  );
  assertEquals(remedies(facts), []);
});

const VMWARE: Files = {
  ...DEBIAN,
  "/sys/class/dmi/id/sys_vendor": "VMware, Inc.\n",
  "/sys/class/dmi/id/product_name": "VMware20,1\n",
};

Deno.test("doctor, VMware guest: in order when its device and drivers are there", async () => {
  await using machine = await machineOf({
    ...VMWARE,
    ...pci("0000:00:07.7", "15ad", "0740", { driver: "-> ../../../bus/pci/drivers/vmw_vmci" }),
    ...loaded("vmw_vmci", "vsock", "vmw_vsock_vmci_transport", "vsock_loopback"),
    "/dev/vmci": "",
  });
  const { facts } = machine;
  assertEquals([facts.system.roles, facts.system.product], [["VMware guest"], "VMware, Inc. VMware20,1"]);
  assertEquals(facts.vmciDevices, [{ slot: "0000:00:07.7", driver: "vmw_vmci" }]);
  assertEquals(remedies(facts), []);
});

Deno.test("doctor, VMware guest without the device: the line of the .vmx file, and what else is a problem there", async () => {
  await using machine = await machineOf(VMWARE);
  assertEquals(remedies(machine.facts), [
    'problem: host vmx vmci0.present = "TRUE"',
    "problem: command sudo modprobe vmw_vmci",
    "problem: command sudo modprobe vmw_vsock_vmci_transport",
    "option: command sudo modprobe vsock_loopback",
  ]);
});

Deno.test("doctor, VMware host: known by vmmon, and told of a transport that is in the way", async () => {
  await using machine = await machineOf({
    ...DEBIAN,
    ...loaded("vmmon", "vmw_vmci", "vsock", "vmw_vsock_vmci_transport", "vsock_loopback", "vhost_vsock"),
    "/dev/vmci": "",
    "/dev/vmmon": "",
  });
  assertEquals(machine.facts.system.roles, ["VMware host"]);
  assertEquals(remedies(machine.facts), ["option: command sudo modprobe -r vhost_vsock"]);
});

Deno.test("doctor, VMware's old modules: the address family is not known to be 40", async () => {
  await using machine = await machineOf({
    ...DEBIAN,
    "/proc/net/protocols": "AF_VMCI  1240 0 -1 NI 0 yes vsock\n",
  });
  assertEquals([machine.facts.vsock.registered, machine.facts.vsock.family], [true, null]);
});

/** Three regions as the kernel lists them: registers, nothing or interrupts, 16 MiB of memory. */
function regions(doorbell: boolean): string {
  const none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
  const interrupts = "0x00000000febd1000 0x00000000febd1fff 0x0000000000040200\n";
  return "0x00000000febd2000 0x00000000febd20ff 0x0000000000040200\n" + (doorbell ? interrupts : none) +
    "0x00000000fd000000 0x00000000fdffffff 0x000000000014220c\n" + none.repeat(10);
}

Deno.test("doctor, KVM guest with shared memory: its regions, and that it must be enabled and mapped by this user", async () => {
  const files = {
    ...DEBIAN,
    ...loaded("vsock", "vmw_vsock_virtio_transport", "vsock_loopback", "vmw_vmci", "vmw_vsock_vmci_transport"),
    "/dev/vmci": "",
    "/sys/class/dmi/id/sys_vendor": "QEMU\n",
    "/sys/bus/virtio/devices/virtio0/device": "0x0013\n",
    "/sys/bus/virtio/devices/virtio1/device": "0x0002\n",
    ...pci("0000:00:02.0", "1af4", "1000"),
    ...pci("0000:00:03.0", "1af4", "1110", { resource: regions(false), enable: "0\n", resource2: "" }),
    ...pci("0000:00:04.0", "1af4", "1110", {
      resource: regions(true),
      enable: "1\n",
      resource2: "",
      driver: "-> ../../drivers/vfio-pci",
    }),
  };
  const closed = "/sys/bus/pci/devices/0000:00:03.0";
  await using machine = await machineOf(files, {
    [`${closed}/resource2`]: { usable: false },
    [`${closed}/enable`]: { usable: false },
  });
  const { facts } = machine;
  assertEquals([facts.system.roles, facts.virtioVsockDevices], [["KVM guest"], ["virtio0"]]);
  const memory = { number: 2, size: 16 << 20 };
  const registers = { number: 0, size: 256 };
  assertEquals(facts.ivshmem, [
    {
      slot: "0000:00:03.0",
      driver: null,
      kind: "plain",
      bars: [registers, memory],
      enabled: false,
      mayEnable: false,
      usable: false,
    },
    {
      slot: "0000:00:04.0",
      driver: "vfio-pci",
      kind: "doorbell",
      bars: [registers, { number: 1, size: 4096 }, memory],
      enabled: true,
      mayEnable: true,
      usable: true,
    },
  ]);
  assertEquals(remedies(facts), [
    `problem: command echo 1 | sudo tee ${closed}/enable`,
    `problem: command sudo chown ${USER} ${closed}/resource2`,
  ]);
  const uses = diagnose(facts, IDLE, null).uses.filter(({ medium }) => medium.startsWith("ivshmem"));
  assertEquals(uses.map((it) => it.ready), [false, true]);
  assertEquals(uses[0]!.how, `16 MiB shared with virtual machines and their host, at ${closed}/resource2`);
  assert(ready(facts).includes("VsockSocket AF_VSOCK over virtio"));
});

Deno.test("doctor, KVM guest with nothing: what to give to QEMU", async () => {
  await using machine = await machineOf({ ...DEBIAN, "/sys/class/dmi/id/product_name": "KVM\n" });
  assertEquals(remedies(machine.facts).filter((it) => it.includes("qemu")), [
    "option: host qemu -device vhost-vsock-pci,guest-cid=16",
    "option: host qemu -object memory-backend-file,id=vmci,share=on,mem-path=/dev/shm/vmci,size=16M " +
    "-device ivshmem-plain,memdev=vmci",
  ]);
});

Deno.test("doctor, KVM host: vhost is what it could load; a guest's device without its driver is a problem", async () => {
  await using host = await machineOf({ ...DEBIAN, "/dev/kvm": "" });
  assertEquals(host.facts.system.roles, ["KVM host"]);
  assert(remedies(host.facts).includes("option: command sudo modprobe vhost_vsock"));
  await using guest = await machineOf({ ...DEBIAN, "/sys/bus/virtio/devices/virtio0/device": "0x0013\n" });
  assertEquals(remedies(guest.facts)[0], "problem: command sudo modprobe vmw_vsock_virtio_transport");
});

Deno.test("doctor, a machine that shows nothing at all: still an answer", async () => {
  await using machine = await machineOf({});
  const { facts } = machine;
  assertEquals(facts.modules.map(({ state }) => state), Array(7).fill("unknown"));
  assertEquals([facts.system.kernel, facts.system.distribution, facts.system.roles], [null, null, []]);
  assertEquals(ready(facts), FABRIC);
  assertEquals(remedies(facts)[0], "option: command sudo modprobe vmw_vmci");
});

Deno.test("doctor, a kernel without the module: the package that has it, where one is known", async () => {
  const cases: [string, string, string][] = [
    ["debian", KERNEL, "option: none"],
    ["ubuntu", "6.8.0-31-generic", "option: command sudo apt install linux-modules-extra-6.8.0-31-generic"],
    ["fedora", "6.9.7-200.fc40.x86_64", "option: command sudo dnf install kernel-modules-6.9.7-200.fc40.x86_64"],
    ["alpine", "6.6", "option: none"],
  ];
  for (const [id, kernel, remedy] of cases) {
    await using machine = await machineOf({
      "/proc/sys/kernel/osrelease": kernel,
      "/etc/os-release": `ID="${id}"\n`,
      [`/lib/modules/${kernel}/modules.dep`]: "kernel/fs/ext4.ko:\n",
    });
    const { findings } = diagnose(machine.facts, IDLE, null);
    assertEquals([remedies(machine.facts)[0], findings[0]!.message], [
      remedy,
      `this kernel (${kernel}) has no vmw_vmci: /dev/vmci and vSockets over VMCI`,
    ]);
  }
});

Deno.test("doctor, a module in the kernel itself is there, with a folder in /sys or without", async () => {
  await using machine = await machineOf({
    ...DEBIAN,
    [`/lib/modules/${KERNEL}/modules.builtin`]: "kernel/drivers/misc/vmw_vmci/vmw-vmci.ko\n",
    "/sys/module/vsock/": "",
  });
  assertEquals(machine.facts.modules.slice(0, 3).map(({ state }) => state), ["built in", "built in", "available"]);
});

Deno.test("doctor, a node this user may not open: a rule that gives it to the user for good", async () => {
  const node = { mode: 0o600, uid: 0, gid: 0, usable: false };
  const files = { ...DEBIAN, ...loaded("vmw_vmci"), "/dev/vmci": "", "/dev/vsock": "" };
  await using machine = await machineOf(files, { "/dev/vmci": node, "/dev/vsock": node });
  assertEquals(machine.facts.nodes[0], { path: "/dev/vmci", kind: "device", ...node, mode: "600" });
  const { findings } = diagnose(machine.facts, IDLE, null);
  assertEquals(findings[0], {
    level: "problem",
    message: `user ${USER} may not open /dev/vmci (mode 600, of user 0); log in again after`,
    remedy: {
      kind: "command",
      text: 'sudo groupadd --system --force vmci && sudo usermod -aG vmci "$(id -un)" && ' +
        `echo 'KERNEL=="vmci", GROUP="vmci", MODE="0660"' | sudo tee /etc/udev/rules.d/60-vmci.rules && ` +
        "sudo udevadm control --reload && sudo udevadm trigger /dev/vmci",
      where: "here",
    },
  });
  assertMatch(findings.at(-1)!.message, /may not open \/dev\/vsock .*; sockets work$/);
  assert(!ready(machine.facts).includes("VmciDevice /dev/vmci"));
});

Deno.test(asRoot("doctor, what another user may open is what the kernel says"), async () => {
  await using house = await House.make();
  const paths = [0o600, 0o660, 0o666].map((mode) => {
    const path = `${house.path}/${mode.toString(8)}`;
    Deno.writeTextFileSync(path, "");
    Deno.chmodSync(path, mode);
    return path;
  });
  const hidden = `${house.path}/hidden`;
  Deno.mkdirSync(hidden, { mode: 0o700 });
  Deno.writeTextFileSync(`${hidden}/node`, "");
  Deno.chmodSync(`${hidden}/node`, 0o666);
  const all = [...paths, `${hidden}/node`, `${house.path}/none`];
  assertEquals(await house.runStrange("tests/programs/may_use.ts", ...all), {
    uid: NOBODY,
    usable: [false, false, true, false, false],
  });
});

Deno.test("doctor, probe: what a driver refuses is a problem only where its node may be opened", async () => {
  const probe = { vmci: { error: "Cannot open /dev/vmci: no" }, vsock: { family: 40, localContext: 2 } };
  const errors = ({ facts }: { facts: Facts }) =>
    diagnose(facts, IDLE, probe).findings.filter(({ message }) => message === probe.vmci.error);
  await using absent = await machineOf(DEBIAN);
  await using present = await machineOf({ ...DEBIAN, ...loaded("vmw_vmci"), "/dev/vmci": "" });
  assertEquals(errors(absent), []);
  assertEquals(errors(present), [{ level: "problem", message: probe.vmci.error, remedy: null }]);
});

Deno.test("doctor, a node that is missing or no device", async () => {
  const files = { ...DEBIAN, ...loaded("vmw_vmci") };
  await using missing = await machineOf(files);
  assertEquals(
    remedies(missing.facts)[0],
    "problem: command sudo mknod -m 600 /dev/vmci c $(tr : ' ' < /sys/class/misc/vmci/dev)",
  );
  await using folder = await machineOf({ ...files, "/dev/vmci/": "" });
  const [finding] = diagnose(folder.facts, IDLE, null).findings as [Finding];
  assertEquals(finding.message, "/dev/vmci is no device, but a directory");
  assert(finding.remedy!.text.startsWith("sudo rm -r /dev/vmci && sudo mknod "));
  assertEquals(folder.facts.nodes[0]!.usable, false);
});

Deno.test("doctor, container: what must be done is done on its host", async () => {
  for (
    const [file, text, name] of [
      ["/.dockerenv", "", "docker"],
      ["/run/.containerenv", "", "podman"],
      ["/run/systemd/container", "lxc\n", "lxc"],
    ] as const
  ) {
    await using machine = await machineOf({ ...DEBIAN, ...loaded("vmw_vmci"), [file]: text });
    assertEquals(machine.facts.system.container, name);
    const found = remedies(machine.facts);
    assert(found.every((it) => it.startsWith("option: host command ")), found.join("\n"));
    const engine = name === "podman" ? "podman" : "docker";
    assertEquals(found[0], `option: host command ${engine} run --device /dev/vmci ...`);
  }
});

Deno.test("doctor, macOS and Windows: what works there, and that nothing else does", async () => {
  for (const os of ["darwin", "windows", "linux without glibc"]) {
    const machine = new OtherMachine(os, "aarch64");
    const facts = gatherFacts(machine);
    const fabric = await fabricFacts(machine, undefined);
    const { uses, findings } = diagnose(facts, fabric, null);
    assertEquals([facts.system.os, facts.system.uid], [os, null]);
    assertEquals(uses.map(({ medium, ready }) => [medium, ready]), Array(4).fill(["memory:", true]));
    assertEquals(findings, [{
      level: "problem",
      message: `this is ${os}: the fabric and the real devices need Linux with glibc; memory: works here`,
      remedy: null,
    }]);
  }
});

Deno.test("doctor, Linux without its C library is such a machine too", () => {
  const missing = () => () => {
    throw new UnsupportedPlatformError("Cannot open libc.so.6: no such file");
  };
  const machine = withSymbol("geteuid", missing, thisMachine);
  assertEquals([machine.os, machine.uid, machine.text("/proc/modules")], ["linux without glibc", null, undefined]);
  assertEquals(thisMachine().os, "linux");
});

Deno.test("doctor, fabric: idle, running, and what mends a directory that is wrong", async () => {
  await using directory = await OwnDirectory.make();
  const { path } = directory;
  await using plain = await machineOf(DEBIAN);
  const machine = thisMachine();
  const look = () => fabricFacts(machine, path);
  const problems = (fabric: FabricFacts) =>
    diagnose({ ...plain.facts, system: { ...plain.facts.system, uid: Deno.uid() } }, fabric, null).findings
      .filter(({ level }) => level === "problem").map(({ remedy }) => remedy?.text);

  const idle = await look();
  assertEquals([idle.device, idle.state, idle.broker, problems(idle)], [`fabric:${path}`, "idle", null, []]);
  assertEquals(directory.entries(), []);

  {
    await using server = new Program("tests/programs/party.ts", [path, "ungranted"]);
    await server.printed("ready");
    const running = await look();
    assertEquals([running.state, running.broker?.pid, running.context], ["running", server.pid, 2]);
    assertEquals(problems(running), []);
  }

  Deno.chmodSync(path, 0o755);
  const open = await look();
  assertEquals([open.state, problems(open)], ["broken", [`chmod 700 ${path}`]]);
  assertStringIncludes(open.reason!, `others may enter ${path}`);
  Deno.chmodSync(path, 0o700);

  const missing = await fabricFacts(machine, `fabric:${path}/not here`);
  assertEquals([missing.state, problems(missing)], ["broken", [`mkdir -m 700 '${path}/not here'`]]);
  const strange = await fabricFacts(machine, "gopher:x");
  assertEquals([strange.state, problems(strange).length], ["broken", 1]);
});

Deno.test("doctor, looking opens nothing in /dev and no socket but the fabric's", async () => {
  await using directory = await OwnDirectory.make();
  const opened: string[] = [];
  const families: unknown[] = [];
  interposeLibc((name, call) => (...args) => {
    if (name === "open" || name === "opendir") opened.push(new TextDecoder().decode(args[0] as Uint8Array));
    if (name === "socket") families.push(args[0]);
    return call(...args);
  });
  try {
    const machine = thisMachine();
    diagnose(gatherFacts(machine), await fabricFacts(machine, directory.path), null);
  } finally {
    interposeLibc(undefined);
  }
  assert(opened.includes("/proc/modules\0"), "the interposer sees nothing");
  assertEquals(opened.filter((it) => it.startsWith("/dev")), []);
  const AF_UNIX = 1;
  assertEquals(families.filter((it) => it !== AF_UNIX), []);
});

Deno.test("doctor, the command: --allow-ffi is enough, and its exit code says whether there are problems", async () => {
  await using directory = await OwnDirectory.make();
  const doctor = (...args: string[]): Promise<Ended> => run("cli.ts", ["doctor", "-d", directory.path, ...args]);
  const { code, stdout, stderr } = await doctor("--json");
  assertEquals(stderr, "");
  const report = JSON.parse(stdout);
  assertEquals(report.probe, null);
  const problems = (report.findings as Finding[]).filter(({ level }) => level === "problem").length;
  assertEquals(code, problems === 0 ? 0 : 1);
  assertEquals([report.fabric.device, report.fabric.state], [`fabric:${directory.path}`, "idle"]);
  assertEquals(report.system.kernel, Deno.osRelease());

  const text = await doctor();
  assertEquals([text.code, text.stderr], [code, ""]);
  assertMatch(text.stdout, /^machine {3}linux /);
  for (
    const part of [`fabric    fabric:${directory.path}, which`, "kernel modules (7)", "nodes (3)", "what each API"]
  ) {
    assertStringIncludes(text.stdout, part);
  }
  assert(text.stdout.endsWith(`${problems} problems, ${report.findings.length - problems} options\n`));

  Deno.chmodSync(directory.path, 0o755);
  const broken = await doctor();
  assertEquals(broken.code, 1);
  assertStringIncludes(broken.stdout, `\n  chmod 700 ${directory.path}\n`);
  const wrong = await doctor("now");
  assertEquals([wrong.code, wrong.stdout], [2, ""]);
});

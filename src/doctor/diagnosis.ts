/**
 * What each API would use on a machine, and what mends what is missing: decided from facts alone.
 *
 * @module
 */

import { type Facts, isIn, type IvshmemFact, type ModuleFact } from "./facts.ts";
import type { NodeStatus } from "./machine.ts";
import type { ProbeFacts } from "./probe.ts";

/** The fabric that a program would open here. */
export interface FabricFacts {
  /** Its name. */
  readonly device: string | null;
  /** `idle`: nobody runs it, and the first program that opens it will. */
  readonly state: "running" | "idle" | "broken";
  /** Why it is broken. */
  readonly reason: string | null;
  /** Its directory or socket, and what is there. */
  readonly path: string | null;
  readonly node: NodeStatus | null;
  /** Who runs it. */
  readonly broker: { readonly pid: number; readonly kind: string; readonly version: string } | null;
  /** The context that a program would be in. */
  readonly context: number | null;
}

/** One API on one medium. */
export interface Use {
  /** The API: a facet of the SDK, or a class of `@vmci/vmci/device`. */
  readonly api: "sharedMemory" | "datagrams" | "access" | "discovery" | "VmciDevice" | "VsockSocket";
  /** What it goes through. */
  readonly medium: string;
  /** Whether it would work now. */
  readonly ready: boolean;
  /** How, for people. */
  readonly how: string;
}

/** What mends something. */
export interface Remedy {
  /** A command, a line of the `.vmx` file, or arguments of QEMU. */
  readonly kind: "command" | "vmx" | "qemu";
  /** The text of it. */
  readonly text: string;
  /** `host`: on the machine that runs this container or virtual machine. */
  readonly where: "here" | "host";
}

/** Something that is missing. */
export interface Finding {
  /** `problem`: out of order. `option`: something more this machine could have. */
  readonly level: "problem" | "option";
  /** What is missing, and what for. */
  readonly message: string;
  /** The one thing that mends it; `null` where there is none. */
  readonly remedy: Remedy | null;
}

/** What the doctor says. */
export interface Diagnosis {
  readonly uses: readonly Use[];
  /** The problems first. */
  readonly findings: readonly Finding[];
}

/**
 * Decides what works and what is missing.
 *
 * @param facts What the machine has.
 * @param fabric The fabric.
 * @param probe What opening the devices told; `null` when nothing was opened.
 * @returns What each API uses, and the findings.
 */
export function diagnose(facts: Facts, fabric: FabricFacts, probe: ProbeFacts | null): Diagnosis {
  const findings = [
    ...fabricFindings(facts, fabric),
    ...facts.system.os === "linux"
      ? [...vmciFindings(facts), ...vsockFindings(facts), ...ivshmemFindings(facts), ...probeFindings(facts, probe)]
      : [],
  ];
  return {
    uses: uses(facts, fabric),
    findings: [
      ...findings.filter(({ level }) => level === "problem"),
      ...findings.filter(({ level }) => level === "option"),
    ],
  };
}

const FACETS = ["sharedMemory", "datagrams", "access", "discovery"] as const;

function uses({ system, nodes, vsock, ivshmem }: Facts, fabric: FabricFacts): Use[] {
  const list: Use[] = [];
  for (const api of FACETS) {
    if (fabric.device === null) list.push({ api, medium: "memory:", ready: true, how: "within one thread" });
    else {
      const how = {
        running: "the fabric that runs",
        idle: "the fabric: the first program starts it",
        broken: "broken",
      };
      list.push({ api, medium: fabric.device, ready: fabric.state !== "broken", how: how[fabric.state] });
    }
  }
  if (system.os !== "linux") return list;

  const vmci = nodes.find(({ path }) => path === "/dev/vmci")!;
  const datagramsOverVsock = vsock.transports.some(({ ready, carries }) => ready && carries.includes("DGRAM"));
  for (const it of ivshmem) {
    const how = `${sizeOf(memoryOf(it))} shared with virtual machines and their host, at ${resourceOf(it)}`;
    list.push({ api: "sharedMemory", medium: `ivshmem ${it.slot}`, ready: it.usable && it.enabled, how });
  }
  list.push(
    { api: "datagrams", medium: "vsock:", ready: datagramsOverVsock, how: "AF_VSOCK datagrams, host and guests" },
    { api: "datagrams", medium: "/dev/vmci", ready: vmci.usable, how: "as a context of the driver, to the host" },
    { api: "access", medium: "vsock:", ready: datagramsOverVsock, how: "at the receiver, by the source's context id" },
    { api: "discovery", medium: "vsock:", ready: datagramsOverVsock, how: "asks `vmci ds serve` on the host" },
    { api: "VmciDevice", medium: "/dev/vmci", ready: vmci.usable, how: "the driver's own requests" },
  );
  for (const { name, carries, ready } of vsock.transports) {
    list.push({ api: "VsockSocket", medium: `AF_VSOCK over ${name}`, ready, how: carries.join(", ") });
  }
  return list;
}

function fabricFindings({ system }: Facts, { state, reason, path, node }: FabricFacts): Finding[] {
  if (system.os !== "linux") {
    const message = `this is ${system.os}: the fabric and the real devices need Linux with glibc; memory: works here`;
    return [problem(message, null)];
  }
  if (state !== "broken") return [];
  let remedy: Remedy | null = null;
  if (path !== null && node === null) remedy = command(`mkdir -m 700 ${quote(path)}`);
  else if (path !== null && node?.kind === "directory" && node.uid === system.uid && (node.mode & 0o077) !== 0) {
    remedy = command(`chmod 700 ${quote(path)}`);
  }
  return [problem(`the fabric cannot be used: ${reason}`, remedy)];
}

function vmciFindings(facts: Facts): Finding[] {
  const { system: { roles, container, uid }, modules, nodes, vmciDevices } = facts;
  const node = nodes.find(({ path }) => path === "/dev/vmci")!;
  const guest = roles.includes("VMware guest");
  const findings: Finding[] = [];
  if (guest && vmciDevices.length === 0) {
    const remedy = { kind: "vmx", text: 'vmci0.present = "TRUE"', where: "host" } as const;
    findings.push(problem("this VMware guest has no VMCI device", remedy));
  }
  if (!isIn(modules, "vmw_vmci")) {
    const level = guest ? "problem" : "option";
    findings.push(missingModule(facts, level, "vmw_vmci", "/dev/vmci and vSockets over VMCI"));
  } else if (node.kind === null) {
    findings.push(
      container === null
        ? problem("the driver is there, but its node /dev/vmci is not", command(MAKE_NODE))
        : option("this container has no /dev/vmci", {
          kind: "command",
          text: `${container === "podman" ? "podman" : "docker"} run --device /dev/vmci ...`,
          where: "host",
        }),
    );
  } else if (node.kind !== "device") {
    findings.push(
      problem(`/dev/vmci is no device, but a ${node.kind}`, command(`sudo rm -r /dev/vmci && ${MAKE_NODE}`)),
    );
  } else if (!node.usable && uid !== null) {
    const message = `user ${uid} may not open /dev/vmci (mode ${node.mode}, of user ${node.uid}); log in again after`;
    findings.push(problem(message, { ...command(udevRule("vmci")), where: container === null ? "here" : "host" }));
  }
  return findings;
}

/** The number of a misc device is in its folder. */
const MAKE_NODE = `sudo mknod -m 600 /dev/vmci c $(tr : ' ' < /sys/class/misc/vmci/dev)`;

/**
 * Gives a node to a group, now and after every start, and the user to the group. The group is a system's one, since udev
 * gives nodes to no others.
 */
function udevRule(name: string): string {
  const file = `/etc/udev/rules.d/60-${name}.rules`;
  return `sudo groupadd --system --force vmci && sudo usermod -aG vmci "$(id -un)" && ` +
    `echo 'KERNEL=="${name}", GROUP="vmci", MODE="0660"' | sudo tee ${file} && ` +
    `sudo udevadm control --reload && sudo udevadm trigger /dev/${name}`;
}

function vsockFindings(facts: Facts): Finding[] {
  const { system: { roles }, modules, nodes, virtioVsockDevices } = facts;
  const guest = roles.includes("VMware guest");
  const findings: Finding[] = [];
  const need = (level: Finding["level"], module: string, purpose: string) => {
    if (!isIn(modules, module)) findings.push(missingModule(facts, level, module, purpose));
  };
  need(guest ? "problem" : "option", "vmw_vsock_vmci_transport", "vSockets over VMCI: datagrams, and device vsock:");
  if (roles.includes("KVM guest")) {
    if (virtioVsockDevices.length > 0) {
      need("problem", "vmw_vsock_virtio_transport", "vSockets between this guest and its host");
    } else {
      const message = "this KVM guest has no vSocket device";
      findings.push(option(message, { kind: "qemu", text: "-device vhost-vsock-pci,guest-cid=16", where: "host" }));
    }
  }
  if (roles.includes("KVM host")) need("option", "vhost_vsock", "vSockets between this host and its KVM guests");
  need("option", "vsock_loopback", "streams over vSockets within this machine");
  if (roles.includes("VMware host") && isIn(modules, "vhost_vsock")) {
    const message = "vhost_vsock is loaded beside VMware: the kernel lets only one of the two carry streams to guests";
    findings.push(option(message, command("sudo modprobe -r vhost_vsock")));
  }
  const node = nodes.find(({ path }) => path === "/dev/vsock")!;
  if (node.kind === "device" && !node.usable && facts.system.uid !== null) {
    findings.push(option(
      `user ${facts.system.uid} may not open /dev/vsock (mode ${node.mode}), which tells the own context id; sockets work`,
      { ...command(udevRule("vsock")), where: facts.system.container === null ? "here" : "host" },
    ));
  }
  return findings;
}

function ivshmemFindings({ system: { roles, uid }, ivshmem }: Facts): Finding[] {
  if (ivshmem.length === 0) {
    if (!roles.includes("KVM guest")) return [];
    const text = "-object memory-backend-file,id=vmci,share=on,mem-path=/dev/shm/vmci,size=16M " +
      "-device ivshmem-plain,memdev=vmci";
    return [option("this guest shares no memory with other machines", { kind: "qemu", text, where: "host" })];
  }
  return ivshmem.flatMap((it) => {
    const findings: Finding[] = [];
    if (!it.enabled && !it.mayEnable) {
      const text = `echo 1 | sudo tee /sys/bus/pci/devices/${it.slot}/enable`;
      findings.push(problem(`the shared memory device ${it.slot} is not enabled`, command(text)));
    }
    if (!it.usable && uid !== null) {
      const message = `user ${uid} may not map the memory of the shared memory device ${it.slot}`;
      findings.push(problem(message, command(`sudo chown ${uid} ${resourceOf(it)}`)));
    }
    return findings;
  });
}

/** What the drivers refused although their nodes may be opened; else the nodes' own findings say it. */
function probeFindings({ nodes }: Facts, probe: ProbeFacts | null): Finding[] {
  const asked = [["/dev/vmci", probe?.vmci], ["/dev/vsock", probe?.vsock]] as const;
  return asked.flatMap(([path, it]) => {
    const usable = nodes.find((node) => node.path === path)?.usable;
    return usable && it && "error" in it ? [problem(it.error, null)] : [];
  });
}

/** A module that is not in the kernel, with what brings it there as far as that can be told. */
function missingModule({ system, modules }: Facts, level: Finding["level"], name: string, purpose: string): Finding {
  const { state } = modules.find((it) => it.name === name) as ModuleFact;
  const load = `sudo modprobe ${name}`;
  const where = system.container === null ? "here" : "host";
  const message = `${name} is not loaded: ${purpose}`;
  if (state === "absent") {
    const install = packageOf(system.distribution, system.kernel);
    return {
      level,
      message: `this kernel (${system.kernel}) has no ${name}: ${purpose}`,
      remedy: install === undefined ? null : { kind: "command", text: install, where },
    };
  }
  return { level, message, remedy: { kind: "command", text: load, where } };
}

/** Where distributions that divide a kernel's modules into packages have the rest of them. Debian has them in one. */
function packageOf(distribution: string | null, kernel: string | null): string | undefined {
  switch (distribution) {
    case "ubuntu":
      return `sudo apt install linux-modules-extra-${kernel}`;
    case "fedora":
      return `sudo dnf install kernel-modules-${kernel}`;
    default:
      return undefined;
  }
}

function memoryOf({ bars }: IvshmemFact): number {
  return bars.find(({ number }) => number === 2)?.size ?? 0;
}

function resourceOf({ slot }: IvshmemFact): string {
  return `/sys/bus/pci/devices/${slot}/resource2`;
}

/** A size in bytes, for people. */
export function sizeOf(bytes: number): string {
  for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor} ${unit}`;
  }
  return `${bytes} bytes`;
}

function problem(message: string, remedy: Remedy | null): Finding {
  return { level: "problem", message, remedy };
}

function option(message: string, remedy: Remedy | null): Finding {
  return { level: "option", message, remedy };
}

function command(text: string): Remedy {
  return { kind: "command", text, where: "here" };
}

function quote(path: string): string {
  return /^[\w./:-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}

/**
 * What a machine has that VMCI can use, told by its files alone: no socket and no node is opened.
 *
 * @module
 */

import type { Machine, NodeStatus } from "./machine.ts";

/** What a machine is; it may be several things. */
export type Role = "VMware guest" | "VMware host" | "KVM guest" | "KVM host";

/** The machine as a whole. */
export interface SystemFacts {
  /** The operating system and the processor, as Deno names them. */
  readonly os: string;
  readonly arch: string;
  /** The kernel's release. */
  readonly kernel: string | null;
  /** The distribution's short name, such as `debian`. */
  readonly distribution: string | null;
  /** What the firmware says it is, such as `VMware, Inc. VMware20,1`. */
  readonly product: string | null;
  readonly roles: readonly Role[];
  /** Whose container this is, such as `docker`; `null` outside of one. */
  readonly container: string | null;
  /** The user that asks. */
  readonly uid: number | null;
}

/** Where a kernel module is. `unknown`: what this kernel has cannot be seen from here. */
export type ModuleState = "loaded" | "built in" | "available" | "absent" | "unknown";

/** A kernel module. */
export interface ModuleFact {
  readonly name: string;
  /** What it is for. */
  readonly purpose: string;
  readonly state: ModuleState;
  /** Its version, once it is loaded. */
  readonly version: string | null;
}

/** A node in `/dev`. */
export interface NodeFact {
  readonly path: string;
  /** What is there; `null` when nothing is. */
  readonly kind: NodeStatus["kind"] | null;
  /** The permission bits in octal, such as `600`. */
  readonly mode: string | null;
  readonly uid: number | null;
  readonly gid: number | null;
  /** Whether this user may open it to read and write. */
  readonly usable: boolean;
}

/** What carries vSockets. */
export interface TransportFact {
  readonly name: "vmci" | "virtio" | "vhost" | "loopback";
  /** The module that is it. */
  readonly module: string;
  /** The kinds of sockets it carries. */
  readonly carries: readonly ("DGRAM" | "STREAM" | "SEQPACKET")[];
  /** Whether it is in the kernel, with the device it needs. */
  readonly ready: boolean;
}

/** The address family of vSockets. */
export interface VsockFacts {
  /** Whether the kernel has it now; the first socket may load it. */
  readonly registered: boolean;
  /** Its number; `null` for VMware's old modules, which take the next free one. */
  readonly family: number | null;
  readonly transports: readonly TransportFact[];
}

/** A PCI device. */
export interface PciFact {
  /** Its address, such as `0000:00:04.0`. */
  readonly slot: string;
  /** The driver that has it. */
  readonly driver: string | null;
}

/** A device of memory shared between virtual machines of QEMU. */
export interface IvshmemFact extends PciFact {
  /** Whether it can interrupt. */
  readonly kind: "plain" | "doorbell";
  /** Its regions: their numbers and sizes in bytes. Number 2 is the shared memory. */
  readonly bars: readonly { readonly number: number; readonly size: number }[];
  /** Whether the device is enabled, and whether this user may enable it. */
  readonly enabled: boolean;
  readonly mayEnable: boolean;
  /** Whether this user may map the shared memory: the file `resource2`. */
  readonly usable: boolean;
}

/** All of it. */
export interface Facts {
  readonly system: SystemFacts;
  readonly modules: readonly ModuleFact[];
  readonly nodes: readonly NodeFact[];
  readonly vsock: VsockFacts;
  /** VMCI's own devices, which a VMware guest has. */
  readonly vmciDevices: readonly PciFact[];
  /** vSocket devices of virtio, which a KVM guest has. */
  readonly virtioVsockDevices: readonly string[];
  readonly ivshmem: readonly IvshmemFact[];
}

/** The modules that matter, with what each is for. */
const MODULES: Readonly<Record<string, string>> = {
  vmw_vmci: "VMCI itself: /dev/vmci",
  vsock: "vSockets: AF_VSOCK",
  vmw_vsock_vmci_transport: "vSockets over VMCI, datagrams too",
  vsock_loopback: "vSockets within one machine",
  vmw_vsock_virtio_transport: "vSockets of a KVM guest",
  vhost_vsock: "vSockets of a KVM host",
  vmmon: "VMware's hypervisor, on its host",
};

const NODES = ["/dev/vmci", "/dev/vsock", "/dev/vhost-vsock"];

const AF_VSOCK = 40;

/** The list of a distribution's modules has about 1 MiB. */
const MOST_OF_A_LIST = 8 << 20;

const VMCI_DEVICE = "0x15ad:0x0740";
const IVSHMEM_DEVICE = "0x1af4:0x1110";
const VIRTIO_VSOCK = 19;

const PCI = "/sys/bus/pci/devices";
const VIRTIO = "/sys/bus/virtio/devices";

/**
 * Looks at a machine.
 *
 * @param machine The machine.
 * @returns What it has.
 */
export function gatherFacts(machine: Machine): Facts {
  const kernel = machine.text("/proc/sys/kernel/osrelease") ?? null;
  const modules = findModules(machine, kernel);
  const slots = Map.groupBy(machine.list(PCI), (slot) => {
    const [vendor, device] = ["vendor", "device"].map((file) => machine.text(`${PCI}/${slot}/${file}`));
    return `${vendor}:${device}`;
  });
  const vmciDevices = (slots.get(VMCI_DEVICE) ?? []).map((slot) => pciFact(machine, slot));
  const ivshmem = (slots.get(IVSHMEM_DEVICE) ?? []).map((slot) => ivshmemFact(machine, slot));
  const virtio = machine.list(VIRTIO);
  const virtioVsockDevices = virtio.filter((it) => Number(machine.text(`${VIRTIO}/${it}/device`)) === VIRTIO_VSOCK);
  const has = (name: string) => isIn(modules, name);
  const product = ["sys_vendor", "product_name"].map((file) => machine.text(`/sys/class/dmi/id/${file}`))
    .filter((it) => it !== undefined).join(" ");

  const roles: Role[] = [];
  if (vmciDevices.length > 0 || product.startsWith("VMware")) roles.push("VMware guest");
  else if (virtio.length > 0 || ivshmem.length > 0 || /^QEMU|\bKVM\b/.test(product)) roles.push("KVM guest");
  if (has("vmmon") || machine.node("/dev/vmmon") !== undefined) roles.push("VMware host");
  if (machine.node("/dev/kvm") !== undefined) roles.push("KVM host");

  return {
    system: {
      os: machine.os,
      arch: machine.arch,
      kernel,
      distribution: /^ID="?([^"\n]*)"?$/m.exec(machine.text("/etc/os-release") ?? "")?.[1] ?? null,
      product: product === "" ? null : product,
      roles,
      container: containerOf(machine),
      uid: machine.uid,
    },
    modules,
    nodes: NODES.map((path) => nodeFact(machine, path)),
    vsock: vsockFacts(machine, has, virtioVsockDevices.length > 0),
    vmciDevices,
    virtioVsockDevices,
    ivshmem,
  };
}

/** Whether the kernel has a module now. */
export function isIn(modules: readonly ModuleFact[], name: string): boolean {
  const state = modules.find((it) => it.name === name)?.state;
  return state === "loaded" || state === "built in";
}

function findModules(machine: Machine, kernel: string | null): ModuleFact[] {
  const lines = (path: string) => machine.text(path, MOST_OF_A_LIST)?.split("\n");
  // Files of modules are named with either, the modules themselves with underscores.
  const nameOf = (path: string) => path.slice(path.lastIndexOf("/") + 1).replace(/\.ko\b.*$/, "").replaceAll("-", "_");
  const loaded = new Set(lines("/proc/modules")?.map((line) => line.split(" ", 1)[0]!));
  const folder = `/lib/modules/${kernel}`;
  const builtIn = new Set(lines(`${folder}/modules.builtin`)?.map(nameOf));
  const listed = lines(`${folder}/modules.dep`)?.map((line) => nameOf(line.split(":", 1)[0]!));
  const available = listed && new Set(listed);

  return Object.entries(MODULES).map(([name, purpose]) => {
    let state: ModuleState;
    if (loaded.has(name)) state = "loaded";
    else if (builtIn.has(name) || machine.node(`/sys/module/${name}`) !== undefined) state = "built in";
    else if (available?.has(name)) state = "available";
    else state = available === undefined ? "unknown" : "absent";
    return { name, purpose, state, version: machine.text(`/sys/module/${name}/version`) ?? null };
  });
}

function nodeFact(machine: Machine, path: string): NodeFact {
  const node = machine.node(path);
  if (node === undefined) return { path, kind: null, mode: null, uid: null, gid: null, usable: false };
  const { kind, mode, uid, gid } = node;
  return { path, kind, mode: mode.toString(8), uid, gid, usable: kind === "device" && machine.mayUse(path) };
}

function vsockFacts(machine: Machine, has: (module: string) => boolean, virtioDevice: boolean): VsockFacts {
  const protocols = machine.text("/proc/net/protocols") ?? "";
  const current = /^AF_VSOCK\s/m.test(protocols);
  const old = /^AF_VMCI\s/m.test(protocols);
  const transport = (
    name: TransportFact["name"],
    module: string,
    carries: TransportFact["carries"],
    device = true,
  ): TransportFact => ({ name, module, carries, ready: has(module) && device });
  return {
    registered: current || old || has("vsock"),
    family: old ? null : AF_VSOCK,
    transports: [
      transport("vmci", "vmw_vsock_vmci_transport", ["DGRAM", "STREAM"]),
      transport("virtio", "vmw_vsock_virtio_transport", ["STREAM", "SEQPACKET"], virtioDevice),
      transport("vhost", "vhost_vsock", ["STREAM", "SEQPACKET"]),
      transport("loopback", "vsock_loopback", ["STREAM", "SEQPACKET"]),
    ],
  };
}

function pciFact(machine: Machine, slot: string): PciFact {
  const driver = machine.link(`${PCI}/${slot}/driver`);
  return { slot, driver: driver?.slice(driver.lastIndexOf("/") + 1) ?? null };
}

function ivshmemFact(machine: Machine, slot: string): IvshmemFact {
  const folder = `${PCI}/${slot}`;
  // One line a region: first and last address, and flags; nothing there is all zeroes.
  const bars = (machine.text(`${folder}/resource`) ?? "").split("\n").slice(0, 6).flatMap((line, number) => {
    const [first, last] = line.split(" ");
    if (!first || !last || !/^0x[0-9a-f]+$/i.test(first) || !/^0x[0-9a-f]+$/i.test(last)) return [];
    const size = Number(BigInt(last) - BigInt(first)) + 1;
    return BigInt(last) === 0n ? [] : [{ number, size }];
  });
  return {
    ...pciFact(machine, slot),
    kind: bars.some(({ number }) => number === 1) ? "doorbell" : "plain",
    bars,
    enabled: machine.text(`${folder}/enable`) === "1",
    mayEnable: machine.mayUse(`${folder}/enable`),
    usable: machine.mayUse(`${folder}/resource2`),
  };
}

function containerOf(machine: Machine): string | null {
  const said = machine.text("/run/systemd/container");
  if (said) return said;
  if (machine.node("/run/.containerenv") !== undefined) return "podman";
  return machine.node("/.dockerenv") !== undefined ? "docker" : null;
}

/**
 * `vmci doctor`.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { openDevice } from "../device.ts";
import { diagnose, type Diagnosis, type FabricFacts, sizeOf } from "../doctor/diagnosis.ts";
import { type Facts, gatherFacts } from "../doctor/facts.ts";
import { type Machine, thisMachine } from "../doctor/machine.ts";
import { probeDrivers, type ProbeFacts } from "../doctor/probe.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, refuseOperands } from "./command.ts";
import { observe } from "./inspect.ts";
import { printTable } from "./table.ts";

/** Says what this machine has for VMCI, and what is missing. */
export const doctor: Command = {
  name: "doctor",
  summary: "say what this machine has for VMCI, and how to get what is missing",
  help: `Usage: vmci doctor [--probe] [-d DEVICE] [--json]

Says what this machine has - kernel modules, nodes and who may open them, what carries vSockets, shared memory devices,
the fabric -, what each API would use here, and for all that is missing the one command, .vmx line or QEMU argument that
brings it. It reads files only; it starts no fabric, loads no module and opens no device.

      --probe           also open /dev/vmci and /dev/vsock, and ask their drivers for versions and context ids. A socket
                        may load kernel modules

Exit codes: 0 all that is here is in order (there may be more to have), 1 problems.`,
  flags: ["probe"],
  async run(options: ParsedOptions, json: boolean): Promise<number> {
    refuseOperands(options);
    const machine = thisMachine();
    const facts = gatherFacts(machine);
    const fabric = await fabricFacts(machine, options.texts.device);
    const probe = options.flags.has("probe") ? probeDrivers() : null;
    const diagnosis = diagnose(facts, fabric, probe);
    if (json) printJson({ ...facts, fabric, probe, ...diagnosis });
    else printReport(facts, fabric, probe, diagnosis);
    return diagnosis.findings.some(({ level }) => level === "problem") ? ExitCode.FAILED : ExitCode.OK;
  },
};

/**
 * The fabric a program would open: where it is, and whether it works. Never starts one.
 *
 * @param machine The machine, to see what is at its path.
 * @param name The device's name, if the user gave one.
 * @returns What is known.
 */
export async function fabricFacts(machine: Machine, name: string | undefined): Promise<FabricFacts> {
  const nothing = { device: null, path: null, node: null, broker: null, context: null } as const;
  if (machine.os !== "linux") return { ...nothing, state: "broken", reason: `there is none on ${machine.os}` };
  let place: Pick<FabricFacts, "device" | "path" | "node"> = nothing;
  try {
    const { medium, context } = openDevice(name, false, 0);
    await medium.close(false);
    const path = /^fabric:(.*)$/s.exec(medium.device)?.[1] ?? null;
    place = { device: medium.device, path, node: path === null ? null : machine.node(path) ?? null };
    try {
      const session = await observe(name);
      const { broker: { pid, kind, version } } = session;
      const facts = { ...place, broker: { pid, kind, version }, context: session.context };
      await session.close();
      return { ...facts, state: "running", reason: null };
    } catch (error) {
      // Where the directory is right and nobody runs it, any program can.
      if (!(error instanceof VmciError) || !/^no fabric is running/.test(error.reason)) throw error;
      return { ...nothing, ...place, state: "idle", reason: null, context: context ?? null };
    }
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    const path = place.path ?? name?.replace(/^fabric:/, "") ?? null;
    const device = place.device ?? (path === null ? "fabric:" : `fabric:${path}`);
    const node = path === null ? null : machine.node(path) ?? null;
    return { ...nothing, device, path, node, state: "broken", reason: error.reason };
  }
}

function printReport(facts: Facts, fabric: FabricFacts, probe: ProbeFacts | null, diagnosis: Diagnosis): void {
  const { os, arch, kernel, product, roles, container, uid } = facts.system;
  const words = [`${os} ${arch}`, kernel && `kernel ${kernel}`, product, ...roles];
  if (container !== null) words.push(`in a container (${container})`);
  if (uid !== null) words.push(`user ${uid}`);
  console.log(`machine   ${words.filter((it) => it).join(", ")}`);
  console.log(`fabric    ${describeFabric(fabric)}`);
  if (os === "linux") printParts(facts, probe);
  printTable(
    "what each API would use",
    ["api", "through", "ready", "how"],
    diagnosis.uses.map(({ api, medium, ready, how }) => [api, medium, ready ? "yes" : "no", how]),
  );
  for (const { level, message, remedy } of diagnosis.findings) {
    console.log(`${level}: ${message}`);
    if (remedy !== null) console.log(`  ${PLACES[remedy.kind][remedy.where]}${remedy.text}`);
  }
  const problems = diagnosis.findings.filter(({ level }) => level === "problem").length;
  console.log(`${problems} problems, ${diagnosis.findings.length - problems} options`);
}

const PLACES = {
  command: { here: "", host: "on the host: " },
  vmx: { here: "in the .vmx file: ", host: "in the .vmx file: " },
  qemu: { here: "to QEMU: ", host: "to QEMU: " },
} as const;

function describeFabric({ device, state, reason, broker, context }: FabricFacts): string {
  switch (state) {
    case "running":
      return `${device}, run by process ${broker!.pid} (${broker!.kind}, version ${
        broker!.version
      }), context ${context}`;
    case "idle":
      return `${device}, which the first program will run`;
    default:
      return `${device ?? "none"}: ${reason}`;
  }
}

function printParts({ modules, nodes, vsock, ivshmem, vmciDevices }: Facts, probe: ProbeFacts | null): void {
  const driver = (it: string | null) => it === null ? "no driver" : `driver ${it}`;
  for (const it of vmciDevices) console.log(`device    VMCI ${it.slot}, ${driver(it.driver)}`);
  for (const it of ivshmem) {
    const bars = it.bars.map(({ number, size }) => `${number}: ${sizeOf(size)}`).join(", ");
    console.log(`device    ivshmem-${it.kind} ${it.slot}, ${driver(it.driver)}, regions ${bars}`);
  }
  const family = vsock.family === null ? "of VMware's old module, its number unknown" : `AF_VSOCK ${vsock.family}`;
  console.log(`vsock     ${family}, ${vsock.registered ? "" : "not "}in the kernel now`);
  if (probe !== null) {
    const tell = (name: string, it: object) => {
      console.log(`${name.padEnd(9)} ${Object.entries(it).map(([key, value]) => `${key} ${value}`).join(", ")}`);
    };
    tell("/dev/vmci", probe.vmci);
    tell("/dev/vsock", probe.vsock);
  }
  printTable(
    "kernel modules",
    ["module", "state", "version", "for"],
    modules.map(({ name, state, version, purpose }) => [name, state, version, purpose]),
  );
  printTable(
    "nodes",
    ["node", "kind", "mode", "user", "group", "usable"],
    nodes.map(({ path, kind, mode, uid, gid, usable }) => [path, kind, mode, uid, gid, usable ? "yes" : "no"]),
  );
}

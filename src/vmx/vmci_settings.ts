/**
 * What a `.vmx` file says about VMCI, and what is wrong with it.
 *
 * @module
 */

import type { VmxText } from "./vmx_text.ts";

/** What a file says about VMCI; what it does not say is `null`. */
export interface VmciSettings {
  /** The virtual machine's name. */
  readonly displayName: string | null;
  /** The version of its virtual hardware. */
  readonly hardwareVersion: number | null;
  /** Whether it has the device: `vmci0.present`. */
  readonly present: boolean | null;
  /** `vmci0.id` as it is written: signed or not. */
  readonly id: string | null;
  /** The context id of it: modulo 2^32; `null` also when `id` is no 32-bit number. */
  readonly contextId: number | null;
  /** `vmci0.pciSlotNumber`. */
  readonly pciSlotNumber: string | null;
  /** `vmci0.unrestricted`. */
  readonly unrestricted: boolean | null;
  /** `vmci0.domain`. */
  readonly domain: string | null;
  /** All `vmci.filter.` keys, in small letters. */
  readonly filters: Readonly<Record<string, string>>;
  /** Whether it is suspended: what it remembers has the devices of then. */
  readonly suspended: boolean;
  /** Whether the file is encrypted, so that not all of it can be read. */
  readonly encrypted: boolean;
}

/** The keys that {@linkcode readSettings} reads as a truth value. */
export const TRUTHS = ["vmci0.present", "vmci0.unrestricted", "vmci.filter.enable"] as const;

/** The context ids a virtual machine may have. */
export const ContextIdRange = { LEAST: 16, MOST: 0xfffffffe } as const;

/**
 * Reads a truth value as VMware does.
 *
 * @param value The value.
 * @returns What it says, or `undefined` when it is neither.
 */
export function readTruth(value: string): boolean | undefined {
  if (/^(?:true|t|yes|y|on|1)$/i.test(value)) return true;
  return /^(?:false|f|no|n|off|0)$/i.test(value) ? false : undefined;
}

/**
 * The context id that a value of `vmci0.id` means. Newer hardware writes it as a signed 32-bit number.
 *
 * @param id The value.
 * @returns The context id, or `undefined` when it is no 32-bit number.
 */
export function contextIdOf(id: string): number | undefined {
  if (!/^-?\d{1,10}$/.test(id)) return undefined;
  const number = Number(id);
  return number >= -(2 ** 31) && number < 2 ** 32 ? number >>> 0 : undefined;
}

/**
 * What a file says about VMCI.
 *
 * @param vmx The file's text.
 * @returns Its settings.
 */
export function readSettings(vmx: VmxText): VmciSettings {
  const text = (key: string) => vmx.get(key) ?? null;
  const truth = (key: string) => readTruth(vmx.get(key) ?? "") ?? null;
  const version = text("virtualHW.version");
  const id = text("vmci0.id");
  return {
    displayName: text("displayName"),
    hardwareVersion: version !== null && /^\d{1,4}$/.test(version) ? Number(version) : null,
    present: truth("vmci0.present"),
    id,
    contextId: contextIdOf(id ?? "") ?? null,
    pciSlotNumber: text("vmci0.pciSlotNumber"),
    unrestricted: truth("vmci0.unrestricted"),
    domain: text("vmci0.domain"),
    filters: Object.fromEntries(
      vmx.entries.map(({ key, value }) => [key.toLowerCase(), value] as const)
        .filter(([key]) => key.startsWith("vmci.filter.")),
    ),
    suspended: (vmx.get("checkpoint.vmState") ?? "") !== "",
    encrypted: vmx.get("encryption.data") !== undefined,
  };
}

/** Something about files that somebody should know. */
export interface VmxFinding {
  /** Whether it must be mended, or is only worth knowing. */
  readonly level: "problem" | "remark";
  /** The files it is about. */
  readonly files: readonly string[];
  /** What it is. */
  readonly message: string;
  /** The line that mends it, where one line does. */
  readonly remedy: string | null;
}

/** A file by its name. */
export interface NamedVmx {
  /** What the user calls it. */
  readonly file: string;
  /** Its text. */
  readonly vmx: VmxText;
}

/**
 * What is wrong with files, one by one and with each other.
 *
 * @param files The files, each virtual machine once.
 * @returns The findings, in the files' order; those between files last.
 */
export function findFaults(files: readonly NamedVmx[]): VmxFinding[] {
  return [...files.flatMap(faultsOf), ...sharedIds(files)];
}

function faultsOf({ file, vmx }: NamedVmx): VmxFinding[] {
  const settings = readSettings(vmx);
  const { hardwareVersion: version, present, unrestricted } = settings;
  const findings: VmxFinding[] = [];
  const tell = (level: VmxFinding["level"], message: string, remedy: string | null = null) => {
    findings.push({ level, files: [file], message, remedy });
  };

  for (const [key, lines] of vmx.duplicates) {
    tell("problem", `${key} is there ${lines.length} times, in lines ${lines.join(", ")}: VMware refuses such a file`);
  }
  for (const line of vmx.strange) tell("remark", `line ${line} is neither key = "value" nor a comment`);
  if (settings.encrypted) tell("remark", "the file is encrypted: what it hides is not looked at");
  for (const key of TRUTHS) {
    const value = vmx.get(key);
    if (value !== undefined && readTruth(value) === undefined) {
      tell("problem", `${key} is neither TRUE nor FALSE: '${value}'`, key === TRUTHS[0] ? PRESENT : `${key} = "FALSE"`);
    }
  }

  if (version === null) tell("remark", "virtualHW.version does not say which virtual hardware this is");
  else if (version < 6) {
    tell(present ? "problem" : "remark", `virtual hardware ${version} has no VMCI: it came with version 6`);
  } else if (present === null && vmx.get("vmci0.present") === undefined) {
    const meaning = version === 6 ? "off, as hardware version 6 has it by hand only" : "not said to be there";
    tell("remark", `VMCI is ${meaning}`, PRESENT);
  }
  if (present === false) tell("remark", "VMCI is off", PRESENT);

  const { id, contextId } = settings;
  const { LEAST, MOST } = ContextIdRange;
  const range = `a context id from ${LEAST} to ${MOST}`;
  if (id !== null && contextId === null) tell("problem", `vmci0.id must be ${range}, signed or not: '${id}'`);
  else if (contextId !== null && (contextId < LEAST || contextId > MOST)) {
    tell("problem", `vmci0.id must be ${range}: '${id}' is ${contextId}`);
  } else if (id === null && present && version === 6) {
    tell("remark", "hardware version 6 lets the host choose a context id unless vmci0.id says one");
  }

  if (unrestricted && present !== false) {
    // The product decides; but no older product runs hardware of version 9.
    if (version !== null && version >= 9) {
      tell("remark", "vmci0.unrestricted means nothing since Workstation 9 and ESXi 5.1");
    } else {
      tell(
        "problem",
        "VMCI is unrestricted: other virtual machines and all processes of the host may reach this one",
        'vmci0.unrestricted = "FALSE"',
      );
    }
  }
  if (settings.domain) tell("remark", "vmci0.domain means something to ESX 4.0 to 5.0 only");
  if (Object.keys(settings.filters).length > 0 && version !== null && version < 11) {
    tell("remark", "vmci.filter keys mean something from vSphere 6 (hardware version 11) on");
  }
  return findings;
}

const PRESENT = 'vmci0.present = "TRUE"';

/** Context ids that more than one virtual machine has; one that is off has none. */
function sharedIds(files: readonly NamedVmx[]): VmxFinding[] {
  const users = new Map<number, string[]>();
  for (const { file, vmx } of files) {
    const { contextId, present } = readSettings(vmx);
    if (contextId === null || present === false) continue;
    users.set(contextId, [...users.get(contextId) ?? [], file]);
  }
  return [...users].filter(([, all]) => all.length > 1).map(([contextId, all]) => ({
    level: "problem",
    files: all,
    message: `context id ${contextId} is that of ${all.length} virtual machines, of which one at a time can run`,
    remedy: null,
  }));
}

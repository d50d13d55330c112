/**
 * `vmci vmx show`, `vmci vmx enable` and `vmci vmx check`.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { contextIdOf, ContextIdRange, findFaults, readSettings, readTruth } from "../vmx/vmci_settings.ts";
import { isSame, lockOf, readVmx, replaceVmx, type VmxFile } from "../vmx/vmx_store.ts";
import { VmxError, type VmxText } from "../vmx/vmx_text.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, UsageError } from "./command.ts";
import { printTable } from "./table.ts";

/** Says what files say about VMCI. */
export const vmxShow: Command = {
  name: "vmx show",
  summary: "say what .vmx files say about VMCI",
  help: `Usage: vmci vmx show FILES... [--json]

Says what each file says about VMCI: whether the virtual machine has the device, its context id - vmci0.id modulo 2^32,
as newer hardware writes it signed -, whether it is unrestricted, its filters, and whether it seems to run.`,
  run({ operands }: ParsedOptions, json: boolean): Promise<number> {
    const views = readAll(operands).map((file) => ({
      file: file.name,
      ...readSettings(file.vmx),
      inUse: lockOf(file) !== undefined,
    }));
    if (json) printJson(views);
    else {
      printTable(
        "virtual machines",
        ["file", "name", "hardware", "present", "context", "vmci0.id", "unrestricted", "filter", "state"],
        views.map((it) => [
          it.file,
          it.displayName,
          it.hardwareVersion,
          it.present,
          it.contextId,
          it.id,
          it.unrestricted,
          it.filters["vmci.filter.enable"],
          it.inUse ? "in use" : it.suspended ? "suspended" : "off",
        ]),
      );
    }
    return Promise.resolve(ExitCode.OK);
  },
};

/** Gives virtual machines VMCI. */
export const vmxEnable: Command = {
  name: "vmx enable",
  summary: "give virtual machines VMCI in their .vmx files",
  help: `Usage: vmci vmx enable FILES... [--id CID] [--unrestricted TRUE|FALSE] [--filter TRUE|FALSE] [--force] [--json]

Sets vmci0.present to TRUE in each file. All else stays byte for byte. Each file is replaced in one step; beside it stays
a copy of what was there, FILE.bak. A file that says it already is left alone. Either no file or all of them are fit to
be changed before the first one is.

      --id CID          its context id, ${ContextIdRange.LEAST} to ${ContextIdRange.MOST}; for one file only
      --unrestricted    whether other virtual machines may reach it (before Workstation 9 and ESXi 5.1)
      --filter          whether the VMCI firewall is on (from vSphere 6 on): vmci.filter.enable
      --force           also change a file that is in use, or whose virtual machine is suspended

A virtual machine that runs does not see the change, and VMware may write its own over it: turn it off first.`,
  texts: ["id", "unrestricted", "filter"],
  flags: ["force"],
  run({ operands, texts, flags }: ParsedOptions, json: boolean): Promise<number> {
    const settings = [["vmci0.present", "TRUE"], ...settingsOf(texts)] as const;
    if (texts.id !== undefined && operands.length > 1) {
      throw new UsageError("--id is for one file: two virtual machines may not have one id");
    }
    const prepared = readAll(operands).map((file) => {
      if (!flags.has("force")) refuseBusy(file);
      return { file, vmx: change(file, settings) };
    });
    const results = prepared.map(({ file, vmx }) => {
      const backup = vmx === file.vmx ? null : replaceVmx(file, vmx);
      const result = { file: file.name, changed: backup !== null, backup, ...readSettings(vmx) };
      if (!json) {
        console.log(`${file.name}: ${backup === null ? "says so already" : `changed; what was there is ${backup}`}`);
      }
      return result;
    });
    if (json) printJson(results);
    return Promise.resolve(ExitCode.OK);
  },
};

/** Finds what is wrong. */
export const vmxCheck: Command = {
  name: "vmx check",
  summary: "find what is wrong with VMCI in .vmx files",
  help: `Usage: vmci vmx check FILES... [--json]

Finds two virtual machines with one context id, context ids out of range, virtual machines that are unrestricted, keys
that are there twice, values that VMware cannot read, and keys that mean nothing to the hardware version. Give all the
.vmx files of a host.

Exit codes: 0 no problem (there may be remarks), 1 problems.`,
  run({ operands }: ParsedOptions, json: boolean): Promise<number> {
    const findings = findFaults(readAll(operands).map(({ name, vmx }) => ({ file: name, vmx })));
    const problems = findings.filter(({ level }) => level === "problem").length;
    if (json) printJson({ problems, findings });
    else {
      for (const { level, files, message, remedy } of findings) {
        console.log(`${level}: ${files.join(", ")}: ${message}${remedy === null ? "" : `\n  ${remedy}`}`);
      }
      console.log(`${problems} problems, ${findings.length - problems} remarks`);
    }
    return Promise.resolve(problems === 0 ? ExitCode.OK : ExitCode.FAILED);
  },
};

/** Reads the files, each once however often and under whatever names it is given. */
function readAll(names: readonly string[]): VmxFile[] {
  if (names.length === 0) throw new UsageError("give one .vmx file or more");
  const files: VmxFile[] = [];
  for (const name of names) {
    const file = readVmx(name);
    if (!files.some((it) => isSame(it, file))) files.push(file);
  }
  return files;
}

function settingsOf({ id, unrestricted, filter }: ParsedOptions["texts"]): (readonly [string, string])[] {
  const settings: (readonly [string, string])[] = [];
  if (id !== undefined) {
    const contextId = contextIdOf(id);
    const { LEAST, MOST } = ContextIdRange;
    if (contextId === undefined || contextId < LEAST || contextId > MOST) {
      throw new UsageError(`--id must be a context id from ${LEAST} to ${MOST}: '${id}'`);
    }
    // As VMware writes it: signed.
    settings.push(["vmci0.id", `${contextId | 0}`]);
  }
  for (
    const [option, key, text] of [["unrestricted", "vmci0.unrestricted", unrestricted], ["filter", FILTER, filter]]
  ) {
    if (text === undefined) continue;
    const truth = readTruth(text);
    if (truth === undefined) throw new UsageError(`--${option} must be TRUE or FALSE: '${text}'`);
    settings.push([key!, truth ? "TRUE" : "FALSE"]);
  }
  return settings;
}

const FILTER = "vmci.filter.enable";

/** The file's text with all settings; what says the same in other words stays as it is. */
function change({ name, vmx }: VmxFile, settings: readonly (readonly [string, string])[]): VmxText {
  try {
    return settings.reduce((text, [key, value]) => {
      const old = text.duplicates.has(key.toLowerCase()) ? undefined : text.get(key);
      if (old !== undefined && meaning(key, old) === meaning(key, value)) return text;
      return text.with(key, value);
    }, vmx);
  } catch (error) {
    if (!(error instanceof VmxError)) throw error;
    throw new VmciError("INVALID_ARGS", { operation: `change ${name}`, reason: error.message, cause: error });
  }
}

function meaning(key: string, value: string): unknown {
  return (key === "vmci0.id" ? contextIdOf(value) : readTruth(value)) ?? value;
}

function refuseBusy(file: VmxFile): void {
  const operation = `change ${file.name}`;
  const lock = lockOf(file);
  if (lock !== undefined) {
    throw new VmciError("UNAVAILABLE", {
      operation,
      reason:
        `${lock} says that VMware has it open: turn the virtual machine off, or --force if that is left of a crash`,
    });
  }
  const { suspended, encrypted } = readSettings(file.vmx);
  if (suspended) {
    throw new VmciError("UNAVAILABLE", {
      operation,
      reason: "its virtual machine is suspended, and would come back to other devices: turn it off, or --force",
    });
  }
  if (encrypted && file.vmx.get("virtualHW.version") === undefined) {
    throw new VmciError("UNAVAILABLE", {
      operation,
      reason: "it is encrypted: change it in VMware's own settings, or --force",
    });
  }
}

/**
 * A guest that boots, runs one command on this project, and ends.
 *
 * @module
 */

import { ROOT } from "../tools/deno.ts";
import { Archive } from "./cpio.ts";
import { commandScript, GUEST_WORD } from "./init.ts";
import { gather, QEMU } from "./materials.ts";

/** What of the project a guest gets; the rest it has no use for. */
const PROJECT = ["deno.json", "mod.ts", "cli.ts", "README.md", "src", "ffi", "examples", "tests"];

/** What to run, and where. */
export interface GuestOptions {
  /** The command and its arguments; it runs in the project's folder. */
  readonly command: readonly string[];
  /** Its variables. */
  readonly environment?: ReadonlyMap<string, string> | undefined;
  /** Whose process it is: root, one, two or nobody. */
  readonly user?: string | undefined;
  /** How many processors the guest has. */
  readonly cpus?: number | undefined;
  /** Its memory in MiB. */
  readonly memory?: number | undefined;
  /** The kernel's modules, in the order they are loaded in. */
  readonly modules?: readonly string[] | undefined;
  /** Seconds it may run. */
  readonly timeout?: number | undefined;
  /** More arguments for QEMU. */
  readonly qemu?: readonly string[] | undefined;
  /** More words for the kernel. */
  readonly kernelWords?: readonly string[] | undefined;
  /** The folder that gets what the command leaves in /out. */
  readonly out?: string | undefined;
  /** Whether the kernel's log is shown at the end in any case. */
  readonly log?: boolean | undefined;
}

/** How the guest's run ended. */
export interface GuestResult {
  /** The command's exit code; `undefined` when the guest ended without one. */
  readonly code: number | undefined;
  /** What the kernel said. */
  readonly log: string;
}

/**
 * Boots a guest and runs a command in it; what it prints goes to the standard output as it comes.
 *
 * @param options What to run, and where.
 * @param show Gets what the command prints.
 * @returns How it ended.
 * @throws {NoGuestError} When this machine cannot run a guest.
 */
export async function runInGuest(
  options: GuestOptions,
  show: (bytes: Uint8Array<ArrayBuffer>) => void,
): Promise<GuestResult> {
  const { kernel, base } = await gather((text) => console.error(`guest: ${text}`));
  const folder = Deno.makeTempDirSync({ prefix: "vmci-guest-" });
  try {
    const initrd = `${folder}/initrd`;
    Deno.copyFileSync(base, initrd);
    projectArchive(options).write(initrd, true);
    const qemu = new Deno.Command("setpriv", {
      // If this process is killed, nobody needs the guest any more.
      args: ["--pdeathsig", "KILL", QEMU, ...qemuArguments(options, kernel, folder)],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const timer = setTimeout(() => qemu.kill("SIGKILL"), (options.timeout ?? 300) * 1000);
    try {
      for await (const bytes of qemu.stdout) show(bytes);
      await qemu.status;
    } finally {
      clearTimeout(timer);
    }
    if (options.out !== undefined) await unpack(`${folder}/out`, options.out);
    const code = /^\d+/.exec(readText(`${folder}/code`))?.[0];
    return { code: code === undefined ? undefined : Number(code), log: readText(`${folder}/log`) };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function projectArchive({ command, environment, user }: GuestOptions): Archive {
  const archive = new Archive();
  const leaveOut = new Set(["node_modules", ".git"]);
  for (const path of PROJECT) archive.copy(`${ROOT}${path}`, `app/${path}`, leaveOut);
  archive.file(".command", commandScript(command, environment ?? new Map(), user ?? "root"));
  return archive;
}

function qemuArguments(options: GuestOptions, kernel: string, folder: string): string[] {
  const modules = options.modules ?? ["vmw_vmci", "vsock", "vmw_vsock_vmci_transport"];
  // The driver waits for all processors when a context goes: there are ten thousand of them to come and go.
  const words = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", "rcupdate.rcu_expedited=1", GUEST_WORD];
  // deno-fmt-ignore
  return [
    // Emulated, which works everywhere; without the parts of that processor that emulation lacks.
    "-accel", "tcg,thread=multi", "-cpu", "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid",
    "-M", "q35", "-smp", `${options.cpus ?? 2}`, "-m", `${options.memory ?? 1024}`,
    "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
    "-serial", `file:${folder}/log`,
    "-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output",
    "-serial", `file:${folder}/code`,
    "-serial", `file:${folder}/out`,
    "-kernel", kernel, "-initrd", `${folder}/initrd`,
    "-append", [...words, `vmci.modules=${modules.join(",")}`, ...options.kernelWords ?? []].join(" "),
    ...options.qemu ?? [],
  ];
}

async function unpack(archive: string, folder: string): Promise<void> {
  if ((await Deno.stat(archive)).size === 0) return;
  await Deno.mkdir(folder, { recursive: true });
  const { success, stderr } = await new Deno.Command("tar", { args: ["-xzf", archive, "-C", folder] }).output();
  if (!success) throw new Error(`Cannot unpack what the guest left: ${new TextDecoder().decode(stderr)}`);
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/**
 * What the environment says of a guest: VM_CPUS, VM_MEMORY (MiB), VM_MODULES (with commas), VM_USER, VM_TIMEOUT
 * (seconds), VM_ENV (NAME=VALUE words), VM_QEMU and VM_KERNEL (words), VM_OUT, VM_LOG.
 *
 * @returns The options, without a command.
 */
export function environmentOptions(): Omit<GuestOptions, "command"> {
  const words = (name: string) => Deno.env.get(name)?.split(/\s+/).filter((word) => word !== "") ?? [];
  const number = (name: string) => {
    const text = Deno.env.get(name);
    if (text === undefined) return undefined;
    if (!/^[1-9]\d*$/.test(text)) throw new TypeError(`Cannot use ${name}: received '${text}', not a whole number`);
    return Number(text);
  };
  return {
    cpus: number("VM_CPUS"),
    memory: number("VM_MEMORY"),
    timeout: number("VM_TIMEOUT"),
    modules: Deno.env.get("VM_MODULES")?.split(",").filter((word) => word !== ""),
    user: Deno.env.get("VM_USER"),
    out: Deno.env.get("VM_OUT"),
    log: Deno.env.has("VM_LOG"),
    environment: new Map(
      words("VM_ENV").map((word) => {
        const at = word.indexOf("=");
        return at < 0 ? [word, ""] : [word.slice(0, at), word.slice(at + 1)];
      }),
    ),
    qemu: words("VM_QEMU"),
    kernelWords: words("VM_KERNEL"),
  };
}

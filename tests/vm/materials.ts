/**
 * What a guest is made of: QEMU, Debian's kernel with its modules, busybox and this Deno. What is missing is fetched by
 * apt, once, and kept in a folder.
 *
 * @module
 */

import { Archive } from "./cpio.ts";
import { INIT, USERS } from "./init.ts";

/** The emulator. */
export const QEMU = "qemu-system-x86_64";

/** The parts of the kernel's package that are of use. */
const KERNEL_PARTS = [
  "./boot/vmlinuz-*",
  "*/drivers/misc/vmw_vmci/*",
  "*/net/vmw_vsock/*",
  "*/drivers/virtio/*",
  "*/drivers/char/virtio_console.ko*",
  "*/drivers/uio/*",
  "*/drivers/vfio/*",
  "*/virt/lib/irqbypass.ko*",
  "*/fs/fuse/*",
];

/** A machine that cannot run a guest, and why. */
export class NoGuestError extends Error {
  override readonly name = "NoGuestError";
}

/** The paths of what was fetched. */
export interface Materials {
  /** The kernel. */
  readonly kernel: string;
  /** The part of the first file system that is the same for every guest. */
  readonly base: string;
}

/**
 * The folder that everything is kept in.
 *
 * @returns Its path.
 */
export function cacheFolder(): string {
  const named = Deno.env.get("VM_CACHE");
  if (named !== undefined) return named;
  const caches = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  return `${caches}/vmci-guest`;
}

/**
 * Finds or fetches everything; processes that do so at once wait for each other.
 *
 * @param say Is told what takes long.
 * @returns Where it is.
 * @throws {NoGuestError} When something is missing and cannot be had.
 */
export async function gather(say: (text: string) => void): Promise<Materials> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    throw new NoGuestError(
      `Cannot run a guest: this is ${Deno.build.os} on ${Deno.build.arch}, the guest needs Linux on x86-64`,
    );
  }
  const cache = cacheFolder();
  Deno.mkdirSync(cache, { recursive: true });
  using lock = Deno.openSync(`${cache}/lock`, { create: true, write: true });
  await lock.lock(true);
  await installQemu(say);
  const kernel = `${cache}/vmlinuz`;
  if (!exists(kernel)) await fetchKernel(cache, say);
  const base = `${cache}/base.cpio`;
  if (!isNewest(base, [kernel, Deno.execPath(), new URL("init.ts", import.meta.url), new URL(import.meta.url)])) {
    await writeBase(cache, base);
  }
  return { kernel, base };
}

async function installQemu(say: (text: string) => void): Promise<void> {
  if (await succeeds(QEMU, ["--version"])) return;
  const what = "qemu-system-x86 is not installed";
  if (!await succeeds("apt-get", ["--version"])) {
    throw new NoGuestError(`Cannot run a guest: ${what}, and there is no apt-get to install it`);
  }
  if (Deno.uid() !== 0) {
    throw new NoGuestError(
      `Cannot run a guest: ${what}, and only root can install it. Run once as root: apt-get install qemu-system-x86`,
    );
  }
  say("installing qemu-system-x86 by apt-get");
  await aptGet(["update", "-qq"]);
  await aptGet(["install", "-y", "-qq", "--no-install-recommends", "qemu-system-x86"]);
}

/** Takes what is needed out of Debian's packages; the kernel comes last, for it says that all is there. */
async function fetchKernel(cache: string, say: (text: string) => void): Promise<void> {
  say("fetching the kernel and busybox by apt-get");
  const folder = Deno.makeTempDirSync({ dir: cache, prefix: "fetch-" });
  try {
    let name = await kernelPackage();
    if (name === undefined && Deno.uid() === 0) {
      await aptGet(["update", "-qq"]);
      name = await kernelPackage();
    }
    if (name === undefined) {
      throw new NoGuestError(
        "Cannot run a guest: apt does not know linux-image-cloud-amd64. It is Debian's; run apt-get update as root",
      );
    }
    const options = ["-o", "APT::Sandbox::User=root", "-qq"];
    try {
      await aptGet([...options, "download", "busybox-static", name], folder);
    } catch (error) {
      // The lists may be older than what the mirror still has.
      if (Deno.uid() !== 0) throw error;
      await aptGet(["update", "-qq"]);
      await aptGet([...options, "download", "busybox-static", name], folder);
    }
    const parts = KERNEL_PARTS.map((part) => `'${part}'`).join(" ");
    await shell(
      `for p in *.deb; do dpkg --fsys-tarfile $p > $p.tar; done
      tar -x -f busybox-static_*.tar ./bin/busybox
      tar -x -f linux-image-*.tar --wildcards ${parts}
      mkdir modules
      find . -name '*.ko.xz' -exec xz -d {} +
      find . -name '*.ko' -exec mv {} modules/ ';'
      mv boot/vmlinuz-* vmlinuz`,
      folder,
    );
    await shell(`rm -rf ../modules && mv modules bin/busybox .. && mv vmlinuz ..`, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** The package that has the kernel: the one apt knows depends on it and has its version in its name. */
async function kernelPackage(): Promise<string | undefined> {
  const { stdout } = await output("apt-cache", ["depends", "linux-image-cloud-amd64"]);
  return /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
}

/** Puts Deno, the libraries it needs, busybox and the modules into an archive. */
async function writeBase(cache: string, base: string): Promise<void> {
  const archive = new Archive();
  for (const path of ["proc", "sys", "dev", "run", "sbin", "usr/lib", "var/tmp"]) archive.directory(path);
  archive.directory("root", 0o700);
  archive.directory("tmp", 0o1777);
  archive.directory("out", 0o1777);
  archive.file("init", INIT, 0o755);
  archive.file("etc/passwd", USERS.map(({ name, id }) => `${name}:x:${id}:${id}::/tmp:/bin/sh\n`).join(""));
  archive.file("etc/group", USERS.map(({ name, id }) => `${name}:x:${id}:\n`).join(""));
  archive.file("etc/hosts", "127.0.0.1 localhost\n");
  archive.copy(`${cache}/busybox`, "bin/busybox");
  archive.copy(`${cache}/modules`, "lib/modules");
  archive.copy(Deno.execPath(), "usr/bin/deno");
  const { stdout } = await output("ldd", [Deno.execPath()]);
  for (const [library] of stdout.matchAll(/\/\S+/g)) archive.copy(library, library.slice(1));
  archive.write(`${base}.new`);
  Deno.renameSync(`${base}.new`, base);
}

async function aptGet(args: readonly string[], cwd?: string): Promise<void> {
  const { ok, stderr } = await output("apt-get", ["-o", "DPkg::Lock::Timeout=300", ...args], cwd);
  if (!ok) throw new NoGuestError(`Cannot run a guest: apt-get ${args.join(" ")} failed: ${stderr.trim()}`);
}

async function shell(script: string, cwd: string): Promise<void> {
  const { ok, stderr } = await output("sh", ["-e", "-c", script], cwd);
  if (!ok) throw new NoGuestError(`Cannot run a guest: unpacking failed: ${stderr.trim()}`);
}

interface Output {
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

async function output(program: string, args: readonly string[], cwd?: string): Promise<Output> {
  const decoder = new TextDecoder();
  try {
    const { success, stdout, stderr } = await new Deno.Command(program, {
      args: [...args],
      env: { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
      stdin: "null",
      ...(cwd === undefined ? {} : { cwd }),
    }).output();
    return { ok: success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { ok: false, stdout: "", stderr: `there is no ${program}` };
  }
}

async function succeeds(program: string, args: readonly string[]): Promise<boolean> {
  return (await output(program, args)).ok;
}

function exists(path: string): boolean {
  return changedAt(path) !== undefined;
}

/** Whether a file is there and was made after all those that it is made of. */
function isNewest(path: string, sources: readonly (string | URL)[]): boolean {
  const made = changedAt(path);
  return made !== undefined && sources.every((source) => (changedAt(source) ?? 0) <= made);
}

/** When a file was changed or put where it is; `undefined` when it is not there. */
function changedAt(path: string | URL): number | undefined {
  try {
    const { mtime, ctime } = Deno.statSync(path);
    return Math.max(mtime?.getTime() ?? 0, ctime?.getTime() ?? 0);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

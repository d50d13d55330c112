/**
 * What measurements find around them: how long they may take, where they are, and what this machine has to compare with.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { type Machine, Unavailable } from "./model.ts";
import { PartyProcess, type StartOptions } from "./party_process.ts";
import { Precedence } from "./processes.ts";
import type { Job } from "./parts/part.ts";

const SOURCE = fileURLToPath(new URL("native/baseline.c", import.meta.url));
const COMPILERS = ["cc", "gcc", "clang"];

/** What a job may say otherwise. */
export type JobChanges = Partial<Omit<Job, "span"> & Job["span"]>;

/** How to run. */
export interface WorldOptions {
  /** Short, for a first look. */
  readonly quick: boolean;
  /** Keeps the two parties on a core of their own each. */
  readonly pin: boolean;
  /** Gives every party precedence over all other processes of the machine. */
  readonly first: boolean;
  /** Says what takes long. */
  readonly note: (text: string) => void;
}

/** See the module's comment. Everything it made goes when it is disposed. */
export class World implements AsyncDisposable {
  /** Whether this is only a first look. */
  readonly quick: boolean;
  readonly #options: WorldOptions;
  readonly #stack: AsyncDisposableStack = new AsyncDisposableStack();
  readonly #kept = new Map<string, Promise<unknown>>();

  /** @param options How to run. */
  constructor(options: WorldOptions) {
    this.#options = options;
    this.quick = options.quick;
    if (options.first) this.#stack.use(new Precedence());
  }

  /** A part's job: what is not said is usual. */
  job(directory: string, changes: JobChanges = {}): Job {
    const [usualWarmup, usualDuration] = this.quick ? [60, 60] : [250, 400];
    const { batch = 1, warmup = usualWarmup, duration = usualDuration, ...others } = changes;
    const span = { warmup, duration, batch };
    return { directory, span, size: 64, sizes: [], ready: {}, idle: 0, count: 0, variant: "", ...others };
  }

  /** How a party is started: `side` 0 or 1, if it is one of two. */
  at(side?: 0 | 1): StartOptions {
    const { pin, first } = this.#options;
    const core = pin && side !== undefined ? ["taskset", "-c", `${side}`] : [];
    return { prefix: [...(first ? ["nice", "-n", "-20"] : []), ...core], ...(pin ? { env: { PIN: "1" } } : {}) };
  }

  /** Starts a part of `parts/` as one of two parties, or as the only one. */
  part(file: string, part: string, job: Job, side?: 0 | 1, flags: readonly string[] = ["--allow-all"]): PartyProcess {
    return PartyProcess.part(file, part, job, { ...this.at(side), flags });
  }

  /** A directory of its own for one measurement. */
  async directory(): Promise<TemporaryDirectory> {
    return new TemporaryDirectory(await Deno.makeTempDir({ prefix: "vmci-bench-" }));
  }

  /** Something that is made once and stays until the end. */
  once<T>(name: string, make: (stack: AsyncDisposableStack) => Promise<T>): Promise<T> {
    let made = this.#kept.get(name) as Promise<T> | undefined;
    if (made === undefined) {
      made = make(this.#stack);
      // What failed may not the next time.
      made.catch(() => this.#kept.delete(name));
      this.#kept.set(name, made);
    }
    return made;
  }

  /**
   * Runs the C program.
   *
   * @param args Its command line.
   * @returns The numbers it prints.
   * @throws {Unavailable} Without a compiler.
   */
  async native(...args: readonly (string | number)[]): Promise<number[]> {
    const { program } = await this.compiled();
    await using party = new PartyProcess([program, ...args.map(String)], this.at());
    return await party.line() as number[];
  }

  /** The C program, and the compiler that made it. */
  compiled(): Promise<{ readonly program: string; readonly compiler: string }> {
    return this.once("C program", async (stack) => {
      const { path } = stack.use(await this.directory());
      const program = `${path}/baseline`;
      for (const compiler of COMPILERS) {
        const made = await output(compiler, ["-O2", "-std=gnu11", "-o", program, SOURCE]);
        if (made === undefined) continue;
        if (!made.success) throw new Error(`Cannot compile ${SOURCE}: ${made.stderr}`);
        const version = await output(compiler, ["--version"]);
        return { program, compiler: version?.stdout.split("\n")[0] ?? compiler };
      }
      throw new Unavailable("no C compiler: install gcc (Debian: apt-get install gcc libc6-dev)");
    });
  }

  /**
   * npm's zeromq, in a directory of its own: the path of its package, and of its library, which is a whole libzmq.
   *
   * @throws {Unavailable} When it cannot be installed.
   */
  zeromq(): Promise<{ readonly module: string; readonly library: string }> {
    return this.once("zeromq", async (stack) => {
      this.#options.note("installing npm:zeromq in a temporary directory");
      const { path } = stack.use(await this.directory());
      await Deno.writeTextFile(`${path}/package.json`, JSON.stringify({ dependencies: { zeromq: "^6.8.0" } }));
      const made = await new Deno.Command(Deno.execPath(), {
        args: ["install", "--quiet", "--node-modules-dir=auto"],
        cwd: path,
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).output();
      if (!made.success) throw new Unavailable("npm's zeromq cannot be installed");
      const module = `${path}/node_modules/zeromq`;
      const libraries = `${module}/build/linux/${Deno.build.arch === "x86_64" ? "x64" : "arm64"}/node`;
      const names = (await Array.fromAsync(Deno.readDir(libraries))).map(({ name }) => name).sort();
      // There is one for each Node and libc. Which Node does not matter here.
      const library = names.map((name) => `${libraries}/${name}/addon.node`).find(opens);
      if (library === undefined) throw new Unavailable("npm's zeromq has no library for this machine");
      return { module, library };
    });
  }

  /** The machine. */
  async machine(): Promise<Machine> {
    const cpuinfo = await Deno.readTextFile("/proc/cpuinfo").catch(() => "");
    const compiled = await this.compiled().catch((error) => {
      if (error instanceof Unavailable) return undefined;
      throw error;
    });
    return {
      date: new Date().toISOString(),
      cpu: /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? Deno.build.arch,
      cores: navigator.hardwareConcurrency,
      kernel: Deno.osRelease(),
      deno: Deno.version.deno,
      v8: Deno.version.v8,
      compiler: compiled?.compiler ?? null,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** A directory that goes when it is disposed. */
export class TemporaryDirectory implements AsyncDisposable {
  /** @param path Where it is. */
  constructor(readonly path: string) {}

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** Whether a library can be opened, and is a ZeroMQ. */
function opens(path: string): boolean {
  try {
    Deno.dlopen(path, { zmq_ctx_new: { parameters: [], result: "pointer" } }).close();
    return true;
  } catch {
    return false;
  }
}

/** Runs a program to its end; `undefined` when there is no such program. */
export async function output(
  program: string,
  args: readonly string[],
): Promise<{ readonly success: boolean; readonly stdout: string; readonly stderr: string } | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(program, { args: [...args], stdin: "null" }).output();
    const decoder = new TextDecoder();
    return { success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

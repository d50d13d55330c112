/**
 * Programs as users start them: this Deno, one file, `--allow-ffi` and nothing more.
 *
 * @module
 */

import { ROOT } from "../tools/deno.ts";

/** How a program ended. */
export interface Ended {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What may differ from one start to the next. */
export interface StartOptions {
  /** Permissions; `--allow-ffi` without it. */
  readonly permissions?: readonly string[];
  /** Changes to the environment, which has no VMCI variables otherwise. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where it runs; the project's root without it. */
  readonly cwd?: string;
}

/** A program that runs. Dispose it: it is killed then if it still runs, so that none outlives its test. */
export class Program implements AsyncDisposable {
  /** How it ended. */
  readonly ended: Promise<Ended>;
  readonly #child: Deno.ChildProcess;
  readonly #output = { stdout: "", stderr: "" };
  readonly #waiters = new Set<() => void>();
  #running = true;

  /**
   * Starts a program.
   *
   * @param file The file, from the project's root.
   * @param args Its command line.
   * @param options See {@linkcode StartOptions}.
   */
  constructor(file: string, args: readonly string[] = [], options: StartOptions = {}) {
    const { permissions = ["--allow-ffi"], env = {}, cwd = ROOT } = options;
    const inherited = Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("VMCI_"));
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", ...permissions, file.startsWith("/") ? file : ROOT + file, ...args],
      cwd,
      clearEnv: true,
      env: { ...Object.fromEntries(inherited), TZ: "UTC", NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.ended = this.#follow();
    // Who is interested asks for it.
    this.ended.catch(() => {});
  }

  /** Its process. */
  get pid(): number {
    return this.#child.pid;
  }

  /**
   * Waits until it has printed something.
   *
   * @param text What, on either stream.
   * @returns All it has printed on its standard output by then.
   */
  async printed(text: string): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const look = () => {
      const { stdout, stderr } = this.#output;
      if (stdout.includes(text) || stderr.includes(text)) resolve(stdout);
      else if (!this.#running) reject(new Error(`It ended without having printed '${text}': ${stdout}${stderr}`));
    };
    this.#waiters.add(look);
    try {
      look();
      return await promise;
    } finally {
      this.#waiters.delete(look);
    }
  }

  /** Sends it a signal. */
  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.ended;
  }

  async #follow(): Promise<Ended> {
    const collect = async (name: "stdout" | "stderr") => {
      for await (const text of this.#child[name].pipeThrough(new TextDecoderStream())) {
        this.#output[name] += text;
        for (const look of this.#waiters) look();
      }
    };
    const [{ code, signal }] = await Promise.all([this.#child.status, collect("stdout"), collect("stderr")]);
    this.#running = false;
    for (const look of this.#waiters) look();
    return { code, signal, ...this.#output };
  }
}

/** Runs a program to its end. */
export async function run(file: string, args: readonly string[] = [], options?: StartOptions): Promise<Ended> {
  await using program = new Program(file, args, options);
  return await program.ended;
}

/** A directory of its own, only for this user, removed when it is disposed. */
export class OwnDirectory implements AsyncDisposable {
  private constructor(readonly path: string) {}

  /** Makes one. */
  static async make(): Promise<OwnDirectory> {
    return new OwnDirectory(await Deno.makeTempDir({ prefix: "vmci-" }));
  }

  /** What is in it, sorted. */
  entries(): string[] {
    return [...Deno.readDirSync(this.path)].map(({ name }) => name).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

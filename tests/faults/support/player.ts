/**
 * Processes that do what a test tells them, and that a test may end in any way.
 *
 * @module
 */

import { type ErrorCodeName, type Handle, VmciError } from "../../../mod.ts";
import { ROOT } from "../../tools/deno.ts";
import type { Stage } from "./stage.ts";

/** What is asked of a player. */
export interface PlayerCall {
  readonly id: number;
  readonly code: string;
  readonly args: readonly unknown[];
}

/** What it answers. */
export interface PlayerAnswer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: {
    readonly message: string;
    readonly vmci?: {
      readonly code: string;
      readonly operation: string;
      readonly reason: string;
      readonly handle?: Handle;
    };
  };
}

/** How a player is started. */
export interface PlayerOptions {
  /** Permissions; `--allow-ffi` and `--allow-read` without it. */
  readonly permissions?: readonly string[];
  /** Flags of the engine. */
  readonly v8Flags?: string;
  /** The command to start it by, in front of Deno's own: `setpriv` and its like. */
  readonly by?: readonly string[];
  /** Which Deno; this one without it. */
  readonly deno?: string;
  /** Changes to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** The program; the usual one without it. */
  readonly program?: string;
  /** What the program gets as arguments. */
  readonly args?: readonly string[];
}

/** A process. Dispose it: it is killed then if it still runs. */
export class Player implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #said: string[] = [];
  readonly #hearers = new Set<() => void>();
  readonly #over: Promise<void>;
  #ids = 0;
  #running = true;
  /** What it printed on its standard error. */
  complaints = "";
  /** How it ended, once it has. */
  status: Deno.CommandStatus | undefined;

  constructor(options: PlayerOptions = {}) {
    const { permissions = ["--allow-ffi", "--allow-read"], v8Flags, by = [], deno = Deno.execPath(), env = {} } =
      options;
    const program = options.program ?? "player_main.ts";
    const command = [
      ...by,
      deno,
      "run",
      "--no-prompt",
      ...permissions,
      ...(v8Flags === undefined ? [] : [`--v8-flags=${v8Flags}`]),
      program.startsWith("/") ? program : `${ROOT}tests/faults/support/${program}`,
      ...options.args ?? [],
    ];
    const inherited = Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("VMCI_"));
    this.#child = new Deno.Command(command[0]!, {
      args: command.slice(1),
      clearEnv: true,
      env: { ...Object.fromEntries(inherited), NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#over = this.#follow();
  }

  /** Its process. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Has it do something; the function is sent as text and sees only its arguments. */
  async run<A extends readonly unknown[], R>(action: (stage: Stage, ...args: A) => R, ...args: A): Promise<Awaited<R>> {
    const id = ++this.#ids;
    const reply = Promise.withResolvers<unknown>();
    this.#calls.set(id, reply);
    if (!this.#running) this.#failAll();
    const line = JSON.stringify({ id, code: action.toString(), args } satisfies PlayerCall) + "\n";
    // If it has just died, the calls fail for that.
    this.#input.write(new TextEncoder().encode(line)).catch(() => {});
    return await reply.promise as Awaited<R>;
  }

  /** As {@linkcode Player.run}, for what is to be awaited later: a failure is not lost and not thrown meanwhile. */
  start<A extends readonly unknown[], R>(action: (stage: Stage, ...args: A) => R, ...args: A): Promise<Awaited<R>> {
    const promise = this.run(action, ...args);
    promise.catch(() => {});
    return promise;
  }

  /** Has a program begin that waits for a line first. */
  async begin(line: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
  }

  /** Waits until it has said that line; each line is heard once. */
  async heard(line: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => {
      const at = this.#said.indexOf(line);
      if (at >= 0) {
        this.#said.splice(at, 1);
        resolve();
      } else if (!this.#running) {
        reject(new Error(`The player ended without having said '${line}': ${this.complaints}`));
      }
    };
    await this.#hear(look, promise);
  }

  /** Waits for the next line that it says. */
  async nextLine(): Promise<string | undefined> {
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const look = () => {
      if (this.#said.length > 0) resolve(this.#said.shift());
      else if (!this.#running) resolve(undefined);
    };
    return await this.#hear(look, promise);
  }

  async #hear<T>(look: () => void, promise: Promise<T>): Promise<T> {
    this.#hearers.add(look);
    look();
    try {
      return await promise;
    } finally {
      this.#hearers.delete(look);
    }
  }

  /** Sends it a signal. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Ends it as a crash would, and waits until it is gone. */
  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#over;
  }

  /** Waits until it has ended by itself. */
  async ended(): Promise<Deno.CommandStatus> {
    await this.#over;
    return this.status!;
  }

  /** Closes its input, so that it ends by itself, and waits for that. */
  async finish(): Promise<Deno.CommandStatus> {
    await this.#input.close().catch(() => {});
    return await this.ended();
  }

  /** Waits until the kernel says that it is stopped. */
  async stopped(): Promise<void> {
    await processState(this.pid, (state) => state === "T");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #follow(): Promise<void> {
    const answers = async () => {
      let rest = "";
      for await (const chunk of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop()!;
        for (const line of lines) this.#take(line);
      }
    };
    const complaints = async () => {
      for await (const chunk of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.complaints += chunk;
    };
    const [status] = await Promise.all([this.#child.status, answers(), complaints()]);
    this.status = status;
    this.#running = false;
    await this.#input.abort().catch(() => {});
    this.#failAll();
    for (const look of [...this.#hearers]) look();
  }

  #take(line: string): void {
    if (line.startsWith("! ")) {
      this.#said.push(line.slice(2));
      for (const look of [...this.#hearers]) look();
      return;
    }
    if (!line.startsWith("= ")) return;
    const { id, result, error } = JSON.parse(line.slice(2)) as PlayerAnswer;
    const call = this.#calls.get(id)!;
    this.#calls.delete(id);
    if (error === undefined) call.resolve(result);
    else if (error.vmci === undefined) call.reject(new Error(error.message));
    else call.reject(new VmciError(error.vmci.code as ErrorCodeName, error.vmci));
  }

  #failAll(): void {
    for (const call of this.#calls.values()) call.reject(new PlayerGone(this.complaints));
    this.#calls.clear();
  }
}

/** The player ended before it answered. */
export class PlayerGone extends Error {
  constructor(complaints: string) {
    super(`The player ended before it answered${complaints === "" ? "" : `: ${complaints}`}`);
  }
}

/** The state of a process as the kernel's one letter: R, S, T; Z when it is gone. */
export async function stateOfProcess(pid: number): Promise<string> {
  try {
    const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
    return stat.slice(stat.lastIndexOf(")") + 2).charAt(0);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "Z";
    throw error;
  }
}

/** Waits until a process has a state. */
export async function processState(pid: number, wanted: (state: string) => boolean): Promise<void> {
  while (!wanted(await stateOfProcess(pid))) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** A directory for a fabric, for this user alone; removed in the end. */
export class FabricDirectory implements AsyncDisposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "vmci-faults-" });

  constructor() {
    Deno.chmodSync(this.path, 0o700);
  }

  /** The broker's socket. */
  get socket(): string {
    return `${this.path}/socket`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

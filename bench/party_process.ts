/**
 * The processes that a measurement is made of.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { Job, Ready } from "./parts/part.ts";

const PARTY = fileURLToPath(new URL("party.ts", import.meta.url));
const CONFIG = fileURLToPath(new URL("../deno.json", import.meta.url));

/** How a process is started. */
export interface StartOptions {
  /** What is put before its command line. */
  readonly prefix?: readonly string[];
  /** What is put into its environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Flags for Deno; everything is allowed without them. */
  readonly flags?: readonly string[];
}

/** A process that answers in lines of JSON. It is killed when it is disposed. */
export class PartyProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #errors: Promise<string>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";

  /**
   * @param command Its command line.
   * @param options How it is started.
   */
  constructor(command: readonly string[], { prefix = [], env = {} }: StartOptions = {}) {
    const [program, ...args] = [...prefix, ...command];
    this.#child = new Deno.Command(program!, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      clearEnv: true,
      env: { ...inherited(), NO_COLOR: "1", ...env },
    }).spawn();
    this.#reader = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#errors = new Response(this.#child.stderr).text();
  }

  /** Starts a part of `parts/` in a Deno of its own. */
  static part(file: string, part: string, job: Job, options: StartOptions = {}): PartyProcess {
    const { flags = ["--allow-all"] } = options;
    const args = ["run", "--no-prompt", "--config", CONFIG, "--no-check", ...flags, PARTY];
    return new PartyProcess([Deno.execPath(), ...args, file, part, JSON.stringify(job)], options);
  }

  /** Its process. */
  get pid(): number {
    return this.#child.pid;
  }

  /** The next line it prints. */
  async line(): Promise<unknown> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return JSON.parse(line);
      }
      const { done, value } = await this.#reader.read();
      if (done) throw new Error(`the party ended: ${whyOf(await this.#errors)}`);
      this.#text += value;
    }
  }

  /** As {@linkcode PartyProcess.line}, for the first line of one who is spoken to. */
  async ready(): Promise<Ready> {
    return await this.line() as Ready;
  }

  /** Writes an empty line to it. */
  async tell(): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    await writer.write(new Uint8Array([10]));
    writer.releaseLock();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.stdin.close().catch(() => {});
    await this.#reader.cancel();
    await this.#errors;
    await this.#child.status;
  }
}

/** The environment, without what would change the library. */
function inherited(): Record<string, string> {
  return Object.fromEntries(Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("VMCI_")));
}

/** The error that a program printed last, in a line. */
function whyOf(errors: string): string {
  const [line = "it did not say why"] = errors.match(/^error: .*$/m) ?? errors.trim().split("\n").slice(-1);
  return line.replace(/^error: (?:Uncaught )?(?:\(in promise\) )?/, "");
}

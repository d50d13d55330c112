/**
 * A directory that other users can reach, with a daemon, its sockets, its policy and its audit log; and processes of
 * other users that come there.
 *
 * @module
 */

import "../ffi/support.ts";
import { assert, assertEquals } from "@std/assert";
import { bundle } from "../tools/bundle.ts";
import { type Ended, Program, run } from "./program.ts";
import { Agent } from "./remote.ts";

/** The user that others are, and a group that is not its own. */
export const NOBODY = 65534;
export const OTHER_GROUP = 65533;

/** Why tests with a second user cannot run here; `false` when they can. */
export const ONE_USER: boolean = Deno.uid() !== 0;

/** Names a test that needs root. */
export function asRoot(name: string): { readonly name: string; readonly ignore: boolean } {
  return ONE_USER ? { name: `${name} (skipped: only root can be two users)`, ignore: true } : { name, ignore: false };
}

/** One line of the audit log. */
export interface AuditEntry {
  readonly time: string;
  readonly pid: number;
  readonly uid: number;
  readonly context: number | null;
  readonly event: "done" | "denied" | "dropped" | "omitted" | "missed";
  readonly op?: string | null;
  readonly code?: string;
  // deno-lint-ignore no-explicit-any
  readonly args?: any;
  readonly reason?: string;
}

/** What a daemon serves beside its main socket. */
export interface ServeOptions {
  /** Contexts with a socket of their own. */
  readonly contexts?: readonly number[];
  /** The policy's text. */
  readonly policy?: string;
}

const bundles = new Map<string, Promise<string>>();

/** A program of the project as one file of JavaScript. */
async function bundled(entry: string): Promise<string> {
  const output = await Deno.makeTempFile({ suffix: ".js" });
  try {
    const { ok, stderr } = await bundle(entry, output);
    assert(ok, stderr);
    return await Deno.readTextFile(output);
  } finally {
    await Deno.remove(output);
  }
}

/** See the module's comment. */
export class House implements AsyncDisposable {
  /** The directory. */
  readonly path: string;
  /** The daemon that was started last. */
  daemon!: Program;
  #args: string[] = [];
  readonly #residents: AsyncDisposable[] = [];

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes one. */
  static async make(): Promise<House> {
    const house = new House(await Deno.makeTempDir({ prefix: "vmci-" }));
    await Deno.chmod(house.path, 0o755);
    return house;
  }

  /** Makes one, with a daemon. */
  static async serving(options: ServeOptions = {}): Promise<House> {
    const house = await House.make();
    const { contexts = [], policy } = options;
    house.#args = ["--socket", house.main, "--audit", house.audit];
    house.#args.push(...contexts.flatMap((context) => ["--context", `${context}=${house.socket(context)}`]));
    if (policy !== undefined) {
      await house.writePolicy(policy);
      house.#args.push("--policy", house.policy);
    }
    await house.start();
    return house;
  }

  /** The main socket. */
  get main(): string {
    return `${this.path}/main`;
  }

  /** The policy's file. */
  get policy(): string {
    return `${this.path}/policy`;
  }

  /** The audit log. */
  get audit(): string {
    return `${this.path}/audit`;
  }

  /** The socket of a context. */
  socket(context: number): string {
    return `${this.path}/vm${context}`;
  }

  /** Starts the daemon, again after it ended, and waits until it listens. */
  async start(): Promise<Program> {
    this.daemon = this.resident(this.launch(...this.#args));
    await this.daemon.printed("listening at");
    return this.daemon;
  }

  /** Starts a process that serves; its sockets are open to all users. */
  launch(...args: string[]): Program {
    const mask = Deno.umask(0);
    try {
      return new Program("cli.ts", ["fabric", "serve", ...args]);
    } finally {
      Deno.umask(mask);
    }
  }

  /** Runs a daemon that should refuse to start. */
  refused(...args: string[]): Promise<Ended> {
    return run("cli.ts", ["fabric", "serve", ...args]);
  }

  /** Kills the daemon, and waits until it is gone. */
  async kill(): Promise<void> {
    this.daemon.kill("SIGKILL");
    await this.daemon.ended;
  }

  /** Writes the policy. */
  async writePolicy(text: string): Promise<void> {
    await Deno.writeTextFile(this.policy, text);
  }

  /** Puts another policy in force. */
  async reload(text: string, times = 1): Promise<void> {
    await this.writePolicy(text);
    this.daemon.kill("SIGHUP");
    await this.daemon.printed(`the policy of ${this.policy} is in force\n`.repeat(times));
  }

  /** A process of this user that does what the test says. */
  agent(): Agent {
    return this.resident(new Agent());
  }

  /** Such a process of another user. */
  async stranger(gid: number = NOBODY): Promise<Agent> {
    const program = await this.program("tests/support/agent.ts");
    return this.resident(new Agent({ program, ...await this.strange(gid) }));
  }

  /** Runs a program as another user to its end, and gives the JSON that it prints. */
  // deno-lint-ignore no-explicit-any
  async runStrange(entry: string, ...args: string[]): Promise<any> {
    const program = await this.program(entry);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      ...await this.strange(NOBODY),
      args: ["run", "--no-prompt", "--allow-ffi", program, ...args],
    }).output();
    const text = new TextDecoder();
    assertEquals({ code, stderr: text.decode(stderr) }, { code: 0, stderr: "" }, text.decode(stdout));
    return JSON.parse(text.decode(stdout));
  }

  /** The audit log so far: every line must be whole. */
  entries(): AuditEntry[] {
    const lines = Deno.readTextFileSync(this.audit).split("\n");
    assertEquals(lines.pop(), "", "the log ends with a whole line");
    return lines.map((line) => JSON.parse(line));
  }

  /** Finds a client that was let go in the audit log. */
  dropped(context: number | null, reason: string): void {
    const all = this.entries().filter(({ event }) => event === "dropped");
    const entry = all.find((it) => it.context === context && it.reason?.startsWith(reason));
    assert(entry !== undefined, `nobody was let go because '${reason}' among ${Deno.inspect(all)}`);
  }

  /** Finds a denial in the audit log. */
  denied(op: string, fits: (entry: AuditEntry) => boolean): AuditEntry {
    const all = this.entries().filter(({ event }) => event === "denied");
    const entry = all.find((it) => it.op === op && fits(it));
    assert(entry !== undefined, `no such denial of ${op} among ${Deno.inspect(all)}`);
    return entry;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const resident of this.#residents.reverse()) await resident[Symbol.asyncDispose]();
    await Deno.remove(this.path, { recursive: true });
  }

  /** What ends with the house at the latest. */
  resident<T extends AsyncDisposable>(it: T): T {
    this.#residents.push(it);
    return it;
  }

  /** A program where other users can read it. */
  private async program(entry: string): Promise<string> {
    const path = `${this.path}/${entry.split("/").at(-1)!.replace(/\.ts$/, ".js")}`;
    if (!bundles.has(entry)) bundles.set(entry, bundled(entry));
    await Deno.writeTextFile(path, await bundles.get(entry)!, { mode: 0o644 });
    return path;
  }

  /** How a process of another user starts. */
  private async strange(gid: number): Promise<Pick<Deno.CommandOptions, "uid" | "gid" | "cwd" | "env">> {
    const cache = `${this.path}/cache`;
    await Deno.mkdir(cache, { recursive: true });
    await Deno.chmod(cache, 0o777);
    return {
      uid: NOBODY,
      gid,
      cwd: this.path,
      env: { DENO_DIR: cache, HOME: cache, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    };
  }
}

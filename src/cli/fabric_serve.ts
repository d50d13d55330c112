/**
 * `vmci fabric serve`.
 *
 * @module
 */

import { fabricPath } from "../device.ts";
import { FIRST_VM_CONTEXT, HOST_CONTEXT, INVALID_ID } from "../handle.ts";
import { VERSION } from "../version.ts";
import { VmciError } from "../error.ts";
import type { PolicyText } from "../fabric/local/broker_thread_config.ts";
import { FabricDaemon, type ListeningAt } from "../fabric/local/daemon.ts";
import { readFileText } from "../fabric/local/run_directory.ts";
import { DEFAULT_QUOTA, type Quota } from "../fabric/quota.ts";
import {
  type Command,
  ExitCode,
  type ParsedOptions,
  printJson,
  readNumber,
  refuseOperands,
  UsageError,
} from "./command.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Serves a fabric until a signal ends it. */
export const fabricServe: Command = {
  name: "fabric serve",
  summary: "serve a fabric until SIGINT or SIGTERM",
  texts: ["socket", "policy", "audit"],
  lists: ["context", "quota"],
  help: `Usage: vmci fabric serve [--socket PATH] [--context CID=PATH]... [--quota NAME=N]...
                         [--policy FILE] [--audit FILE] [-d DIRECTORY] [--json]

Serves a fabric until SIGINT or SIGTERM, whether anybody uses it or not. Without --socket it serves this user's own
fabric, or that of DIRECTORY, where programs otherwise serve themselves. Whoever comes through the main socket must be
this user, and may choose a context.

  --socket PATH        listen at PATH instead
  --context CID=PATH   also listen at PATH, where whoever may connect is context CID and nothing else
  --quota NAME=N       allow N of: ${Object.keys(DEFAULT_QUOTA).join(", ")}
                       (lanes are each process', the others each context's; grants are the entries in the access
                       lists of all that it made)
  --policy FILE        who may be which contexts, flags, quotas and default grants; read again on SIGHUP
  --audit FILE         append who opened and granted what, was refused or let go, as JSON Lines

A socket's file has the mode that the umask leaves. A socket where nobody listens any more is replaced.`,
  async run(options: ParsedOptions, json: boolean): Promise<number> {
    refuseOperands(options);
    const { device, socket, policy: policyFile, audit } = options.texts;
    if (device !== undefined && socket !== undefined) {
      throw new UsageError("--socket serves no directory: leave out --device or --socket");
    }
    const contexts = options.lists.context!.map(readContext);
    const quota = readQuota(options.lists.quota!);
    // Before the first socket is there: a signal must not leave one behind.
    using interruption = new Interruption();
    // Where a file may grow no more, such as the audit log, writing to it fails, and need not end all.
    using _tooLarge = new SignalHandler("SIGXFSZ", () => {});
    const directory = socket === undefined ? fabricPath(device) : undefined;
    const policy = policyFile === undefined ? undefined : readPolicy(policyFile);
    await using daemon = await FabricDaemon.start({ directory, socket, contexts, quota, policy, audit });
    say(daemon.listening, json);
    using _reload = new SignalHandler("SIGHUP", () => reload(daemon, policyFile, json));
    const told = await Promise.race([interruption.came.then(() => true), daemon.ended.then(() => false)]);
    return told ? ExitCode.OK : ExitCode.FAILED;
  },
};

/** Reads a policy's file. Through libc, as everything here: no permission to read is needed. */
function readPolicy(name: string): PolicyText {
  return { name, text: readFileText(name) };
}

/** Puts the policy in force that its file has now; one with a fault is refused, and the one before stays. */
function reload(daemon: FabricDaemon, policyFile: string | undefined, json: boolean): void {
  if (policyFile === undefined) return;
  try {
    daemon.setPolicy(readPolicy(policyFile));
    if (json) printJson({ policy: policyFile });
    else console.log(`the policy of ${policyFile} is in force`);
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    console.error(`vmci: the policy stays as it was: ${error.message}`);
  }
}

/** Something done at a signal, as long as it is in scope. */
class SignalHandler implements Disposable {
  readonly #signal: Deno.Signal;
  readonly #handle: () => void;

  constructor(signal: Deno.Signal, handle: () => void) {
    this.#signal = signal;
    this.#handle = handle;
    Deno.addSignalListener(signal, handle);
  }

  [Symbol.dispose](): void {
    Deno.removeSignalListener(this.#signal, this.#handle);
  }
}

/** The signal that ends the daemon. */
class Interruption implements Disposable {
  /** When it came. */
  readonly came: Promise<void>;
  readonly #listener: () => void;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.came = promise;
    this.#listener = resolve;
    for (const signal of SIGNALS) Deno.addSignalListener(signal, this.#listener);
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, this.#listener);
  }
}

function say(listening: readonly ListeningAt[], json: boolean): void {
  if (json) return printJson({ pid: Deno.pid, version: VERSION, listening });
  for (const { path, context } of listening) {
    console.log(`listening at ${path}${context === undefined ? "" : ` for context ${context}`}`);
  }
}

function readContext(text: string): { readonly context: number; readonly path: string } {
  const [, cid = "", path = ""] = /^(\d+)=(.+)$/s.exec(text) ?? [];
  if (path === "") throw new UsageError(`--context is written CID=PATH: '${text}'`);
  const context = readNumber("the CID of --context", cid, HOST_CONTEXT, INVALID_ID - 1);
  if (context !== HOST_CONTEXT && context < FIRST_VM_CONTEXT) {
    throw new UsageError(
      `context ${context} is reserved: the host is ${HOST_CONTEXT}, VMs have ${FIRST_VM_CONTEXT} and up`,
    );
  }
  return { context, path };
}

function readQuota(texts: readonly string[]): Quota {
  const quota: Record<string, number> = { ...DEFAULT_QUOTA };
  for (const text of texts) {
    const [, name = "", value = ""] = /^(\w+)=(.*)$/s.exec(text) ?? [];
    if (!Object.hasOwn(quota, name)) {
      throw new UsageError(`--quota is written NAME=N, NAME one of ${Object.keys(quota).join(", ")}: '${text}'`);
    }
    quota[name] = readNumber(`the quota of ${name}`, value, 1, Number.MAX_SAFE_INTEGER);
  }
  return quota as unknown as Quota;
}

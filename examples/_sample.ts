/**
 * What both samples share: the command line, and how a failure is told. As in the SDK's samples, bad usage is exit code
 * -1 (255), a device that does not open -2 (254), and everything else 0: a step that fails is only reported.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { VmciError } from "@vmci/vmci";

/** What the command line says. */
export interface SampleOptions {
  /** Where to go; the default fabric without it. */
  readonly device: string | undefined;
  /** The context to be in; without it what the environment says, or the host. */
  readonly contextId: number | undefined;
  /** Which half of the sample to be. */
  readonly role: "server" | "client";
}

/** Reads the command line; ends the program when it asks for help, or for what does not exist. */
export function sampleOptions(program: string): SampleOptions {
  const strangers: string[] = [];
  const { device, context, server, client, help } = parseArgs(Deno.args, {
    string: ["device", "context"],
    boolean: ["server", "client", "help"],
    alias: { device: "d", server: "s", client: "c", help: "h" },
    unknown: (argument: string) => {
      strangers.push(argument);
      return false;
    },
  });
  const usage = `Usage: ${program} [-d <VMCI device>] [--context <id>] -s | -c
Exactly one of -s (--server) and -c (--client) is required.
  -d, --device   the fabric's directory or socket; this user's own fabric without it
  --context      2 to be the host (as without it), 16 and up to be a virtual machine
-h (--help) prints this text.`;
  if (help) {
    console.log(usage);
    Deno.exit(0);
  }
  const contextIsNumber = context === undefined || /^\d{1,10}$/.test(context);
  if (strangers.length > 0 || server === client || device === "" || !contextIsNumber) {
    console.error(usage);
    Deno.exit(255);
  }
  return {
    device,
    contextId: context === undefined ? undefined : Number(context),
    role: server ? "server" : "client",
  };
}

/** Says why there is no device, and ends the program. */
export function giveUp(error: unknown): never {
  tell(error);
  Deno.exit(254);
}

/** Waits for a sample's work, and says which step failed, if one did. */
export async function report(work: Promise<void>): Promise<void> {
  await work.catch(tell);
}

function tell(error: unknown): void {
  if (!(error instanceof VmciError)) throw error;
  console.error(`VMCI error ${error.number}: ${error.message}`);
}

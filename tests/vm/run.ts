/**
 * Runs a command in a guest with the real drivers, and ends with its exit code.
 *
 *     deno run -A tests/vm/run.ts COMMAND [ARGUMENT...]
 *     VM_MODULES=vmw_vmci VM_USER=nobody deno run -A tests/vm/run.ts ls -l /dev/vmci
 *
 * The command runs in a copy of the project, as root. See `environmentOptions` in machine.ts for the variables. Exit
 * code 125: this machine cannot run a guest. 124: the guest ended without one (the kernel's log is then shown).
 *
 * @module
 */

import { environmentOptions, runInGuest } from "./machine.ts";
import { NoGuestError } from "./materials.ts";

/** The exit code where there can be no guest; and where one ended as it should not, which is a failure. */
const NO_GUEST = 125;
const NO_CODE = 124;

/**
 * Runs a command in a guest and shows what it prints.
 *
 * @param command The command and its arguments.
 * @param show Gets what it prints.
 * @param cpus How many processors the guest has, if the environment does not say.
 * @returns The exit code.
 */
export async function runAndShow(
  command: readonly string[],
  show: (bytes: Uint8Array<ArrayBuffer>) => void,
  cpus?: number,
): Promise<number> {
  const environment = environmentOptions();
  const options = { ...environment, cpus: environment.cpus ?? cpus };
  try {
    const { code, log } = await runInGuest({ ...options, command }, show);
    if (code === undefined) console.error("guest: it ended without an exit code; its kernel said:");
    if (code === undefined || options.log) console.error(log);
    return code ?? NO_CODE;
  } catch (error) {
    if (!(error instanceof NoGuestError)) throw error;
    console.error(error.message);
    return NO_GUEST;
  }
}

if (import.meta.main) {
  if (Deno.args.length === 0) {
    console.error("usage: deno run -A tests/vm/run.ts COMMAND [ARGUMENT...]");
    Deno.exit(64);
  }
  Deno.exit(await runAndShow(Deno.args, (bytes) => Deno.stdout.writeSync(bytes)));
}

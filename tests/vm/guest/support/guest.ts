/** Tests of the real devices: they run in a guest of tests/vm, and nowhere else. */

import { libc } from "../../../../ffi/libc.ts";
import { GUEST_WORD } from "../../init.ts";

/** Whether this is a guest of tests/vm: its kernel was told so, which no setting of a user can imitate by accident. */
export const inGuest: boolean = Deno.build.os === "linux" &&
  Deno.readTextFileSync("/proc/cmdline").split(/\s+/).includes(GUEST_WORD);

// Libraries stay open by design, and the test runner would take one that is opened inside a test for a leak.
if (inGuest) { for (const name of Object.keys(libc)) void libc[name as keyof typeof libc]; }

/**
 * Registers a test in a guest. Elsewhere it registers nothing: /dev/vmci and AF_VSOCK may be a machine's own lines.
 *
 * @param name What holds.
 * @param run Fails when it does not.
 */
export function guestTest(name: string, run: (context: Deno.TestContext) => void | Promise<void>): void {
  if (inGuest) Deno.test(name, run);
}

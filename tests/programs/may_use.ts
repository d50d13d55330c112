/**
 * Prints, as JSON, who asks and which of the given paths it may read and write.
 *
 *     may_use.ts PATH...
 */

import { LinuxMachine } from "../../src/doctor/machine.ts";

const machine = new LinuxMachine();
console.log(JSON.stringify({ uid: machine.uid, usable: Deno.args.map((path) => machine.mayUse(path)) }));

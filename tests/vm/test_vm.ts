/**
 * Runs the tests of the real devices, tests/vm/guest, in a guest. Arguments are files of that folder, or parts of their
 * names; without any, all are run. `--filter TEXT` goes to `deno test`.
 *
 *     deno task test:vm
 *     deno task test:vm vmci_datagram
 *
 * @module
 */

import { runAndShow } from "./run.ts";

const FOLDER = "tests/vm/guest";

/** The test files whose names contain one of the parts, or all. */
function testFiles(parts: readonly string[]): string[] {
  const names = [...Deno.readDirSync(new URL("guest/", import.meta.url))]
    .map(({ name }) => name)
    .filter((name) => name.endsWith("_test.ts"))
    .filter((name) => parts.length === 0 || parts.some((part) => `${FOLDER}/${name}`.includes(part)));
  return names.sort().map((name) => `${FOLDER}/${name}`);
}

if (import.meta.main) {
  const parts = [...Deno.args];
  const filter = parts.indexOf("--filter");
  const options = filter < 0 ? [] : parts.splice(filter, 2);
  const files = testFiles(parts);
  if (files.length === 0) {
    console.error(`guest: no test file in ${FOLDER} has one of these in its name: ${parts.join(" ")}`);
    Deno.exit(64);
  }
  // The types were checked before, and there is no network to fetch anything by.
  const command = ["deno", "test", "--allow-all", "--no-check", "--no-lock", "--cached-only", "--unstable-vsock"];
  command.push("--v8-flags=--expose-gc", ...options, ...files);
  Deno.exit(await runAndShow(command, (bytes) => Deno.stdout.writeSync(bytes)));
}

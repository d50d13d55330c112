/**
 * Runs the tests of the real devices, tests/vm/guest, in guests: two at once, with a processor each, where there are two
 * processors; an emulated machine is slow, and each has a kernel of its own. Arguments are files of that folder, or parts
 * of their names; without any, all are run. `--filter TEXT` goes to `deno test`.
 *
 *     deno task test:vm
 *     deno task test:vm vmci_datagram
 *
 * @module
 */

import { runAndShow } from "./run.ts";

const FOLDER = "tests/vm/guest";

/** So many guests run at once; each has a gigabyte. */
const MOST_GUESTS = 2;

/** The test files whose names contain one of the parts, or all. */
function testFiles(parts: readonly string[]): string[] {
  const names = [...Deno.readDirSync(new URL("guest/", import.meta.url))]
    .map(({ name }) => name)
    .filter((name) => name.endsWith("_test.ts"))
    .filter((name) => parts.length === 0 || parts.some((part) => `${FOLDER}/${name}`.includes(part)));
  return names.sort().map((name) => `${FOLDER}/${name}`);
}

/** Deals the files out, one to each guest in turn. */
function deal(files: readonly string[], guests: number): string[][] {
  return Array.from({ length: guests }, (_, guest) => files.filter((_, i) => i % guests === guest));
}

/**
 * Runs test files in a guest.
 *
 * @returns The exit code of the tests, or of what kept them from being run.
 */
function runFiles(
  files: readonly string[],
  options: readonly string[],
  show: (bytes: Uint8Array<ArrayBuffer>) => void,
  cpus: number | undefined,
): Promise<number> {
  // The types were checked before, and there is no network to fetch anything by.
  const command = ["deno", "test", "--allow-all", "--no-check", "--no-lock", "--cached-only", "--unstable-vsock"];
  return runAndShow([...command, "--v8-flags=--expose-gc", ...options, ...files], show, cpus);
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
  const shares = deal(files, Math.min(MOST_GUESTS, navigator.hardwareConcurrency, files.length));
  // The first one is shown as it goes, the others in turn when they have ended.
  const [first, ...others] = shares.map((share, i) => {
    const output: Uint8Array<ArrayBuffer>[] = [];
    const show = i === 0 ? (bytes: Uint8Array) => Deno.stdout.writeSync(bytes) : output.push.bind(output);
    return { output, code: runFiles(share, options, show, shares.length > 1 ? 1 : undefined) };
  });
  const codes = [await first!.code];
  for (const { output, code } of others) {
    codes.push(await code);
    for (const bytes of output) Deno.stdout.writeSync(bytes);
  }
  Deno.exit(codes.find((code) => code !== 0) ?? 0);
}

/**
 * A program that has too little of something, for real, and goes on when it has enough again. Prints what came of it as
 * JSON.
 *
 *     starved.ts descriptors|addresses|'file size'|shm DEVICE
 *
 * @module
 */

import { openVmci, type Region, VmciError } from "../../../mod.ts";

const [what, device] = Deno.args as [string, string];

const c = Deno.dlopen("libc.so.6", {
  // int setrlimit(int resource, const struct rlimit *rlp);
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  // int getrlimit(int resource, struct rlimit *rlp);
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
}).symbols;
const RLIMIT_FSIZE = 1;
const RLIMIT_NOFILE = 7;
const RLIMIT_AS = 9;

/** Runs something under a lower limit. */
function limited<T>(resource: number, limit: number, body: () => T): T {
  const before = new BigUint64Array(2);
  c.getrlimit(resource, before);
  c.setrlimit(resource, new BigUint64Array([BigInt(limit), before[1]!]));
  try {
    return body();
  } finally {
    c.setrlimit(resource, before);
  }
}

/** The code and the system's error of what an action throws. */
function failure(action: () => unknown): string {
  try {
    action();
    return "done";
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    return `${error.code} ${(error.cause as { code?: string } | undefined)?.code ?? "-"}`;
  }
}

/** How many bytes of addresses this process uses. */
function addresses(): number {
  return Number(/^VmSize:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status"))![1]) * 1024;
}

const vmci = await openVmci({ device });
const endpoint = vmci.datagrams.create();
const known = vmci.datagrams.create();
endpoint.sendTo(known.handle, new Uint8Array([1]));
known.receiveSync(0);

/** What works whatever is lacking: what is there already. */
function goesOn(): boolean {
  endpoint.sendTo(known.handle, new Uint8Array([2]));
  return known.receiveSync(0).payload[0] === 2 && vmci.discovery.list("none").length === 0;
}

/** Fills the file system at `/dev/shm`, which must be a small one; whether it is full. */
function fillShm(): boolean {
  using file = Deno.openSync("/dev/shm/filler", { create: true, write: true });
  for (let written = 0; written < 2 ** 24; written += 4096) {
    try {
      file.writeSync(new Uint8Array(4096));
    } catch {
      return true;
    }
  }
  return false;
}

/** What can be made where `/dev/shm` has no room: everything. */
function withoutShm(): Record<string, unknown> {
  const full = fillShm();
  const region = vmci.sharedMemory.create(2 ** 24);
  region.bytes.fill(7);
  const written = region.bytes[2 ** 24 - 1];
  region.detach();
  using fresh = vmci.datagrams.create();
  fresh.sendTo(known.handle, new Uint8Array([3]));
  return { full, written, first: known.receiveSync(0).payload[0], goesOn: goesOn() };
}

const STARVED: Readonly<Record<string, () => Record<string, unknown>>> = {
  // What a look at the directory needs must be left.
  descriptors: () => limited(RLIMIT_NOFILE, open() + 12, () => starve(4096)),
  addresses: () => limited(RLIMIT_AS, addresses() + 2 ** 27, () => starve(2 ** 24)),
  "file size": () => limited(RLIMIT_FSIZE, 2 ** 20, () => starve(2 ** 20 + 1)),
  shm: withoutShm,
};

function starve(size: number): Record<string, unknown> {
  const regions: Region[] = [];
  let refused = "";
  for (let i = 0; i < 1000 && refused === ""; i++) {
    const outcome = failure(() => regions.push(vmci.sharedMemory.create(size)));
    if (outcome !== "done") refused = outcome;
  }
  const report: Record<string, unknown> = { made: regions.length > 0, refused, goesOn: goesOn() };
  const again = failure(() => vmci.sharedMemory.create(size).detach());
  const twice = failure(() => vmci.sharedMemory.create(size).detach());
  report.steady = again === refused && twice === refused;
  for (const region of regions) region.detach();
  return report;
}

const open = () => [...Deno.readDirSync("/proc/self/fd")].length;
const before = open();
const report = STARVED[what]!();
// The addresses of what was closed are given back only much later.
report.after = failure(() => vmci.sharedMemory.create(4096).detach());
// A broker closes what it does not need any more after it has answered, and before it answers again.
goesOn();
report.leftOpen = Math.max(0, open() - before);
await vmci[Symbol.asyncDispose]();
console.log(JSON.stringify(report));

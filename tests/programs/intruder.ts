/**
 * A reader that tries every way to write to a region of which only the creator may be the writer. It attaches by the
 * broker's protocol, to have the descriptor, and then asks the kernel. Prints what came of each way, as JSON.
 *
 *     deno run --allow-ffi intruder.ts SOCKET CONTEXT:RESOURCE SIZE
 *
 * @module
 */

import { RawClient } from "../support/raw_client.ts";

const [socket, context, resource, size] = [Deno.args[0]!, ...Deno.args.slice(1).map(Number)] as [
  string,
  number,
  number,
  number,
];

const c = Deno.dlopen("libc.so.6", {
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "i64" },
  mprotect: { parameters: ["i64", "usize", "i32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i64" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64" },
  open: { parameters: ["buffer", "i32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
}).symbols;

const RDWR = 2;
const READ = 1;
const WRITE = 2;
const SHARED = 1;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ADD_SEALS = 1033;

const NAMES: Readonly<Record<number, string>> = { 1: "EPERM", 9: "EBADF", 13: "EACCES", 16: "EBUSY", 22: "EINVAL" };

/** What a call gave: `done`, or the name of its error. */
function outcome(result: number | bigint): string {
  if (Number(result) !== -1) return "done";
  const errno = new Deno.UnsafePointerView(c.__errno_location()!).getInt32();
  return NAMES[errno] ?? `errno ${errno}`;
}

using client = new RawClient(socket);
client.hello();
const { result, error, descriptors: [fd] } = client.ask("attach", { handle: { context, resource } });
if (fd === undefined) throw new Error(`attaching failed: ${error?.reason}`);

const length = BigInt(size);
const bytes = new Uint8Array([66]);
const before = c.mmap(0n, length, READ, SHARED, fd, 0n);
const reopened = c.open(new TextEncoder().encode(`/proc/self/fd/${fd}\0`), RDWR);
const report: Record<string, unknown> = {
  writable: result.writable,
  "map it to read": outcome(before),
  "map it to write": outcome(c.mmap(0n, length, READ | WRITE, SHARED, fd, 0n)),
  "make the mapping writable": outcome(c.mprotect(before, length, READ | WRITE)),
  "write": outcome(c.write(fd, bytes, 1n)),
  "write at a place": outcome(c.pwrite(fd, bytes, 1n, 0n)),
  "shrink": outcome(c.ftruncate(fd, 0n)),
  "grow": outcome(c.ftruncate(fd, 2n * length)),
  "punch a hole": outcome(c.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 0n, length)),
  "seal it more": outcome(c.fcntl(fd, ADD_SEALS, 8n)),
};
// Where the kernel opens it again, it is the same memory with the same seals.
report["open it again"] = reopened === -1 ? "refused" : [
    outcome(c.mmap(0n, length, READ | WRITE, SHARED, reopened, 0n)),
    outcome(c.write(reopened, bytes, 1n)),
    outcome(c.ftruncate(reopened, 0n)),
  ].every((it) => it === "EPERM")
  ? "refused"
  : "done";
report["first byte"] = new Deno.UnsafePointerView(Deno.UnsafePointer.create(before)!).getUint8();
console.log(JSON.stringify(report));
Deno.exit(0);

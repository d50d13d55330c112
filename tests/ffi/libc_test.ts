import { assert, assertEquals, assertInstanceOf, assertStrictEquals, assertThrows } from "@std/assert";
import { closeDescriptor, duplicate } from "../../ffi/descriptor.ts";
import {
  check,
  cString,
  Errno,
  errno,
  interposeLibc,
  libc,
  setErrno,
  SystemError,
  uninterrupted,
  waitThroughSignals,
} from "../../ffi/libc.ts";
import { isHungUp, ringBell, streamPair, waitReadable } from "../../ffi/unix_socket.ts";
import { program, runProgram, test, withFailures } from "./support.ts";

/** The library again, as a program sees it that has not used it yet. */
async function freshLibc(tag: string): Promise<typeof import("../../ffi/libc.ts")> {
  return await import(`../../ffi/libc.ts?${tag}`);
}

test("a SystemError says what failed and why, in words, by name and by number", () => {
  const error = new SystemError(Errno.ENOMEM, "mmap");
  assertEquals(error.message, "mmap failed: not enough memory (ENOMEM)");
  assertEquals([error.name, error.errno, error.code, error.call], ["SystemError", 12, "ENOMEM", "mmap"]);
  assertInstanceOf(error, Error);
});

test("a SystemError of a number without a name still says the number", () => {
  const error = new SystemError(999, "ioctl");
  assertEquals(error.message, "ioctl failed: error 999 (E999)");
  assertEquals(error.code, "E999");
});

test("every number in Errno is the kernel's number of its name", () => {
  for (const [name, number] of Object.entries(Errno)) assertEquals(new SystemError(number, "x").code, name);
});

test("check gives results back and turns -1 into the error that errno tells", () => {
  assertEquals(check(7, "x"), 7);
  assertEquals(check(0x7fff_ffff_f000n, "x"), 0x7fff_ffff_f000);
  const error = assertThrows(() => check(libc.close(-1), "close"), SystemError);
  assertEquals([error.code, error.call], ["EBADF", "close"]);
  assertThrows(() => check(libc.mmap(0n, 0n, 1, 1, -1, 0n), "mmap"), SystemError, "mmap failed: ");
});

test("errno is right after every failed call, while the heap is busy", () => {
  let garbage: unknown[] = [];
  for (let round = 0; round < 20_000; round++) {
    libc.close(-1);
    assertStrictEquals(errno(), Errno.EBADF);
    libc.send(0, null, 0n, -1);
    assertStrictEquals(errno(), 88); // ENOTSOCK
    garbage.push(new Array(10).fill(round));
    if (garbage.length > 1000) garbage = [];
  }
});

test("an interposer sees each call with its arguments and may answer in the kernel's stead", () => {
  const calls: unknown[] = [];
  interposeLibc((name, call) => (...args) => {
    calls.push([name, ...args]);
    if (name !== "fcntl") return call(...args);
    setErrno(Errno.EMFILE);
    return -1;
  });
  try {
    const error = assertThrows(() => duplicate(2), SystemError);
    assertEquals([error.code, error.call], ["EMFILE", "fcntl"]);
    assertThrows(() => closeDescriptor(-1), SystemError, "EBADF");
  } finally {
    interposeLibc(undefined);
  }
  assertEquals(calls, [["fcntl", 2, 1030, 0n], ["close", -1]]);
});

test("without an interposer the symbols are Deno's own again", () => {
  const before = libc.close;
  interposeLibc((_name, call) => (...args) => call(...args));
  assert(libc.close !== before);
  interposeLibc(undefined);
  assertStrictEquals(libc.close, before);
});

test("uninterrupted makes an interrupted call again, and no other", () => {
  assertEquals(
    withFailures("geteuid", Errno.EINTR, 3, () => uninterrupted("geteuid", () => libc.geteuid())),
    Deno.uid(),
  );
  const error = assertThrows(
    () => withFailures("geteuid", Errno.ENOMEM, 1, () => uninterrupted("geteuid", () => libc.geteuid())),
    SystemError,
  );
  assertEquals([error.code, error.call], ["ENOMEM", "geteuid"]);
});

test("an interrupted wait goes on with the time that is left", () => {
  const timeouts: number[] = [];
  const result = waitThroughSignals("poll", 50.5, (timeoutMs) => {
    timeouts.push(timeoutMs);
    if (timeouts.length === 3) return 1;
    const until = performance.now() + 5;
    while (performance.now() < until);
    setErrno(Errno.EINTR);
    return -1;
  });
  assertEquals([result, timeouts[0]], [1, 51]);
  assert(timeouts[1]! <= 46 && timeouts[2]! <= 41, String(timeouts));
  assert(timeouts.every(Number.isInteger));
});

test("an interrupted wait whose time is over looks once more without waiting", () => {
  const timeouts: number[] = [];
  const result = waitThroughSignals("poll", 1, (timeoutMs) => {
    timeouts.push(timeoutMs);
    if (timeouts.length === 2) return 0;
    const until = performance.now() + 3;
    while (performance.now() < until);
    setErrno(Errno.EINTR);
    return -1;
  });
  assertEquals([result, timeouts], [0, [1, 0]]);
});

test("an endless wait stays endless, and one too long for an int is cut", () => {
  const timeouts: number[] = [];
  for (const timeoutMs of [-1, 2 ** 40, Infinity]) {
    waitThroughSignals("poll", timeoutMs, (remaining) => {
      timeouts.push(remaining);
      setErrno(Errno.EINTR);
      return timeouts.length % 2 === 0 ? 0 : -1;
    });
  }
  assertEquals(timeouts, [-1, -1, 0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff]);
});

test("a wait for which there is no memory is made again until its time is over", () => {
  const [a, b] = streamPair();
  ringBell(b);
  assertEquals(withFailures("poll", Errno.ENOMEM, 3, () => waitReadable([a], -1)), 1);
  assertEquals(withFailures("poll", Errno.ENOMEM, Infinity, () => waitReadable([a], 5)), 0);
  assertEquals(withFailures("poll", Errno.ENOMEM, Infinity, () => waitReadable([a], 0)), 0);
  closeDescriptor(a);
  closeDescriptor(b);
});

test("a wait that fails for another reason throws", () => {
  const [a, b] = streamPair();
  const error = assertThrows(() => withFailures("poll", Errno.EINVAL, 1, () => waitReadable([a], 0)), SystemError);
  assertEquals([error.code, error.call], ["EINVAL", "poll"]);
  assertEquals(withFailures("poll", Errno.EINTR, 2, () => isHungUp(a)), false);
  closeDescriptor(a);
  closeDescriptor(b);
});

test("cString ends text with a NUL and takes none within", () => {
  assertEquals([...cString("ä")], [0xc3, 0xa4, 0]);
  assertThrows(() => cString("a\0b"), TypeError, 'Cannot pass "a\\u0000b" to C: it has a NUL in it');
});

test("every symbol was bound under its own name", () => {
  const names: string[] = [];
  interposeLibc((name, call) => {
    names.push(name);
    return call;
  });
  for (const value of Object.values(libc)) assertEquals(typeof value, "function");
  interposeLibc(undefined);
  assertEquals(names.sort(), Object.keys(libc).sort());
});

Deno.test("importing opens nothing, and the first call wants --allow-ffi", async () => {
  const { code, output, errors } = await runProgram("without_permission.ts", []);
  assertEquals([code, output], [0, "NotCapable\nNotCapable\n"], errors);
});

Deno.test("the first failing call of a process has the right errno", async () => {
  for (let round = 0; round < 5; round++) {
    const { code, output, errors } = await runProgram("first_error.ts", ["--allow-ffi"]);
    assertEquals([code, output], [0, "ENOENT connect\n"], errors);
  }
});

Deno.test("--allow-ffi alone is enough for memory, sockets, files and locks", async () => {
  const { code, output, errors } = await runProgram("with_ffi_alone.ts", ["--allow-ffi"]);
  assertEquals([code, output], [0, "all good\n"], errors);
});

Deno.test("a signal handler does not end a wait", async () => {
  const child = program("signalled.ts", ["--allow-ffi"]).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let output = "";
  while (!output.includes("waiting\n")) output += (await reader.read()).value;
  // Until it has been interrupted so often that it lets itself go on, and says so.
  const signals = setInterval(() => child.kill("SIGUSR1"), 20);
  while (!output.endsWith("done\n")) output += (await reader.read()).value;
  clearInterval(signals);
  await child.stdin.close();
  await reader.cancel();
  await child.stderr.cancel();
  assertEquals([(await child.status).code, output], [
    0,
    "waiting\ninterrupted\ninterrupted\ninterrupted\ntrue\ndone\n",
  ]);
});

Deno.test("where the library or a symbol is missing, the platform is what is said to be wrong", async () => {
  const { libc, UnsupportedPlatformError } = await freshLibc("missing");
  const dlopen = Deno.dlopen;
  try {
    Deno.dlopen = () => {
      throw new Error("Could not obtain symbol from the library: undefined symbol: statx");
    };
    const error = assertThrows(() => libc.close(-1), UnsupportedPlatformError);
    assertEquals(error.name, "UnsupportedPlatformError");
    assert(error.message.startsWith("Cannot open libc.so.6: Could not obtain symbol"), error.message);
    assertInstanceOf(error.cause, Error);
  } finally {
    Deno.dlopen = dlopen;
  }
});

Deno.test("on another system than Linux no library is looked for", async () => {
  const { libc, UnsupportedPlatformError } = await freshLibc("other-system");
  const build = Object.getOwnPropertyDescriptor(Deno, "build")!;
  try {
    Object.defineProperty(Deno, "build", { ...build, value: { ...Deno.build, os: "darwin" } });
    assertThrows(() => libc.close(-1), UnsupportedPlatformError, "Cannot open libc.so.6: this is darwin, not Linux");
  } finally {
    Object.defineProperty(Deno, "build", build);
  }
});

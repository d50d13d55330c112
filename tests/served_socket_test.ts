/** A socket with a path of its own: in whose place it may be put, and when its path is removed. */

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../ffi/file.ts";
import { tryLockFile } from "../ffi/file_lock.ts";
import { SystemError } from "../ffi/libc.ts";
import { ServedSocket } from "../src/fabric/local/served_socket.ts";
import { inDirectory, test, withFailures } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";

const EACCES = 13;
const EMFILE = 24;

test("served socket: it takes the place of one where nobody listens, and of nothing else", () =>
  inDirectory((path) => {
    const at = `${path}/socket`;
    assertEquals(ServedSocket.listenerAt(at), undefined);
    const first = ServedSocket.listen(at);
    assertEquals(ServedSocket.listenerAt(at), Deno.pid);
    assertStringIncludes(failsSync("ALREADY_EXISTS", () => ServedSocket.listen(at)).reason, `process ${Deno.pid} `);
    closeDescriptor(first.descriptor);
    assertEquals(ServedSocket.listenerAt(at), undefined);
    const second = ServedSocket.listen(at);
    assertEquals(ServedSocket.listenerAt(at), Deno.pid);
    second.abandon();
    Deno.writeTextFileSync(at, "mine");
    assertStringIncludes(failsSync("ALREADY_EXISTS", () => ServedSocket.listen(at)).reason, "is a file, not a socket");
    assertEquals(Deno.readTextFileSync(at), "mine");
  }));

test("served socket: where another kind of socket is listened at it says so", () =>
  inDirectory((path) => {
    const stream = Deno.listen({ transport: "unix", path: `${path}/stream` });
    const { reason } = failsSync("ALREADY_EXISTS", () => ServedSocket.listen(`${path}/stream`));
    assertStringIncludes(reason, "a socket of another kind, and somebody listens there");
    stream.close();
  }));

test("served socket: its path is removed while it is its own, and only then", () =>
  inDirectory((path) => {
    const at = `${path}/socket`;
    const first = ServedSocket.listen(at);
    // Somebody puts it away, and another one in its place.
    Deno.renameSync(at, `${path}/away`);
    const other = ServedSocket.listen(at);
    first.remove();
    assertEquals(ServedSocket.listenerAt(at), Deno.pid);
    other.abandon();
    assertEquals([...Deno.readDirSync(path)].map(({ name }) => name), ["away"]);
    // What is not there need not be removed.
    first.abandon();
    other.remove();
  }));

test("served socket: a path without a directory is in this one", () =>
  inDirectory((path) => {
    const before = Deno.cwd();
    Deno.chdir(path);
    try {
      const socket = ServedSocket.listen("socket");
      assertEquals(ServedSocket.listenerAt(`${path}/socket`), Deno.pid);
      socket.abandon();
    } finally {
      Deno.chdir(before);
    }
  }));

test("served socket: what the system refuses is said, and nothing is left", () =>
  inDirectory((path) => {
    const at = `${path}/socket`;
    failsSync("UNAVAILABLE", () => ServedSocket.listen(`${path}/none/socket`));
    failsSync("NO_RESOURCES", () => withFailures("socket", EMFILE, 1, () => ServedSocket.listen(at)));
    assertEquals([...Deno.readDirSync(path)], []);
    closeDescriptor(ServedSocket.listen(at).descriptor);
    // Whoever may not look whether somebody listens must not take his place.
    failsSync("NO_ACCESS", () => withFailures("connect", EACCES, 1, () => ServedSocket.listen(at)));
    assertThrows(() => withFailures("connect", EACCES, 1, () => ServedSocket.listenerAt(at)), SystemError, "EACCES");
  }));

test("served socket: who holds the directory is waited for, but not for ever", () =>
  inDirectory((path) => {
    const holder = openFile(path, OpenFlag.RDONLY | OpenFlag.DIRECTORY);
    assertEquals(tryLockFile(holder), true);
    const real = performance.now;
    let now = 0;
    performance.now = () => now += 400;
    try {
      const { reason } = failsSync("ALREADY_EXISTS", () => ServedSocket.listen(`${path}/socket`));
      assertStringIncludes(reason, "has had the directory");
    } finally {
      performance.now = real;
      closeDescriptor(holder);
    }
    ServedSocket.listen(`${path}/socket`).abandon();
  }));

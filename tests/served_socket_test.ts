/** A socket with a path of its own: in whose place it may be put, and when its path is removed. */

import { assertEquals, assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../ffi/file.ts";
import { tryLockFile } from "../ffi/file_lock.ts";
import { interposeLibc, SystemError } from "../ffi/libc.ts";
import { VmciError } from "../mod.ts";
import { ServedSocket } from "../src/fabric/local/served_socket.ts";
import { inDirectory, test, withFailures } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";
import { TestClock } from "./support/test_clock.ts";

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

/** Lets half of the patience pass whenever somebody looks at the clock. */
function hastily<T>(act: () => T): T {
  using _clock = new TestClock(1000);
  return act();
}

function lock(path: string, flags: number): number {
  const holder = openFile(path, flags);
  assertEquals(tryLockFile(holder), true);
  return holder;
}

test("served socket: who locks the directory, which anybody can who may read it, holds nobody up", () =>
  inDirectory((path) => {
    const holder = lock(path, OpenFlag.RDONLY | OpenFlag.DIRECTORY);
    hastily(() => ServedSocket.listen(`${path}/socket`)).abandon();
    closeDescriptor(holder);
  }));

test("served socket: a process of this user that holds the path is waited for, but not for ever", () =>
  inDirectory((path) => {
    const holder = lock(`${path}/socket.lock`, OpenFlag.RDWR | OpenFlag.CREAT);
    const { reason } = failsSync("ALREADY_EXISTS", () => hastily(() => ServedSocket.listen(`${path}/socket`)));
    assertStringIncludes(reason, `has had ${path}/socket.lock locked for long`);
    closeDescriptor(holder);
    // The file that it left behind hinders nobody, and goes.
    ServedSocket.listen(`${path}/socket`).abandon();
    assertEquals([...Deno.readDirSync(path)], []);
  }));

test("served socket: a lock that others may hold is refused, not waited for", () =>
  inDirectory((path) => {
    const refused = () => {
      const { reason } = failsSync("NO_ACCESS", () => ServedSocket.listen(`${path}/socket`));
      assertStringIncludes(
        reason,
        `${path}/socket.lock should be an empty file of this user's alone, with mode 600: remove it`,
      );
      Deno.removeSync(`${path}/socket.lock`);
      assertEquals([...Deno.readDirSync(path)].map(({ name }) => name), ["target"]);
    };
    Deno.writeTextFileSync(`${path}/target`, "", { mode: 0o600 });
    Deno.symlinkSync(`${path}/target`, `${path}/socket.lock`);
    refused();
    Deno.writeTextFileSync(`${path}/socket.lock`, "");
    Deno.chmodSync(`${path}/socket.lock`, 0o604);
    refused();
    Deno.mkdirSync(`${path}/socket.lock`, { mode: 0o700 });
    refused();
    // A file with something in it is somebody's, and no lock.
    Deno.writeTextFileSync(`${path}/socket.lock`, "precious", { mode: 0o600 });
    refused();
    // Only root can make a file another's.
    if (Deno.uid() !== 0) return;
    Deno.writeTextFileSync(`${path}/socket.lock`, "", { mode: 0o600 });
    Deno.chownSync(`${path}/socket.lock`, 65534, 65534);
    refused();
  }));

/** Those who come for one path. */
class Race {
  readonly #path: string;
  readonly sockets: ServedSocket[] = [];
  refusals = 0;

  /** @param path Where a socket is that nobody listens at any more. */
  constructor(path: string) {
    this.#path = path;
    closeDescriptor(ServedSocket.listen(path).descriptor);
  }

  /** Another one comes. */
  readonly join = (): void => {
    try {
      this.sockets.push(ServedSocket.listen(this.#path));
    } catch (error) {
      assertInstanceOf(error, VmciError);
      assertEquals(error.code, "ALREADY_EXISTS", error.message);
      this.refusals++;
    }
  };
}

/** Runs `join` while `interfere` is told of each call of libc's before it is made, but not of its own. */
function interfering(interfere: (name: string) => void, join: () => void): void {
  let interferes = false;
  interposeLibc((name, call) => (...args) => {
    if (!interferes) {
      interferes = true;
      interfere(name);
      interferes = false;
    }
    return call(...args);
  });
  try {
    hastily(join);
  } finally {
    interposeLibc(undefined);
  }
}

test("served socket: of two that race for one stale path exactly one has it, whenever the other one comes", () =>
  inDirectory((path) => {
    for (let nth = 1, calls = nth; calls >= nth; nth++) {
      const race = new Race(`${path}/${nth}`);
      calls = 0;
      interfering(() => ++calls === nth && race.join(), race.join);
      if (calls < nth) race.join();
      assertEquals([race.sockets.length, race.refusals], [1, 1], `the other one came before call ${nth}`);
      assertEquals(ServedSocket.listenerAt(`${path}/${nth}`), Deno.pid);
      assertEquals([...Deno.readDirSync(path)].map(({ name }) => name), [`${nth}`]);
      race.sockets[0]!.abandon();
      assertEquals([...Deno.readDirSync(path)], []);
    }
  }));

test("served socket: a lock that its last holder removed is none", () =>
  inDirectory((path) => {
    const race = new Race(`${path}/socket`);
    const first = new Map([["flock", () => Deno.removeSync(`${path}/socket.lock`)], ["unlink", race.join]]);
    interfering((name) => {
      first.get(name)?.();
      first.delete(name);
    }, race.join);
    assertEquals([first.size, race.sockets.length, race.refusals], [0, 1, 1]);
    race.sockets[0]!.abandon();
    assertEquals([...Deno.readDirSync(path)], []);
  }));

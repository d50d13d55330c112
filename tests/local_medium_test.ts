/** The way into the fabric of this machine: what it makes of sockets, descriptors and memory that fail it. */

import { assert, assertEquals, assertGreaterOrEqual, assertStringIncludes } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { type LibcCall, setErrno, SystemError } from "../ffi/libc.ts";
import { createMemfd } from "../ffi/memfd.ts";
import { acceptSocket, listenSeqpacket, PacketSocket, streamPair } from "../ffi/unix_socket.ts";
import type { VmciError } from "../mod.ts";
import { LANE_SIZE } from "../src/lane/ring.ts";
import { LocalBell } from "../src/fabric/local/bell.ts";
import { LocalMedium } from "../src/fabric/local/local_medium.ts";
import { encodeMessage } from "../src/fabric/local/packet_codec.ts";
import { RunDirectory } from "../src/fabric/local/run_directory.ts";
import type { Connection } from "../src/fabric/medium.ts";
import { countDescriptors, inDirectory, test, withFailures, withSymbol } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";

const EPERM = 1;
const EBADF = 9;
const EAGAIN = 11;
const ENOMEM = 12;
const EACCES = 13;
const EMFILE = 24;
const EPIPE = 32;
const ECONNRESET = 104;
const ENOTCONN = 107;
const OFTEN = 1e6;

/** What loads in the background is there before descriptors are counted. */
await import("node:net");

/** Gives the medium's descriptors back at once: what else there is to wait for is a broker's end. */
function leave(medium: LocalMedium): void {
  void medium.close(false);
}

/** Does something with a medium in a directory of its own. */
function withMedium(act: (medium: LocalMedium, path: string) => void, start = true): void {
  inDirectory((path) => {
    Deno.chmodSync(path, 0o700);
    const medium = new LocalMedium({ path, start, spin: 0 });
    try {
      act(medium, path);
    } finally {
      leave(medium);
    }
  });
}

/** Does something with a connection to a broker that is the test itself. */
function connected(act: (connection: Connection, broker: PacketSocket, medium: LocalMedium) => void): void {
  withMedium((medium, path) => {
    const listener = listenSeqpacket(`${path}/socket`, 8);
    const connection = medium.tryConnect()!;
    const broker = new PacketSocket(acceptSocket(listener)!);
    try {
      act(connection, broker, medium);
    } finally {
      connection.close();
      closeDescriptor(broker.fd);
      closeDescriptor(listener);
    }
  });
}

const PACKET = { message: { id: 1, op: "lookup" }, shares: [] };

// --- Finding a broker -------------------------------------------------------------------------------------------------

test("local medium: who only looks finds nobody, says where, and leaves no trace", () =>
  withMedium((medium, path) => {
    assertEquals([medium.slot, medium.device, medium.hostsBroker], [-1, `fabric:${path}`, false]);
    assertStringIncludes(failsSync("UNAVAILABLE", () => medium.tryConnect()).reason, `no fabric is running at ${path}`);
    assertEquals(medium.explainSilence(), `nobody answers at ${path}/socket`);
    assertEquals([...Deno.readDirSync(path)], []);
  }, false));

test("local medium: without a path it is the user's own directory", () => {
  const medium = new LocalMedium({ path: undefined, start: false, spin: 0 });
  assertEquals(medium.device, `fabric:${RunDirectory.ofUser().path}`);
  leave(medium);
});

test("local medium: while somebody else is about to be the broker, nobody is there yet", () =>
  withMedium((medium, path) => {
    const lock = new RunDirectory(path).tryLock()!;
    assertEquals([medium.tryConnect(), medium.hostsBroker], [undefined, false]);
    closeDescriptor(lock);
  }));

test("local medium: a daemon's socket where nobody listens, or too many wait, is nobody yet, for who may wait", () =>
  inDirectory((path) => {
    const socket = `${path}/daemon`;
    const listener = listenSeqpacket(socket, 8);
    const medium = new LocalMedium({ path: socket, start: true, spin: 0 });
    assertEquals([medium.device, medium.slot], [`fabric:${socket}`, -1]);
    assertEquals(withFailures("connect", EAGAIN, 1, () => medium.tryConnect()), undefined);
    closeDescriptor(listener);
    assertEquals(medium.tryConnect(), undefined);
    leave(medium);
    const looking = new LocalMedium({ path: socket, start: false, spin: 0 });
    failsSync("UNAVAILABLE", () => looking.tryConnect());
    leave(looking);
  }));

test("local medium: a socket that may not be connected to, and a lack of descriptors, are said", () =>
  withMedium((medium, path) => {
    const failing = (symbol: string, errno: number) => () => withFailures(symbol, errno, 1, () => medium.tryConnect());
    for (
      const [symbol, errno, code] of [["connect", EACCES, "NO_ACCESS"], ["socket", EMFILE, "NO_RESOURCES"]] as const
    ) {
      const error = failsSync(code, failing(symbol, errno), { operation: "open the fabric" });
      assert(error.cause instanceof SystemError);
    }
    // Nor does it keep the lock when it cannot make the broker's socket.
    failsSync("NO_RESOURCES", failing("socketpair", EMFILE));
    assertEquals(medium.hostsBroker, false);
    assertEquals([...Deno.readDirSync(path)].map(({ name }) => name).toSorted(), ["lock", "roster"]);
    closeDescriptor(new RunDirectory(path).tryLock()!);
  }));

test("local medium: in a run directory another user's broker is not spoken to", () =>
  connected((_connection, _broker, medium) => {
    const theirs = (call: LibcCall): LibcCall => (...args) => {
      const result = call(...args);
      const [pid, user] = [0, 1];
      const credentials = args[3] as Uint32Array;
      assertEquals(credentials[pid], Deno.pid);
      credentials[user]! += 1;
      return result;
    };
    const reason = () => withSymbol("getsockopt", theirs, () => failsSync("NO_ACCESS", () => medium.tryConnect()));
    assertStringIncludes(reason().reason, `user ${Deno.uid()! + 1} (process ${Deno.pid}) listens`);
  }));

test("local medium: why a broker is silent is told by its process' state", () =>
  connected((_connection, _broker, medium) => {
    assertStringIncludes(medium.explainSilence(), `process ${Deno.pid} is `);
    assertStringIncludes(medium.explainSilence(), "/socket");
  }));

// --- A connection -----------------------------------------------------------------------------------------------------

test("local medium: a connection that is closed takes and gives nothing, and is closed once", () =>
  connected((connection) => {
    connection.close();
    const before = countDescriptors();
    connection.close();
    assertEquals([connection.send(PACKET, 0), connection.receive(0), countDescriptors()], ["closed", "closed", before]);
  }));

test("local medium: a socket without room is full, at once or after the time that may be waited", () =>
  connected((connection, broker) => {
    let sent = 0;
    while (connection.send(PACKET, 0) === "sent") sent++;
    const start = performance.now();
    assertEquals(connection.send(PACKET, 20), "full");
    assertGreaterOrEqual(performance.now() - start, 20);
    assertEquals(broker.receive()?.end, false);
    while (broker.receive() !== undefined) sent--;
    assertEquals([connection.send(PACKET, 0), sent], ["sent", 1]);
  }));

test("local medium: a broker that is gone is told apart from a kernel that refuses", () =>
  connected((connection, broker) => {
    for (const errno of [EPIPE, ECONNRESET]) {
      assertEquals(withFailures("sendmsg", errno, 1, () => connection.send(PACKET, 0)), "closed");
    }
    const speak = () => withFailures("sendmsg", ENOTCONN, 1, () => connection.send(PACKET, 0));
    failsSync("UNAVAILABLE", speak, { operation: "speak to the broker" });
    const hear = (symbol: string, errno: number) => () =>
      withFailures(symbol, errno, OFTEN, () => connection.receive(1));
    failsSync("UNAVAILABLE", hear("poll", EBADF), { operation: "hear from the broker" });
    broker.send(encodeMessage(PACKET.message));
    failsSync("NO_ACCESS", hear("recvmsg", EPERM), { operation: "hear from the broker" });
    // What was there is there still.
    assertEquals(connection.receive(0), PACKET);
    assertEquals([connection.receive(0), connection.receive(1)], [undefined, undefined]);
  }));

test("local medium: who sends what is no message is as good as gone, and its descriptors are given back", () =>
  connected((connection, broker) => {
    const extra = createMemfd("extra", 4096);
    for (const text of ["7", "{", "[]"]) {
      broker.send(new TextEncoder().encode(text), [extra, extra]);
      const before = countDescriptors();
      assertEquals([connection.receive(1), countDescriptors()], ["closed", before]);
    }
    closeDescriptor(extra);
  }));

test("local medium: a message whose descriptors could not all be taken in is incomplete, and none is left", () =>
  connected((connection, broker) => {
    const cut = (call: LibcCall): LibcCall => (...args) => {
      const header = args[1] as DataView;
      // Room for one descriptor and not for two: as the kernel does where there are no more.
      header.setBigUint64(40, 20n, true);
      return call(...args);
    };
    const extra = createMemfd("extra", 4096);
    broker.send(encodeMessage(PACKET.message), [extra, extra]);
    const before = countDescriptors();
    const packet = withSymbol("recvmsg", cut, () => connection.receive(0));
    assertEquals(packet, { ...PACKET, incomplete: true });
    assertEquals(countDescriptors(), before);
    closeDescriptor(extra);
  }));

// --- Memory -----------------------------------------------------------------------------------------------------------

/** How many mappings of memfds of that name this process has. */
function mappings(name: string): number {
  return Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes(`memfd:${name}`)).length;
}

test("local medium: memory that cannot be sealed is nobody's: it is unmapped and closed", () =>
  withMedium((medium) => {
    const before = mappings("vmci");
    for (const writers of ["creator", "everybody"] as const) {
      const make = () => withFailures("fcntl", EPERM, 1, () => medium.createRegion(100, writers));
      const error: VmciError = failsSync("NO_ACCESS", make);
      assertEquals(error.operation, "make a region of 100 bytes");
    }
    failsSync("NO_ACCESS", () => withFailures("fcntl", EPERM, 1, () => medium.createAttention()));
    failsSync("NO_RESOURCES", () => withFailures("memfd_create", EMFILE, 1, () => medium.createAttention()));
    assertEquals(mappings("vmci"), before);
  }));

test("local medium: of a reader's two mappings the first goes when the second cannot be made", () =>
  withMedium((medium) => {
    for (const failing of [1, 2]) {
      const region = medium.createRegion(100, "creator");
      const before = mappings("vmci-region");
      let calls = 0;
      const nth = (call: LibcCall): LibcCall => (...args) => ++calls === failing ? withoutMemory() : call(...args);
      const open = () => withSymbol("mmap", nth, () => medium.openRegion(region.share, 100, false));
      failsSync("NO_MEM", open, { operation: "map shared memory" });
      assertEquals([calls, mappings("vmci-region")], [failing, before]);
      assertEquals(region.memory.close(), true);
    }
  }));

/** What mmap answers when there is none. */
function withoutMemory(): bigint {
  setErrno(ENOMEM);
  return -1n;
}

test("local medium: a share that is not mapped is given back all the same", () =>
  withMedium((medium) => {
    for (const open of ["openLane", "openWord"] as const) {
      const share = createMemfd("share", LANE_SIZE);
      failsSync("NO_MEM", () => withFailures("mmap", ENOMEM, 1, () => medium[open](share)));
    }
  }));

// --- Bells ------------------------------------------------------------------------------------------------------------

Deno.test("local medium: a bell that was closed neither rings nor listens, and is closed once", async () => {
  const before = countDescriptors();
  const [mine, theirs] = streamPair();
  const bell = new LocalBell(mine);
  const heard: string[] = [];
  bell.listen(() => heard.push("rung"), () => heard.push("ended"));
  bell.close();
  bell.close();
  assertEquals([bell.ring(), bell.drain()], [false, false]);
  closeDescriptor(theirs);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals([heard, countDescriptors()], [[], before]);
});

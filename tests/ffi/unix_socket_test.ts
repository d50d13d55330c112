import { assert, assertEquals, assertThrows } from "@std/assert";
import { Socket } from "node:net";
import { closeDescriptor, describe, describePath } from "../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../ffi/file.ts";
import { addressOf, Errno, interposeLibc, libc, SystemError } from "../../ffi/libc.ts";
import { createMemfd } from "../../ffi/memfd.ts";
import {
  acceptSocket,
  connectSeqpacket,
  drainBell,
  isHungUp,
  listenSeqpacket,
  MAX_PACKET,
  MAX_PACKET_DESCRIPTORS,
  PacketSocket,
  peerCredentials,
  ringBell,
  seqpacketPair,
  streamPair,
  waitReadable,
} from "../../ffi/unix_socket.ts";
import {
  countDescriptors,
  descriptorFlags,
  failEveryCall,
  inDirectory,
  NOT_OPEN,
  program,
  test,
  withFailures,
} from "./support.ts";

function packetPair(): [PacketSocket, PacketSocket] {
  const [a, b] = seqpacketPair();
  return [new PacketSocket(a), new PacketSocket(b)];
}

function closeAll(...sockets: readonly PacketSocket[]): void {
  for (const { fd } of sockets) closeDescriptor(fd);
}

/** Sends one byte with more descriptors than a PacketSocket would. */
function sendManyDescriptors(fd: number, descriptors: readonly number[]): void {
  const payload = new Uint8Array(new ArrayBuffer(4096));
  const vector = new BigUint64Array([addressOf(payload), 1n]);
  const rights = new Int32Array(new ArrayBuffer(16 + descriptors.length * 4 + 7 & ~7));
  rights.set([16 + descriptors.length * 4, 0, 1, 1, ...descriptors]);
  const header = new BigUint64Array([
    0n,
    0n,
    addressOf(new Uint8Array(vector.buffer)),
    1n,
    addressOf(new Uint8Array(rights.buffer)),
    BigInt(rights.byteLength),
    0n,
  ]);
  assertEquals(libc.sendmsg(fd, header, 0), 1);
}

test("packets arrive whole, in order, apart from each other, both ways", () => {
  const [a, b] = packetPair();
  assertEquals(a.receive(), undefined);
  assert(a.send(new Uint8Array([1, 2, 3])) && a.send(new Uint8Array([4])) && b.send(new Uint8Array([5])));
  const [first, second] = [b.receive()!, b.receive()!];
  assertEquals([[...first.bytes], [...second.bytes], [...a.receive()!.bytes]], [[1, 2, 3], [4], [5]]);
  assertEquals([first.descriptors, first.truncated, first.end], [[], false, false]);
  assertEquals([a.receive(), b.receive()], [undefined, undefined]);
  closeAll(a, b);
});

test("a packet of the largest size passes, and a larger or an empty one is refused before it is sent", () => {
  const [a, b] = packetPair();
  const largest = Uint8Array.from({ length: MAX_PACKET }, (_, index) => index * 7);
  assert(a.send(largest));
  assertEquals(b.receive()!.bytes, largest);
  const error = assertThrows(() => a.send(new Uint8Array(MAX_PACKET + 1)), SystemError);
  assertEquals([error.code, error.call], ["EMSGSIZE", "sendmsg"]);
  assertThrows(() => a.send(new Uint8Array(0)), RangeError, "it would read as the end");
  assertEquals(b.receive(), undefined);
  closeAll(a, b);
});

test("a packet larger than the largest, from who cares nothing for that, is cut and says so", () => {
  const [a, b] = packetPair();
  const size = MAX_PACKET + 1000;
  assertEquals(libc.send(a.fd, new Uint8Array(size).fill(9), BigInt(size), 0), size);
  assert(a.send(new Uint8Array([1])));
  const packet = b.receive()!;
  assertEquals([packet.bytes.length, packet.bytes[MAX_PACKET - 1], packet.truncated], [MAX_PACKET, 9, true]);
  assertEquals([[...b.receive()!.bytes], packet.end], [[1], false]);
  closeAll(a, b);
});

test("descriptors arrive as new ones for the same thing, close-on-exec, in order", () => {
  const [a, b] = packetPair();
  const sent = Array.from({ length: MAX_PACKET_DESCRIPTORS }, (_, index) => createMemfd("passed", 100 + index));
  assert(a.send(new Uint8Array([1]), sent));
  assert(a.send(new Uint8Array([2]), sent.slice(3, 4)));
  const all = b.receive()!;
  const one = b.receive()!;
  assertEquals(all.descriptors.map((fd) => describe(fd).size), sent.map((_, index) => 100 + index));
  assertEquals(one.descriptors.map((fd) => describe(fd).size), [103]);
  assertEquals(new Set([...sent, ...all.descriptors, ...one.descriptors]).size, 2 * MAX_PACKET_DESCRIPTORS + 1);
  assert([...all.descriptors, ...one.descriptors].every((fd) => descriptorFlags(fd).closeOnExec));
  assertEquals([all.truncated, one.truncated], [false, false]);
  [...sent, ...all.descriptors, ...one.descriptors].forEach(closeDescriptor);
  closeAll(a, b);
});

test("a packet without descriptors brings none, whatever came before it", () => {
  const [a, b] = packetPair();
  a.send(new Uint8Array([1]), [a.fd]);
  a.send(new Uint8Array([2]));
  b.receive()!.descriptors.forEach(closeDescriptor);
  assertEquals(b.receive()!.descriptors, []);
  closeAll(a, b);
});

test("too many descriptors are refused; from who cares nothing for that, the surplus is dropped and it is said", () => {
  const [a, b] = packetPair();
  const many = new Array<number>(MAX_PACKET_DESCRIPTORS + 1).fill(a.fd);
  assertThrows(
    () => a.send(new Uint8Array([1]), many),
    RangeError,
    "Cannot send 17 descriptors in one packet: the most is 16",
  );
  const before = countDescriptors();
  sendManyDescriptors(a.fd, [...many, ...many]);
  const packet = b.receive()!;
  assertEquals([packet.descriptors.length, packet.truncated, packet.end], [MAX_PACKET_DESCRIPTORS, true, false]);
  assertEquals(countDescriptors(), before + MAX_PACKET_DESCRIPTORS);
  packet.descriptors.forEach(closeDescriptor);
  closeAll(a, b);
});

test("a descriptor that is not open cannot be sent", () => {
  const [a, b] = packetPair();
  assertEquals(assertThrows(() => a.send(new Uint8Array([1]), [-1]), SystemError).code, "EBADF");
  closeAll(a, b);
});

test("what was sent before the end arrives before it, though the other end left something unread", () => {
  const [a, b] = packetPair();
  a.send(new Uint8Array([1]));
  const memory = createMemfd("sent", 1);
  a.send(new Uint8Array([2]), [memory]);
  b.send(new Uint8Array([3]));
  closeAll(a);
  const packets = [b.receive()!, b.receive()!];
  assertEquals(packets.map(({ bytes, end }) => [...bytes, end]), [[1, false], [2, false]]);
  const last = b.receive()!;
  assertEquals([last.end, last.bytes.length, last.truncated, b.receive()!.end], [true, 0, false, true]);
  const error = assertThrows(() => b.send(new Uint8Array([4])), SystemError);
  assertEquals([error.code, error.call], ["EPIPE", "sendmsg"]);
  [memory, ...packets[1]!.descriptors].forEach(closeDescriptor);
  closeAll(b);
});

test("a full socket says so and takes more once there is room", () => {
  const [a, b] = packetPair();
  const packet = new Uint8Array(MAX_PACKET);
  let sent = 0;
  while (a.send(packet)) sent++;
  assert(sent >= 2, `room for ${sent} packets only`);
  b.receive();
  assert(a.send(packet));
  closeAll(a, b);
});

test("sending and receiving go on after signals and throw what else happens", () => {
  const [a, b] = packetPair();
  for (const shortage of [Errno.ENOMEM, Errno.ENOBUFS]) {
    assertEquals(withFailures("sendmsg", shortage, 1, () => a.send(new Uint8Array([1]))), false);
    assert(a.send(new Uint8Array([1])));
    assertEquals(withFailures("recvmsg", shortage, 3, () => b.receive())!.bytes.length, 1);
    assertThrows(() => withFailures("recvmsg", shortage, Infinity, () => b.receive()), SystemError, "recvmsg failed");
  }
  assert(withFailures("sendmsg", Errno.EINTR, 2, () => a.send(new Uint8Array([1]))));
  assertEquals(withFailures("recvmsg", Errno.EINTR, 2, () => b.receive())!.bytes.length, 1);
  closeAll(a, b);
  assertEquals(assertThrows(() => new PacketSocket(NOT_OPEN).receive(), SystemError).call, "recvmsg");
});

test("two sockets that are used in turn do not mix", () => {
  const [a, b] = packetPair();
  const [c, d] = packetPair();
  a.send(new Uint8Array([1, 1]));
  c.send(new Uint8Array([2]));
  const fromA = b.receive()!;
  const fromC = d.receive()!;
  assertEquals([[...fromA.bytes], [...fromC.bytes]], [[1, 1], [2]]);
  closeAll(a, b, c, d);
});

test("a listener is connected to without waiting, and takes what was sent before it accepted", () => {
  inDirectory((directory) => {
    const path = `${directory}/socket`;
    const listener = listenSeqpacket(path, 2);
    assertEquals([describePath(path)?.kind, acceptSocket(listener)], ["socket", undefined]);
    const client = new PacketSocket(connectSeqpacket(path));
    client.send(new Uint8Array([1]));
    assertEquals(waitReadable([listener], -1), 1);
    const server = new PacketSocket(acceptSocket(listener)!);
    assertEquals([...server.receive()!.bytes], [1]);
    server.send(new Uint8Array([2]));
    assertEquals([...client.receive()!.bytes], [2]);

    for (const fd of [listener, client.fd, server.fd]) {
      assertEquals(descriptorFlags(fd), { closeOnExec: true, nonBlocking: true });
      assertEquals(peerCredentials(fd), { pid: Deno.pid, uid: Deno.uid()!, gid: Deno.gid()! });
    }
    closeAll(client, server);
    closeDescriptor(listener);
  });
});

test("where nobody listens, or too many wait, connecting says which", () => {
  inDirectory((directory) => {
    const path = `${directory}/socket`;
    assertEquals(assertThrows(() => connectSeqpacket(path), SystemError).code, "ENOENT");
    const listener = listenSeqpacket(path, 0);
    assertEquals(assertThrows(() => listenSeqpacket(path, 0), SystemError).code, "EADDRINUSE");
    const waiting = connectSeqpacket(path);
    assertEquals(assertThrows(() => connectSeqpacket(path), SystemError).code, "EAGAIN");
    closeDescriptor(listener);
    const error = assertThrows(() => connectSeqpacket(path), SystemError);
    assertEquals([error.code, error.call], ["ECONNREFUSED", "connect"]);
    assertThrows(() => new PacketSocket(waiting).send(new Uint8Array([1])), SystemError);
    closeDescriptor(waiting);
  });
});

test("a path has at most 107 bytes", () => {
  inDirectory((directory) => {
    const longest = `${directory}/${"x".repeat(107 - directory.length - 1)}`;
    closeDescriptor(listenSeqpacket(longest, 1));
    assert(Deno.lstatSync(longest).isSocket);
    for (const use of [() => listenSeqpacket(`${longest}x`, 1), () => connectSeqpacket(`${longest}x`)]) {
      assertEquals(assertThrows(use, SystemError).code, "ENAMETOOLONG");
    }
    assertThrows(() => connectSeqpacket(`${directory}/a\0b`), TypeError, "NUL");
  });
});

test("whichever call fails, listening, connecting, accepting and pairing throw it and leave nothing open", () => {
  inDirectory((directory) => {
    const path = `${directory}/socket`;
    const made: number[] = [];
    const listening = failEveryCall(Errno.ENOMEM, (nth) => {
      if (nth <= 3) assertEquals(assertThrows(() => listenSeqpacket(path, 1), SystemError).code, "ENOMEM");
      else made.push(listenSeqpacket(path, 1));
      if (nth === 3) Deno.removeSync(path); // bound, and then not listened at
    });
    assertEquals([listening, made.length], [["socket", "bind", "listen"], 1]);

    const connecting = failEveryCall(Errno.ENOMEM, (nth) => {
      if (nth <= 2) assertEquals(assertThrows(() => connectSeqpacket(path), SystemError).code, "ENOMEM");
      else made.push(connectSeqpacket(path));
    });
    assertEquals([connecting, made.length], [["socket", "connect"], 2]);

    const [listener, client] = made as [number, number];
    assertThrows(() => withFailures("accept4", Errno.EMFILE, 1, () => acceptSocket(listener)), SystemError, "EMFILE");
    const accepted = withFailures("accept4", Errno.ECONNABORTED, 1, () => acceptSocket(listener))!;
    assertThrows(() => withFailures("socketpair", Errno.EMFILE, 1, seqpacketPair), SystemError, "EMFILE");
    assertThrows(() => withFailures("getsockopt", 88, 1, () => peerCredentials(client)), SystemError, "ENOTSOCK");
    [client, accepted, listener].forEach(closeDescriptor);
  });
});

test("both kinds of pair are close-on-exec and non-blocking", () => {
  for (const fd of [...seqpacketPair(), ...streamPair()]) {
    assertEquals(descriptorFlags(fd), { closeOnExec: true, nonBlocking: true });
    closeDescriptor(fd);
  }
});

test("waitReadable counts who has something to read or is hung up, and passes over negative descriptors", () => {
  const [a, b] = streamPair();
  const [c, d] = seqpacketPair();
  assertEquals([waitReadable([a, c], 0), waitReadable([], 0), waitReadable(new Int32Array([-1, a]), 0)], [0, 0, 0]);
  ringBell(b);
  assertEquals([waitReadable([a, c], -1), waitReadable([c], 0), waitReadable([-1, a, -1, b], 1000)], [1, 0, 1]);
  closeDescriptor(d);
  assertEquals([waitReadable([a, c], 1000), waitReadable(new Int32Array(100).fill(c), 0)], [2, 100]);
  [a, b, c].forEach(closeDescriptor);
  assertEquals(waitReadable([NOT_OPEN], 1000), 1);
});

test("waitReadable waits as long as it was told, and no shorter", () => {
  const [a, b] = streamPair();
  for (const timeoutMs of [0.5, 20, 30.7]) {
    const start = performance.now();
    assertEquals(waitReadable([a, b], timeoutMs), 0);
    assert(performance.now() - start >= timeoutMs);
  }
  [a, b].forEach(closeDescriptor);
});

test("isHungUp sees the other end's closing, on both kinds of socket, though something is left to read", () => {
  for (const pair of [seqpacketPair, streamPair]) {
    const [a, b] = pair();
    assertEquals([isHungUp(a), isHungUp(b)], [false, false]);
    ringBell(b);
    assertEquals(isHungUp(a), false);
    closeDescriptor(b);
    assertEquals(isHungUp(a), true);
    closeDescriptor(a);
    assertEquals(isHungUp(NOT_OPEN), true);
  }
});

test("a bell is heard once however often it was rung, and tells when nobody is there", () => {
  const [a, b] = streamPair();
  assertEquals([drainBell(a), waitReadable([a], 0)], [true, 0]);
  for (let stroke = 0; stroke < 20; stroke++) assert(ringBell(b));
  assertEquals([waitReadable([a], 0), drainBell(a), waitReadable([a], 0)], [1, true, 0]);
  closeDescriptor(b);
  assertEquals([ringBell(a), drainBell(a)], [false, false]);
  closeDescriptor(a);
  assertEquals(assertThrows(() => ringBell(NOT_OPEN), SystemError).call, "send");
  assertEquals(assertThrows(() => drainBell(NOT_OPEN), SystemError).call, "recv");
});

test("a full bell counts as rung", () => {
  const [a, b] = streamPair();
  for (let stroke = 0; stroke < 10_000; stroke++) assert(ringBell(b));
  assertEquals([drainBell(a), waitReadable([a], 0), ringBell(b), waitReadable([a], 0)], [true, 0, true, 1]);
  [a, b].forEach(closeDescriptor);
});

test("who rings without end holds nobody up", () => {
  let reads = 0;
  interposeLibc((name, call) => (...args) => name === "recv" ? (reads++, 4096) : call(...args));
  const [a, b] = streamPair();
  try {
    assertEquals(drainBell(a), true);
  } finally {
    interposeLibc(undefined);
  }
  assert(reads < 100, `${reads} reads`);
  [a, b].forEach(closeDescriptor);
});

test("a bell whose other end closed with strokes unheard is gone for both", () => {
  const [a, b] = streamPair();
  ringBell(a);
  closeDescriptor(b);
  assertEquals([drainBell(a), ringBell(a), drainBell(a)], [false, false, false]);
  closeDescriptor(a);
});

test("bells go on after signals", () => {
  const [a, b] = streamPair();
  assertEquals(withFailures("send", Errno.EINTR, 2, () => ringBell(a)), true);
  assertEquals(withFailures("recv", Errno.EINTR, 2, () => drainBell(b)), true);
  for (const shortage of [Errno.ENOMEM, Errno.ENOBUFS]) {
    assertEquals(withFailures("send", shortage, 3, () => ringBell(a)), true);
    assertEquals(withFailures("recv", shortage, 1, () => drainBell(b)), true);
    assertEquals(waitReadable([b], 0), 1, "the stroke is there still");
    assertEquals(drainBell(b), true);
    assertThrows(() => withFailures("send", shortage, Infinity, () => ringBell(a)), SystemError, "send failed");
  }
  assertEquals(withFailures("send", Errno.ECONNRESET, 1, () => ringBell(a)), false);
  [a, b].forEach(closeDescriptor);
});

Deno.test("Deno's event loop takes over one end of a stream pair and hears the bell and the end", async () => {
  const before = countDescriptors();
  const [a, b] = streamPair();
  const socket = new Socket({ fd: a });
  const heard = new Promise<Uint8Array>((resolve) => socket.once("data", resolve));
  ringBell(b);
  assertEquals((await heard).length, 1);
  const closed = new Promise((resolve) => socket.once("close", resolve));
  closeDescriptor(b);
  await closed;
  assertEquals(countDescriptors(), before);
});

Deno.test("a child process sees who its parent is, gets none of its descriptors, and may be handed one", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "vmci-ffi-" });
  const path = `${directory}/socket`;
  const listener = listenSeqpacket(path, 1);
  const file = openFile(`${directory}/file`, OpenFlag.RDWR | OpenFlag.CREAT);
  const child = program("connect.ts", ["--allow-all"], [path]).spawn();
  assertEquals(waitReadable([listener], 20_000), 1);
  const connection = new PacketSocket(acceptSocket(listener)!);
  assertEquals(peerCredentials(connection.fd), { pid: child.pid, uid: Deno.uid()!, gid: Deno.gid()! });
  connection.send(new Uint8Array([1]), [file]);
  await child.stdin.close();
  const { code, stdout } = await child.output();
  const { inherited, inode, parent } = JSON.parse(new TextDecoder().decode(stdout));
  assertEquals([code, inherited, inode, parent], [0, [], String(describe(file).inode), Deno.pid]);

  const packet = connection.receive()!;
  assertEquals(packet.end, true);
  closeAll(connection);
  [listener, file].forEach(closeDescriptor);
  Deno.removeSync(directory, { recursive: true });
});

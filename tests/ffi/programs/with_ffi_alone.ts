// Uses a bit of everything; started with --allow-ffi alone.
import { closeDescriptor, describePath } from "../../../ffi/descriptor.ts";
import { Epoll, EpollEvent } from "../../../ffi/epoll.ts";
import { openFile, OpenFlag, readText, removeFile } from "../../../ffi/file.ts";
import { tryLockByte, tryLockFile } from "../../../ffi/file_lock.ts";
import { mapShared } from "../../../ffi/mapping.ts";
import { addSeals, createMemfd, Seal } from "../../../ffi/memfd.ts";
import { environment, processId, userId } from "../../../ffi/process.ts";
import {
  acceptSocket,
  connectSeqpacket,
  listenSeqpacket,
  PacketSocket,
  peerCredentials,
  waitReadable,
} from "../../../ffi/unix_socket.ts";

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(`Expected ${what}`);
}

const path = `/tmp/vmci-ffi-alone-${processId()}`;
const lock = openFile(`${path}.lock`, OpenFlag.RDWR | OpenFlag.CREAT | OpenFlag.EXCL);
expect(tryLockFile(lock) && tryLockByte(lock, 3), "locks");

const listener = listenSeqpacket(path, 4);
const client = connectSeqpacket(path);
expect(waitReadable([listener], 1000) === 1, "a connection");
const server = acceptSocket(listener)!;
expect(peerCredentials(server).pid === processId() && peerCredentials(server).uid === userId(), "credentials");

const memory = createMemfd("alone", 5000);
const mapping = mapShared(memory, 5000);
addSeals(memory, Seal.SHRINK | Seal.GROW | Seal.FUTURE_WRITE | Seal.SEAL);
new Int32Array(mapping.buffer)[0] = 42;
new PacketSocket(client).send(new Uint8Array([1]), [memory]);
const packet = new PacketSocket(server).receive()!;
expect(packet.descriptors.length === 1, "a descriptor");
expect(mapping.close(), "a mapping that can be closed");

const epoll = new Epoll();
epoll.add(client, EpollEvent.OUT);
expect(epoll.wait(0, () => {}) === 1, "a writable socket");
epoll.close();

expect(readText("/proc/self/status", 4096).includes(`Pid:\t${processId()}\n`), "/proc");
expect(environment("NO_COLOR") === "1", "the environment");
for (const fd of [listener, client, server, memory, lock, ...packet.descriptors]) closeDescriptor(fd);
expect(removeFile(path) && removeFile(`${path}.lock`), "files");
expect(describePath(path) === undefined, "nothing left");
console.log("all good");

/**
 * What the hot paths allocate, in one process. It needs `--expose-gc` and a young generation so large that nothing is
 * collected while it counts.
 *
 * @module
 */

import { type Handle, openVmci, recordSize } from "../../mod.ts";
import { getHeapStatistics } from "node:v8";
import { type Job, PATIENCE, payloadOf, say } from "./part.ts";

declare const gc: () => void;

/** Bytes per operation, over `count` of them. */
function bytesOf(count: number, once: () => void): number {
  for (let i = 0; i < 50_000; i++) once();
  gc();
  const before = getHeapStatistics();
  for (let i = 0; i < count; i++) once();
  const after = getHeapStatistics();
  const used = after.used_heap_size - before.used_heap_size + after.external_memory - before.external_memory;
  return Math.max(0, used / count);
}

/** Measures all paths. */
export async function paths({ directory, size, count }: Job): Promise<void> {
  await using host = await openVmci({ device: directory });
  await using guest = await openVmci({ device: directory });
  using endpoint = host.datagrams.create();
  using sender = guest.datagrams.create();
  using region = host.sharedMemory.create(recordSize(128) + 8);
  const record = region.record(0, 128);
  const word = region.word(recordSize(128));
  const payload = payloadOf(size);
  const buffer = new Uint8Array(65536);
  record.publish(payload);
  const send = () => void sender.sendTo(endpoint.handle, payload);
  const room = () => void sender.hasRoom(endpoint.handle, size);
  const tryInto = () => void endpoint.tryReceiveInto(buffer);
  const intoSync = () => void endpoint.receiveIntoSync(buffer);
  const after = (receive: () => void) => () => (send(), receive());
  say({
    "nothing": bytesOf(count, () => {}),
    "hasRoom": bytesOf(count, room),
    "sendTo + tryReceiveInto": bytesOf(count, after(tryInto)),
    "sendTo + receiveIntoSync": bytesOf(count, after(intoSync)),
    "tryReceiveInto, none there": bytesOf(count, tryInto),
    "sendTo + tryReceive": bytesOf(count, after(() => void endpoint.tryReceive())),
    "record.readInto": bytesOf(count, () => void record.readInto(buffer)),
    "record.publish": bytesOf(count, () => void record.publish(payload)),
    "word.load": bytesOf(count, () => void word.load()),
    "word.store": bytesOf(count, () => word.store(1)),
  });
}

/** Measures round trips to another process, waiting included. */
export async function roundTrips({ directory, size, count, ready, spin }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory, spin });
  using endpoint = vmci.datagrams.create();
  const server = ready.handle as Handle;
  const payload = payloadOf(size);
  const buffer = new Uint8Array(size);
  say(bytesOf(count, () => {
    endpoint.sendTo(server, payload);
    endpoint.receiveIntoSync(buffer, PATIENCE);
  }));
}

/** Making streams with a host that is played: what it may say, and what it must not. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type ControlPacket,
  ControlType,
  decodeControl,
  encodeControl,
  handleValue,
  Shutdown,
} from "../../src/device/control_packet.ts";
import { VmciError } from "../../src/device/mod.ts";
import type { QueuePair, QueuePairOptions } from "../../src/device/queue_pair.ts";
import { StreamControl } from "../../src/device/stream_control.ts";
import { fails, failsSync } from "../support/failure.ts";

/** A device that notes what it is asked for; its waits look again whenever something is received. */
class World {
  readonly sent: ControlPacket[] = [];
  readonly opened: QueuePairOptions[] = [];
  readonly told: string[] = [];
  readonly control: StreamControl;
  readonly #looks = new Set<() => void>();

  constructor() {
    this.control = new StreamControl({
      context: 100,
      send: (payload) => this.sent.push(decodeControl(payload)!),
      openQueuePair: (options) => {
        this.opened.push(options);
        return this.#pair(options);
      },
      wait: (_subject, look, options) => this.#wait(look, options?.signal ?? undefined),
      wake: () => this.#look(),
    });
  }

  /** The host says something. */
  receive(packet: Partial<ControlPacket>): boolean {
    const payload = encodeControl({ type: 0, protocol: 0, source: 5000, destination: 0, value: 0n, ...packet });
    const known = this.control.receive({
      destination: { context: 100, resource: 1 },
      source: { context: 2, resource: 1 },
      payload,
    });
    this.#look();
    return known;
  }

  /** What was sent since the last call, by type and value. */
  taken(): [type: number, value: bigint][] {
    return this.sent.splice(0).map(({ type, value }) => [type, value]);
  }

  #look(): void {
    for (const look of [...this.#looks]) look();
  }

  #wait<T>(find: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const look = () => {
        try {
          const result = find();
          if (result === undefined) return;
          resolve(result);
        } catch (error) {
          reject(error);
        }
        this.#looks.delete(look);
      };
      signal?.addEventListener("abort", () => {
        this.#looks.delete(look);
        reject(signal.reason);
      });
      this.#looks.add(look);
      look();
    });
  }

  #pair(options: QueuePairOptions): QueuePair {
    const handle = options.handle ?? { context: 100, resource: 70000 };
    return {
      handle,
      signals: {},
      wake: () => this.told.push("wake"),
      close: () => this.told.push("close"),
      endOfPeersWriting: () => this.told.push("no more comes"),
      endOfPeersReading: () => this.told.push("nobody reads"),
    } as unknown as QueuePair;
  }
}

/** Lets promises settle. */
const turn = () => new Promise((resolve) => setTimeout(resolve));

Deno.test("control packets: 32 bytes, each field in its place, and only version 1", () => {
  const packet = {
    type: 11,
    protocol: 0x0201,
    source: 0x06050403,
    destination: 0x0a090807,
    value: 0x1211100f0e0d0c0bn,
  };
  const bytes = encodeControl(packet);
  assertEquals([...bytes.subarray(0, 12)], [1, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assertEquals([...bytes.subarray(12, 24)], [0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 17, 18]);
  assertEquals(bytes.length, 32);
  assertEquals(decodeControl(bytes), packet);
  assertEquals(decodeControl(bytes.slice(0, 31)), undefined);
  bytes[0] = 2;
  assertEquals(decodeControl(bytes), undefined);
  assertEquals(handleValue({ context: 2, resource: 9 }), 0x9_0000_0002n);
});

Deno.test("streams: connecting asks, offers a queue pair of the agreed size, and ends with the host attached", async () => {
  const world = new World();
  const connecting = world.control.connect({ port: 5000, bufferSize: 65536 });
  const destination = world.sent[0]!.source;
  assertEquals(world.taken(), [[ControlType.REQUEST2, 65536n]]);
  assert(world.receive({ type: ControlType.NEGOTIATE2, destination, value: 4096n }));
  assertEquals(world.opened, [{ produceSize: 4096, consumeSize: 4096, peer: 2 }]);
  assertEquals(world.taken(), [[ControlType.OFFER, handleValue({ context: 100, resource: 70000 })]]);
  // Said twice, and what does not belong here.
  world.receive({ type: ControlType.NEGOTIATE2, destination, value: 4096n });
  world.receive({ type: ControlType.OFFER, destination, value: 1n });
  assertEquals([world.taken(), world.opened.length], [[], 1]);
  world.receive({ type: ControlType.ATTACH, destination });
  const stream = await connecting;
  world.receive({ type: ControlType.WROTE, destination });
  world.receive({ type: ControlType.SHUTDOWN, destination, value: BigInt(Shutdown.SEND) });
  world.receive({ type: 99, destination });
  assertEquals(world.told, ["wake", "no more comes"]);
  stream.close();
  stream.close();
  assertEquals(world.taken(), [[ControlType.SHUTDOWN, BigInt(Shutdown.BOTH)]]);
  assertEquals(world.told, ["wake", "no more comes", "close"]);
});

Deno.test("streams: queues that the host wants larger, or too small, are refused", async () => {
  for (const value of [65537n, 127n, 0n, 0xffffffff_ffffffffn]) {
    const world = new World();
    const failing = assertRejects(() => world.control.connect({ port: 5000, bufferSize: 65536 }), VmciError);
    await turn();
    const destination = world.sent[0]!.source;
    world.receive({ type: ControlType.NEGOTIATE2, destination, value });
    assertEquals((await failing).code, "QUEUEPAIR_MISMATCH");
    assertEquals([world.opened, world.taken().at(-1)], [[], [ControlType.RESET, 0n]]);
  }
});

Deno.test("streams: a host that resets, a signal, and a stream that nobody has", async () => {
  const world = new World();
  const refused = fails("NOT_FOUND", () => world.control.connect({ port: 5000 }), {
    operation: "connect",
    handle: { context: 2, resource: 5000 },
  });
  world.receive({ type: ControlType.RESET, destination: world.sent[0]!.source });
  await refused;
  world.taken();
  const controller = new AbortController();
  const aborted = world.control.connect({ port: 5000, signal: controller.signal }).catch((error) => error);
  world.taken();
  controller.abort("enough");
  assertEquals(await aborted, "enough");
  assertEquals(world.taken(), [[ControlType.RESET, 0n]]);
  world.receive({ type: ControlType.ATTACH, destination: 60000 });
  assertEquals(world.taken(), [[ControlType.RESET, 0n]], "who does not know a stream says so");
  world.receive({ type: ControlType.RESET, destination: 60000 });
  assertEquals(world.taken(), [], "and does not answer such an answer");
});

Deno.test("streams: accepting answers with a size that suits, attaches, and hands the stream over", async () => {
  const world = new World();
  using listener = world.control.listen(6000);
  failsSync("DUPLICATE_ENTRY", () => world.control.listen(6000));
  const accepting = listener.accept();
  world.receive({ type: ControlType.REQUEST2, protocol: 1, destination: 6000, value: 1n << 30n });
  assertEquals(world.taken(), [[ControlType.NEGOTIATE2, 262144n]]);
  const handle = { context: 2, resource: 77 };
  world.receive({ type: ControlType.OFFER, destination: 6000, value: handleValue(handle) });
  assertEquals(world.opened, [{ handle, produceSize: 262144, consumeSize: 262144, peer: 2, attach: true }]);
  assertEquals(world.taken(), [[ControlType.ATTACH, handleValue(handle)]]);
  const stream = await accepting;
  assertEquals([stream.localAddr.port, stream.remoteAddr.port], [6000, 5000]);
  // The host dies: what came can still be read.
  world.receive({ type: ControlType.RESET, destination: 6000 });
  assertEquals(world.told, ["no more comes", "nobody reads"]);
});

Deno.test("streams: requests of other protocols, of no size, to nobody, and too many of them are refused", () => {
  const world = new World();
  const listener = world.control.listen(6000);
  const request = { type: ControlType.REQUEST2, protocol: 1, destination: 6000, value: 4096n };
  for (const wrong of [{ type: ControlType.REQUEST }, { protocol: 2 }, { value: 127n }, { destination: 6001 }]) {
    world.receive({ ...request, ...wrong });
    assertEquals(world.taken(), [[ControlType.RESET, 0n]], JSON.stringify(wrong, (_, it) => `${it}`));
  }
  for (let source = 0; source < 200; source++) {
    world.receive({ ...request, source });
    world.receive({ type: ControlType.OFFER, destination: 6000, source, value: 1n });
  }
  assertEquals(world.opened.length, 128, "so many may wait");
  const other = world.control.listen(6002);
  world.taken();
  for (let source = 0; source < 200; source++) world.receive({ ...request, destination: 6002, source });
  const answers = world.taken().map(([type]) => type);
  assertEquals(answers.filter((type) => type === ControlType.NEGOTIATE2).length, 128, "so many may be in the making");
  other.close();
  listener.close();
  assertEquals(world.told.filter((it) => it === "close").length, 128);
});

Deno.test("streams: what is not from the host's control resource, or no packet, is somebody else's datagram", () => {
  const world = new World();
  const payload = encodeControl({ type: 1, protocol: 0, source: 1, destination: 1, value: 0n });
  const packet = { destination: { context: 100, resource: 1 }, source: { context: 2, resource: 1 }, payload };
  assertEquals(world.control.receive({ ...packet, source: { context: 100, resource: 1 } }), false);
  assertEquals(world.control.receive({ ...packet, source: { context: 2, resource: 2 } }), false);
  assertEquals(world.control.receive({ ...packet, destination: { context: 100, resource: 2 } }), false);
  assertEquals(world.control.receive({ ...packet, payload: payload.slice(0, 8) }), false);
});

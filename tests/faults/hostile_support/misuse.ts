/**
 * Uses of the library that are wrong, one after the other: whatever happens, no signal may end the process.
 *
 *     misuse.ts DIRECTORY CASE...
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as nodeCrypto from "node:crypto";
import * as fs from "node:fs";
import * as net from "node:net";
import { Worker } from "node:worker_threads";
import { contextHandle, type DatagramEndpoint, openVmci, type Region, type Vmci, VmciError } from "../../../mod.ts";

/** What a case has: a fabric with two in it. */
interface Stage {
  readonly device: string;
  readonly host: Vmci;
  readonly guest: Vmci;
}

const collect = (globalThis as unknown as { gc?: () => void }).gc ?? (() => {});

/** The code of the library's error that an action throws; `ok` when it throws none. */
function code(action: () => unknown): string {
  try {
    action();
    return "ok";
  } catch (error) {
    return error instanceof VmciError ? error.code : (error as Error).name;
  }
}

/** As {@linkcode code}, for what is awaited. */
async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "ok";
  } catch (error) {
    return error instanceof VmciError ? error.code : (error as Error).name;
  }
}

/** Lets the event loop turn, often enough that whoever spins has parked. */
async function parked(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Microseconds that waits spin, in cases that differ by it. */
const SPINS = [0, 50];

function turns(milliseconds = 0): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A region of 1 MiB, full of ones. */
function bigRegion(vmci: Vmci): Region {
  const region = vmci.sharedMemory.create(1 << 20);
  region.bytes.fill(1);
  return region;
}

/** An endpoint of the host's that the guest may send to. */
function open(host: Vmci): DatagramEndpoint {
  const endpoint = host.datagrams.create();
  host.access.addClientPrivileges(endpoint.handle, contextHandle(16), { allow: ["DG_SEND"] });
  return endpoint;
}

/** Runs the text of a module in a thread, and gives what it posts last. */
async function inThread(body: string, data: unknown, transfer: readonly ArrayBuffer[] = []): Promise<unknown> {
  const source = `
    import { parentPort, workerData } from "node:worker_threads";
    import { openVmci, VmciError } from "${import.meta.resolve("../../../mod.ts")}";
    ${body}
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
    workerData: data,
    transferList: [...transfer],
  });
  let said: unknown;
  worker.on("message", (message) => said = message);
  await new Promise<void>((resolve, reject) => worker.once("exit", () => resolve()).once("error", reject));
  return said;
}

/** Every case; what it prints is what the test expects. */
const cases: Readonly<Record<string, (stage: Stage) => unknown>> = {
  "everything after close": ({ host }) => {
    const endpoint = host.datagrams.create();
    const region = host.sharedMemory.create(4096);
    const [word, record, bytes, group] = [region.word(0), region.record(8), region.bytes, host.access.createGroup()];
    const { handle } = endpoint;
    host.close();
    const uses: (() => unknown)[] = [
      () => endpoint.sendTo(handle, new Uint8Array(1)),
      () => endpoint.tryReceive(),
      () => endpoint.receiveSync(0),
      () => region.bytes,
      () => region.view(Uint8Array),
      () => region.notify(),
      () => word.load(),
      () => word.add(1),
      () => record.read(),
      () => record.publish(new Uint8Array(1)),
      () => group.add(16),
      () => host.datagrams.create(),
      () => host.sharedMemory.create(1),
      () => host.sharedMemory.attach(region.handle),
      () => host.discovery.list(),
      () => host.events(),
      () => host.access.createGroup(),
    ];
    return [bytes.length, bytes[0], ...new Set(uses.map(code))];
  },
  "close twice, thrice, from everywhere": async ({ host }) => {
    const endpoint = host.datagrams.create();
    const region = host.sharedMemory.create(4096);
    for (let i = 0; i < 3; i++) {
      endpoint.close();
      region.detach();
      host.close();
      await host[Symbol.asyncDispose]();
    }
    return [endpoint.closed, region.attached, host.closed];
  },
  "detach while views of every kind live": ({ host }) => {
    const region = bigRegion(host);
    const views = [
      region.bytes,
      region.view(Float64Array),
      region.view(BigInt64Array),
      region.view(Int8Array, 100, 10),
    ];
    const data = new DataView(region.buffer, 8);
    const buffer = Buffer.from(region.buffer);
    const parts = [region.bytes.subarray(4096), region.bytes.subarray(0, 1)];
    region.detach();
    collect();
    const writes = [
      () => views[0]![5] = 1,
      () => (views[0] as Uint8Array).fill(3),
      () => Atomics.load(views[2] as BigInt64Array, 0),
      () => data.getInt8(0),
      () => data.setFloat64(0, 1),
      () => parts[0]!.set([1, 2]),
      () => parts[1]!.at(0),
      () => buffer.toString(),
      () => structuredClone(views[1]),
      () => new Uint8Array(parts[0]!.buffer, 0, 1),
      () => TextDecoder.prototype.decode.call(new TextDecoder(), parts[0]!),
      () => new TextEncoder().encodeInto("x", parts[0]!),
      () => crypto.getRandomValues(parts[0]!),
    ];
    return [...views, ...parts].map((view) => view.length).concat(writes.map((it) => Number(code(it) === "ok") * 0));
  },
  "transfer the buffer away, then detach": ({ host }) => {
    const region = bigRegion(host);
    const moved = region.buffer.transfer();
    const bytes = new Uint8Array(moved);
    const before = bytes[5];
    region.detach();
    bytes.fill(9);
    collect();
    return [before, bytes[5], region.attached];
  },
  "transfer to another length, and resize": ({ host }) => {
    const region = bigRegion(host);
    const outcomes = [
      code(() => (region.buffer as ArrayBuffer & { resize(length: number): void }).resize(10)),
      code(() => region.buffer.transferToFixedLength(2 ** 21)),
    ];
    outcomes.push(
      code(() => region.bytes.fill(2)),
      code(() => region.word(0).add(1)),
      code(() => region.record().read()),
    );
    region.detach();
    return outcomes.slice(0, 1).concat(String(region.attached));
  },
  "structuredClone of everything": ({ host }) => {
    const [endpoint, region] = [host.datagrams.create(), bigRegion(host)];
    const clone = structuredClone(region.bytes);
    const handle = structuredClone(endpoint.handle);
    const objects = [host, endpoint, region, region.word(0), region.record(8)];
    const cloned = objects.map((it) => code(() => structuredClone(it)));
    const moved = structuredClone(region.bytes, { transfer: [region.buffer] });
    region.detach();
    return [clone[5], handle.resource === endpoint.handle.resource, moved.length, moved[5], cloned.length];
  },
  "hand the buffer to a thread that goes on reading, and detach": async ({ host }) => {
    const region = bigRegion(host);
    const { buffer } = region;
    const reading = inThread(
      `const bytes = new Uint8Array(workerData);
       let sum = 0;
       const end = performance.now() + 300;
       while (performance.now() < end) for (let i = 0; i < bytes.length; i += 512) { sum += bytes[i]; bytes[i] = 7; }
       parentPort.postMessage(bytes.length);`,
      buffer,
      [buffer],
    );
    await turns(100);
    region.detach();
    return await reading;
  },
  "keep a view in a thread after this one has left": async ({ host }) => {
    const region = bigRegion(host);
    const data = new DataView(region.buffer);
    const reading = inThread(
      `const view = workerData;
       await new Promise((resolve) => setTimeout(resolve, 200));
       view.setInt32(0, 77);
       parentPort.postMessage([view.byteLength, view.getInt32(0)]);`,
      data,
      [region.buffer],
    );
    host.close();
    collect();
    return await reading;
  },
  "use one device from two threads": async ({ device, host }) => {
    using endpoint = open(host);
    const { context, resource } = endpoint.handle;
    const thread = inThread(
      `const vmci = await openVmci({ device: workerData.device, contextId: 16 });
       const mine = vmci.datagrams.create();
       for (let i = 0; i < 100; i++) mine.sendTo(workerData.handle, new Uint8Array([i]));
       vmci.close();
       parentPort.postMessage("sent");`,
      { device, handle: { context, resource } },
    );
    let sum = 0;
    for (let i = 0; i < 100; i++) sum += (await endpoint.receive()).payload[0]!;
    return [sum, await thread];
  },
  "use objects of another thread's device": async ({ host }) => {
    const region = bigRegion(host);
    const outcome = await inThread(
      `const outcomes = [];
       for (const use of [() => workerData.bytes, () => workerData.detach(), () => workerData.word(0)]) {
         try { outcomes.push(String(use())); } catch (error) { outcomes.push(error.name); }
       }
       parentPort.postMessage(outcomes);`,
      JSON.parse(JSON.stringify(region)),
    );
    region.detach();
    return outcome;
  },
  "a thread ends with its device open": async ({ device, host }) => {
    using endpoint = open(host);
    const { context, resource } = endpoint.handle;
    await inThread(
      `const vmci = await openVmci({ device: workerData.device, contextId: 16 });
       const mine = vmci.datagrams.create();
       mine.sendTo(workerData.handle, new Uint8Array([5]));
       void mine.receive().catch(() => {});
       parentPort.postMessage("left open");
       process.exit(0);`,
      { device, handle: { context, resource } },
    );
    collect();
    return (await endpoint.receive()).payload[0];
  },
  "crypto in flight at close": async ({ host }) => {
    const regions = Array.from({ length: 4 }, () => bigRegion(host));
    const pending = regions.flatMap((region) => [
      new Promise((resolve) =>
        nodeCrypto.pbkdf2(region.bytes, region.bytes.subarray(0, 99), 2000, 64, "sha256", resolve)
      ),
      crypto.subtle.digest("SHA-256", region.bytes),
      new Promise((resolve) => nodeCrypto.scrypt(region.bytes.subarray(0, 4096), "salt", 32, resolve)),
    ]);
    for (const region of regions) region.detach();
    const settled = await Promise.allSettled(pending);
    return settled.length;
  },
  "files written and read at close": async ({ host }) => {
    const path = Deno.makeTempFileSync({ prefix: "vmci-misuse-" });
    try {
      const regions = Array.from({ length: 4 }, () => bigRegion(host));
      const pending = regions.flatMap((region) => [
        Deno.writeFile(path, region.bytes),
        fs.promises.writeFile(path, region.bytes),
        fs.promises.open(path, "r+").then(async (file) => {
          try {
            await file.read(region.attached ? region.bytes : new Uint8Array(1), 0, 1);
          } finally {
            await file.close();
          }
        }),
      ]);
      await turns();
      for (const region of regions) region.detach();
      return (await Promise.allSettled(pending)).length;
    } finally {
      Deno.removeSync(path);
    }
  },
  "sockets written and read at close": async ({ host }) => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    const accepted = listener.accept();
    const regions = Array.from({ length: 4 }, () => bigRegion(host));
    const connection = await Deno.connect({ port, hostname: "127.0.0.1" });
    const other = await accepted;
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => {});
    const third = await listener.accept();
    const pending: Promise<unknown>[] = [];
    for (const region of regions) {
      pending.push(connection.write(region.bytes));
      pending.push(other.read(region.bytes));
      socket.write(region.bytes);
    }
    await turns();
    for (const region of regions) region.detach();
    collect();
    connection.close();
    socket.destroy();
    const settled = await Promise.allSettled(pending);
    for (const it of [other, third, listener]) it.close();
    return settled.length;
  },
  "wait for everything at close": async ({ host, guest }) => {
    const endpoint = open(host);
    const region = host.sharedMemory.create(4096);
    const full = guest.datagrams.create();
    while (full.hasRoom(endpoint.handle, 60_000)) full.sendTo(endpoint.handle, new Uint8Array(60_000));
    const idle = host.datagrams.create();
    const waits = [
      idle.receive(),
      full.room(endpoint.handle, 60_000),
      region.word(0).wait(0),
      region.record(8).wait(0),
      region.waitUntil(() => false),
      host.discovery.wait("never"),
      host.events().next().then(({ done }) => done ? "ended" : "went on"),
    ].map((wait) => codeOf(wait));
    await turns();
    guest.close();
    host.close();
    return await Promise.all(waits);
  },
  "close from within what one waits for": async ({ host }) => {
    const region = host.sharedMemory.create(4096);
    const fresh = host.sharedMemory.create(4096);
    const outcomes = [
      codeOf(region.waitUntil(() => {
        region.detach();
        return false;
      })),
      codeOf(fresh.waitUntil(() => {
        throw new RangeError("mine");
      })),
    ];
    const another = host.sharedMemory.create(4096);
    outcomes.push(codeOf(another.waitUntil(() => {
      host.close();
      return true;
    })));
    return await Promise.all(outcomes);
  },
  "close in a condition: at its first look, while it spins, when it is parked": async ({ device }) => {
    const outcomes: string[] = [];
    for (const spin of SPINS) {
      for (const found of [false, true]) {
        for (const when of ["first", "turned", "rung"]) {
          const vmci = await openVmci({ device, spin });
          const from = await openVmci({ device });
          const region = vmci.sharedMemory.create(4096);
          const theirs = from.sharedMemory.attach(region.handle).word(0);
          const beside = codeOf(vmci.datagrams.create().receive());
          let now = when === "first";
          if (when === "turned") setImmediate(() => now = true);
          const waiting = codeOf(region.waitUntil(() => {
            if (!now && region.word(0).load() === 0) return false;
            vmci.close();
            return found;
          }));
          await parked();
          if (when !== "first") theirs.store(1);
          outcomes.push(await waiting, await beside);
          from.close();
        }
      }
    }
    return outcomes;
  },
  "block, and close in the condition": async ({ device }) => {
    const outcomes: string[] = [];
    for (const spin of SPINS) {
      for (const found of [false, true]) {
        for (const last of [1, 2]) {
          const vmci = await openVmci({ device, spin });
          const region = vmci.sharedMemory.create(4096);
          let looks = 0;
          outcomes.push(code(() =>
            region.waitUntilSync(() => {
              if (++looks < last) return false;
              vmci.close();
              return found;
            }, 10_000)
          ));
        }
      }
    }
    return outcomes;
  },
  "change in a condition what it looks at": async ({ device }) => {
    const outcomes: unknown[] = [];
    for (const spin of SPINS) {
      const vmci = await openVmci({ device, spin });
      const lock = vmci.sharedMemory.create(4096);
      const word = lock.word(0);
      const take = () => word.exchange(1) === 0;
      word.store(1);
      outcomes.push(await codeOf(lock.waitUntil(take, { timeout: 50 })));
      outcomes.push(await codeOf(lock.waitUntil(take, { signal: AbortSignal.timeout(50) })));
      const all = [lock.waitUntil(take), lock.waitUntil(take)];
      await parked();
      setTimeout(() => word.store(0));
      await Promise.race(all);
      word.store(0);
      await Promise.all(all);
      const opening = () => {
        vmci.datagrams.create().close();
        return false;
      };
      outcomes.push(await codeOf(lock.waitUntil(opening, { timeout: 50 })));
      vmci.close();
    }
    return outcomes;
  },
  "wait in a condition": async ({ device }) => {
    const outcomes: unknown[] = [];
    for (const spin of SPINS) {
      const vmci = await openVmci({ device, spin });
      const region = vmci.sharedMemory.create(4096);
      const endpoint = vmci.datagrams.create();
      const waiting = () => {
        code(() => endpoint.receiveSync(1));
        return false;
      };
      outcomes.push(await codeOf(region.waitUntil(waiting, { timeout: 50 })));
      vmci.close();
    }
    return outcomes;
  },
  "abort in a condition": async ({ device }) => {
    const outcomes: unknown[] = [];
    for (const spin of SPINS) {
      const vmci = await openVmci({ device, spin });
      const region = vmci.sharedMemory.create(4096);
      const controller = new AbortController();
      const aborting = () => {
        controller.abort(new RangeError("mine"));
        return false;
      };
      outcomes.push(await codeOf(region.waitUntil(aborting, { signal: controller.signal })));
      // Nobody waits any more: nothing keeps this process, and nobody rings it.
      vmci.close();
    }
    return outcomes;
  },
  "throw in iterators, and leave them": async ({ host, guest }) => {
    const endpoint = open(host);
    const from = guest.datagrams.create();
    for (let i = 0; i < 3; i++) from.sendTo(endpoint.handle, new Uint8Array([i]));
    const outcomes: unknown[] = [];
    try {
      for await (const { payload } of endpoint) {
        outcomes.push(payload[0]);
        throw new RangeError("mine");
      }
    } catch (error) {
      outcomes.push((error as Error).name);
    }
    for await (const { payload } of endpoint) {
      outcomes.push(payload[0]);
      endpoint.close();
    }
    const events = guest.events();
    await events.return!();
    await events.return!();
    return [...outcomes, (await events.next()).done];
  },
  "two waits, one wakes the other's end": async ({ host, guest }) => {
    const endpoint = open(host);
    const from = guest.datagrams.create();
    const both = [endpoint.receive().then(() => endpoint.close()), codeOf(endpoint.receive())];
    from.sendTo(endpoint.handle, new Uint8Array(1));
    return (await Promise.all(both))[1];
  },
  "exit in a callback": async ({ host, guest }) => {
    const endpoint = open(host);
    const region = host.sharedMemory.create(4096);
    void endpoint.receive().then(() => {
      void region.waitUntil(() => {
        console.log(JSON.stringify("left"));
        Deno.exit(0);
      });
    });
    guest.datagrams.create().sendTo(endpoint.handle, new Uint8Array(1));
    await new Promise(() => {});
  },
  "a rejection that nobody handles": async ({ host }) => {
    const rejected = new Promise<PromiseRejectionEvent>((resolve) => {
      globalThis.addEventListener("unhandledrejection", (event) => {
        event.preventDefault();
        resolve(event);
      }, { once: true });
    });
    void host.datagrams.create().receive();
    host.close();
    return ((await rejected).reason as VmciError).code;
  },
  "hold on to what the collector was told to take": async ({ host }) => {
    let bytes: Uint8Array | undefined = bigRegion(host).bytes;
    const inner = new WeakRef(bytes.buffer);
    for (let i = 0; i < 5; i++) {
      collect();
      await turns();
    }
    bytes[7] = 4;
    const kept = [bytes[7], bytes.length];
    bytes = undefined;
    for (let i = 0; i < 5; i++) {
      collect();
      await turns();
    }
    return [...kept, inner.deref() === undefined];
  },
  "arguments that are none": ({ host }) => {
    const endpoint = host.datagrams.create();
    const region = host.sharedMemory.create(64);
    const wrong = [undefined, null, NaN, -1, 1.5, 2 ** 53, "x", {}, [], () => {}, Symbol.iterator, 1n] as never[];
    const outcomes = new Set<string>();
    for (const it of wrong) {
      for (
        const use of [
          () => endpoint.sendTo(it, new Uint8Array(1)),
          () => endpoint.sendTo({ context: it, resource: it }, new Uint8Array(1)),
          () => host.sharedMemory.create(it),
          () => host.sharedMemory.attach(it),
          () => host.sharedMemory.query(it),
          () => host.discovery.register(it, endpoint.handle),
          () => host.discovery.lookup(it),
          () => host.access.addClientPrivileges(it, it, it),
          () => region.view(Uint8Array, it, it),
          () => region.word(it),
          () => host.datagrams.destroy(it),
        ]
      ) outcomes.add(code(use));
    }
    // Some of them are good for something, such as the name "x".
    for (const good of ["ok", "TypeError", "INVALID_ARGS", "INVALID_SIZE", "NOT_FOUND"]) outcomes.delete(good);
    return [...outcomes];
  },
  "buffers that change while they are sent and received": ({ host }) => {
    const endpoint = host.datagrams.create();
    const growing = new ArrayBuffer(64, { maxByteLength: 4096 });
    const view = new Uint8Array(growing);
    endpoint.sendTo(endpoint.handle, view);
    growing.resize(16);
    const small = code(() => endpoint.tryReceiveInto(view));
    growing.resize(4096);
    const received = endpoint.tryReceiveInto(view);
    const shared = new Uint8Array(new SharedArrayBuffer(64));
    endpoint.sendTo(endpoint.handle, shared);
    const detached = new Uint8Array(64);
    detached.buffer.transfer();
    const none = code(() => endpoint.tryReceiveInto(detached));
    const empty = endpoint.tryReceiveInto(shared);
    return [small, received, none, empty, endpoint.sendTo(endpoint.handle, detached)];
  },
  "a region's memory sent through a datagram to itself": ({ host }) => {
    const endpoint = host.datagrams.create();
    const region = bigRegion(host);
    endpoint.sendTo(endpoint.handle, region.bytes.subarray(0, 60_000));
    const length = endpoint.tryReceiveInto(region.bytes);
    endpoint.sendTo(endpoint.handle, region.bytes.subarray(0, 60_000));
    region.detach();
    return [length, endpoint.tryReceive()?.payload.length];
  },
  "a reader writes to what it may only read": ({ host, guest }) => {
    const region = host.sharedMemory.create(8192, { writers: "creator" });
    host.access.addClientPrivileges(region.handle, contextHandle(16), { allow: ["SM_ATTACH"] });
    const attached = guest.sharedMemory.attach(region.handle);
    attached.bytes[0] = 9;
    Atomics.add(attached.view(Int32Array), 5, 1);
    const outcomes = [
      code(() => attached.word(0).store(1)),
      code(() => attached.word(0).add(1)),
      code(() => attached.record().publish(new Uint8Array(1))),
    ];
    region.bytes[4096] = 8;
    return [...new Set(outcomes), region.bytes[0], attached.bytes[0], attached.bytes[4096]];
  },
  "leave while the broker's thread is this process' own": async ({ device, host, guest }) => {
    host.close();
    guest.close();
    using again = await openVmci({ device });
    return again.contextId;
  },
};

const [directory, ...names] = Deno.args as [string, ...string[]];
if (names.length === 0) console.log(JSON.stringify(Object.keys(cases)));
for (const name of names) {
  const device = `${directory}/${name.replaceAll(/\W/g, "").slice(0, 16)}`;
  Deno.mkdirSync(device, { mode: 0o700 });
  const host = await openVmci({ device });
  const guest = await openVmci({ device, contextId: 16 });
  const result = await cases[name]!({ device, host, guest });
  console.log(JSON.stringify(result));
  host.close();
  guest.close();
}

/** VmciDevice on drivers that are played: other generations, errors, and replies that make no sense. */

import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { addressOf, SystemError } from "../../ffi/libc.ts";
import { type Mapping, mapShared } from "../../ffi/mapping.ts";
import { createMemfd } from "../../ffi/memfd.ts";
import { type ErrorCodeName, VmciDevice, VmciError } from "../../src/device/mod.ts";
import { failsSync } from "../support/failure.ts";
import { type Answer, datagram, EINVAL, ENOTTY, FAKE, FakeDriver, memoryAt, modern } from "./fake_driver.ts";

const path = FAKE;

/** A driver of version 11.0, but for some requests. */
function modernBut(changed: Record<number, Answer>, stack: Uint8Array<ArrayBuffer>[] = []): Answer {
  const usual = modern(stack);
  return (request) => (changed[request.number] ?? usual)(request);
}

/** A device of a driver, which is the context 100. */
function contextOf(_driver: FakeDriver): VmciDevice {
  const device = VmciDevice.open({ path });
  device.initContext({ context: 100 });
  return device;
}

// --- Opening ----------------------------------------------------------------------------------------------------------

const OPENING: readonly (readonly [errno: number, code: ErrorCodeName, advice: string])[] = [
  [2, "DEVICE_NOT_FOUND", "modprobe vmw_vmci"],
  [6, "DEVICE_NOT_FOUND", "modprobe vmw_vmci"],
  [12, "NO_MEM", "not enough memory"],
  [13, "NO_ACCESS", "udev"],
  [1, "NO_ACCESS", "root"],
  [16, "UNAVAILABLE", "close it there"],
  [19, "DEVICE_NOT_FOUND", "modprobe vmw_vmci"],
  [20, "DEVICE_NOT_FOUND", "no directory"],
  [21, "DEVICE_NOT_FOUND", "directory"],
  [23, "NO_RESOURCES", "the machine"],
  [24, "NO_RESOURCES", "this process"],
  [5, "GENERIC", "EIO"],
];

for (const [errno, code, advice] of OPENING) {
  Deno.test(`device: opening that fails with error ${errno} is ${code}, with what to do`, () => {
    using driver = new FakeDriver(modern());
    driver.openError = errno;
    const error = failsSync(code, () => VmciDevice.open({ path }));
    assertStringIncludes(error.message, advice);
    assertStringIncludes(error.message, path);
    assertInstanceOf(error.cause, SystemError);
    assertEquals(error.cause.errno, errno);
  });
}

Deno.test("device: a node that does not answer, or answers nonsense, is not VMCI's", () => {
  for (const answer of [-ENOTTY, -EINVAL, 0, 1, 0xffff]) {
    using _driver = new FakeDriver(() => answer);
    const error = failsSync("DEVICE_NOT_FOUND", () => VmciDevice.open({ path }));
    assertStringIncludes(error.message, `${path} is not VMCI's`);
  }
  using _driver = new FakeDriver(() => -5);
  failsSync("GENERIC", () => VmciDevice.open({ path }));
});

Deno.test("device: whichever call of the system fails, it is told as a VmciError, and nothing stays open or mapped", () => {
  const held = () => [
    [...Deno.readDirSync("/proc/self/fd")].length,
    Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes("vmci-device")).length,
  ];
  const before = held();
  const failed = new Set<string>();
  for (let nth = 1;; nth++) {
    using driver = new FakeDriver(modern());
    driver.failing = nth;
    let error: unknown;
    let device: VmciDevice | undefined;
    try {
      device = VmciDevice.open({ path });
      device.initContext();
      device.notifyByte();
      device.openQueuePair({ produceSize: 4096, consumeSize: 4096 }).tryWrite(new Uint8Array(9));
      device.send({ context: 2, resource: 1 }, 1, new Uint8Array(9));
      device.tryReceive();
      device.close();
    } catch (thrown) {
      error = thrown;
    }
    const { failed: name } = driver;
    driver.failing = 0;
    device?.close();
    if (name === undefined) break;
    failed.add(name);
    // Addresses that the system does not take back when it is asked to go at a later closing, and nobody is told.
    if (name === "munmap") continue;
    assertInstanceOf(error, VmciError, `${nth}: ${name}: ${error}`);
    assertEquals(held(), before, `${nth}: ${name}`);
  }
  assertEquals(held(), before);
  assertEquals([...failed].sort(), [
    "close",
    "fallocate",
    "getrlimit",
    "ioctl",
    "memfd_create",
    "mmap",
    "munmap",
    "open",
  ]);
});

// --- Generations ------------------------------------------------------------------------------------------------------

Deno.test("device: the version comes down to an older driver's, which is told so", () => {
  const announced: number[] = [];
  using _driver = new FakeDriver(modernBut({
    0x79f: () => 0xA0000,
    0x7a7: ({ view }) => {
      announced.push(view.getUint32(0, true));
      return 0xA0000;
    },
  }));
  using device = VmciDevice.open({ path });
  assertEquals([device.driverVersion, device.version, announced], [0xA0000, 0xA0000, [0xB0000, 0xA0000]]);
});

Deno.test("device: a driver that knows no versions has its own, and an answer that is none is refused", () => {
  {
    using _driver = new FakeDriver(modernBut({ 0x79f: () => 0x10000, 0x7a7: () => -ENOTTY }));
    using device = VmciDevice.open({ path });
    assertEquals(device.version, 0x10000);
  }
  using _driver = new FakeDriver(modernBut({ 0x7a7: () => 3 }));
  failsSync("GENERIC", () => VmciDevice.open({ path }));
});

/** A driver of the first generation: a region, and a datagram handle that gets what it sends. */
function workstationSix(stack: Uint8Array<ArrayBuffer>[], seen: Uint8Array[] = []): Answer {
  return ({ number, view }) => {
    seen.push(new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)));
    const setHandle = (at: number, context: number, resource: number) => {
      view.setUint32(at, context, true);
      view.setUint32(at + 4, resource, true);
    };
    switch (number) {
      case 0x79f:
        return 0x10000;
      case 0x7a2:
        setHandle(16, 2, 1025);
        return 0;
      case 0x7a3:
        setHandle(0, 2, 1030);
        view.setBigUint64(16, 0x7f0000000000n, true);
        return 0;
      case 0x7a4:
      case 0x7a5:
        view.setUint32(8, 128, true);
        return 0;
      case 0x7a6:
        view.setInt32(12, 3, true);
        return 0;
      case 0x7ab:
        stack.push(memoryAt(view, 0, view.getUint32(8, true)).slice());
        view.setInt32(12, view.getUint32(8, true), true);
        return 0;
      case 0x7ac:
        assert(stack.length > 0, "receiving would wait for ever");
        return modern(stack)({ number, view });
      default:
        return -ENOTTY;
    }
  };
}

Deno.test("device: the first generation's regions go through its structure, field by field", () => {
  const seen: Uint8Array[] = [];
  using driver = new FakeDriver(workstationSix([], seen));
  using device = VmciDevice.open({ path, version: null });
  const handle = { context: 2, resource: 1030 };
  const region = { handle, size: 128, address: 0x7f0000000000n, file: "/tmp/region" };
  assertEquals(device.workstation6.createSharedMemory(128, "/tmp/region"), region);
  const made = new DataView(seen.at(-1)!.buffer);
  assertEquals([made.byteLength, made.getUint32(0, true), made.getUint32(8, true)], [280, 0xffffffff, 128]);
  assertEquals(new TextDecoder().decode(seen.at(-1)!.subarray(24, 36)), "/tmp/region\0");
  assertEquals(device.workstation6.attachSharedMemory(handle).size, 128);
  assertEquals(new DataView(seen.at(-1)!.buffer).getUint32(4, true), 1030);
  assertEquals(device.workstation6.querySharedMemory(handle), 128);
  assertEquals(device.workstation6.detachSharedMemory(handle), true);
  assertEquals(driver.requests.slice(1), [0x7a3, 0x7a4, 0x7a5, 0x7a6]);
  for (const size of [0, -1, 1.5, 2 ** 32]) {
    failsSync("INVALID_SIZE", () => device.workstation6.createSharedMemory(size));
  }
});

Deno.test("device: the first generation's datagram handle sends and receives, and is never asked when it would wait", async () => {
  const stack: Uint8Array<ArrayBuffer>[] = [];
  await using driver = new FakeDriver(workstationSix(stack));
  using device = VmciDevice.open({ path });
  const handle = device.createDatagramProcess();
  assertEquals(handle, { context: 2, resource: 1025 });
  assertEquals(device.tryReceive(), undefined);
  device.send(handle, handle.resource, new Uint8Array([1, 2, 3]));
  const received = device.receive();
  driver.ready = true;
  assertEquals((await received).payload, new Uint8Array([1, 2, 3]));
  failsSync("INVALID_ARGS", () => device.createDatagramProcess());
  failsSync("INVALID_ARGS", () => device.initContext());
});

Deno.test("device: requests that a driver of its generation does not have are named, and not made where they mean another", () => {
  const handle = { context: 2, resource: 1 };
  {
    using driver = new FakeDriver(modern());
    using device = VmciDevice.open({ path });
    failsSync("OBSOLETE", () => device.workstation6.attachSharedMemory(handle), { handle });
    failsSync("OBSOLETE", () => device.createDatagramProcess());
    assertEquals(driver.requests, [0x79f, 0x7a7]);
  }
  using _driver = new FakeDriver(modernBut({ 0x79f: () => 0x70000, 0x7a3: () => -ENOTTY, 0x7a2: () => -EINVAL }));
  using device = VmciDevice.open({ path });
  const error = failsSync("UNAVAILABLE", () => device.workstation6.createSharedMemory(1));
  assertStringIncludes(error.message, "no shared memory");
  failsSync("INVALID_ARGS", () => device.createDatagramProcess());
});

// --- Datagrams --------------------------------------------------------------------------------------------------------

Deno.test("device: what the driver hands out last-in-first-out comes first-in-first-out", () => {
  const stack = [1, 2, 3, 4, 5].map((i) => datagram([100, 7], [2, 9], new Array(i).fill(i)));
  using driver = new FakeDriver(modern(stack));
  using device = contextOf(driver);
  const sizes = [1, 2, 3, 4, 5].map(() => device.tryReceive()!.payload.length);
  assertEquals(sizes, [1, 2, 3, 4, 5]);
  assertEquals(device.tryReceive(), undefined);
});

Deno.test("device: events are told apart from datagrams, the known, the unknown and the too short", () => {
  const event = (code: number, ...words: number[]) => {
    const payload = [...new Uint8Array(new Uint32Array([code, 0, ...words]).buffer)];
    return datagram([100, 0], [0, 0], payload);
  };
  const stack = [
    event(1, 55, 0),
    event(3, 2, 70, 2, 0),
    event(4, 2, 70, 2, 0),
    event(9, 1),
    event(1),
    datagram([100, 0], [0, 0], [1, 2]),
    datagram([100, 5], [0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
  ];
  using driver = new FakeDriver(modern(stack));
  using device = contextOf(driver);
  const handle = { context: 2, resource: 70 };
  assertEquals(device.tryNextEvent(), { type: "context-removed", context: 55 });
  assertEquals(device.tryNextEvent(), { type: "peer-attached", handle, context: 2 });
  assertEquals(device.tryNextEvent(), { type: "peer-detached", handle, context: 2 });
  assertEquals(device.tryNextEvent(), { type: "other", event: 9, payload: new Uint8Array([1, 0, 0, 0]) });
  assertEquals(device.tryNextEvent(), { type: "other", event: 1, payload: new Uint8Array() });
  assertEquals(device.tryNextEvent(), undefined);
  assertEquals([device.tryReceive()?.payload.length, device.tryReceive()?.payload.length], [2, 8]);
});

Deno.test("device: a datagram that claims to be larger than one can be is refused, its neighbours are not lost", () => {
  for (const claimed of [69609, 0xffffffff, Number.MAX_SAFE_INTEGER]) {
    const stack = [
      datagram([100, 7], [2, 9], [1]),
      datagram([100, 7], [2, 9], [2], claimed),
      datagram([100, 7], [2, 9], [3]),
    ];
    using driver = new FakeDriver(modern(stack));
    using device = contextOf(driver);
    failsSync("GENERIC", () => device.tryReceive());
    assertEquals([device.tryReceive()?.payload[0], device.tryReceive()?.payload[0]], [1, 3]);
    assertEquals(device.tryReceive(), undefined);
  }
});

Deno.test("device: a reply without a datagram is not taken for the one before", () => {
  using driver = new FakeDriver(modernBut({ 0x7ac: ({ view }) => (view.setInt32(12, 0, true), 0) }));
  using device = contextOf(driver);
  failsSync("GENERIC", () => device.tryReceive());
});

Deno.test("device: a flood that nobody receives stays with the driver, and comes when somebody does", () => {
  let left = 100;
  const big = datagram([100, 7], [2, 9], new Array(69608).fill(7));
  using driver = new FakeDriver(modernBut({
    0x7ac: ({ view }) => {
      if (left > 0) memoryAt(view, 0, big.length).set(big);
      view.setInt32(12, left === 0 ? -6 : 0, true);
      if (left > 0) left--;
      return 0;
    },
  }));
  using device = contextOf(driver);
  for (let i = 0; i < 1000; i++) device.tryNextEvent();
  assert(left > 80, `${100 - left} datagrams were taken in`);
  let received = 0;
  while (device.tryReceive() !== undefined) received++;
  assertEquals([received, left], [100, 0]);
});

Deno.test("device: who waits gets what somebody else's look takes in, although the descriptor never says that it is there", async () => {
  const looks: Record<string, (device: VmciDevice) => unknown> = {
    tryReceive: (device) => device.tryReceive(),
    tryNextEvent: (device) => device.tryNextEvent(),
    tryReceiveDoorbells: (device) => device.tryReceiveDoorbells(),
    receiveSync: (device) => device.receiveSync(0),
    receive: (device) => device.receive(),
    nextEvent: (device) => device.nextEvent({ timeout: 1 }).catch(() => {}),
  };
  for (const [name, look] of Object.entries(looks)) {
    const stack: Uint8Array<ArrayBuffer>[] = [];
    await using driver = new FakeDriver(modern(stack));
    using device = contextOf(driver);
    const waiting = device.receive({ timeout: 5000 });
    stack.push(datagram([100, 7], [2, 9], [1]), datagram([100, 7], [2, 9], [2]));
    const looked = look(device);
    assertEquals((await waiting).payload[0], 1, name);
    await looked;
  }
});

Deno.test("device: a failure while waiting ends every wait, and the device goes on", async () => {
  let failing = false;
  await using driver = new FakeDriver(modernBut({
    0x7ac: ({ view }) => (view.setInt32(12, failing ? -13 : -6, true), 0),
  }));
  using device = contextOf(driver);
  const waits = [assertRejects(() => device.receive(), VmciError), assertRejects(() => device.nextEvent(), VmciError)];
  failing = true;
  driver.ready = true;
  assertEquals((await Promise.all(waits)).map(({ code }) => code), ["GENERIC", "GENERIC"]);
  failing = driver.ready = false;
  assertEquals(device.tryReceive(), undefined);
});

Deno.test("device: events are still waited for while datagrams fill all the room there is, once there is room again", async () => {
  const big = datagram([100, 7], [2, 9], new Array(69608).fill(7));
  const stack = Array.from({ length: 20 }, () => big);
  stack.unshift(datagram([100, 0], [0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 55, 0, 0, 0, 0, 0, 0, 0]));
  await using driver = new FakeDriver(modern(stack));
  using device = contextOf(driver);
  while (stack.length > 1) {
    const before = stack.length;
    device.tryNextEvent();
    if (stack.length === before) break;
  }
  assert(stack.length > 1, "there is no room for all of them");
  const event = device.nextEvent();
  driver.ready = true;
  await new Promise((resolve) => setTimeout(resolve, 5));
  while (device.tryReceive() !== undefined);
  assertEquals(await event, { type: "context-removed", context: 55 });
});

Deno.test("device: one that is forgotten is closed", async () => {
  using _driver = new FakeDriver(modern());
  let forgotten: VmciDevice | undefined = VmciDevice.open({ path });
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  forgotten = undefined;
  // The collector may take its time to say so.
  for (let i = 0; i < 100 && [...Deno.readDirSync("/proc/self/fd")].length === before; i++) {
    (globalThis as unknown as { gc(): void }).gc();
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals([[...Deno.readDirSync("/proc/self/fd")].length, forgotten], [before - 1, undefined]);
});

// --- Replies ----------------------------------------------------------------------------------------------------------

Deno.test("device: an interrupted request is made again, and not for ever", () => {
  let interruptions = 3;
  using driver = new FakeDriver(modernBut({
    0x7b3: ({ view }) => {
      if (interruptions-- > 0) return -4;
      view.setUint32(0, 2, true);
      return 0;
    },
  }));
  using device = contextOf(driver);
  assertEquals(device.hostContext(), 2);
  interruptions = Infinity;
  const error = failsSync("UNAVAILABLE", () => device.hostContext());
  assertStringIncludes(error.message, "signal");
  assertEquals((error.cause as SystemError).code, "EINTR");
});

Deno.test("device: the driver's codes are the error's, and numbers that are none are said", () => {
  let result = 0;
  using driver = new FakeDriver(modernBut({
    0x7ab: ({ view }) => (view.setInt32(12, result, true), 0),
    0x7af: ({ view }) => (view.setInt32(4, result, true), 0),
  }));
  using device = contextOf(driver);
  const handle = { context: 2, resource: 9 };
  const rows: [number, ErrorCodeName][] = [[-10, "DST_UNREACHABLE"], [-19, "NO_RESOURCES"], [-7, "NO_ACCESS"]];
  for (const [number, code] of rows) {
    result = number;
    failsSync(code, () => device.send(handle, 1, new Uint8Array(4)), { operation: "send", handle });
    failsSync(code, () => device.watchContext(9), { operation: "watchContext" });
  }
  result = -600;
  const error = failsSync("GENERIC", () => device.send(handle, 1, new Uint8Array(4)));
  assertStringIncludes(error.message, "-600");
  result = 29;
  failsSync("GENERIC", () => device.send(handle, 1, new Uint8Array(4)));
  result = 28;
  assertEquals(device.send(handle, 1, new Uint8Array(4)), 4);
});

Deno.test("device: lengths in replies are believed only as far as the buffer goes", () => {
  let length = 0n;
  using driver = new FakeDriver(modernBut({
    0x7a6: ({ view }) => (view.setBigUint64(8, length, true), 0),
    0x7b1: ({ view }) => (view.setUint32(12, Number(length & 0xffffffffn), true), 0),
  }));
  using device = contextOf(driver);
  device.createDoorbell(1);
  for (length of [7n, 32776n, 0xffffffff_fffffff8n]) failsSync("GENERIC", () => device.tryReceiveDoorbells());
  for (length of [3n, 1028n, 0xfffffffcn]) failsSync("GENERIC", () => device.checkpointState("watches"));
  length = 8n;
  assertEquals(device.checkpointState("watches"), [0, 0]);
});

Deno.test("device: a driver that wants ever larger buffers is not given them without end", () => {
  let wanted = 2000;
  using driver = new FakeDriver(modernBut({
    0x7b1: ({ view }) => {
      view.setUint32(12, wanted *= 2, true);
      view.setInt32(16, -5, true);
      return 0;
    },
  }));
  using device = contextOf(driver);
  failsSync("MORE_DATA", () => device.checkpointState("watches"));
  assert(driver.requests.length < 20);
});

Deno.test("device: refused requests name the error number and what to do", () => {
  const rows: [number, ErrorCodeName, string][] = [
    [14, "INVALID_ARGS", "not mapped"],
    [22, "INVALID_ARGS", "refuses"],
    [25, "UNAVAILABLE", "does not know"],
    [17, "ALREADY_EXISTS", "taken"],
    [12, "NO_MEM", "memory"],
  ];
  for (const [errno, code, text] of rows) {
    using _driver = new FakeDriver(modernBut({ 0x7a0: () => -errno }));
    using device = VmciDevice.open({ path });
    const error = failsSync(code, () => device.initContext());
    assertStringIncludes(error.message, text);
    assertEquals((error.cause as SystemError).errno, errno);
  }
});

Deno.test("device: on drivers before 11.0 a queue pair gets its memory by a second request, or is given up", () => {
  const seen: bigint[] = [];
  let result = 0;
  using driver = new FakeDriver(modernBut({
    0x79f: () => 0xA0000,
    0x7a7: () => 0xA0000,
    0x7a8: ({ view }) => {
      assertEquals(view.byteLength, 72);
      view.setInt32(64, 4, true);
      return 0;
    },
    0x7a9: ({ view }) => {
      seen.push(view.getBigUint64(48, true), view.getBigUint64(56, true));
      view.setInt32(40, result, true);
      return 0;
    },
  }));
  using device = contextOf(driver);
  using pair = device.openQueuePair({ produceSize: 5000, consumeSize: 100 });
  assertEquals(seen[1]! - seen[0]!, 3n * 4096n);
  assertEquals(seen[0]! % 4096n, 0n);
  assertEquals([pair.room, pair.available], [4999, 0]);
  result = -3;
  failsSync("NO_MEM", () => device.openQueuePair({ produceSize: 100, consumeSize: 100 }));
  assertEquals(driver.requests.slice(-3), [0x7a8, 0x7a9, 0x7aa]);
});

/** Memory that a queue pair may be made over, and the driver's view of it. */
function sharedMemory(size: number): Mapping {
  const fd = createMemfd("vmci-test", size);
  const mapping = mapShared(fd, size);
  closeDescriptor(fd);
  return mapping;
}

Deno.test("device: a queue pair over memory of the program's own stays, whatever becomes of that", () => {
  let address = 0n;
  using driver = new FakeDriver(modernBut({
    0x7a8: ({ view }) => {
      address = view.getBigUint64(32, true);
      return 0;
    },
  }));
  using device = contextOf(driver);
  const sizes = { produceSize: 4096, consumeSize: 4096 };
  const mapping = sharedMemory(4 * 4096);
  using pair = device.openQueuePair({ ...sizes, memory: new Uint8Array(mapping.buffer) });
  assert(address !== mapping.address && address % 4096n === 0n);
  pair.tryWrite(new Uint8Array([1, 2, 3]));
  assertEquals([...new Uint8Array(mapping.buffer, 4096, 3)], [1, 2, 3]);
  assertEquals(mapping.close(), true);
  assertEquals([pair.tryWrite(new Uint8Array([4])), pair.unread], [1, 4]);

  // The engine gives its own memory to somebody else when it is let go, while the driver still writes to it.
  const own = new Uint8Array(new ArrayBuffer(5 * 4096));
  const aligned = own.subarray(4096 - Number(addressOf(own) % 4096n));
  const error = failsSync("INVALID_ARGS", () => device.openQueuePair({ ...sizes, memory: aligned }));
  assertStringIncludes(error.message, "must be shared");
  assertEquals((error.cause as SystemError).errno, EINVAL);
});

Deno.test("device: queue pairs of contexts that follow one another have other ids", () => {
  const ids = Array.from({ length: 10 }, () => {
    using driver = new FakeDriver(modern());
    using device = contextOf(driver);
    using pair = device.openQueuePair({ produceSize: 4096, consumeSize: 4096 });
    return pair.handle.resource;
  });
  assertEquals(new Set(ids).size, ids.length);
  assert(ids.every((id) => id >= 0x10000 && id < 0x80000000));
});

Deno.test("device: what several write into a full queue does not mix, and each wait ends by itself", async () => {
  await using driver = new FakeDriver(modernBut({}));
  using device = contextOf(driver);
  const mapping = sharedMemory(4 * 4096);
  const pair = device.openQueuePair({ produceSize: 100, consumeSize: 100, memory: new Uint8Array(mapping.buffer) });
  const data = new Uint8Array(mapping.buffer, 4096, 100);
  const tail = new Int32Array(mapping.buffer, 8, 1);
  const head = new Int32Array(mapping.buffer, 2 * 4096 + 16, 1);
  const writes = [1, 2, 3].map((it) => pair.write(new Uint8Array(250).fill(it)));
  const late = pair.write(new Uint8Array(250).fill(4), { timeout: 1 }).catch((error) => error.code);
  const read: number[] = [];
  for (let turns = 0; read.length < 750; turns++) {
    assert(turns < 5000, `${read.length} bytes came`);
    for (; head[0] !== tail[0]; head[0] = (head[0]! + 1) % 100) read.push(data[head[0]!]!);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(writes);
  assertEquals(read, [1, 2, 3].flatMap((it) => new Array(250).fill(it)));
  assertEquals(await late, "TIMEOUT");
  const last = [pair.write(new Uint8Array(250)), pair.write(new Uint8Array(1))].map((it) =>
    it.catch(({ code }) => code)
  );
  pair.close();
  assertEquals(await Promise.all(last), ["INVALID_RESOURCE", "INVALID_RESOURCE"]);
  mapping.close();
});

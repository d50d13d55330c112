/** /dev/vmci: the node, versions and contexts. */

import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../../ffi/file.ts";
import { requestOf } from "../../../ffi/ioctl.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { mapShared } from "../../../ffi/mapping.ts";
import { pollDescriptor, PollEvent } from "../../../ffi/poll_loop.ts";
import { VmciDevice, VmciError } from "@vmci/vmci/device";
import { guestTest } from "./support/guest.ts";
import { HostSocket } from "./support/host_socket.ts";
import { announced, codeOf, context, int, raw, structure } from "./support/raw.ts";

const VERSION = 0x79f;
const INIT_CONTEXT = 0x7a0;
const VERSION2 = 0x7a7;
const GET_CONTEXT_ID = 0x7b3;

guestTest("vmci node: the driver answers its version, and opening sets none", () => {
  using device = VmciDevice.open({ version: null });
  assertEquals(device.driverVersion, 720896);
  assertEquals(raw(device, VERSION, null), 0xB0000);
  assertEquals(raw(device, INIT_CONTEXT, structure(8, [0, 4, 50])), "EINVAL");
  assertEquals(codeOf(() => device.initContext({ context: 50 })), "INVALID_ARGS");
});

guestTest("vmci node: other nodes are not taken for VMCI's, and a missing one says what to load", () => {
  const messageOf = (path: string) => {
    const error = assertThrows(() => VmciDevice.open({ path }), VmciError);
    assertEquals(error.code, "DEVICE_NOT_FOUND", error.message);
    return error.message;
  };
  for (const path of ["/dev/null", "/dev/zero", "/dev/vsock", "/etc/passwd"]) {
    assertStringIncludes(messageOf(path), `${path} is not VMCI's`);
  }
  assertStringIncludes(messageOf("/dev/vmci1"), "modprobe vmw_vmci");
  assertStringIncludes(messageOf("/dev"), "is a directory");
  assertStringIncludes(messageOf("/dev/null/vmci"), "no directory");
  assertEquals(codeOf(() => VmciDevice.open({ path: "/dev/\0vmci" })), "INVALID_ARGS");
});

guestTest("vmci node: only ioctl and poll are there, no read, write or mmap", async () => {
  using file = await Deno.open("/dev/vmci", { read: true, write: true });
  await file.read(new Uint8Array(1)).then(() => assert(false), (error) => assertStringIncludes(`${error}`, "22"));
  await file.write(new Uint8Array(1)).then(() => assert(false), (error) => assertStringIncludes(`${error}`, "22"));
  const fd = openFile("/dev/vmci", OpenFlag.RDWR);
  assertEquals(assertThrows(() => mapShared(fd, 4096), SystemError).code, "ENODEV");
  closeDescriptor(fd);
});

guestTest(
  "vmci node: it is ready for reading when something waits, never for writing, and never without a context",
  () => {
    const fd = openFile("/dev/vmci", OpenFlag.RDWR);
    const found = () => pollDescriptor(fd, PollEvent.IN | PollEvent.OUT, 0);
    assertEquals(found(), 0);
    requestOf(fd, VERSION2, structure(4, [0, 4, 0xB0000]));
    requestOf(fd, INIT_CONTEXT, structure(8, [0, 4, 100]));
    assertEquals(found(), 0);
    using socket = new HostSocket();
    socket.send({ context: 100, port: 1 }, new Uint8Array(1));
    assertEquals(found(), PollEvent.IN);
    closeDescriptor(fd);
  },
);

guestTest("vmci versions: what is below 9.0 is agreed to as it is, all else is 11.0", () => {
  using device = VmciDevice.open({ version: null });
  const answer = (version: number) => raw(device, VERSION2, structure(4, [0, 4, version >>> 0]));
  assertEquals(answer(0x80000), 0x80000);
  assertEquals(answer(0x10000), 0x10000);
  assertEquals(answer(1), 1);
  for (const version of [0, -1, 0x90000, 0xA0000, 0xB0000, 0xC0000]) {
    assertEquals(answer(version), 0xB0000, `${version}`);
  }
});

guestTest("vmci versions: what was announced counts, and a version above the driver's comes down to it", () => {
  using device = VmciDevice.open({ version: 0xC0000 });
  assertEquals(device.version, 0xB0000);
  assertEquals(device.negotiate(0x90000), 0x90000);
  assertEquals(device.version, 0x90000);
  for (const version of [0, -1, 1.5, NaN, 0xFFFF, 2 ** 32]) {
    assertEquals(codeOf(() => device.negotiate(version)), "INVALID_ARGS", `${version}`);
  }
  device.initContext({ context: 60, exact: true });
  assertEquals(codeOf(() => device.createDoorbell(1)), "OBSOLETE");
  assertEquals(raw(device, 0x7a5, structure(16, [0, 4, 60], [4, 4, 1], [8, 2, 1], [10, 2, 1])), "EINVAL");
  assertEquals(codeOf(() => device.negotiate(0xB0000)), "INVALID_ARGS");
});

guestTest("vmci versions: requests of other generations than the announced one are refused", () => {
  const rows: [version: number, request: number, size: number][] = [
    [0x90000, 0x7a5, 16],
    [0x90000, 0x7a6, 40],
    [0xA0000, 0x7a4, 32],
    [0x80000, 0x7a9, 64],
    [0xB0000, 0x7a9, 64],
  ];
  for (const [version, request, size] of rows) {
    using device = announced(version);
    device.unsafeRequest(INIT_CONTEXT, structure(8, [0, 4, 60]));
    assertEquals(raw(device, request, structure(size)), "EINVAL", `${version.toString(16)} ${request.toString(16)}`);
  }
});

guestTest("vmci versions: a context needs one that is not 0", () => {
  using device = announced(0);
  assertEquals(raw(device, INIT_CONTEXT, structure(8, [0, 4, 50])), "EINVAL");
  raw(device, VERSION2, structure(4, [0, 4, 0xB0000]));
  assertEquals(raw(device, INIT_CONTEXT, structure(8, [0, 4, 50])), 0);
});

guestTest("vmci contexts: a taken id gives the next free one, which is read back", () => {
  using first = context(100);
  using second = VmciDevice.open();
  assertEquals(second.initContext({ context: 100 }), 101);
  assertEquals([first.context, second.context], [100, 101]);
  using third = VmciDevice.open();
  const error = assertThrows(() => third.initContext({ context: 100, exact: true }), VmciError);
  assertEquals(error.code, "ALREADY_EXISTS");
  assertStringIncludes(error.message, "102");
  assertEquals(third.closed, true);
  using fourth = VmciDevice.open();
  assertEquals(fourth.initContext({ context: 102, exact: true }), 102, "the refused one's id is free again");
});

guestTest("vmci contexts: the host's id is the kernel's, the reserved ones may be claimed", () => {
  using host = VmciDevice.open();
  assertEquals(host.initContext({ context: 2 }), 16);
  using hypervisor = context(0);
  using wellKnown = context(1);
  using last = VmciDevice.open();
  assertEquals(last.initContext({ context: 0xfffffffe }), 0xfffffffe);
  assertEquals([hypervisor.context, wellKnown.context], [0, 1]);
  using unnamed = VmciDevice.open();
  assertEquals(unnamed.initContext(), 17);
});

guestTest("vmci contexts: after the last id the first that is free follows", () => {
  using _last = context(0xfffffffe);
  using first = VmciDevice.open();
  assertEquals(first.initContext({ context: 0xfffffffe }), 16);
  using second = VmciDevice.open();
  assertEquals(second.initContext({ context: 0xfffffffe }), 17);
});

guestTest("vmci contexts: ids that cannot be, unknown flags and a second context are refused", () => {
  using device = VmciDevice.open();
  for (const id of [0xffffffff, -1, 1.5, NaN]) {
    assertEquals(codeOf(() => device.initContext({ context: id })), "INVALID_ARGS", `${id}`);
  }
  assertEquals(raw(device, INIT_CONTEXT, structure(8, [0, 4, 0xffffffff])), "EINVAL");
  for (const flags of [2, 3, 4, 0x80000000]) {
    assertEquals(raw(device, INIT_CONTEXT, structure(8, [0, 4, 50], [4, 4, flags])), "EINVAL", `flags ${flags}`);
  }
  device.initContext({ context: 50, exact: true });
  assertEquals(raw(device, INIT_CONTEXT, structure(8, [0, 4, 51])), "EINVAL");
  assertStringIncludes(assertThrows(() => device.initContext({ context: 51 }), VmciError).message, "the context 50");
});

guestTest("vmci contexts: without one, what needs one is refused by the library and by the driver", async () => {
  using device = VmciDevice.open();
  assertEquals(device.hostContext(), 2);
  const destination = { context: 2, resource: 1 };
  assertEquals(codeOf(() => device.send(destination, 1, new Uint8Array())), "INVALID_ARGS");
  assertEquals(codeOf(() => device.tryReceive()), "INVALID_ARGS");
  assertEquals(await device.receive().catch((error) => error.code), "INVALID_ARGS");
  assertEquals(codeOf(() => device.createDoorbell(1)), "INVALID_ARGS");
  assertEquals(codeOf(() => device.watchContext(2)), "INVALID_ARGS");
  assertEquals(codeOf(() => device.notifyByte()), "INVALID_ARGS");
  assertEquals(codeOf(() => device.checkpointState("watches")), "INVALID_ARGS");
  assertEquals(codeOf(() => device.openQueuePair({ produceSize: 1, consumeSize: 1 })), "INVALID_ARGS");
  const sizes = { 0x7a4: 32, 0x7a5: 16, 0x7a6: 40, 0x7a8: 56, 0x7aa: 16, 0x7ab: 16, 0x7ac: 16, 0x7af: 8, 0x7b1: 24 };
  for (const [request, size] of Object.entries({ ...sizes, 0x7cb: 16 })) {
    assertEquals(raw(device, Number(request), structure(size)), "EINVAL", `request ${request}`);
  }
});

guestTest("vmci contexts: closing one frees its id at once, also while somebody waits for it", async () => {
  for (let round = 0; round < 3; round++) {
    const device = context(100);
    const waiting = device.receive().catch((error) => error);
    await new Promise((resolve) => setTimeout(resolve, 5));
    device.close();
    using next = context(100);
    assertEquals(next.context, 100);
    const error = await waiting;
    assertEquals([error.code, error.operation], ["INVALID_RESOURCE", "receive"]);
  }
});

guestTest("vmci requests: unknown ones, those that are gone, and addresses that are not mapped", () => {
  using device = context(100);
  // CREATE_PROCESS, CREATE_DATAGRAM_PROCESS, REQUEST_MAP, REMOVE_MAP, GET_LOCAL_CID (a socket's), and no request at all.
  for (const request of [0x7a1, 0x7a2, 0x7a3, 0x7ad, 0x7ae, 0x7b9, 0x7ff]) {
    assertEquals(raw(device, request, structure(280)), "EINVAL", request.toString(16));
  }
  for (const request of [INIT_CONTEXT, VERSION2, GET_CONTEXT_ID, 0x7a4, 0x7a5, 0x7a6, 0x7a8, 0x7ab, 0x7ac, 0x7b1]) {
    const expected = request === INIT_CONTEXT || request === VERSION2 || request === GET_CONTEXT_ID
      ? ["EFAULT"]
      : ["EFAULT", "EINVAL"];
    assert(expected.includes(`${raw(device, request, null)}`), request.toString(16));
  }
  const sent = structure(16, [0, 8, 0x10n], [8, 4, 24]);
  assertEquals(raw(device, 0x7ab, sent), "EFAULT");
  const error = assertThrows(() => device.unsafeRequest(0x7ab, structure(16, [0, 8, 0x10n], [8, 4, 24])), VmciError);
  assertEquals(error.code, "INVALID_ARGS");
  assertStringIncludes(error.message, "not mapped");
  const id = structure(4);
  assertEquals([raw(device, GET_CONTEXT_ID, id), int(id, 0)], [0, 2]);
});

guestTest("vmci requests: the first generation's are refused by name and not made", () => {
  using device = VmciDevice.open();
  const six = device.workstation6;
  const handle = { context: 2, resource: 1024 };
  assertEquals(codeOf(() => device.createDatagramProcess()), "OBSOLETE");
  assertEquals(codeOf(() => six.createSharedMemory(4096)), "OBSOLETE");
  assertEquals(codeOf(() => six.attachSharedMemory(handle)), "OBSOLETE");
  assertEquals(codeOf(() => six.querySharedMemory(handle)), "OBSOLETE");
  assertEquals(codeOf(() => six.detachSharedMemory(handle)), "OBSOLETE");
});

guestTest("vmci device: once closed, everything is refused and closing again does nothing", () => {
  const device = context(100);
  device.close();
  device.close();
  assertEquals(codeOf(() => device.tryReceive()), "INVALID_RESOURCE");
  assertEquals(codeOf(() => device.hostContext()), "INVALID_RESOURCE");
  assertEquals(codeOf(() => device.unsafeRequest(VERSION, null)), "INVALID_RESOURCE");
});

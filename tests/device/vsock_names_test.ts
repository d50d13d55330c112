/** The discovery service's protocol, its table, and devices' names; without a socket. */

import { assertEquals, assertThrows } from "@std/assert";
import { VmciError } from "../../src/error.ts";
import { type Handle, INVALID_HANDLE } from "../../src/handle.ts";
import { parseDeviceName } from "../../src/device/device_name.ts";
import {
  decodeDsReply,
  decodeDsRequest,
  DS_PORT,
  DsAction,
  encodeDsReply,
  encodeDsRequest,
} from "../../src/device/ds_message.ts";
import { DsTable, KEPT_FOR } from "../../src/device/ds_table.ts";
import { ResultCode } from "../../src/result_code.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (it: Uint8Array) => new TextDecoder().decode(it);

/** A table, and questions to it. */
class Asked {
  readonly dead = new Set<number>();
  readonly table = new DsTable({ names: 3 }, ({ resource }) => !this.dead.has(resource));
  now = 0;

  ask(action: number, name: string, handle: Handle = INVALID_HANDLE, source = 2): string {
    const question = encodeDsRequest({ action, message: 77, handle, name: bytes(name) });
    const answer = decodeDsReply(this.table.answer(question, source, this.now)!)!;
    assertEquals(answer.message, 77);
    const code = Object.entries(ResultCode).find(([, number]) => number === answer.code)![0];
    const found = answer.handle.context === 0xFFFFFFFF ? "" : ` ${answer.handle.context}:${answer.handle.resource}`;
    return `${code}${found}${answer.text.length > 0 ? ` ${text(answer.text)}` : ""}`;
  }

  register(name: string, context: number, resource: number, source = context): string {
    return this.ask(DsAction.REGISTER, name, { context, resource }, source);
  }
}

Deno.test("ds: a question and an answer, byte by byte", () => {
  const question = encodeDsRequest({
    action: DsAction.REGISTER,
    message: 0x01020304,
    handle: { context: 2, resource: 1025 },
    name: bytes("HOST"),
  });
  const head = "01000000" + "04030201" + "0200000001040000" + "04000000";
  assertEquals(question.toHex(), head + "484f5354" + "00000000");
  assertEquals(decodeDsRequest(question)?.name, bytes("HOST"));
  const answer = encodeDsReply({ message: 5, code: -21, handle: INVALID_HANDLE, text: bytes("access denied") });
  assertEquals(answer.length, 24 + 13 + 1);
  assertEquals(
    answer.toHex(),
    "05000000" + "ebffffff" + "ffffffffffffffff" + "0d000000" + bytes("access denied").toHex() + "00".repeat(5),
  );
  assertEquals(decodeDsReply(answer), { message: 5, code: -21, handle: INVALID_HANDLE, text: bytes("access denied") });
});

Deno.test("ds: what is no question is not answered", () => {
  const question = encodeDsRequest({ action: 0, message: 1, handle: INVALID_HANDLE, name: bytes("x".repeat(276)) });
  assertEquals([question.length, decodeDsRequest(question)?.name.length], [300, 276]);
  const long = encodeDsRequest({ action: 0, message: 1, handle: INVALID_HANDLE, name: bytes("x".repeat(277)) });
  const unended = question.slice(0, 296);
  for (const it of [long, unended, question.slice(0, 20), new Uint8Array(0), new Uint8Array(301)]) {
    assertEquals([decodeDsRequest(it), new Asked().table.answer(it, 2, 0)], [undefined, undefined]);
  }
  // The length that is said is not looked at: the NUL counts.
  const lying = question.slice();
  new DataView(lying.buffer).setInt32(16, -1, true);
  assertEquals(decodeDsRequest(lying)?.name.length, 276);
});

Deno.test("ds: register, look up, unregister, and who may", () => {
  const it = new Asked();
  assertEquals(it.register("a", 16, 1025), "SUCCESS");
  assertEquals(it.ask(DsAction.LOOKUP, "a"), "SUCCESS 16:1025");
  assertEquals(it.register("a", 2, 1026), "ALREADY_EXISTS");
  assertEquals(it.register("b", 2, 1026, 16), "NO_ACCESS access denied");
  assertEquals(it.register("b", 16, 0), "INVALID_ARGS");
  assertEquals(it.ask(DsAction.REGISTER, "b"), "INVALID_ARGS");
  assertEquals(it.ask(DsAction.UNREGISTER, "a", undefined, 17), "NO_ACCESS access denied");
  assertEquals(it.ask(DsAction.UNREGISTER, "a"), "SUCCESS");
  assertEquals(it.ask(DsAction.LOOKUP, "a"), "NOT_FOUND");
  assertEquals(it.ask(DsAction.UNREGISTER, "a"), "NOT_FOUND");
  assertEquals(it.ask(99, "a"), "GENERIC unknown action");
  assertEquals(it.ask(DsAction.LOOKUP, "vmci public group"), "SUCCESS 2:1024");
  assertEquals(it.ask(DsAction.UNREGISTER, "vmci public group"), "NO_ACCESS access denied");
});

Deno.test("ds: a context has its quota", () => {
  const it = new Asked();
  for (const name of ["1", "2", "3"]) assertEquals(it.register(name, 16, 1025), "SUCCESS");
  assertEquals(it.register("4", 16, 1025), "NO_RESOURCES");
  assertEquals(it.register("4", 17, 1025), "SUCCESS");
  it.ask(DsAction.UNREGISTER, "1", undefined, 16);
  assertEquals([it.register("5", 16, 1025), it.table.size], ["SUCCESS", 4]);
});

Deno.test("ds: names in the order of bytes, one after the other", () => {
  const it = new Asked();
  it.register("b", 16, 1);
  it.register("é", 16, 2);
  it.register("B", 16, 3);
  const names: string[] = [];
  let answer = it.ask(DsAction.FIRST, "");
  while (answer !== "NOT_FOUND") {
    const name = answer.replace(/^SUCCESS \S+ /, "");
    names.push(name);
    answer = it.ask(DsAction.NEXT, name);
  }
  assertEquals(names, ["B", "b", "vmci public group", "é"]);
  assertEquals(it.ask(DsAction.FIRST, "b"), "SUCCESS 16:1 b");
  assertEquals(it.ask(DsAction.NEXT, "b"), "SUCCESS 2:1024 vmci public group");
});

Deno.test("ds: a name goes with its handle, and with who kept it and does no longer", () => {
  const it = new Asked();
  it.register("a", 2, 1025);
  it.register("b", 16, 1026);
  it.dead.add(1025);
  assertEquals(it.ask(DsAction.LOOKUP, "a"), "NOT_FOUND");
  assertEquals(it.register("a", 2, 1025), "INVALID_ARGS");
  const keep = (name: string, resource: number, source = 16) =>
    it.ask(DsAction.KEEP, name, { context: source, resource }, source);
  assertEquals(keep("b", 1026), "SUCCESS");
  it.now = KEPT_FOR;
  assertEquals(keep("b", 1026), "SUCCESS");
  it.now = 2 * KEPT_FOR;
  assertEquals(it.ask(DsAction.LOOKUP, "b"), "SUCCESS 16:1026");
  assertEquals(keep("b", 1027), "ALREADY_EXISTS");
  it.now = 2 * KEPT_FOR + 1;
  assertEquals(it.ask(DsAction.LOOKUP, "b"), "NOT_FOUND");
  // Who keeps a name that nobody has gets it back: the service may be another.
  assertEquals([keep("b", 1026), it.ask(DsAction.LOOKUP, "b")], ["SUCCESS", "SUCCESS 16:1026"]);
});

Deno.test("devices: names and their options", () => {
  const service = { context: 2, resource: DS_PORT };
  const vsock = { kind: "vsock", path: "/dev/vmci", reliable: false, service, buffer: undefined } as const;
  assertEquals(parseDeviceName("vsock:"), vsock);
  assertEquals(parseDeviceName("vsock:reliable"), { ...vsock, reliable: true });
  assertEquals(parseDeviceName("vsock:ds=16:99,buffer=4096,reliable"), {
    ...vsock,
    reliable: true,
    service: { context: 16, resource: 99 },
    buffer: 4096,
  });
  assertEquals(parseDeviceName("/dev/vmci,reliable"), { ...vsock, kind: "driver", reliable: true });
  for (const name of ["fabric:x", "/dev/vmci2", "/dev/vsock", "memory:", "vsock", ""]) {
    assertEquals(parseDeviceName(name), undefined, name);
  }
  for (
    const name of [
      "vsock:2",
      "vsock:reliable=1",
      "vsock:ds",
      "vsock:ds=x",
      "vsock:buffer=0",
      "vsock:buffer=-1",
      "vsock:,",
      "/dev/vmci,buffer=4096",
      "/dev/vmci,",
    ]
  ) {
    assertEquals(assertThrows(() => parseDeviceName(name), VmciError).code, "INVALID_ARGS", name);
  }
});

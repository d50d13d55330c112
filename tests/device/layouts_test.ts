/** The structures of /dev/vmci against a table of offsets, written down from the public headers and from Linux. */

import { assertEquals } from "@std/assert";
import * as layouts from "../../src/device/layouts.ts";
import { VmciRequest } from "../../src/device/requests.ts";
import { type FieldTypes, type Layout, Structure } from "../../src/device/structure.ts";

/** Size, and the offset and size of each field. */
type Row = readonly [size: number, fields: Record<string, readonly [offset: number, size: number]>];

const TABLE: Record<keyof typeof layouts, Row> = {
  ContextInfo: [8, { context: [0, 4], flags: [4, 4] }],
  Word: [4, { value: [0, 4] }],
  DatagramProcessInfo: [24, { resource: [0, 4], flags: [4, 4], event: [8, 4], result: [12, 4], handle: [16, 8] }],
  SharedMemoryInfo: [280, { handle: [0, 8], size: [8, 4], result: [12, 4], address: [16, 8], file: [24, 256] }],
  DatagramInfo: [16, { address: [0, 8], length: [8, 4], result: [12, 4] }],
  WatchInfo: [8, { context: [0, 4], result: [4, 4] }],
  CheckpointInfo: [24, { address: [0, 8], kind: [8, 4], length: [12, 4], result: [16, 4] }],
  NotifyByteInfo: [16, { address: [0, 8], result: [8, 4] }],
  NotifyResourceInfo: [16, { handle: [0, 8], resource: [8, 2], action: [10, 2], result: [12, 4] }],
  NotificationsInfo: [40, {
    doorbells: [0, 8],
    doorbellsLength: [8, 8],
    queuePairs: [16, 8],
    queuePairsLength: [24, 8],
    result: [32, 4],
  }],
  QueuePairInfo: [56, {
    handle: [0, 8],
    peer: [8, 4],
    flags: [12, 4],
    produceSize: [16, 8],
    consumeSize: [24, 8],
    address: [32, 8],
    pages: [40, 8],
    result: [48, 4],
    version: [52, 4],
  }],
  OldQueuePairInfo: [72, {
    handle: [0, 8],
    peer: [8, 4],
    flags: [12, 4],
    produceSize: [16, 8],
    consumeSize: [24, 8],
    produceFile: [32, 8],
    consumeFile: [40, 8],
    produceFileLength: [48, 8],
    consumeFileLength: [56, 8],
    result: [64, 4],
  }],
  QueuePairMemoryInfo: [64, {
    handle: [0, 8],
    produceFile: [8, 8],
    consumeFile: [16, 8],
    produceFileLength: [24, 8],
    consumeFileLength: [32, 8],
    result: [40, 4],
    version: [44, 4],
    produceAddress: [48, 8],
    consumeAddress: [56, 8],
  }],
  QueuePairAddressInfo: [32, { handle: [0, 8], address: [8, 8], pages: [16, 8], version: [24, 4], result: [28, 4] }],
  QueuePairDetachInfo: [16, { handle: [0, 8], result: [8, 4] }],
};

/** A value of each type whose bytes are all different, and those bytes. */
const SAMPLES: { [T in keyof FieldTypes]: readonly [value: FieldTypes[T], bytes: readonly number[]] } = {
  u16: [0xf201, [0x01, 0xf2]],
  u32: [0xf4030201, [0x01, 0x02, 0x03, 0xf4]],
  i32: [-2, [0xfe, 0xff, 0xff, 0xff]],
  u64: [0xf807060504030201n, [1, 2, 3, 4, 5, 6, 7, 0xf8]],
  handle: [{ context: 0xf4030201, resource: 0xf8070605 }, [1, 2, 3, 0xf4, 5, 6, 7, 0xf8]],
  name: ["/a/b", [47, 97, 47, 98, ...new Array(252).fill(0)]],
};

for (const [name, [size, fields]] of Object.entries(TABLE)) {
  Deno.test(`layouts: ${name} has its size, and each field its place and nothing else`, () => {
    const layout: Layout = layouts[name as keyof typeof layouts];
    assertEquals(layout.size, size);
    assertEquals(Object.keys(layout.fields).sort(), Object.keys(fields).sort());
    for (const [field, [offset, width]] of Object.entries(fields)) {
      const [value, bytes] = SAMPLES[layout.fields[field]![1]];
      assertEquals(bytes.length, width, field);
      const structure = new Structure(layout, { [field]: value });
      const expected = new Array(size).fill(0);
      expected.splice(offset, width, ...bytes);
      assertEquals([...structure.bytes], expected, field);
      assertEquals(structure.get(field), value, field);
    }
  });
}

Deno.test("layouts: 64-bit fields lie on 64-bit boundaries, so that 32-bit programs have the same structures", () => {
  for (const [name, layout] of Object.entries(layouts as Record<string, Layout>)) {
    for (const [field, [offset, type]] of Object.entries(layout.fields)) {
      if (type === "u64") assertEquals([offset % 8, layout.size % 8], [0, 0], `${name}.${field}`);
    }
  }
});

Deno.test("layouts: a name too long is cut before its last byte, which stays NUL; one without NUL is read to its end", () => {
  const structure = new Structure(layouts.SharedMemoryInfo, { file: "x".repeat(300) });
  assertEquals([structure.bytes[278], structure.bytes[279]], [120, 0]);
  structure.bytes.fill(121, 24);
  assertEquals(structure.get("file"), "y".repeat(256));
});

Deno.test("requests: the numbers count on from 1951", () => {
  const numbers: Record<keyof typeof VmciRequest, number> = {
    VERSION: 1951,
    INIT_CONTEXT: 1952,
    CREATE_PROCESS: 1953,
    CREATE_DATAGRAM_PROCESS: 1954,
    SHAREDMEM_CREATE: 1955,
    SHAREDMEM_ATTACH: 1956,
    SHAREDMEM_QUERY: 1957,
    SHAREDMEM_DETACH: 1958,
    QUEUEPAIR_SETVA: 1956,
    NOTIFY_RESOURCE: 1957,
    NOTIFICATIONS_RECEIVE: 1958,
    VERSION2: 1959,
    QUEUEPAIR_ALLOC: 1960,
    QUEUEPAIR_SETPAGEFILE: 1961,
    QUEUEPAIR_DETACH: 1962,
    DATAGRAM_SEND: 1963,
    DATAGRAM_RECEIVE: 1964,
    CTX_ADD_NOTIFICATION: 1967,
    CTX_REMOVE_NOTIFICATION: 1968,
    CTX_GET_CPT_STATE: 1969,
    CTX_SET_CPT_STATE: 1970,
    GET_CONTEXT_ID: 1971,
    SET_NOTIFY: 1995,
  };
  assertEquals({ ...VmciRequest }, numbers);
});

/** The SDK's names and numbers, against the tables of its public headers. */

import { assert, assertEquals, assertFalse } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import * as vmci from "../mod.ts";
import { failsSync } from "./support/failure.ts";

const { ResultCode } = vmci;

fc.configureGlobal({ seed: 16 });

/** As in vmci_defs.h and its successors, in the headers' order. */
const CODES = `
SUCCESS_QUEUEPAIR_ATTACH 5, SUCCESS_QUEUEPAIR_CREATE 4, SUCCESS_LAST_DETACH 3, SUCCESS_ACCESS_GRANTED 2,
SUCCESS_ENTRY_DEAD 1, SUCCESS 0, INVALID_RESOURCE -1, INVALID_ARGS -2, NO_MEM -3, DATAGRAM_FAILED -4, MORE_DATA -5,
NO_MORE_DATAGRAMS -6, NO_ACCESS -7, NO_HANDLE -8, DUPLICATE_ENTRY -9, DST_UNREACHABLE -10, PAYLOAD_TOO_LARGE -11,
INVALID_PRIV -12, GENERIC -13, PAGE_ALREADY_SHARED -14, CANNOT_SHARE_PAGE -15, CANNOT_UNSHARE_PAGE -16,
NO_PROCESS -17, NO_DATAGRAM -18, NO_RESOURCES -19, UNAVAILABLE -20, NOT_FOUND -21, ALREADY_EXISTS -22,
NOT_PAGE_ALIGNED -23, INVALID_SIZE -24, REGION_ALREADY_SHARED -25, TIMEOUT -26, DATAGRAM_INCOMPLETE -27,
INCORRECT_IRQL -28, EVENT_UNKNOWN -29, OBSOLETE -30, QUEUEPAIR_MISMATCH -31, QUEUEPAIR_NOTSET -32,
QUEUEPAIR_NOTOWNER -33, QUEUEPAIR_NOTATTACHED -34, QUEUEPAIR_NOSPACE -35, QUEUEPAIR_NODATA -36,
BUSMEM_INVALIDATION -37, MODULE_NOT_LOADED -38, DEVICE_NOT_FOUND -39, QUEUEPAIR_NOT_READY -40, WOULD_BLOCK -41,
CLIENT_MIN -500, CLIENT_MAX -550, SHAREDMEM_ERROR_BAD_CONTEXT -1000`;

const id = fc.nat({ max: vmci.INVALID_ID });
const handle = fc.record({ context: id, resource: id }, { noNullPrototype: true });

describe("vocabulary: result codes", () => {
  it("are the SDK's, by name and by number", () => {
    const table = CODES.trim().split(/,\s+/).map((row) => row.split(" ")).map((
      [name, number],
    ) => [name, Number(number)]);
    assertEquals(Object.entries(ResultCode), table);
    for (const [name, number] of Object.entries(ResultCode)) assertEquals(vmci.resultCodeName(number), name);
    for (const none of [6, -42, -499, -551, -999, 0.5, NaN]) assertEquals(vmci.resultCodeName(none), undefined);
  });

  it("an error has its code by name and by number", () => {
    const cause = new Error("below");
    const error = new vmci.VmciError("NO_MEM", { operation: "breathe", reason: "no air", cause });
    assertEquals([error.name, error.code, error.number, error.operation], ["VmciError", "NO_MEM", -3, "breathe"]);
    assertEquals([error.message, error.cause, error.handle], ["Cannot breathe: no air (NO_MEM)", cause, undefined]);
    assertFalse("cause" in new vmci.VmciError("NO_MEM", { operation: "breathe", reason: "no air" }));
  });
});

describe("vocabulary: privileges, types, flags and events", () => {
  it("have the SDK's numbers", () => {
    assertEquals(vmci.Privilege, {
      CH_PRIV: 0,
      DESTROY_RESOURCE: 1,
      ASSIGN_CLIENT: 2,
      DG_CREATE: 3,
      DG_SEND: 4,
      SM_CREATE: 5,
      SM_ATTACH: 6,
    });
    assertEquals(vmci.ResourceType, { GROUP: 2, DATAGRAM: 3, SHAREDMEM: 4 });
    assertEquals(vmci.PrivilegeFlags, { NONE: 0, RESTRICTED: 1, TRUSTED: 2 });
    assertEquals(vmci.DatagramFlag, { NONE: 0, WELLKNOWN: 1 });
    assertEquals(vmci.EventCode, {
      CTX_ID_UPDATE: 0,
      CTX_REMOVED: 1,
      QP_RESUMED: 2,
      QP_PEER_ATTACH: 3,
      QP_PEER_DETACH: 4,
    });
  });

  it("every kind of resource has CH_PRIV, DESTROY_RESOURCE and one of its own", () => {
    assertEquals(vmci.validPrivileges, {
      GROUP: ["CH_PRIV", "DESTROY_RESOURCE", "ASSIGN_CLIENT"],
      DATAGRAM: ["CH_PRIV", "DESTROY_RESOURCE", "DG_SEND"],
      SHAREDMEM: ["CH_PRIV", "DESTROY_RESOURCE", "SM_ATTACH"],
    });
  });

  it("where one side is RESTRICTED the other must be TRUSTED", () => {
    const [NONE, RESTRICTED, TRUSTED, BOTH] = [0, 1, 2, 3];
    const permitted = [[NONE, NONE], [NONE, TRUSTED], [TRUSTED, TRUSTED], [RESTRICTED, TRUSTED], [BOTH, TRUSTED], [
      BOTH,
      BOTH,
    ]];
    for (const a of [NONE, RESTRICTED, TRUSTED, BOTH]) {
      for (const b of [NONE, RESTRICTED, TRUSTED, BOTH]) {
        const expected = permitted.some(([x, y]) => (x === a && y === b) || (x === b && y === a));
        assertEquals(vmci.flagsPermit(a, b), expected, `${a} and ${b}`);
      }
    }
  });
});

describe("vocabulary: limits and reserved ids", () => {
  it("are the SDK's", () => {
    assertEquals(
      [vmci.HYPERVISOR_CONTEXT, vmci.WELL_KNOWN_CONTEXT, vmci.HOST_CONTEXT, vmci.FIRST_VM_CONTEXT],
      [0, 1, 2, 16],
    );
    assertEquals([vmci.CONTEXT_RESOURCE, vmci.FIRST_DYNAMIC_RESOURCE, vmci.INVALID_ID], [0, 1024, 0xFFFFFFFF]);
    assertEquals([vmci.DATAGRAM_HEADER_SIZE, vmci.MAX_DATAGRAM_SIZE, vmci.MAX_PAYLOAD_SIZE], [24, 69632, 69608]);
    assertEquals([vmci.DATAGRAM_QUEUE_SIZE, vmci.MAX_NAME_SIZE, vmci.MAX_REGION_SIZE], [139264, 276, 0xFFFFFFFF]);
    assertEquals(vmci.PUBLIC_GROUP_NAME, "vmci public group");
  });
});

describe("vocabulary: handles", () => {
  it("as a 64-bit number, the resource is the upper half", () => {
    assertEquals(vmci.handleToU64({ context: 2, resource: 1026 }), 0x402_0000_0002n);
    assertEquals(vmci.handleToU64(vmci.INVALID_HANDLE), 0xFFFF_FFFF_FFFF_FFFFn);
    fc.assert(fc.property(handle, (it) => assertEquals(vmci.handleFromU64(vmci.handleToU64(it)), it)));
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
      assertEquals(vmci.handleToU64(vmci.handleFromU64(value)), value);
    }));
    for (const none of [-1n, 2n ** 64n]) failsSync("INVALID_ARGS", () => vmci.handleFromU64(none));
  });

  it("as text, the context comes first", () => {
    assertEquals(vmci.formatHandle({ context: 16, resource: 1030 }), "16:1030");
    assertEquals([vmci.formatHandle(vmci.INVALID_HANDLE), vmci.parseHandle("invalid")], [
      "invalid",
      vmci.INVALID_HANDLE,
    ]);
    fc.assert(fc.property(handle, (it) => assertEquals(vmci.parseHandle(vmci.formatHandle(it)), it)));
    const none = [
      "",
      "16",
      ":",
      "16:",
      ":5",
      "16:-1",
      "16:0x10",
      " 16:5",
      "16:5 ",
      "16:5:5",
      "4294967296:1",
      "1:1e3",
      "１:２",
    ];
    for (const text of none) failsSync("INVALID_ARGS", () => vmci.parseHandle(text), { operation: "parseHandle" });
  });

  it("are made of two unsigned 32-bit numbers, and frozen", () => {
    const made = vmci.makeHandle(0, vmci.INVALID_ID);
    assertEquals([made, Object.isFrozen(made)], [{ context: 0, resource: 0xFFFFFFFF }, true]);
    assertEquals(vmci.contextHandle(16), { context: 16, resource: 0 });
    for (const wrong of [-1, 0.5, NaN, Infinity, 2 ** 32, "5" as unknown as number]) {
      failsSync("INVALID_ARGS", () => vmci.makeHandle(wrong, 0), { operation: "makeHandle" });
      failsSync("INVALID_ARGS", () => vmci.makeHandle(0, wrong));
      failsSync("INVALID_ARGS", () => vmci.contextHandle(wrong));
      assertEquals([vmci.isId(wrong), vmci.isHandle({ context: wrong, resource: 0 })], [false, false]);
    }
    for (const none of [undefined, null, 5, "2:5", [], {}, { context: 2 }, { resource: 2 }]) {
      assertFalse(vmci.isHandle(none));
    }
    assert(vmci.isHandle({ context: 2, resource: 1024, more: "does not matter" }));
  });

  it("are the same when both halves are", () => {
    fc.assert(fc.property(handle, handle, (a, b) => {
      assert(vmci.handlesEqual(a, { ...a }));
      assertEquals(vmci.handlesEqual(a, b), vmci.handleToU64(a) === vmci.handleToU64(b));
      assertEquals(vmci.isInvalidHandle(a), vmci.handlesEqual(a, vmci.INVALID_HANDLE));
    }));
    assert(vmci.isInvalidHandle({ context: 0xFFFFFFFF, resource: 0xFFFFFFFF }));
    assertFalse(vmci.isInvalidHandle({ context: 0xFFFFFFFF, resource: 0 }));
  });
});

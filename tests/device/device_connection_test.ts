/** The control channel of a device, over a carrier that is played. */

import { assert, assertEquals } from "@std/assert";
import type { Arrival, Carrier } from "../../src/device/carrier.ts";
import { DeviceConnection } from "../../src/device/device_connection.ts";
import { decodeFrame, encodeFrame, FrameKind } from "../../src/device/reliable.ts";
import { ResultCode } from "../../src/result_code.ts";
import { type Operation, PROTOCOL_VERSION, type Requests } from "../../src/fabric/protocol.ts";
import { VERSION } from "../../src/version.ts";

/** A program on a device, and what comes to its ports and goes from them. */
function program(reliable: boolean) {
  const arrivals: Arrival[] = [];
  const sent: Uint8Array[] = [];
  const carrier: Carrier = {
    context: 2,
    open: (number = 5000) => ({
      number,
      descriptor: -1,
      dropped: 0,
      send: (_to, payload) => sent.push(payload.slice()) > 0,
      receive: () => arrivals.shift(),
      close: () => {},
    }),
    close: () => {},
  };
  const connection = new DeviceConnection({
    source: { enter: () => carrier, close: () => {} },
    kind: "vsock",
    reliable,
    service: { context: 2, resource: 1 },
    changed: () => {},
    emit: () => {},
  });
  let id = 0;
  const ask = <O extends Operation>(op: O, args: Requests[O], shares: readonly Int32Array<ArrayBuffer>[] = []) => {
    connection.send({ message: { id: ++id, op, args }, shares }, 1000);
  };
  const hello = { context: null, flags: 0, slot: -1, client: null, ticket: null, observer: false };
  ask("hello", { protocol: PROTOCOL_VERSION, version: VERSION, ...hello }, [new Int32Array(1)]);
  ask("create_endpoint", { resource: null, wellKnown: false });
  return { connection, arrivals, sent, ask };
}

Deno.test("device connection: who waits for nothing attends to numbered datagrams, before he is taken for gone", () => {
  const { connection, arrivals, sent } = program(true);
  connection.work();
  assert(connection.due <= performance.now() + 500);
  // From somebody who may not send here, and hears so.
  const source = { context: 300, resource: 5 };
  arrivals.push({ source, payload: encodeFrame(FrameKind.DATA, true, 7, 0, new Uint8Array(1)) });
  connection.work();
  assertEquals(sent.map((it) => decodeFrame(new Uint8Array(it))?.kind), [FrameKind.REFUSED]);
  assert(connection.due <= performance.now() + 500);
  connection.end();
});

Deno.test("device connection: without numbers there is nothing to attend to", () => {
  const { connection } = program(false);
  connection.work();
  assertEquals(connection.due, Infinity);
  connection.end();
});

Deno.test("device connection: who goes on with a way that nobody here has begun is told why it is over", () => {
  const { connection, arrivals, sent, ask } = program(true);
  const source = { context: 300, resource: 5 };
  const said = (number: number, first: boolean) => {
    const payload = encodeFrame(FrameKind.DATA, true, 7, number, new Uint8Array(1));
    if (first) payload[5]! |= 2;
    arrivals.push({ source, payload });
    connection.work();
    return sent.splice(0).map((it) => decodeFrame(new Uint8Array(it))!).map(({ kind, number }) => [kind, number | 0]);
  };
  const { NO_ACCESS, DST_UNREACHABLE } = ResultCode;
  assertEquals([said(0, true), said(5, false)], [[[FrameKind.REFUSED, NO_ACCESS]], [[FrameKind.REFUSED, NO_ACCESS]]]);
  const resource = { context: 2, resource: 5000 };
  ask("grant", { resource, client: { context: 300, resource: 0 }, allow: ["DG_SEND"], deny: [] });
  assertEquals(said(5, false), [[FrameKind.REFUSED, DST_UNREACHABLE]]);
  assertEquals(said(0, true), [[FrameKind.ACK, 1]]);
  assertEquals(said(1, false), [[FrameKind.ACK, 2]]);
  ask("revoke_all", { resource, client: { context: 300, resource: 0 }, repeated: false });
  assertEquals(said(2, false), [[FrameKind.REFUSED, NO_ACCESS]]);
  connection.end();
});

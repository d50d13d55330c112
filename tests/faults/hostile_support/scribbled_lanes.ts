/**
 * A receiver whose one sender scribbles over its lane while it reads, and whose other sender is honest.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { Worker } from "node:worker_threads";
import { contextHandle, handlesEqual, openVmci, VmciError } from "../../../mod.ts";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { RawClient } from "../../support/raw_client.ts";

/** What came of it. */
export interface ScribbledFigures {
  /** Lanes that were scribbled over. */
  lanes: number;
  /** Datagrams that the honest sender sent. */
  sent: number;
  /** Those that came, once each and in order. */
  honest: number;
  /** What was taken for a datagram in the scribbles. */
  scribbles: number;
}

/** Opens lanes, has each scribbled over while the receiver reads, and counts what comes. */
export async function scribbledLanes(
  { device, lanes, seed }: { readonly device: string; readonly lanes: number; readonly seed: number },
): Promise<ScribbledFigures> {
  await using host = await openVmci({ device, spin: 0 });
  await using guest = await openVmci({ device, spin: 0, contextId: 16 });
  using raw = new RawClient(`${device}/socket`);
  raw.hello({ context: 17 });
  const scribbler = raw.ask("create_endpoint", { resource: null, wellKnown: false }).result.handle;
  using to = host.datagrams.create();
  for (const context of [16, 17]) {
    host.access.addClientPrivileges(to.handle, contextHandle(context), { allow: ["DG_SEND"] });
  }
  using from = guest.datagrams.create();
  const figures: ScribbledFigures = { lanes: 0, sent: 0, honest: 0, scribbles: 0 };
  const control = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL("scribbler_worker.ts", import.meta.url), { workerData: { control, seed } });
  const ended = new Promise<void>((resolve, reject) => worker.once("exit", () => resolve()).once("error", reject));
  await new Promise<void>((resolve) => worker.once("message", () => resolve()));

  const payload = new Uint8Array(64);
  const number = new DataView(payload.buffer);
  const receive = (): boolean => {
    const datagram = to.tryReceive();
    if (datagram === undefined) return false;
    if (handlesEqual(datagram.source, scribbler)) {
      figures.scribbles++;
      return true;
    }
    assertEquals(datagram.source, from.handle);
    assertEquals(new DataView(datagram.payload.buffer, datagram.payload.byteOffset).getUint32(0), ++figures.honest);
    assertEquals(datagram.payload.length, 64);
    return true;
  };
  for (let lane = 0; lane < lanes; lane++) {
    const { error, descriptors } = raw.ask("open_lane", { source: scribbler, destination: to.handle });
    assert(error === undefined, error?.reason);
    figures.lanes++;
    Atomics.store(control, 0, descriptors[0]!);
    Atomics.notify(control, 0);
    Atomics.wait(control, 1, 2 * lane);
    for (let turn = 0; turn < 500; turn++) {
      number.setUint32(0, figures.sent + 1);
      try {
        from.sendTo(to.handle, payload);
        figures.sent++;
      } catch (error) {
        // It is full of what was not received yet.
        if (!(error instanceof VmciError) || error.code !== "NO_RESOURCES") throw error;
      }
      receive();
      receive();
    }
    Atomics.store(control, 0, 0);
    Atomics.wait(control, 1, 2 * lane + 1);
    descriptors.forEach(closeDescriptor);
  }
  // Whatever is left of the scribbles, nobody waits behind it for ever.
  for (let idle = 0; figures.honest < figures.sent && idle < 100_000; idle++) if (receive()) idle = 0;
  assertEquals(figures.honest, figures.sent);
  Atomics.store(control, 0, -1);
  Atomics.notify(control, 0);
  await ended;
  return figures;
}

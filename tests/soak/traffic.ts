/** Datagrams of every size from several processes at once: each must arrive once, in order, and as it was sent. */

import { assertEquals } from "@std/assert";
import { MAX_PAYLOAD_SIZE } from "../../src/limits.ts";
import { contextHandle, type Handle, openVmci } from "../../mod.ts";
import { makeRunDirectory } from "../support/media.ts";
import { Program } from "../support/program.ts";
import { Numbered } from "./numbered.ts";
import { type Figures, left, type SoakOptions, type SoakPiece } from "./piece.ts";

const SENDERS = 4;
const ROUND = 30_000;

interface Source {
  readonly expected: Numbered;
  handle: Handle | undefined;
}

/** One round: all send, everything is read and checked, all leave. */
async function round(
  seed: number,
  until: number,
): Promise<{ readonly sent: number; readonly checked: number; readonly bytes: number }> {
  const device = await makeRunDirectory();
  let sent = 0;
  let received = 0;
  let bytes = 0;
  {
    await using host = await openVmci({ device });
    using hub = host.datagrams.create();
    host.access.addClientPrivileges(hub.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
    host.discovery.register("hub", hub.handle);
    await using programs = new AsyncDisposableStack();
    const numbers = Array.from({ length: SENDERS }, (_, i) => i);
    const running = numbers.map((i) =>
      programs.use(
        new Program("tests/soak/programs/sender.ts", [device, `${16 + i}`, "hub", `${seed + i}`, `${until}`]),
      )
    );
    const sources = new Map<number, Source>(
      numbers.map((i) => [16 + i, { expected: new Numbered(seed + i), handle: undefined }]),
    );
    const said = Promise.all(running.map((it) => it.printed(" in all")));
    let total: number | undefined;
    said.then(
      (outputs) => total = outputs.reduce((sum, text) => sum + Number(/sent (\d+)/.exec(text)![1]), 0),
      () => {},
    );
    const failed = Promise.race(running.map((it) => it.ended)).then(({ stderr }) => {
      throw new Error(`a sender ended: ${stderr}`);
    });
    failed.catch(() => {});
    const buffer = new Uint8Array(MAX_PAYLOAD_SIZE);
    while (total === undefined || received < total) {
      const size = hub.tryReceiveInto(buffer);
      if (size === undefined) {
        // All have sent: what is missing is lost, unless it is still there to be taken.
        if (total !== undefined) {
          const datagram = hub.tryReceiveInto(buffer);
          assertEquals([datagram, received], [undefined, total], `datagrams lost (seed ${seed})`);
        }
        await Promise.race([said, failed, new Promise((resolve) => setTimeout(resolve, 0))]);
        continue;
      }
      const source = sources.get(hub.source.context)!;
      source.handle ??= hub.source;
      assertEquals(hub.source, source.handle, "the source is the sender's");
      const expected = source.expected.next();
      if (!alike(buffer.subarray(0, size), expected)) {
        assertEquals(buffer.slice(0, size), expected, `datagram ${source.expected.count} of ${hub.source.context}`);
      }
      received++;
      bytes += size;
    }
    sent = total;
    // They may go, and were sent to as well.
    for (const [context, { handle }] of sources) {
      assertEquals(host.access.checkClientPrivilege(hub.handle, contextHandle(context), "DG_SEND").granted, true);
      if (handle === undefined) throw new Error(`context ${context} has sent nothing`);
    }
  }
  await Deno.remove(device, { recursive: true });
  return { sent, checked: received, bytes };
}

/** Whether the bytes are the same; in words as far as they go. */
function alike(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  const words = a.length >>> 2;
  const [x, y] = [new Uint32Array(a.buffer, 0, words), new Uint32Array(b.buffer, 0, words)];
  for (let i = 0; i < words; i++) if (x[i] !== y[i]) return false;
  for (let i = words * 4; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** See the module's comment. */
export const traffic: SoakPiece = {
  name: "traffic",
  share: 3,
  async run(options: SoakOptions): Promise<Figures> {
    let [rounds, sent, checked, bytes] = [0, 0, 0, 0];
    do {
      const one = await round(options.seed + rounds * SENDERS, Math.min(options.until, Date.now() + ROUND));
      rounds++;
      sent += one.sent;
      checked += one.checked;
      bytes += one.bytes;
    } while (left(options) > 0);
    return { cases: rounds, "datagrams sent": sent, "datagrams checked": checked, "bytes checked": bytes };
  },
};

/**
 * A thread that writes to a lane as fast as it can, whatever its receiver does meanwhile.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { mapShared } from "../../../ffi/mapping.ts";
import { LANE_SIZE } from "../../../src/lane/ring.ts";
import { random } from "./random.ts";

/** The lane's descriptor, 0 for none, -1 at the end; and how often a lane was begun with or let go. */
const { control, seed } = workerData as { readonly control: Int32Array; readonly seed: number };
const choose = random(seed);

const RING_START = 4096 >> 2;
const WORDS = LANE_SIZE >> 2;

function tell(): void {
  Atomics.add(control, 1, 1);
  Atomics.notify(control, 1);
}

parentPort!.postMessage("ready");
for (;;) {
  Atomics.wait(control, 0, 0);
  const fd = Atomics.load(control, 0);
  if (fd < 0) break;
  const mapping = mapShared(fd, LANE_SIZE);
  const words = new Int32Array(mapping.buffer);
  let place = RING_START;
  tell();
  while (Atomics.load(control, 0) === fd) {
    for (let i = 0; i < 100; i++) {
      const kind = choose(8);
      if (kind === 0) words[choose(WORDS)] = choose(2 ** 32) | 0;
      else if (kind === 1) words[RING_START] = choose(300);
      else if (kind === 2) words[place] = -1;
      // Mostly records one after the other, as a sender writes them, and changed again at once.
      const length = choose(200);
      const next = place + 2 + ((length + 7) >> 3) * 2;
      if (next >= WORDS) {
        words[place] = -1;
        place = RING_START;
        continue;
      }
      words[next] = 0;
      words[place] = length + 1;
      if (kind === 3) words[place] = choose(100_000) - 1000;
      place = next;
    }
  }
  mapping.close();
  tell();
}

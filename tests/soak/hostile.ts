/**
 * Clients that lie and lanes that are scribbled over, as `tests/faults/` has them.
 *
 * @module
 */

import { hostileClients as harm, ringFuzz as fuzz } from "../faults/hostile_support/soak.ts";
import { type Figures, left, type SoakOptions, type SoakPiece } from "./piece.ts";

/** What must be shown, whatever time there is. */
const STEPS = 100_000_000;

/** Clients that speak the protocol and lie, beside honest ones. */
export const hostileClients: SoakPiece = {
  name: "hostile-clients",
  share: 3,
  async run(options: SoakOptions): Promise<Figures> {
    const { seed } = options;
    const figures = await harm({ seed, minutes: left(options) / 60_000 });
    const { clients, packets, descriptors, sent, came, scribbles } = figures;
    return {
      cases: clients,
      "faults injected": packets + scribbles,
      "hostile packets": packets,
      "descriptors where none belong": descriptors,
      "datagrams sent": sent,
      "datagrams checked": came,
    };
  },
};

/** A ring that a hostile producer writes at random. */
export const ringFuzz: SoakPiece = {
  name: "ring-fuzz",
  share: 1,
  run({ seed }: SoakOptions): Promise<Figures> {
    const { steps, taken, dropped } = fuzz({ steps: STEPS, seed });
    return Promise.resolve({ cases: 1, "fuzzed ring steps": steps, "records taken": taken, "lanes dropped": dropped });
  },
};

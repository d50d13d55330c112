/**
 * The hostile, at length.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { House } from "../../support/house.ts";
import { OwnDirectory } from "../../support/program.ts";
import { known } from "./held.ts";
import { attack, HonestPair, type HostileFigures } from "./hostile_clients.ts";
import { scribbledLanes } from "./scribbled_lanes.ts";

export { type RingFigures, ringFuzz } from "./ring_fuzz.ts";
export type { HostileFigures } from "./hostile_clients.ts";

/** How long something goes on, and what decides about it. */
export interface Soaking {
  readonly seed: number;
  readonly minutes: number;
}

/** What hostile clients and senders did. */
export interface HostileSoakFigures extends HostileFigures {
  /** Lanes that were scribbled over while they were read. */
  lanes: number;
  /** What was taken for a datagram in the scribbles. */
  scribbles: number;
}

/**
 * Has hostile clients attack a daemon, and a hostile sender scribble over its lanes, in turn.
 *
 * @returns The figures.
 * @throws When somebody honest was harmed, or something was left in the daemon.
 */
export async function hostileClients({ seed, minutes }: Soaking): Promise<HostileSoakFigures> {
  const total: HostileSoakFigures = {
    clients: 0,
    packets: 0,
    descriptors: 0,
    dropped: 0,
    sent: 0,
    came: 0,
    lanes: 0,
    scribbles: 0,
  };
  const end = performance.now() + minutes * 60_000;
  for (let round = 0; round === 0 || performance.now() < end; round++) {
    await using house = await House.serving({ contexts: [16, 17] });
    await using honest = await HonestPair.join(house.main, house.socket(16));
    const { sent, came } = await honest.use();
    total.sent += sent;
    total.came += came;
    const knew = known(house.main);
    for (let wave = 0; wave < 10; wave++) {
      const figures = await attack({ seed: seed + 1000 * round + wave, rounds: 30, socket: house.socket(17), honest });
      for (const [name, count] of Object.entries(figures)) total[name as keyof HostileFigures] += count;
    }
    // Who has left is taken in before what is asked after that; what is looked at comes from there.
    for (let look = 0; look < 500 && JSON.stringify(known(house.main)) !== JSON.stringify(knew); look++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assertEquals(known(house.main), knew);
    await using directory = await OwnDirectory.make();
    const scribbled = await scribbledLanes({ device: directory.path, lanes: 100, seed: seed + round });
    total.sent += scribbled.sent;
    total.came += scribbled.honest;
    total.lanes += scribbled.lanes;
    total.scribbles += scribbled.scribbles;
  }
  return total;
}

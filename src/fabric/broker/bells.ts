/**
 * Bells between two clients.
 *
 * @module
 */

import type { Share } from "../medium.ts";
import type { Client } from "./entities.ts";
import type { FabricState } from "./fabric_state.ts";

/** Makes so many bells, or none. */
export function makeBells(fabric: FabricState, count: number): (readonly [Share, Share])[] {
  const bells: (readonly [Share, Share])[] = [];
  try {
    while (bells.length < count) bells.push(fabric.make(() => fabric.medium.makeBell()));
    return bells;
  } catch (error) {
    for (const share of bells.flat()) fabric.medium.release(share);
    throw error;
  }
}

/** Two clients got a bell. */
export function befriend(a: Client, b: Client): void {
  for (const [one, other] of [[a, b], [b, a]] as const) {
    one.peers.add(other.number);
    if (one.announcing) one.ownPeers.add(other.number);
  }
}

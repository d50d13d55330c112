/**
 * Who watches a region, and those who can write it: each writer rings its watchers.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { befriend, makeBells } from "./bells.ts";
import type { Client, Region } from "./entities.ts";
import type { FabricState } from "./fabric_state.ts";
import { fail } from "./refusal.ts";
import { demandReading } from "./rights.ts";

/** So many bells one request may need: the ends of all of them may have to wait for who asked to read them. */
const MOST_NEW_BELLS = 256;

/** Sees to it that each writer can ring its watcher when it changes the region. */
export function introduceWatchers(
  fabric: FabricState,
  region: Region,
  all: readonly (readonly [watcher: Client, writer: Client])[],
): void {
  const pairs = all.filter(([watcher, writer]) =>
    watcher !== writer && (region.writers === "everybody" || region.owner === writer)
  );
  const strangers = pairs.filter(([watcher, writer]) => !watcher.peers.has(writer.number));
  for (const [watcher, writer] of strangers) {
    demandReading(watcher, writer);
    demandReading(writer, watcher);
  }
  if (strangers.length > MOST_NEW_BELLS) {
    fail("NO_RESOURCES", `${strangers.length} processes would each need a bell for it, and ${MOST_NEW_BELLS} may`);
  }
  const bells = makeBells(fabric, strangers.length);
  for (const [watcher, writer] of pairs) {
    const bell = watcher.peers.has(writer.number) ? undefined : bells.pop()!;
    if (bell !== undefined) fabric.notify(writer, "peer", { peer: watcher.number }, [bell[1], watcher.attention!]);
    fabric.notify(writer, "watcher", { handle: region.handle, peer: watcher.number });
    if (bell === undefined) continue;
    // The watcher looks when it hears of it, and what is written from then on it is rung for.
    fabric.notify(watcher, "peer", { peer: writer.number }, [bell[0], writer.attention!]);
    fabric.spent.push(...bell);
    befriend(watcher, writer);
  }
}

/** Two lost the bell between them: where one watches what the other can write, it goes on by another one. */
export function introduceAgain(fabric: FabricState, a: Client, b: Client): void {
  for (const region of a.attachments.keys()) {
    if (!b.attachments.has(region)) continue;
    for (const [watcher, writer] of [[a, b], [b, a]] as const) {
      if (region.watchers.has(watcher)) introduce(fabric, region, watcher, writer);
    }
  }
}

/** One is back under this broker: who has begun to watch meanwhile is rung by it too. */
export function introduceReturned(fabric: FabricState, region: Region, writer: Client): void {
  let bells = MOST_NEW_BELLS;
  for (const watcher of region.watchers) {
    if (watcher.peers.has(writer.number) || bells-- > 0) introduce(fabric, region, watcher, writer);
  }
}

/** There is nobody to be told that there can be no bell now: the others have theirs all the same. */
function introduce(fabric: FabricState, region: Region, watcher: Client, writer: Client): void {
  try {
    introduceWatchers(fabric, region, [[watcher, writer]]);
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
  }
}

/**
 * What a process holds of the kernel, and what a broker knows.
 *
 * @module
 */

import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { readText } from "../../../ffi/file.ts";
import { mapReadOnly } from "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";
import { listDirectory, readLink } from "../../../ffi/path.ts";
import { RawClient } from "../../support/raw_client.ts";

/** What this process holds. */
export interface Held {
  /** Its descriptors, by what they lead to. */
  readonly descriptors: Readonly<Record<string, number>>;
  /** Mappings of memory that the library made, by its name. */
  readonly mappings: Readonly<Record<string, number>>;
}

/** More than the list of a process' mappings has. */
const MOST_OF_A_LIST = 1 << 22;

/** Looks at what this process holds, all its threads together; by the library, for Deno lets only who may do all. */
export function held(): Held {
  const descriptors: Record<string, number> = {};
  for (const name of listDirectory("/proc/self/fd")) {
    const target = readLink(`/proc/self/fd/${name}`);
    // The one that the look itself had open; and the engine's own, for the library has no pipes.
    if (target === undefined || target.startsWith("pipe:")) continue;
    const kind = target.replace(/:\[\d+\]$/, "").replace(/^\/proc\/.*/, "/proc");
    descriptors[kind] = (descriptors[kind] ?? 0) + 1;
  }
  const mappings: Record<string, number> = {};
  for (const [name] of readText("/proc/self/maps", MOST_OF_A_LIST).matchAll(/memfd:vmci\S*/g)) {
    mappings[name] = (mappings[name] ?? 0) + 1;
  }
  return { descriptors, mappings };
}

/** What is held more than before, for people; empty when nothing is. */
export function surplus(before: Held, now: Held): string {
  const more: string[] = [];
  for (const what of ["descriptors", "mappings"] as const) {
    for (const [kind, count] of Object.entries(now[what])) {
      const difference = count - (before[what][kind] ?? 0);
      if (difference > 0) more.push(`${difference} ${what} of ${kind}`);
    }
  }
  return more.join(", ");
}

/** Turns the event loop until nothing more is held than before, or it is clear that it stays: says what is. */
export async function settled(before: Held): Promise<string> {
  const collect = (globalThis as unknown as { gc?: () => void }).gc;
  for (let round = 0; round < 600; round++) {
    const more = surplus(before, held());
    if (more === "") return "";
    if (round === 1) collect?.();
    await new Promise((resolve) => setTimeout(resolve, round < 10 ? 0 : 10));
  }
  return surplus(before, held());
}

/** What could not be given back is given back at the next closing of anything. */
export function closeSomething(): void {
  const fd = createMemfd("vmci-test", 4096);
  mapReadOnly(fd, 4096).close();
  closeDescriptor(fd);
}

/** How much a broker knows of each kind of thing. */
export function known(socket: string): Record<string, number> {
  using observer = new RawClient(socket);
  observer.hello({ observer: true });
  const counts: Record<string, number> = {};
  for (const topic of ["contexts", "resources", "attachments", "lanes"]) {
    let after: number | null = 0;
    counts[topic] = 0;
    while (after !== null) {
      const { result, error, descriptors } = observer.ask("inspect", { topic, after });
      descriptors.forEach(closeDescriptor);
      if (error !== undefined) throw new Error(`cannot inspect ${topic}: ${error.reason}`);
      counts[topic] += result.entries.length;
      after = result.next;
    }
  }
  return counts;
}

/**
 * What the second party of a conformance test is made of: it does what the lines on its standard input say and answers on
 * its standard output.
 *
 * @module
 */

import { AtomicWord, DatagramEndpoint, Group, Region, RegionRecord, Vmci, VmciError } from "../../mod.ts";
import type { Scenes } from "./scenes.ts";
import { type Answer, type Call, fromLine, linesOf, type Reference, toLine } from "./wire.ts";

/** Objects that stay here when they are a result, and what the test may know of them without asking. */
const KEPT = [Vmci, DatagramEndpoint, Region, AtomicWord, RegionRecord, Group];
const FIXED = ["handle", "size", "writable", "capacity"];

const objects: unknown[] = [];

async function perform({ target, path, args }: Call): Promise<unknown> {
  let owner: unknown;
  let value = objects[target];
  for (const key of path) [owner, value] = [value, (value as Record<string, unknown>)[key]];
  const result = args === undefined ? value : await (value as (...args: unknown[]) => unknown).apply(owner, [...args]);
  return isKept(result) ? reference(result) : result;
}

function isKept(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  return KEPT.some((it) => value instanceof it) || Symbol.asyncIterator in value;
}

function reference(value: object): Reference {
  const fixed = FIXED.filter((key) => key in value).map((key) => [key, value[key as keyof typeof value]]);
  return { $object: objects.push(value) - 1, fixed: Object.fromEntries(fixed) };
}

async function answer(call: Call): Promise<Answer> {
  try {
    return { id: call.id, result: await perform(call) };
  } catch (error) {
    const { message } = error as Error;
    if (!(error instanceof VmciError)) return { id: call.id, error: { message } };
    const { code, number, operation, reason, handle } = error;
    return {
      id: call.id,
      error: { message, vmci: { code, number, operation, reason, ...(handle === undefined ? {} : { handle }) } },
    };
  }
}

function say(text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

/** Serves until its input ends, and then ends the process. */
export async function serveAgent(scenes: Scenes): Promise<void> {
  objects.push(scenes);
  for await (const line of linesOf(Deno.stdin.readable)) {
    const call = fromLine(line, ({ $object }) => objects[$object]) as Call;
    void answer(call).then((it) => say(toLine(it)));
  }
  Deno.exit(0);
}

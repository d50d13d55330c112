/**
 * How a test and its agent in another process speak: one JSON value a line. Bytes travel as base64, and an object of the
 * agent's as its number.
 *
 * @module
 */

import type { Handle } from "../../mod.ts";

/** A look at a property of an object of the agent's or, with arguments, a call of it. */
export interface Call {
  readonly id: number;
  readonly target: number;
  readonly path: readonly string[];
  readonly args?: readonly unknown[];
}

/** What came of it. */
export interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly vmci?: WireVmciError };
}

/** A VmciError as it travels. */
export interface WireVmciError {
  readonly code: string;
  readonly number: number;
  readonly operation: string;
  readonly reason: string;
  readonly handle?: Handle;
}

/** An object that stays with the agent, and those of its properties that never change. */
export interface Reference {
  readonly $object: number;
  readonly fixed: Readonly<Record<string, unknown>>;
}

/** Tells a reference from any other value. */
export function isReference(value: unknown): value is Reference {
  return typeof value === "object" && value !== null && "$object" in value;
}

/** A value as a line. */
export function toLine(value: unknown): string {
  return JSON.stringify(value, (_, it) => {
    if (it === undefined) return { $undefined: true };
    return it instanceof Uint8Array ? { $bytes: it.toBase64() } : it;
  }) + "\n";
}

/** The value of a line; `resolve` gives what a reference stands for. */
export function fromLine(line: string, resolve: (reference: Reference) => unknown): unknown {
  const revived = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null) return value;
    if (Array.isArray(value)) return value.map(revived);
    if ("$undefined" in value) return undefined;
    if ("$bytes" in value) return Uint8Array.fromBase64(value.$bytes as string);
    const object = Object.fromEntries(Object.entries(value).map(([key, it]) => [key, revived(it)]));
    return isReference(object) ? resolve(object) : object;
  };
  return revived(JSON.parse(line));
}

/** Cuts a stream of bytes into lines. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

/**
 * Messages as bytes: JSON in UTF-8.
 *
 * @module
 */

import type { Message } from "../protocol.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** A message's bytes. */
export function encodeMessage(message: Message): Uint8Array<ArrayBuffer> {
  return encoder.encode(JSON.stringify(message));
}

/** The message in some bytes, or `undefined` when there is none. */
export function decodeMessage(bytes: Uint8Array): Message | undefined {
  try {
    const value: unknown = JSON.parse(decoder.decode(bytes));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Message : undefined;
  } catch {
    return undefined;
  }
}

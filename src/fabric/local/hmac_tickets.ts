/**
 * Tickets that only a daemon of this user can have issued: HMAC-SHA256 under a key that it alone can read.
 *
 * @module
 */

import process from "node:process";
import type { Tickets } from "../broker.ts";

/** See the module's comment. */
export class HmacTickets implements Tickets {
  readonly #key: Uint8Array;

  /** @param key The key. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  issue(claim: string): string {
    return crypto().createHmac("sha256", this.#key).update(claim).digest("base64url");
  }

  isGenuine(claim: string, ticket: string): boolean {
    const expected = new TextEncoder().encode(this.issue(claim));
    const given = new TextEncoder().encode(ticket);
    return given.length === expected.length && crypto().timingSafeEqual(given, expected);
  }
}

/** Loaded when it is needed: it takes some 15 ms, and embedded brokers have no use for it. */
function crypto(): typeof import("node:crypto") {
  return process.getBuiltinModule("node:crypto");
}

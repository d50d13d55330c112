/**
 * How many connections those may have who are not the broker's own user: who only connects costs a descriptor, and no
 * quota counts him before he says hello.
 *
 * @module
 */

import type { Client, Identity } from "../broker/entities.ts";

/** Connections of one origin that have not said hello; who does so at once is never one of them for long. */
const MOST_SILENT = 64;

/** Connections of one origin while the broker has few descriptors left. */
const MOST_WHEN_SCARCE = 8;

/**
 * Where a connection comes from, as far as it is to be told from others: through a context's socket, from a user that a
 * policy lets in, or from one of all the others.
 *
 * @param identity Who it is.
 * @param context The context of the socket that it came through.
 * @returns The origin, or `undefined` for the broker's own user.
 */
export function originOf({ uid, contexts, privileged }: Identity, context: number | undefined): string | undefined {
  if (privileged) return undefined;
  if (context !== undefined) return `context ${context}`;
  return contexts.length > 0 ? `user ${uid}` : "users whom no policy lets in";
}

/** See the module's comment. */
export class Callers {
  readonly #byOrigin = new Map<string, Set<Client>>();

  /**
   * Why one more of an origin cannot be taken in.
   *
   * @param origin The origin.
   * @param scarce Whether few descriptors are left.
   * @returns The reason, or `undefined` when it can.
   */
  excess(origin: string, scarce: boolean): string | undefined {
    const clients = this.#byOrigin.get(origin) ?? new Set();
    if (scarce && clients.size >= MOST_WHEN_SCARCE) {
      return `few file descriptors are left, and there are ${clients.size} connections from ${origin}`;
    }
    if (clients.size < MOST_SILENT) return undefined;
    const silent = [...clients].filter(({ number }) => number === 0).length;
    return silent < MOST_SILENT ? undefined : `${silent} connections from ${origin} have not said hello yet`;
  }

  /** One came. */
  add(origin: string, client: Client): void {
    const clients = this.#byOrigin.get(origin) ?? new Set();
    this.#byOrigin.set(origin, clients.add(client));
  }

  /** One left. */
  remove(origin: string, client: Client): void {
    const clients = this.#byOrigin.get(origin);
    if (clients?.delete(client) && clients.size === 0) this.#byOrigin.delete(origin);
  }
}

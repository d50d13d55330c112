/**
 * What a broker's thread is told when it starts.
 *
 * @module
 */

import type { Quota } from "../quota.ts";

/** What the thread is told. It travels in the script's own text, so that nobody has to wait for a message. */
export interface BrokerThreadConfig {
  /** `embedded` in a program, `daemon` for `vmci fabric serve`. */
  readonly kind: "embedded" | "daemon";
  /** The run directory, at whose socket the thread listens, or `undefined` for a daemon at sockets of its own. */
  readonly directory: string | undefined;
  /** The descriptor that holds the directory's lock; the thread's from now on. */
  readonly lock: number | undefined;
  /** Sockets that listen already, each for one context, or for whoever has the broker's user. */
  readonly sockets: readonly BoundSocket[];
  /**
   * A connection of this process; the thread's from now on. An embedded broker's first client comes this way; a daemon
   * ends when this connection does.
   */
  readonly connection: number;
  /** What each may hold. */
  readonly quota: Quota | undefined;
}

/** A socket and who comes through it. */
export interface BoundSocket {
  /** The descriptor that listens; the thread's from now on. Its path is the concern of who made it. */
  readonly descriptor: number;
  /** The context of whoever comes this way; `undefined` for the broker's own user, who may choose. */
  readonly context: number | undefined;
}

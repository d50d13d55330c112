/**
 * What a broker's thread is told when it starts.
 *
 * @module
 */

import type { Quota } from "../quota.ts";

/** What the thread is told: its `workerData`, so that nobody has to wait for a message. */
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
  /** Whether the thread may spin before it sleeps. */
  readonly spins: boolean;
  /** The directory where a daemon keeps what the next one needs: its key, its clients, the mark of used numbers. */
  readonly state: string | undefined;
  /** Who may be what, as a policy's text and its file's name; it was read without fault before. */
  readonly policy: PolicyText | undefined;
  /** The file that opens, grants and denials are appended to. */
  readonly audit: string | undefined;
}

/** A policy as it travels. */
export interface PolicyText {
  /** The text. */
  readonly text: string;
  /** The file's name, for errors. */
  readonly name: string;
}

/** A socket and who comes through it. */
export interface BoundSocket {
  /** The descriptor that listens; the thread's from now on. Its path is the concern of who made it. */
  readonly descriptor: number;
  /** The context of whoever comes this way; `undefined` for the broker's own user, who may choose. */
  readonly context: number | undefined;
}

/**
 * What is behind a datagram handle: the lanes into it and the lanes out of it.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import { formatHandle, type Handle } from "./handle.ts";
import type { IdleLanes } from "./idle_lanes.ts";
import { Inbox, type LaneDone } from "./inbox.ts";
import { Outbox } from "./outbox.ts";
import type { Session } from "./fabric/session.ts";

/** See the module's comment. */
export class Mailbox {
  /** Its handle. */
  readonly handle: Handle;
  /** Whose it is. */
  readonly session: Session;
  /** What comes. */
  readonly inbox: Inbox;
  /** What goes. */
  readonly outbox: Outbox;
  readonly #destroyed: (mailbox: Mailbox) => void;
  #closed = false;

  /**
   * @param destroyed Called once when the program destroys the handle.
   * @param laneDone Called when a lane into it is done with.
   * @param idle Has lanes out of it rest.
   */
  constructor(
    session: Session,
    handle: Handle,
    destroyed: (mailbox: Mailbox) => void,
    laneDone: LaneDone,
    idle: IdleLanes,
  ) {
    this.session = session;
    this.handle = handle;
    this.inbox = new Inbox(laneDone);
    this.outbox = new Outbox(session, handle, idle);
    this.#destroyed = destroyed;
  }

  /** Whether the handle is gone. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Throws INVALID_RESOURCE when the handle is gone. */
  assertOpen(operation: string): void {
    if (!this.#closed) return;
    throw new VmciError("INVALID_RESOURCE", {
      operation,
      handle: this.handle,
      reason: `the datagram handle ${formatHandle(this.handle)} is closed`,
    });
  }

  /** The program destroys the handle. */
  destroy(): void {
    if (this.#closed) return;
    this.shut();
    this.#destroyed(this);
  }

  /** The handle is gone, whoever destroyed it. */
  shut(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.outbox.close();
    this.inbox.close();
    this.session.waiting.wake();
  }
}

/**
 * Who opened what, who granted what, and who was refused: a line of JSON for each, appended to a file.
 *
 * @module
 */

import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { openFile, OpenFlag, writeAt } from "../../../ffi/file.ts";
import type { Outgoing } from "../broker.ts";
import type { Client } from "../broker/entities.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { type Message, replyError } from "../protocol.ts";

const O_APPEND = 0o2000;

/** What is logged when it succeeds; a denial is logged whatever was asked. */
const AUDITED: ReadonlySet<unknown> = new Set([
  "hello",
  "create_endpoint",
  "create_region",
  "create_group",
  "destroy",
  "open_lane",
  "attach",
  "grant",
  "revoke",
  "revoke_all",
  "add_member",
  "remove_member",
  "register",
  "unregister",
  "announce_resource",
  "announce_attachment",
]);

const OTHER = "it is not believed to be that client; it was let in as another";

/** See the module's comment. */
export class AuditLog {
  readonly #fd: number;
  /** How many lines could not be written since one could. */
  #missed = 0;

  /** @param path The file; made with mode 600 if it is not there. */
  constructor(path: string) {
    this.#fd = openFile(path, OpenFlag.WRONLY | OpenFlag.CREAT | OpenFlag.NOFOLLOW | O_APPEND, 0o600);
  }

  /** Logs what came of a request, if this is the reply to one and belongs into the log. */
  decision({ to: client, message: reply, request }: Outgoing): void {
    if (request === undefined) return;
    const error = replyError(reply);
    const result = reply.result as { accepted?: boolean; client?: number } | undefined;
    // Who says a number that is not his is let in with another one.
    const other = request.op === "hello" && request.args.client !== null && result?.client !== request.args.client;
    const denied = error?.code === "NO_ACCESS" || result?.accepted === false || other;
    if (!denied && (error !== undefined || !AUDITED.has(request.op))) return;
    // Whoever may read the log must not be able to claim what a ticket proves.
    const args = { ...request.args, ticket: undefined };
    this.#append(client, {
      event: denied ? "denied" : "done",
      op: request.op,
      args,
      reason: error?.reason ?? (other ? OTHER : undefined),
    });
  }

  /** Logs a connection that was not let in. */
  refusal(client: Client, reason: string): void {
    this.#append(client, { event: "denied", op: "connect", reason });
  }

  /** Gives the file back. */
  close(): void {
    closeDescriptor(this.#fd);
  }

  #append({ identity: { pid, uid }, context }: Client, entry: Message): void {
    const line = { time: new Date().toISOString(), pid, uid, context: context?.id ?? null, ...entry };
    try {
      // What could not be written may have been cut within a line.
      if (this.#missed > 0) {
        this.#write("\n" + JSON.stringify({ time: line.time, event: "missed", lines: this.#missed }));
      }
      this.#missed = 0;
      this.#write(JSON.stringify(line));
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      // Whoever fills the disk must not end the broker for all.
      if (this.#missed++ === 0) console.error(`vmci: cannot write to the audit log: ${error.message}`);
    }
  }

  #write(line: string): void {
    // Appended whatever the offset: the file was opened so.
    writeAt(this.#fd, new TextEncoder().encode(line + "\n"), 0);
  }
}

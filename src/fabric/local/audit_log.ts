/**
 * Who opened what, who granted what, who was refused, and who was let go: a line of JSON for each, appended to a file.
 * Of what others than the broker's own user cause again and again the lines are counted instead.
 *
 * @module
 */

import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { openFile, OpenFlag, writeAt } from "../../../ffi/file.ts";
import type { Outgoing } from "../broker.ts";
import type { Client } from "../broker/entities.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { type Message, replyError } from "../protocol.ts";
import { LineLimits } from "./line_limits.ts";

const O_APPEND = 0o2000;

/** The longest arguments that are written, as text. */
const MOST_ARGS = 2048;

/** What is logged when it succeeds; a refusal is logged whatever was asked. */
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
  "announce_entries",
]);

const OTHER = "it is not believed to be that client; it was let in as another";

/** See the module's comment. */
export class AuditLog {
  readonly #fd: number;
  readonly #limits = new LineLimits();
  /** How many lines could not be written since one could. */
  #missed = 0;

  /** @param path The file; made with mode 600 if it is not there. */
  constructor(path: string) {
    this.#fd = openFile(path, OpenFlag.WRONLY | OpenFlag.CREAT | OpenFlag.NOFOLLOW | O_APPEND, 0o600);
  }

  /**
   * Logs what came of a request, if this is the reply to one and belongs into the log.
   *
   * @param origin Where the client comes from, if that is not the broker's own user.
   */
  decision(origin: string | undefined, { to: client, kind, message: reply, request }: Outgoing): void {
    if (kind === "notice") return;
    const error = replyError(reply);
    if (request === undefined) {
      // It could not be read.
      return this.#append(origin, client, { event: "denied", op: null, code: error?.code, reason: error?.reason });
    }
    const result = reply.result as { accepted?: boolean; refused?: unknown[]; client?: number } | undefined;
    // Who says a number that is not his is let in with another one.
    const other = request.op === "hello" && request.args.client !== null && result?.client !== request.args.client;
    const refused = result?.accepted === false || (result?.refused ?? []).length > 0;
    const denied = error !== undefined || refused || other;
    if (!denied && !AUDITED.has(request.op)) return;
    // Whoever is early asks for names that are not there yet.
    if (request.op === "lookup" && error?.code === "NOT_FOUND") return;
    // Whoever may read the log must not be able to claim what a ticket proves.
    const args = { ...request.args, ticket: undefined, tickets: undefined };
    this.#append(origin, client, {
      event: denied ? "denied" : "done",
      op: request.op,
      code: error?.code,
      args: JSON.stringify(args).length > MOST_ARGS ? "too long" : args,
      reason: error?.reason ?? (other ? OTHER : undefined),
    });
  }

  /** Logs a connection that was not let in. */
  refusal(origin: string | undefined, client: Client, reason: string): void {
    this.#append(origin, client, { event: "denied", op: "connect", reason });
  }

  /** Logs a client that was let go. */
  dropped(origin: string | undefined, client: Client, reason: string): void {
    this.#append(origin, client, { event: "dropped", reason });
  }

  /** Gives the file back. */
  close(): void {
    try {
      this.#tellOmitted(Infinity);
    } finally {
      closeDescriptor(this.#fd);
    }
  }

  #append(origin: string | undefined, { identity: { pid, uid }, context }: Client, entry: Message): void {
    const now = performance.now();
    this.#tellOmitted(now);
    const { event, op = "" } = entry;
    if (origin !== undefined && !this.#limits.allows(`${event} ${op} by ${origin}`, now)) return;
    this.#appendLine({ time: new Date().toISOString(), pid, uid, context: context?.id ?? null, ...entry });
  }

  #tellOmitted(now: number): void {
    for (const { kind, lines } of this.#limits.takeOmitted(now)) {
      this.#appendLine({ time: new Date().toISOString(), event: "omitted", kind, lines });
    }
  }

  #appendLine(line: Message): void {
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

/**
 * Looking into a running fabric, without ever starting one.
 *
 * @module
 */

import { formatHandle, type Handle } from "../handle.ts";
import type { ResourceTypeName } from "../privilege.ts";
import type { InspectTopic, Message, NameEntry } from "../fabric/protocol.ts";
import type { RegionAccess } from "../fabric/medium.ts";
import type { Session } from "../fabric/session.ts";
import { openSession } from "../vmci.ts";

/** A context. */
export interface ContextView {
  readonly context: number;
  readonly flags: number;
  /** At most the first 16 of them. */
  readonly processes: readonly { readonly pid: number; readonly uid: number }[];
  /** How many there are. */
  readonly clients: number;
  readonly resources: number;
  readonly regionBytes: number;
  readonly names: number;
}

/** A resource, with the names that are registered for it. */
export interface ResourceView {
  readonly type: ResourceTypeName;
  readonly handle: Handle;
  /** Who made it, or `null` when he is gone or it was the broker. */
  readonly pid: number | null;
  readonly names: readonly string[];
  /** How many clients its access list has. */
  readonly grants: number;
  /** A region's size in bytes. */
  readonly size?: number;
  readonly writers?: RegionAccess;
  /** How many clients are attached to a region. */
  readonly attachments?: number;
  /** How many contexts are in a group. */
  readonly members?: number;
  /** How many lanes lead to a datagram handle. */
  readonly lanes?: number;
}

/** Who is attached to a region, and how often. */
export interface AttachmentView {
  readonly handle: Handle;
  readonly context: number;
  readonly pid: number;
  readonly count: number;
}

/** A lane. */
export interface LaneView {
  readonly source: Handle;
  readonly destination: Handle;
  /** The sender's context and process. */
  readonly context: number;
  readonly pid: number;
  /** The receiver's process. */
  readonly receiver: number | null;
}

/** What each topic lists. */
export interface Views {
  contexts: ContextView;
  resources: ResourceView;
  attachments: AttachmentView;
  lanes: LaneView;
}

/**
 * Joins a fabric as one who only looks.
 *
 * @param device Which fabric.
 * @returns The session.
 * @throws {VmciError} UNAVAILABLE when none runs there.
 */
export function observe(device: string | undefined): Promise<Session> {
  return openSession({ device }, { start: false, observer: true });
}

/**
 * Everything of one kind that the broker knows, as far as it does not change meanwhile.
 *
 * @param session A session.
 * @param topic Which kind.
 * @returns The entries.
 * @throws {VmciError} NO_ACCESS for another user than the broker's.
 */
export function inspect<T extends InspectTopic>(session: Session, topic: T): Views[T][] {
  const all: Message[] = [];
  for (let after: number | null = 0; after !== null;) {
    const { entries, next }: { entries: Message[]; next: number | null } =
      session.request({ operation: "look at the fabric" }, "inspect", { topic, after }).result;
    all.push(...entries);
    after = next;
  }
  return all as unknown as Views[T][];
}

/**
 * All names.
 *
 * @param session A session.
 * @returns The names in byte order.
 */
export function listNames(session: Session): NameEntry[] {
  const all: NameEntry[] = [];
  for (let after: string | null = null;;) {
    const { entries, more }: { entries: NameEntry[]; more: boolean } =
      session.request({ operation: "look at the fabric" }, "list", { prefix: "", after }).result;
    all.push(...entries);
    if (!more) return all;
    after = entries.at(-1)!.name;
  }
}

/** A value with every handle in it as people write it. */
export function withHandlesAsText(value: object): Record<string, unknown> {
  const isHandle = (field: unknown) => typeof field === "object" && field !== null && "resource" in field;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => [key, isHandle(field) ? formatHandle(field as Handle) : field]),
  );
}

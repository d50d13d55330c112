/**
 * Who may do what with one resource: the SDK's access list and its check.
 *
 * @module
 */

import type { Handle } from "../handle.ts";
import { formatHandle } from "../handle.ts";
import type { PrivilegeName } from "../privilege.ts";
import type { AccessEntry, PrivilegeState } from "./protocol.ts";

interface Entry {
  readonly client: Handle;
  readonly states: Map<PrivilegeName, PrivilegeState>;
}

/** What decided a check: the entry of one client, or that nothing did. */
export interface Decision {
  /** ALLOW or DENY, or `undefined` when it is set nowhere. */
  readonly state: PrivilegeState | undefined;
  /** The client whose entry decided. */
  readonly client: Handle | undefined;
}

/** The clients of one resource and what is set for each. */
export class AccessList {
  readonly #entries = new Map<string, Entry>();
  /** Those of them that are groups'. */
  readonly #groups = new Map<string, Entry>();

  /** How many clients have an entry. */
  get size(): number {
    return this.#entries.size;
  }

  /** Sets privileges of a client; one that stands in both lists ends up denied. */
  set(client: Handle, allow: readonly PrivilegeName[], deny: readonly PrivilegeName[]): void {
    const key = formatHandle(client);
    const entry: Entry = this.#entries.get(key) ?? { client, states: new Map() };
    for (const privilege of allow) entry.states.set(privilege, "ALLOW");
    for (const privilege of deny) entry.states.set(privilege, "DENY");
    if (entry.states.size === 0) return;
    this.#entries.set(key, entry);
    if (client.resource !== 0) this.#groups.set(key, entry);
  }

  /** Unsets privileges of a client. `false` when the client has no entry; an empty entry vanishes. */
  unset(client: Handle, privileges: readonly PrivilegeName[]): boolean {
    const states = this.#entries.get(formatHandle(client))?.states;
    if (states === undefined) return false;
    for (const privilege of privileges) states.delete(privilege);
    if (states.size === 0) this.remove(client);
    return true;
  }

  /** Removes a client's entry. `false` when there is none. */
  remove(client: Handle): boolean {
    const key = formatHandle(client);
    this.#groups.delete(key);
    return this.#entries.delete(key);
  }

  /** Removes all entries. */
  clear(): void {
    this.#groups.clear();
    this.#entries.clear();
  }

  /** Whether one of these groups, by their formatted handles, has an entry. */
  mentions(groups: ReadonlySet<string>): boolean {
    return !groups.isDisjointFrom(this.#groups);
  }

  /** Whether a client has an entry. */
  has(client: Handle): boolean {
    return this.#entries.has(formatHandle(client));
  }

  /** One client's entry; with nothing set when there is none. */
  entry(client: Handle): AccessEntry {
    const states = this.#entries.get(formatHandle(client))?.states;
    return { client, states: Object.fromEntries(states ?? []) };
  }

  /**
   * The SDK's order: the client's own entry decides if the privilege is set there; else the first of its groups, in the
   * order joined, in whose entry it is set. Only the groups that are listed here are looked at, however many others the
   * client is in.
   *
   * @param joined The place of a group in that order, or `undefined` if the client is not in it.
   * @param member What being a member sets where the own entry does not.
   */
  decide(
    client: Handle,
    joined: (group: Handle) => number | undefined,
    privilege: PrivilegeName,
    member?: PrivilegeState,
  ): Decision {
    const own = this.#entries.get(formatHandle(client))?.states.get(privilege) ?? member;
    if (own !== undefined) return { state: own, client };
    let first: Decision = { state: undefined, client: undefined };
    let least = Infinity;
    for (const { client: group, states } of this.#groups.values()) {
      const state = states.get(privilege);
      const order = state === undefined ? undefined : joined(group);
      if (order === undefined || order >= least) continue;
      first = { state, client: group };
      least = order;
    }
    return first;
  }
}

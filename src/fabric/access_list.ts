/**
 * Who may do what with one resource: the SDK's access list and its check.
 *
 * @module
 */

import type { Handle } from "../handle.ts";
import { formatHandle } from "../handle.ts";
import type { PrivilegeName } from "../privilege.ts";
import type { AccessEntry, PrivilegeState } from "./protocol.ts";

type States = Map<PrivilegeName, PrivilegeState>;

/** What decided a check: the entry of one client, or that nothing did. */
export interface Decision {
  /** ALLOW or DENY, or `undefined` when it is set nowhere. */
  readonly state: PrivilegeState | undefined;
  /** The client whose entry decided. */
  readonly client: Handle | undefined;
}

/** The clients of one resource and what is set for each. */
export class AccessList {
  readonly #entries = new Map<string, { readonly client: Handle; readonly states: States }>();

  /** How many clients have an entry. */
  get size(): number {
    return this.#entries.size;
  }

  /** Sets privileges of a client; one that stands in both lists ends up denied. */
  set(client: Handle, allow: readonly PrivilegeName[], deny: readonly PrivilegeName[]): void {
    const key = formatHandle(client);
    const states: States = this.#entries.get(key)?.states ?? new Map();
    for (const privilege of allow) states.set(privilege, "ALLOW");
    for (const privilege of deny) states.set(privilege, "DENY");
    if (states.size > 0) this.#entries.set(key, { client, states });
  }

  /** Unsets privileges of a client. `false` when the client has no entry; an empty entry vanishes. */
  unset(client: Handle, privileges: readonly PrivilegeName[]): boolean {
    const key = formatHandle(client);
    const states = this.#entries.get(key)?.states;
    if (states === undefined) return false;
    for (const privilege of privileges) states.delete(privilege);
    if (states.size === 0) this.#entries.delete(key);
    return true;
  }

  /** Removes a client's entry. `false` when there is none. */
  remove(client: Handle): boolean {
    return this.#entries.delete(formatHandle(client));
  }

  /** One client's entry; with nothing set when there is none. */
  entry(client: Handle): AccessEntry {
    const states = this.#entries.get(formatHandle(client))?.states;
    return { client, states: Object.fromEntries(states ?? []) };
  }

  /**
   * The SDK's order: the client's own entry decides if the privilege is set there; else the first of its groups, in the
   * order joined, in whose entry it is set. `member` is what being a member sets where the own entry does not.
   */
  decide(client: Handle, groups: Iterable<Handle>, privilege: PrivilegeName, member?: PrivilegeState): Decision {
    const own = this.#entries.get(formatHandle(client))?.states.get(privilege) ?? member;
    if (own !== undefined) return { state: own, client };
    for (const group of groups) {
      const state = this.#entries.get(formatHandle(group))?.states.get(privilege);
      if (state !== undefined) return { state, client: group };
    }
    return { state: undefined, client: undefined };
  }
}

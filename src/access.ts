/**
 * The access-control API: who may do what with which resource.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import { type ContextId, formatHandle, type Handle, isHandle, isId } from "./handle.ts";
import { Privilege, type PrivilegeName } from "./privilege.ts";
import { ResultCode, type ResultCodeName } from "./result_code.ts";
import { PUBLIC_GROUP } from "./fabric/broker.ts";
import { PAGE_LENGTH } from "./fabric/protocol.ts";
import type { Session } from "./fabric/session.ts";

/** What to set for a client. A privilege in both lists ends up denied. */
export interface PrivilegeLists {
  /** What the client may do. */
  readonly allow?: readonly PrivilegeName[];
  /** What it may not, whatever its groups may. */
  readonly deny?: readonly PrivilegeName[];
}

/** What came of a check, and why. */
export interface AccessDecision {
  /** Whether the client may. */
  readonly granted: boolean;
  /** SUCCESS_ACCESS_GRANTED (2), NO_ACCESS (-7) when it is denied, or INVALID_PRIV (-12) when it is set nowhere. */
  readonly code: ResultCodeName;
  /**
   * What decided: the client is the `owner`'s context; its `own` entry; the entry of a `group` it is in; the coarse
   * `flags`; or `nothing`, since it is set nowhere, and what is not set is denied.
   */
  readonly via: "owner" | "own" | "group" | "flags" | "nothing";
  /** The client or group whose entry decided, where one did. */
  readonly decidedBy: Handle | undefined;
}

/**
 * The access-control API of one {@linkcode Vmci}.
 *
 * A resource belongs to the context of the process that made it, which may do everything with it. Any other context has
 * no right until one is granted: to it, or to a group that it is in. A client is a context, written
 * `{ context, resource: 0 }` (see {@linkcode contextHandle}), or a group's handle.
 *
 * Withdrawing a right closes lanes at once; memory that is mapped already cannot be taken back.
 *
 * @example
 * ```ts
 * import { contextHandle, openVmci } from "@vmci/vmci";
 * import { assert, assertEquals } from "@std/assert";
 *
 * using host = await openVmci({ device: "memory:" });
 * using guest = await openVmci({ device: "memory:", contextId: 16 });
 * using endpoint = host.datagrams.create();
 *
 * const client = contextHandle(16);
 * assertEquals(host.access.checkClientPrivilege(endpoint.handle, client, "DG_SEND").via, "nothing");
 * host.access.addClientPrivileges(endpoint.handle, host.access.publicGroup, { allow: ["DG_SEND"] });
 * assert(host.access.checkClientPrivilege(endpoint.handle, client, "DG_SEND").granted);
 * ```
 */
export class AccessControl {
  /** The group that every context is in from the start; registered as `vmci public group`. */
  readonly publicGroup: Handle = PUBLIC_GROUP;
  readonly #session: Session;

  /** @ignore Use {@linkcode openVmci}. */
  constructor(session: Session) {
    this.#session = session;
  }

  /**
   * Allows and denies a client (`VMCIResource_AddClientPrivileges`).
   *
   * @param resource The resource.
   * @param client A context's handle or a group's.
   * @param lists What to allow and what to deny; at least one privilege in all.
   * @throws {VmciError} INVALID_ARGS for an unknown resource or client, or no privilege at all; INVALID_PRIV for a
   * privilege that the resource does not have (nothing is changed then); NO_ACCESS without CH_PRIV on the resource, or
   * without ASSIGN_CLIENT on the group; NO_RESOURCES when the owner's context has its quota of entries;
   * UNAVAILABLE when the resource lives on without its creator.
   *
   * @example
   * ```ts
   * import { contextHandle, openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(128);
   * const { access } = vmci;
   * access.addClientPrivileges(region.handle, access.publicGroup, { allow: ["SM_ATTACH"] });
   * access.addClientPrivileges(region.handle, contextHandle(17), { deny: ["SM_ATTACH"] });
   * assertEquals(access.checkClientPrivilege(region.handle, contextHandle(17), "SM_ATTACH").code, "NO_ACCESS");
   * ```
   */
  addClientPrivileges(resource: Handle, client: Handle, lists: PrivilegeLists): void {
    const operation = "access.addClientPrivileges";
    const { allow = [], deny = [] } = lists ?? {};
    assertHandles(operation, resource, client);
    assertPrivileges(operation, resource, [...allow, ...deny]);
    this.#session.request({ operation, handle: resource }, "grant", {
      resource,
      client,
      allow: [...allow],
      deny: [...deny],
    });
  }

  /**
   * Takes privileges of a client back to "not set" (`VMCIResource_RemoveClientPrivileges`).
   *
   * @param resource The resource.
   * @param client A context's handle or a group's.
   * @param privileges Which; at least one.
   * @throws {VmciError} INVALID_ARGS for an unknown resource or client, a client with nothing set, or no privilege;
   * INVALID_PRIV for a privilege that the resource does not have; NO_ACCESS without CH_PRIV.
   *
   * @example
   * ```ts
   * import { contextHandle, openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * const client = contextHandle(16);
   * vmci.access.addClientPrivileges(endpoint.handle, client, { allow: ["DG_SEND"] });
   * vmci.access.removeClientPrivileges(endpoint.handle, client, ["DG_SEND"]);
   * assertEquals(vmci.access.checkClientPrivilege(endpoint.handle, client, "DG_SEND").code, "INVALID_PRIV");
   * ```
   */
  removeClientPrivileges(resource: Handle, client: Handle, privileges: readonly PrivilegeName[]): void {
    const operation = "access.removeClientPrivileges";
    assertHandles(operation, resource, client);
    assertPrivileges(operation, resource, privileges);
    const args = { resource, client, privileges: [...privileges] };
    this.#session.request({ operation, handle: resource }, "revoke", args);
  }

  /**
   * Takes everything back that is set for a client (`VMCIResource_RemoveAllClientPrivileges`).
   *
   * @param resource The resource.
   * @param client A context's handle or a group's.
   * @throws {VmciError} INVALID_ARGS for an unknown resource or client, or a client with nothing set; NO_ACCESS without
   * CH_PRIV.
   *
   * @example
   * ```ts
   * import { contextHandle, openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * vmci.access.addClientPrivileges(endpoint.handle, contextHandle(16), { allow: ["DG_SEND", "CH_PRIV"] });
   * vmci.access.removeAllClientPrivileges(endpoint.handle, contextHandle(16));
   * assertEquals(vmci.access.checkClientPrivilege(endpoint.handle, contextHandle(16), "CH_PRIV").granted, false);
   * ```
   */
  removeAllClientPrivileges(resource: Handle, client: Handle): void {
    const operation = "access.removeAllClientPrivileges";
    assertHandles(operation, resource, client);
    this.#session.request({ operation, handle: resource }, "revoke_all", { resource, client });
  }

  /**
   * Whether a client may do something, and what decides it (`VMCIResource_CheckClientPrivilege`). The client's own entry
   * comes first, then its groups in the order joined; the first where the privilege is set decides.
   *
   * @param resource The resource.
   * @param client A context's handle or a group's.
   * @param privilege The privilege.
   * @returns The decision.
   * @throws {VmciError} INVALID_ARGS for an unknown resource or group; INVALID_PRIV for a privilege that the resource
   * does not have.
   *
   * @example
   * ```ts
   * import { contextHandle, openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * const decision = vmci.access.checkClientPrivilege(endpoint.handle, contextHandle(2), "DG_SEND");
   * assertEquals(decision.granted, true);
   * assertEquals(decision.via, "owner");
   * ```
   */
  checkClientPrivilege(resource: Handle, client: Handle, privilege: PrivilegeName): AccessDecision {
    const operation = "access.checkClientPrivilege";
    assertHandles(operation, resource, client);
    assertPrivileges(operation, resource, [privilege]);
    const { result } = this.#session.request({ operation, handle: resource }, "check", { resource, client, privilege });
    return {
      granted: ResultCode[result.code] >= 0,
      code: result.code,
      via: result.via,
      decidedBy: result.decidedBy ?? undefined,
    };
  }

  /**
   * Makes a group of contexts.
   *
   * @returns The group; it lives until it is closed, or this program ends.
   * @throws {VmciError} NO_RESOURCES when the context has its quota.
   *
   * @example
   * ```ts
   * import { contextHandle, openVmci } from "@vmci/vmci";
   * import { assert } from "@std/assert";
   *
   * using host = await openVmci({ device: "memory:" });
   * using guest = await openVmci({ device: "memory:", contextId: 16 });
   * using endpoint = host.datagrams.create();
   * using friends = host.access.createGroup();
   * friends.add(16);
   * host.access.addClientPrivileges(endpoint.handle, friends.handle, { allow: ["DG_SEND"] });
   * assert(host.access.checkClientPrivilege(endpoint.handle, contextHandle(guest.contextId), "DG_SEND").granted);
   * ```
   */
  createGroup(): Group {
    const { result } = this.#session.request({ operation: "access.createGroup" }, "create_group", {});
    const handle = Object.freeze(result.handle);
    const group = new Group(this.#session, handle);
    this.#session.holdings.keep({
      type: "GROUP",
      handle,
      size: 0,
      creatorOnly: false,
      ticket: result.ticket,
      share: undefined,
      gone: () => this.#session.forget("GROUP", handle),
    });
    return group;
  }

  /**
   * Puts this program's context into a group (`VMCIGroup_AddMember` for oneself).
   *
   * @param group The group's handle.
   * @throws {VmciError} NO_ACCESS without CH_PRIV on the group (anyone may join the public group); INVALID_ARGS when
   * there is no such group.
   */
  joinGroup(group: Handle): void {
    const operation = "access.joinGroup";
    assertHandles(operation, group);
    const args = { group, member: this.#session.context, canAssign: false };
    this.#session.request({ operation, handle: group }, "add_member", args);
  }

  /**
   * Takes this program's context out of a group (`VMCIGroup_RemoveMember` for oneself). No right is needed.
   *
   * @param group The group's handle.
   * @throws {VmciError} INVALID_ARGS when there is no such group, or the context is not in it.
   */
  leaveGroup(group: Handle): void {
    const operation = "access.leaveGroup";
    assertHandles(operation, group);
    this.#session.request({ operation, handle: group }, "remove_member", { group, member: this.#session.context });
  }

  /**
   * Whether a context is in a group (`VMCIGroup_IsMember`).
   *
   * @param group The group's handle.
   * @param member The context's id.
   * @returns `true` when it is.
   * @throws {VmciError} INVALID_ARGS when there is no such group.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assert } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:", contextId: 16 });
   * assert(vmci.access.isGroupMember(vmci.access.publicGroup, 16));
   * ```
   */
  isGroupMember(group: Handle, member: ContextId): boolean {
    return isMember(this.#session, "access.isGroupMember", group, member);
  }
}

/**
 * A group of contexts that this program made: what is granted to it is granted to its members. Get one from
 * {@linkcode AccessControl.createGroup}.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using host = await openVmci({ device: "memory:" });
 * using guest = await openVmci({ device: "memory:", contextId: 16 });
 * using group = host.access.createGroup();
 * group.add(guest.contextId);
 * assertEquals(group.has(16), true);
 * group.remove(16);
 * assertEquals(group.has(16), false);
 * ```
 */
export class Group implements Disposable {
  /** Its handle, a client in access lists. */
  readonly handle: Handle;
  readonly #session: Session;
  #closed = false;

  /** @ignore Use {@linkcode AccessControl.createGroup}. */
  constructor(session: Session, handle: Handle) {
    this.#session = session;
    this.handle = handle;
  }

  /**
   * Puts a context in (`VMCIGroup_AddMember`).
   *
   * @param member The context's id; it must be there.
   * @param options `canAssign`: whether the member may name this group in its own grants (ASSIGN_CLIENT).
   * @throws {VmciError} INVALID_ARGS when there is no such context, or the group is closed.
   */
  add(member: ContextId, options?: { readonly canAssign?: boolean }): void {
    const operation = "group.add";
    assertContext(operation, member);
    const args = { group: this.handle, member, canAssign: options?.canAssign ?? false };
    this.#session.request({ operation, handle: this.handle }, "add_member", args);
  }

  /**
   * Takes a context out (`VMCIGroup_RemoveMember`). What it may do only through the group ends at once.
   *
   * @param member The context's id.
   * @throws {VmciError} INVALID_ARGS when it is not in the group, or the group is closed.
   */
  remove(member: ContextId): void {
    const operation = "group.remove";
    assertContext(operation, member);
    this.#session.request({ operation, handle: this.handle }, "remove_member", { group: this.handle, member });
  }

  /**
   * Whether a context is in (`VMCIGroup_IsMember`).
   *
   * @param member The context's id.
   * @returns `true` when it is.
   * @throws {VmciError} INVALID_ARGS when the group is closed.
   */
  has(member: ContextId): boolean {
    return isMember(this.#session, "group.has", this.handle, member);
  }

  /** Destroys the group (`VMCIGroup_Destroy`). Closing again does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#session.closed) return;
    this.#session.forget("GROUP", this.handle);
    this.#session.destroy("group.close", "GROUP", this.handle);
  }

  /** As {@linkcode Group.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function isMember(session: Session, operation: string, group: Handle, member: ContextId): boolean {
  assertHandles(operation, group);
  assertContext(operation, member);
  return session.request({ operation, handle: group }, "is_member", { group, member }).result.member;
}

function assertHandles(operation: string, ...handles: readonly Handle[]): void {
  if (handles.every(isHandle)) return;
  throw new VmciError("INVALID_ARGS", {
    operation,
    reason: "resources and clients are handles: { context, resource }, both unsigned 32-bit numbers",
  });
}

function assertContext(operation: string, context: ContextId): void {
  if (isId(context)) return;
  throw new VmciError("INVALID_ARGS", {
    operation,
    reason: `a context id is an unsigned 32-bit number: received ${context}`,
  });
}

function assertPrivileges(operation: string, resource: Handle, privileges: readonly PrivilegeName[]): void {
  const unknown = privileges.find((privilege) => !Object.hasOwn(Privilege, privilege));
  if (unknown !== undefined) {
    throw new VmciError("INVALID_PRIV", {
      operation,
      handle: resource,
      reason: `there is no privilege '${unknown}'; there are ${Object.keys(Privilege).join(", ")}`,
    });
  }
  if (privileges.length <= PAGE_LENGTH) return;
  throw new VmciError("INVALID_ARGS", {
    operation,
    handle: resource,
    reason: `${privileges.length} privileges for ${formatHandle(resource)} are more than there are`,
  });
}

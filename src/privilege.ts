/**
 * What a client may be allowed to do with a resource, and the coarse flags of whole contexts.
 *
 * @module
 */

/** The SDK's fine-grained privileges by name and number. */
export const Privilege = {
  /** Change who may do what. Every resource has it. */
  CH_PRIV: 0,
  /** Destroy the resource. Every resource has it. */
  DESTROY_RESOURCE: 1,
  /** Name this group as a client in one's own grants; groups have it. */
  ASSIGN_CLIENT: 2,
  /** Create datagram handles; of the API itself, no resource has it. */
  DG_CREATE: 3,
  /** Send datagrams here; datagram handles have it. */
  DG_SEND: 4,
  /** Create regions; of the API itself, no resource has it. */
  SM_CREATE: 5,
  /** Attach to this region; regions have it. */
  SM_ATTACH: 6,
} as const;

/** The name of a privilege, such as `"DG_SEND"`. */
export type PrivilegeName = keyof typeof Privilege;

/** The kinds of resources, with the numbers the SDK gives them. */
export const ResourceType = {
  /** A group of contexts. */
  GROUP: 2,
  /** A datagram handle. */
  DATAGRAM: 3,
  /** A shared-memory region. */
  SHAREDMEM: 4,
} as const;

/** The name of a kind of resource, such as `"DATAGRAM"`. */
export type ResourceTypeName = keyof typeof ResourceType;

/** The privileges that are valid on each kind of resource. */
export const validPrivileges: Readonly<Record<ResourceTypeName, readonly PrivilegeName[]>> = {
  GROUP: ["CH_PRIV", "DESTROY_RESOURCE", "ASSIGN_CLIENT"],
  DATAGRAM: ["CH_PRIV", "DESTROY_RESOURCE", "DG_SEND"],
  SHAREDMEM: ["CH_PRIV", "DESTROY_RESOURCE", "SM_ATTACH"],
};

/**
 * Coarse flags of a context. Where either side is RESTRICTED the other must be TRUSTED, or it is NO_ACCESS, whatever
 * the fine-grained privileges say.
 */
export const PrivilegeFlags = {
  /** Neither. What a process has that says nothing. */
  NONE: 0,
  /** Talks to trusted contexts only. */
  RESTRICTED: 1,
  /** May talk to restricted contexts, and may claim reserved ids. */
  TRUSTED: 2,
} as const;

/**
 * Whether two contexts may talk at all by their coarse flags.
 *
 * @param a The flags of one side, of {@linkcode PrivilegeFlags}.
 * @param b The flags of the other.
 * @returns `false` when one is RESTRICTED and the other is not TRUSTED.
 *
 * @example
 * ```ts
 * import { flagsPermit, PrivilegeFlags } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(flagsPermit(PrivilegeFlags.RESTRICTED, PrivilegeFlags.NONE), false);
 * assertEquals(flagsPermit(PrivilegeFlags.RESTRICTED, PrivilegeFlags.TRUSTED), true);
 * ```
 */
export function flagsPermit(a: number, b: number): boolean {
  const { RESTRICTED, TRUSTED } = PrivilegeFlags;
  if ((a & RESTRICTED) !== 0 && (b & TRUSTED) === 0) return false;
  return (b & RESTRICTED) === 0 || (a & TRUSTED) !== 0;
}

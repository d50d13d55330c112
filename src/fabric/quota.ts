/**
 * How much one context or one receiver may hold, so that nobody can exhaust the fabric for the others.
 *
 * @module
 */

/** The quotas of a fabric. Reaching one is NO_RESOURCES for the one who asked. */
export interface Quota {
  /** Contexts in the fabric. */
  readonly contexts: number;
  /** Processes in one context. */
  readonly clients: number;
  /** Endpoints, regions and groups of one context. */
  readonly resources: number;
  /** Regions of one context: the broker holds a descriptor for each. */
  readonly regions: number;
  /** Bytes of all regions of one context, in whole pages. */
  readonly regionBytes: number;
  /** Attachments of one context. */
  readonly attachments: number;
  /** Lanes into one process, those counted too that ended and that it has not read; each costs it 260 KiB once used. */
  readonly lanes: number;
  /** Names of one context. */
  readonly names: number;
  /** Name watches of one context: each name that comes or goes is held against all of them. */
  readonly watches: number;
  /** Entries in the access lists of all resources of one context, whoever put them there. */
  readonly grants: number;
}

/** What a fabric allows unless it is told otherwise. */
export const DEFAULT_QUOTA: Quota = Object.freeze({
  contexts: 4096,
  clients: 4096,
  resources: 65536,
  regions: 1024,
  regionBytes: 8 * 2 ** 30,
  attachments: 65536,
  lanes: 4096,
  names: 16384,
  watches: 1024,
  grants: 131072,
});

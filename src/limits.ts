/**
 * The numbers the SDK fixes.
 *
 * @module
 */

/** The size of a datagram's header in bytes. It counts against the queue's budget, and no payload goes into it. */
export const DATAGRAM_HEADER_SIZE = 24;

/** The largest datagram, header included, in bytes: 17 pages. */
export const MAX_DATAGRAM_SIZE = 69632;

/** The largest payload in bytes. */
export const MAX_PAYLOAD_SIZE: number = MAX_DATAGRAM_SIZE - DATAGRAM_HEADER_SIZE;

/** The budget of one lane in bytes, headers included; a datagram that would reach it is refused. */
export const DATAGRAM_QUEUE_SIZE: number = 2 * MAX_DATAGRAM_SIZE;

/** The longest name in the discovery service, in bytes of UTF-8. */
export const MAX_NAME_SIZE = 276;

/** The largest region in bytes: sizes are unsigned 32-bit numbers. */
export const MAX_REGION_SIZE = 0xFFFFFFFF;

/** The name under which the group of all contexts is registered in the discovery service. */
export const PUBLIC_GROUP_NAME = "vmci public group";

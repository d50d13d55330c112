/**
 * The version of this library.
 *
 * @module
 */

/** The version of this library, as published. */
export const VERSION = "0.1.0";

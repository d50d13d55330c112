/**
 * A stand-in for `@std/cli` where JSR cannot be reached: `parseArgs` only. Never published.
 *
 * @module
 */

export * from "./parse_args.ts";

/**
 * The least that a program must be allowed: the C library, by its path.
 *
 * @module
 */

/** The path, of those that the library knows, that is there on this machine. */
export const LIBC_PATH: string = [`/lib/${Deno.build.arch}-linux-gnu`, "/lib64", "/lib"]
  .map((directory) => `${directory}/libc.so.6`)
  .find(isThere) ?? "/no/libc.so.6";

/** The permission. */
export const LEAST: readonly string[] = [`--allow-ffi=${LIBC_PATH}`];

function isThere(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

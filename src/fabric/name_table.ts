/**
 * The discovery service's table: one flat map from names to resources, compared byte by byte.
 *
 * @module
 */

import type { Resource } from "./broker/entities.ts";
import { type NameEntry, PAGE_LENGTH } from "./protocol.ts";

/** So many changed names are each put into their place, more are sorted in together. */
const FEW_CHANGES = 512;

/** Names in the order of their UTF-8 bytes. */
export class NameTable {
  readonly #entries = new Map<string, Resource>();
  /** The names in order, as of the last page; nobody may ever ask for one. */
  #sorted: string[] | undefined;
  /** Those that may have come or gone since. */
  readonly #changed = new Set<string>();

  /** What a name stands for. */
  get(name: string): Resource | undefined {
    return this.#entries.get(name);
  }

  /** Puts a name in. */
  add(name: string, resource: Resource): void {
    this.#entries.set(name, resource);
    this.#noteChange(name);
  }

  /** Takes a name out. */
  remove(name: string): void {
    this.#entries.delete(name);
    this.#noteChange(name);
  }

  /** The names that begin with `prefix` and come after `after`, at most `most` of them, and whether there are more. */
  page(prefix: string, after: string | null, most: number): { entries: NameEntry[]; more: boolean } {
    const names = this.#inOrder();
    const entries: NameEntry[] = [];
    for (let i = after === null ? lowerBound(names, prefix) : upperBound(names, after); i < names.length; i++) {
      const name = names[i]!;
      if (!name.startsWith(prefix)) break;
      if (entries.length === most) return { entries, more: true };
      entries.push(nameEntry(name, this.#entries.get(name)!));
    }
    return { entries, more: false };
  }

  /** All names that begin with `prefix`, in pages. */
  *all(prefix: string): Iterable<NameEntry[]> {
    for (let after: string | null = null;;) {
      const { entries, more }: { entries: NameEntry[]; more: boolean } = this.page(prefix, after, PAGE_LENGTH);
      if (entries.length > 0) yield entries;
      if (!more) return;
      after = entries.at(-1)!.name;
    }
  }

  /** The one name, if it is there, as a page. */
  *only(name: string): Iterable<NameEntry[]> {
    const resource = this.#entries.get(name);
    if (resource !== undefined) yield [nameEntry(name, resource)];
  }

  #noteChange(name: string): void {
    if (this.#sorted === undefined) return;
    this.#changed.add(name);
    if (this.#changed.size <= Math.max(FEW_CHANGES, this.#entries.size)) return;
    // More has changed than there is.
    this.#sorted = undefined;
    this.#changed.clear();
  }

  /** All names in order. Who changes one and asks, again and again, has not all of them sorted each time. */
  #inOrder(): readonly string[] {
    const changed = this.#changed;
    if (this.#sorted === undefined) this.#sorted = [...this.#entries.keys()].sort(compareBytewise);
    else if (changed.size <= FEW_CHANGES) {
      for (const name of changed) this.#place(this.#sorted, name);
    } else {
      const kept = this.#sorted.filter((name) => !changed.has(name));
      const added = [...changed].filter((name) => this.#entries.has(name));
      // Mostly in order already, which takes little more than one look at each.
      this.#sorted = [...kept, ...added.sort(compareBytewise)].sort(compareBytewise);
    }
    changed.clear();
    return this.#sorted;
  }

  /** Puts a name where it belongs, or takes it out, if that is not so yet. */
  #place(names: string[], name: string): void {
    const at = lowerBound(names, name);
    const isIn = names[at] === name;
    if (isIn === this.#entries.has(name)) return;
    if (isIn) names.splice(at, 1);
    else names.splice(at, 0, name);
  }
}

/** A name with its resource, as it travels. */
export function nameEntry(name: string, resource: Resource): NameEntry {
  return { name, handle: resource.handle, type: resource.type };
}

/** The order of UTF-8 bytes, which is that of code points; JavaScript's own is that of UTF-16 units. */
export function compareBytewise(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return isSurrogate(x) === isSurrogate(y) ? x - y : isSurrogate(x) ? 1 : -1;
  }
  return a.length - b.length;
}

function isSurrogate(unit: number): boolean {
  return unit >= 0xD800 && unit <= 0xDFFF;
}

function lowerBound(names: readonly string[], name: string): number {
  return bisect(names, (other) => compareBytewise(other, name) < 0);
}

function upperBound(names: readonly string[], name: string): number {
  return bisect(names, (other) => compareBytewise(other, name) <= 0);
}

/** The index of the first name that is not `before`. */
function bisect(names: readonly string[], before: (name: string) => boolean): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (before(names[middle]!)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The table of names: in the order of their bytes, a page at a time. */

import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { contextHandle } from "../mod.ts";
import { Group } from "../src/fabric/broker/entities.ts";
import { compareBytewise, NameTable } from "../src/fabric/name_table.ts";

/** Where the order of UTF-16 differs from that of UTF-8: surrogates stand for more than U+E000 to U+FFFF. */
const unit = fc.constantFrom("a", "b", "\0", "ä", "\uE000", "\uFFFD", "😀", "😁", "\u{10FFFF}");
const name = fc.string({ unit, maxLength: 4 });
const resource = new Group(contextHandle(16), 16, undefined);

/** The order of bytes, from the bytes. */
function byBytes(a: string, b: string): number {
  const [x, y] = [a, b].map((it) => new TextEncoder().encode(it)) as [Uint8Array, Uint8Array];
  const i = x.findIndex((byte, i) => byte !== y[i]);
  return i < 0 ? x.length - y.length : x[i]! - (y[i] ?? -1);
}

describe("name table", () => {
  it("compares as the names' bytes compare", () => {
    fc.assert(
      fc.property(name, name, (a, b) => {
        assertEquals(Math.sign(compareBytewise(a, b)), Math.sign(byBytes(a, b)));
      }),
      { numRuns: 2000, seed: 16 },
    );
  });

  it("gives each name that begins so once, in order, however long the pages are", () => {
    fc.assert(
      fc.property(fc.uniqueArray(name), name, fc.integer({ min: 1, max: 5 }), (names, prefix, most) => {
        const table = new NameTable();
        for (const it of names) table.add(it, resource);
        const found: string[] = [];
        for (let after: string | null = null, more = true; more;) {
          const page: ReturnType<NameTable["page"]> = table.page(prefix, after, most);
          assertEquals(page.entries.length <= most, true);
          found.push(...page.entries.map((it) => it.name));
          ({ more } = page);
          assertEquals(page.entries.length === most || !more, true);
          after = found.at(-1) ?? null;
        }
        assertEquals(found, names.filter((it) => it.startsWith(prefix)).toSorted(byBytes));
        const watched = [...table.all(prefix)].flat().map((it) => it.name);
        assertEquals(watched, found);
      }),
      { seed: 16 },
    );
  });

  it("goes on after a name that went in between", () => {
    const table = new NameTable();
    for (const it of ["a1", "a2", "a3", "b"]) table.add(it, resource);
    assertEquals(table.page("a", null, 1).entries.map((it) => it.name), ["a1"]);
    table.remove("a1");
    table.add("a0", resource);
    assertEquals(table.page("a", "a1", 9), {
      entries: ["a2", "a3"].map((name) => ({ name, handle: resource.handle, type: "GROUP" })),
      more: false,
    });
  });

  it("is in order after whatever came and went in between, few names or many", () => {
    const step = fc.record({
      from: fc.nat({ max: 300 }),
      many: fc.constantFrom(0, 1, 2, 70, 600),
      comes: fc.boolean(),
      asks: fc.boolean(),
    });
    const nameOf = (i: number) => `${(i * 7919) % 601}${i % 5 === 0 ? "😀" : "\uFFFD"}`;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const table = new NameTable();
        const names = new Set<string>();
        for (const { from, many, comes, asks } of [...steps, { from: 0, many: 0, comes: true, asks: true }]) {
          for (let i = from; i < from + many; i++) {
            table[comes ? "add" : "remove"](nameOf(i), resource);
            names[comes ? "add" : "delete"](nameOf(i));
          }
          if (!asks) continue;
          assertEquals(table.page("", null, 1000).entries.map((it) => it.name), [...names].toSorted(byBytes));
        }
      }),
      { seed: 16 },
    );
  });

  it("sorts once, however often names change and are asked for; and never when they are not", () => {
    /** How many names are sorted, and put or taken from between others. */
    const work = (act: () => void): { sorted: number; placed: number } => {
      const { sort, splice } = Array.prototype;
      const done = { sorted: 0, placed: 0 };
      Array.prototype.sort = function (compare) {
        done.sorted += this.length;
        return sort.call(this, compare);
      };
      Array.prototype.splice = function (...args: Parameters<typeof splice>) {
        done.placed++;
        return splice.apply(this, args);
      };
      try {
        act();
      } finally {
        Object.assign(Array.prototype, { sort, splice });
      }
      return done;
    };
    const table = new NameTable();
    const MANY = 20_000;
    const each = (act: (name: string) => void) => {
      for (let i = 0; i < MANY; i++) act(`name ${(i * 7919) % MANY}`);
    };
    assertEquals(work(() => each((it) => table.add(it, resource))), { sorted: 0, placed: 0 });
    assertEquals(work(() => table.page("name 1", null, 3)), { sorted: MANY, placed: 0 });
    const alternate = () => {
      for (let i = 0; i < 500; i++) {
        table.add(`another ${i}`, resource);
        assertEquals(table.page("another", null, 1000).entries.length, i + 1);
      }
      for (let i = 0; i < 500; i++) {
        table.remove(`another ${i}`);
        assertEquals(table.page("another", null, 1000).entries.length, 499 - i);
      }
    };
    assertEquals(work(alternate), { sorted: 0, placed: 1000 });
    // Who leaves with all its names does not have each of them taken from between the others.
    assertEquals(work(() => each((it) => table.remove(it))), { sorted: 0, placed: 0 });
    assertEquals(work(() => table.page("", null, 3)), { sorted: 0, placed: 0 });
  });

  it("gives the one name that is meant, or nothing", () => {
    const table = new NameTable();
    table.add("a", resource);
    assertEquals([...table.only("a")], [[{ name: "a", handle: resource.handle, type: "GROUP" }]]);
    assertEquals([...table.only("b")], []);
    assertEquals(table.get("b"), undefined);
  });
});

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

  it("gives the one name that is meant, or nothing", () => {
    const table = new NameTable();
    table.add("a", resource);
    assertEquals([...table.only("a")], [[{ name: "a", handle: resource.handle, type: "GROUP" }]]);
    assertEquals([...table.only("b")], []);
    assertEquals(table.get("b"), undefined);
  });
});

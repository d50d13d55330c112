/** SPECIFICATION.md: that what it says is proven is, as far as names can tell. */

import { assertEquals, assertThrows } from "@std/assert";
import { declaredTests, faults, ownFaults, promises } from "./tools/specification.ts";

const FILE = 'Deno.test("one", () => {});\n  it("two", () => {});\n// Deno.test("three", () => {});\n';

function faultsOf(...lines: string[]): string[] {
  return faults(lines.join("\n"), (file) => file === "a_test.ts" ? FILE : undefined);
}

Deno.test("specification: every promise has a number of its own and tests that there are", () => {
  assertEquals(ownFaults(), []);
});

Deno.test("specification: what is wrong with one is found", () => {
  const good = ["# Title", "", "- **A-1** It is so, and", "  in two lines.", '  - `a_test.ts`: "one"'];
  assertEquals(faultsOf(...good), []);
  assertEquals(faultsOf(...good, '- **A-1** Again.\n  - `a_test.ts`: "two"'), ["A-1 is there twice"]);
  assertEquals(faultsOf("- **A-2** It is so."), ["A-2 names no test"]);
  assertEquals(faultsOf("- **A-3** It is so.", "  - not tested: nobody can."), []);
  assertEquals(faultsOf("- **A-4** It is so.", '  - `a_test.ts`: "three"'), [
    'A-4: a_test.ts declares no test "three"',
  ]);
  assertEquals(faultsOf("- **A-5** It is so.", '  - `b_test.ts`: "one"'), ["A-5: there is no file b_test.ts"]);
  assertEquals(faultsOf("# Title"), ["there is no promise"]);
  assertThrows(() => faultsOf("- **A-6** It is so.", "  - I have seen it"), Error, "A-6: 'I have seen it' is not");
});

Deno.test("specification: promises are read across lines, until the list ends", () => {
  const text =
    '- **A-1** First,\n  longer.\n  - `a.ts`: "a name\n    in two lines"\n\n## Next\n\n- no promise\n- **B-12** Second.\n';
  assertEquals(promises(text), [
    {
      number: "A-1",
      text: "First, longer.",
      proofs: [{ file: "a.ts", name: "a name in two lines" }],
      untested: undefined,
    },
    { number: "B-12", text: "Second.", proofs: [], untested: undefined },
  ]);
});

Deno.test("specification: tests are found however they are declared", () => {
  const source = [
    'Deno.test("plain \\"quoted\\"", () => {});',
    'Deno.test({ name: "with options", fn() {} });',
    "test(`of ${many}`, async () => {});",
    'test.alone("alone", body);',
    'Deno.test(\n  asRoot("for root"),\n  body);',
    'await t.step("a step", body);',
    'Deno.test.ignore("ignored", body);',
    'latest("no test");',
    ' * test("in a comment", body);',
  ].join("\n");
  const names = ['plain "quoted"', "with options", "of ${many}", "alone", "for root", "a step"];
  assertEquals(declaredTests(source), names);
});

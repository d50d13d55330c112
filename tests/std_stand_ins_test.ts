/** The stand-ins for @std behave as the originals do, in what this project uses of them. */

import { assertEquals, AssertionError, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";
import { parseArgs as parseArgsOfMod } from "@std/cli";
import { beforeEach, describe, it } from "@std/testing/bdd";

/** Fails to compile unless both types are the same. */
function sameType<A, B>(_same: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false) {}

describe("parseArgs", () => {
  it("is the same from both entries", () => assertStrictEquals(parseArgs, parseArgsOfMod));

  it("parses the samples' options", () => {
    const options = {
      boolean: ["server", "client", "help"],
      string: ["device", "context"],
      alias: { device: "d", server: "s", client: "c", help: "h" },
    } as const;
    const none = { s: false, c: false, h: false, server: false, client: false, help: false, _: [] };
    assertEquals(parseArgs([], options), none);
    assertEquals(parseArgs(["-s"], options), { ...none, s: true, server: true });
    const device = { d: "/dev/vmci", device: "/dev/vmci" };
    assertEquals(parseArgs(["-c", "-d", "/dev/vmci"], options), { ...none, ...device, c: true, client: true });
    assertEquals(parseArgs(["--device=/dev/vmci"], options), { ...none, ...device });
    assertEquals(parseArgs(["--device", "/dev/vmci", "x"], options), { ...none, ...device, _: ["x"] });
    assertEquals(parseArgs(["-sd", "/dev/vmci"], options), { ...none, ...device, s: true, server: true });
    assertEquals(parseArgs(["-d"], options), { ...none, d: "", device: "" });
    const args = parseArgs(["--context", "16"], options);
    assertEquals(args, { ...none, context: "16" });
    sameType<typeof args.server, boolean>(true);
    sameType<typeof args.device, string | undefined>(true);
    sameType<typeof args._, (string | number)[]>(true);
  });

  it("turns what looks like a number into one, unless it is declared a string", () => {
    assertEquals(parseArgs(["--n=3", "-m5", "--hex", "0x10", "7"]), { n: 3, m: 5, hex: 16, _: [7] });
    assertEquals(parseArgs(["--n=3", "7"], { string: ["n", "_"] }), { n: "3", _: ["7"] });
  });

  it("gives defaults, by every name", () => {
    const args = parseArgs(["--json"], { boolean: "json", string: "cid", default: { cid: "2" }, alias: { cid: "C" } });
    assertEquals(args, { json: true, cid: "2", C: "2", _: [] });
    sameType<typeof args.cid, string>(true);
  });

  it("collects", () => {
    const args = parseArgs(["--context=2=a", "--context", "16=b"], { string: ["context"], collect: ["context"] });
    assertEquals(args, { context: ["2=a", "16=b"], _: [] });
    sameType<typeof args.context, string[]>(true);
    assertEquals(parseArgs([], { string: "context", collect: "context" }), { context: [], _: [] });
  });

  it("negates what may be negated", () => {
    const options = { boolean: ["color"], negatable: ["color"], default: { color: true } } as const;
    assertEquals(parseArgs(["--no-color"], options).color, false);
    assertEquals(parseArgs([], options).color, true);
    assertEquals(parseArgs(["--no-sound"], options), { color: true, "no-sound": true, _: [] });
  });

  it("stops early, and at --", () => {
    assertEquals(parseArgs(["serve", "--json", "5"], { stopEarly: true }), { _: ["serve", "--json", "5"] });
    assertEquals(parseArgs(["a", "--", "-b", "3"]), { _: ["a", "-b", "3"] });
    const args = parseArgs(["a", "--", "-b"], { "--": true });
    assertEquals(args, { _: ["a"], "--": ["-b"] });
    sameType<typeof args["--"], string[]>(true);
  });

  it("tells what it does not know", () => {
    const seen: unknown[][] = [];
    const unknown = (...what: unknown[]) => {
      seen.push(what);
      return false;
    };
    assertEquals(
      parseArgs(["--what", "7", "-x", "--json", "--name=", "y"], { boolean: "json", string: "name", unknown }),
      {
        json: true,
        _: [],
      },
    );
    assertEquals(seen, [["--what", "what", "7"], ["-x", "x", true], ["--name=", "name=", "y"]]);
  });

  it("reads true and false of booleans", () => {
    assertEquals(parseArgs(["--a", "false", "--b=false", "-c", "true"], { boolean: ["a", "b", "c"] }), {
      a: false,
      b: false,
      c: true,
      _: [],
    });
  });
});

describe("assertions", () => {
  let calls = 0;
  beforeEach(() => void calls++);

  it("name what differs", () => {
    const error = assertThrows(() => assertEquals({ a: 1n }, { a: 2n }, "numbers"), AssertionError, "numbers");
    assertEquals(/a: 1n.*a: 2n/s.test(error.message), true);
    assertEquals(new Uint8Array([1, 2]), new Uint8Array([1, 2]));
  });

  it("ask for the right error", async () => {
    assertEquals(
      assertThrows(
        () => {
          throw new RangeError("x is too big");
        },
        RangeError,
        "too big",
      ) instanceof RangeError,
      true,
    );
    assertThrows(() => assertThrows(() => {}, RangeError), AssertionError, "Expected function to throw");
    assertThrows(() => assertThrows(() => JSON.parse("{"), RangeError), AssertionError, `"RangeError"`);
    await assertRejects(() => Promise.reject(new RangeError("no")), RangeError, "no");
    await assertRejects(
      () =>
        assertRejects(() => {
          throw new Error("at once");
        }),
      AssertionError,
      "Function throws when expected to reject",
    );
  });

  it("ran the hook before each", () => assertEquals(calls, 3));
});

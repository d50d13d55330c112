/** A daemon's policy as text: what each rule says, which line counts, and each mistake with its place. */

import { assert, assertEquals, assertFalse } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { contextHandle, FIRST_VM_CONTEXT, HOST_CONTEXT, INVALID_ID, PrivilegeFlags, validPrivileges } from "../mod.ts";
import { type ContextSet, formatContexts, includesContext, Policy } from "../src/fabric/policy.ts";
import { DEFAULT_QUOTA, type Quota } from "../src/fabric/quota.ts";
import { failsSync } from "./support/failure.ts";

const { NONE, RESTRICTED, TRUSTED } = PrivilegeFlags;

function parse(...lines: string[]): Policy {
  return Policy.parse(lines.join("\n"), "policy");
}

describe("policy: what is no rule", () => {
  it("comments, blanks and the ends of lines say nothing", () => {
    for (const text of ["", "\n\n", "# allow any context all", "  \t # x\r\n\r\n", "allow any context 16 # all"]) {
      assertEquals(Policy.parse(text, "policy").contextsOf({ uid: 0, gid: 0 }), text.startsWith("a") ? [[16, 16]] : []);
    }
    assertEquals(parse("\tallow   uid\t5 context 16\r").contextsOf({ uid: 5, gid: 0 }), [[16, 16]]);
  });

  it("where nothing is said nobody may be anything, and has the common quota", () => {
    const policy = parse();
    assertEquals(policy.contextsOf({ uid: 0, gid: 0 }), []);
    assertEquals(policy.flagsOf(HOST_CONTEXT), undefined);
    assertEquals(policy.quotaOf(HOST_CONTEXT), DEFAULT_QUOTA);
    assertEquals(policy.grantsFor("DATAGRAM", HOST_CONTEXT), []);
  });
});

describe("policy: allow", () => {
  const policy = parse("allow uid 1000 context 16-31", "allow gid 100 context 2,40", "allow any context 50");

  it("counts the user, the group and whoever it is together", () => {
    assertEquals(policy.contextsOf({ uid: 1000, gid: 100 }), [[16, 31], [2, 2], [40, 40], [50, 50]]);
    assertEquals(policy.contextsOf({ uid: 1000, gid: 1000 }), [[16, 31], [50, 50]]);
    assertEquals(policy.contextsOf({ uid: 100, gid: 100 }), [[2, 2], [40, 40], [50, 50]]);
    assertEquals(policy.contextsOf({ uid: 0, gid: 0 }), [[50, 50]]);
  });

  it("'all' is every context, whatever else is said", () => {
    const everything = parse("allow uid 0 context 16", "allow uid 0 context all", "allow uid 0 context 17");
    assertEquals(everything.contextsOf({ uid: 0, gid: 0 }), "all");
    assertEquals(everything.contextsOf({ uid: 1, gid: 0 }), []);
  });
});

describe("policy: flags and quota", () => {
  it("of several lines that fit the last one counts", () => {
    const policy = parse(
      "flags restricted context all",
      "flags trusted context 16-20",
      "flags none context 18",
      "flags restricted context 20,2",
    );
    const flags = [2, 16, 17, 18, 19, 20, 21].map((context) => policy.flagsOf(context));
    assertEquals(flags, [RESTRICTED, TRUSTED, TRUSTED, NONE, TRUSTED, RESTRICTED, RESTRICTED]);
  });

  it("each kind of quota can be set, for some or for all", () => {
    for (const name of Object.keys(DEFAULT_QUOTA) as (keyof Quota)[]) {
      const policy = parse(`quota ${name} 7 context 16`, `quota ${name} 9`, `quota ${name} 0 context 17-18`);
      assertEquals([16, 17, 19].map((context) => policy.quotaOf(context)[name]), [9, 0, 9]);
      assertEquals({ ...policy.quotaOf(16), [name]: DEFAULT_QUOTA[name] }, DEFAULT_QUOTA);
    }
    const common = { ...DEFAULT_QUOTA, names: 3, lanes: 4 };
    const policy = parse(`quota lanes ${Number.MAX_SAFE_INTEGER}`);
    assertEquals(policy.quotaOf(16, common), { ...common, lanes: Number.MAX_SAFE_INTEGER });
    assertEquals(common.lanes, 4);
  });
});

describe("policy: grant", () => {
  it("says what is granted on whose resources to whom", () => {
    const policy = parse(
      "grant DG_SEND on DATAGRAM of 16-31 to 2",
      "grant SM_ATTACH on SHAREDMEM to public",
      "grant CH_PRIV on DATAGRAM of all to 40",
    );
    const send = { type: "DATAGRAM", owners: [[16, 31]], client: contextHandle(2), privilege: "DG_SEND" } as const;
    const change = { type: "DATAGRAM", owners: "all", client: contextHandle(40), privilege: "CH_PRIV" } as const;
    const attach = { type: "SHAREDMEM", owners: "all", client: undefined, privilege: "SM_ATTACH" } as const;
    assertEquals(policy.grantsFor("DATAGRAM", 31), [send, change]);
    assertEquals(policy.grantsFor("DATAGRAM", 32), [change]);
    assertEquals(policy.grantsFor("SHAREDMEM", 2), [attach]);
    assertEquals(policy.grantsFor("GROUP", 16), []);
  });

  it("knows each privilege of each kind of resource", () => {
    for (const [type, privileges] of Object.entries(validPrivileges)) {
      for (const privilege of privileges) {
        const [grant] = parse(`grant ${privilege} on ${type} to public`).grantsFor(type as "GROUP", 16);
        assertEquals(grant?.privilege, privilege);
      }
    }
  });
});

describe("policy: mistakes", () => {
  const quotas = Object.keys(DEFAULT_QUOTA).join(", ");
  const ofDatagrams = "it has CH_PRIV, DESTROY_RESOURCE, DG_SEND";
  const noContext = (word: string) => `'${word}' is no context: the host is 2, virtual machines have 16 and up`;
  /** Each with what is said of it. */
  const mistakes: Readonly<Record<string, string>> = {
    "permit any context 16": "'permit' is no rule: there are allow, flags, quota and grant",
    "ALLOW any context 16": "'ALLOW' is no rule: there are allow, flags, quota and grant",
    "allow": "the line ends where one of uid, gid, any should be",
    "allow user 5 context 16": "'user' should be one of uid, gid, any",
    "allow uid": "the line ends where a uid should be",
    "allow uid root context 16": "'root' should be a uid of at most 4294967295",
    "allow gid -1 context 16": "'-1' should be a gid of at most 4294967295",
    "allow uid 4294967296 context 16": "'4294967296' should be a uid of at most 4294967295",
    "allow uid 5": "the line ends where 'context' should be",
    "allow uid 5 contexts 16": "'context' should be where 'contexts' is",
    "allow any context": "the line ends where contexts, as 16-31,40, or all should be",
    "allow any context 16 17": "'17' is one word too many",
    "allow any context 16, 17": noContext(""),
    "allow any context 0": noContext("0"),
    "allow any context 1": noContext("1"),
    "allow any context 3": noContext("3"),
    "allow any context 15-16": noContext("15"),
    "allow any context 4294967295": noContext("4294967295"),
    "allow any context 16-": noContext(""),
    "allow any context 0x10": noContext("0x10"),
    "allow any context 16-18-20": "'16-18-20' should be one context or a range, as 16-31",
    "allow any context 31-16": "the range 31-16 ends before it begins",
    "flags": "the line ends where one of none, restricted, trusted should be",
    "flags TRUSTED context 16": "'TRUSTED' should be one of none, restricted, trusted",
    "flags trusted 16": "'context' should be where '16' is",
    "quota": `the line ends where one of ${quotas} should be`,
    "quota bytes 5": `'bytes' should be one of ${quotas}`,
    "quota lanes": "the line ends where a number should be",
    "quota lanes 1e3": `'1e3' should be a number of at most ${Number.MAX_SAFE_INTEGER}`,
    "quota lanes 9007199254740992": `'9007199254740992' should be a number of at most ${Number.MAX_SAFE_INTEGER}`,
    "quota lanes 5 of 16": "'of' is one word too many",
    "quota lanes 5 context": "the line ends where contexts, as 16-31,40, or all should be",
    "grant": "the line ends where a privilege should be",
    "grant DG_SEND": "the line ends where 'on' should be",
    "grant DG_SEND at DATAGRAM": "'on' should be where 'at' is",
    "grant DG_SEND on MAILBOX to 2": "'MAILBOX' should be one of GROUP, DATAGRAM, SHAREDMEM",
    "grant SM_ATTACH on DATAGRAM to 2": `SM_ATTACH is no privilege of DATAGRAM: ${ofDatagrams}`,
    "grant constructor on DATAGRAM to 2": `constructor is no privilege of DATAGRAM: ${ofDatagrams}`,
    "grant DG_SEND on DATAGRAM": "the line ends where 'to' should be",
    "grant DG_SEND on DATAGRAM of to 2": noContext("to"),
    "grant DG_SEND on DATAGRAM to": "the line ends where a context should be",
    "grant DG_SEND on DATAGRAM to everybody": noContext("everybody"),
    "grant DG_SEND on DATAGRAM to 16-31": noContext("16-31"),
    "grant DG_SEND on DATAGRAM to 2 3": "'3' is one word too many",
  };
  for (const [line, reason] of Object.entries(mistakes)) {
    it(`${line}`, () => {
      const text = `# first\n\nallow any context 16\n${line} # here\nallow any context nonsense`;
      const error = failsSync("INVALID_ARGS", () => Policy.parse(text, "/etc/vmci"), { operation: "read the policy" });
      assertEquals(error.reason, `/etc/vmci:4: ${reason}`);
    });
  }
});

describe("policy: sets of contexts", () => {
  const context = fc.oneof(fc.constant(HOST_CONTEXT), fc.integer({ min: FIRST_VM_CONTEXT, max: INVALID_ID - 1 }));
  const range = fc.tuple(context, context).map(([a, b]): [number, number] => a < b ? [a, b] : [b, a]);
  const set: fc.Arbitrary<ContextSet> = fc.oneof(fc.constant("all" as const), fc.array(range, { minLength: 1 }));

  it("are read as they are written", () => {
    fc.assert(
      fc.property(set, (contexts) => {
        const policy = parse(`allow any context ${formatContexts(contexts)}`);
        assertEquals(policy.contextsOf({ uid: 1, gid: 1 }), contexts);
      }),
      { seed: 16 },
    );
  });

  it("have both ends of their ranges, and nothing outside", () => {
    const contexts = [[16, 18], [40, 40]] as const;
    assertEquals([15, 16, 18, 19, 39, 40, 41].filter((it) => includesContext(contexts, it)), [16, 18, 40]);
    assert(includesContext("all", 12345));
    assertFalse(includesContext([], 16));
  });
});

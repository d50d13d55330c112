/** The library used wrongly: whatever a program does with it, no signal ends its process. */

import { assertEquals } from "@std/assert";
import { OwnDirectory, Program, run } from "../support/program.ts";

const PROGRAM = "tests/faults/hostile_support/misuse.ts";

/** What each case prints. */
const expected: Readonly<Record<string, string>> = {
  "everything after close": '[0,null,"INVALID_RESOURCE"]',
  "close twice, thrice, from everywhere": "[true,false,true]",
  "detach while views of every kind live": "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]",
  "transfer the buffer away, then detach": "[1,9,false]",
  "transfer to another length, and resize": '["TypeError","false"]',
  // What was moved is no memory of the region's any more once that is detached.
  "structuredClone of everything": "[1,true,1048576,0,5]",
  "hand the buffer to a thread that goes on reading, and detach": "1048576",
  "keep a view in a thread after this one has left": "[1048576,77]",
  "use one device from two threads": '[4950,"sent"]',
  "use objects of another thread's device": '["undefined","TypeError","TypeError"]',
  "a thread ends with its device open": "5",
  "crypto in flight at close": "12",
  "files written and read at close": "12",
  "sockets written and read at close": "8",
  "wait for everything at close":
    '["INVALID_RESOURCE","INVALID_RESOURCE","INVALID_RESOURCE","INVALID_RESOURCE","INVALID_RESOURCE",' +
    '"INVALID_RESOURCE","ok"]',
  "close from within what one waits for": '["INVALID_RESOURCE","RangeError","ok"]',
  "close in a condition: at its first look, while it spins, when it is parked": JSON.stringify(
    [0, 50].flatMap(() => [
      ...Array(6).fill("INVALID_RESOURCE"),
      // What was found by a first look was found before it was closed, for all that anybody can tell.
      "ok",
      ...Array(5).fill("INVALID_RESOURCE"),
    ]),
  ),
  "block, and close in the condition": JSON.stringify(
    [0, 50].flatMap(() => ["INVALID_RESOURCE", "INVALID_RESOURCE", "ok", "ok"]),
  ),
  "change in a condition what it looks at": JSON.stringify(
    [0, 50].flatMap(() => ["TIMEOUT", "TimeoutError", "TIMEOUT"]),
  ),
  "wait in a condition": '["TIMEOUT","TIMEOUT"]',
  "abort in a condition": '["RangeError","RangeError"]',
  "throw in iterators, and leave them": '[0,"RangeError",1,true]',
  "two waits, one wakes the other's end": '"INVALID_RESOURCE"',
  "exit in a callback": '"left"',
  "a rejection that nobody handles": '"INVALID_RESOURCE"',
  "hold on to what the collector was told to take": "[4,1048576,true]",
  "arguments that are none": "[]",
  "buffers that change while they are sent and received": '["NO_MEM",64,"NO_MEM",64,0]',
  "a region's memory sent through a datagram to itself": "[60000,60000]",
  "a reader writes to what it may only read": '["NO_ACCESS",0,9,8]',
  "leave while the broker's thread is this process' own": "2",
};

/** So many cases go into one process. */
const GROUP = 5;

/** What has not ended after so many milliseconds never will. */
const ENDLESS = 120_000;

Deno.test("misuse: every case is known here", async () => {
  const { stdout } = await run(PROGRAM, [], { permissions: ["--allow-all"] });
  assertEquals(JSON.parse(stdout), Object.keys(expected));
});

// What ends its process is the last of it.
const ending = "exit in a callback";
const names = [...Object.keys(expected).filter((name) => name !== ending), ending];
for (let first = 0; first < names.length; first += GROUP) {
  const group = names.slice(first, first + GROUP);
  Deno.test(`misuse: ${group.join("; ")}`, async () => {
    await using directory = await OwnDirectory.make();
    await using program = new Program(PROGRAM, [directory.path, ...group], {
      permissions: ["--allow-all", "--v8-flags=--expose-gc"],
    });
    const bound = setTimeout(() => program.kill("SIGKILL"), ENDLESS);
    const { code, signal, stdout, stderr } = await program.ended.finally(() => clearTimeout(bound));
    const output = group.map((name) => expected[name]).join("\n");
    assertEquals({ code, signal, stdout: stdout.trimEnd() }, { code: 0, signal: null, stdout: output }, stderr);
  });
}

/** The text of `.vmx` files: what is read, and that what is not changed stays byte for byte. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { VmxError, VmxText } from "../src/vmx/vmx_text.ts";

const encoder = new TextEncoder();

function parse(text: string): VmxText {
  return VmxText.parse(encoder.encode(text));
}

function textOf(vmx: VmxText): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(vmx.bytes);
}

Deno.test("vmx text: keys are found in any case, with quotes or without, spaces or none, and comments behind", () => {
  const vmx = parse(
    '#!/usr/bin/vmware\n.encoding = "UTF-8"\n\n  vmci0.present="TRUE"\nVMCI0.ID = 16 # by hand\n# x = "y"\n' +
      'displayName = "a |22quoted|22 |7c name" # "really"\nempty = ""\nbare =\ncpuid.0 = "--:-"',
  );
  assertEquals(vmx.entries, [
    { key: ".encoding", value: "UTF-8", line: 2 },
    { key: "vmci0.present", value: "TRUE", line: 4 },
    { key: "VMCI0.ID", value: "16", line: 5 },
    { key: "displayName", value: 'a "quoted" | name', line: 7 },
    { key: "empty", value: "", line: 8 },
    { key: "bare", value: "", line: 9 },
    { key: "cpuid.0", value: "--:-", line: 10 },
  ]);
  assertEquals([vmx.get("vmci0.id"), vmx.get("VMCI0.PRESENT"), vmx.get("x"), vmx.get("vmci0")], [
    "16",
    "TRUE",
    undefined,
    undefined,
  ]);
  assertEquals([...vmx.duplicates, ...vmx.strange], []);
});

Deno.test("vmx text: a value changes in its place, and the line around it stays", () => {
  const text = '\tvmci0.Present\t=  "FALSE"  # off\r\nvmci0.id = 16\r\nlast = "1"';
  assertEquals(
    textOf(parse(text).with("vmci0.present", "TRUE").with("VMCI0.ID", "-1")),
    '\tvmci0.Present\t=  "TRUE"  # off\r\nvmci0.id = "-1"\r\nlast = "1"',
  );
});

Deno.test("vmx text: a new key goes to the end, with the file's own ends of lines", () => {
  const added = (text: string) => textOf(parse(text).with("vmci0.present", "TRUE"));
  assertEquals(added('a = "1"\n'), 'a = "1"\nvmci0.present = "TRUE"\n');
  assertEquals(added('a = "1"\r\nb = "2"\r\n'), 'a = "1"\r\nb = "2"\r\nvmci0.present = "TRUE"\r\n');
  assertEquals(added('a = "1"\r\nb = "2"'), 'a = "1"\r\nb = "2"\r\nvmci0.present = "TRUE"\r\n');
  assertEquals(added(""), 'vmci0.present = "TRUE"\n');
  assertEquals(added("\ufeff"), '\ufeffvmci0.present = "TRUE"\n');
  assertEquals(added("\n"), '\nvmci0.present = "TRUE"\n');
});

Deno.test("vmx text: a value that is there already changes nothing, not even the object", () => {
  const vmx = parse("vmci0.id = 16 \n");
  assertStrictEquals(vmx.with("vmci0.id", "16"), vmx);
});

Deno.test("vmx text: keys that differ in case only are duplicates, reported, and never guessed between", () => {
  const vmx = parse('msg.autoAnswer = "TRUE"\nvmci0.id = "16"\nmsg.autoanswer = "TRUE"\nVMCI0.id = "17"\n');
  assertEquals([...vmx.duplicates], [["msg.autoanswer", [1, 3]], ["vmci0.id", [2, 4]]]);
  const error = assertThrows(() => vmx.with("vmci0.id", "18"), VmxError);
  assertEquals(error.message, "vmci0.id is there 2 times, in lines 2, 4: delete all but one");
  assertEquals(vmx.get("vmci0.id"), "16");
});

Deno.test("vmx text: lines that are no entries are told by their number", () => {
  const vmx = parse('a = "1\nb "2"\nc = "x"y"\n= "3"\nd = "4" e = "5"\nf = "6"\n');
  assertEquals([vmx.strange, vmx.entries], [[1, 2, 3, 4, 5], [{ key: "f", value: "6", line: 6 }]]);
});

Deno.test("vmx text: values are shown in the file's encoding", () => {
  const bytes = (...parts: (string | number)[]) =>
    Uint8Array.from(parts.flatMap((part) => typeof part === "number" ? [part] : [...encoder.encode(part)]));
  const name = (...parts: (string | number)[]) => VmxText.parse(bytes(...parts)).get("n");
  assertEquals(name('.encoding = "windows-1252"\nn = "M', 0xfc, 'ller"'), "Müller");
  assertEquals(name('.encoding = "GBK"\nn = "', 0xd6, 0xd0, '"'), "中");
  // The second byte of this one is a pipe.
  assertEquals(name('.encoding = "Shift_JIS"\nn = "', 0x83, 0x7c, '"'), "ポ");
  assertEquals(name('n = "Müller"'), "Müller");
  assertEquals(name('n = "M', 0xfc, 'ller"'), "Müller");
  assertEquals(name('.encoding = "Klingon"\nn = "M', 0xfc, 'ller"'), "Müller");
  assertEquals(name('n = "M|c3|BCller"'), "Müller");
});

Deno.test("vmx text: UTF-16 and other files with zero bytes are refused", () => {
  assertThrows(() => VmxText.parse(new Uint8Array([0xff, 0xfe, 0x61, 0])), VmxError, "it has zero bytes in it");
});

Deno.test("vmx text: a key or value that would break the file is refused", () => {
  const vmx = parse('a = "1"\n');
  for (const key of ["", "a b", "a=", 'a"', "#a", "a\n"]) assertThrows(() => vmx.with(key, "1"), VmxError);
  for (const value of ["1\n", "\r", "ü", "\0"]) assertThrows(() => vmx.with("a", value), VmxError);
  assertEquals(parse(textOf(vmx.with("a", 'x"|y'))).get("a"), 'x"|y');
});

const eol = fc.constantFrom("\n", "\r\n");
const blank = fc.constantFrom("", " ", "\t", "  ");
const keys = ["vmci0.present", "VMCI0.Present", "vmci0.id", "displayName", ".encoding", "sched.cpu.units"];
/** Bytes as characters, but those that VMware itself could not have in a value. */
const content = fc.string({ unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)) })
  .map((text) => text.replace(/[\r\n"]/g, ""));
const entry = fc.tuple(blank, fc.constantFrom(...keys), blank, blank, content, blank)
  .map(([a, key, b, c, value, d]) => `${a}${key}${b}=${c}"${value}"${d}`);
const line = fc.oneof(entry, content.map((text) => `#${text}`), blank, content);
const file = fc.tuple(fc.array(fc.tuple(line, eol)), line, fc.boolean()).map(([lines, last, bom]) =>
  (bom ? "\xef\xbb\xbf" : "") + lines.map((it) => it.join("")).join("") + last
);
const toBytes = (text: string) => Uint8Array.from(text, (it) => it.charCodeAt(0));
const toText = (bytes: Uint8Array) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const settings = fc.record({
  key: fc.constantFrom(...keys),
  value: fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)) }),
});

Deno.test("vmx text: any bytes without zeroes come back as they were", () => {
  fc.assert(
    fc.property(fc.uint8Array({ min: 1, max: 255, maxLength: 400 }), (bytes) => {
      assertEquals(VmxText.parse(bytes).bytes, Uint8Array.from(bytes));
    }),
    { seed: 16 },
  );
  fc.assert(
    fc.property(file, (text) => {
      assertEquals(toText(VmxText.parse(toBytes(text)).bytes), text);
    }),
    { seed: 16 },
  );
});

Deno.test("vmx text: a change is read back, and all before and behind the value stays byte for byte", () => {
  fc.assert(
    fc.property(file, settings, (text, { key, value }) => {
      const before = VmxText.parse(toBytes(text));
      if (before.duplicates.has(key.toLowerCase())) {
        assertThrows(() => before.with(key, value), VmxError);
        return;
      }
      const after = before.with(key, value);
      const changed = toText(after.bytes);
      assertEquals(after.get(key), value);
      assertEquals(VmxText.parse(after.bytes).get(key), value);
      // No other entry changed: a new encoding may show the same bytes otherwise.
      const others = (vmx: VmxText) => vmx.entries.filter((it) => it.key.toLowerCase() !== key.toLowerCase());
      if (key !== ".encoding") assertEquals(others(after), others(before));
      assertEquals(after.strange, before.strange);
      const old = before.entries.find((it) => it.key.toLowerCase() === key.toLowerCase());
      if (old === undefined) {
        assert(changed.startsWith(text));
        assert(/^(?:\r?\n)?[\w.]+ = "[^"]*"\r?\n$/.test(changed.slice(text.length)), changed.slice(text.length));
        return;
      }
      // One value lies between the longest equal start and the longest equal end: within one line, that of the entry.
      const lines = (it: string) => it.split("\n");
      assertEquals(lines(changed).length, lines(text).length);
      const different = lines(text).flatMap((it, i) => it === lines(changed)[i] ? [] : [i + 1]);
      assert(different.every((it) => it === old.line), `${different} besides ${old.line}`);
      const around = (it: string) => /^([^"=]*=[ \t]*)(?:"[^"]*"|[^"#\r]*?)([ \t]*(?:#.*)?\r?)$/.exec(it)!.slice(1);
      assertEquals(around(lines(changed)[old.line - 1]!), around(lines(text)[old.line - 1]!));
    }),
    { numRuns: 500, seed: 16 },
  );
});

Deno.test("vmx text: what one change does, the opposite undoes", () => {
  fc.assert(
    fc.property(file, settings, (text, { key, value }) => {
      const vmx = VmxText.parse(toBytes(`${text}\nmine = "old"\n`));
      if (vmx.duplicates.has(key.toLowerCase())) return;
      assertEquals(vmx.with("MINE", value).with("mine", "old").bytes, vmx.bytes);
    }),
    { seed: 16 },
  );
});

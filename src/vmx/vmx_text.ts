/**
 * The text of a `.vmx` file: lines of `key = "value"`, read and changed so that everything else stays byte for byte.
 *
 * A file is in whatever encoding its line `.encoding` names. All of them have ASCII's bytes for quotes, the equals sign
 * and the ends of lines, so lines are taken apart as bytes, and only a value that is shown is decoded.
 *
 * @module
 */

/** A line that says something. */
export interface VmxEntry {
  /** The key as it is written; VMware does not mind its case. */
  readonly key: string;
  /** The value, its `|XX` undone, decoded as the file says. */
  readonly value: string;
  /** The number of its line, from 1. */
  readonly line: number;
}

/** Where the value of an entry is written, its quotes included: places in the file's bytes. */
interface Span {
  readonly start: number;
  readonly end: number;
}

interface Placed extends VmxEntry {
  readonly span: Span;
}

/** This is no `.vmx` file, or it cannot be changed as asked; the message says why, after "Cannot ...: ". */
export class VmxError extends Error {
  /** The name of the class. */
  override readonly name = "VmxError";
}

/** A key, an equals sign, and a value with quotes or without; a comment may follow. */
const ENTRY = /^([ \t]*)([^\s="#][^\s="]*)([ \t]*=[ \t]*)(?:("[^"\r]*")|([^"#\r]*?))[ \t]*(?:#.*)?\r?$/;

/** What a line without an entry may be: nothing, or a comment. */
const IDLE = /^[ \t]*(?:#.*)?\r?$/;

const BOM = "\xef\xbb\xbf";

/** A `.vmx` file's content. It never changes; {@linkcode VmxText.with} makes another one. */
export class VmxText {
  /** The bytes, one character each. */
  readonly #text: string;
  readonly #entries: readonly Placed[] = [];
  /** The keys that are written more than once, in small letters, with their lines. VMware refuses such a file. */
  readonly duplicates: ReadonlyMap<string, readonly number[]>;
  /** The numbers of the lines that are neither entries nor comments nor empty. */
  readonly strange: readonly number[];

  private constructor(text: string) {
    this.#text = text;
    const entries: { key: string; raw: string; line: number; span: Span }[] = [];
    const strange: number[] = [];
    let start = text.startsWith(BOM) ? BOM.length : 0;
    for (let line = 1; start < text.length; line++) {
      const newline = text.indexOf("\n", start);
      const end = newline === -1 ? text.length : newline;
      const content = text.slice(start, end);
      const match = ENTRY.exec(content);
      if (match !== null) {
        const [, indent, key, equals, quoted, bare] = match;
        const from = start + indent!.length + key!.length + equals!.length;
        const written = quoted ?? bare!;
        entries.push({
          key: key!,
          raw: quoted === undefined ? written : written.slice(1, -1),
          line,
          span: { start: from, end: from + written.length },
        });
      } else if (!IDLE.test(content)) {
        strange.push(line);
      }
      start = end + 1;
    }
    this.strange = strange;
    const decode = decoder(entries.find(({ key }) => key.toLowerCase() === ".encoding")?.raw, text.startsWith(BOM));
    this.#entries = entries.map(({ raw, ...entry }) => ({ ...entry, value: decode(unescape(raw)) }));
    const lines = Map.groupBy(this.#entries, ({ key }) => key.toLowerCase());
    this.duplicates = new Map(
      [...lines].filter(([, all]) => all.length > 1).map(([key, all]) => [key, all.map(({ line }) => line)]),
    );
  }

  /**
   * Reads a file's content.
   *
   * @param bytes The content.
   * @returns The text.
   * @throws {VmxError} When it is no text in an encoding that VMware writes.
   */
  static parse(bytes: Uint8Array): VmxText {
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    if (text.includes("\0")) throw new VmxError("it has zero bytes in it, so it is no .vmx file, or in UTF-16");
    return new VmxText(text);
  }

  /** The bytes to write. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return toBytes(this.#text);
  }

  /** All entries, in the file's order. */
  get entries(): readonly VmxEntry[] {
    return this.#entries.map(({ key, value, line }) => ({ key, value, line }));
  }

  /**
   * The value of a key.
   *
   * @param key The key, in any case.
   * @returns The value; `undefined` when the key is not there. Of duplicates, the first.
   */
  get(key: string): string | undefined {
    return this.#find(key)?.value;
  }

  /**
   * The text with another value for a key: in its place if it is there, in a line of its own at the end if not.
   *
   * @param key The key, in any case; written as given where it is new.
   * @param value The value, of printable ASCII.
   * @returns The new text; this one itself when the key has that value already.
   * @throws {VmxError} When the key is there more than once: VMware refuses such a file, and which one counts is open.
   */
  with(key: string, value: string): VmxText {
    if (!/^[\w.:-]+$/.test(key)) throw new VmxError(`'${key}' is no key`);
    if (!/^[\x20-\x7e]*$/.test(value)) throw new VmxError(`the value of ${key} is not printable ASCII`);
    const lines = this.duplicates.get(key.toLowerCase());
    if (lines !== undefined) {
      throw new VmxError(`${key} is there ${lines.length} times, in lines ${lines.join(", ")}: delete all but one`);
    }
    const entry = this.#find(key);
    const written = `"${escape(value)}"`;
    const text = this.#text;
    if (entry === undefined) return new VmxText(`${text}${this.#endOfLine(text)}${key} = ${written}${this.#newline()}`);
    if (entry.value === value) return this;
    return new VmxText(text.slice(0, entry.span.start) + written + text.slice(entry.span.end));
  }

  #find(key: string): Placed | undefined {
    const small = key.toLowerCase();
    return this.#entries.find((entry) => entry.key.toLowerCase() === small);
  }

  /** What ends the last line if nothing does. */
  #endOfLine(text: string): string {
    return text === "" || text === BOM || text.endsWith("\n") ? "" : this.#newline();
  }

  /** What ends lines here: as the first one does. */
  #newline(): string {
    const first = this.#text.indexOf("\n");
    return first > 0 && this.#text[first - 1] === "\r" ? "\r\n" : "\n";
  }
}

function toBytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** `|22` stands for a quote and so on: two hexadecimal digits of a byte. */
function unescape(raw: string): string {
  return raw.replace(/\|([0-9A-Fa-f]{2})/g, (_, digits) => String.fromCharCode(parseInt(digits, 16)));
}

function escape(value: string): string {
  return value.replace(/["|]/g, (it) => `|${it.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
}

/** Decodes bytes as the file says; where it says nothing that is known, as UTF-8 or else Western European ones. */
function decoder(encoding: string | undefined, bom: boolean): (bytes: string) => string {
  const labels = [bom ? "utf-8" : encoding ?? "utf-8", "utf-8", "windows-1252"];
  return (text) => {
    const bytes = toBytes(text);
    if (bytes.every((byte) => byte < 0x80)) return text;
    for (const label of labels) {
      try {
        return new TextDecoder(label, { fatal: true }).decode(bytes);
      } catch {
        // An unknown label, or other bytes than it has: the next one.
      }
    }
    return text;
  };
}

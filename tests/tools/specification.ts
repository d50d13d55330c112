/**
 * Checks SPECIFICATION.md: each promise has a number of its own, and names tests that there are.
 *
 *     deno run --allow-read tests/tools/specification.ts
 *
 * A promise is an item of a list that begins with its number in bold; the tests that prove it are the items below it,
 * each a file in backquotes and a name in quotation marks, as the file declares it. In place of tests may stand
 * `not tested:` and why.
 *
 * @module
 */

import { ROOT } from "./deno.ts";

/** One promise. */
export interface Promised {
  /** Such as `D-3`. */
  readonly number: string;
  /** What is promised. */
  readonly text: string;
  /** What proves it. */
  readonly proofs: readonly Proof[];
  /** Why nothing does. */
  readonly untested: string | undefined;
}

/** A test. */
export interface Proof {
  /** The file that declares it, from the project's root. */
  readonly file: string;
  /** Its name. */
  readonly name: string;
}

const ITEM = /^- \*\*([A-Z]+-\d+)\*\*\s+(.*)$/s;
const PROOF = /^`([^`]+)`: "(.*)"$/s;
const UNTESTED = /^not tested: (.+)$/s;
/** A declaration: what declares, and the name that it gives, also by way of a function that says where it can run. */
const DECLARATION = new RegExp(
  String.raw`^(?!\s*(?://|\*)).*?(?<![.\w])(?:Deno\.test|test|test\.alone|it|describe|t\.step)\(\s*` +
    String.raw`(?:\{\s*name:\s*|\w+\(\s*)?("(?:[^"\\\n]|\\.)*"|\x60(?:[^\x60\\]|\\.)*\x60)`,
  "gm",
);

/**
 * The promises of a specification.
 *
 * @param markdown Its text.
 * @returns The promises, in order.
 * @throws {Error} For an item below a promise that is no test.
 */
export function promises(markdown: string): Promised[] {
  return blocks(markdown, /^- /).flatMap((block) => {
    const [head, ...rest] = blocks(block, /^(?: {2})?- /);
    const match = ITEM.exec(joined(head!));
    if (match === null) return [];
    const [, number, text] = match as unknown as [string, string, string];
    let untested: string | undefined;
    const proofs = rest.flatMap((item) => {
      const line = joined(item).replace(/^- /, "");
      const why = UNTESTED.exec(line);
      if (why !== null) {
        untested = why[1];
        return [];
      }
      const proof = PROOF.exec(line);
      if (proof === null) {
        throw new Error(`${number}: '${line}' is not a file in backquotes and a test's name in quotes`);
      }
      return [{ file: proof[1]!, name: proof[2]! }];
    });
    return [{ number, text, proofs, untested }];
  });
}

/**
 * The names of the tests that a file declares.
 *
 * @param source The file's text.
 * @returns The names; of those that are put together, the template.
 */
export function declaredTests(source: string): string[] {
  return [...source.matchAll(DECLARATION)].map(([, literal]) =>
    literal!.startsWith('"') ? JSON.parse(literal!) : literal!.slice(1, -1)
  );
}

/**
 * What is wrong with a specification.
 *
 * @param markdown Its text.
 * @param read Reads a file that it names; `undefined` when there is none.
 * @returns One line for each fault.
 */
export function faults(markdown: string, read: (file: string) => string | undefined): string[] {
  const all = promises(markdown);
  const found: string[] = all.length === 0 ? ["there is no promise"] : [];
  const numbers = new Set<string>();
  const tests = new Map<string, ReadonlySet<string> | undefined>();
  for (const { number, proofs, untested } of all) {
    if (numbers.has(number)) found.push(`${number} is there twice`);
    numbers.add(number);
    if (proofs.length === 0 && untested === undefined) found.push(`${number} names no test`);
    for (const { file, name } of proofs) {
      if (!tests.has(file)) {
        const source = read(file);
        tests.set(file, source === undefined ? undefined : new Set(declaredTests(source)));
      }
      const declared = tests.get(file);
      if (declared === undefined) found.push(`${number}: there is no file ${file}`);
      else if (!declared.has(name)) found.push(`${number}: ${file} declares no test "${name}"`);
    }
  }
  return found;
}

/** Pieces of a text that begin with such a line. */
function blocks(text: string, begins: RegExp): string[] {
  const found: string[][] = [];
  let current: string[] | undefined;
  for (const line of text.split("\n")) {
    // A heading or another line that is not indented ends what was before it.
    if (begins.test(line)) found.push(current = [line]);
    else if (/^\S/.test(line)) current = undefined;
    else current?.push(line);
  }
  return found.map((lines) => lines.join("\n"));
}

/** A wrapped text in one line. */
function joined(text: string): string {
  return text.trim().replace(/\s+/g, " ");
}

/** The faults of the project's own. */
export function ownFaults(): string[] {
  return faults(Deno.readTextFileSync(`${ROOT}SPECIFICATION.md`), (file) => {
    try {
      return Deno.readTextFileSync(`${ROOT}${file}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  });
}

if (import.meta.main) {
  const found = ownFaults();
  for (const fault of found) console.error(`SPECIFICATION.md: ${fault}`);
  Deno.exit(found.length === 0 ? 0 : 1);
}

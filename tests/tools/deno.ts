/** Running this very Deno on this very project: what the tools and the tests about the project itself share. */

import { fileURLToPath, pathToFileURL } from "node:url";

/** The project's root, as a path that ends with the separator. */
export const ROOT: string = fileURLToPath(new URL("../../", import.meta.url));

/** What a run of Deno gave. */
export interface Run {
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** What is changed in the environment of a run: undefined takes a variable away. */
export type Changes = Readonly<Record<string, string | undefined>>;

/** Runs this Deno in the project's root, without colours, and collects what it prints. */
export async function deno(args: readonly string[], changes: Changes = {}): Promise<Run> {
  const env = Object.entries({ ...Deno.env.toObject(), NO_COLOR: "1", ...changes });
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    clearEnv: true,
    env: Object.fromEntries(env.filter((it): it is [string, string] => it[1] !== undefined)),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { ok: success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** The address of a file of the project. */
function addressOf(file: string): string {
  return pathToFileURL(ROOT + file).href;
}

/** The file of the project that has this address; another address as it is. */
function fileOf(address: string): string {
  const root = pathToFileURL(ROOT).href;
  return address.startsWith(root) ? decodeURIComponent(address.slice(root.length)) : address;
}

/** The source files of the project under the given folders or files, sorted. */
export async function sourceFiles(...under: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const one of under) {
    const info = await Deno.stat(ROOT + one).catch(() => undefined);
    if (info?.isFile) found.push(one);
    if (!info?.isDirectory) continue;
    for await (const entry of Deno.readDir(ROOT + one)) {
      const path = `${one}/${entry.name}`;
      if (entry.isDirectory) found.push(...await sourceFiles(path));
      else if (path.endsWith(".ts")) found.push(path);
    }
  }
  return found.sort();
}

/** The address of a program that only imports the given files; Deno must be told the `--config` with it. */
export function importing(files: readonly string[]): string {
  const imports = files.map((file) => `import ${JSON.stringify(addressOf(file))};`);
  return `data:text/javascript,${encodeURIComponent(imports.join(""))}`;
}

/** What a module imports: files of the project by their path, all else by its address. */
export interface Imports {
  /** At run time. */
  readonly code: readonly string[];
  /** At run time, and for types only. */
  readonly all: readonly string[];
}

/** The modules reached from `entries`, and what each imports. */
export async function moduleGraph(entries: readonly string[]): Promise<Map<string, Imports>> {
  const { ok, stdout, stderr } = await deno(["info", "--json", "--config", "deno.json", importing(entries)]);
  if (!ok) throw new Error(`Cannot read the graph of modules: ${stderr}`);
  const { modules } = JSON.parse(stdout) as { modules: Module[] };
  const graph = new Map<string, Imports>();
  for (const { specifier, dependencies = [], error } of modules) {
    if (error !== undefined) throw new Error(`Cannot read the graph of modules: ${fileOf(specifier)}: ${error}`);
    if (specifier.startsWith("data:")) continue;
    const code = dependencies.flatMap((it) => it.code?.specifier ?? []).map(fileOf);
    const types = dependencies.flatMap((it) => it.type?.specifier ?? []).map(fileOf);
    graph.set(fileOf(specifier), { code, all: [...new Set([...code, ...types])] });
  }
  return graph;
}

/** A module as `deno info --json` describes it. */
interface Module {
  specifier: string;
  error?: string;
  dependencies?: { code?: { specifier?: string }; type?: { specifier?: string } }[];
}

/** Every file of the project that `entry` reaches, itself included; `code`: at run time only. */
export function reachable(graph: ReadonlyMap<string, Imports>, entry: string, which: keyof Imports): Set<string> {
  const seen = new Set([entry]);
  for (const file of seen) {
    for (const next of graph.get(file)?.[which] ?? []) seen.add(next);
  }
  return seen;
}

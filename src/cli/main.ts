/**
 * The `vmci` tool: finds the command, runs it, and says what went wrong.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { VERSION } from "../version.ts";
import { type Command, ExitCode, type Parser, printJson, UsageError } from "./command.ts";
import { aclCheck } from "./acl_check.ts";
import { bench } from "./bench.ts";
import { doctor } from "./doctor.ts";
import { dsServe } from "./ds_serve.ts";
import { fabricServe } from "./fabric_serve.ts";
import { fabricStatus } from "./fabric_status.ts";
import { ls } from "./ls.ts";
import { ping } from "./ping.ts";
import { vmxCheck, vmxEnable, vmxShow } from "./vmx.ts";

const COMMANDS: readonly Command[] = [
  fabricServe,
  fabricStatus,
  ls,
  ping,
  aclCheck,
  bench,
  dsServe,
  doctor,
  vmxShow,
  vmxEnable,
  vmxCheck,
];

const HELP = `Usage: vmci COMMAND [OPTIONS]

Commands:
${COMMANDS.map(({ name, summary }) => `  ${name.padEnd(15)} ${summary}`).join("\n")}

Options of every command:
  -d, --device DEVICE   the fabric: its directory or socket; this user's own, or VMCI_FABRIC, without it
      --json            print one line of JSON, for a failure too
  -h, --help            print what the command does
      --version         print the version

Exit codes: 0 done, 1 failed or problems found, 2 wrong usage.`;

/**
 * Runs the tool.
 *
 * @param args The command line.
 * @param parse Takes the part after the command's name apart.
 * @returns The exit code.
 */
export async function run(args: readonly string[], parse: Parser): Promise<number> {
  const [first] = args;
  if (first === "--help" || first === "-h" || first === "help") return say(HELP);
  if (first === "--version") return say(`vmci ${VERSION}`);
  const command = COMMANDS.find(({ name }) => name.split(" ").every((word, i) => args[i] === word));
  if (command === undefined) return refuse(first, args);

  const options = parse(args.slice(command.name.split(" ").length), {
    texts: ["device", ...command.texts ?? []],
    lists: command.lists ?? [],
    flags: ["json", "help", ...command.flags ?? []],
    short: { device: "d", help: "h" },
  });
  if (options.flags.has("help")) return say(command.help);
  const json = options.flags.has("json");
  try {
    if (options.unknown.length > 0) throw new UsageError(`there is no option ${options.unknown[0]}`);
    const values = [
      ...Object.entries(options.texts),
      ...Object.entries(options.lists).flatMap(([name, all]) => all.map((value) => [name, value] as const)),
    ];
    const empty = values.find(([, value]) => value === "");
    if (empty !== undefined) throw new UsageError(`the option --${empty[0]} needs a value`);
    return await command.run(options, json);
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`vmci ${command.name}: ${error.message}\nvmci ${command.name} --help says more.`);
      return ExitCode.USAGE;
    }
    if (!(error instanceof VmciError)) throw error;
    const { code, number, message } = error;
    if (json) printJson({ error: { code, number, message } });
    console.error(`vmci ${command.name}: ${message}`);
    return ExitCode.FAILED;
  }
}

function say(text: string): number {
  console.log(text);
  return ExitCode.OK;
}

function refuse(first: string | undefined, args: readonly string[]): number {
  const family = COMMANDS.filter(({ name }) => name.startsWith(`${first} `));
  if (family.length > 0 && (args[1] === "--help" || args[1] === "-h")) {
    return say(family.map(({ help }) => help).join("\n\n"));
  }
  const what = first === undefined ? "which command?" : `there is no command '${args.slice(0, 2).join(" ")}'`;
  console.error(`vmci: ${what}\nvmci --help says more.`);
  return ExitCode.USAGE;
}

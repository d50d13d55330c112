/**
 * A process that does what a test tells it: each line on its standard input is a function's source with its arguments,
 * called with the {@linkcode Stage}; the answer goes to standard output. It ends with its input.
 *
 *     deno run --allow-ffi tests/faults/support/player_main.ts
 *
 * @module
 */

import { VmciError } from "../../../mod.ts";
import { openWhatDenoOpens } from "../../support/deno_sockets.ts";
import { prepareKill } from "./native_kill.ts";
import type { PlayerAnswer, PlayerCall } from "./player.ts";
import { compile, Stage } from "./stage.ts";

const encoder = new TextEncoder();

function write(text: string): void {
  let bytes = encoder.encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

const stage = new Stage(write);
prepareKill();
openWhatDenoOpens();

async function answer({ id, code, args }: PlayerCall): Promise<void> {
  let reply: PlayerAnswer;
  try {
    reply = { id, result: (await compile(code)(stage, ...args)) ?? null };
  } catch (error) {
    reply = { id, error: describe(error) };
  }
  write(`= ${JSON.stringify(reply)}\n`);
}

function describe(error: unknown): NonNullable<PlayerAnswer["error"]> {
  if (!(error instanceof VmciError)) return { message: (error as Error)?.stack ?? String(error) };
  const { code, operation, reason, handle } = error;
  return { message: error.message, vmci: { code, operation, reason, ...(handle === undefined ? {} : { handle }) } };
}

let rest = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop()!;
  for (const line of lines) void answer(JSON.parse(line));
}
Deno.exit(0);

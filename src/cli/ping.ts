/**
 * `vmci ping`.
 *
 * @module
 */

import { formatHandle, type Handle, parseHandle } from "../handle.ts";
import { VmciError } from "../error.ts";
import type { Session } from "../fabric/session.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, readNumber, UsageError } from "./command.ts";
import { observe } from "./inspect.ts";

/** Milliseconds that an answer may take. */
const PATIENCE = 5000;

/** Asks the process behind a handle for a sign of life. */
export const ping: Command = {
  name: "ping",
  summary: "ask the process behind a handle or a name for a sign of life",
  texts: ["count"],
  help: `Usage: vmci ping HANDLE|NAME [--count N] [-d DEVICE] [--json]

Asks the process behind a handle (written context:resource) or a registered name for a sign of life, and says how long
the answer took, by way of the broker. A process answers when it turns its event loop or calls this library.

  --count N   so many times, one after another; 1 without it

Exit codes: 0 it answered each time, 1 it did not within ${
    PATIENCE / 1000
  } seconds, or there is no such handle or name.`,
  async run({ operands, texts }: ParsedOptions, json: boolean): Promise<number> {
    const [target] = operands;
    if (target === undefined || operands.length > 1) throw new UsageError("give one handle or name");
    const count = readNumber("--count", texts.count ?? "1", 1, 1_000_000);
    const session = await observe(texts.device);
    try {
      const handle = /^\d+:\d+$/.test(target) ? parseHandle(target) : lookup(session, target);
      const roundTrips: number[] = [];
      let pid = 0;
      for await (const answer of answers(session, handle, count)) {
        pid = answer.pid;
        roundTrips.push(answer.milliseconds);
        if (!json) console.log(`${formatHandle(handle)} (process ${pid}) answered in ${show(answer.milliseconds)}`);
      }
      const sum = roundTrips.reduce((a, b) => a + b, 0);
      const [least, average, most] = [Math.min(...roundTrips), sum / count, Math.max(...roundTrips)];
      if (json) printJson({ handle: formatHandle(handle), pid, count, milliseconds: { least, average, most } });
      else if (count > 1) console.log(`least ${show(least)}, average ${show(average)}, most ${show(most)}`);
      return ExitCode.OK;
    } finally {
      await session.close();
    }
  },
};

function lookup(session: Session, name: string): Handle {
  return session.request({ operation: "ping" }, "lookup", { name }).result.handle;
}

async function* answers(
  session: Session,
  handle: Handle,
  count: number,
): AsyncIterable<{ readonly pid: number; readonly milliseconds: number }> {
  let answered = -1;
  session.on("pong", ({ token }) => answered = token);
  for (let token = 0; token < count; token++) {
    const start = performance.now();
    const { pid } = session.request({ operation: "ping", handle }, "ping", { handle, token }).result;
    try {
      await session.wait({ operation: "ping" }, () => answered === token ? true : undefined, { timeout: PATIENCE });
    } catch (error) {
      if (!(error instanceof VmciError) || error.code !== "TIMEOUT") throw error;
      throw new VmciError("TIMEOUT", {
        operation: "ping",
        handle,
        reason: `process ${pid}, which has ${formatHandle(handle)}, did not answer within ${PATIENCE} ms`,
      });
    }
    yield { pid, milliseconds: performance.now() - start };
  }
}

function show(milliseconds: number): string {
  return `${milliseconds.toFixed(3)} ms`;
}

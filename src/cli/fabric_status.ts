/**
 * `vmci fabric status`.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { openDevice } from "../device.ts";
import type { Session } from "../fabric/session.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, refuseOperands } from "./command.ts";
import { inspect, listNames, observe } from "./inspect.ts";

/** Says whether a fabric runs, where, and what is in it. */
export const fabricStatus: Command = {
  name: "fabric status",
  summary: "say whether a fabric runs, and where",
  help: `Usage: vmci fabric status [-d DEVICE] [--json]

Says where the fabric is, which process runs its broker, as which context a program would join that says nothing else,
and how much is in it. Never starts a fabric. Another user than the broker's is not told what is in it.

Exit codes: 0 it runs, 1 it does not, or does not answer.`,
  async run(options: ParsedOptions, json: boolean): Promise<number> {
    refuseOperands(options);
    const name = options.texts.device;
    let session: Session;
    try {
      session = await observe(name);
    } catch (error) {
      if (!json || !(error instanceof VmciError)) throw error;
      printJson({ device: await deviceOf(name), running: false, error: { code: error.code, message: error.message } });
      console.error(`vmci fabric status: ${error.message}`);
      return ExitCode.FAILED;
    }
    try {
      const { broker, context, medium: { device } } = session;
      const { pid, kind, version } = broker;
      const content = contentOf(session);
      if (json) {
        printJson({ device, running: true, pid, kind, version, context, ...content });
        return ExitCode.OK;
      }
      console.log(`device    ${device}`);
      console.log(`broker    process ${pid}, ${kind}, version ${version}`);
      console.log(`context   ${context}`);
      const { names, contexts, ...others } = content;
      console.log(`names     ${names}`);
      if (contexts !== undefined) {
        console.log(`contexts  ${contexts} with ${others.processes} processes`);
        console.log(`resources ${others.resources}, attachments ${others.attachments}, lanes ${others.lanes}`);
      }
      return ExitCode.OK;
    } finally {
      await session.close();
    }
  },
};

/** Where the device's name leads, as far as that can be told. */
async function deviceOf(name: string | undefined): Promise<string | null> {
  try {
    const { medium } = openDevice(name, false, 0);
    await medium.close(false);
    return medium.device;
  } catch (error) {
    if (error instanceof VmciError) return name ?? null;
    throw error;
  }
}

interface Content {
  readonly names: number;
  readonly contexts?: number;
  readonly processes?: number;
  readonly resources?: number;
  readonly attachments?: number;
  readonly lanes?: number;
}

function contentOf(session: Session): Content {
  const names = listNames(session).length;
  try {
    const contexts = inspect(session, "contexts");
    return {
      names,
      contexts: contexts.length,
      processes: contexts.reduce((sum, { clients }) => sum + clients, 0),
      resources: inspect(session, "resources").length,
      attachments: inspect(session, "attachments").length,
      lanes: inspect(session, "lanes").length,
    };
  } catch (error) {
    if (error instanceof VmciError && error.code === "NO_ACCESS") return { names };
    throw error;
  }
}

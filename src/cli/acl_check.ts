/**
 * `vmci acl check`.
 *
 * @module
 */

import { contextHandle, formatHandle, type Handle, parseHandle } from "../handle.ts";
import { Privilege, type PrivilegeName } from "../privilege.ts";
import { ResultCode } from "../result_code.ts";
import type { Session } from "../fabric/session.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, UsageError } from "./command.ts";
import { observe } from "./inspect.ts";

/** Says whether a client may do something, and which entry decides it. */
export const aclCheck: Command = {
  name: "acl check",
  summary: "say whether a client may do something, and what decides it",
  help: `Usage: vmci acl check CLIENT RESOURCE PRIVILEGE [-d DEVICE] [--json]

Says whether CLIENT - a context's id, or a group's handle or name - has PRIVILEGE on RESOURCE - a handle (written
context:resource) or a registered name - and what decides it: the owner's context, an own entry, a group's, the coarse
flags, or nothing.

Privileges: ${Object.keys(Privilege).join(", ")}.

Exit codes: 0 granted, 1 not granted, or there is no such client or resource.`,
  async run({ operands, texts }: ParsedOptions, json: boolean): Promise<number> {
    const [clientText, resourceText, privilege] = operands;
    if (clientText === undefined || resourceText === undefined || privilege === undefined || operands.length > 3) {
      throw new UsageError("give a client, a resource and a privilege");
    }
    if (!Object.hasOwn(Privilege, privilege)) {
      throw new UsageError(`there is no privilege '${privilege}'; there are ${Object.keys(Privilege).join(", ")}`);
    }
    const session = await observe(texts.device);
    try {
      const client = /^\d{1,10}$/.test(clientText) ? contextHandle(Number(clientText)) : find(session, clientText);
      const resource = find(session, resourceText);
      const { code, via, decidedBy } = session.request({ operation: "acl check", handle: resource }, "check", {
        resource,
        client,
        privilege: privilege as PrivilegeName,
      }).result;
      const granted = ResultCode[code] >= 0;
      if (json) {
        printJson({ client: show(client), resource: show(resource), privilege, granted, code, via, decidedBy });
      } else {
        const reason = REASONS[via](decidedBy === null ? "" : show(decidedBy));
        console.log(
          `${show(client)} ${granted ? "has" : "does not have"} ${privilege} on ${show(resource)}: ${reason}`,
        );
      }
      return granted ? ExitCode.OK : ExitCode.FAILED;
    } finally {
      await session.close();
    }
  },
};

const REASONS = {
  owner: () => "it owns the resource",
  own: (client: string) => `the entry of ${client} says so`,
  group: (group: string) => `the entry of its group ${group} says so`,
  flags: () => "one side is RESTRICTED and the other is not TRUSTED",
  nothing: () => "no entry sets it, and what is not set is denied",
} as const;

function find(session: Session, text: string): Handle {
  if (/^\d+:\d+$/.test(text)) return parseHandle(text);
  return session.request({ operation: "acl check" }, "lookup", { name: text }).result.handle;
}

function show(handle: Handle): string {
  return handle.resource === 0 ? `context ${handle.context}` : formatHandle(handle);
}

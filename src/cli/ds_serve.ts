/**
 * `vmci ds serve`.
 *
 * @module
 */

import { DS_PORT } from "../device/ds_message.ts";
import { DsService } from "../device/ds_service.ts";
import { formatHandle } from "../handle.ts";
import {
  type Command,
  ExitCode,
  type ParsedOptions,
  printJson,
  readNumber,
  refuseOperands,
  UsageError,
} from "./command.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Serves names on the host's sockets until a signal ends it. */
export const dsServe: Command = {
  name: "ds serve",
  summary: "keep names for programs on vsock: and /dev/vmci until SIGINT or SIGTERM",
  texts: ["port", "names"],
  help: `Usage: vmci ds serve [--port N] [--names N] [--json]

Keeps the names that programs register which open vsock: or /dev/vmci, on the host and in its virtual machines, until
SIGINT or SIGTERM. It speaks the SDK's own protocol. The fabric keeps its names itself and needs none of this.

  --port N    the port; ${DS_PORT} without it, which is where programs look unless their device says ds=CID:PORT
  --names N   names that one context may have; 4096 without it

A name goes with its program: at once when that closes; when the name is looked up next, if it was one on this host and
died; and within a minute, if it was one elsewhere.`,
  async run(options: ParsedOptions, json: boolean): Promise<number> {
    refuseOperands(options);
    if (options.texts.device !== undefined) {
      throw new UsageError("it serves the host's own sockets: leave out --device");
    }
    const { port, names } = options.texts;
    using service = new DsService({
      port: port === undefined ? undefined : readNumber("--port", port, 2, 0xFFFFFFFE),
      names: names === undefined ? undefined : readNumber("--names", names, 1, 1e6),
    });
    const stop = () => service.close();
    for (const signal of SIGNALS) Deno.addSignalListener(signal, stop);
    try {
      const at = formatHandle(service.address);
      if (json) printJson({ pid: Deno.pid, at });
      else console.log(`keeping names at ${at}`);
      await service.ended;
      return ExitCode.OK;
    } finally {
      for (const signal of SIGNALS) Deno.removeSignalListener(signal, stop);
    }
  },
};

/**
 * `vmci ls`.
 *
 * @module
 */

import { formatHandle } from "../handle.ts";
import type { Session } from "../fabric/session.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, UsageError } from "./command.ts";
import { inspect, listNames, observe, type ResourceView, type Views, withHandlesAsText } from "./inspect.ts";
import { printTable } from "./table.ts";

interface Listings {
  names: ReturnType<typeof listNames>;
  contexts: Views["contexts"][];
  resources: Views["resources"][];
  attachments: Views["attachments"][];
  lanes: Views["lanes"][];
}

type Topic = keyof Listings;

const TOPICS: readonly Topic[] = ["contexts", "names", "resources", "attachments", "lanes"];

/** Lists what is in a fabric. */
export const ls: Command = {
  name: "ls",
  summary: "list contexts, names, resources, attachments and lanes",
  help: `Usage: vmci ls [TOPIC...] [-d DEVICE] [--json]

Lists what is in a fabric: ${TOPICS.join(", ")}; without a topic, all of them.
Only the broker's own user may look at more than the names. Never starts a fabric.`,
  async run({ operands, texts }: ParsedOptions, json: boolean): Promise<number> {
    const unknown = operands.find((it) => !TOPICS.includes(it as Topic));
    if (unknown !== undefined) throw new UsageError(`there is no topic '${unknown}'; there are ${TOPICS.join(", ")}`);
    const topics = operands.length === 0 ? TOPICS : TOPICS.filter((it) => operands.includes(it));
    const session = await observe(texts.device);
    try {
      const listings = Object.fromEntries(topics.map((topic) => [topic, list(session, topic)])) as Partial<Listings>;
      if (json) {
        printJson(
          Object.fromEntries(Object.entries(listings).map(([topic, all]) => [topic, all.map(withHandlesAsText)])),
        );
      } else {
        print(listings);
      }
      return ExitCode.OK;
    } finally {
      await session.close();
    }
  },
};

function list(session: Session, topic: Topic): Listings[Topic] {
  if (topic === "names") return listNames(session);
  if (topic !== "resources") return inspect(session, topic);
  // The broker says one name of each; a packet would not hold them all.
  const names = Map.groupBy(listNames(session), ({ type, handle }) => `${type} ${formatHandle(handle)}`);
  return inspect(session, topic).map((resource) => ({
    ...resource,
    names: names.get(`${resource.type} ${formatHandle(resource.handle)}`)?.map(({ name }) => name) ?? [],
  }));
}

function print({ contexts, names, resources, attachments, lanes }: Partial<Listings>): void {
  if (contexts !== undefined) {
    printTable(
      "contexts",
      ["context", "processes", "resources", "region bytes", "names", "flags"],
      contexts.map(({ context, processes, clients, resources, regionBytes, names, flags }) => [
        context,
        processes.map(({ pid }) => pid).join(" ") + (clients > processes.length ? ` of ${clients}` : ""),
        resources,
        regionBytes,
        names,
        flags,
      ]),
    );
  }
  if (names !== undefined) {
    printTable(
      "names",
      ["handle", "type", "name"],
      names.map(({ name, handle, type }) => [formatHandle(handle), type, JSON.stringify(name)]),
    );
  }
  if (resources !== undefined) {
    printTable(
      "resources",
      ["handle", "type", "process", "grants", "what"],
      resources.map((resource) => [
        formatHandle(resource.handle),
        resource.type,
        resource.pid,
        resource.grants,
        describe(resource),
      ]),
    );
  }
  if (attachments !== undefined) {
    printTable(
      "attachments",
      ["region", "context", "process", "count"],
      attachments.map(({ handle, context, pid, count }) => [formatHandle(handle), context, pid, count]),
    );
  }
  if (lanes !== undefined) {
    printTable(
      "lanes",
      ["from", "to", "context", "sender", "receiver"],
      lanes.map(({ source, destination, context, pid, receiver }) => [
        formatHandle(source),
        formatHandle(destination),
        context,
        pid,
        receiver,
      ]),
    );
  }
}

function describe({ type, size, writers, attachments, members, lanes, names }: ResourceView): string {
  const facts = {
    SHAREDMEM: `${size} bytes, ${writers === "creator" ? "creator writes" : "all write"}, ${attachments} attached`,
    GROUP: `${members} members`,
    DATAGRAM: `${lanes} lanes`,
  }[type];
  return [facts, ...names.map((name) => JSON.stringify(name))].join(", ");
}

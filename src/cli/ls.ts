/**
 * `vmci ls`.
 *
 * @module
 */

import { formatHandle } from "../handle.ts";
import type { Session } from "../fabric/session.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, UsageError } from "./command.ts";
import { inspect, listNames, observe, type ResourceView, withHandlesAsText } from "./inspect.ts";
import { printTable } from "./table.ts";

/** Entries of one kind, as JSON and as the rows of a table. */
interface Listing {
  readonly entries: readonly object[];
  readonly head: readonly string[];
  readonly rows: readonly (readonly unknown[])[];
}

/** What can be listed, in the order it is printed. */
const TOPICS: Readonly<Record<string, (session: Session) => Listing>> = {
  contexts: (session) =>
    listing(inspect(session, "contexts"), {
      "context": ({ context }) => context,
      "processes": ({ processes, clients }) =>
        processes.map(({ pid }) => pid).join(" ") + (clients > processes.length ? ` of ${clients}` : ""),
      "resources": ({ resources }) => resources,
      "region bytes": ({ regionBytes }) => regionBytes,
      "names": ({ names }) => names,
      "flags": ({ flags }) => flags,
    }),
  names: (session) =>
    listing(listNames(session), {
      "handle": ({ handle }) => formatHandle(handle),
      "type": ({ type }) => type,
      "name": ({ name }) => JSON.stringify(name),
    }),
  resources: (session) =>
    listing(resourcesWithNames(session), {
      "handle": ({ handle }) => formatHandle(handle),
      "type": ({ type }) => type,
      "process": ({ pid }) => pid,
      "grants": ({ grants }) => grants,
      "what": describe,
    }),
  attachments: (session) =>
    listing(inspect(session, "attachments"), {
      "region": ({ handle }) => formatHandle(handle),
      "context": ({ context }) => context,
      "process": ({ pid }) => pid,
      "count": ({ count }) => count,
    }),
  lanes: (session) =>
    listing(inspect(session, "lanes"), {
      "from": ({ source }) => formatHandle(source),
      "to": ({ destination }) => formatHandle(destination),
      "context": ({ context }) => context,
      "sender": ({ pid }) => pid,
      "receiver": ({ receiver }) => receiver,
    }),
};

const TOPIC_NAMES = Object.keys(TOPICS);

/** Lists what is in a fabric. */
export const ls: Command = {
  name: "ls",
  summary: "list contexts, names, resources, attachments and lanes",
  help: `Usage: vmci ls [TOPIC...] [-d DEVICE] [--json]

Lists what is in a fabric: ${TOPIC_NAMES.join(", ")}; without a topic, all of them.
Only the broker's own user may look at more than the names. Never starts a fabric.`,
  async run({ operands, texts }: ParsedOptions, json: boolean): Promise<number> {
    const unknown = operands.find((it) => !TOPIC_NAMES.includes(it));
    if (unknown !== undefined) {
      throw new UsageError(`there is no topic '${unknown}'; there are ${TOPIC_NAMES.join(", ")}`);
    }
    const topics = operands.length === 0 ? TOPIC_NAMES : TOPIC_NAMES.filter((it) => operands.includes(it));
    const session = await observe(texts.device);
    try {
      const listings = topics.map((topic) => ({ topic, ...TOPICS[topic]!(session) }));
      if (json) {
        printJson(Object.fromEntries(listings.map(({ topic, entries }) => [topic, entries.map(withHandlesAsText)])));
      } else {
        for (const { topic, head, rows } of listings) printTable(topic, head, rows);
      }
      return ExitCode.OK;
    } finally {
      await session.close();
    }
  },
};

function listing<T extends object>(entries: readonly T[], columns: Record<string, (entry: T) => unknown>): Listing {
  const cells = Object.values(columns);
  return { entries, head: Object.keys(columns), rows: entries.map((entry) => cells.map((cell) => cell(entry))) };
}

/** The resources with all their names; the broker says one of each, since a packet would not hold them all. */
function resourcesWithNames(session: Session): ResourceView[] {
  const names = Map.groupBy(listNames(session), ({ type, handle }) => `${type} ${formatHandle(handle)}`);
  return inspect(session, "resources").map((resource) => ({
    ...resource,
    names: names.get(`${resource.type} ${formatHandle(resource.handle)}`)?.map(({ name }) => name) ?? [],
  }));
}

function describe({ type, size, writers, attachments, members, lanes, names }: ResourceView): string {
  const facts = {
    SHAREDMEM: `${size} bytes, ${writers === "creator" ? "its creator writes" : "all write"}, ${attachments} attached`,
    GROUP: `${members} members`,
    DATAGRAM: `${lanes} lanes`,
  }[type];
  return [facts, ...names.map((name) => JSON.stringify(name))].join(", ");
}

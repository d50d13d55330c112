/**
 * `vmci bench`.
 *
 * @module
 */

import { openVmci, type Vmci } from "../vmci.ts";
import { VmciError } from "../error.ts";
import { type Command, ExitCode, type ParsedOptions, printJson, readNumber, refuseOperands } from "./command.ts";
import { answer, ask, drain, type Manner, payloadOf, pour, rateOf } from "./bench_exchange.ts";
import { formatTime, median, sampleAsync, sampleSync, type Span, summarize, threeFigures } from "./bench_measure.ts";
import { printTable } from "./table.ts";

/** One figure. */
interface Figure {
  readonly what: string;
  /** Nanoseconds. */
  readonly p50?: number;
  readonly p99?: number;
  readonly p999?: number;
  /** A second. */
  readonly messages?: number;
  /** A second. */
  readonly bytes?: number;
}

/** What the other process is told, on its command line. */
interface Orders {
  readonly device: string;
  readonly part: Manner | "pour";
  /** Where to pour to: a resource of the same context. */
  readonly resource?: number;
}

const SIZE = 64;
const FLOW_SIZES = [64, 1024, 65536];
const BLOCK = 4 * 2 ** 20;
/** Microseconds that a party which spins does so before it sleeps. */
const SPIN = 1000;

/** Measures the fabric on this machine. */
export const bench: Command = {
  name: "bench",
  summary: "measure datagrams, regions and control operations on this machine",
  texts: ["rounds", "answer"],
  help: `Usage: vmci bench [--rounds N] [-d DEVICE] [--json]

Measures what the fabric does on this machine, in some seconds: round trips and flows of datagrams between two
processes, regions, and control operations; and a Worker's postMessage, to compare with. For what goes between two
processes it starts itself a second time, and needs --allow-run.

  --rounds N   so many rounds, of which the medians are printed; 3 without it

Figures of a busy machine say little. Two cores should be free.`,
  async run(options: ParsedOptions, json: boolean): Promise<number> {
    refuseOperands(options);
    const { device, rounds: roundsText = "3", answer: orders } = options.texts;
    if (orders !== undefined) {
      await obey(JSON.parse(orders) as Orders);
      return ExitCode.OK;
    }
    const rounds = readNumber("--rounds", roundsText, 1, 1000);
    const all: Figure[][] = [];
    for (let round = 0; round < rounds; round++) all.push(await measure(device));
    const figures = all[0]!.map((first, i) => middle(first, all.map((figures) => figures[i]!)));
    if (json) printJson({ rounds, figures });
    else print(figures);
    return ExitCode.OK;
  },
};

// --- This process ---------------------------------------------------------------------------------------------------

async function measure(device: string | undefined): Promise<Figure[]> {
  const figures: Figure[] = [];
  await using vmci = await openVmci({ device, spin: SPIN });
  if (Deno.permissions.querySync({ name: "run" }).state === "granted") {
    figures.push(
      await roundTrip(vmci, "datagram, there and back, both spin", "sync", 16),
      await awaitedRoundTrip(vmci.device),
      ...await flows(vmci),
    );
  }
  figures.push(
    times("Worker, postMessage there and back", await workerRoundTrips()),
    ...regions(vmci),
    ...await operations(vmci),
  );
  return figures;
}

async function roundTrip(vmci: Vmci, what: string, manner: Manner, batch: number): Promise<Figure> {
  using endpoint = vmci.datagrams.create();
  await using other = new OtherProcess({ device: vmci.device, part: manner });
  const server = { context: vmci.contextId, resource: await other.resource() };
  const samples = await ask(endpoint, server, manner, SIZE, span(batch));
  return times(`${what}, ${SIZE} B`, samples);
}

/** In a session that spins as others do. */
async function awaitedRoundTrip(device: string): Promise<Figure> {
  await using vmci = await openVmci({ device });
  return await roundTrip(vmci, "datagram, there and back, both await receive()", "await", 4);
}

async function flows(vmci: Vmci): Promise<Figure[]> {
  using endpoint = vmci.datagrams.create();
  await using _other = new OtherProcess({ device: vmci.device, part: "pour", resource: endpoint.handle.resource });
  const rates = drain(endpoint, FLOW_SIZES, { warmup: 100, duration: 100, batch: 1 });
  return rates.map((messages, i) => ({
    what: `datagrams one way, ${FLOW_SIZES[i]! >= 1024 ? `${FLOW_SIZES[i]! / 1024} KiB` : `${FLOW_SIZES[i]} B`}`,
    messages,
    bytes: messages * FLOW_SIZES[i]!,
  }));
}

function regions(vmci: Vmci): Figure[] {
  using region = vmci.sharedMemory.create(2 * BLOCK);
  const record = region.record(BLOCK, 128);
  const version = payloadOf(128);
  const buffer = new Uint8Array(128);
  const block = payloadOf(BLOCK);
  record.publish(version);
  return [
    times("record of 128 B, read", sampleSync(() => record.readInto(buffer), span(256))),
    times("record of 128 B, published", sampleSync(() => record.publish(version), span(256))),
    { what: "4 MiB copied into a region", bytes: BLOCK * rateOf(() => region.bytes.set(block), span(1)) },
  ];
}

async function operations(vmci: Vmci): Promise<Figure[]> {
  const { datagrams, discovery, sharedMemory, device } = vmci;
  using endpoint = datagrams.create();
  using region = sharedMemory.create(4096);
  const name = `vmci bench ${Deno.pid}`;
  discovery.register(name, endpoint.handle);
  const open = async () => {
    await using _vmci = await openVmci({ device });
  };
  return [
    times("discovery.lookup()", sampleSync(() => discovery.lookup(name), span(1))),
    times("datagrams.create() and close()", sampleSync(() => datagrams.create().close(), span(1))),
    times(
      "sharedMemory.attach() and detach()",
      sampleSync(() => sharedMemory.attach(region.handle).detach(), span(1)),
    ),
    times("openVmci and close", await sampleAsync(open, span(1))),
  ];
}

async function workerRoundTrips(): Promise<Float64Array> {
  const program = "self.onmessage = ({ data }) => self.postMessage(data);";
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, { type: "module" });
  const payload = payloadOf(SIZE);
  let arrived = () => {};
  worker.onmessage = () => arrived();
  const once = () =>
    new Promise<void>((resolve) => {
      arrived = resolve;
      worker.postMessage(payload);
    });
  try {
    return await sampleAsync(once, span(1));
  } finally {
    worker.terminate();
  }
}

function span(batch: number): Span {
  return { warmup: 100, duration: 150, batch };
}

// --- The other process ----------------------------------------------------------------------------------------------

/** This program, started once more. It is killed when it is disposed. */
class OtherProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;

  constructor(orders: Orders) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [...ownProgram(), "bench", "--answer", JSON.stringify(orders)],
      // It ends with its input, so it never outlives this process.
      stdin: "piped",
      stdout: "piped",
    }).spawn();
  }

  /** The number of the handle that it answers at. */
  async resource(): Promise<number> {
    const reader = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let end = false; !end && !text.includes("\n");) {
      const { done, value = "" } = await reader.read();
      text += value;
      end = done;
    }
    await reader.cancel();
    if (/^\d+\n/.test(text)) return parseInt(text);
    throw new VmciError("UNAVAILABLE", { operation: "bench", reason: "the second process ended without an answer" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.stdin.close().catch(() => {});
    await this.#child.stdout.cancel().catch(() => {});
    await this.#child.status;
  }
}

/** How Deno runs this program: as sources, bundled in one file, or compiled. */
function ownProgram(): string[] {
  if (Deno.build.standalone) return [];
  const asSource = new URL(import.meta.url).pathname.endsWith("/src/cli/bench.ts");
  const program = asSource ? new URL("../../cli.ts", import.meta.url).href : import.meta.url;
  return ["run", "--quiet", "--no-prompt", "--no-check", "--allow-ffi", program];
}

/** What the other process does. */
async function obey({ device, part, resource }: Orders): Promise<void> {
  void ended().then(() => Deno.exit(0));
  await using vmci = await openVmci({ device, ...(part === "await" ? {} : { spin: SPIN }) });
  using endpoint = vmci.datagrams.create();
  if (part === "pour") return pour(endpoint, { context: vmci.contextId, resource: resource! }, FLOW_SIZES);
  console.log(endpoint.handle.resource);
  await answer(endpoint, part, SIZE);
}

/** When the process that started this one has ended. */
async function ended(): Promise<void> {
  for await (const _ of Deno.stdin.readable);
}

// --- What is printed ------------------------------------------------------------------------------------------------

function times(what: string, samples: Float64Array): Figure {
  const { p50, p99, p999 } = summarize(samples);
  return { what, p50, p99, p999 };
}

/** The medians of the rounds. */
function middle(first: Figure, rounds: readonly Figure[]): Figure {
  const { what, ...numbers } = first;
  const keys = Object.keys(numbers) as (keyof typeof numbers)[];
  return { what, ...Object.fromEntries(keys.map((key) => [key, median(rounds.map((round) => round[key]!))])) };
}

function print(figures: readonly Figure[]): void {
  const time = (value: number | undefined) => value === undefined ? undefined : formatTime(value);
  const timed = figures.filter(({ p50 }) => p50 !== undefined);
  const rated = figures.filter(({ p50 }) => p50 === undefined);
  printTable(
    "times",
    ["what", "p50", "p99", "p99.9"],
    timed.map(({ what, p50, p99, p999 }) => [what, time(p50), time(p99), time(p999)]),
  );
  printTable(
    "rates",
    ["what", "messages a second", "GB a second"],
    rated.map(({ what, messages, bytes }) => [
      what,
      messages === undefined ? undefined : threeFigures(messages / 1e6) + " million",
      threeFigures(bytes! / 1e9),
    ]),
  );
  const alone = Deno.permissions.querySync({ name: "run" }).state !== "granted";
  if (alone) console.log("Nothing between two processes was measured: that needs --allow-run.");
}

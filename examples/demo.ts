// deno run --allow-ffi --allow-run --allow-read --allow-write examples/demo.ts      (deno task demo)

/**
 * Both samples as real processes: the host serves the time and answers queries, three virtual machines read and ask.
 * They meet on a fabric of their own. Ends by itself; the exit code is 1 if anything was not as it should be.
 *
 * @module
 */

import { openVmci } from "@vmci/vmci";

/** Who takes part, and what he should print, to the last character. */
interface Actor {
  readonly contextId: number;
  readonly program: "shared_mem_app" | "datagram_app";
  readonly role: "-s" | "-c";
  readonly prints: RegExp;
}

const HOST = 2;
const DATE = String.raw`\w{3} \w{3} \d\d \d\d:\d\d:\d\d \S+ \d{4}\n`;

const SERVERS: readonly Actor[] = [
  {
    contextId: HOST,
    program: "shared_mem_app",
    role: "-s",
    prints: /^Sharing the time as 'HOST TIME' for 10 seconds\.\n0\.1\.2\.3\.4\.5\.6\.7\.8\.9\.\n$/,
  },
  {
    contextId: HOST,
    program: "datagram_app",
    role: "-s",
    prints: /^Answering 3 queries to 'HOST INFO'\.\n(Received: HELLO, SERVER!\n){3}$/,
  },
];

const CLIENTS: readonly Actor[] = [
  { contextId: 16, program: "shared_mem_app", role: "-c", prints: new RegExp(`^(${DATE}){3}$`) },
  ...[16, 17, 18].map((contextId): Actor => (
    { contextId, program: "datagram_app", role: "-c", prints: /^Received: HELLO, CLIENT!\n$/ }
  )),
];

/** Seconds after which something must have gone wrong. */
const MOST_SECONDS = 25;

/** Runs a sample to its end and shows what it says, line by line. Throws if that, or the exit code, is wrong. */
async function play({ contextId, program, role, prints }: Actor, device: string, signal: AbortSignal): Promise<void> {
  const file = `${import.meta.dirname}/${program}.ts`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-ffi", file, role, "--device", device, "--context", `${contextId}`],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal,
  }).spawn();
  const who = `${contextId === HOST ? "host" : `VM ${contextId}`}  ${program} ${role}`.padEnd(24);
  let printed = "";
  const show = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        printed += `${line}\n`;
        console.log(`${who} | ${line}`);
      }
    }
    printed += rest;
  };
  const [{ code }] = await Promise.all([child.status, show(child.stdout), show(child.stderr)]);
  signal.throwIfAborted();
  if (code !== 0) throw new Error(`${who.trim()} ended with exit code ${code}`);
  if (!prints.test(printed)) throw new Error(`${who.trim()} should have printed ${prints}: ${JSON.stringify(printed)}`);
}

async function demo(device: string, stop: AbortController): Promise<void> {
  const { signal } = stop;
  const plays: Promise<void>[] = [];
  const start = (actor: Actor) => {
    const playing = play(actor, device, signal);
    // One who fails ends the play for all.
    playing.catch((error) => stop.abort(error));
    plays.push(playing);
  };
  try {
    await using vmci = await openVmci({ device, signal });
    SERVERS.forEach(start);
    for (const name of ["HOST TIME", "HOST INFO"]) await vmci.discovery.wait(name, { signal });
    CLIENTS.forEach(start);
    await Promise.all(plays);
  } finally {
    await Promise.allSettled(plays);
  }
}

const stop = new AbortController();
const interrupt = () => stop.abort(new Error("it was interrupted"));
const alarm = setTimeout(() => stop.abort(new Error(`it took over ${MOST_SECONDS} seconds`)), MOST_SECONDS * 1000);
Deno.addSignalListener("SIGINT", interrupt);
const directory = await Deno.makeTempDir({ prefix: "vmci-demo-" });
try {
  await demo(directory, stop);
  console.log("All went as it should.");
} catch (error) {
  console.error(`The demo failed: ${(error as Error).message}`);
  Deno.exitCode = 1;
} finally {
  clearTimeout(alarm);
  Deno.removeSignalListener("SIGINT", interrupt);
  await Deno.remove(directory, { recursive: true });
}

/**
 * Deno's own channels between two processes, and between two threads.
 *
 * @module
 */

import { sampleAsync, summarize } from "../../src/cli/bench_measure.ts";
import { type Job, payloadOf, say, sleep } from "./part.ts";

/** Unix or TCP: listens, and says where. */
function listen({ variant, directory }: Job): Deno.Listener {
  if (variant === "tcp") {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    say({ port: (listener.addr as Deno.NetAddr).port });
    return listener;
  }
  const listener = Deno.listen({ transport: "unix", path: `${directory}/bench.socket` }) as unknown as Deno.Listener;
  say({});
  return listener;
}

async function connect({ variant, directory, ready }: Job): Promise<Deno.Conn> {
  if (variant !== "tcp") return await Deno.connect({ transport: "unix", path: `${directory}/bench.socket` });
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: ready.port as number });
  connection.setNoDelay(true);
  return connection;
}

async function readAll(connection: Deno.Conn, buffer: Uint8Array): Promise<boolean> {
  for (let at = 0; at < buffer.length;) {
    const count = await connection.read(at === 0 ? buffer : buffer.subarray(at));
    if (count === null) return false;
    at += count;
  }
  return true;
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(at === 0 ? bytes : bytes.subarray(at));
}

/** Sends back what comes. */
export async function echo(job: Job): Promise<void> {
  const connection = await listen(job).accept();
  if ("setNoDelay" in connection) (connection as Deno.TcpConn).setNoDelay(true);
  const buffer = new Uint8Array(job.size);
  while (await readAll(connection, buffer)) await writeAll(connection, buffer);
}

/** Measures round trips. */
export async function roundTrips(job: Job): Promise<void> {
  const connection = await connect(job);
  const payload = payloadOf(job.size);
  const buffer = new Uint8Array(job.size);
  const before = job.idle > 0 ? () => sleep(job.idle) : undefined;
  say(summarize(
    await sampleAsync(
      async () => {
        await writeAll(connection, payload);
        await readAll(connection, buffer);
      },
      job.span,
      before,
    ),
  ));
}

/** Writes until nobody reads. */
export async function pour(job: Job): Promise<void> {
  const connection = await connect(job);
  const payload = payloadOf(job.size);
  try {
    while (true) await writeAll(connection, payload);
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset)) throw error;
  }
}

/** Counts what comes: messages a second. */
export async function drain(job: Job): Promise<void> {
  const { span, size } = job;
  const connection = await listen(job).accept();
  const buffer = new Uint8Array(65536);
  const warm = performance.now() + span.warmup;
  let start = Infinity;
  let bytes = 0;
  while (true) {
    for (let i = 0; i < 16; i++) bytes += (await connection.read(buffer))!;
    const at = performance.now();
    if (at >= start + span.duration) return say([bytes / size / ((at - start) / 1000)]);
    if (at < warm || start !== Infinity) continue;
    start = at;
    bytes = 0;
  }
}

function datagramSocket(): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
}

/** Sends UDP datagrams back. */
export async function udpEcho({ size }: Job): Promise<void> {
  const socket = datagramSocket();
  say({ port: (socket.addr as Deno.NetAddr).port });
  const buffer = new Uint8Array(size);
  while (true) {
    const [payload, from] = await socket.receive(buffer);
    await socket.send(payload, from);
  }
}

/** Measures round trips over UDP. */
export async function udpRoundTrips({ size, span, ready }: Job): Promise<void> {
  const socket = datagramSocket();
  const to: Deno.Addr = { transport: "udp", hostname: "127.0.0.1", port: ready.port as number };
  const payload = payloadOf(size);
  const buffer = new Uint8Array(size);
  say(summarize(
    await sampleAsync(async () => {
      await socket.send(payload, to);
      await socket.receive(buffer);
    }, span),
  ));
}

/** Measures round trips to a Worker by postMessage. */
export async function workerRoundTrips({ size, span, idle }: Job): Promise<void> {
  const program = "self.onmessage = ({ data }) => self.postMessage(data);";
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, { type: "module" });
  const payload = payloadOf(size);
  let arrived = () => {};
  worker.onmessage = () => arrived();
  const before = idle > 0 ? () => sleep(idle) : undefined;
  const once = () =>
    new Promise<void>((resolve) => {
      arrived = resolve;
      worker.postMessage(payload);
    });
  say(summarize(await sampleAsync(once, span, before)));
  worker.terminate();
}

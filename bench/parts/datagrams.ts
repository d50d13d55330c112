/**
 * Our datagrams between two processes.
 *
 * @module
 */

import { type Handle, openVmci, type Vmci } from "../../mod.ts";
import { answer, ask, drain as drainInto, type Manner, pour as pourFrom } from "../../src/cli/bench_exchange.ts";
import { summarize } from "../../src/cli/bench_measure.ts";
import { type Job, say, sleep } from "./part.ts";

function join({ directory, spin }: Job): Promise<Vmci> {
  return openVmci({ device: directory, spin });
}

/** Sends back what comes. */
export async function echo(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  say({ handle: endpoint.handle });
  await answer(endpoint, job.variant as Manner, job.size);
}

/** Measures round trips. */
export async function roundTrips(job: Job): Promise<void> {
  const { ready, variant, size, span, idle } = job;
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  const before = idle > 0 ? () => sleep(idle) : undefined;
  say(summarize(await ask(endpoint, ready.handle as Handle, variant as Manner, size, span, before)));
}

/** Sends as fast as the receiver reads. */
export async function pour(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  pourFrom(endpoint, job.ready.handle as Handle, job.sizes);
}

/** Counts what comes: messages a second, for each size. */
export async function drain(job: Job): Promise<void> {
  await using vmci = await join(job);
  using endpoint = vmci.datagrams.create();
  say({ handle: endpoint.handle });
  say(drainInto(endpoint, job.sizes, job.span));
}

/**
 * Our regions: records, words and copies.
 *
 * @module
 */

import { type Handle, openVmci, recordSize } from "../../mod.ts";
import { median, sampleSync, type Span, summarize } from "../../src/cli/bench_measure.ts";
import { type Job, say, stay } from "./part.ts";

const CAPACITY = 128;
const LINE = 16;

/** Makes a record that its creator alone writes, and publishes as fast as it can when it is told to. */
export async function publisher({ directory, variant, span }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  using region = vmci.sharedMemory.create(recordSize(CAPACITY), { writers: "creator" });
  const record = region.record();
  const version = new Uint8Array(CAPACITY).fill(1);
  record.publish(version);
  say({ handle: region.handle });
  if (variant === "quiet") await stay();
  const end = performance.now() + 10 * (span.warmup + span.duration) + 10_000;
  while (performance.now() < end) for (let i = 0; i < 64; i++) record.publish(version);
}

/** Reads that record. */
export async function reader({ directory, ready, span }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  using region = vmci.sharedMemory.attach(ready.handle as Handle);
  const record = region.record();
  const buffer = new Uint8Array(CAPACITY);
  say(summarize(sampleSync(() => record.readInto(buffer), span)));
}

/** Publishes a record that nobody waits for, and uses a word. */
export async function writer({ directory, span }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  using region = vmci.sharedMemory.create(recordSize(CAPACITY) + 8);
  const record = region.record(0, CAPACITY);
  const version = new Uint8Array(CAPACITY).fill(1);
  const word = region.word(recordSize(CAPACITY));
  say({
    publish: summarize(sampleSync(() => record.publish(version), span)),
    load: summarize(sampleSync(() => word.load(), span)),
    store: summarize(sampleSync(() => word.store(1), span)),
  });
}

/** Answers each number in one word by the same number in another. */
export async function wordEcho({ directory }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  using region = vmci.sharedMemory.create(4096);
  say({ handle: region.handle });
  const words = new Int32Array(region.buffer, 0, 2 * LINE);
  for (let last = 0, looks = 0; looks < 1e9; looks++) {
    const value = Atomics.load(words, 0);
    if (value === last) continue;
    looks = 0;
    Atomics.store(words, LINE, last = value);
    if (value < 0) return;
  }
}

/** Measures those answers. */
export async function wordRoundTrips({ directory, ready, span }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  using region = vmci.sharedMemory.attach(ready.handle as Handle);
  const words = new Int32Array(region.buffer, 0, 2 * LINE);
  let value = 0;
  say(summarize(sampleSync(() => {
    Atomics.store(words, 0, ++value);
    while (Atomics.load(words, LINE) !== value);
  }, span)));
  Atomics.store(words, 0, -1);
}

/** Copies blocks into regions of several sizes, and out of them: bytes a second, in and out for each. */
export async function copies({ directory, sizes, size: block, span }: Job): Promise<void> {
  await using vmci = await openVmci({ device: directory });
  const own = new Uint8Array(block).fill(1);
  const rates: number[] = [];
  for (const size of sizes) {
    using region = vmci.sharedMemory.create(size);
    const { bytes } = region;
    const blocks = Array.from({ length: size / block }, (_, i) => bytes.subarray(i * block, (i + 1) * block));
    let next = 0;
    const turn = () => blocks[next = (next + 1) % blocks.length]!;
    rates.push(rateOf(() => turn().set(own), block, span), rateOf(() => own.set(turn()), block, span));
  }
  say(rates);
}

function rateOf(copy: () => void, block: number, span: Span): number {
  return block / (median([...sampleSync(copy, span)]) / 1e9);
}

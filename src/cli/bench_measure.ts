/**
 * Measuring: doing something over and over, and what the times say.
 *
 * @module
 */

/** How long something is measured. */
export interface Span {
  /** Milliseconds before anything counts. */
  readonly warmup: number;
  /** Milliseconds that count. */
  readonly duration: number;
  /** Operations between two looks at the clock, which costs some 80 ns itself. One sample is the mean of them. */
  readonly batch: number;
}

/** What many samples come to, in the samples' unit. */
export interface Summary {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  /** How many samples are in each of {@linkcode bucketOf}'s buckets. */
  readonly histogram: Readonly<Record<number, number>>;
}

/** More samples than this are not kept. */
const MOST_SAMPLES = 200_000;

/** Histogram buckets a doubling. */
export const BUCKETS_PER_OCTAVE = 8;

/** The samples in nanoseconds, while they are taken. */
class Samples {
  readonly #samples = new Float64Array(MOST_SAMPLES);
  readonly #warm: number;
  readonly #end: number;
  readonly #batch: number;
  #count = 0;

  constructor({ warmup, duration, batch }: Span) {
    this.#warm = performance.now() + warmup;
    this.#end = this.#warm + duration;
    this.#batch = batch;
  }

  /** Takes in one batch; says whether there is to be another. */
  add(start: number, end: number): boolean {
    if (start >= this.#warm) this.#samples[this.#count++] = (end - start) * 1e6 / this.#batch;
    // On a busy machine the first batch can take all the time there is.
    return this.#count === 0 || end < this.#end && this.#count < MOST_SAMPLES;
  }

  get taken(): Float64Array {
    return this.#samples.subarray(0, this.#count);
  }
}

/**
 * Measures something that does not turn the event loop.
 *
 * @param once Does it once.
 * @param span How long.
 * @returns Nanoseconds an operation, a sample a batch.
 */
export function sampleSync(once: () => void, span: Span): Float64Array {
  const samples = new Samples(span);
  const { batch } = span;
  let start: number;
  do {
    start = performance.now();
    for (let i = 0; i < batch; i++) once();
  } while (samples.add(start, performance.now()));
  return samples.taken;
}

/**
 * Measures something that is awaited.
 *
 * @param once Does it once.
 * @param span How long.
 * @param before Done before each batch, and not measured.
 * @returns Nanoseconds an operation, a sample a batch.
 */
export async function sampleAsync(
  once: () => Promise<unknown>,
  span: Span,
  before?: () => Promise<unknown>,
): Promise<Float64Array> {
  const samples = new Samples(span);
  const { batch } = span;
  let start: number;
  do {
    if (before !== undefined) await before();
    start = performance.now();
    for (let i = 0; i < batch; i++) await once();
  } while (samples.add(start, performance.now()));
  return samples.taken;
}

/** What the samples come to. */
export function summarize(samples: ArrayLike<number>): Summary {
  const sorted = Float64Array.from(samples).sort();
  const histogram: Record<number, number> = {};
  for (const sample of sorted) {
    const bucket = bucketOf(sample);
    histogram[bucket] = (histogram[bucket] ?? 0) + 1;
  }
  return {
    count: sorted.length,
    p50: quantile(sorted, 0.5),
    p99: quantile(sorted, 0.99),
    p999: quantile(sorted, 0.999),
    histogram,
  };
}

/**
 * The value that so much of a sorted list is not above.
 *
 * @param sorted The list.
 * @param part 0 to 1.
 * @returns One of its values; NaN when it is empty.
 */
export function quantile(sorted: ArrayLike<number>, part: number): number {
  const index = Math.ceil(part * sorted.length) - 1;
  return sorted[Math.max(index, 0)] ?? NaN;
}

/** The middle one of some numbers; the lower one of the middle two. */
export function median(values: readonly number[]): number {
  return quantile([...values].sort((a, b) => a - b), 0.5);
}

/** The histogram's bucket of a value above 0; its buckets widen with the values. */
export function bucketOf(value: number): number {
  return Math.floor(Math.log2(Math.max(value, 1)) * BUCKETS_PER_OCTAVE);
}

/** A time for people: three figures and a unit. */
export function formatTime(nanoseconds: number): string {
  const [unit, size] = nanoseconds < 999.5
    ? ["ns", 1] as const
    : nanoseconds < 999_500
    ? ["us", 1e3] as const
    : ["ms", 1e6] as const;
  return `${threeFigures(nanoseconds / size)} ${unit}`;
}

/** A number with three figures that count. */
export function threeFigures(value: number): string {
  if (!Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

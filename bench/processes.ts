/**
 * What Linux says of a process, and of the whole machine.
 *
 * @module
 */

/** What a process has done and has. */
export interface ProcessFigures {
  /** How often one of its threads went to sleep by itself, and so woke up. */
  readonly wakeUps: number;
  /** Threads that are held: those of a pool that have nothing to do wait for a futex, and go away after seconds. */
  readonly held: number;
  /** Bytes that it alone has in memory: heaps and stacks. */
  readonly own: number;
  /** Bytes of shared memory that it has touched. */
  readonly shared: number;
}

/** Reads what a process has done so far. */
export async function readProcess(pid: number): Promise<ProcessFigures> {
  let wakeUps = 0;
  let held = 0;
  for await (const { name } of Deno.readDir(`/proc/${pid}/task`)) {
    if (!(await Deno.readTextFile(`/proc/${pid}/task/${name}/wchan`)).startsWith("futex")) held++;
    wakeUps += field(await Deno.readTextFile(`/proc/${pid}/task/${name}/status`), "voluntary_ctxt_switches");
  }
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return { wakeUps, held, own: 1024 * field(status, "RssAnon"), shared: 1024 * field(status, "RssShmem") };
}

function field(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(status)?.[1] ?? NaN);
}

/** Processor time up to now, in ticks of a hundredth of a second. */
interface Ticks {
  readonly at: number;
  /** Of all processes, and of the hypervisor instead of this machine. */
  readonly all: number;
  /** Of this process and of its children that have ended. */
  readonly own: number;
}

/** Tells how much of the processors others had. */
export class Disturbance {
  readonly #before: Ticks = ticks();

  /** The part of one core, since this was made, that neither this process nor its ended children had: 0, 1 or more. */
  others(): number {
    const after = ticks();
    const elapsed = (after.at - this.#before.at) / 10;
    return Math.max(0, after.all - this.#before.all - (after.own - this.#before.own)) / elapsed;
  }
}

function ticks(): Ticks {
  const [, user, nice, system, , , irq, softirq, steal] = Deno.readTextFileSync("/proc/stat")
    .split("\n")[0]!.split(/\s+/).map(Number);
  const own = Deno.readTextFileSync("/proc/self/stat").replace(/^.*\) /s, "").split(" ").slice(11, 15).map(Number);
  return {
    at: performance.now(),
    all: user! + nice! + system! + irq! + softirq! + steal!,
    own: own.reduce((a, b) => a + b, 0),
  };
}

/** Where Linux keeps the precedence of a session's processes, as a whole, over those of others. */
const SESSION = "/proc/self/autogroup";

/** Gives all processes of this session precedence over those of others, until it is disposed; `nice` alone does not. */
export class Precedence implements Disposable {
  readonly #before: string | undefined;

  constructor() {
    try {
      this.#before = /-?\d+$/.exec(Deno.readTextFileSync(SESSION).trim())?.[0];
      Deno.writeTextFileSync(SESSION, "-20");
    } catch (error) {
      // A kernel that has no such thing looks at every process alone.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.#before !== undefined) Deno.writeTextFileSync(SESSION, this.#before);
  }
}

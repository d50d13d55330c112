/**
 * The broker is killed again and again while processes send, publish and ask.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { inspect, listNames, observe } from "../../src/cli/inspect.ts";
import { Program } from "../support/program.ts";
import { ServedSocket } from "../../src/fabric/local/served_socket.ts";
import type { FaultFigures } from "./death_matrix.ts";
import {
  closeBooks,
  comeClerk,
  comeWorker,
  type Desk,
  hasReceived,
  hasSeenBrokers,
  knowDesks,
  readBefore,
  reportClerk,
  reportWork,
  sendToNext,
} from "./support/load.ts";
import { now } from "./support/native_kill.ts";
import { FabricDirectory, Player, processState } from "./support/player.ts";
import { becomes, inTime, random, spread } from "./support/watch.ts";

/** How often the broker is killed, and which. */
export interface TakeoverOptions {
  /** How often. */
  readonly kills: number;
  /** When it happens follows from it. */
  readonly seed: number;
  /** Without a daemon one of the workers or clerks has the broker; it dies with it, and another comes in its place. */
  readonly daemon?: boolean;
  /** Every so many rounds the broker is stopped for a while instead; never without it. */
  readonly stopEvery?: number;
  /** Seconds that it is stopped; 2 without it. */
  readonly stopped?: number;
  /** Told of every round before it begins. */
  readonly onRound?: (description: string) => void;
}

/** What was run, and what came of it. */
export interface TakeoverFigures extends FaultFigures {
  /** Control calls that were answered. */
  readonly calls: number;
  /** Calls that ended with UNAVAILABLE and were repeated. */
  readonly repeated: number;
  /** Milliseconds that a call took at most. */
  readonly longestCallMs: number;
}

const WORKERS = 8;
const CLERKS = 2;

/** Milliseconds that a call may take where the broker is stopped; and else. */
const BRIEF = 1000;
const PATIENCE = 20_000;

/** One of the eight. */
interface Worker extends Desk {
  readonly player: Player;
}

/** One who asks. */
interface Clerk {
  readonly player: Player;
  readonly context: number;
}

/** Kills the broker so many times; see {@linkcode TakeoverOptions}. */
export async function takeoverUnderLoad(options: TakeoverOptions): Promise<TakeoverFigures> {
  await using office = await Office.open(options);
  const { kills, seed, stopEvery = Infinity, stopped = 2, onRound } = options;
  const draw = random(seed);
  for (let round = 1; round <= kills; round++) {
    await new Promise((resolve) => setTimeout(resolve, 20 + 200 * draw()));
    const stops = round % stopEvery === 0;
    onRound?.(`round ${round}: the broker is ${stops ? "stopped" : "killed"}`);
    const doing = stops ? office.stop(stopped) : office.kill();
    await inTime(doing, () => `round ${round}: ${office.doing}`);
  }
  await inTime(office.settle(), () => `the end: ${office.doing}`);
  return office.figures();
}

/** The ring of workers, and the clerks. */
class Office implements AsyncDisposable {
  /** What is waited for. */
  doing = "";
  readonly #directory = new FabricDirectory();
  readonly #workers: Worker[] = [];
  readonly #clerks: Clerk[] = [];
  /** Players that have nothing to do yet. */
  readonly #spare: Player[] = [];
  readonly #timeout: number;
  readonly #withDaemon: boolean;
  #daemon: Program | undefined;
  #context = 100;
  /** How many brokers each process has seen. */
  readonly #brokers = new Map<Player, number>();
  readonly #given = new Set<number>();
  readonly #knew: number[] = [];
  readonly #sums = { faults: 0, sent: 0, checked: 0, calls: 0, repeated: 0, longestCall: 0, longestPause: 0 };

  private constructor({ daemon = false, stopEvery }: TakeoverOptions) {
    this.#withDaemon = daemon;
    this.#timeout = stopEvery === undefined ? PATIENCE : BRIEF;
  }

  static async open(options: TakeoverOptions): Promise<Office> {
    const office = new Office(options);
    if (office.#withDaemon) await office.#startDaemon();
    for (let i = 0; i < CLERKS; i++) await office.#hireClerk(i);
    for (let i = 0; i < WORKERS; i++) office.#workers.push(await office.#hireWorker());
    for (const slot of office.#workers.keys()) await office.#connect(slot);
    await office.#tellClerks(office.#workers);
    return office;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const player of [...this.#all, ...this.#spare]) await player.kill();
    await this.#daemon?.[Symbol.asyncDispose]();
    await this.#directory[Symbol.asyncDispose]();
  }

  get #all(): Player[] {
    return [...this.#workers, ...this.#clerks].map(({ player }) => player);
  }

  get #device(): string {
    return this.#withDaemon ? `${this.#directory.path}/daemon` : this.#directory.path;
  }

  /** Whoever has the broker dies. */
  async kill(): Promise<void> {
    const socket = this.#withDaemon ? this.#device : this.#directory.socket;
    const pid = ServedSocket.listenerAt(socket);
    const slot = this.#workers.findIndex(({ player }) => player.pid === pid);
    const desk = this.#clerks.findIndex(({ player }) => player.pid === pid);
    // Nobody asks for who is about to die, and nobody sends to it: what is on the way to it would be lost with it.
    this.doing = "the ring opens";
    if (slot >= 0) await this.#isolate(slot);
    if (desk >= 0) await this.#audit();
    const victim = this.#workers[slot]?.player ?? this.#clerks[desk]?.player;
    const at = now();
    Deno.kill(pid!, "SIGKILL");
    this.#sums.faults++;
    if (this.#daemon !== undefined) {
      await this.#daemon.ended;
      await this.#startDaemon();
    }
    await victim?.ended();
    await this.#othersKnow(victim, at);
    if (slot >= 0) await this.#replaceWorker(slot);
    if (desk >= 0) await this.#replaceClerk(desk);
    await this.#audit();
  }

  /** Whoever has the broker is stopped, and goes on. */
  async stop(seconds: number): Promise<void> {
    const socket = this.#withDaemon ? this.#device : this.#directory.socket;
    const pid = ServedSocket.listenerAt(socket);
    assert(pid !== undefined);
    Deno.kill(pid, "SIGSTOP");
    this.#sums.faults++;
    await processState(pid, (state) => state === "T");
    await new Promise((resolve) => setTimeout(resolve, 500 * seconds));
    // The lanes of all others go on.
    for (const [slot, worker] of this.#workers.entries()) {
      const next = this.#next(slot);
      if (worker.player.pid === pid || next.player.pid === pid) continue;
      this.doing = `worker ${worker.context} sends on while the broker is stopped`;
      const { received } = await next.player.run(reportWork);
      await next.player.run(hasReceived, worker.context, (received[worker.context] ?? 0) + 1);
    }
    await new Promise((resolve) => setTimeout(resolve, 500 * seconds));
    Deno.kill(pid, "SIGCONT");
    await this.#audit();
  }

  /** In the end nobody sends any more, and all has arrived. */
  async settle(): Promise<void> {
    this.doing = "everybody stops";
    for (const { player } of this.#clerks) await player.run((s) => void (s.kept.idle = true));
    for (const slot of this.#workers.keys()) await this.#drain(slot);
    await this.#audit();
    this.doing = "the broker knows who is there, and nothing else";
    const observer = await observe(this.#device);
    try {
      const names = this.#all.length + WORKERS + 1;
      await becomes(() => listNames(observer).length, names, "the number of names");
      const contexts = [...this.#workers, ...this.#clerks].map(({ context }) => context).sort((a, b) => a - b);
      const known = () => inspect(observer, "contexts").map(({ context }) => context).sort((a, b) => a - b);
      await becomes(known, contexts, "the contexts");
      // An endpoint each, a region of each worker, and the public group.
      await becomes(() => inspect(observer, "resources").length, this.#all.length + WORKERS + 1, "the resources");
      await becomes(() => inspect(observer, "attachments").length, 2 * WORKERS, "the attachments");
    } finally {
      await observer.close();
    }
  }

  figures(): TakeoverFigures {
    const { faults, sent, checked, calls, repeated, longestCall, longestPause } = this.#sums;
    return {
      cases: faults,
      faults,
      sent,
      checked,
      survivorsKnewMs: spread(this.#knew),
      longestPauseMs: Math.round(longestPause),
      calls,
      repeated,
      longestCallMs: Math.round(longestCall),
    };
  }

  // --- Coming and going -----------------------------------------------------------------------------------------------

  async #startDaemon(): Promise<void> {
    this.#daemon = new Program("cli.ts", ["fabric", "serve", "--socket", this.#device]);
    await this.#daemon.printed("listening at");
  }

  #hire(): Player {
    while (this.#spare.length < 2) this.#spare.push(new Player());
    const player = this.#spare.shift()!;
    this.#brokers.set(player, 0);
    return player;
  }

  async #hireWorker(): Promise<Worker> {
    const player = this.#hire();
    const desk = await player.run(comeWorker, this.#device, this.#context++, this.#timeout);
    this.#give([desk.endpoint.resource, desk.region.resource]);
    return { ...desk, player };
  }

  async #hireClerk(desk: number): Promise<void> {
    const player = this.#hire();
    const context = this.#context++;
    await player.run(comeClerk, this.#device, context, this.#timeout);
    this.#clerks[desk] = { player, context };
  }

  #next(slot: number): Worker {
    return this.#workers[(slot + 1) % WORKERS]!;
  }

  #before(slot: number): Worker {
    return this.#workers[(slot + WORKERS - 1) % WORKERS]!;
  }

  /** A worker reads what the one before it publishes, and sends to the next one. */
  async #connect(slot: number): Promise<void> {
    const { player } = this.#workers[slot]!;
    await player.run(readBefore, this.#before(slot).region);
    await player.run(sendToNext, this.#next(slot).endpoint);
  }

  /** Who sends to that worker sends no more, and has sent nothing that did not arrive. */
  async #isolate(slot: number): Promise<void> {
    await this.#tellClerks(this.#workers.filter((_, i) => i !== slot));
    await this.#drain((slot + WORKERS - 1) % WORKERS);
  }

  /** A worker stops sending; all that it sent arrives. */
  async #drain(slot: number): Promise<void> {
    const { player, context } = this.#workers[slot]!;
    const sent = await player.run((s) => {
      s.kept.target = undefined;
      return s.kept.number as number;
    });
    this.doing = `all ${sent} datagrams of ${context} arrive`;
    await this.#next(slot).player.run(hasReceived, context, sent);
    const { received } = await this.#next(slot).player.run(reportWork);
    assertEquals(received[context] ?? 0, sent, `datagrams of ${context}`);
    this.#sums.sent += sent;
    this.#sums.checked += received[context] ?? 0;
    await player.run(sendToNext, null);
    await this.#next(slot).player.run((s, context) => void s.received.delete(context), context);
  }

  async #replaceWorker(slot: number): Promise<void> {
    const dead = this.#workers[slot]!;
    const next = this.#next(slot);
    this.doing = `what ${dead.context} sent before it died arrives`;
    const { received } = await next.player.run(reportWork);
    assertEquals(await next.player.run(closeBooks, dead.context), [], `the books of ${dead.context}`);
    this.#sums.sent += received[dead.context] ?? 0;
    this.#sums.checked += received[dead.context] ?? 0;
    this.doing = "another worker comes";
    this.#workers[slot] = await this.#hireWorker();
    await this.#connect(slot);
    await next.player.run(readBefore, this.#workers[slot]!.region);
    await this.#before(slot).player.run(sendToNext, this.#workers[slot]!.endpoint);
    await this.#tellClerks(this.#workers);
  }

  async #replaceClerk(desk: number): Promise<void> {
    this.doing = "another clerk comes";
    await this.#hireClerk(desk);
    await this.#tellClerks(this.#workers);
  }

  async #tellClerks(workers: readonly Worker[]): Promise<void> {
    const desks = workers.map(({ context, endpoint, region }) => ({ context, endpoint, region }));
    for (const { player } of this.#clerks) await player.run(knowDesks, desks);
  }

  // --- Looking --------------------------------------------------------------------------------------------------------

  async #othersKnow(dead: Player | undefined, at: number): Promise<void> {
    const living = this.#all.filter((player) => player !== dead);
    if (dead !== undefined) this.#brokers.delete(dead);
    await Promise.all(living.map(async (player) => {
      const count = this.#brokers.get(player)! + 1;
      this.doing = "others are told of another broker";
      const seen = await player.run(hasSeenBrokers, count);
      this.#brokers.set(player, count);
      assertEquals(seen.lost, 0, "what the next broker did not take back");
      this.#knew.push(seen.at - at);
    }));
  }

  /** Whether anything was wrong so far. */
  async #audit(): Promise<void> {
    this.doing = "everybody reports";
    for (const { player, context } of this.#workers) {
      const { faults, longestPause } = await player.run(reportWork);
      assertEquals(faults, [], `worker ${context}`);
      this.#sums.longestPause = Math.max(this.#sums.longestPause, longestPause);
      assertEquals(player.complaints, "");
    }
    for (const { player, context } of this.#clerks) {
      const { faults, calls, repeated, longestCall, handles } = await player.run(reportClerk);
      assertEquals(faults, [], `clerk ${context}`);
      this.#sums.calls += calls;
      this.#sums.repeated += repeated;
      this.#sums.longestCall = Math.max(this.#sums.longestCall, longestCall);
      this.#give(handles);
      assertEquals(player.complaints, "");
    }
  }

  #give(resources: readonly number[]): void {
    for (const resource of resources) {
      assert(!this.#given.has(resource), `${resource} was given twice`);
      this.#given.add(resource);
    }
  }
}

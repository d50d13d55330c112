/**
 * The broker is killed, or stopped, again and again while processes send, publish, ask, and change what they have to do
 * with each other. Nobody is told before.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Handle } from "../../mod.ts";
import { inspect, listNames, observe } from "../../src/cli/inspect.ts";
import { Program } from "../support/program.ts";
import { ServedSocket } from "../../src/fabric/local/served_socket.ts";
import type { FaultFigures } from "./death_matrix.ts";
import type { AskerReport, Fault } from "./support/asker.ts";
import {
  closeBooks,
  comeClerk,
  comeInVain,
  comeWorker,
  type Desk,
  givesUp,
  hasReceived,
  hasSeenBrokers,
  knowDesks,
  knowGone,
  missNext,
  readBefore,
  reportClerk,
  reportWork,
  rest,
  sendNoMore,
  sendToNext,
} from "./support/load.ts";
import { now } from "./support/native_kill.ts";
import { FabricDirectory, Player, processState } from "./support/player.ts";
import { comeTrader, meetTrader, settleWith, type Stall } from "./support/trade.ts";
import { becomes, inTime, random, spread } from "./support/watch.ts";

/** How often the broker is killed, and which. */
export interface TakeoverOptions {
  /** How often it is killed. */
  readonly kills: number;
  /** How often it is stopped for a while, in between; never without it. */
  readonly stops?: number;
  /** So often in all at least, and after that only before `until`, as `Date.now()` says it. */
  readonly fewest?: number;
  readonly until?: number;
  /** When it happens follows from it. */
  readonly seed: number;
  /** Without a daemon one of the others has the broker; it dies with it, and another comes in its place. */
  readonly daemon?: boolean;
  /** Seconds that it is stopped at least, in turn; 1 without it. */
  readonly stopped?: readonly number[];
  /** Told of every round before it begins. */
  readonly onRound?: (description: string) => void;
}

/** What was run, and what came of it. */
export interface TakeoverFigures extends FaultFigures {
  /** How often the broker was killed, and stopped. */
  readonly kills: number;
  readonly stops: number;
  /** Control calls that ended. */
  readonly calls: number;
  /** Calls that ended with UNAVAILABLE and were repeated. */
  readonly repeated: number;
  /** Milliseconds that a call took at most. */
  readonly longestCallMs: number;
}

const WORKERS = 8;
const CLERKS = 2;
const TRADERS = 3;

/** Milliseconds that a call may take where the broker is stopped, more than a busy machine takes for one; and else. */
const BRIEF = 3000;
const PATIENCE = 20_000;

/** So many calls of everybody who asks must have ended by themselves before a broker that was stopped goes on. */
const GIVEN_UP = 1;

/** What a datagram without payload takes of the budget. */
const HEADER = 24;

/** One of the eight. */
interface Worker extends Desk {
  readonly player: Player;
}

/** One who asks. */
interface Clerk {
  readonly player: Player;
  readonly context: number;
  readonly endpoint: Handle;
}

/** One who has to do with the others. */
interface Trader extends Stall {
  readonly player: Player;
}

/** Kills and stops the broker so many times; see {@linkcode TakeoverOptions}. */
export async function takeoverUnderLoad(options: TakeoverOptions): Promise<TakeoverFigures> {
  await using office = await Office.open(options);
  const { kills, stops = 0, fewest = 0, until = Infinity, seed, stopped = [1], onRound } = options;
  const draw = random(seed);
  let stopsBefore = 0;
  for (let round = 1; round <= kills + stops; round++) {
    if (round > fewest && Date.now() > until) break;
    await new Promise((resolve) => setTimeout(resolve, 20 + 200 * draw()));
    const stopsNow = Math.floor(round * stops / (kills + stops)) > stopsBefore;
    onRound?.(`round ${round}: the broker is ${stopsNow ? "stopped" : "killed"}`);
    const doing = stopsNow ? office.stop(stopped[stopsBefore++ % stopped.length]!) : office.kill();
    await inTime(doing, () => `round ${round}: ${office.doing}`);
  }
  await inTime(office.settle(), () => `the end: ${office.doing}`);
  return office.figures();
}

/** The ring of workers, the clerks and the traders. */
class Office implements AsyncDisposable {
  /** What is waited for. */
  doing = "";
  readonly #directory = new FabricDirectory();
  readonly #workers: Worker[] = [];
  readonly #clerks: Clerk[] = [];
  readonly #traders: Trader[] = [];
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
  /** When each context died. */
  readonly #died = new Map<number, number>();
  readonly #sums = {
    kills: 0,
    stops: 0,
    sent: 0,
    checked: 0,
    calls: 0,
    repeated: 0,
    longestCall: 0,
    longestPause: 0,
  };

  private constructor({ daemon = false, stops = 0 }: TakeoverOptions) {
    this.#withDaemon = daemon;
    this.#timeout = stops === 0 ? PATIENCE : BRIEF;
  }

  static async open(options: TakeoverOptions): Promise<Office> {
    const office = new Office(options);
    if (office.#withDaemon) await office.#startDaemon();
    for (let i = 0; i < CLERKS; i++) await office.#hireClerk(i);
    for (let i = 0; i < WORKERS; i++) office.#workers.push(await office.#hireWorker());
    for (let i = 0; i < TRADERS; i++) await office.#hireTrader(i);
    for (const slot of office.#workers.keys()) await office.#connect(slot);
    await office.#tellClerks();
    return office;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const player of [...this.#all, ...this.#spare]) await player.kill();
    await this.#daemon?.[Symbol.asyncDispose]();
    await this.#directory[Symbol.asyncDispose]();
  }

  get #all(): Player[] {
    return [...this.#workers, ...this.#clerks, ...this.#traders].map(({ player }) => player);
  }

  /** Those who ask the broker all the time. */
  get #asking(): Player[] {
    return [...this.#clerks, ...this.#traders].map(({ player }) => player);
  }

  get #device(): string {
    return this.#withDaemon ? `${this.#directory.path}/daemon` : this.#directory.path;
  }

  get #brokerPid(): number {
    const pid = ServedSocket.listenerAt(this.#withDaemon ? this.#device : this.#directory.socket);
    assert(pid !== undefined);
    return pid;
  }

  /** Whoever has the broker dies, in the middle of whatever it and all others are about. */
  async kill(): Promise<void> {
    const pid = this.#brokerPid;
    const of = (them: readonly { readonly player: Player }[]) => them.findIndex(({ player }) => player.pid === pid);
    const [slot, desk, place] = [of(this.#workers), of(this.#clerks), of(this.#traders)];
    const victim = this.#workers[slot] ?? this.#clerks[desk] ?? this.#traders[place];
    const at = now();
    Deno.kill(pid, "SIGKILL");
    this.#sums.kills++;
    if (victim !== undefined) this.#died.set(victim.context, at);
    if (this.#daemon !== undefined) {
      await this.#daemon.ended;
      await this.#startDaemon();
    }
    await victim?.player.ended();
    await this.#othersKnow(victim, at);
    if (slot >= 0) await this.#replaceWorker(slot);
    if (desk >= 0) await this.#hireClerk(desk);
    if (place >= 0) await this.#replaceTrader(place);
    await this.#tellClerks();
    await this.#audit();
  }

  /** Whoever has the broker is stopped, and goes on when all others have been told so by their calls. */
  async stop(seconds: number): Promise<void> {
    const pid = this.#brokerPid;
    Deno.kill(pid, "SIGSTOP");
    this.#sums.stops++;
    await processState(pid, (state) => state === "T");
    const pause = new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    this.doing = "calls end while the broker is stopped";
    const others = this.#asking.filter((player) => player.pid !== pid);
    const giveUp = others.map((player) => player.run(givesUp, GIVEN_UP));
    const comeAnew = async () => {
      const stranger = this.#spare[0]!;
      assertEquals(await stranger.run(comeInVain, this.#device, this.#timeout), "UNAVAILABLE");
    };
    await Promise.all([...giveUp, comeAnew()]);
    // The lanes of all others go on.
    for (const [slot, worker] of this.#workers.entries()) {
      const next = this.#next(slot);
      if (worker.player.pid === pid || next.player.pid === pid) continue;
      this.doing = `worker ${worker.context} sends on while the broker is stopped`;
      const { received } = await next.player.run(reportWork);
      await next.player.run(hasReceived, worker.context, (received[worker.context] ?? 0) + 1);
    }
    await pause;
    Deno.kill(pid, "SIGCONT");
    await this.#audit(pid);
  }

  /** In the end nobody sends any more, and all has arrived. */
  async settle(): Promise<void> {
    const busy = new Map(
      [...this.#workers, ...this.#clerks, ...this.#traders].map(({ player, context }) => [player, context]),
    );
    await Promise.all(this.#asking.map(async (player) => {
      this.doing = `everybody stops: ${[...busy.values()]}`;
      await player.run(rest);
      busy.delete(player);
      this.doing = `everybody stops: ${[...busy.values()]}`;
    }));
    for (const slot of this.#workers.keys()) await this.#drain(slot);
    for (const one of this.#traders) {
      for (const other of this.#traders) if (other !== one) await this.#settle(other, one);
    }
    await this.#audit();
    this.doing = "the broker knows who is there, and nothing else";
    const observer = await observe(this.#device);
    try {
      const names = this.#all.length + WORKERS + 1;
      await becomes(() => listNames(observer).length, names, "the number of names");
      const all = [...this.#workers, ...this.#clerks, ...this.#traders];
      const contexts = all.map(({ context }) => context).sort((a, b) => a - b);
      const known = () => inspect(observer, "contexts").map(({ context }) => context).sort((a, b) => a - b);
      await becomes(known, contexts, "the contexts");
      const had = [
        ...this.#workers.flatMap(({ endpoint, region }) => [endpoint, region]),
        ...this.#clerks.map(({ endpoint }) => endpoint),
        ...this.#traders.flatMap(({ mailbox, ledger }) => [mailbox, ledger]),
      ];
      const resources = had.map(({ resource }) => resource).sort((a, b) => a - b);
      // Nobody has the public group.
      const there = () =>
        inspect(observer, "resources").filter(({ type }) => type !== "GROUP").map(({ handle }) => handle.resource)
          .sort((a, b) => a - b);
      await becomes(there, resources, "the resources");
      await becomes(() => inspect(observer, "resources").length, resources.length + 1, "the number of resources");
      await becomes(() => inspect(observer, "attachments").length, 2 * WORKERS + TRADERS, "the attachments");
    } finally {
      await observer.close();
    }
  }

  figures(): TakeoverFigures {
    const { kills, stops, sent, checked, calls, repeated, longestCall, longestPause } = this.#sums;
    return {
      cases: kills + stops,
      faults: kills + stops,
      kills,
      stops,
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
    this.doing = "a clerk comes";
    const player = this.#hire();
    const context = this.#context++;
    const endpoint = await player.run(comeClerk, this.#device, context, this.#timeout);
    this.#clerks[desk] = { player, context, endpoint };
  }

  async #hireTrader(place: number): Promise<void> {
    const player = this.#hire();
    const stall = await player.run(comeTrader, this.#device, this.#context++, place, this.#timeout);
    this.#give([stall.mailbox.resource, stall.ledger.resource]);
    this.#traders[place] = { ...stall, player };
    for (const other of this.#traders) {
      if (other === undefined || other.place === place) continue;
      await other.player.run(meetTrader, stall);
      await player.run(meetTrader, stallOf(other));
    }
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
    await player.run(readBefore, deskOf(this.#before(slot)));
    await this.#sendToNext(slot);
  }

  /** A worker has its lane before anything happens to the broker: later it does not ask for it. */
  async #sendToNext(slot: number): Promise<void> {
    const { player, context } = this.#workers[slot]!;
    const next = this.#next(slot);
    await player.run(sendToNext, deskOf(next));
    await next.player.run(hasReceived, context, 1);
  }

  /** A worker stops sending; all that it sent arrives. */
  async #drain(slot: number): Promise<void> {
    const { player, context } = this.#workers[slot]!;
    const sent = await player.run(sendNoMore);
    this.doing = `all ${sent} datagrams of ${context} arrive`;
    await this.#next(slot).player.run(hasReceived, context, sent);
    const { received } = await this.#next(slot).player.run(reportWork);
    assertEquals(received[context] ?? 0, sent, `datagrams of ${context}`);
    this.#count(sent, received[context] ?? 0);
  }

  async #replaceWorker(slot: number): Promise<void> {
    const dead = this.#workers[slot]!;
    const next = this.#next(slot);
    const before = this.#before(slot);
    this.doing = `what ${dead.context} sent before it died arrives`;
    const books = await next.player.run(closeBooks, dead.context);
    assertEquals(books.faults, [], `the books of ${dead.context}`);
    this.#count(Math.max(books.accepted, books.came), books.came);
    this.doing = `${before.context} is told what ${dead.context} had not read`;
    const { sent, lost } = await before.player.run(missNext, deskOf(dead));
    // It may have died between a datagram and the note that it was taken.
    const told = [books.taken, books.taken + 1].map((taken) => costOf(taken, sent));
    assert(told.includes(lost), `${lost} bytes were lost, and not one of ${told}: ${sent} sent, ${books.taken} taken`);
    this.doing = "another worker comes";
    this.#workers[slot] = await this.#hireWorker();
    await next.player.run(readBefore, deskOf(this.#workers[slot]!));
    await this.#connect(slot);
    await this.#sendToNext((slot + WORKERS - 1) % WORKERS);
  }

  async #replaceTrader(place: number): Promise<void> {
    const dead = this.#traders[place]!;
    for (const other of this.#traders) if (other !== dead) await this.#settle(other, dead);
    this.doing = "another trader comes";
    await this.#hireTrader(place);
  }

  /** One has taken in all that another one, which died or rests, had sent to it. */
  async #settle(one: Trader, other: Trader): Promise<void> {
    this.doing = `${one.context} settles with ${other.context}`;
    const { accepted, came } = await one.player.run(settleWith, stallOf(other));
    // It may have died between a datagram and the note that it was accepted: in its mailbox, or in an offer.
    const most = accepted + (this.#died.has(other.context) ? 1 : 0);
    assert(came <= most, `${came} datagrams of ${other.context} came to ${one.context}, and ${accepted} were accepted`);
    this.#count(Math.max(accepted, came), came);
  }

  async #tellClerks(): Promise<void> {
    const desks = this.#workers.map(deskOf);
    for (const { player } of this.#clerks) await player.run(knowDesks, desks);
  }

  #count(sent: number, checked: number): void {
    this.#sums.sent += sent;
    this.#sums.checked += checked;
  }

  // --- Looking --------------------------------------------------------------------------------------------------------

  async #othersKnow(dead: Worker | Clerk | Trader | undefined, at: number): Promise<void> {
    const living = this.#all.filter((player) => player !== dead?.player);
    if (dead !== undefined) this.#brokers.delete(dead.player);
    await Promise.all(living.map(async (player) => {
      if (dead !== undefined) await player.run(knowGone, dead.context);
      const count = this.#brokers.get(player)! + 1;
      this.doing = "others are told of another broker";
      const seen = await player.run(hasSeenBrokers, count);
      this.#brokers.set(player, count);
      assertEquals(seen.lost, 0, "what the next broker did not take back");
      this.#knew.push(seen.at - at);
    }));
  }

  /** Whether anything was wrong so far. Of a process that was stopped itself neither calls nor traffic are timed. */
  async #audit(stopped?: number): Promise<void> {
    this.doing = "everybody reports";
    for (const { player, context } of this.#workers) {
      const { faults, pauses } = await player.run(reportWork);
      assertEquals(this.#real(faults), [], `worker ${context}`);
      for (const [from, pause] of Object.entries(pauses)) {
        const sender = this.#workers.find(({ context }) => context === Number(from));
        if (player.pid === stopped || sender === undefined || sender.player.pid === stopped) continue;
        this.#sums.longestPause = Math.max(this.#sums.longestPause, pause);
      }
      assertEquals(player.complaints, "");
    }
    for (const { player, context } of [...this.#clerks, ...this.#traders]) {
      const { faults, calls, repeated, longestCall, handles }: AskerReport = await player.run(reportClerk);
      assertEquals(this.#real(faults), [], `context ${context}`);
      this.#sums.calls += calls;
      this.#sums.repeated += repeated;
      if (player.pid !== stopped) this.#sums.longestCall = Math.max(this.#sums.longestCall, longestCall);
      this.#give(handles);
      assertEquals(player.complaints, "");
    }
  }

  /** What is a fault: not that somebody was not found who was dead. */
  #real(faults: readonly Fault[]): readonly Fault[] {
    return faults.filter(({ about, at }) => about === null || at < (this.#died.get(about) ?? Infinity));
  }

  #give(resources: readonly number[]): void {
    for (const resource of resources) {
      assert(!this.#given.has(resource), `${resource} was given twice`);
      this.#given.add(resource);
    }
  }
}

/** What travels of a worker. */
function deskOf({ context, endpoint, region }: Worker): Desk {
  return { context, endpoint, region };
}

/** What travels of a trader. */
function stallOf({ context, place, mailbox, ledger }: Trader): Stall {
  return { context, place, mailbox, ledger };
}

/** What a worker's datagrams with these numbers take of the budget; see `comeWorker`. */
function costOf(from: number, to: number): number {
  let bytes = 0;
  for (let number = from; number < to; number++) bytes += HEADER + 8 + (number * 37) % 1500;
  return bytes;
}

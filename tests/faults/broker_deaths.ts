/**
 * The broker dies, or is stopped, within every operation of a client: what becomes of the operation, and of all others.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Handle, VmciEvent } from "../../mod.ts";
import { closeDescriptor } from "../../ffi/descriptor.ts";
import { SystemError } from "../../ffi/libc.ts";
import { connectSeqpacket, PacketSocket } from "../../ffi/unix_socket.ts";
import { observe } from "../../src/cli/inspect.ts";
import { encodeMessage } from "../../src/fabric/local/packet_codec.ts";
import { actOf, operations } from "./operations.ts";
import { now } from "./support/native_kill.ts";
import { FabricDirectory, Player } from "./support/player.ts";
import {
  type Belongings,
  carryOn,
  comePartner,
  comeReceiver,
  comeSender,
  comeVictim,
  found,
  goesOn,
  type Lent,
  meet,
  sentSoFar,
  trafficBetween,
} from "./support/scene.ts";
import type { Strike } from "./support/stage.ts";
import { becomes, type Holdings, holdingsOf, inTime, stateOf } from "./support/watch.ts";

/** Who has the broker: a program that came first, or a daemon, which is started again when it died. */
export type BrokerKind = "embedded" | "daemon";

/** One case. Without a strike, nothing happens to the broker. */
export interface BrokerCase {
  readonly kind: BrokerKind;
  /** What its client does. */
  readonly name: string;
  readonly strike: Strike | undefined;
}

/** How a case is printed. */
export function describeBrokerCase({ kind, name, strike }: BrokerCase): string {
  if (strike === undefined) return `no blow to the ${kind} broker at '${name}'`;
  const { blow, at, nth } = strike;
  return `${blow} to the ${kind} broker ${at === "called" ? "just after" : "just before"} its call ${nth} at '${name}'`;
}

/** What a case gave. */
export interface BrokerFigures {
  /** How many calls the broker made, if it lived on. */
  readonly calls: number | undefined;
  /** How long after the blow each of the others knew another broker, in milliseconds. */
  readonly knew: readonly number[];
  readonly pause: number;
  /** The strangers' datagrams. */
  readonly sent: number;
  readonly checked: number;
}

/** What is the same with and without a blow. */
interface Course {
  readonly outcome: string;
  readonly outcomes: Readonly<Record<string, string>>;
  readonly events: readonly string[];
  readonly state: readonly string[];
}

/**
 * Milliseconds that the calls of one may take who meets a broker that is stopped, more than a busy machine takes for one;
 * and of all others.
 */
const BRIEF = 3000;
const PATIENCE = 20_000;

/** The context of whoever acts. */
const ACTOR = 18;

/** A connection to a broker that does what fragile_broker.ts says. */
class Trigger implements Disposable {
  readonly #socket: PacketSocket;

  constructor(path: string) {
    this.#socket = new PacketSocket(connectSeqpacket(path));
  }

  send(op: string, args: object = {}): void {
    try {
      this.#socket.send(encodeMessage({ id: 1, op, args: { ...args } }));
    } catch (error) {
      // It has been struck already.
      if (!(error instanceof SystemError)) throw error;
    }
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.#socket.fd);
  }
}

/** See the module's comment. */
export class BrokerRoom implements AsyncDisposable {
  readonly #directory = new FabricDirectory();
  readonly #actor = new Player();
  readonly #partner = new Player();
  readonly #sender = new Player();
  readonly #receiver = new Player();
  readonly #courses = new Map<string, Course>();
  /** All handles that were given by the brokers of one fabric. */
  readonly #given = new Set<number>();
  #daemons = 0;
  /** Brokers that wait to begin. */
  readonly #brokers: Player[] = [];
  /** What is waited for. */
  #doing = "";

  private constructor() {}

  /** Makes one. */
  static async make(): Promise<BrokerRoom> {
    const room = new BrokerRoom();
    // The first thread that Deno starts leaves something of Deno's behind.
    for (const player of room.#players) await player.run(found, room.#directory.path);
    return room;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const player of [...this.#players, ...this.#brokers]) await player.kill();
    await this.#directory[Symbol.asyncDispose]();
  }

  get #players(): Player[] {
    return [this.#actor, this.#partner, this.#sender, this.#receiver];
  }

  /** Runs one case, and checks everything. */
  async run(one: BrokerCase, seconds: number): Promise<BrokerFigures> {
    return await inTime(this.#run(one, seconds), () => `${describeBrokerCase(one)}: ${this.#doing}`).catch((error) => {
      throw new Error(`${describeBrokerCase(one)}: ${error.message}`, { cause: error });
    });
  }

  async #run({ kind, name, strike }: BrokerCase, seconds: number): Promise<BrokerFigures> {
    const had = this.#had();
    await using brokers = new AsyncDisposableStack();
    const device = kind === "embedded" ? this.#directory.path : this.#anotherSocket();
    const broker = brokers.use(await this.#start(kind, device));
    const { prepare, crowded = false } = operations[name]!;
    const act = actOf(name);

    this.#doing = "everybody comes";
    const to = await this.#receiver.run(comeReceiver, device, PATIENCE);
    await this.#sender.run(comeSender, device, to, PATIENCE);
    const lent = await this.#partner.run(comePartner, device, PATIENCE);
    const timeout = strike?.blow === "SIGSTOP" ? BRIEF : PATIENCE;
    const around = { device, context: ACTOR, timeout, ...lent, elsewhere: "" };
    const own = await this.#actor.run(comeVictim, around);
    this.#mustBeNew(to, lent, own);
    await this.#partner.run(meet, own, crowded);
    if (prepare !== undefined) await this.#actor.run(prepare, around);

    this.#doing = "the blow falls";
    using trigger = new Trigger(kind === "embedded" ? this.#directory.socket : device);
    trigger.send("arm", strike ?? {});
    await broker.heard("armed");
    const acting = this.#actor.start((s, act, around) => s.act(act, around), act, around);
    const struck = strike === undefined ? undefined : await this.#blow(broker, strike, acting, trigger);
    const sent = await this.#sender.run(sentSoFar);
    const asking = this.#partner.start((s, name) => void s.vmci.discovery.lookup(name), "partner");
    let outcome: string;
    if (strike?.blow === "SIGSTOP") {
      this.#doing = "the call ends though the broker is stopped";
      outcome = await acting;
      await this.#goesOn(sent);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      await this.#goesOn(await this.#sender.run(sentSoFar));
      broker.signal("SIGCONT");
      this.#doing = "the call is repeated";
      if (outcome === "UNAVAILABLE") {
        outcome = await this.#actor.run((s, act, around) => s.act(act, around), act, around);
      }
    } else {
      if (strike !== undefined && kind === "daemon") brokers.use(await this.#start(kind, device));
      this.#doing = "the call ends";
      outcome = await acting;
    }
    this.#doing = "a lookup meanwhile ends";
    await asking;
    const { pause } = await this.#goesOn(sent);

    this.#doing = "others are told";
    const knew: number[] = [];
    if (strike?.blow === "SIGKILL") {
      for (const player of [this.#partner, this.#receiver]) {
        const { event, at } = await player.run((s) => s.told({ type: "broker-changed" }));
        assertEquals(event.type === "broker-changed" && event.lost, [], "what the next broker did not take back");
        knew.push(at - struck!);
      }
    }
    let calls: number | undefined;
    if (strike === undefined) {
      trigger.send("disarm");
      calls = Number((await broker.nextLine())!.replace("survived ", ""));
    }
    await this.#compare(kind, name, strike, device, own, outcome);
    const { sent: all, checked } = await trafficBetween(this.#sender, this.#receiver);

    this.#doing = "everybody leaves";
    for (const player of [this.#actor, this.#partner, this.#sender, this.#receiver]) {
      await player.run((s) => s.leave());
      assertEquals(player.complaints, "");
    }
    await becomes(() => this.#had(), had, "what players have");
    return { calls, knew, pause, sent: all, checked };
  }

  /** Waits for the blow; when the operation was over before, the broker is struck from here. */
  async #blow(broker: Player, { blow }: Strike, acting: Promise<unknown>, trigger: Trigger): Promise<number> {
    const line = broker.nextLine();
    void acting.then(() => trigger.send("disarm"), () => {});
    let said = (await line) ?? "";
    if (!said.startsWith("struck ")) {
      said = `struck ${now()}`;
      broker.signal(blow);
    }
    if (blow === "SIGSTOP") await broker.stopped();
    else assertEquals((await broker.ended()).signal, "SIGKILL", broker.complaints);
    return Number(said.replace("struck ", ""));
  }

  async #goesOn(sent: number): Promise<{ pause: number }> {
    const { faults, pause } = await this.#receiver.run(goesOn, sent);
    assertEquals(faults, [], "the strangers' datagrams");
    return { pause };
  }

  /** All must be as it is without a blow. */
  async #compare(
    kind: BrokerKind,
    name: string,
    strike: Strike | undefined,
    device: string,
    own: Belongings,
    outcome: string,
  ): Promise<void> {
    this.#doing = "the state is looked at";
    const observer = await observe(device);
    try {
      const look = () => this.#normal(stateOf(observer));
      const key = `${kind} ${name}`;
      const course = this.#courses.get(key);
      if (course !== undefined) await becomes(look, course.state, "what the broker knows");
      const state = look();
      // Whoever has asked the broker something since has heard of what happened before.
      const outcomes = await this.#partner.run(carryOn, own);
      const told = await this.#partner.run((s) => s.events);
      const seen: Course = { outcome, state, events: balance(told.map(({ event }) => event.type)), outcomes };
      if (course !== undefined) assertEquals(seen, course);
      else if (strike === undefined) this.#courses.set(key, seen);
      else throw new Error("there is nothing to compare with: run it without a blow first");
    } finally {
      await observer.close();
    }
  }

  /** A broker's state without the numbers that differ from one time to the next. */
  #normal(rows: readonly string[]): string[] {
    const text = rows.join("\n");
    const numbers = new Set([...text.matchAll(/"resource":(\d+)/g)].map(([, number]) => Number(number)));
    const ranks = new Map([...numbers].sort((a, b) => a - b).map((number, rank) => [number, rank]));
    const players = { actor: this.#actor, partner: this.#partner, sender: this.#sender, receiver: this.#receiver };
    const pids = new Map(Object.entries(players).map(([name, { pid }]) => [pid, name]));
    return text
      .replace(/"resource":(\d+)/g, (_, number) => `"resource":#${ranks.get(Number(number))}`)
      .replace(/"(pid|receiver)":(\d+)/g, (_, field, pid) => `"${field}":${pids.get(Number(pid)) ?? "another"}`)
      // A region without its creator cannot be attached to: nobody asks any more what was granted.
      .replace(/("pid":null,"names":\[\],"grants":)\d+/g, (_, it) => `${it}0`)
      .split("\n").sort();
  }

  #mustBeNew(to: Handle, lent: Lent, own: Belongings): void {
    for (const { resource } of [to, lent.endpoint, lent.region, lent.group, own.endpoint, own.region, own.group]) {
      assert(!this.#given.has(resource), `${resource} was given twice`);
      this.#given.add(resource);
    }
  }

  /** A daemon that has never run: it waits for nobody, and begins to count anew. */
  #anotherSocket(): string {
    this.#given.clear();
    return `${this.#directory.path}/daemon${++this.#daemons}`;
  }

  /** Has a broker begin. */
  async #start(kind: BrokerKind, device: string): Promise<Player> {
    while (this.#brokers.length < 2) {
      this.#brokers.push(new Player({ program: "fragile_broker.ts", permissions: ["--allow-all"] }));
    }
    const broker = this.#brokers.shift()!;
    await broker.begin(`${kind} ${device}`);
    await broker.heard("serving");
    return broker;
  }

  #had(): Holdings[] {
    return this.#players.map(({ pid }) => holdingsOf(pid));
  }
}

/** Events without an order. A peer that detaches while the broker dies may be told to have come back and gone again. */
function balance(events: readonly VmciEvent["type"][]): string[] {
  const rest = events.filter((it) => it !== "broker-changed").sort();
  const attached = rest.filter((it) => it === "peer-attached").length;
  const detached = rest.filter((it) => it === "peer-detached").length;
  const others = rest.filter((it) => it !== "peer-attached" && it !== "peer-detached");
  return [...others, `${detached - attached} more detached than attached`];
}

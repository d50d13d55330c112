/**
 * A process dies, or is stopped, before, within and after every operation: what its survivors see.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { handlesEqual, type VmciEvent } from "../../mod.ts";
import { observe } from "../../src/cli/inspect.ts";
import type { Session } from "../../src/fabric/session.ts";
import { actOf, type Operation, operations, type Surroundings } from "./operations.ts";
import { FabricDirectory, Player, PlayerGone } from "./support/player.ts";
import {
  type Belongings,
  bury,
  carryOn,
  comePartner,
  comeReceiver,
  comeSender,
  comeVictim,
  type Findings,
  found,
  goesOn,
  type Lent,
  meet,
  sentSoFar,
  type Traffic,
  trafficBetween,
} from "./support/scene.ts";
import type { Stage, Steps, Strike } from "./support/stage.ts";
import { becomes, type Holdings, holdingsOf, inTime, stateOf } from "./support/watch.ts";

/** Milliseconds that a call of a survivor may take. */
const PATIENCE = 20_000;

/** One case of the matrix. */
export interface DeathCase {
  readonly name: string;
  readonly strike: Strike;
}

/** How a case is printed. */
export function describeCase({ name, strike: { blow, at, nth } }: DeathCase): string {
  const { role } = operations[name]!;
  const where = at === "call" || at === "called" || at === "store"
    ? `${at === "called" ? "just after" : "just before"} ${at === "store" ? "store" : "call"} ${nth} of`
    : at;
  return `${blow} to a ${role} ${where} '${name}'`;
}

/** What a case gave. */
export interface DeathFigures {
  /** How long after the blow its partner knew, in milliseconds; of who was stopped nobody need know. */
  readonly knew: number | undefined;
  /** The longest time the strangers' traffic had between two datagrams, in milliseconds. */
  readonly pause: number;
}

/** The room in which victims die: a fabric with a partner and two strangers, which all live on. */
export class DeathRoom implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  readonly #device: string;
  readonly #elsewhere: FabricDirectory;
  readonly #partner: Player;
  readonly #sender: Player;
  readonly #receiver: Player;
  /** Whoever has the broker. */
  readonly #brokerPid: number;
  readonly #lent: Lent;
  readonly #observer: Session;
  /** Players that will be victims, so that nobody waits for them to start. */
  readonly #victims: Player[] = [];
  readonly #given = new Set<string>();
  #context = 2000;
  /** What is waited for. */
  #doing = "";

  private constructor(
    stack: AsyncDisposableStack,
    device: string,
    cast: { partner: Player; sender: Player; receiver: Player; brokerPid: number },
    lent: Lent,
    observer: Session,
    elsewhere: FabricDirectory,
  ) {
    this.#stack = stack;
    this.#device = device;
    this.#partner = cast.partner;
    this.#sender = cast.sender;
    this.#receiver = cast.receiver;
    this.#brokerPid = cast.brokerPid;
    this.#lent = lent;
    this.#observer = observer;
    this.#elsewhere = elsewhere;
  }

  /** Makes one. Without a daemon the first stranger has the broker. */
  static async make(daemon?: { readonly device: string; readonly pid: number }): Promise<DeathRoom> {
    await using stack = new AsyncDisposableStack();
    const elsewhere = stack.use(new FabricDirectory());
    const device = daemon?.device ?? stack.use(new FabricDirectory()).path;
    const [receiver, sender, partner] = [0, 0, 0].map(() => stack.use(new Player())) as [Player, Player, Player];
    const to = await receiver.run(comeReceiver, device, PATIENCE);
    await sender.run(comeSender, device, to, PATIENCE);
    const lent = await partner.run(comePartner, device, PATIENCE);
    const observer = stack.adopt(await observe(device), (it) => it.close());
    const cast = { partner, sender, receiver, brokerPid: daemon?.pid ?? receiver.pid };
    const room = new DeathRoom(stack.move(), device, cast, lent, observer, elsewhere);
    // The first thread that Deno starts leaves something of Deno's behind.
    await room.#refound();
    return room;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const victim of this.#victims) await victim.kill();
    await this.#stack.disposeAsync();
  }

  /** How many steps each operation takes. */
  async measure(): Promise<Map<string, Steps>> {
    const steps = new Map<string, Steps>();
    await using victim = new Player();
    for (const [name, { prepare, crowded = false }] of Object.entries(operations)) {
      await this.#around(name, async () => {
        const { around, own } = await this.#enter(victim, crowded);
        if (prepare !== undefined) await victim.run(prepare, around);
        steps.set(name, await victim.run((s, act, around) => s.measure(act, around), actOf(name), around));
        await victim.run(leaveAll);
        await this.#partner.run(bury, own);
      });
    }
    return steps;
  }

  /** Runs one case, and checks everything. */
  async run(one: DeathCase, seconds: number): Promise<DeathFigures> {
    return await inTime(this.#run(one, seconds), () => `${describeCase(one)}: ${this.#doing}`).catch((error) => {
      throw new Error(`${describeCase(one)}: ${error.message}`, { cause: error });
    });
  }

  async #run({ name, strike }: DeathCase, seconds: number): Promise<DeathFigures> {
    const operation = operations[name]!;
    const { prepare, crowded = false } = operation;
    let figures: DeathFigures | undefined;
    await this.#around(name, async () => {
      await using victim = this.#nextVictim();
      this.#doing = "the victim comes";
      const { around, own } = await this.#enter(victim, crowded);
      this.#doing = "the victim dies";
      if (prepare !== undefined) await victim.run(prepare, around);
      const acting = victim.start(
        (s, act, strike, around) => s.perform(act, strike, around),
        actOf(name),
        strike,
        around,
      );
      const struck = Number((await victim.nextLine())!.replace("struck ", ""));
      if (strike.blow === "SIGSTOP") await this.#sleepsAndWakes(victim, acting, own, seconds);
      else await assertGone(victim, acting);
      this.#doing = "the partner is told";
      const findings = await this.#partner.run(bury, own);
      this.#doing = "the strangers go on";
      checkFindings(operation, own, this.#lent, findings, strike.blow === "SIGSTOP");
      const { at } = findings.told.find(({ event }) => event.type === "context-removed")!;
      const { faults, pause } = await this.#receiver.run(goesOn, await this.#sender.run(sentSoFar));
      assertEquals(faults, [], "the strangers' datagrams");
      figures = { knew: strike.blow === "SIGSTOP" ? undefined : at - struck, pause };
      this.#doing = "another one founds a fabric there";
      if (name === "open where nobody is") await this.#refound();
    });
    return figures!;
  }

  /** The strangers stop; how many datagrams the one has sent, and how many came to the other. */
  async datagrams(): Promise<Traffic> {
    return await trafficBetween(this.#sender, this.#receiver);
  }

  /** Something happens, and in the end everything is as it was before. */
  async #around(name: string, happen: () => Promise<void>): Promise<void> {
    const [known, had] = [this.#known(), this.#had()];
    await happen();
    await becomes(() => this.#known(), known, `what the broker knows after '${name}'`);
    await becomes(() => this.#had(), had, `what survivors have after '${name}'`);
    for (const player of [this.#partner, this.#sender, this.#receiver]) assertEquals(player.complaints, "");
  }

  #known(): string[] {
    return stateOf(this.#observer);
  }

  #had(): Record<string, Holdings> {
    const pids = { partner: this.#partner.pid, sender: this.#sender.pid, receiver: this.#receiver.pid };
    return Object.fromEntries(
      Object.entries({ ...pids, broker: this.#brokerPid }).map(([who, pid]) => [who, holdingsOf(pid)]),
    );
  }

  async #enter(victim: Player, crowded: boolean): Promise<{ around: Surroundings; own: Belongings }> {
    const context = this.#context++;
    const around = { device: this.#device, context, timeout: PATIENCE, ...this.#lent, elsewhere: this.#elsewhere.path };
    const own = await victim.run(comeVictim, around);
    for (const handle of [own.endpoint, own.region, own.group]) {
      const text = JSON.stringify(handle.resource);
      assert(!this.#given.has(text), `${text} was given twice`);
      this.#given.add(text);
    }
    await this.#partner.run(meet, own, crowded);
    return { around, own };
  }

  /** The victim is stopped, goes on, and leaves as it should. */
  async #sleepsAndWakes(
    victim: Player,
    acting: Promise<string>,
    own: Belongings,
    seconds: number,
  ): Promise<void> {
    await victim.stopped();
    const sent = await this.#sender.run(sentSoFar);
    const outcomes = await this.#partner.run(carryOn, own);
    const pause = new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    assertEquals((await this.#receiver.run(goesOn, sent)).faults, [], "the strangers' datagrams");
    await pause;
    // It may have closed what the partner used before it was stopped; it is not waited for in any case.
    for (const [call, outcome] of Object.entries(outcomes)) {
      assert(outcome !== "UNAVAILABLE" || call === "attach", `${call}: ${outcome}`);
    }
    victim.signal("SIGCONT");
    const outcome = await acting;
    assert(["ok", "parked", "TIMEOUT"].includes(outcome), outcome);
    await victim.run(leaveAll);
  }

  /** Where a founder died another one founds a fabric. */
  async #refound(): Promise<void> {
    await this.#partner.run(found, this.#elsewhere.path);
  }

  #nextVictim(): Player {
    while (this.#victims.length < 2) this.#victims.push(new Player());
    return this.#victims.shift()!;
  }
}

/** A victim that lives leaves. */
async function leaveAll(s: Stage): Promise<void> {
  await s.kept.founded?.[Symbol.asyncDispose]();
  await s.leave();
}

async function assertGone(victim: Player, acting: Promise<unknown>): Promise<void> {
  const outcome = await acting.catch((error) => error);
  assert(outcome instanceof PlayerGone, `it was not ended: ${Deno.inspect(outcome)}`);
  assertEquals((await victim.ended()).signal, "SIGKILL", victim.complaints);
}

/** What the partner must have found. */
function checkFindings(
  { crowded, fate }: Operation,
  own: Belongings,
  lent: Lent,
  { told, received, outcomes, whole }: Findings,
  stopped: boolean,
): void {
  const rooms = crowded ? ["DST_UNREACHABLE", "ok"] : ["not crowded"];
  assert(rooms.includes(outcomes.room!), `who waited for room got ${outcomes.room}`);
  assertEquals({ ...outcomes, room: undefined }, {
    room: undefined,
    lookup: "NOT_FOUND",
    "lookup more": "NOT_FOUND",
    send: "INVALID_ARGS",
    "send anonymously": "INVALID_ARGS",
    attach: "UNAVAILABLE",
    group: "INVALID_ARGS",
    detach: "3",
    query: "NOT_FOUND",
  });
  assert(whole, "a record was torn");
  const events = told.map(({ event }) => describeEvent(event, own, lent)).sort();
  const sent = crowded ? 2 * 69_024 : 60;
  // Who was stopped was sent another one meanwhile, and if it was about to take one it took it.
  const losses = [sent, ...(fate === "taken" ? [sent / 2] : []), ...(stopped ? [sent + 30, sent / 2 + 30] : [])];
  const lost = losses.find((it) => events.includes(`datagrams-lost its endpoint ${it}`)) ?? sent;
  // Who lost the right to send does not use the endpoint any more.
  const revoked = fate === "revoked" && events.includes("lane-revoked its endpoint");
  assertEquals(events, [
    "context-removed its",
    ...(revoked ? ["lane-revoked its endpoint"] : [`datagrams-lost its endpoint ${lost}`]),
    "peer-detached its region",
    "peer-detached the partner's region",
    ...(revoked ? [] : ["resource-gone its endpoint"]),
    "resource-gone its region",
  ]);
  for (const { who, count, faults } of received) {
    assertEquals(faults, [], "the victim's datagrams");
    // Two numbers a victim: three datagrams that it sent when it came, and perhaps another; and one from elsewhere.
    assert(who % 2 === 0 ? count === 3 || count === 4 : count === 1, `${count} datagrams came`);
  }
}

/** An event, with what the test calls things. */
function describeEvent(event: VmciEvent, own: Belongings, lent: Lent): string {
  const context = "context" in event && event.type === "context-removed" && event.context === own.context ? "its" : "";
  const handle = "handle" in event ? event.handle : "destination" in event ? event.destination : undefined;
  const known = { "its endpoint": own.endpoint, "its region": own.region, "the partner's region": lent.region };
  const named = Object.entries(known).find(([, it]) => handle !== undefined && handlesEqual(it, handle));
  const bytes = "bytes" in event ? String(event.bytes) : "";
  return [event.type, context, named?.[0] ?? "", bytes].filter((it) => it !== "").join(" ");
}

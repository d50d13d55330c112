/** Random lives of a fabric: the broker decides as the model does, keeps no more than there is, and loses nothing. */

import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { contextHandle, formatHandle, type Handle, INVALID_HANDLE, validPrivileges } from "../mod.ts";
import { slotSurvivor } from "../src/fabric/broker.ts";
import type { Quota } from "../src/fabric/quota.ts";
import { BrokerModel, type ModelResource, type Process, Refused } from "./support/broker_model.ts";
import { BrokerWorld, Refusal, type TestClient } from "./support/broker_world.ts";

/** Small, so that each is reached. */
const QUOTA: Quota = {
  contexts: 3,
  clients: 3,
  resources: 6,
  regions: 3,
  regionBytes: 4 * 4096,
  attachments: 5,
  lanes: 4,
  names: 3,
  watches: 2,
  grants: 5,
};

/** The contexts that come and go, with their coarse flags: two of none, one RESTRICTED, one TRUSTED. */
const FLAGS: Readonly<Record<number, number>> = { 2: 0, 16: 0, 17: 1, 18: 2 };
const CONTEXTS = Object.keys(FLAGS).map(Number);
const NAMES = ["a", "b", "c", "ä", ""];

/** Picks one of however many there are then. */
const pick = fc.nat({ max: 127 });
/** Places in the list of a resource's privileges; now and then one that it does not have. */
const privileges = fc.uniqueArray(fc.constantFrom(0, 1, 2, 0, 1, 2, 0, 1, 2, 3), { maxLength: 2 });

/** What can be done, and how often it is. */
const OPS = {
  join: 4,
  leave: 1,
  takeOver: 1,
  endpoint: 3,
  group: 2,
  region: 2,
  destroy: 1,
  attach: 3,
  detach: 2,
  openLane: 5,
  read: 2,
  register: 3,
  lookup: 1,
  unregister: 2,
  grant: 9,
  revoke: 3,
  revokeAll: 1,
  check: 3,
  addMember: 5,
  removeMember: 2,
};
type Op = keyof typeof OPS;

/** One step: of the rest, each op uses what it needs. */
const step = fc.record({
  op: fc.oneof(...Object.entries(OPS).map(([op, weight]) => ({ weight, arbitrary: fc.constant(op as Op) }))),
  who: pick,
  what: pick,
  client: pick,
  context: fc.constantFrom(...CONTEXTS),
  name: fc.constantFrom(...NAMES),
  size: fc.integer({ min: 1, max: 8193 }),
  canAssign: fc.boolean(),
  allow: privileges,
  deny: privileges,
});
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

/** What is done with a resource, and with which kind as a rule. */
const USES: Partial<Record<Op, ModelResource["type"] | "any">> = {
  destroy: "any",
  attach: "SHAREDMEM",
  detach: "SHAREDMEM",
  openLane: "DATAGRAM",
  register: "any",
  grant: "any",
  revoke: "any",
  revokeAll: "any",
  check: "any",
  addMember: "GROUP",
  removeMember: "GROUP",
};

/** Broker and model side by side. */
class Twins {
  world = new BrokerWorld({ quotas: QUOTA });
  readonly model = new BrokerModel(QUOTA, FLAGS);
  readonly clients = new Map<Process, TestClient>();
  /** All resources there ever were: the dead are asked for, too. */
  readonly resources: ModelResource[] = [...this.model.resources];
  readonly #laneNumbers = new Map<BrokerModel["lanes"][number], number>();

  /** Does the same with both, and compares what comes of it. */
  perform(step: Step): void {
    if (step.op === "join") {
      const { context } = step;
      const client = this.world.connect();
      const process = this.#same(
        () => this.model.join(context),
        () => client.hello({ context, flags: FLAGS[context]! }),
      );
      if (process !== undefined) this.clients.set(process, client);
      return;
    }
    if (step.op === "takeOver") return this.#takeOver(step.who);
    const kind = USES[step.op];
    const resource = kind === undefined ? undefined : this.#resource(step.what, kind);
    const processes = [...this.clients.keys()];
    // As a rule it is the owner who does something with his own.
    const own = step.who % 4 !== 0 && step.op !== "attach" && step.op !== "openLane" ? resource?.owner : undefined;
    const process = own ?? processes[step.who % processes.length];
    if (process === undefined) return;
    if (resource === undefined) this.#live(step, process, this.clients.get(process)!);
    else this.#use(step, resource, process, this.clients.get(process)!);
  }

  /** A resource: as a rule one that is there, of that kind. */
  #resource(what: number, kind: ModelResource["type"] | "any"): ModelResource {
    const fitting = this.model.resources.filter((it) => kind === "any" || it.type === kind);
    const all = what % 8 === 0 || fitting.length === 0 ? this.resources : fitting;
    return all[(what >> 3) % all.length]!;
  }

  #live(step: Step, process: Process, client: TestClient): void {
    const { model } = this;
    switch (step.op) {
      case "leave":
        model.leave(process);
        client.leave();
        this.clients.delete(process);
        return;
      case "endpoint":
        return this.#create(process, "DATAGRAM", 0, () => client.endpoint());
      case "group":
        return this.#create(process, "GROUP", 0, () => client.group());
      case "region":
        return this.#create(process, "SHAREDMEM", step.size, () => client.region(step.size));
      case "read":
        model.read(process);
        // For a lane of its own sending nothing is done by it.
        for (const { body: { lane } } of client.take("lane_closed")) client.ask("close_lane", { lane });
        return;
      case "lookup":
        this.#compare(() => model.lookup(step.name), () => client.ask("lookup", { name: step.name }).handle);
        return;
      case "unregister":
        this.#same(() => model.unregister(process, step.name), () => client.ask("unregister", { name: step.name }));
    }
  }

  #use(step: Step, resource: ModelResource, process: Process, client: TestClient): void {
    const { model } = this;
    const { handle, type } = resource;
    const other = this.#clientHandle(step.client);
    const privilegesAt = (places: readonly number[]) =>
      places.map((it) => [...validPrivileges[type], "DG_CREATE" as const][it]!);
    switch (step.op) {
      case "destroy":
        this.#same(() => model.destroy(process, resource), () => client.ask("destroy", { type, handle }));
        return;
      case "attach":
        this.#same(() => model.attach(process, resource), () => client.ask("attach", { handle }));
        return;
      case "detach":
        this.#compare(() => model.detach(process, resource), () => client.ask("detach", { handle }).last);
        return;
      case "openLane": {
        let lane = 0;
        this.#same(
          () => model.openLane(process, resource),
          () => ({ lane } = client.ask("open_lane", { source: INVALID_HANDLE, destination: handle })),
        );
        if (lane > 0) this.#laneNumbers.set(model.lanes.at(-1)!, lane);
        return;
      }
      case "register":
        this.#same(
          () => model.register(process, step.name, resource),
          () => client.ask("register", { name: step.name, handle }),
        );
        return;
      case "grant": {
        const [allow, deny] = [privilegesAt(step.allow), privilegesAt(step.deny)];
        this.#same(
          () => model.grant(process, resource, other, allow, deny),
          () => client.ask("grant", { resource: handle, client: other, allow, deny }),
        );
        return;
      }
      case "revoke": {
        const privileges = privilegesAt(step.allow);
        this.#same(
          () => model.revoke(process, resource, other, privileges),
          () => client.ask("revoke", { resource: handle, client: other, privileges }),
        );
        return;
      }
      case "revokeAll":
        this.#same(
          () => model.revoke(process, resource, other),
          () => client.ask("revoke_all", { resource: handle, client: other }),
        );
        return;
      case "check": {
        const privilege = privilegesAt([...step.allow, 0])[0]!;
        this.#compare(() => {
          const { code, via, decidedBy } = model.check(resource, other, privilege);
          return { code, via, decidedBy: decidedBy ?? null };
        }, () => client.ask("check", { resource: handle, client: other, privilege }));
        return;
      }
      case "addMember": {
        const { context: member, canAssign } = step;
        this.#same(
          () => model.addMember(process, resource, member, canAssign),
          () => client.ask("add_member", { group: handle, member, canAssign }),
        );
        return;
      }
      case "removeMember":
        this.#same(
          () => model.removeMember(process, resource, step.context),
          () => client.ask("remove_member", { group: handle, member: step.context }),
        );
    }
  }

  #create(process: Process, type: ModelResource["type"], size: number, make: () => Handle): void {
    let handle: Handle | undefined;
    this.#same(() => this.model.mayCreate(process, size), () => handle = make());
    if (handle === undefined) return;
    this.model.create(process, type, handle, size);
    this.resources.push(this.model.resources.at(-1)!);
  }

  /** Another broker takes over; everybody says, one after the other, what he has. */
  #takeOver(first: number): void {
    this.model.takeOver();
    const processes = [...this.clients.keys()];
    const survivors = processes.map((_, slot) => slotSurvivor(slot));
    this.world = new BrokerWorld({ quotas: QUOTA, firstNumber: this.world.medium.mark, survivors });
    const rotated = processes.map((_, i) => processes[(first + i) % processes.length]!);
    for (const process of rotated) {
      const { client: { number, peers }, kept } = this.clients.get(process)!;
      const client = this.world.connect();
      const { context } = process;
      client.hello({ context, flags: FLAGS[context]!, slot: processes.indexOf(process), client: number });
      client.kept = kept;
      this.clients.set(process, client);
      this.#announce(process, client);
      client.ask("announce_peers", { peers: [...peers] });
      client.ask("announced", {});
    }
  }

  #announce(process: Process, client: TestClient): void {
    const { model, world } = this;
    const ticket = null;
    for (const { type, handle, size } of model.resources.filter(({ owner }) => owner === process)) {
      const shares = type === "SHAREDMEM" ? [world.medium.share("region", size)] : [];
      const announced = { type, handle, size, creatorOnly: false, ticket };
      assertEquals(client.ask("announce_resource", announced, shares), { accepted: true });
      const { grants, names, members } = client.keptOf(handle);
      const entries = { grants: [...grants.values()], names: [...names], members: [...members.values()] };
      assertEquals(client.ask("announce_entries", { type, handle, ...entries, tickets: [] }), { refused: [] });
    }
    const attached = Map.groupBy(model.attachments.filter((it) => it.process === process), ({ region }) => region);
    for (const [{ handle, size }, { length: count }] of attached) {
      client.ask("announce_attachment", { handle, size, count, creatorOnly: false, ticket });
    }
    for (const lane of model.lanes) {
      const { sender, destination: { handle, owner } } = lane;
      const end = { lane: this.#laneNumbers.get(lane)!, source: INVALID_HANDLE, destination: handle };
      if (sender === process) client.ask("announce_lane", { ...end, sender: true, ticket: "" });
      if (owner === process) client.ask("announce_lane", { ...end, sender: false, ticket: "" });
    }
  }

  /** A context, a group, or now and then something that is neither, or is no more. */
  #clientHandle(index: number): Handle {
    const groups = this.model.resources.filter((it) => it.type === "GROUP");
    const all = [...CONTEXTS.map(contextHandle), ...(index % 8 === 0 ? this.resources : groups).map((it) => it.handle)];
    return all[(index >> 3) % all.length]!;
  }

  /** Both refuse with the same code or neither does. */
  #same<T>(expected: () => T, actual: () => unknown): T | undefined {
    let result: T | undefined;
    this.#compare(() => void (result = expected()), () => void actual());
    return result;
  }

  /** Both refuse with the same code or give the same. */
  #compare(expected: () => unknown, actual: () => unknown): void {
    assertEquals(outcomeOf(actual), outcomeOf(expected));
  }

  /** What can be seen of the broker is what the model says there is. */
  assertAlike(): void {
    const { model, world } = this;
    const pid = (process: Process | undefined) => process && this.clients.get(process)!.client.identity.pid;
    const names = model.names.map(({ name, resource: { handle, type } }) => ({ name, handle, type }));
    assertEquals(world.names(), names.toSorted((a, b) => a.name < b.name ? -1 : 1));
    const resources = model.resources.map(({ type, handle, owner }) =>
      `${type} ${formatHandle(handle)} ${pid(owner) ?? null}`
    );
    const inspected = world.inspect("resources").map(({ type, handle, pid }) =>
      `${type} ${formatHandle(handle as Handle)} ${pid}`
    );
    assertEquals(inspected.toSorted(), resources.toSorted());
    const lanes = model.lanes.map(({ sender, destination }) => `${pid(sender)} ${formatHandle(destination.handle)}`);
    const open = world.inspect("lanes").map(({ pid, destination }) => `${pid} ${formatHandle(destination as Handle)}`);
    assertEquals(open.toSorted(), lanes.toSorted());
    const attachments = Map.groupBy(
      model.attachments,
      ({ process, region }) => `${pid(process)} ${formatHandle(region.handle)}`,
    );
    const attached = world.inspect("attachments").map(({ pid, handle, count }) =>
      `${pid} ${formatHandle(handle as Handle)} ${count}`
    );
    assertEquals(attached.toSorted(), [...attachments].map(([key, all]) => `${key} ${all.length}`).toSorted());
    const contexts = world.inspect("contexts").toSorted((a, b) => Number(a.context) - Number(b.context));
    assertEquals(contexts.map((it) => ({ ...it, processes: undefined })), this.#contexts());
    const held = [
      ...model.processes.map(() => "attention"),
      ...model.resources.filter(isLiveRegion).map(() => "region"),
    ];
    assertEquals(world.medium.held, held.toSorted());
  }

  #contexts(): unknown[] {
    const { processes, resources, names } = this.model;
    const ids = [...new Set(processes.map(({ context }) => context))].toSorted((a, b) => a - b);
    return ids.map((context) => {
      const own = resources.filter(({ owner }) => owner?.context === context);
      return {
        context,
        flags: FLAGS[context],
        processes: undefined,
        clients: processes.filter((it) => it.context === context).length,
        resources: own.length,
        regionBytes: own.reduce((sum, { size }) => sum + Math.ceil(size / 4096) * 4096, 0),
        names: names.filter(({ resource }) => resource.context === context).length,
      };
    });
  }
}

function isLiveRegion({ type, owner }: ModelResource): boolean {
  return type === "SHAREDMEM" && owner !== undefined;
}

function outcomeOf(act: () => unknown): unknown {
  try {
    return { result: act() };
  } catch (error) {
    if (error instanceof Refused || error instanceof Refusal) return { code: error.code };
    throw error;
  }
}

Deno.test("broker: in every life it decides as the model does", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 120, size: "max" }), (steps) => {
      const twins = new Twins();
      for (const it of steps) {
        twins.perform(it);
        twins.assertAlike();
      }
      for (const client of twins.clients.values()) client.leave();
      twins.world.assertEmpty();
    }),
    { numRuns: 300, seed: 16 },
  );
});

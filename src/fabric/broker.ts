/**
 * The broker: it plays the hypervisor. It decides about contexts, resources, privileges, groups, names and quotas, and is
 * on the way only when something is created, attached, looked up, granted or closed.
 *
 * It is a state machine without clock, randomness or I/O of its own: a packet of a client goes in, packets to clients
 * come out. What it needs made - a lane's pages, a bell - it asks of the medium before it changes anything, so that a
 * failure leaves nothing half done. This is the machine; what it decides is in `broker/`, by subject.
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { accessHandlers } from "./broker/access.ts";
import { clientHandlers, removeClient } from "./broker/clients.ts";
import { endpointHandlers } from "./broker/endpoints.ts";
import { Client, type Identity } from "./broker/entities.ts";
import { type BrokerOptions, FabricState, type Handlers, type Outgoing } from "./broker/fabric_state.ts";
import { groupHandlers } from "./broker/groups.ts";
import { inspectionHandlers } from "./broker/inspection.ts";
import { laneHandlers, recheckLanes } from "./broker/lanes.ts";
import { nameHandlers } from "./broker/names.ts";
import { expectNoMore, recoveryHandlers } from "./broker/recovery.ts";
import { refusal } from "./broker/refusal.ts";
import { regionHandlers } from "./broker/regions.ts";
import { resourceHandlers } from "./broker/resources.ts";
import type { BrokerMedium, Packet, Share } from "./medium.ts";
import type { Policy } from "./policy.ts";
import { type CheckedRequest, checkRequest, type Operation, requestId } from "./protocol.ts";

export { type BrokerOptions, type Outgoing, PUBLIC_GROUP } from "./broker/fabric_state.ts";
export type { Tickets } from "./broker/claims.ts";
export { clientSurvivor, slotSurvivor } from "./broker/recovery.ts";

/** What came of one step. */
export interface Outcome {
  /** What to send, in this order. */
  readonly outgoing: readonly Outgoing[];
  /** What to release once all of it was sent. */
  readonly spent: readonly Share[];
}

/** A request that is put off until the broker knows everything. */
interface Deferred {
  readonly client: Client;
  readonly request: CheckedRequest;
}

/** So many requests of one client may be put off: who waits for each reply has one, and perhaps some that it gave up. */
const MOST_DEFERRED = 64;

/** What must not be answered from incomplete knowledge even where the answer would be yes. */
const needsEverything: ReadonlySet<Operation> = new Set<Operation>([
  "register",
  "list",
  "detach",
  "inspect",
  "is_member",
  "check",
]);

/** What a client says before the broker knows everything. */
const neverDeferred: ReadonlySet<Operation> = new Set<Operation>([
  "hello",
  "announce_resource",
  "announce_entries",
  "announce_attachment",
  "announce_lane",
  "announce_peers",
  "announced",
  // Whatever others announce, it would not be allowed then.
  "create_region",
  "subscribe",
  "watch_names",
  "unwatch_names",
  "pong",
  "bye",
]);

/** What one who only looks may ask. */
const forObservers: ReadonlySet<Operation> = new Set<Operation>([
  "hello",
  "announced",
  "query",
  "check",
  "is_member",
  "lookup",
  "list",
  "watch_names",
  "unwatch_names",
  "subscribe",
  "inspect",
  "ping",
  "bye",
]);

const handlers: Handlers = {
  ...clientHandlers,
  ...recoveryHandlers,
  ...resourceHandlers,
  ...endpointHandlers,
  ...laneHandlers,
  ...regionHandlers,
  ...accessHandlers,
  ...groupHandlers,
  ...nameHandlers,
  ...inspectionHandlers,
};

/** See the module's comment. */
export class Broker {
  readonly #fabric: FabricState;
  #deferred: Deferred[] = [];

  constructor(medium: BrokerMedium, options: BrokerOptions) {
    this.#fabric = new FabricState(medium, options);
  }

  /** Whether clients of the broker before are still expected to announce themselves. */
  get recovering(): boolean {
    return this.#fabric.recovering;
  }

  /** Those that are expected. */
  get survivors(): ReadonlySet<string> {
    return this.#fabric.survivors;
  }

  /** Whether the last client said that it leaves: nobody new can be taken in. */
  get ended(): boolean {
    return this.#fabric.ended;
  }

  /** How many clients said hello. */
  get clientCount(): number {
    return this.#fabric.clients.size;
  }

  /** A connection was made. */
  connect(identity: Identity): Client {
    return new Client(identity);
  }

  /** A packet came. Its shares are the broker's from here on. */
  handle(client: Client, packet: Packet): Outcome {
    return this.#step(() => {
      const shares = [...packet.shares];
      try {
        this.#answer(client, checkRequest(packet.message), shares);
      } catch (error) {
        this.#refuse(client, requestId(packet.message), error);
      }
      this.#fabric.spent.push(...shares);
    });
  }

  /** A connection ended: all that its client had goes. */
  disconnect(client: Client): Outcome {
    return this.#step(() => {
      this.#deferred = this.#deferred.filter((deferred) => deferred.client !== client);
      removeClient(this.#fabric, client);
    });
  }

  /** A survivor died before it announced anything. */
  survivorGone(survivor: string): Outcome {
    return this.#step(() => expectNoMore(this.#fabric, survivor));
  }

  /** The time to announce is over. */
  endRecovery(): Outcome {
    return this.#step(() => {
      for (const survivor of [...this.#fabric.survivors]) expectNoMore(this.#fabric, survivor);
    });
  }

  /** There is another policy: it holds for whoever comes from now on, and its flags and quotas at once for all. */
  setPolicy(policy: Policy): Outcome {
    return this.#step(() => {
      const fabric = this.#fabric;
      fabric.policy = policy;
      for (const context of fabric.contexts.values()) {
        context.quota = fabric.quotaOf(context.id);
        context.flags = policy.flagsOf(context.id) ?? context.chosenFlags;
      }
      recheckLanes(fabric, fabric.lanes.values());
    });
  }

  #step(act: () => void): Outcome {
    const fabric = this.#fabric;
    fabric.outgoing = [];
    fabric.spent = [];
    act();
    if (!fabric.recovering) this.#answerDeferred();
    return { outgoing: fabric.outgoing, spent: fabric.spent };
  }

  /** Runs a request and replies to it; takes out of `shares` what it keeps. */
  #answer(client: Client, request: CheckedRequest, shares: Share[]): void {
    const fabric = this.#fabric;
    if (client.number === 0 && request.op !== "hello") {
      return this.#refuse(client, request.id, refusal("INVALID_ARGS", "say hello first"), request);
    }
    if (client.observer && !forObservers.has(request.op)) {
      return this.#refuse(client, request.id, refusal("NO_ACCESS", "an observer only looks"), request);
    }
    const deferrable = this.recovering && !neverDeferred.has(request.op);
    if (deferrable && needsEverything.has(request.op)) return this.#defer(client, request);
    fabric.replyShares = [];
    try {
      const handler = handlers[request.op] as (
        fabric: FabricState,
        client: Client,
        args: unknown,
        shares: Share[],
      ) => unknown;
      const result = handler(fabric, client, request.args, shares);
      const kind = request.op === "hello" ? "welcome" : "reply";
      const message = { id: request.id, result };
      fabric.outgoing.push({ to: client, kind, message, shares: fabric.replyShares, request });
    } catch (error) {
      if (deferrable && error instanceof VmciError) return this.#defer(client, request);
      this.#refuse(client, request.id, error, request);
    }
  }

  #defer(client: Client, request: CheckedRequest): void {
    const mine = this.#deferred.filter((deferred) => deferred.client === client).length;
    if (mine >= MOST_DEFERRED) {
      const reason = `${mine} of your requests wait until all have announced what they had`;
      return this.#refuse(client, request.id, refusal("NO_RESOURCES", reason), request);
    }
    // No request that a share belongs to is ever put off.
    this.#deferred.push({ client, request });
  }

  /** Nothing is expected any more: what was put off can be answered. */
  #answerDeferred(): void {
    for (const { client, request } of this.#deferred.splice(0)) this.#answer(client, request, []);
  }

  #refuse(client: Client, id: number, error: unknown, request?: CheckedRequest): void {
    const code = error instanceof VmciError ? error.code : "NO_RESOURCES";
    const reason = error instanceof VmciError ? error.reason : `the broker failed: ${(error as Error).message}`;
    const reply = { to: client, kind: "reply", message: { id, error: { code, reason } }, shares: [] } as const;
    this.#fabric.outgoing.push(request === undefined ? reply : { ...reply, request });
  }
}

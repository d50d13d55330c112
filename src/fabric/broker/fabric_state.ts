/**
 * What the broker knows of its fabric, and what the step under way wants sent and released. Every subject of the broker
 * works on this.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import {
  type ContextId,
  FIRST_DYNAMIC_RESOURCE,
  type Handle,
  HOST_CONTEXT,
  HYPERVISOR_CONTEXT,
  INVALID_ID,
} from "../../handle.ts";
import { PUBLIC_GROUP_NAME } from "../../limits.ts";
import type { BrokerMedium, Share } from "../medium.ts";
import { NameTable } from "../name_table.ts";
import type { Policy } from "../policy.ts";
import type { CheckedRequest, Message, NoticeName, Notices, Operation, Requests, Results } from "../protocol.ts";
import { DEFAULT_QUOTA, type Quota } from "../quota.ts";
import type { Claim, Tickets } from "./claims.ts";
import { type Client, type Context, Group, type Lane, ResourceTable } from "./entities.ts";
import { fail } from "./refusal.ts";

/** How a broker starts. */
export interface BrokerOptions {
  /** The process that runs it. */
  readonly pid: number;
  /** `embedded`, `daemon` or `memory`. */
  readonly kind: string;
  /** The version of this library. */
  readonly version: string;
  /** What each may hold. */
  readonly quota?: Quota;
  /** The first number that was never given. */
  readonly firstNumber?: number;
  /** Who may be what; without it, whoever the medium lets in. */
  readonly policy?: Policy;
  /** How claims of what was had under the broker before are proven; without it, its own user is believed. */
  readonly tickets?: Tickets;
  /** Whether the broker before may have issued none: then its own user is believed without one. */
  readonly followsAny?: boolean;
  /** Those who lived under the broker before, and must announce themselves. */
  readonly survivors?: Iterable<string>;
}

/** One packet that the broker wants sent. */
export interface Outgoing {
  /** To whom. */
  readonly to: Client;
  /** A `welcome` is the reply to hello, to which the server adds what belongs to the connection. */
  readonly kind: "reply" | "notice" | "welcome";
  /** The message. */
  readonly message: Message;
  /** What goes with it. */
  readonly shares: readonly Share[];
  /** The request that it is the reply to, if that could be read. */
  readonly request?: CheckedRequest;
}

/** What the broker does with some of the requests. It either throws and has changed nothing, or answers. */
export type Handlers<O extends Operation = Operation> = {
  readonly [K in O]: (fabric: FabricState, client: Client, args: Requests[K], shares: Share[]) => Results[K];
};

/** One end of a lane that was announced. */
export type HalfLane = Requests["announce_lane"] & { readonly client: Client };

/** The handle of the group of all contexts: the same in every life of every fabric. */
export const PUBLIC_GROUP: Handle = Object.freeze({ context: HOST_CONTEXT, resource: FIRST_DYNAMIC_RESOURCE });

/** Numbers are reserved in blocks of so many before the first of them is used. */
const NUMBER_BLOCK = 1024;

/** See the module's comment. */
export class FabricState {
  /** What makes lanes and bells. */
  readonly medium: BrokerMedium;
  /** How the broker started. */
  readonly options: BrokerOptions;
  /** Who may be what, as it stands now. */
  policy: Policy | undefined;
  /** All contexts that have a client. */
  readonly contexts: Map<ContextId, Context> = new Map();
  /** All clients that said hello. */
  readonly clients: Map<number, Client> = new Map();
  /** Those that watch names. */
  readonly watching: Set<Client> = new Set();
  /** All resources. */
  readonly resources: ResourceTable = new ResourceTable();
  /** All names. */
  readonly names: NameTable = new NameTable();
  /** All lanes. */
  readonly lanes: Map<number, Lane> = new Map();
  /** The group of all contexts. */
  readonly publicGroup: Group;
  /** Those of the broker before that have not announced yet. */
  readonly survivors: Set<string>;
  /** One end of each lane that was announced, until the other end is too. */
  readonly halfLanes: Map<number, HalfLane> = new Map();
  /** Whether the last client said that it leaves. */
  ended = false;
  /** What the step under way wants sent, in this order. */
  outgoing: Outgoing[] = [];
  /** What is to be released once that was sent. */
  spent: Share[] = [];
  /** What goes with the reply under way. */
  replyShares: Share[] = [];
  #nextNumber: number;
  #reserved = 0;

  constructor(medium: BrokerMedium, options: BrokerOptions) {
    this.medium = medium;
    this.options = options;
    this.policy = options.policy;
    this.#nextNumber = Math.max(options.firstNumber ?? 0, PUBLIC_GROUP.resource + 1);
    this.survivors = new Set(options.survivors);
    this.publicGroup = new Group(PUBLIC_GROUP, HYPERVISOR_CONTEXT, undefined);
    this.resources.add(this.publicGroup);
    this.names.add(PUBLIC_GROUP_NAME, this.publicGroup);
    // No number is later than this one.
    this.publicGroup.names.set(PUBLIC_GROUP_NAME, INVALID_ID);
  }

  /** Whether clients of the broker before are still expected to announce themselves. */
  get recovering(): boolean {
    return this.survivors.size > 0;
  }

  /** Says something unasked. */
  notify<N extends NoticeName>(to: Client, notice: N, body: Notices[N], shares: readonly Share[] = []): void {
    this.outgoing.push({ to, kind: "notice", message: { notice, ...body }, shares });
  }

  /** A number that was never given: of a client, a handle, a lane or a place in a group's order. */
  number(): number {
    if (this.#nextNumber >= INVALID_ID) fail("NO_HANDLE", "all 4294967294 numbers of this fabric are used up");
    if (this.#nextNumber >= this.#reserved) {
      const mark = Math.min(this.#nextNumber + NUMBER_BLOCK, INVALID_ID);
      this.make(() => this.medium.reserveNumbers(mark));
      this.#reserved = mark;
    }
    return this.#nextNumber++;
  }

  /** Whether a number may have been given: one that was not would be given to somebody else. */
  wasGiven(number: number): boolean {
    return number < this.#nextNumber;
  }

  /** Asks the medium for something; where the operating system refuses it is NO_RESOURCES. */
  make<T>(make: () => T): T {
    try {
      return make();
    } catch (error) {
      if (error instanceof VmciError) throw error;
      throw new VmciError("NO_RESOURCES", {
        operation: "make",
        reason: `the broker cannot make what this needs: ${(error as Error).message}`,
        cause: error,
      });
    }
  }

  /** What a context may hold. */
  quotaOf(context: ContextId): Quota {
    const common = this.options.quota ?? DEFAULT_QUOTA;
    return this.policy?.quotaOf(context, common) ?? common;
  }

  /** A ticket for a claim, where claims must be proven. */
  ticket(claim: Claim): string {
    return this.options.tickets?.issue(JSON.stringify(claim)) ?? "";
  }

  /** Whether a client had, under the broker before, what it says it had. */
  believes(client: Client, claim: Claim, ticket: string | null): boolean {
    const { tickets } = this.options;
    if (tickets === undefined || (this.options.followsAny && ticket === "")) return client.identity.privileged;
    return ticket !== null && tickets.isGenuine(JSON.stringify(claim), ticket);
  }

  /**
   * Whether a request finds undone what it undoes because the broker before did it and died before it said so. While
   * others still announce what they have, nobody can say: the request then fails, and is put off.
   */
  wasDone({ repeated }: { readonly repeated?: boolean }): boolean {
    return repeated === true && !this.recovering;
  }
}

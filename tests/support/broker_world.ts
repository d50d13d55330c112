/**
 * A broker without processes: its medium makes plain objects and keeps the books on them, its clients are mailboxes.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type ErrorCodeName, formatHandle, type Handle, VmciError } from "../../mod.ts";
import { Broker, type BrokerOptions, type Outcome } from "../../src/fabric/broker.ts";
import type { Client, Identity } from "../../src/fabric/broker/entities.ts";
import type { BrokerMedium, RegionAccess, Share } from "../../src/fabric/medium.ts";
import {
  type AccessEntry,
  type GroupMember,
  type InspectTopic,
  type Message,
  type NoticeName,
  type Notices,
  type Operation,
  PROTOCOL_VERSION,
  replyError,
  type Requests,
  type Results,
} from "../../src/fabric/protocol.ts";
import type { Quota } from "../../src/fabric/quota.ts";

/** Something that is handed around, with its fate. */
export class TestShare {
  /** How often it was given back: in the end once. */
  released = 0;

  constructor(readonly what: string, readonly size = 0, readonly access: RegionAccess = "everybody") {}
}

/** What the medium can be made to refuse. */
export type Making = "makeLane" | "makeBell" | "reserveNumbers";

/** See the module's comment. */
export class TestMedium implements BrokerMedium {
  /** All shares there ever were. */
  readonly shares: TestShare[] = [];
  /** The mark below which numbers may be in use. */
  mark = 0;
  /** What fails, and after how many times that it does not. */
  readonly failing: Map<Making, number> = new Map();

  /** Makes a share as a client does. */
  share(what: string, size?: number, access?: RegionAccess): TestShare {
    const share = new TestShare(what, size, access);
    this.shares.push(share);
    return share;
  }

  makeLane(): Share {
    this.#mayFail("makeLane");
    return this.share("lane");
  }

  makeBell(): readonly [Share, Share] {
    this.#mayFail("makeBell");
    return [this.share("bell"), this.share("bell")];
  }

  checkRegion(share: Share, size: number, access: RegionAccess): void {
    const { what, size: actual, access: given } = share as TestShare;
    if (what === "region" && actual === size && given === access) return;
    throw new VmciError("INVALID_ARGS", { operation: "check", reason: "it is another region" });
  }

  checkAttention(share: Share): void {
    if ((share as TestShare).what === "attention") return;
    throw new VmciError("INVALID_ARGS", { operation: "check", reason: "it is no attention word" });
  }

  reserveNumbers(mark: number): void {
    this.#mayFail("reserveNumbers");
    assert(mark >= this.mark, "the mark only advances");
    this.mark = mark;
  }

  release(share: Share): void {
    const known = share as TestShare;
    assert(this.shares.includes(known), "what is released was made or handed in");
    assertEquals(++known.released, 1, `a ${known.what} is released once`);
  }

  /** The shares that somebody must still hold. */
  get held(): string[] {
    return this.shares.filter(({ released }) => released === 0).map(({ what }) => what).toSorted();
  }

  #mayFail(what: Making): void {
    const left = this.failing.get(what);
    if (left === 0) throw new Error(`${what} is refused`);
    if (left !== undefined) this.failing.set(what, left - 1);
  }
}

/** A refusal of the broker. */
export class Refusal extends Error {
  constructor(readonly code: ErrorCodeName, readonly reason: string) {
    super(`${code}: ${reason}`);
  }
}

/** What came for a client: a notice, with the shares that came with it. */
export interface Received<N extends NoticeName = NoticeName> {
  readonly body: Notices[N];
  readonly shares: readonly TestShare[];
}

/** A broker, its medium and its clients. */
export class BrokerWorld {
  readonly medium: TestMedium = new TestMedium();
  readonly broker: Broker;
  readonly #clients = new Map<Client, TestClient>();
  #pids = 0;

  constructor(options: Partial<BrokerOptions> & { readonly quotas?: Partial<Quota> } = {}) {
    const { quotas, ...rest } = options;
    const quota = { ...LARGE, ...quotas };
    this.broker = new Broker(this.medium, { pid: 1, kind: "test", version: "0", quota, ...rest });
  }

  /** Connects somebody who has not said hello. */
  connect(identity: Partial<Identity> = {}): TestClient {
    const client = this.broker.connect({
      pid: ++this.#pids,
      uid: 1000,
      contexts: "all",
      privileged: true,
      ...identity,
    });
    const connected = new TestClient(this, client);
    this.#clients.set(client, connected);
    return connected;
  }

  /** Connects somebody who is in a context. */
  join(
    context: number | null = null,
    hello: Partial<Requests["hello"]> = {},
    identity: Partial<Identity> = {},
  ): TestClient {
    const client = this.connect(identity);
    client.hello({ context, ...hello });
    return client;
  }

  /** Delivers what came of a step, and gives back what is spent. */
  deliver({ outgoing, spent }: Outcome): void {
    for (const { to, kind, message, shares } of outgoing) {
      for (const share of shares as TestShare[]) {
        assertEquals(share.released, 0, `a ${share.what} is handed on before it is given back`);
      }
      this.#clients.get(to)?.arrive(kind, message, shares as TestShare[]);
    }
    for (const share of spent) this.medium.release(share);
  }

  /** What the broker says of itself; all pages. */
  inspect(topic: InspectTopic): Message[] {
    const observer = this.#observer();
    try {
      const all: Message[] = [];
      for (let after: number | null = 0; after !== null;) {
        const { entries, next }: Results["inspect"] = observer.ask("inspect", { topic, after });
        all.push(...entries);
        after = next;
      }
      return all;
    } finally {
      observer.leave();
    }
  }

  /** All names, page by page. */
  names(): Results["list"]["entries"] {
    const observer = this.#observer();
    try {
      const all: Results["list"]["entries"] = [];
      for (let more = true, after: string | null = null; more;) {
        const page: Results["list"] = observer.ask("list", { prefix: "", after });
        all.push(...page.entries);
        ({ more } = page);
        after = page.entries.at(-1)?.name ?? null;
      }
      return all;
    } finally {
      observer.leave();
    }
  }

  /** Everything that can be seen of the broker: to compare with itself. */
  snapshot(): unknown {
    const topics: InspectTopic[] = ["contexts", "resources", "attachments", "lanes"];
    return [...topics.map((topic) => this.inspect(topic)), this.names(), this.medium.held];
  }

  /** What is there when nobody is: the public group and its name. */
  assertEmpty(): void {
    assertEquals(this.medium.held, []);
    assertEquals(["contexts", "attachments", "lanes"].flatMap((it) => this.inspect(it as InspectTopic)), []);
    assertEquals(this.inspect("resources").map(({ type }) => type), ["GROUP"]);
    assertEquals(this.names().map(({ name }) => name), ["vmci public group"]);
  }

  #observer(): TestClient {
    return this.join(null, { observer: true }, { pid: 0 });
  }
}

/** Nothing that a test reaches by accident. */
const LARGE: Quota = {
  contexts: 1000,
  clients: 1000,
  resources: 1000,
  regions: 1000,
  regionBytes: 2 ** 40,
  attachments: 1000,
  lanes: 1000,
  names: 10_000,
  watches: 1000,
  grants: 1000,
};

/** One client, as its own half of the protocol would see the broker. */
export class TestClient {
  readonly client: Client;
  readonly #world: BrokerWorld;
  readonly #replies = new Map<number, { readonly message: Message; readonly shares: readonly TestShare[] }>();
  readonly #notices: ({ readonly notice: NoticeName } & Received)[] = [];
  #requests = 0;
  /** What the broker told it to keep for the next one, by resource. */
  kept: Map<string, Kept> = new Map();

  constructor(world: BrokerWorld, client: Client) {
    this.#world = world;
    this.client = client;
  }

  /** Says hello with an attention word, as clients do. */
  hello(args: Partial<Requests["hello"]> = {}): Results["hello"] {
    const attention = this.#world.medium.share("attention");
    return this.ask("hello", helloArgs(args), [attention]);
  }

  /** Sends any message; what it hands in is the broker's from here on. */
  sendRaw(message: Message, shares: readonly TestShare[] = []): void {
    this.#world.deliver(this.#world.broker.handle(this.client, { message, shares }));
  }

  /** Sends a request, whose reply may come later. */
  send<O extends Operation>(op: O, args: Requests[O], shares: readonly TestShare[] = []): number {
    const id = ++this.#requests;
    this.sendRaw({ id, op, args }, shares);
    return id;
  }

  /** The reply to a request, once; `undefined` when there is none yet. */
  reply(id: number): { readonly message: Message; readonly shares: readonly TestShare[] } | undefined {
    const reply = this.#replies.get(id);
    this.#replies.delete(id);
    return reply;
  }

  /** The result of a request that is answered. Throws a {@linkcode Refusal} when it was refused. */
  result<O extends Operation>(_op: O, id: number): Results[O] {
    const reply = this.reply(id);
    assert(reply !== undefined, "it was answered");
    const error = replyError(reply.message);
    if (error !== undefined) throw new Refusal(error.code, error.reason);
    return reply.message.result as Results[O];
  }

  /** Asks, and gives the result. */
  ask<O extends Operation>(op: O, args: Requests[O], shares: readonly TestShare[] = []): Results[O] {
    return this.result(op, this.send(op, args, shares));
  }

  /** Asks what must be refused with a code, and gives the reason. */
  refused<O extends Operation>(
    code: ErrorCodeName,
    op: O,
    args: Requests[O],
    shares: readonly TestShare[] = [],
  ): string {
    try {
      const result = this.ask(op, args, shares);
      throw new Error(`'${op}' should have been refused with ${code}, and gave ${Deno.inspect(result)}`);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      assertEquals(error.code, code, error.message);
      return error.reason;
    }
  }

  /** Makes a datagram handle. */
  endpoint(): Handle {
    return this.ask("create_endpoint", { resource: null, wellKnown: false }).handle;
  }

  /** Makes a region. */
  region(size = 4096, access: RegionAccess = "everybody"): Handle {
    const share = this.#world.medium.share("region", size, access);
    return this.ask("create_region", { size, creatorOnly: access === "creator" }, [share]).handle;
  }

  /** Makes a group. */
  group(): Handle {
    return this.ask("create_group", {}).handle;
  }

  /** What came of one kind of notice, which is then forgotten. */
  take<N extends NoticeName>(notice: N): Received<N>[] {
    const taken = this.#notices.filter((it) => it.notice === notice);
    const others = this.#notices.filter((it) => it.notice !== notice);
    this.#notices.splice(0, this.#notices.length, ...others);
    return taken.map(({ body, shares }) => ({ body, shares })) as unknown as Received<N>[];
  }

  /** The names of all notices that came and were not taken. */
  get pending(): NoticeName[] {
    return this.#notices.map(({ notice }) => notice);
  }

  /** Its connection ends. */
  leave(): void {
    this.#world.deliver(this.#world.broker.disconnect(this.client));
  }

  /** Something came from the broker. */
  arrive(kind: "reply" | "notice" | "welcome", message: Message, shares: readonly TestShare[]): void {
    // What goes over a wire is a copy, and must be text.
    const copy = JSON.parse(JSON.stringify(message)) as Message;
    if (kind !== "notice") {
      this.#replies.set(copy.id as number, { message: copy, shares });
      return;
    }
    const { notice, ...body } = copy;
    if (notice === "keep_grant" || notice === "keep_name" || notice === "keep_member") this.#keep(notice, body);
    this.#notices.push({ notice: notice as NoticeName, body: body as unknown as Notices[NoticeName], shares });
  }

  /** What is to be kept of a resource. */
  keptOf(handle: Handle): Kept {
    const key = formatHandle(handle);
    let kept = this.kept.get(key);
    if (kept === undefined) this.kept.set(key, kept = { grants: new Map(), names: new Set(), members: new Map() });
    return kept;
  }

  #keep(notice: "keep_grant" | "keep_name" | "keep_member", body: Record<string, unknown>): void {
    const { handle, entry, name, member, present } = body as unknown as
      & Notices["keep_grant"]
      & Notices["keep_name"]
      & Notices["keep_member"];
    const { grants, names, members } = this.keptOf(handle);
    if (notice === "keep_grant") grants.set(formatHandle(entry.client), entry);
    else if (notice === "keep_name") names[present ? "add" : "delete"](name);
    else if (present) members.set(member.context, member);
    else members.delete(member.context);
  }
}

/** What belongs to a resource. */
export interface Kept {
  readonly grants: Map<string, AccessEntry>;
  readonly names: Set<string>;
  readonly members: Map<number, GroupMember>;
}

/** A hello that is let in, but for what the test says. */
export function helloArgs(args: Partial<Requests["hello"]> = {}): Requests["hello"] {
  return {
    protocol: PROTOCOL_VERSION,
    version: "0",
    context: null,
    flags: 0,
    slot: -1,
    client: null,
    ticket: null,
    observer: false,
    ...args,
  };
}

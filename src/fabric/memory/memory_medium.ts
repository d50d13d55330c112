/**
 * The fabric within one process: arrays and calls. It needs no permission, and runs the same broker with the same
 * requests and checks as every other medium, so it serves for tests and documentation. One thread means that nothing
 * comes while a call blocks, and that no kernel keeps a reader from writing.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { LANE_SIZE } from "../../lane/ring.ts";
import { VERSION } from "../../version.ts";
import { Broker, type Outcome } from "../broker.ts";
import type { Client } from "../broker/entities.ts";
import type {
  Bell,
  BrokerMedium,
  Connection,
  CreatedRegion,
  Medium,
  Packet,
  RegionAccess,
  RegionMemory,
  Share,
  SharedPages,
  SharedWord,
} from "../medium.ts";

const fabrics = new Map<string, MemoryFabric>();

/** A client's way into a fabric of this process; the first one makes it, the last one ends it. */
export class MemoryMedium implements Medium {
  readonly device: string;
  readonly slot = -1;
  readonly concurrent = false;
  readonly hostsBroker = false;
  readonly #name: string;
  #connection: MemoryConnection | undefined;

  /** @param name Which fabric: clients of one name meet. */
  constructor(name: string) {
    this.device = `memory:${name}`;
    this.#name = name;
  }

  tryConnect(): Connection {
    let fabric = fabrics.get(this.#name);
    if (fabric === undefined) fabrics.set(this.#name, fabric = new MemoryFabric());
    return this.#connection = new MemoryConnection(fabric);
  }

  explainSilence(): string {
    return "it runs in this thread";
  }

  createRegion(size: number, writers: RegionAccess): CreatedRegion {
    const region = new MemoryRegion(size, writers);
    return { memory: region.attach(), share: region };
  }

  openRegion(share: Share): RegionMemory {
    return (share as MemoryRegion).attach();
  }

  openLane(share: Share): SharedPages {
    const buffer = share as ArrayBuffer;
    return { buffer, discard: (offset) => new Uint8Array(buffer, offset).fill(0), close: () => {} };
  }

  createAttention(): { attention: SharedWord; share: Share } {
    const word = new Int32Array(1);
    return { attention: { word, close: () => {} }, share: word };
  }

  openWord(share: Share): SharedWord {
    return { word: share as Int32Array, close: () => {} };
  }

  openBell(share: Share): Bell {
    return share as MemoryBell;
  }

  block(): void {
    throw new VmciError("WOULD_BLOCK", { operation: "wait", reason: "nothing can come while the only thread waits" });
  }

  release(share: Share): void {
    if (share instanceof MemoryBell) share.close();
  }

  close(): Promise<void> {
    const fabric = this.#connection?.fabric;
    if (fabric?.broker.clientCount === 0 && fabrics.get(this.#name) === fabric) fabrics.delete(this.#name);
    return Promise.resolve();
  }
}

/** One fabric: a broker and the connections to it. */
class MemoryFabric {
  readonly broker = new Broker(memoryBrokerMedium, { pid: Deno.pid, kind: "memory", version: VERSION });
  readonly #connections = new Map<Client, MemoryConnection>();

  connect(connection: MemoryConnection): Client {
    const client = this.broker.connect({ pid: Deno.pid, uid: 0, contexts: "all", privileged: true });
    this.#connections.set(client, connection);
    return client;
  }

  disconnect(client: Client): void {
    this.#connections.delete(client);
    this.deliver(this.broker.disconnect(client));
  }

  deliver({ outgoing }: Outcome): void {
    for (const { to, kind, message, shares } of outgoing) {
      const connection = this.#connections.get(to);
      if (connection === undefined) {
        // Who was to be rung by it must learn that nobody is there.
        for (const share of shares) if (share instanceof MemoryBell) share.close();
        continue;
      }
      connection.arrive({ message, shares }, kind);
    }
  }
}

class MemoryConnection implements Connection {
  readonly fabric: MemoryFabric;
  readonly #client: Client;
  readonly #inbox: Packet[] = [];
  readonly #notice = new Int32Array(1);
  readonly #bells = MemoryBell.pair();
  #closed = false;

  constructor(fabric: MemoryFabric) {
    this.fabric = fabric;
    this.#client = fabric.connect(this);
  }

  arrive(packet: Packet, kind: "reply" | "notice" | "welcome"): void {
    this.#inbox.push(kind === "welcome" ? { ...packet, shares: [this.#notice, this.#bells[1]] } : packet);
    if (kind !== "notice") return;
    Atomics.add(this.#notice, 0, 1);
    this.#bells[0].ring();
  }

  send(packet: Packet): "sent" | "closed" {
    if (this.#closed) return "closed";
    this.fabric.deliver(this.fabric.broker.handle(this.#client, packet));
    return "sent";
  }

  receive(): Packet | undefined | "closed" {
    return this.#closed ? "closed" : this.#inbox.shift();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#bells[0].close();
    this.fabric.disconnect(this.#client);
  }
}

/**
 * One end of a bell: rings come from a later turn of the microtask queue, as they come from the event loop elsewhere; or
 * from the event loop here, too, when another one has just been heard.
 */
class MemoryBell implements Bell {
  /** Whether one of them is heard just now. */
  static #heard = false;
  #other: MemoryBell | undefined;
  #closed = false;
  #ended = false;
  #rung: (() => void) | undefined;
  #onEnd: (() => void) | undefined;
  #pending = false;

  static pair(): readonly [MemoryBell, MemoryBell] {
    const a = new MemoryBell();
    const b = new MemoryBell();
    a.#other = b;
    b.#other = a;
    return [a, b];
  }

  ring(): boolean {
    const other = this.#other;
    if (other === undefined || other.#closed) return false;
    other.#strike();
    return true;
  }

  drain(): boolean {
    return !this.#ended;
  }

  listen(rung: () => void, ended: () => void): void {
    this.#rung = rung;
    this.#onEnd = ended;
    if (this.#ended) queueMicrotask(ended);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const other = this.#other;
    if (other === undefined || other.#closed) return;
    other.#ended = true;
    const ended = other.#onEnd;
    if (ended !== undefined) queueMicrotask(() => other.#closed || ended());
  }

  #strike(): void {
    if (this.#pending) return;
    this.#pending = true;
    // Two who ring because they were rung would hold up the event loop for ever.
    if (MemoryBell.#heard) setImmediate(() => this.#hear());
    else queueMicrotask(() => this.#hear());
  }

  #hear(): void {
    this.#pending = false;
    if (this.#closed) return;
    MemoryBell.#heard = true;
    try {
      this.#rung?.();
    } finally {
      MemoryBell.#heard = false;
    }
  }
}

/** A region's memory, with its attachments counted: all of them see one array. */
class MemoryRegion {
  readonly size: number;
  readonly writers: RegionAccess;
  readonly #buffer: ArrayBuffer;
  #attachments = 0;

  constructor(size: number, writers: RegionAccess) {
    this.size = size;
    this.writers = writers;
    this.#buffer = allocate(size);
  }

  attach(): RegionMemory {
    const buffer = this.#buffer;
    let open = true;
    this.#attachments++;
    return {
      view: buffer,
      truth: buffer,
      close: () => {
        if (!open) return true;
        open = false;
        if (--this.#attachments > 0) return true;
        if (buffer.detached) return false;
        buffer.transfer(0);
        return true;
      },
    };
  }
}

function allocate(size: number): ArrayBuffer {
  try {
    return new ArrayBuffer(size);
  } catch (error) {
    throw new VmciError("NO_MEM", {
      operation: "make a region",
      reason: `there is no memory for ${size} bytes`,
      cause: error,
    });
  }
}

const memoryBrokerMedium: BrokerMedium = {
  makeLane: () => new ArrayBuffer(LANE_SIZE),
  makeBell: () => MemoryBell.pair(),
  checkRegion: (share, size, writers) => {
    if (share instanceof MemoryRegion && share.size === size && share.writers === writers) return;
    throw new VmciError("INVALID_ARGS", { operation: "check a region", reason: "it is not what its creator says" });
  },
  checkAttention: () => {},
  reserveNumbers: () => {},
  release: () => {},
};

/**
 * Clients that lie to a broker: fuzzed messages, wrong lengths, descriptors where none belong, thousands of requests, and
 * replies that are never read. Between the attacks two honest clients use the fabric as always.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { contextHandle, type DatagramEndpoint, openVmci, type Region, type Vmci } from "../../../mod.ts";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { openFile, OpenFlag } from "../../../ffi/file.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { addSeals, createMemfd, Seal } from "../../../ffi/memfd.ts";
import { connectSeqpacket, PacketSocket, streamPair, waitReadable } from "../../../ffi/unix_socket.ts";
import { LANE_SIZE } from "../../../src/lane/ring.ts";
import { type Choose, random } from "./random.ts";

/** What was done, and what came of it. */
export interface HostileFigures {
  /** Connections that attacked. */
  clients: number;
  /** Packets that they sent. */
  packets: number;
  /** Descriptors that they sent. */
  descriptors: number;
  /** Connections that the broker closed for what came through them. */
  dropped: number;
  /** Datagrams that honest clients sent meanwhile. */
  sent: number;
  /** Those that came, in order. */
  came: number;
}

/** Every request with fields as an honest client would fill them; `handle` and its like are filled in. */
const honest: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  hello: { protocol: 1, version: "x", context: null, flags: 0, slot: -1, client: null, ticket: null, observer: false },
  announce_resource: { type: "SHAREDMEM", handle: "handle", size: 4096, creatorOnly: false, ticket: "t" },
  announce_entries: {
    type: "DATAGRAM",
    handle: "handle",
    grants: [],
    names: ["honest"],
    members: [],
    tickets: ["ticket"],
  },
  announce_attachment: { handle: "handle", count: 1, size: 4096, creatorOnly: false, ticket: "t" },
  announce_lane: { lane: 1025, source: "handle", destination: "handle", sender: true, ticket: "t" },
  announce_peers: { peers: [1, 2, 3] },
  announced: {},
  create_endpoint: { resource: null, wellKnown: false },
  create_region: { size: 4096, creatorOnly: false },
  create_group: {},
  destroy: { type: "DATAGRAM", handle: "handle", repeated: true },
  open_lane: { source: "handle", destination: "handle" },
  forget_peer: { peer: 1 },
  close_lane: { lane: 1025 },
  query: { handle: "handle" },
  attach: { handle: "handle" },
  detach: { handle: "handle" },
  watch_region: { handle: "handle" },
  grant: { resource: "handle", client: "handle", allow: ["DG_SEND"], deny: [] },
  revoke: { resource: "handle", client: "handle", privileges: ["DG_SEND"], repeated: true },
  revoke_all: { resource: "handle", client: "handle", repeated: true },
  check: { resource: "handle", client: "handle", privilege: "DG_SEND" },
  add_member: { group: "handle", member: 16, canAssign: true },
  remove_member: { group: "handle", member: 16, repeated: true },
  is_member: { group: "handle", member: 16 },
  register: { name: "honest", handle: "handle", repeated: true },
  lookup: { name: "honest" },
  unregister: { name: "honest", repeated: true },
  list: { prefix: "", after: null },
  watch_names: { watch: 1, prefix: "", exact: false },
  unwatch_names: { watch: 1 },
  subscribe: {},
  inspect: { topic: "resources", after: 0 },
  ping: { handle: "handle", token: 1 },
  pong: { client: 1, token: 1 },
  bye: {},
  set_policy: { text: "allow uid 65534 context 2", name: "mine" },
};

const operations = Object.keys(honest);

/** Values that a field should never have. */
const nonsense: readonly unknown[] = [
  null,
  -1,
  0.5,
  2 ** 32,
  2 ** 53,
  -(2 ** 31),
  1e308,
  "",
  "\0",
  "x".repeat(5000),
  "__proto__",
  true,
  [],
  [[]],
  {},
  { __proto__: null, length: 2 ** 31 },
  { context: 2 },
  { context: -1, resource: 1024 },
  { context: 2, resource: 2 ** 32 },
  { toString: 1, valueOf: 2 },
  Array.from({ length: 33 }, () => 1),
  Array.from({ length: 3000 }, () => ({})),
];

/** Two honest clients who use everything there is. */
export class HonestPair implements AsyncDisposable {
  readonly host: Vmci;
  readonly #guest: Vmci;
  readonly to: DatagramEndpoint;
  readonly #from: DatagramEndpoint;
  readonly region: Region;
  readonly #attached: Region;
  #count = 0;

  private constructor(host: Vmci, guest: Vmci) {
    this.host = host;
    this.#guest = guest;
    const client = contextHandle(guest.contextId);
    this.to = host.datagrams.create();
    host.access.addClientPrivileges(this.to.handle, client, { allow: ["DG_SEND"] });
    this.#from = guest.datagrams.create();
    this.region = host.sharedMemory.create(8192, { writers: "creator" });
    host.access.addClientPrivileges(this.region.handle, client, { allow: ["SM_ATTACH"] });
    this.#attached = guest.sharedMemory.attach(this.region.handle);
    host.discovery.register("honest", this.to.handle);
    host.discovery.register("honest region", this.region.handle);
  }

  /** Has them join: at the one device, and at the other. */
  static async join(hostDevice: string, guestDevice: string, contextId?: number): Promise<HonestPair> {
    const host = await openVmci({ device: hostDevice, timeout: 60_000 });
    const guest = await openVmci({
      device: guestDevice,
      timeout: 60_000,
      ...(contextId === undefined ? {} : { contextId }),
    });
    return new HonestPair(host, guest);
  }

  /** Uses the fabric; answers how many datagrams were sent, and how many came. */
  async use(): Promise<{ readonly sent: number; readonly came: number }> {
    let [sent, came] = [0, 0];
    const payload = new Uint8Array(4);
    const number = new DataView(payload.buffer);
    for (let i = 0; i < 20; i++) {
      number.setUint32(0, ++this.#count);
      this.#from.sendTo(this.to.handle, payload);
      sent++;
      const received = await this.to.receive({ timeout: 60_000 });
      assertEquals(received.source, this.#from.handle);
      assertEquals(new DataView(received.payload.buffer, received.payload.byteOffset).getUint32(0), this.#count);
      came++;
    }
    this.region.bytes[0] = this.#count;
    assertEquals(this.#attached.bytes[0], this.#count & 0xff);
    assertEquals(this.#guest.discovery.lookup("honest"), this.to.handle);
    assertEquals(this.#guest.discovery.list("honest").length, 2);
    assert(
      this.host.access.checkClientPrivilege(this.to.handle, contextHandle(this.#guest.contextId), "DG_SEND").granted,
    );
    using made = this.#guest.datagrams.create();
    assert(made.handle.resource >= 1024);
    return { sent, came };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest[Symbol.asyncDispose]();
    await this.host[Symbol.asyncDispose]();
  }
}

/** One connection that lies. */
class Liar {
  readonly #fd: number;
  readonly #socket: PacketSocket;
  readonly #choose: Choose;
  readonly #figures: HostileFigures;
  /** Handles it has heard of, and some that it guesses. */
  readonly #handles: unknown[];
  #open = true;

  constructor(path: string, choose: Choose, figures: HostileFigures, handles: readonly unknown[]) {
    this.#fd = connectSeqpacket(path);
    this.#socket = new PacketSocket(this.#fd);
    this.#choose = choose;
    this.#figures = figures;
    this.#handles = [...handles];
    figures.clients++;
  }

  /** Says hello as it should, so that the rest is taken in; sometimes it does not. */
  greet(): void {
    if (this.#choose(8) === 0) return;
    const attention = createMemfd("attention", 4096);
    addSeals(attention, Seal.SHRINK | Seal.GROW | Seal.SEAL | Seal.FUTURE_WRITE);
    this.#send(JSON.stringify({ id: 1, op: "hello", args: honest.hello }), [attention]);
  }

  /** Sends one packet of some kind; answers whether more can be sent. */
  lie(): boolean {
    // What cannot be read ends the connection: most of it must be readable to get anywhere.
    const kind = this.#choose(120);
    if (kind === 0) return this.#send(this.#bytes());
    if (kind === 1) return this.#send(this.#cut());
    if (kind === 2) return this.#send("[".repeat(1 + this.#choose(65_535)));
    if (kind === 3) return this.#send(JSON.stringify(this.#pick(nonsense)) ?? "?");
    return this.#send(this.#request());
  }

  /** Reads what there is, and forgets it. */
  read(): void {
    while (this.#open) {
      const packet = this.#socket.receive();
      if (packet === undefined) return;
      packet.descriptors.forEach(closeDescriptor);
      if (packet.end) this.#end();
      else this.#hear(packet.bytes);
    }
  }

  close(): void {
    if (this.#open) closeDescriptor(this.#fd);
    this.#open = false;
  }

  #end(): void {
    this.#figures.dropped++;
    this.close();
  }

  /** What it was given it names again later. */
  #hear(bytes: Uint8Array): void {
    const { result } = JSON.parse(new TextDecoder().decode(bytes)) as { result?: { handle?: unknown } };
    if (result?.handle !== undefined && this.#handles.length < 64) this.#handles.push(result.handle);
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#choose(from.length)]!;
  }

  #request(): string {
    const op = this.#choose(30) === 0
      ? this.#pick(["", "constructor", "__proto__", "toString", "x"])
      : this.#pick(operations);
    const args: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(honest[op] ?? {})) {
      const fate = this.#choose(16);
      if (fate === 0) continue;
      if (fate === 1) args[name] = this.#pick(nonsense);
      else args[name] = value === "handle" ? this.#pick(this.#handles) : value;
    }
    const id = this.#choose(12) === 0 ? this.#pick(nonsense) : this.#choose(1000);
    const whole = this.#choose(20) === 0 ? { id, op, ...args } : { id, op, args };
    return JSON.stringify(whole);
  }

  #bytes(): Uint8Array {
    const bytes = new Uint8Array(1 + this.#choose(this.#choose(4) === 0 ? 65_536 : 200));
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.#choose(256);
    return bytes;
  }

  #cut(): Uint8Array {
    const bytes = new TextEncoder().encode(this.#request());
    const changed = bytes.slice(0, 1 + this.#choose(bytes.length));
    changed[this.#choose(changed.length)] = this.#choose(256);
    return changed;
  }

  /** Descriptors of some kind, as many as go into a packet at most. */
  #descriptors(): number[] {
    if (this.#choose(3) > 0) return [];
    const many = this.#choose(4) === 0 ? 1 + this.#choose(16) : 1;
    return Array.from({ length: many }, () => {
      switch (this.#choose(5)) {
        case 0:
          return openFile("/dev/null", OpenFlag.RDWR);
        case 1: {
          const [one, other] = streamPair();
          closeDescriptor(other);
          return one;
        }
        case 2:
          return createMemfd("unsealed", 4096);
        case 3: {
          const fd = createMemfd("lane", LANE_SIZE);
          addSeals(fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
          return fd;
        }
        default: {
          const fd = createMemfd("sealed", 4096);
          addSeals(fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
          return fd;
        }
      }
    });
  }

  #send(what: string | Uint8Array, descriptors: readonly number[] = this.#descriptors()): boolean {
    if (!this.#open) {
      descriptors.forEach(closeDescriptor);
      return false;
    }
    const bytes = typeof what === "string" ? new TextEncoder().encode(what).slice(0, 65_536) : what;
    try {
      while (!this.#socket.send(bytes, descriptors)) {
        // The broker takes it in when it has answered what it has; who never reads is dropped, and that shows here.
        waitReadable([], 1);
      }
      this.#figures.packets++;
      this.#figures.descriptors += descriptors.length;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#end();
    } finally {
      descriptors.forEach(closeDescriptor);
    }
    return this.#open;
  }
}

/** How an attack goes. */
export interface AttackOptions {
  readonly seed: number;
  /** How many waves of liars. */
  readonly rounds: number;
  /** Where they come to. */
  readonly socket: string;
  /** Who goes on meanwhile. */
  readonly honest: HonestPair;
}

/** Has liars come in waves, and the honest use the fabric between them. */
export async function attack({ seed, rounds, socket, honest: pair }: AttackOptions): Promise<HostileFigures> {
  const figures: HostileFigures = { clients: 0, packets: 0, descriptors: 0, dropped: 0, sent: 0, came: 0 };
  const choose = random(seed);
  const { to, region } = pair;
  const guessed = [
    to.handle,
    region.handle,
    ...[2, 16, 17, 1, 0].flatMap((context) => [
      { context, resource: 0 },
      { context, resource: to.handle.resource + choose(8) },
    ]),
  ];
  const use = async () => {
    const { sent, came } = await pair.use();
    figures.sent += sent;
    figures.came += came;
  };
  for (let round = 0; round < rounds; round++) {
    const liars = Array.from({ length: 4 }, () => new Liar(socket, choose, figures, guessed));
    // One of them never reads.
    const [, ...readers] = liars;
    for (const liar of liars) liar.greet();
    for (let turn = 0; turn < 50; turn++) {
      for (const liar of liars) liar.lie();
      for (const liar of readers) liar.read();
    }
    await use();
    for (const liar of liars) liar.close();
  }
  await use();
  return figures;
}

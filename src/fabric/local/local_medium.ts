/**
 * The fabric of one machine, seen from a client: regions and lanes are memfds, control is a SEQPACKET socket, bells are
 * stream pairs. Whoever finds no broker becomes it, in a thread.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { AdaptiveSpin } from "../../lane/adaptive_spin.ts";
import { LANE_SIZE } from "../../lane/ring.ts";
import { closeDescriptor, closedOnFailure, describePath } from "../../../ffi/descriptor.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { mapPrivate, mapReadOnly, mapShared } from "../../../ffi/mapping.ts";
import { addSeals, createMemfd, Seal } from "../../../ffi/memfd.ts";
import {
  connectSeqpacket,
  PacketSocket,
  peerCredentials,
  seqpacketPair,
  waitReadable,
} from "../../../ffi/unix_socket.ts";
import { userId, yieldProcessor } from "../../../ffi/process.ts";
import type {
  Bell,
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
import { LocalBell } from "./bell.ts";
import { BrokerHost } from "./broker_host.ts";
import { createWord, FIXED_SIZE_SEALS, MappedWord, ReaderRegion, SharedRegion, WORD_SIZE } from "./local_memory.ts";
import { decodeMessage, encodeMessage } from "./packet_codec.ts";
import { describeProcess, RunDirectory } from "./run_directory.ts";
import { asVmciError } from "./system_failure.ts";

/** Milliseconds to spin for a reply: a broker that sleeps takes some 50 us to answer, one that spins itself some 10. */
const REPLY_SPIN = 0.1;

/** How a client comes to the fabric of this machine. */
export interface LocalMediumOptions {
  /** The run directory, or the socket of a daemon; `undefined` for this user's own directory. */
  readonly path: string | undefined;
  /** Whether to become the broker where there is none. */
  readonly start: boolean;
  /** Microseconds that a wait may spin before it sleeps; 0 turns that off, here and in the broker it starts. */
  readonly spin: number;
}

/** See the module's comment. */
export class LocalMedium implements Medium {
  readonly device: string;
  readonly slot: number = -1;
  readonly concurrent = true;
  readonly #options: LocalMediumOptions;
  readonly #socketPath: string;
  /** The run directory; `undefined` with a daemon's socket. */
  readonly #directory: RunDirectory | undefined;
  readonly #rosterFd: number | undefined;
  #host: BrokerHost | undefined;
  /** The process at the other end, once connected. */
  #brokerPid = 0;

  constructor(options: LocalMediumOptions) {
    try {
      this.#options = options;
      const { path } = options;
      if (path !== undefined && describePath(path)?.kind === "socket") {
        this.#socketPath = path;
      } else {
        this.#directory = path === undefined ? RunDirectory.ofUser() : new RunDirectory(path);
        this.#socketPath = this.#directory.socket;
        if (options.start) {
          const { fd, slot } = this.#directory.takeSlot();
          this.#rosterFd = fd;
          this.slot = slot;
        }
      }
      this.device = `fabric:${path ?? this.#directory!.path}`;
    } catch (error) {
      throw asVmciError(error, "open the fabric");
    }
  }

  get hostsBroker(): boolean {
    return this.#host?.running === true;
  }

  tryConnect(): Connection | undefined {
    try {
      const fd = this.#connectSocket();
      if (fd === undefined) return this.#becomeBroker();
      const { pid, uid } = closedOnFailure(fd, () => peerCredentials(fd));
      if (this.#directory !== undefined && uid !== userId()) {
        closeDescriptor(fd);
        throw new VmciError("NO_ACCESS", {
          operation: "open the fabric",
          reason: `user ${uid} (process ${pid}) listens at ${this.#socketPath}, and this is user ${userId()}`,
        });
      }
      this.#brokerPid = pid;
      return new LocalConnection(fd, this.#options.spin > 0);
    } catch (error) {
      throw asVmciError(error, "open the fabric");
    }
  }

  explainSilence(): string {
    return this.#brokerPid === 0
      ? `nobody answers at ${this.#socketPath}`
      : `${describeProcess(this.#brokerPid)} and holds ${this.#socketPath}`;
  }

  createRegion(size: number, writers: RegionAccess): CreatedRegion {
    try {
      const fd = createMemfd("vmci-region", size);
      return closedOnFailure(fd, () => {
        const memory = new SharedRegion(mapShared(fd, size));
        try {
          addSeals(fd, writers === "creator" ? FIXED_SIZE_SEALS | Seal.FUTURE_WRITE : FIXED_SIZE_SEALS);
          return { memory, share: fd };
        } catch (error) {
          memory.close();
          throw error;
        }
      });
    } catch (error) {
      throw asVmciError(error, `make a region of ${size} bytes`);
    }
  }

  openRegion(share: Share, size: number, writable: boolean): RegionMemory {
    return this.#open(share, (fd) => {
      if (writable) return new SharedRegion(mapShared(fd, size));
      const truth = mapReadOnly(fd, size);
      try {
        return new ReaderRegion(mapPrivate(fd, size), truth);
      } catch (error) {
        truth.close();
        throw error;
      }
    });
  }

  openLane(share: Share): SharedPages {
    return this.#open(share, (fd) => mapShared(fd, LANE_SIZE));
  }

  createAttention(): { attention: SharedWord; share: Share } {
    try {
      const { word, fd } = createWord("vmci-attention");
      return { attention: word, share: fd };
    } catch (error) {
      throw asVmciError(error, "open the fabric");
    }
  }

  openWord(share: Share): SharedWord {
    return this.#open(share, (fd) => new MappedWord(mapReadOnly(fd, WORD_SIZE)));
  }

  openBell(share: Share): Bell {
    return new LocalBell(share as number);
  }

  block(bells: Iterable<Bell>, connection: Connection | undefined, timeout: number): void {
    const descriptors = [...bells].map((bell) => (bell as LocalBell).fd);
    if (connection !== undefined) descriptors.push((connection as LocalConnection).fd);
    waitReadable(descriptors, timeout);
  }

  release(share: Share): void {
    closeDescriptor(share as number);
  }

  async close(brokerEnds: boolean): Promise<void> {
    if (this.#rosterFd !== undefined) closeDescriptor(this.#rosterFd);
    if (!brokerEnds) return;
    this.#host!.keepAlive();
    await this.#host!.ended;
  }

  /** Connects; `undefined` when nobody listens. */
  #connectSocket(): number | undefined {
    try {
      return connectSeqpacket(this.#socketPath);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED" || error.code === "EAGAIN") return undefined;
      throw error;
    }
  }

  /** Starts the broker; `undefined` when somebody else is about to. */
  #becomeBroker(): Connection | undefined {
    const directory = this.#directory;
    if (directory === undefined || !this.#options.start) {
      if (!this.#options.start) {
        throw new VmciError("UNAVAILABLE", {
          operation: "open the fabric",
          reason: `no fabric is running at ${this.#socketPath}`,
        });
      }
      return undefined;
    }
    const lock = directory.tryLock();
    if (lock === undefined) return undefined;
    const ends = closedOnFailure(lock, seqpacketPair);
    this.#host = BrokerHost.start({
      kind: "embedded",
      directory: directory.path,
      lock,
      sockets: [],
      connection: ends[1],
      quota: undefined,
      spins: this.#options.spin > 0,
      state: undefined,
      policy: undefined,
      audit: undefined,
    });
    this.#brokerPid = Deno.pid;
    return new LocalConnection(ends[0], this.#options.spin > 0);
  }

  #open<T>(share: Share, map: (fd: number) => T): T {
    try {
      return map(share as number);
    } catch (error) {
      throw asVmciError(error, "map shared memory");
    } finally {
      closeDescriptor(share as number);
    }
  }
}

class LocalConnection implements Connection {
  readonly fd: number;
  readonly #socket: PacketSocket;
  /** Milliseconds that a wait may spin. */
  readonly #spin: number;
  readonly #adaptive = new AdaptiveSpin();
  #open = true;

  constructor(fd: number, spins: boolean) {
    this.fd = fd;
    this.#socket = new PacketSocket(fd);
    this.#spin = spins ? REPLY_SPIN : 0;
  }

  send({ message, shares }: Packet, timeout: number): "sent" | "full" | "closed" {
    if (!this.#open) return "closed";
    const bytes = encodeMessage(message);
    const end = performance.now() + timeout;
    try {
      while (!this.#socket.send(bytes, shares as number[])) {
        if (performance.now() >= end) return "full";
        waitReadable([], 1);
      }
      return "sent";
    } catch (error) {
      if (error instanceof SystemError && (error.code === "EPIPE" || error.code === "ECONNRESET")) return "closed";
      throw asVmciError(error, "speak to the broker");
    }
  }

  receive(timeout: number): Packet | undefined | "closed" {
    if (!this.#open) return "closed";
    const packet = this.#next(timeout);
    if (packet === undefined) return undefined;
    const message = packet.end ? undefined : decodeMessage(packet.bytes);
    const isWhole = !packet.truncated && message?.incomplete !== true;
    if (message !== undefined && isWhole) return { message, shares: packet.descriptors };
    for (const fd of packet.descriptors) closeDescriptor(fd);
    // A message that can be read was not cut itself: descriptors were, since this process has none left, or could not be
    // sent with it.
    return message === undefined ? "closed" : { message, shares: [], incomplete: true };
  }

  #next(timeout: number): ReturnType<PacketSocket["receive"]> {
    try {
      if (timeout > 0) {
        const packet = this.#adaptive.spin(this.#look, Math.min(this.#spin, timeout));
        if (packet !== undefined) return packet;
        if (waitReadable([this.fd], Math.ceil(timeout)) === 0) return undefined;
      }
      return this.#socket.receive();
    } catch (error) {
      throw asVmciError(error, "hear from the broker");
    }
  }

  readonly #look = (): ReturnType<PacketSocket["receive"]> => {
    const packet = this.#socket.receive();
    if (packet === undefined) yieldProcessor();
    return packet;
  };

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeDescriptor(this.fd);
  }
}

/**
 * The seam between the fabric and what carries it. Facets, session and broker know these interfaces only; a medium says
 * how memory is made and handed out, how control travels and how a bell rings.
 *
 * @module
 */

import type { Message } from "./protocol.ts";

/**
 * Something that can be handed to another client and is worth nothing as text: a descriptor on one machine, a reference
 * within one process. Whoever holds a share must pass it on or release it.
 */
export type Share = number | object;

/** One message of the control channel with what it hands over. */
export interface Packet {
  /** The message. */
  readonly message: Message;
  /** What it hands over, in the order the message's kind prescribes. */
  readonly shares: readonly Share[];
  /** Something it hands over could not be taken in, for want of descriptors; then `shares` is empty. */
  readonly incomplete?: boolean;
}

/** Who may write to a region: everybody attached, or its creator only. */
export type RegionAccess = "everybody" | "creator";

/** Pages that both ends of a lane map. */
export interface SharedPages {
  /** The pages; it may be longer. */
  readonly buffer: ArrayBuffer;
  /**
   * Gives the memory behind a part of the pages back: it is zero then, for everybody. Where that cannot be done it stays.
   *
   * @param offset Where the part begins, in bytes; it goes to the end.
   */
  discard(offset: number): void;
  /** Gives the mapping back; every view of `buffer` is then empty. */
  close(): void;
}

/** One attachment's memory. */
export interface RegionMemory {
  /**
   * What the program gets; it may be longer than the region. A reader's stray write to it stays his own, where the medium
   * can see to that. It is not kept alive here: when the program forgets it, the collector may say so.
   */
  readonly view: ArrayBuffer;
  /** What the library reads: never written to by a reader. The same as `view` for a writer. */
  readonly truth: ArrayBuffer;
  /** Gives the mappings back. `false` when the program had transferred `view` away, so that its range stays in use. */
  close(): boolean;
}

/** A region just made, mapped writable and sealed. */
export interface CreatedRegion {
  /** The creator's memory. */
  readonly memory: RegionMemory;
  /** What the broker hands to others. The creator keeps it too, to announce it again. */
  readonly share: Share;
}

/** One 32-bit word that another process writes, or that others read. */
export interface SharedWord {
  /** An array of one element. Only its owner stores to it. */
  readonly word: Int32Array;
  /** Gives the mapping back. */
  close(): void;
}

/** One end of a bell. The other end has exactly one holder, so that its end says that he is gone. */
export interface Bell {
  /** Rings at the other end; never waits. `false` when nobody is there any more. */
  ring(): boolean;
  /** Takes in what was rung. `false` when the other end is gone. */
  drain(): boolean;
  /**
   * From now on calls back from the event loop: `rung` after rings, `ended` once when the other end is gone. That does
   * not keep the process alive.
   */
  listen(rung: () => void, ended: () => void): void;
  /** Closes this end. */
  close(): void;
}

/** A client's control channel. */
export interface Connection {
  /**
   * Sends one packet, waiting for room at most so long; the shares stay the caller's.
   *
   * @param packet What to send.
   * @param timeout Milliseconds; 0 does not wait.
   * @returns `"full"` when there was no room in time, `"closed"` when the broker is gone.
   */
  send(packet: Packet, timeout: number): "sent" | "full" | "closed";
  /**
   * The next packet, waiting for it at most so long.
   *
   * @param timeout Milliseconds; 0 does not wait.
   * @returns The packet, `undefined` when none came in time, `"closed"` when the broker is gone.
   */
  receive(timeout: number): Packet | undefined | "closed";
  /** Closes the channel: the broker then drops everything this client has. */
  close(): void;
}

/** The client's side of a medium. */
export interface Medium {
  /** What it is called, as `openVmci`'s device is written. */
  readonly device: string;
  /** The byte of the roster that this client holds, or -1 where there is none. */
  readonly slot: number;
  /** Whether other threads or processes go on while this thread waits. */
  readonly concurrent: boolean;
  /**
   * A channel to the broker; starts one where that is allowed and none runs.
   *
   * @returns The channel, or `undefined` when there is nobody to connect to now and somebody else is about to start.
   * @throws {VmciError} UNAVAILABLE or NO_ACCESS when trying again would not help.
   */
  tryConnect(): Connection | undefined;
  /** Why the broker may be silent, for an error's text: its process and state. */
  explainSilence(): string;
  /** Makes a region, zeroed, of whole pages. */
  createRegion(size: number, access: RegionAccess): CreatedRegion;
  /** Maps a region somebody else made. Takes the share over. */
  openRegion(share: Share, size: number, writable: boolean): RegionMemory;
  /** Maps a lane. Takes the share over. */
  openLane(share: Share): SharedPages;
  /** Makes this client's attention word; the share is for the broker, and stays the client's. */
  createAttention(): { readonly attention: SharedWord; readonly share: Share };
  /** Maps a word that somebody else writes. Takes the share over. */
  openWord(share: Share): SharedWord;
  /** Adopts one end of a bell. Takes the share over. */
  openBell(share: Share): Bell;
  /**
   * Blocks this thread until a bell rings, the connection has a packet, or the time is over.
   *
   * @param bells The bells.
   * @param connection The connection, if there is one.
   * @param timeout Milliseconds.
   */
  block(bells: Iterable<Bell>, connection: Connection | undefined, timeout: number): void;
  /** Gives a share back that was not used. */
  release(share: Share): void;
  /** Whether the broker runs in this process, so that it should be told who leaves. */
  readonly hostsBroker: boolean;
  /**
   * Leaves the fabric.
   *
   * @param brokerEnds Whether the broker of this process ends now: then its end is waited for.
   */
  close(brokerEnds: boolean): Promise<void>;
}

/** The broker's side of a medium. */
export interface BrokerMedium {
  /** Makes the pages of a lane. */
  makeLane(): Share;
  /** Makes a bell: its two ends. */
  makeBell(): readonly [Share, Share];
  /**
   * Checks that a share is what its creator says.
   *
   * @throws {VmciError} INVALID_ARGS when it has another size, or its writers are others than it says; NO_RESOURCES when
   * the broker cannot keep it and still serve others.
   */
  checkRegion(share: Share, size: number, access: RegionAccess): void;
  /** Checks that a share is one word that only its maker can write. */
  checkAttention(share: Share): void;
  /** Remembers, beyond the broker's own life, that numbers below `mark` may be in use. */
  reserveNumbers(mark: number): void;
  /** Gives a share back. */
  release(share: Share): void;
}

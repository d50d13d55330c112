/**
 * Datagrams that arrive once and in order although what carries them may lose and reorder them: numbered, acknowledged,
 * and as many at once as a window allows. Two machines without sockets and without a clock of their own, one for each
 * end of the way from one handle to another.
 *
 * A frame is 16 bytes and what it carries: "VMCR", its kind, flags, the way's epoch (a number that the sender draws for
 * it) and a number. The flags: 1, it ends a datagram; 2, the sender has not heard yet that anything of the way was taken.
 * The number of a data frame is its place in the row; of an acknowledgement, how many have been taken. A datagram that
 * does not fit goes in two frames.
 *
 * The receiver acknowledges what it has handed on, so that a full queue holds the sender back; what comes out of order
 * it keeps until the rest is there. The sender repeats a frame when an acknowledgement says again that it is missing,
 * and when none came for a while.
 *
 * @module
 */

import { MAX_PAYLOAD_SIZE } from "../limits.ts";

/** The kinds of frame. */
export const FrameKind = {
  /** A piece of a datagram. */
  DATA: 1,
  /** How far the receiver is. */
  ACK: 2,
  /** The receiver will take no more of this way: the number is a code of the SDK. */
  REFUSED: 3,
} as const;

/** A frame, taken apart. */
export interface Frame {
  /** Of {@linkcode FrameKind}. */
  readonly kind: number;
  /** Whether it ends its datagram; of an acknowledgement, whether the receiver has room. */
  readonly flag: boolean;
  /** Whether nothing of the way was known to be taken when it was sent. */
  readonly first: boolean;
  /** The way's number. */
  readonly epoch: number;
  /** Its place in the row, how many were taken, or a code. */
  readonly number: number;
  /** What it carries. */
  readonly payload: Uint8Array<ArrayBuffer>;
}

const MAGIC = 0x52434D56; // "VMCR"
const HEADER = 16;
const Flag = { SET: 1, FIRST: 2 } as const;
const Offset = { magic: 0, kind: 4, flag: 5, zero: 6, epoch: 8, number: 12 } as const;

/** The most that one frame carries. */
export const MAX_FRAME_PAYLOAD: number = MAX_PAYLOAD_SIZE - HEADER;

/** So many frames, and so many bytes in them, are on their way at once. */
const WINDOW = { frames: 64, bytes: 128 * 1024 } as const;

/** The receiver keeps frames so far ahead of the one it waits for. */
const AHEAD = 2 * WINDOW.frames;

/** Milliseconds after which what is not acknowledged is sent again: at first, and at most. */
const REPEAT = { first: 20, most: 500 } as const;

/** Milliseconds between two repetitions that acknowledgements ask for. */
const SOONEST = 2;

/** A frame as it is sent. */
export function encodeFrame(
  kind: number,
  flag: boolean,
  epoch: number,
  number: number,
  payload?: Uint8Array,
): Uint8Array<
  ArrayBuffer
> {
  const bytes = new Uint8Array(new ArrayBuffer(HEADER + (payload?.length ?? 0)));
  const view = new DataView(bytes.buffer);
  view.setUint32(Offset.magic, MAGIC, true);
  view.setUint8(Offset.kind, kind);
  view.setUint8(Offset.flag, flag ? Flag.SET : 0);
  view.setUint32(Offset.epoch, epoch, true);
  view.setUint32(Offset.number, number, true);
  if (payload !== undefined) bytes.set(payload, HEADER);
  return bytes;
}

/**
 * A frame as it came.
 *
 * @param bytes The datagram's payload.
 * @returns The frame, or `undefined` when it is none.
 */
export function decodeFrame(bytes: Uint8Array<ArrayBuffer>): Frame | undefined {
  if (bytes.length < HEADER) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(Offset.magic, true) !== MAGIC || view.getUint16(Offset.zero, true) !== 0) return undefined;
  return {
    kind: view.getUint8(Offset.kind),
    flag: (view.getUint8(Offset.flag) & Flag.SET) !== 0,
    first: (view.getUint8(Offset.flag) & Flag.FIRST) !== 0,
    epoch: view.getUint32(Offset.epoch, true),
    number: view.getUint32(Offset.number, true),
    payload: bytes.subarray(HEADER),
  };
}

/** The sender's end of a way. */
export class ReliableSender {
  readonly #epoch: number;
  /** Frames that are not acknowledged, in order; the first is number {@linkcode ReliableSender.#base}. */
  readonly #frames: Uint8Array<ArrayBuffer>[] = [];
  #base = 0;
  /** Whether nothing was acknowledged yet. */
  #first = true;
  /** How many of them were sent. */
  #sent = 0;
  #bytes = 0;
  /** Which of them is to be sent again next, and before which that ends. */
  #repeatAt = 0;
  #repeatEnd = 0;
  #repeatedAt = -Infinity;
  /** Up to here, what was under way when something was missed may be missing as well. */
  #recovering: number | undefined;
  #delay: number = REPEAT.first;
  /** When the oldest is sent again. */
  #due = Infinity;
  /** When something came from the other end last. */
  #heard: number;
  /** How many frames were sent more than once. */
  repeated = 0;

  /**
   * @param epoch The way's number.
   * @param now The time in milliseconds.
   */
  constructor(epoch: number, now: number) {
    this.#epoch = epoch;
    this.#heard = now;
  }

  /** Whether another datagram may be put on its way. */
  get open(): boolean {
    return this.#frames.length + 1 < WINDOW.frames && this.#bytes < WINDOW.bytes;
  }

  /** Bytes that are not acknowledged. */
  get outstanding(): number {
    return this.#bytes;
  }

  /** Whether everything is acknowledged. */
  get idle(): boolean {
    return this.#frames.length === 0;
  }

  /** When something is to be done next, in milliseconds; `Infinity` when nothing is. */
  get due(): number {
    return this.#due;
  }

  /**
   * For how long the other end has said nothing although something is on its way to it.
   *
   * @param now The time in milliseconds.
   * @returns Milliseconds.
   */
  silence(now: number): number {
    return this.idle ? 0 : now - this.#heard;
  }

  /** Puts a datagram on its way; the payload is copied. */
  push(payload: Uint8Array, now: number): void {
    if (this.idle) this.#heard = now;
    let at = 0;
    do {
      const end = Math.min(payload.length, at + MAX_FRAME_PAYLOAD);
      const number = (this.#base + this.#frames.length) >>> 0;
      const piece = payload.subarray(at, end);
      this.#frames.push(encodeFrame(FrameKind.DATA, end === payload.length, this.#epoch, number, piece));
      this.#bytes += piece.length + HEADER;
      at = end;
    } while (at < payload.length);
  }

  /** The frame that is to be sent now; {@linkcode ReliableSender.didSend} says that it was. */
  next(): Uint8Array<ArrayBuffer> | undefined {
    const frame = this.#frames[this.#repeatAt < this.#repeatEnd ? this.#repeatAt : this.#sent];
    if (frame !== undefined) frame[Offset.flag] = (frame[Offset.flag]! & Flag.SET) | (this.#first ? Flag.FIRST : 0);
    return frame;
  }

  /** The frame was sent. */
  didSend(now: number): void {
    if (this.#repeatAt < this.#repeatEnd) {
      this.#repeatAt++;
      this.#repeatedAt = now;
      this.repeated++;
    } else {
      this.#sent++;
    }
    if (this.#due === Infinity) this.#due = now + this.#delay;
  }

  /** Time has passed. */
  tick(now: number): void {
    if (now < this.#due) return;
    if (this.idle) {
      this.#due = Infinity;
      return;
    }
    this.#miss();
    this.#delay = Math.min(2 * this.#delay, REPEAT.most);
    this.#due = now + this.#delay;
  }

  /**
   * The receiver said how far it is.
   *
   * @param number How many it has taken.
   * @param room Whether it has room for more.
   * @param now The time in milliseconds.
   */
  acknowledge(number: number, room: boolean, now: number): void {
    const taken = (number - this.#base) >>> 0;
    // What was sent twice may be acknowledged twice; and nobody takes what was not sent.
    if (taken > this.#sent) return;
    this.#heard = now;
    if (taken === 0) {
      if (room && now - this.#repeatedAt >= SOONEST) this.#miss();
      return;
    }
    for (const frame of this.#frames.splice(0, taken)) this.#bytes -= frame.length;
    this.#base = number;
    this.#first = false;
    this.#sent -= taken;
    // What was repeated has come; the next one that is missing need not be asked for.
    const left = this.#recovering === undefined ? 0 : (this.#recovering - number) >>> 0;
    this.#repeatEnd = 0;
    if (left > 0 && left <= this.#sent) this.#repeat();
    else this.#recovering = undefined;
    this.#delay = REPEAT.first;
    this.#due = this.#sent > 0 ? now + this.#delay : Infinity;
  }

  /** The oldest datagram has not arrived. */
  #miss(): void {
    if (this.#sent === 0) return;
    this.#repeat();
    this.#recovering = (this.#base + this.#sent) >>> 0;
  }

  /** Sends the oldest datagram again: a receiver takes it whole, so that it does not say which piece is missing. */
  #repeat(): void {
    this.#repeatAt = 0;
    const pieces = (this.#frames[0]![Offset.flag]! & Flag.SET) !== 0 ? 1 : 2;
    this.#repeatEnd = Math.min(pieces, this.#sent);
  }
}

/** The receiver's end of a way. */
export class ReliableReceiver {
  /** The way's number. */
  readonly epoch: number;
  /** What came, by number, from the one that is waited for on. */
  readonly #frames = new Map<number, Frame>();
  #expected = 0;
  /** Whether something is to be acknowledged. */
  #owing = false;

  /** @param epoch The way's number. */
  constructor(epoch: number) {
    this.epoch = epoch;
  }

  /** Takes a data frame in. */
  accept(frame: Frame): void {
    this.#owing = true;
    const ahead = (frame.number - this.#expected) >>> 0;
    if (ahead >= AHEAD || this.#frames.has(frame.number)) return;
    this.#frames.set(frame.number, { ...frame, payload: frame.payload.slice() });
  }

  /** The next datagram, once it is whole. */
  peek(): Uint8Array<ArrayBuffer> | undefined {
    const first = this.#frames.get(this.#expected);
    if (first === undefined || first.flag) return first?.payload;
    const second = this.#frames.get((this.#expected + 1) >>> 0);
    if (second === undefined) return undefined;
    const size = first.payload.length + second.payload.length;
    // No datagram has three pieces: what says so is no sender of this library.
    const whole = new Uint8Array(Math.min(size, MAX_PAYLOAD_SIZE));
    whole.set(first.payload);
    whole.set(second.payload.subarray(0, whole.length - first.payload.length), first.payload.length);
    return whole;
  }

  /** The next datagram was handed on. */
  take(): void {
    const pieces = this.#frames.get(this.#expected)!.flag ? 1 : 2;
    for (let i = 0; i < pieces; i++) {
      this.#frames.delete(this.#expected);
      this.#expected = (this.#expected + 1) >>> 0;
    }
    this.#owing = true;
  }

  /**
   * What is to be said to the sender, if anything.
   *
   * @param room Whether there is room for what comes next.
   * @returns The frame.
   */
  acknowledgement(room: boolean): Uint8Array<ArrayBuffer> | undefined {
    if (!this.#owing) return undefined;
    this.#owing = false;
    return encodeFrame(FrameKind.ACK, room, this.epoch, this.#expected);
  }
}

/** Whether a data frame may be the first that comes of a way: others belong to a receiver who is gone. */
export function canBegin({ first, number }: Frame): boolean {
  return first && number < WINDOW.frames;
}

/** The frame that ends a way from its receiver's end. */
export function encodeRefusal(epoch: number, code: number): Uint8Array<ArrayBuffer> {
  return encodeFrame(FrameKind.REFUSED, false, epoch, code >>> 0);
}

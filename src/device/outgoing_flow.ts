/**
 * The way from a lane's end to where its datagrams go.
 *
 * @module
 */

import type { Handle } from "../handle.ts";
import { ReceiveBuffer } from "../lane/receive_buffer.ts";
import { LaneConsumer } from "../lane/ring.ts";
import { DATAGRAM_HEADER_SIZE } from "../limits.ts";
import type { CarrierPort } from "./carrier.ts";
import { type Frame, FrameKind, ReliableSender } from "./reliable.ts";

/**
 * Milliseconds of silence after which a receiver of numbered datagrams is taken for gone. If it has ended the kernel says
 * so at the next frame; a program that is only busy says nothing for as long as its event loop does not turn.
 */
const PATIENCE = 30_000;

/** Milliseconds after which what found no room is tried again. */
const ROOM_AGAIN = 5;

/** See the module's comment. */
export class OutgoingFlow {
  /** The lane's number. */
  readonly lane: number;
  /** The handle that it comes from, or the invalid handle. */
  readonly source: Handle;
  /** Where it goes. */
  readonly destination: Handle;
  /** What it goes through. */
  readonly port: CarrierPort;
  readonly #consumer: LaneConsumer;
  readonly #sender: ReliableSender | undefined;
  readonly #epoch: number;
  /** Called when the sender waits for room and there is some. */
  readonly #room: () => void;
  /** What was taken from the lane and found no room. */
  #held: Uint8Array<ArrayBuffer> | undefined;
  /** When what found no room is tried again. */
  #again = Infinity;

  constructor(
    lane: number,
    source: Handle,
    destination: Handle,
    port: CarrierPort,
    buffer: ArrayBuffer,
    reliable: boolean,
    room: () => void,
  ) {
    this.lane = lane;
    this.source = source;
    this.destination = destination;
    this.port = port;
    this.#consumer = new LaneConsumer(buffer);
    this.#epoch = crypto.getRandomValues(new Uint32Array(1))[0]!;
    this.#sender = reliable ? new ReliableSender(this.#epoch, performance.now()) : undefined;
    this.#room = room;
  }

  /** When something is to be done next, in milliseconds; `Infinity` when nothing is. */
  get due(): number {
    return Math.min(this.#again, this.#sender?.due ?? Infinity);
  }

  /** Bytes that were taken from the lane and have not arrived, headers of 24 included where whole datagrams are held. */
  get outstanding(): number {
    return (this.#sender?.outstanding ?? 0) +
      (this.#held === undefined ? 0 : this.#held.length + DATAGRAM_HEADER_SIZE);
  }

  /** Whether nothing is on its way. */
  get idle(): boolean {
    return this.outstanding === 0;
  }

  /**
   * Sends what can be sent.
   *
   * @returns `false` when the receiver has been silent for so long that it must be gone.
   * @throws {VmciError} When there is no such receiver, or it may not be reached.
   */
  pump(now: number): boolean {
    if (this.#again <= now) this.#again = Infinity;
    const sender = this.#sender;
    if (sender === undefined) {
      for (let next = this.#held ?? this.#take(); next !== undefined; next = this.#take()) {
        this.#held = next;
        if (!this.port.send(this.destination, next)) {
          this.#again = now + ROOM_AGAIN;
          return true;
        }
        this.#held = undefined;
      }
      return true;
    }
    sender.tick(now);
    for (;;) {
      const frame = sender.next();
      if (frame !== undefined) {
        if (!this.port.send(this.destination, frame)) {
          this.#again = now + ROOM_AGAIN;
          break;
        }
        sender.didSend(now);
        continue;
      }
      const payload = sender.open ? this.#take() : undefined;
      if (payload === undefined) break;
      sender.push(payload, now);
    }
    return sender.silence(now) < PATIENCE;
  }

  /**
   * The receiver said something.
   *
   * @returns The code with which it refuses this way; `undefined` as long as it does not.
   */
  hear(frame: Frame, now: number): number | undefined {
    if (this.#sender === undefined || frame.epoch !== this.#epoch) return undefined;
    if (frame.kind === FrameKind.REFUSED) return frame.number | 0;
    this.#sender.acknowledge(frame.number, frame.flag, now);
    return undefined;
  }

  #take(): Uint8Array<ArrayBuffer> | undefined {
    const size = this.#consumer.peek();
    if (size < 0) return undefined;
    const into = new ReceiveBuffer(new Uint8Array(size));
    if (this.#consumer.take(into)) this.#room();
    return into.bytes;
  }
}

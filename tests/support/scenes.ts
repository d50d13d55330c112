/**
 * What an agent does by itself: it joins fabrics, and does work that is only worth something when it goes on while the
 * test's own thread does something else.
 *
 * @module
 */

import {
  type AtomicWord,
  type DatagramEndpoint,
  type Handle,
  MAX_PAYLOAD_SIZE,
  type OpenOptions,
  openVmci,
  type RegionRecord,
  type Vmci,
} from "../../mod.ts";

/** See the module's comment. */
export class Scenes {
  readonly #joined: Vmci[] = [];
  #publishing = false;

  /** Joins a fabric. */
  async open(options: OpenOptions): Promise<Vmci> {
    const vmci = await openKept(options);
    this.#joined.push(vmci);
    return vmci;
  }

  /** Leaves every fabric. */
  async leaveAll(): Promise<void> {
    this.#publishing = false;
    for (const vmci of this.#joined.splice(0).reverse()) await vmci[Symbol.asyncDispose]();
  }

  /** Sends back what comes, so many times, without turning the event loop. */
  echoSync(endpoint: DatagramEndpoint, times: number): void {
    for (let i = 0; i < times; i++) {
      const { source, payload } = endpoint.receiveSync();
      endpoint.sendTo(source, payload);
    }
  }

  /** Says by a datagram that it begins, takes so many without turning the event loop, and gives their bytes in all. */
  takeSync(endpoint: DatagramEndpoint, times: number, ready: Handle): number {
    endpoint.sendTo(ready, new Uint8Array(0));
    let size = 0;
    for (let i = 0; i < times; i++) size += endpoint.receiveSync().payload.length;
    return size;
  }

  /** Sends datagrams 1, 2, ... of all sizes as fast as they are read. */
  async sendPatterned(endpoint: DatagramEndpoint, destination: Handle, times: number): Promise<void> {
    for (let i = 1; i <= times; i++) {
      const payload = patterned(i, MAX_PAYLOAD_SIZE);
      await endpoint.room(destination, payload.length);
      endpoint.sendTo(destination, payload);
    }
  }

  /** Adds one to a word, so many times. */
  addOnes(word: AtomicWord, times: number): void {
    for (let i = 0; i < times; i++) word.add(1);
  }

  /** Adds one to a word whenever it is even, until it has reached `end`: with another who does so when it is odd. */
  turnSync(word: AtomicWord, parity: number, end: number): void {
    turnSync(word, parity, end);
  }

  /** Publishes patterned versions one after the other, until {@linkcode Scenes.leaveAll}. */
  async publishForever(record: RegionRecord): Promise<void> {
    this.#publishing = true;
    while (this.#publishing) {
      for (let i = 0; i < 256; i++) record.publish(patterned(record.version + 1, record.capacity));
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}

/**
 * Joins a fabric, and keeps what is made there: a test that goes on with no more than a handle must not find that the
 * collector closed what is behind it.
 */
export async function openKept(options: OpenOptions): Promise<Vmci> {
  const vmci = await openVmci(options);
  const kept: object[] = [];
  const keep = <A extends unknown[], R extends object>(make: (...args: A) => R) => (...args: A): R => {
    const made = make(...args);
    kept.push(made);
    return made;
  };
  const { datagrams, sharedMemory } = vmci;
  datagrams.create = keep(datagrams.create.bind(datagrams));
  sharedMemory.create = keep(sharedMemory.create.bind(sharedMemory));
  sharedMemory.attach = keep(sharedMemory.attach.bind(sharedMemory));
  return vmci;
}

/** Milliseconds that the other one has for its turn: nobody could tell who turns no event loop that it ended. */
const TURN = 30_000;

/** Waits for a word to be even or odd and adds one to it, until it has reached `end`. */
export function turnSync(word: AtomicWord, parity: number, end: number): void {
  for (let value = word.load(); value < end; value = word.load()) {
    if (value % 2 === parity) word.add(1);
    else word.waitSync(value, TURN);
  }
}

/** Bytes that begin with a number and whose length, from 4 to `most`, and content follow from it. */
export function patterned(number: number, most: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 + (number * 7919) % (most - 3));
  for (let i = 0; i < bytes.length; i++) bytes[i] = number + i;
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

import { assertEquals } from "@std/assert";
import { Gathering } from "../src/lane/gathering.ts";

/** Somebody who receives. */
class Receiver {
  readonly #gathering = new Gathering();
  #taken = 0;

  /** How many of so many waits stayed away, when so many datagrams are taken after each of them. */
  pauses(waits: number, burst: number): number {
    const { pause } = Atomics;
    let paused = 0;
    try {
      for (let i = 0; i < waits; i++) {
        let calls = 0;
        Atomics.pause = () => void calls++;
        this.#gathering.pause(this.#taken);
        if (calls > 0) paused++;
        this.#taken += burst;
      }
    } finally {
      Atomics.pause = pause;
    }
    return paused;
  }
}

Deno.test("gathering: as long as several datagrams come of it, every wait lets them gather", () => {
  assertEquals(new Receiver().pauses(100, 2), 100);
});

Deno.test("gathering: where one datagram answers another, next to no wait does", () => {
  const receiver = new Receiver();
  // A pause, one wait without; a pause, three without; ...; then one in 1,024.
  assertEquals(receiver.pauses(2 ** 11 - 2, 1), 10);
  assertEquals(receiver.pauses(1024 * 3, 1), 3);
});

Deno.test("gathering: a stream after that is found, and every wait lets it gather again", () => {
  const receiver = new Receiver();
  receiver.pauses(2 ** 11 - 2, 1);
  receiver.pauses(1024, 3);
  assertEquals(receiver.pauses(50, 3), 50);
});

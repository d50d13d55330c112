/**
 * The other clients that this one has a bell with.
 *
 * @module
 */

import type { Bell, Medium, Share, SharedWord } from "./medium.ts";
import { Peer } from "./peer.ts";

/** What is done when something happens to a peer. */
export interface PeerHooks {
  /** It rang. */
  readonly rung: () => void;
  /** Its end of the bell is gone: with it, or without; the broker knows. */
  readonly ended: (peer: Peer) => void;
  /** It cannot be rung for want of memory, so that it is a peer no more. */
  readonly unreachable: (number: number) => void;
}

/** See the module's comment. */
export class Peers {
  readonly #medium: Medium;
  readonly #hooks: PeerHooks;
  readonly #peers = new Map<number, Peer>();
  readonly #goneHooks: ((peer: Peer) => void)[] = [];
  #listening = false;

  constructor(medium: Medium, hooks: PeerHooks) {
    this.#medium = medium;
    this.#hooks = hooks;
  }

  /** Adds something to be done when a peer is gone, before its bell is closed. */
  onGone(hook: (peer: Peer) => void): void {
    this.#goneHooks.push(hook);
  }

  /** The peer of that number. */
  get(number: number): Peer | undefined {
    return this.#peers.get(number);
  }

  /** Their numbers. */
  get numbers(): number[] {
    return [...this.#peers.keys()];
  }

  /** Their bells. */
  get bells(): Bell[] {
    return [...this.#peers.values()].map((peer) => peer.bell);
  }

  /**
   * Takes in a bell and an attention word. Without them the peer cannot be rung, and the next lane brings new ones.
   *
   * @param number Whose.
   * @param shares The bell and the word; taken over.
   */
  adopt(number: number, shares: readonly Share[]): void {
    const bell = this.#medium.openBell(shares[0]!);
    let attention: SharedWord;
    try {
      attention = this.#medium.openWord(shares[1]!);
    } catch {
      bell.close();
      this.#hooks.unreachable(number);
      return;
    }
    const peer = new Peer(number, bell, attention);
    // Two brokers may each have made one; both ends then use the newer.
    this.#peers.get(number)?.close();
    this.#peers.set(number, peer);
    if (this.#listening) this.#listenTo(peer);
  }

  /** Has the event loop watch every bell. */
  listen(): void {
    this.#listening = true;
    for (const peer of this.#peers.values()) this.#listenTo(peer);
  }

  /** Takes in what was rung at every bell, without the event loop. */
  drain(): void {
    for (const peer of [...this.#peers.values()]) {
      if (!peer.bell.drain()) this.#ended(peer);
    }
  }

  /** The peer of that number is gone. */
  remove(number: number): void {
    const peer = this.#peers.get(number);
    if (peer === undefined) return;
    this.#peers.delete(number);
    for (const hook of this.#goneHooks) hook(peer);
    peer.close();
  }

  /** Gives all bells and words back. */
  close(): void {
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  #listenTo(peer: Peer): void {
    peer.listen(this.#hooks.rung, () => this.#ended(peer));
  }

  #ended(peer: Peer): void {
    // It may have been replaced meanwhile.
    if (this.#peers.get(peer.number) !== peer) return;
    this.remove(peer.number);
    this.#hooks.ended(peer);
  }
}

/**
 * The other clients that this one has a bell with.
 *
 * @module
 */

import type { Bell, Medium, Share, SharedWord } from "./medium.ts";
import { Peer } from "./peer.ts";

/** What is done when something happens to a peer. */
export interface PeerHooks {
  /** The other end of its bell is gone: what the broker has said is heard first, for it may have given a new bell. */
  readonly ending: () => void;
  /** It rang. */
  readonly rung: () => void;
  /** Its end of the bell is gone: with it, or without; the broker knows. */
  readonly ended: (peer: Peer) => void;
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
   * Takes in a bell and an attention word.
   *
   * @param number Whose.
   * @param shares The bell and the word; taken over.
   */
  adopt(number: number, shares: readonly Share[]): void {
    const bell = this.#medium.openBell(shares[0]!);
    const attention = this.#attention(shares[1]!);
    const known = this.#peers.get(number);
    const peer = known ?? new Peer(number, bell, attention);
    // Two brokers may each have made one; both ends then use the newer.
    known?.renew(bell, attention);
    this.#peers.set(number, peer);
    if (this.#listening) this.#listenTo(peer);
    // It may have closed the older one before it heard what that was rung for.
    known?.nudge();
  }

  /** Has the event loop watch every bell. */
  listen(): void {
    this.#listening = true;
    for (const peer of this.#peers.values()) this.#listenTo(peer);
  }

  /** Takes in what was rung at every bell, without the event loop. */
  drain(): void {
    for (const peer of [...this.#peers.values()]) {
      const { bell } = peer;
      if (!bell.drain()) this.#ended(peer, bell);
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

  /** Whose word cannot be seen for want of memory is rung each time. */
  #attention(share: Share): SharedWord {
    try {
      return this.#medium.openWord(share);
    } catch {
      return { word: new Int32Array([1]), close: () => {} };
    }
  }

  #listenTo(peer: Peer): void {
    const { bell } = peer;
    peer.listen(this.#hooks.rung, () => this.#ended(peer, bell));
  }

  #ended(peer: Peer, bell: Bell): void {
    this.#hooks.ending();
    if (this.#peers.get(peer.number) !== peer || peer.bell !== bell) return;
    this.remove(peer.number);
    this.#hooks.ended(peer);
  }
}

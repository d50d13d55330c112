/**
 * Traders: each changes all the time what the others may do, and does with the others what it may. Each of them
 * - allows and denies each other one to send to its mailbox, in every way there is, while that one sends;
 * - makes an offer: an endpoint and a region with names, and withdraws it when it has taken in all that came;
 * - visits the others' offers, each time with a new endpoint and so a first lane.
 *
 * A trader notes in its ledger, a region that all of them see, what was answered "done": what it has granted or denied,
 * that its offer is there or gone, that it is visiting, how many of its datagrams were accepted. A note is changed to
 * "changing" before a call and to what is so after it; so who finds the same note before and after something that it does
 * knows what must become of that. Only of a datagram that is sent while the right to do so is being withdrawn nobody knows:
 * it is noted as open.
 *
 * The functions travel to players as text: they see nothing but their arguments.
 *
 * @module
 */

import type { Handle } from "../../../mod.ts";
import type { AskerReport } from "./asker.ts";
import type { Stage } from "./stage.ts";

/** What a trader has. */
export interface Stall {
  readonly context: number;
  /** Its place; who comes after it has the same. */
  readonly place: number;
  readonly mailbox: Handle;
  readonly ledger: Handle;
}

/** How a trader is doing. */
export interface TradeReport extends AskerReport {
  /** Datagrams that came, once each and in order. */
  readonly came: number;
}

/** What came from one that died, or left. */
export interface Settlement {
  /** How many of its datagrams it had noted as accepted. */
  readonly accepted: number;
  /** How many came. */
  readonly came: number;
}

/** A trader comes. */
export async function comeTrader(
  s: Stage,
  device: string,
  context: number,
  place: number,
  timeout: number,
): Promise<Stall> {
  const { access, datagrams, sharedMemory, discovery } = await s.openAtLast({ device, contextId: context, timeout });
  const { asker } = s;
  const call = asker.call.bind(asker);
  s.endpoint = datagrams.create();
  s.region = sharedMemory.create(65536);
  access.addClientPrivileges(s.region.handle, access.publicGroup, { allow: ["SM_ATTACH"] });
  discovery.register(`mailbox ${context}`, s.endpoint.handle);
  s.follow();
  s.collect(s.endpoint, { gaps: true });
  /** Whether a datagram is open, a bit each. */
  const open = (ledger: typeof s.region, place: number, number: number) =>
    ledger.word(16384 + 8192 * place + 4 * (number >> 5 & 2047));

  // A note is the number of the change, times 4, and how it is.
  const [CHANGING, YES, NO] = [0, 1, 2];
  const OFFER = 4096;
  // One line of the ledger for each place: what it may do; whether its offer is being visited; datagrams that its offers
  // accepted; and those that its mailbox accepted.
  const right = (ledger: typeof s.region, place: number) => ledger.word(64 * place);
  const visiting = (ledger: typeof s.region, place: number) => ledger.word(64 * place + 4);
  const left = (ledger: typeof s.region, place: number) => ledger.word(64 * place + 8);
  const sent = (ledger: typeof s.region, place: number) => ledger.word(64 * place + 12);
  // Each source has a number of its own: a trader's own one, and those of the endpoints with which it visits.
  const SOURCES = 100_000;
  let sources = 0;
  /** Those that came to this one's offers before, by the context of who sent them. */
  const before = new Map<number, number>();

  type Peer = { context: number; place: number; mailbox: Handle; ledger: typeof s.region; number: number };
  const peers: Map<number, Peer> = s.kept.peers = new Map();
  let changes = 0;
  const note = (word: ReturnType<typeof right>, how: number) => word.store(changes * 4 + how);
  // Neighbours do not draw alike.
  let drawn = Math.imul(context, 0x9e3779b1);
  const draw = (below: number) => {
    drawn = (Math.imul(drawn, 1664525) + 1013904223) >>> 0;
    return Math.floor(drawn / 2 ** 32 * below);
  };
  const pick = (): Peer | undefined => [...peers.values()][draw(peers.size)];
  const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

  /** Allows one to send to the mailbox that may not, and the other way round. */
  const turn = async ({ context, place }: Peer) => {
    const client = s.lib.contextHandle(context);
    const word = right(s.region, place);
    const grants = word.load() % 4 !== YES;
    changes++;
    note(word, CHANGING);
    const { handle } = s.endpoint;
    if (grants) {
      await call("clear", () => access.addClientPrivileges(handle, client, { deny: ["DG_SEND"] }), context);
      await call("unset", () => access.removeAllClientPrivileges(handle, client), context, ["INVALID_ARGS"]);
      await call("allow", () => access.addClientPrivileges(handle, client, { allow: ["DG_SEND"] }), context);
    } else {
      const deny = [
        () => access.addClientPrivileges(handle, client, { deny: ["DG_SEND"] }),
        () => access.removeClientPrivileges(handle, client, ["DG_SEND"]),
        () => access.removeAllClientPrivileges(handle, client),
      ][draw(3)]!;
      await call("deny", deny, context, ["INVALID_ARGS"]);
    }
    note(word, grants ? YES : NO);
    const found = await call("check", () => access.checkClientPrivilege(handle, client, "DG_SEND"), context);
    if (found !== undefined && found.granted !== grants) {
      asker.fault(`what was ${grants ? "granted" : "denied"} is ${found.code}`, context);
    }
  };

  /** Sends to one's mailbox, allowed or not. */
  const send = (peer: Peer) => {
    const word = right(peer.ledger, s.kept.place);
    const was = word.load();
    const { number } = peer;
    const [bits, bit] = [open(s.region, peer.place, number), 1 << (number & 31)];
    let code = "";
    bits.store(bits.load() | bit);
    try {
      s.endpoint.sendTo(peer.mailbox, s.numbered(context * SOURCES, number));
      // What was accepted before the right began to be withdrawn arrives.
      if (word.load() === was && was % 4 === YES) bits.store(bits.load() & ~bit);
      peer.number++;
      sent(s.region, peer.place).store(peer.number);
    } catch (error) {
      code = (error as { code?: string }).code ?? String(error);
    }
    if (code === "UNAVAILABLE") asker.unanswered++;
    if (word.load() !== was) return;
    if (code === "" && was % 4 === NO) asker.fault("it was denied, and is sent to", peer.context);
    const plausible = ["", "NO_RESOURCES", "UNAVAILABLE", ...(was % 4 === YES ? [] : ["NO_ACCESS"])];
    if (!plausible.includes(code)) asker.fault(`a datagram is ${code}, and the note ${was}`, peer.context);
  };

  /** Where somebody has something to offer, goes there with a new endpoint; where not, sees that there is nothing. */
  const visit = async (peer: Peer) => {
    const about = peer.context;
    const offer = peer.ledger.word(OFFER);
    const was = offer.load();
    if (was === 0) return;
    if (was % 4 === NO) {
      try {
        discovery.lookup(`post ${about}`);
        if (offer.load() === was) asker.fault("a name that was taken away is there", about);
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === "UNAVAILABLE") asker.unanswered++;
        else if (code !== "NOT_FOUND") asker.fault(`a name that was taken away: ${error}`, about);
      }
      return;
    }
    if (was % 4 !== YES) return;
    // It is not withdrawn as long as this says so.
    visiting(s.region, peer.place).store(was >> 2);
    try {
      if (offer.load() !== was) return;
      const post = await call("look for a post", () => discovery.lookup(`post ${about}`), about);
      const ware = await call("look for a ware", () => discovery.lookup(`ware ${about}`), about);
      // Whom it visits may be gone by now.
      if (post === undefined || ware === undefined) return;
      const fresh = await call("create an endpoint", () => datagrams.create());
      if (fresh === undefined) return;
      asker.given(fresh.handle.resource);
      sources++;
      const many = 1 + draw(4);
      for (let number = 0; number < many; number++) {
        const payload = s.numbered(context * SOURCES + sources, number);
        const size = await call("send first", () => fresh.sendTo(post, payload), about);
        if (size !== undefined) left(s.region, peer.place).add(1);
      }
      // What it has sent outlives it.
      await call("close an endpoint", () => fresh.close());
      const region = await call("attach", () => sharedMemory.attach(ware), about);
      if (region === undefined) return;
      const value = region.word(0).load();
      if (value !== was >> 2) asker.fault(`offer ${was >> 2} has the ware ${value}`, about);
      await call("detach", () => region.detach());
    } finally {
      visiting(s.region, peer.place).store(0);
    }
  };

  /** Makes an offer. */
  const offer = async () => {
    const post = await call("create a post", () => datagrams.create());
    const ware = await call("create a ware", () => sharedMemory.create(4096));
    if (post === undefined || ware === undefined) return;
    const { publicGroup } = access;
    for (const { handle } of [post, ware]) asker.given(handle.resource);
    changes++;
    note(s.region.word(OFFER), CHANGING);
    ware.word(0).store(changes);
    s.collect(post);
    await call("let all send", () => access.addClientPrivileges(post.handle, publicGroup, { allow: ["DG_SEND"] }));
    await call("let all attach", () => access.addClientPrivileges(ware.handle, publicGroup, { allow: ["SM_ATTACH"] }));
    const registered = ["ALREADY_EXISTS"];
    await call("register a post", () => discovery.register(`post ${context}`, post.handle), null, registered);
    await call("register a ware", () => discovery.register(`ware ${context}`, ware.handle), null, registered);
    note(s.region.word(OFFER), YES);
    s.kept.offer = { post, ware };
  };

  /** How many datagrams of somebody's came to offers. */
  const came = s.kept.came = (who: number) => {
    let count = before.get(who) ?? 0;
    for (const [source, { next }] of s.received) {
      if (source > who * SOURCES && source < (who + 1) * SOURCES) count += next;
    }
    return count;
  };

  /** Withdraws it, when all who visit it have left and all that they left has come. */
  const withdraw = async () => {
    const { post, ware } = s.kept.offer;
    const word = s.region.word(OFFER);
    changes++;
    note(word, CHANGING);
    for (const peer of [...peers.values()]) {
      const gone = () => peers.get(peer.place) !== peer;
      const leaves = () => visiting(peer.ledger, s.kept.place).load() === 0;
      const all = () => came(peer.context) >= left(peer.ledger, s.kept.place).load();
      while (!gone() && !(leaves() && all())) {
        // Who waits asks as well, like all others.
        await call("look for itself", () => discovery.lookup(`mailbox ${context}`));
        await pause();
      }
      if (gone()) continue;
      const [accepted, found] = [left(peer.ledger, s.kept.place).load(), came(peer.context)];
      if (accepted !== found) asker.fault(`${found} datagrams came of ${accepted} that were left`, peer.context);
    }
    // They are counted, and their sources are no more.
    for (const [source, { next, faults }] of s.received) {
      const who = Math.floor(source / SOURCES);
      if (source % SOURCES === 0 || asker.gone.has(who)) continue;
      for (const fault of faults) asker.fault(`from ${source}: ${fault}`);
      before.set(who, (before.get(who) ?? 0) + next);
      s.received.delete(source);
    }
    for (const name of [`post ${context}`, `ware ${context}`]) {
      await call(`unregister ${name}`, () => discovery.unregister(name), null, ["NOT_FOUND"]);
    }
    await call("close a post", () => post.close());
    await call("detach a ware", () => ware.detach());
    note(word, NO);
    s.kept.offer = undefined;
  };

  const work = async () => {
    while (!s.kept.idle && !s.vmci.closed) {
      await pause();
      const peer = pick();
      if (peer === undefined) continue;
      const what = draw(10);
      if (what < 3) send(peer);
      else if (what < 5) await turn(peer);
      else if (what < 8) await visit(peer);
      else if (s.kept.offer === undefined) await offer();
      else await withdraw();
    }
    if (s.kept.offer !== undefined) await withdraw();
  };
  s.kept.place = place;
  s.kept.working = work().catch((error) => asker.fault(`it stopped: ${error.stack}`));
  return { context, place, mailbox: s.endpoint.handle, ledger: s.region.handle };
}

/** Another one is there, perhaps in the place of one that was settled with. */
export function meetTrader(s: Stage, { context, place, mailbox, ledger }: Stall): void {
  for (let at = 0; at < 64; at += 4) s.region.word(64 * place + at).store(0);
  s.region.bytes.fill(0, 16384 + 8192 * place, 16384 + 8192 * (place + 1));
  s.kept.peers.set(place, { context, place, mailbox, ledger: s.vmci.sharedMemory.attach(ledger), number: 0 });
}

/**
 * Another one died, or rests: waits until all that was accepted from it is here, and has nothing to do with it any more.
 */
export async function settleWith(s: Stage, { context, place }: Stall): Promise<Settlement> {
  const { ledger } = s.kept.peers.get(place);
  // As `comeTrader` has it.
  const mine = 64 * s.kept.place;
  const left: number = ledger.word(mine + 8).load();
  const sent: number = ledger.word(mine + 12).load();
  const isOpen = (number: number): boolean =>
    (ledger.word(16384 + 8192 * s.kept.place + 4 * (number >> 5 & 2047)).load() >> (number & 31) & 1) !== 0;
  const mailed = () => s.received.get(context * 100_000);
  // The last ones of those that must come: it sent nothing after them that must.
  let due = sent;
  while (due > 0 && isOpen(due - 1)) due--;
  await s.until(() => s.kept.came(context) >= left && (mailed()?.next ?? 0) >= due);
  const missing = mailed()?.missing ?? [];
  for (const number of missing) if (!isOpen(number)) s.asker.fault(`datagram ${number} of ${context} did not come`);
  for (const [source, { faults }] of s.received) {
    if (Math.floor(source / 100_000) === context) { for (const it of faults) s.asker.fault(`from ${source}: ${it}`); }
  }
  // Open ones that did not come were not accepted.
  const last = mailed()?.next ?? 0;
  const settlement = {
    accepted: left + Math.min(sent, last) - missing.length,
    came: s.kept.came(context) + last - missing.length,
  };
  s.kept.peers.delete(place);
  s.asker.gone.add(context);
  ledger.detach();
  return settlement;
}

/** What waits for a client that does not read: what nobody needs to hear any more is not kept. */

import { assertEquals } from "@std/assert";
import type { Message } from "../src/fabric/protocol.ts";
import { NoticeQueue } from "../src/fabric/local/notice_queue.ts";

const handle = { context: 16, resource: 2000 };
const type = "DATAGRAM";
const reply = { id: 1, result: {} };

/** A queue with enough in it that not all is kept. */
function queueOf(...messages: Message[]): NoticeQueue {
  const queue = new NoticeQueue();
  const push = (message: Message) => queue.push({ message, descriptors: [], notify: true });
  for (let i = 0; i < 64; i++) push(reply);
  messages.forEach(push);
  for (let i = 0; i < 64; i++) queue.shift();
  return queue;
}

function left(queue: NoticeQueue): Message[] {
  const all: Message[] = [];
  for (let first = queue.first(); first !== undefined; first = queue.first()) {
    all.push(first.message);
    queue.shift();
  }
  queue.shift();
  assertEquals([queue.length, queue.descriptors, [...queue]], [0, 0, []]);
  return all;
}

const peer = (attached: boolean, context = 16) => ({ notice: "region_peer", handle, context, attached });
const name = (change: string, ...names: string[]) => ({
  notice: "name",
  watch: 1,
  change,
  entries: names.map((name) => ({ name, handle, type })),
});
const context = (what: string, context = 16) => ({ notice: `context_${what}`, context });

Deno.test("notice queue: who came and went again was never there, who went and came again is told so", () => {
  assertEquals(left(queueOf(peer(true), peer(false))), []);
  assertEquals(left(queueOf(peer(false), peer(true))), [peer(false), peer(true)]);
  assertEquals(left(queueOf(peer(true), peer(false, 17))), [peer(true), peer(false, 17)]);
  assertEquals(left(queueOf(name("added", "a"), name("removed", "a"))), []);
  assertEquals(left(queueOf(name("removed", "a"), name("added", "a"))), [name("removed", "a"), name("added", "a")]);
});

Deno.test("notice queue: that a context went is told, whether or not that it was there, and once", () => {
  const [came, went] = [context("added"), context("removed")];
  assertEquals(left(queueOf(came, went)), [went]);
  assertEquals(left(queueOf(went, came)), [went, came]);
  assertEquals(left(queueOf(went, came, went)), [went]);
  assertEquals(left(queueOf(came, context("removed", 17), went, came)), [context("removed", 17), went, came]);
});

Deno.test("notice queue: as long as little waits everything is kept", () => {
  const queue = new NoticeQueue();
  const all = Array.from({ length: 32 }, () => [peer(true), peer(false)]).flat();
  for (const message of all) queue.push({ message, descriptors: [], notify: true });
  for (const message of [peer(true), peer(false)]) queue.push({ message, descriptors: [], notify: true });
  assertEquals(left(queue), all);
});

Deno.test("notice queue: pages of names, replies and what brings descriptors are kept as they are", () => {
  const page = name("added", "a", "b");
  assertEquals(left(queueOf(page, page, name("added"))), [page, page, name("added")]);
  assertEquals(left(queueOf(reply, reply)), [reply, reply]);
  const queue = new NoticeQueue();
  const lane = { notice: "lane", lane: 1 };
  queue.push({ message: peer(true), descriptors: [7], notify: true });
  queue.push({ message: lane, descriptors: [8, 9], notify: true });
  assertEquals([queue.length, queue.descriptors], [2, 3]);
  assertEquals(left(queue), [peer(true), lane]);
});

Deno.test("notice queue: of what is to be kept the last word counts, in its place", () => {
  const grant = (states: unknown) => ({ notice: "keep_grant", type, handle, entry: { client: handle, states } });
  const named = (present: boolean) => ({ notice: "keep_name", type, handle, name: "a", present });
  const member = (present: boolean) => ({ notice: "keep_member", handle, member: { context: 17 }, present });
  const peers = (...contexts: number[]) => ({ notice: "region_peers", handle, contexts });
  const other = { notice: "peer_gone", peer: 3 };
  const pairs = [[grant({ DG_SEND: "ALLOW" }), grant({})], [named(true), named(false)], [member(true), member(false)], [
    peers(16),
    peers(),
  ]] as const;
  for (const [older, newer] of pairs) assertEquals(left(queueOf(older, other, newer)), [other, newer]);
  // One that was sent already is not taken back.
  const queue = queueOf(named(true));
  queue.shift();
  queue.push({ message: named(false), descriptors: [], notify: true });
  assertEquals(left(queue), [named(false)]);
});

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
  const watcher = { notice: "watcher", handle, peer: 4 };
  const went = { notice: "peer_gone", peer: 5 };
  const pairs = [
    [grant({ DG_SEND: "ALLOW" }), grant({})],
    [member(true), member(false)],
    [peers(16), peers()],
    [watcher, watcher],
    [went, went],
  ] as const;
  for (const [older, newer] of pairs) assertEquals(left(queueOf(older, other, newer)), [other, newer]);
  // A name that was given and taken again is as if it had never been; taken and given again it is another one.
  const [given, taken] = [named(true), named(false)];
  assertEquals(left(queueOf(given, other, taken)), [other]);
  assertEquals(left(queueOf(taken, other, given)), [taken, other, given]);
  assertEquals(left(queueOf(taken, given, other, taken)), [taken, other]);
  assertEquals(left(queueOf(given, taken, other, given)), [other, given]);
  // One that was sent already is not taken back.
  const queue = queueOf(named(true));
  queue.shift();
  queue.push({ message: named(false), descriptors: [], notify: true });
  assertEquals(left(queue), [named(false)]);
});

Deno.test("notice queue: however two of one context come and go, one packet says how many came and one how many went", () => {
  const cycle = [peer(true), peer(true), peer(false), peer(false)];
  const cycles = Array.from({ length: 1000 }, () => cycle).flat();
  assertEquals(left(queueOf(...cycles)), []);
  assertEquals(left(queueOf(...cycles, peer(true))), [peer(true)]);
  const twice = (attached: boolean) => ({ ...peer(attached), times: 2 });
  // Two that were there go, and two others come and go in their place.
  assertEquals(left(queueOf(peer(false), peer(false), ...cycles, peer(true), peer(true))), [twice(false), twice(true)]);
  assertEquals(left(queueOf(peer(true), peer(false), peer(false), peer(true))), [peer(false), peer(true)]);
  // Who is attached is said once more: what was said before is not taken back by what comes after.
  const peers = { notice: "region_peers", handle, contexts: [16] };
  assertEquals(left(queueOf(peer(true), peers, peer(false))), [peer(true), peers, peer(false)]);
});

Deno.test("notice queue: of names that come and go so many wait, and in place of more that they were missed", () => {
  const missed = { notice: "names_missed" };
  const other = { notice: "peer_gone", peer: 3 };
  let named = 0;
  const names = (count: number) => Array.from({ length: count }, () => name("added", `${named++}`));
  const few = names(1024);
  assertEquals(left(queueOf(...few)), few);
  const others = [reply, other, { notice: "peer_gone", peer: 4 }] as const;
  const [first, second, third] = others;
  assertEquals(left(queueOf(first, ...names(1024), second, ...names(5000), third)), [first, missed, second, third]);
  assertEquals(left(queueOf(name("removed", "a"), ...names(1024), name("added", "a", "b"))), [missed]);
  for (const change of ["removed", "added"]) {
    const again = Array.from({ length: 1000 }, () => [name("removed", "a"), name("added", "a")]).flat();
    const all = change === "added" ? again : [...again, name("removed", "a")];
    assertEquals(left(queueOf(...all)), all.slice(0, change === "added" ? 2 : 1));
  }
  // Once that is told, what comes then is told again.
  const queue = queueOf(...names(1025));
  const push = (message: Message) => queue.push({ message, descriptors: [], notify: true });
  push(name("added", "b"));
  assertEquals([queue.first()?.message, queue.length], [missed, 1]);
  queue.shift();
  push(name("removed", "b"));
  assertEquals(left(queue), [name("removed", "b")]);
});

Deno.test("notice queue: of contexts that come and go so many wait, and in place of more that they were missed", () => {
  const missed = { notice: "contexts_missed" };
  let contexts = 16;
  const some = (count: number) =>
    Array.from({ length: count }, () => [context("added", contexts), context("removed", contexts++)]).flat();
  assertEquals(left(queueOf(...some(1024))).length, 1024);
  assertEquals(left(queueOf(reply, ...some(1025), name("added", "a"))), [reply, missed, name("added", "a")]);
  const queue = queueOf(...some(5000));
  assertEquals([queue.length, queue.caused], [1, 0]);
  queue.shift();
  queue.push({ message: context("removed"), descriptors: [], notify: true });
  assertEquals(left(queue), [context("removed")]);
});

Deno.test("notice queue: what is taken from who does not read counts for nothing, if he has heard that he had it", () => {
  const grant = (context: number, states: unknown) => (
    { notice: "keep_grant", type, handle, entry: { client: { context, resource: 0 }, states } }
  );
  const member = (context: number, present: boolean) => ({
    notice: "keep_member",
    handle,
    member: { context },
    present,
  });
  const taken = [grant(16, {}), member(16, false)];
  const queue = queueOf(...taken);
  assertEquals([queue.length, queue.caused], [2, 0]);
  // Others cannot give him without end what they take again.
  const cycle = [grant(17, { DG_SEND: "ALLOW" }), grant(17, {}), member(17, true), member(17, false)];
  const pumped = queueOf(...taken, ...cycle, ...cycle);
  assertEquals([pumped.length, pumped.caused], [4, 2]);
  while (pumped.length > 0) pumped.shift();
  assertEquals(pumped.caused, 0);
});

Deno.test("notice queue: what others cause counts for nothing against who does not read", () => {
  const caused = [{ notice: "ping", client: 1, token: 2 }, { notice: "settled" }, { notice: "peer", peer: 5 }];
  const bounded = [context("added"), name("added", "a"), name("added", "b", "c"), peer(true), peer(false, 17)];
  const queue = queueOf(...caused, reply, ...bounded);
  assertEquals([queue.length, queue.caused], [9, 4]);
  for (const peer of [1, 2]) queue.push({ message: { notice: "peer_gone", peer }, descriptors: [], notify: true });
  for (let i = 0; i < 1025; i++) queue.push({ message: name("added", `${i}`), descriptors: [], notify: true });
  assertEquals([queue.length, queue.caused], [10, 4]);
  const bytes = [...caused, reply].map((it) => JSON.stringify(it).length).reduce((sum, it) => sum + it);
  assertEquals(queue.causedBytes, bytes);
  while (queue.length > 0) queue.shift();
  assertEquals([queue.caused, queue.causedBytes], [0, 0]);
});

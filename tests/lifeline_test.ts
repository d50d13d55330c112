/** What a daemon's process tells its broker's thread, when that does not answer as it should. The test is the thread. */

import { assertEquals, assertMatch } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { readText } from "../ffi/file.ts";
import { PacketSocket, seqpacketPair } from "../ffi/unix_socket.ts";
import { Lifeline } from "../src/fabric/local/lifeline.ts";
import { decodeMessage, encodeMessage } from "../src/fabric/local/packet_codec.ts";
import { test, withFailures, withSymbol } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";
import { TestClock } from "./support/test_clock.ts";

const EAGAIN = 11;
const EMFILE = 24;
const ENOSPC = 28;

const POLICY = { text: "allow any context 16\n", name: "the policy" };

/** A lifeline, and the end of its thread. */
function connected(act: (lifeline: Lifeline, thread: PacketSocket) => void): void {
  const [mine, theirs] = seqpacketPair();
  const lifeline = new Lifeline(mine);
  act(lifeline, new PacketSocket(theirs));
  lifeline.close();
  closeDescriptor(theirs);
}

function reply(thread: PacketSocket, message: Record<string, unknown>): void {
  assertEquals(thread.send(encodeMessage(message)), true);
}

/** The policy in the next request, by the request's id. */
function requested(thread: PacketSocket): [unknown, unknown] {
  const { bytes, descriptors } = thread.receive()!;
  const text = readText(`/proc/self/fd/${descriptors[0]}`, 1 << 16);
  descriptors.forEach(closeDescriptor);
  return [decodeMessage(bytes)!.id, JSON.parse(text)];
}

/** Lets the thread's time pass at the first look at the clock after it began. */
function late<T>(act: () => T): T {
  using _clock = new TestClock(10_000);
  return act();
}

test("lifeline: a reply that comes too late is not taken for that to the next request", () =>
  connected((lifeline, thread) => {
    // It is there already when the next request waits.
    reply(thread, { id: 0, result: {} });
    const { reason } = late(() => failsSync("UNAVAILABLE", () => lifeline.setPolicy(POLICY)));
    assertMatch(reason, /does not answer: it may take this policy later/);
    assertEquals(requested(thread), [1, POLICY]);
    reply(thread, { id: 1, result: {} });
    reply(thread, { id: 2, error: { code: "NO_MEM", reason: "there is no room" } });
    const refused = failsSync("NO_MEM", () => lifeline.setPolicy(POLICY), { operation: "set the policy" });
    assertEquals(refused.reason, "there is no room");
    reply(thread, { id: 3, result: {} });
    lifeline.setPolicy(POLICY);
    requested(thread);
    assertEquals(requested(thread), [3, POLICY]);
  }));

test("lifeline: whatever fails, it is said as a failure of the SDK's, and nothing is left open", () => {
  connected((lifeline, thread) => {
    const setPolicy = () => lifeline.setPolicy(POLICY);
    failsSync("NO_RESOURCES", () => withFailures("memfd_create", EMFILE, 1, setPolicy));
    failsSync("NO_MEM", () => withFailures("pwrite", ENOSPC, 1, setPolicy));
    // Not sent, so nothing is waited for.
    reply(thread, { id: 3, result: {} });
    const { reason } = failsSync("UNAVAILABLE", () => withFailures("sendmsg", EAGAIN, 1, setPolicy));
    assertMatch(reason, /takes nothing now: try again/);
    assertEquals(thread.receive(), undefined);
  });
  const [mine, theirs] = seqpacketPair();
  const lifeline = new Lifeline(mine);
  closeDescriptor(theirs);
  assertMatch(failsSync("UNAVAILABLE", () => lifeline.setPolicy(POLICY)).reason, /EPIPE/);
  lifeline.close();
});

test("lifeline: a thread that ends without an answer is not waited for", () => {
  const [mine, theirs] = seqpacketPair();
  const lifeline = new Lifeline(mine);
  const { reason } = withSymbol("poll", (call) => (...args) => {
    closeDescriptor(theirs);
    return call(...args);
  }, () => failsSync("UNAVAILABLE", () => lifeline.setPolicy(POLICY)));
  assertMatch(reason, /has ended: start the daemon again/);
  lifeline.close();
});

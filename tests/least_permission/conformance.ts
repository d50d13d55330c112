/**
 * The conformance suite where the test's own process may call the C library and use no raw pointers, and the other one
 * may. `deno test` is started on this file by `tests/least_permission_test.ts`.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import "../ffi/support.ts";
import { datagrams } from "../conformance/datagrams.ts";
import { facets } from "../conformance/facets.ts";
import { sharedMemory } from "../conformance/shared_memory.ts";
import { conformance } from "../conformance/suite.ts";
import { oneProcess, twoProcesses } from "../support/media.ts";
import { Agent } from "../support/remote.ts";

const agent = new Agent();
Deno.test.afterAll(() => agent[Symbol.asyncDispose]());

Deno.test("raw pointers are refused here", () => {
  assertThrows(() => Deno.UnsafePointer.of(new Uint8Array(1)), Deno.errors.NotCapable);
});

// Access control and discovery are control messages, which are sent without pointers anyway.
const { access: _access, discovery: _discovery, ...others } = facets;
conformance(oneProcess, others);
conformance(twoProcesses(agent, "the other with raw pointers"), { datagrams, "shared memory": sharedMemory });

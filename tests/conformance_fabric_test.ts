/** The conformance suite on the fabric of this machine: in one process, and between two. */

import "./ffi/support.ts";
import { conformance } from "./conformance/suite.ts";
import { facets } from "./conformance/facets.ts";
import { oneProcess, twoProcesses } from "./support/media.ts";
import { Agent } from "./support/remote.ts";

const agent = new Agent();
Deno.test.afterAll(() => agent[Symbol.asyncDispose]());

conformance(oneProcess, facets);
conformance(twoProcesses(agent), facets);

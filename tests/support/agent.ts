/**
 * The second party of a conformance test, in a process of its own. It ends with its input, so it never outlives the test.
 *
 *     deno run --allow-ffi tests/support/agent.ts
 *
 * @module
 */

import { serveAgent } from "./agent_serving.ts";
import { Scenes } from "./scenes.ts";

await serveAgent(new Scenes());

/**
 * One party of a measurement, in a process of its own.
 *
 *     party.ts FILE PART JOB    the part of parts/FILE.ts, and what it is told, as JSON
 *
 * @module
 */

import type { Job, Part } from "./parts/part.ts";

const [file, part, job] = Deno.args;
const parts = await import(`./parts/${file}.ts`) as Record<string, Part>;
await parts[part!]!(JSON.parse(job!) as Job);
Deno.exit(0);

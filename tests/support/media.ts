/**
 * The media that the conformance suite runs on.
 *
 * @module
 */

import { rawPointers } from "../../ffi/libc.ts";
import type { Vmci } from "../../mod.ts";
import type { Fabric, JoinOptions, MediumUnderTest, Party } from "../conformance/suite.ts";
import { Agent, type Remote } from "./remote.ts";
import { openKept, Scenes } from "./scenes.ts";

let memories = 0;

/** Everything in one thread. */
export const memory: MediumUnderTest = {
  name: "memory",
  concurrent: false,
  enforcesReaders: false,
  transfersBuffers: true,
  processes: false,
  many: 400,
  create: () => Promise.resolve(new TestFabric(`memory:conformance ${++memories}`)),
};

/** The fabric of one machine, with both parties in this process; whoever waits parks at once. */
export const oneProcess: MediumUnderTest = {
  name: "fabric, one process",
  concurrent: true,
  enforcesReaders: true,
  transfersBuffers: rawPointers(),
  processes: false,
  many: 400,
  create: async () => new TestFabric(await makeRunDirectory(), { spin: 0 }),
};

/** The fabric of one machine, with the second party in another process. */
export function twoProcesses(agent: Agent, name = "fabric, two processes"): MediumUnderTest {
  return {
    ...oneProcess,
    name,
    processes: true,
    create: async () => new TestFabric(await makeRunDirectory(), {}, agent),
  };
}

/** A directory such as a fabric needs. */
export async function makeRunDirectory(): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "vmci-" });
  await Deno.chmod(directory, 0o700);
  return directory;
}

class TestFabric implements Fabric {
  readonly device: string;
  readonly scenes: Remote<Scenes>;
  readonly #common: JoinOptions;
  readonly #opened: Vmci[] = [];
  readonly #spawned: Agent[] = [];

  constructor(device: string, common: JoinOptions = {}, agent?: Agent) {
    this.device = device;
    this.#common = common;
    // What is here has the shape of what is elsewhere: its results can be awaited too.
    this.scenes = agent?.scenes ?? new Scenes() as unknown as Remote<Scenes>;
  }

  async open(options?: JoinOptions): Promise<Vmci> {
    const vmci = await openKept({ ...this.#common, ...options, device: this.device });
    this.#opened.push(vmci);
    return vmci;
  }

  join(options?: JoinOptions): Promise<Party> {
    return this.scenes.open({ ...this.#common, ...options, device: this.device });
  }

  spawn(): Agent {
    const agent = new Agent();
    this.#spawned.push(agent);
    return agent;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#spawned.reverse()) await agent[Symbol.asyncDispose]();
    await this.scenes.leaveAll();
    for (const vmci of this.#opened.reverse()) await vmci[Symbol.asyncDispose]();
    if (!this.device.startsWith("memory:")) await Deno.remove(this.device, { recursive: true });
  }
}

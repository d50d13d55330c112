/** The host's sockets and contexts of the driver as a medium of the conformance suite. */

import type { Fabric, JoinOptions, MediumUnderTest, Party } from "../../../conformance/suite.ts";
import type { Agent, Remote } from "../../../support/remote.ts";
import { openKept, Scenes } from "../../../support/scenes.ts";
import { HOST_CONTEXT, type Vmci } from "@vmci/vmci";
import { NAMES } from "./names.ts";

/** The medium: the host through `vsock:`, virtual machines through `/dev/vmci`, all in this process. */
export function devices(reliable: boolean): MediumUnderTest {
  return {
    name: reliable ? "devices, reliable" : "devices",
    concurrent: true,
    enforcesReaders: false,
    transfersBuffers: true,
    processes: false,
    many: 400,
    create: () => Promise.resolve(new DeviceFabric(reliable ? `${NAMES},reliable` : NAMES)),
  };
}

class DeviceFabric implements Fabric {
  readonly device: string;
  readonly scenes: Remote<Scenes>;
  readonly #options: string;
  readonly #opened: Vmci[] = [];
  readonly #scenes = new Scenes();

  constructor(options: string) {
    this.#options = options;
    this.device = `vsock:${options}`;
    // What is here has the shape of what is elsewhere: its results can be awaited too.
    this.scenes = this.#scenes as unknown as Remote<Scenes>;
  }

  async open(options?: JoinOptions): Promise<Vmci> {
    const vmci = await openKept(this.#where(options));
    this.#opened.push(vmci);
    return vmci;
  }

  join(options?: JoinOptions): Promise<Party> {
    return this.scenes.open(this.#where(options));
  }

  spawn(): Agent {
    throw new Error("all parties are in this process");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.scenes.leaveAll();
    for (const vmci of this.#opened.reverse()) await vmci[Symbol.asyncDispose]();
  }

  #where(options: JoinOptions = {}): JoinOptions & { readonly device: string } {
    const isHost = options.contextId === undefined || options.contextId === HOST_CONTEXT;
    return { ...options, device: isHost ? this.device : `/dev/vmci,${this.#options}` };
  }
}

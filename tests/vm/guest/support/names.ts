/** The discovery service, in a process of its own: who asks it does not turn the event loop meanwhile. */

import { inGuest } from "./guest.ts";

const PORT = 90000;

/** What a device's name says of it. */
export const NAMES: string = `ds=2:${PORT}`;

/** A service on a port. */
export class NameService implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#reader = child.stdout.getReader();
  }

  /** Starts it; it answers when this is done. */
  static async start(port: number): Promise<NameService> {
    const args = ["run", "-A", "--no-check", "--no-lock", "--cached-only", "cli.ts", "ds", "serve", "--json"];
    const service = new NameService(
      new Deno.Command(Deno.execPath(), { args: [...args, "--port", `${port}`], cwd: "/app", stdout: "piped" }).spawn(),
    );
    const { value } = await service.#reader.read();
    if (value === undefined) throw new Error("the discovery service has not started");
    return service;
  }

  /** Ends it as a crash would. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    const { success } = await this.#end();
    if (!success) throw new Error("the discovery service ended badly");
  }

  async #end(): Promise<Deno.CommandStatus> {
    const status = await this.#child.status;
    await this.#reader.cancel();
    return status;
  }
}

/** Starts the service for all tests of the file that imports this. */
export async function serveNames(): Promise<void> {
  if (!inGuest) return;
  const service = await NameService.start(PORT);
  Deno.test.afterAll(() => service[Symbol.asyncDispose]());
}

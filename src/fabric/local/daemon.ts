/**
 * The broker as a daemon: the same thread as an embedded broker's, which lives until it is told to end. It serves a run
 * directory, or a socket anywhere, and sockets that each stand for one context.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import type { ContextId } from "../../handle.ts";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { raiseResourceLimit, ResourceLimit } from "../../../ffi/resource_limit.ts";
import { seqpacketPair } from "../../../ffi/unix_socket.ts";
import { Policy } from "../policy.ts";
import type { Quota } from "../quota.ts";
import { BrokerHost } from "./broker_host.ts";
import type { PolicyText } from "./broker_thread_config.ts";
import { Lifeline } from "./lifeline.ts";
import { RunDirectory } from "./run_directory.ts";
import { ServedSocket } from "./served_socket.ts";
import { asVmciError } from "./system_failure.ts";

/** What a daemon serves. */
export interface DaemonOptions {
  /** The run directory; `undefined` for this user's own. */
  readonly directory: string | undefined;
  /** A socket to be served instead of the directory. */
  readonly socket: string | undefined;
  /** Sockets that give whoever connects there a context. */
  readonly contexts: readonly { readonly context: ContextId; readonly path: string }[];
  /** What each may hold. */
  readonly quota: Quota;
  /** Who may be what; without it, this user only, and whoever can reach the context's sockets. */
  readonly policy: PolicyText | undefined;
  /** The file that opens, grants and denials are appended to. */
  readonly audit: string | undefined;
}

/** Where a daemon listens. */
export interface ListeningAt {
  /** The socket. */
  readonly path: string;
  /** The context of whoever connects there; `undefined` where the daemon's own user may choose. */
  readonly context: ContextId | undefined;
}

/** A daemon that runs in this process. */
export class FabricDaemon implements AsyncDisposable {
  /** Where it listens. */
  readonly listening: readonly ListeningAt[];
  /** When its thread has ended: told to, or failed. */
  readonly ended: Promise<void>;
  readonly #sockets: readonly ServedSocket[];
  /** The connection that the thread lives as long as. */
  #lifeline: Lifeline | undefined;

  private constructor(
    listening: readonly ListeningAt[],
    sockets: readonly ServedSocket[],
    lifeline: Lifeline,
    ended: Promise<void>,
  ) {
    this.listening = listening;
    this.#sockets = sockets;
    this.#lifeline = lifeline;
    this.ended = ended;
  }

  /**
   * Starts a daemon.
   *
   * @param options What it serves.
   * @returns The daemon, once it listens everywhere.
   * @throws {VmciError} ALREADY_EXISTS when a broker runs there, or something else is where a socket should be;
   * UNAVAILABLE and NO_ACCESS as the system says.
   */
  static async start(options: DaemonOptions): Promise<FabricDaemon> {
    try {
      return await FabricDaemon.#start(options);
    } catch (error) {
      throw asVmciError(error, "serve the fabric");
    }
  }

  static async #start(options: DaemonOptions): Promise<FabricDaemon> {
    const { directory, socket, contexts, quota, policy, audit } = options;
    if (policy !== undefined) Policy.parse(policy.text, policy.name);
    // It holds descriptors for many.
    raiseResourceLimit(ResourceLimit.NOFILE);
    using undo = new DisposableStack();
    const run = socket === undefined ? openDirectory(directory) : undefined;
    const state = run ?? RunDirectory.make(`${socket}.state`);
    const lock = undo.adopt(takeLock(state, socket ?? state.socket), closeDescriptor);
    const wanted: ListeningAt[] = socket === undefined
      ? [...contexts]
      : [{ path: socket, context: undefined }, ...contexts];
    const sockets = wanted.map(({ path }) => undo.adopt(ServedSocket.listen(path), (it) => it.abandon()));
    const [lifeline, connection] = seqpacketPair();
    // From here on the lock, the sockets and the connection are the thread's.
    undo.move();
    const host = BrokerHost.start({
      kind: "daemon",
      spins: true,
      directory: run?.path,
      lock,
      sockets: wanted.map(({ context }, i) => ({ descriptor: sockets[i]!.descriptor, context })),
      connection,
      quota,
      state: state.path,
      policy,
      audit,
    });
    host.keepAlive();
    const listening = run === undefined ? wanted : [{ path: run.socket, context: undefined }, ...wanted];
    const daemon = new FabricDaemon(listening, sockets, new Lifeline(lifeline), host.ended);
    const serves = await Promise.race([host.serving.then(() => true), host.ended.then(() => false)]);
    if (serves) return daemon;
    await daemon.close();
    throw new VmciError("UNAVAILABLE", {
      operation: "serve the fabric",
      reason: "the broker's thread failed; the reason was printed above",
    });
  }

  /**
   * Puts another policy in force. It holds for whoever comes from now on, and its flags and quotas at once for all; no
   * client is lost.
   *
   * @param policy The policy.
   * @throws {VmciError} INVALID_ARGS with the line that is wrong, NO_MEM and NO_RESOURCES when the system has nothing to
   * hand it over in; then the one before stays in force. UNAVAILABLE when the thread does not answer, and may take it
   * later.
   */
  setPolicy(policy: PolicyText): void {
    Policy.parse(policy.text, policy.name);
    this.#lifeline?.setPolicy(policy);
  }

  /**
   * Ends it, and waits until its thread has ended and its sockets are removed. What its clients have in memory goes on
   * working among them; those of a run directory find another broker.
   */
  async close(): Promise<void> {
    if (this.#lifeline !== undefined) {
      // While the lock is held: nobody else's sockets can be there yet.
      for (const socket of this.#sockets) socket.remove();
      this.#lifeline.close();
    }
    this.#lifeline = undefined;
    await this.ended;
  }

  /** As {@linkcode FabricDaemon.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function openDirectory(path: string | undefined): RunDirectory {
  return path === undefined ? RunDirectory.ofUser() : new RunDirectory(path);
}

/** Takes the lock of a daemon's state; `socket` is where whoever has it should listen. */
function takeLock(state: RunDirectory, socket: string): number {
  const lock = state.tryLock();
  if (lock !== undefined) return lock;
  const pid = ServedSocket.listenerAt(socket);
  throw new VmciError("ALREADY_EXISTS", {
    operation: "serve the fabric",
    reason: pid === undefined
      ? `another process is just starting or ending to serve ${socket}: try again`
      : `process ${pid} serves ${socket} already: end it first, or serve another place`,
  });
}

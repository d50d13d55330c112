/**
 * Joining a fabric, and what a program then has.
 *
 * @module
 */

import { AccessControl } from "./access.ts";
import { Datagrams } from "./datagrams.ts";
import { openDevice } from "./device.ts";
import { DeviceMedium } from "./device/device_medium.ts";
import { Discovery } from "./discovery.ts";
import { VmciError } from "./error.ts";
import type { VmciEvent } from "./event.ts";
import { EventQueue } from "./event_queue.ts";
import { type ContextId, isId } from "./handle.ts";
import { PrivilegeFlags } from "./privilege.ts";
import { Session } from "./fabric/session.ts";
import { SharedMemory } from "./shared_memory.ts";
import { failureOf } from "./subject.ts";

/** How a program joins. */
export interface OpenOptions {
  /**
   * Where to: nothing for this user's fabric on this machine (or what the environment variable `VMCI_FABRIC` says), the
   * path of another fabric's directory or of a daemon's socket (with or without `fabric:` before it), `memory:NAME` for
   * one within this process; or a real device, for datagrams: `vsock:` for the sockets of the host or of a virtual
   * machine, `/dev/vmci` to be a context of the driver. After these come options with commas between them: `reliable`,
   * so that nothing is lost between programs that both say so; `ds=CID:PORT`, where the discovery service is; and for
   * `vsock:`, `buffer=BYTES` that the kernel keeps for each endpoint.
   */
  readonly device?: string | undefined;
  /**
   * Which context this program is in: 2, the host, or a virtual machine's, 16 and up. Without it, what the environment
   * variable `VMCI_CID` says, or what the socket it comes through is bound to, or the host.
   */
  readonly contextId?: ContextId | undefined;
  /** Coarse flags of the context, of {@linkcode PrivilegeFlags}; the first process in a context sets them. */
  readonly privilegeFlags?: number | undefined;
  /** Ends the wait for a fabric that is just starting; `openVmci` then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds that any call to the broker may take before it is UNAVAILABLE; 5000 without it. */
  readonly timeout?: number | undefined;
  /** Microseconds that a wait may spin before it sleeps; 20 without it, 0 turns spinning off. */
  readonly spin?: number | undefined;
}

/** The version of the VMCI API, as `major << 16 | minor`: 1.0. */
const API_VERSION = 0x10000;

/**
 * A program's membership in a fabric, with the SDK's four APIs. Get one from {@linkcode openVmci}.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * await using vmci = await openVmci({ device: "memory:", contextId: 16 });
 * assertEquals(vmci.contextId, 16);
 * ```
 */
export class Vmci implements Disposable, AsyncDisposable {
  /** Messages between handles. */
  readonly datagrams: Datagrams;
  /** Memory that several processes have at once. */
  readonly sharedMemory: SharedMemory;
  /** Who may do what. */
  readonly access: AccessControl;
  /** Names for handles. */
  readonly discovery: Discovery;
  /** The version of the VMCI API, as `major << 16 | minor`: 0x10000. */
  readonly version: number = API_VERSION;
  readonly #session: Session;
  readonly #queues = new Set<EventQueue<VmciEvent>>();
  /** The contexts there are, once somebody wants events. */
  #contexts: Set<ContextId> | undefined;
  /** How often contexts that came and went were missed since was looked which there are. */
  #missed = 0;
  /** How many brokers came after the first one, and whether the last of them knows all who lived under the one before. */
  #brokers = 0;
  #settled = true;

  /** @ignore Use {@linkcode openVmci}. */
  constructor(session: Session) {
    this.#session = session;
    const emit = (event: VmciEvent) => this.#emit(event);
    this.datagrams = new Datagrams(session, emit);
    this.sharedMemory = new SharedMemory(session, emit);
    this.access = new AccessControl(session);
    this.discovery = new Discovery(session);
    const { medium } = session;
    if (medium instanceof DeviceMedium) medium.onEvent = emit;
    session.onRecovered((pid, lost) => emit({ type: "broker-changed", pid, lost }));
    session.on("context_added", ({ context }) => this.#contexts?.add(context));
    session.on("context_removed", ({ context }) => this.#contextRemoved(context));
    session.on("contexts_missed", () => {
      // Not while what the broker said is handled: what it says meanwhile comes before its answer.
      if (this.#missed++ === 0) queueMicrotask(() => this.#lookAgain());
    });
    session.on("settled", ({ contexts }) => {
      this.#settled = true;
      this.#contextsAre(contexts);
    });
    session.onAnnounce(() => {
      this.#brokers++;
      this.#settled = false;
      if (this.#contexts !== undefined) session.request({ operation: "announce" }, "subscribe", {});
    });
    session.on("region_peer", ({ handle, context, attached, times = 1 }) => {
      for (let time = 0; time < times; time++) {
        emit({ type: attached ? "peer-attached" : "peer-detached", handle, context });
      }
    });
  }

  /**
   * The context this program is in.
   *
   * @returns 2 for the host, 16 and up for virtual machines.
   */
  get contextId(): ContextId {
    return this.#session.context;
  }

  /**
   * The device it was opened on.
   *
   * @returns What `openVmci` would take to come here again.
   */
  get device(): string {
    return this.#session.medium.device;
  }

  /**
   * Whether it is closed.
   *
   * @returns `true` after {@linkcode Vmci.close}.
   */
  get closed(): boolean {
    return this.#session.closed;
  }

  /**
   * What happens in the fabric and concerns this program, from this call on.
   *
   * @param options `signal` ends the iteration with its reason.
   * @returns The events; the iteration ends when the Vmci is closed.
   * @throws {VmciError} NO_RESOURCES while iterating, when too many events were not read.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using host = await openVmci({ device: "memory:" });
   * const guest = await openVmci({ device: "memory:", contextId: 16 });
   * const events = host.events();
   * guest.close();
   * const { value } = await events.next();
   * assertEquals(value, { type: "context-removed", context: 16 });
   * ```
   */
  events(options?: { readonly signal?: AbortSignal }): AsyncIterableIterator<VmciEvent> {
    const operation = "events";
    this.#session.assertOpen(operation);
    // What happened before is not told.
    this.#session.refresh();
    const queue = new EventQueue<VmciEvent>(this.#session, operation);
    this.#contexts ??= new Set(this.#session.request({ operation }, "subscribe", {}).result.contexts);
    this.#queues.add(queue);
    return queue.read(options, () => this.#queues.delete(queue));
  }

  /**
   * Leaves the fabric (`VMCI_CleanupApp`). Everything this program made in it goes: handles, names, grants, attachments;
   * pending waits end with INVALID_RESOURCE. Closing again does nothing.
   */
  close(): void {
    void this.#session.close();
  }

  /** As {@linkcode Vmci.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * As {@linkcode Vmci.close}. If this process held the broker and was the last in the fabric, it also waits until the
   * broker's thread has ended.
   *
   * @returns When all is given back.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.close();
  }

  /** Takes in which contexts there are. Those that went while nobody was the broker are missed then, and told. */
  #contextsAre(contexts: readonly ContextId[]): void {
    if (this.#contexts === undefined) return;
    for (const context of [...this.#contexts]) {
      if (!contexts.includes(context)) this.#contextRemoved(context);
    }
    this.#contexts = new Set(contexts);
  }

  #contextRemoved(context: ContextId): void {
    this.#contexts?.delete(context);
    this.#emit({ type: "context-removed", context });
  }

  /** Contexts were missed: those that went are told. (Of one that came and went meanwhile nothing was known here.) */
  #lookAgain(): void {
    const operation = "events";
    try {
      for (let heard = 0; heard < this.#missed && !this.#session.closed;) {
        heard = this.#missed;
        const [brokers, settled] = [this.#brokers, this.#settled];
        const { contexts } = this.#session.request({ operation }, "subscribe", {}).result;
        // A new broker says so when it knows it.
        if (settled && brokers === this.#brokers) this.#contextsAre(contexts);
      }
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
      const reason = `contexts came and went unseen, and which there are could not be asked: ${error.reason}`;
      for (const queue of this.#queues) queue.fail(new VmciError(error.code, { operation, reason, cause: error }));
    } finally {
      this.#missed = 0;
    }
  }

  #emit(event: VmciEvent): void {
    for (const queue of this.#queues) queue.push(event);
  }
}

/**
 * Joins a fabric (`VMCI_InitApp`). The first program on a fabric starts it; nothing has to be installed or running.
 *
 * @param options Where to, and as whom.
 * @returns The membership; close it, or declare it with `using` or `await using`.
 * @throws {VmciError} UNAVAILABLE when there is no such fabric, its broker has another version or does not answer, or
 * this system has none (see `cause`); NO_ACCESS when it is another user's, or the context is somebody else's;
 * INVALID_ARGS for a reserved context or flags that are not the context's; NO_RESOURCES when a quota is reached. The
 * signal's reason when it was aborted.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * assertEquals(vmci.contextId, 2);
 * ```
 */
export async function openVmci(options: OpenOptions = {}): Promise<Vmci> {
  try {
    return new Vmci(await openSession(options, { start: true, observer: false }));
  } catch (error) {
    throw failureOf({ operation: "openVmci" }, error);
  }
}

/**
 * As {@linkcode openVmci}, for what only looks.
 *
 * @ignore Internal to the library.
 */
export async function openSession(
  options: OpenOptions,
  role: { readonly start: boolean; readonly observer: boolean },
): Promise<Session> {
  const { contextId, privilegeFlags = PrivilegeFlags.NONE, timeout = 5000, spin = 20, signal } = options;
  signal?.throwIfAborted();
  if (contextId !== undefined && !isId(contextId)) {
    throw invalid(`contextId must be an unsigned 32-bit number: received ${contextId}`);
  }
  if (!isId(privilegeFlags)) throw invalid(`privilegeFlags must be of PrivilegeFlags: received ${privilegeFlags}`);
  if (!(timeout > 0 && timeout < 2 ** 31)) throw invalid(`timeout must be milliseconds above 0: received ${timeout}`);
  if (!(spin >= 0 && spin <= 1e6)) throw invalid(`spin must be 0 to 1000000 microseconds: received ${spin}`);
  const { medium, context } = openDevice(options.device, role.start, spin);
  return await Session.open(
    medium,
    { context: contextId ?? context, flags: privilegeFlags, observer: role.observer, timeout, spin },
    signal,
  );
}

function invalid(reason: string): VmciError {
  return new VmciError("INVALID_ARGS", { operation: "openVmci", reason });
}

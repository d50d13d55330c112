/**
 * The discovery service: names for handles.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import { EventQueue } from "./event_queue.ts";
import { type Handle, handlesEqual, isHandle } from "./handle.ts";
import type { WaitOptions } from "./lane/waiters.ts";
import type { ResourceTypeName } from "./privilege.ts";
import { nameFault } from "./fabric/protocol.ts";
import type { Session } from "./fabric/session.ts";

/** One name. */
export interface DiscoveredName {
  /** The name. */
  readonly name: string;
  /** What it stands for. */
  readonly handle: Handle;
  /** What kind of resource that is. */
  readonly type: ResourceTypeName;
}

/** A name that came or went. */
export interface NameChange extends DiscoveredName {
  /** Which of the two. */
  readonly change: "added" | "removed";
}

/** One watch: what is there, as far as the broker has said. */
class NameWatch {
  readonly operation: string;
  readonly prefix: string;
  readonly exact: boolean;
  readonly present = new Map<string, DiscoveredName>();
  /** Nobody can say any more what is there. */
  readonly fail: (error: VmciError) => void;
  readonly #tell: (change: NameChange) => void;
  /** While the broker tells again what is there: what it has told so far. */
  #confirmed: Set<string> | undefined;

  constructor(
    operation: string,
    prefix: string,
    exact: boolean,
    tell: (change: NameChange) => void,
    fail: (error: VmciError) => void,
  ) {
    this.operation = operation;
    this.prefix = prefix;
    this.exact = exact;
    this.#tell = tell;
    this.fail = fail;
  }

  apply(change: "added" | "removed", entries: readonly DiscoveredName[]): void {
    for (const entry of entries) {
      if (change === "added") this.#confirmed?.add(entry.name);
      const known = this.present.get(entry.name);
      // Where something was missed it may stand for something else now.
      const same = known !== undefined && handlesEqual(known.handle, entry.handle);
      if (known !== undefined && (change === "removed" || !same)) {
        this.present.delete(entry.name);
        this.#tell({ change: "removed", ...known });
      }
      if (change === "removed" || same) continue;
      this.present.set(entry.name, entry);
      this.#tell({ change, ...entry });
    }
  }

  /** The broker is about to tell again what is there. */
  begin(): void {
    this.#confirmed = new Set();
  }

  /** It has told everything: what it did not name has gone meanwhile. */
  settle(): void {
    const confirmed = this.#confirmed;
    if (confirmed === undefined) return;
    this.#confirmed = undefined;
    this.apply("removed", [...this.present.values()].filter(({ name }) => !confirmed.has(name)));
  }
}

/**
 * The discovery service of one {@linkcode Vmci}: one flat table for the whole fabric. Names are compared byte by byte and
 * have at most 276 bytes of UTF-8. A name goes with its handle.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using host = await openVmci({ device: "memory:" });
 * using guest = await openVmci({ device: "memory:", contextId: 16 });
 * using endpoint = host.datagrams.create();
 * host.discovery.register("HOST INFO", endpoint.handle);
 * assertEquals(guest.discovery.lookup("HOST INFO"), endpoint.handle);
 * ```
 */
export class Discovery {
  readonly #session: Session;
  readonly #watches = new Map<number, NameWatch>();
  #watchNumber = 0;
  /** How often changes were missed, or a new broker came meanwhile, since what is there was looked at. */
  #missed = 0;

  /** @ignore Use {@linkcode openVmci}. */
  constructor(session: Session) {
    this.#session = session;
    session.on("name", ({ watch, change, entries }) => this.#watches.get(watch)?.apply(change, entries));
    session.on("names_missed", () => {
      // Not while what the broker said is handled: what it says meanwhile has its place between the pages of a list.
      if (this.#missed++ === 0) queueMicrotask(() => this.#lookAgain());
    });
    session.on("settled", () => {
      // Some of what the broker told may have been missed.
      if (this.#missed > 0) return;
      for (const watch of this.#watches.values()) watch.settle();
    });
    session.onAnnounce(() => {
      if (this.#missed > 0) this.#missed++;
      for (const [number, watch] of this.#watches) {
        watch.begin();
        this.#watchAgain(number, watch);
      }
    });
  }

  /** A new broker is asked for what the one before told; if it has no room for that, only this watch ends. */
  #watchAgain(number: number, watch: NameWatch): void {
    const { prefix, exact } = watch;
    try {
      this.#session.request({ operation: "announce" }, "watch_names", { watch: number, prefix, exact });
    } catch (error) {
      if (!(error instanceof VmciError) || error.code !== "NO_RESOURCES") throw error;
      this.#watches.delete(number);
      watch.fail(new VmciError(error.code, { operation: watch.operation, reason: error.reason, cause: error }));
    }
  }

  /**
   * Registers a name (`VMCIDs_Register`). First come, first served; a handle may have several names.
   *
   * @param name At most 276 bytes of UTF-8, no NUL.
   * @param handle A resource of this program's context.
   * @throws {VmciError} ALREADY_EXISTS when the name is taken; INVALID_ARGS when it is not a name, or the handle does not
   * exist; NO_ACCESS when the handle is another context's; NO_RESOURCES when the context has its quota.
   *
   * @example
   * ```ts
   * import { openVmci, VmciError } from "@vmci/vmci";
   * import { assertEquals, assertThrows } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * vmci.discovery.register("clock", endpoint.handle);
   * const error = assertThrows(() => vmci.discovery.register("clock", endpoint.handle), VmciError);
   * assertEquals(error.code, "ALREADY_EXISTS");
   * ```
   */
  register(name: string, handle: Handle): void {
    const operation = "discovery.register";
    assertName(operation, name);
    if (!isHandle(handle)) throw new VmciError("INVALID_ARGS", { operation, reason: "that is not a handle" });
    this.#session.request({ operation, handle }, "register", { name, handle, repeated: false });
  }

  /**
   * Looks a name up (`VMCIDs_Lookup`).
   *
   * @param name The name.
   * @returns What it stands for.
   * @throws {VmciError} NOT_FOUND when nothing is registered under it; INVALID_ARGS when it is not a name.
   *
   * @example
   * ```ts
   * import { openVmci, PUBLIC_GROUP_NAME } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * assertEquals(vmci.discovery.lookup(PUBLIC_GROUP_NAME), vmci.access.publicGroup);
   * ```
   */
  lookup(name: string): Handle {
    const operation = "discovery.lookup";
    assertName(operation, name);
    return Object.freeze(this.#session.request({ operation }, "lookup", { name }).result.handle);
  }

  /**
   * Removes a name (`VMCIDs_Unregister`): the context that owns its handle may, and the host.
   *
   * @param name The name.
   * @throws {VmciError} NOT_FOUND when nothing is registered under it; NO_ACCESS when another context did.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * vmci.discovery.register("clock", endpoint.handle);
   * vmci.discovery.unregister("clock");
   * assertEquals(vmci.discovery.list("clock"), []);
   * ```
   */
  unregister(name: string): void {
    const operation = "discovery.unregister";
    assertName(operation, name);
    this.#session.request({ operation }, "unregister", { name });
  }

  /**
   * All names that begin with a prefix, in byte order.
   *
   * @param prefix How they begin; without it, all names.
   * @returns The names.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * for (const name of ["b/2", "b/1", "a"]) vmci.discovery.register(name, endpoint.handle);
   * assertEquals(vmci.discovery.list("b/").map(({ name }) => name), ["b/1", "b/2"]);
   * ```
   */
  list(prefix: string = ""): DiscoveredName[] {
    const operation = "discovery.list";
    assertName(operation, prefix);
    return [...this.#pages(operation, prefix)].flat();
  }

  /**
   * Waits until a name is registered; at once if it is.
   *
   * @param name The name.
   * @param options How the wait may end.
   * @returns What it stands for.
   * @throws {VmciError} TIMEOUT; INVALID_ARGS when it is not a name. The signal's reason when it was aborted.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * setTimeout(() => vmci.discovery.register("late", endpoint.handle));
   * assertEquals(await vmci.discovery.wait("late"), endpoint.handle);
   * ```
   */
  async wait(name: string, options?: WaitOptions): Promise<Handle> {
    const operation = "discovery.wait";
    assertName(operation, name);
    let failure: VmciError | undefined;
    const watch = new NameWatch(operation, name, true, () => {}, (error) => failure = error);
    const number = this.#start(watch);
    try {
      const look = () => {
        if (failure !== undefined) throw failure;
        return watch.present.get(name)?.handle;
      };
      return Object.freeze(await this.#session.wait({ operation }, look, options));
    } finally {
      this.#stop(number);
    }
  }

  /**
   * Names that begin with a prefix as they come and go: first those that are there, as `added`. While this program is
   * busy only so many changes are kept for it; of more it is told how what there is differs from what it knew.
   *
   * @param prefix How they begin; without it, all names.
   * @param options `signal` ends the iteration with its reason.
   * @returns The changes; leaving the loop ends the watch.
   * @throws {VmciError} NO_RESOURCES when too many changes were not read, or this program has its quota of watches;
   * UNAVAILABLE when changes were missed and the broker does not answer what there is now.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using endpoint = vmci.datagrams.create();
   * vmci.discovery.register("sensor/1", endpoint.handle);
   * for await (const { change, name } of vmci.discovery.watch("sensor/")) {
   *   assertEquals([change, name], ["added", "sensor/1"]);
   *   break;
   * }
   * ```
   */
  watch(prefix: string = "", options?: { readonly signal?: AbortSignal }): AsyncIterableIterator<NameChange> {
    const operation = "discovery.watch";
    assertName(operation, prefix);
    const queue = new EventQueue<NameChange>(this.#session, operation);
    const watch = new NameWatch(
      operation,
      prefix,
      false,
      (change) => queue.push(change),
      (error) => queue.fail(error),
    );
    const number = this.#start(watch);
    return queue.read(options, () => this.#stop(number));
  }

  /** The names that begin with a prefix, as the broker lists them. */
  *#pages(operation: string, prefix: string): Iterable<DiscoveredName[]> {
    for (let after: string | null = null;;) {
      const { entries, more }: { entries: DiscoveredName[]; more: boolean } =
        this.#session.request({ operation }, "list", { prefix, after }).result;
      yield entries;
      if (!more) return;
      after = entries.at(-1)!.name;
    }
  }

  /** Changes were missed: each watch is told how what is there differs from what it knows. */
  #lookAgain(): void {
    if (this.#session.closed) return;
    try {
      for (let heard = 0; heard < this.#missed;) {
        heard = this.#missed;
        for (const watch of [...this.#watches.values()]) this.#lookFor(watch);
      }
    } catch (error) {
      if (!(error instanceof VmciError)) throw error;
      for (const { operation, fail } of this.#watches.values()) {
        const reason = `changes were missed, and what is there could not be asked: ${error.reason}`;
        fail(new VmciError(error.code, { operation, reason, cause: error }));
      }
    } finally {
      this.#missed = 0;
    }
    // Who waits for a name looks for it.
    this.#session.self.nudge();
  }

  #lookFor(watch: NameWatch): void {
    const { operation, prefix, exact } = watch;
    watch.begin();
    for (const entries of this.#pages(operation, prefix)) {
      watch.apply("added", exact ? entries.filter(({ name }) => name === prefix) : entries);
      // The name itself is the first of those that begin with it.
      if (exact) break;
    }
    watch.settle();
  }

  #start(watch: NameWatch): number {
    const number = this.#watchNumber++;
    this.#watches.set(number, watch);
    try {
      const { operation, prefix, exact } = watch;
      this.#session.request({ operation }, "watch_names", { watch: number, prefix, exact });
    } catch (error) {
      this.#watches.delete(number);
      throw error;
    }
    return number;
  }

  #stop(number: number): void {
    this.#watches.delete(number);
    if (this.#session.closed) return;
    try {
      this.#session.request({ operation: "discovery.unwatch" }, "unwatch_names", { watch: number });
    } catch (error) {
      // Without a broker nobody watches; the next one will not be asked to.
      if ((error as VmciError).code !== "UNAVAILABLE") throw error;
    }
  }
}

function assertName(operation: string, name: string): void {
  const fault = typeof name === "string" ? nameFault(name) : "must be a text";
  if (fault !== undefined) throw new VmciError("INVALID_ARGS", { operation, reason: `the name ${fault}` });
}

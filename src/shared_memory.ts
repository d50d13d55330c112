/**
 * The shared-memory API: regions that several processes have mapped at once.
 *
 * @module
 */

import { VmciError } from "./error.ts";
import type { VmciEvent } from "./event.ts";
import { type ContextId, formatHandle, type Handle, isHandle } from "./handle.ts";
import { MAX_REGION_SIZE } from "./limits.ts";
import { type Attachment, Region, type RegionOwner } from "./region.ts";
import type { RegionAccess, RegionMemory } from "./fabric/medium.ts";
import type { Requests, Results } from "./fabric/protocol.ts";
import type { Session } from "./fabric/session.ts";
import { type Subject, within } from "./subject.ts";

/** How a region is made. */
export interface CreateRegionOptions {
  /**
   * Who may write: everybody who is attached (the default), or the creator only. Then the kernel refuses it to others,
   * and further attachments of the creating `Vmci` share its one writable mapping.
   */
  readonly writers?: RegionAccess | undefined;
}

/** All attachments of this session to one region. */
interface Attachments {
  readonly size: number;
  readonly creatorOnly: boolean;
  /** What proves to the next broker that this session is attached. */
  readonly ticket: string;
  readonly all: Set<Attachment>;
  /** The creator's memory, which its further attachments share when nobody else may write. */
  readonly shared: RegionMemory | undefined;
  /** Whether this session asked to be rung. */
  watching: boolean;
  /** Whether the creator is gone, as far as this session was told. */
  orphaned: boolean;
}

/**
 * The shared-memory API of one {@linkcode Vmci}.
 *
 * @example
 * ```ts
 * import { openVmci } from "@vmci/vmci";
 * import { assertEquals } from "@std/assert";
 *
 * using vmci = await openVmci({ device: "memory:" });
 * using region = vmci.sharedMemory.create(128);
 * assertEquals(vmci.sharedMemory.query(region.handle), 128);
 * using again = vmci.sharedMemory.attach(region.handle);
 * region.bytes[127] = 9;
 * assertEquals(again.bytes[127], 9);
 * ```
 */
export class SharedMemory {
  readonly #session: Session;
  readonly #emit: (event: VmciEvent) => void;
  readonly #attachments = new Map<string, Attachments>();
  /** Whom to ring when a region changes. The broker may say so before its reply to an attach. */
  readonly #watchers = new Map<string, Set<number>>();
  /** The contexts of the other processes attached to each region, as often as they are. */
  readonly #peers = new Map<string, ContextId[]>();
  readonly #owner: RegionOwner;
  /** What was detached when no broker could be told: one may have been told before that it was attached. */
  readonly #untold = new Map<string, Requests["announce_attachment"]>();
  /** Memory whose every view the program has forgotten, without having detached. */
  readonly #forgotten = new FinalizationRegistry<Attachment>((attachment) => this.#reclaim(attachment));

  /** @ignore Use {@linkcode openVmci}. */
  constructor(session: Session, emit: (event: VmciEvent) => void) {
    this.#session = session;
    this.#emit = emit;
    this.#owner = {
      session,
      detach: (attachment) => this.#detach(attachment),
      watch: (subject) => this.#watch(subject),
      notify: (handle) => this.#notify(handle),
    };
    session.on("watcher", ({ handle, peer }) => {
      const key = formatHandle(handle);
      const watchers = this.#watchers.get(key);
      if (watchers === undefined) this.#watchers.set(key, new Set([peer]));
      else watchers.add(peer);
      // He may have looked before the last change, and that was made before this was heard.
      session.peer(peer)?.nudge();
    });
    session.on("region_peer", ({ handle, context, attached, times = 1 }) => {
      const peers = this.#peers.get(formatHandle(handle));
      for (let time = 0; time < times; time++) {
        if (attached) peers?.push(context);
        else if (peers?.includes(context)) peers.splice(peers.indexOf(context), 1);
      }
    });
    session.on("region_peers", ({ handle, contexts }) => this.#peersAre(handle, contexts));
    session.on("resource_gone", ({ type, handle }) => {
      const attachments = this.#attachments.get(formatHandle(handle));
      // A new broker tells again what the one before may have told.
      if (type !== "SHAREDMEM" || attachments === undefined || attachments.orphaned) return;
      attachments.orphaned = true;
      emit({ type: "resource-gone", resource: type, handle });
    });
    session.onAnnounce(() => this.#announce());
    session.peers.onGone(({ number }) => {
      for (const watchers of this.#watchers.values()) watchers.delete(number);
    });
    session.onClose(() => this.#close());
  }

  /**
   * Makes a region and attaches to it (`VMCISharedMem_Create`). Its memory is zero.
   *
   * @param size Bytes: 1 to 4,294,967,295, and within the context's quota.
   * @param options Who may write.
   * @returns The region.
   * @throws {VmciError} INVALID_SIZE when the size is not possible; NO_MEM when there is no such memory; NO_RESOURCES
   * when the context has its quota; UNAVAILABLE when the broker does not answer.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(100, { writers: "creator" });
   * assertEquals(region.bytes.length, 100);
   * ```
   */
  create(size: number, options?: CreateRegionOptions): Region {
    const operation = "sharedMemory.create";
    this.#session.assertOpen(operation);
    if (!Number.isInteger(size) || size < 1 || size > MAX_REGION_SIZE) {
      throw new VmciError("INVALID_SIZE", {
        operation,
        reason: `a region has 1 to ${MAX_REGION_SIZE} bytes: received ${size}`,
      });
    }
    const writers = options?.writers ?? "everybody";
    if (writers !== "everybody" && writers !== "creator") {
      throw new VmciError("INVALID_ARGS", {
        operation,
        reason: `writers are "everybody" or "creator": received ${JSON.stringify(writers)}`,
      });
    }
    const creatorOnly = writers === "creator";
    const { medium } = this.#session;
    const { memory, share } = within({ operation }, () => medium.createRegion(size, writers));
    let result: Results["create_region"];
    try {
      ({ result } = this.#session.request({ operation }, "create_region", { size, creatorOnly }, [share]));
    } catch (error) {
      memory.close();
      medium.release(share);
      throw error;
    }
    // The creator's share is for the next broker; it goes with the creator's last attachment.
    const handle = Object.freeze(result.handle);
    const { ticket, attachment } = result;
    this.#session.holdings.keep({ type: "SHAREDMEM", handle, size, creatorOnly, ticket, share, gone: () => {} });
    this.#peers.set(formatHandle(handle), []);
    return this.#add(
      handle,
      { size, creatorOnly, writable: true, attachment },
      memory,
      creatorOnly ? memory : undefined,
    );
  }

  /**
   * The size of a region (`VMCISharedMem_Query`). No right is needed.
   *
   * @param handle The region.
   * @returns The bytes it was created with.
   * @throws {VmciError} NOT_FOUND when there is none.
   *
   * @example
   * ```ts
   * import { openVmci } from "@vmci/vmci";
   * import { assertEquals } from "@std/assert";
   *
   * using vmci = await openVmci({ device: "memory:" });
   * using region = vmci.sharedMemory.create(128);
   * assertEquals(vmci.sharedMemory.query(region.handle), 128);
   * ```
   */
  query(handle: Handle): number {
    const operation = "sharedMemory.query";
    assertHandle(operation, handle);
    return this.#session.request({ operation, handle }, "query", { handle }).result.size;
  }

  /**
   * Attaches to a region (`VMCISharedMem_Attach`). Any number may; attaching twice counts twice.
   *
   * @param handle The region.
   * @returns This attachment.
   * @throws {VmciError} NOT_FOUND when there is none; NO_ACCESS without SM_ATTACH on it, or by the coarse flags;
   * UNAVAILABLE when its creator is gone; NO_RESOURCES when the context has its quota; NO_MEM when it cannot be mapped.
   *
   * @example
   * ```ts
   * import { openVmci, VmciError } from "@vmci/vmci";
   * import { assertEquals, assertThrows } from "@std/assert";
   *
   * using host = await openVmci({ device: "memory:" });
   * using guest = await openVmci({ device: "memory:", contextId: 16 });
   * using region = host.sharedMemory.create(128);
   * const error = assertThrows(() => guest.sharedMemory.attach(region.handle), VmciError);
   * assertEquals(error.code, "NO_ACCESS");
   * ```
   */
  attach(handle: Handle): Region {
    const operation = "sharedMemory.attach";
    assertHandle(operation, handle);
    const known = this.#attachments.get(formatHandle(handle));
    const { result, shares } = this.#session.request({ operation, handle }, "attach", { handle });
    if (result.peers !== null) this.#peersAre(handle, result.peers);
    const { medium } = this.#session;
    let memory: RegionMemory;
    try {
      if (known?.shared === undefined) {
        memory = within({ operation, handle }, () => medium.openRegion(shares[0]!, result.size, result.writable));
      } else {
        medium.release(shares[0]!);
        memory = known.shared;
      }
    } catch (error) {
      this.#session.tell("detach", { handle });
      if (known === undefined) {
        this.#watchers.delete(formatHandle(handle));
        this.#peers.delete(formatHandle(handle));
      }
      throw error;
    }
    const frozen = Object.freeze({ context: handle.context, resource: handle.resource });
    return this.#add(frozen, result, memory, undefined);
  }

  #close(): void {
    for (const { all } of [...this.#attachments.values()]) {
      for (const attachment of [...all]) this.#detach(attachment);
    }
  }

  /** Those that went, or came, while nobody was the broker are missed, or new, and told. */
  #peersAre(handle: Handle, contexts: readonly ContextId[]): void {
    const gone = this.#peers.get(formatHandle(handle));
    this.#peers.set(formatHandle(handle), [...contexts]);
    if (gone === undefined) return;
    for (const context of contexts) {
      if (gone.includes(context)) gone.splice(gone.indexOf(context), 1);
      else this.#emit({ type: "peer-attached", handle, context });
    }
    for (const context of gone) this.#emit({ type: "peer-detached", handle, context });
  }

  #add(
    handle: Handle,
    { size, creatorOnly, writable, attachment: ticket }: Omit<Results["attach"], "peers">,
    memory: RegionMemory,
    shared: RegionMemory | undefined,
  ): Region {
    const key = formatHandle(handle);
    let attachments = this.#attachments.get(key);
    if (attachments === undefined) {
      attachments = { size, creatorOnly, ticket, all: new Set(), shared, watching: false, orphaned: false };
      this.#attachments.set(key, attachments);
    }
    const attachment: Attachment = { handle, memory, attached: true };
    attachments.all.add(attachment);
    this.#forgotten.register(memory.view, attachment, attachment);
    return new Region(this.#owner, attachment, size, writable);
  }

  /** The program can reach nothing of this memory any more: it is detached for it, unless others can find it. */
  #reclaim(attachment: Attachment): void {
    const { handle } = attachment;
    if (!attachment.attached || this.#session.holdings.isNamed("SHAREDMEM", handle)) return;
    this.#detach(attachment);
    this.#emit({ type: "forgotten", resource: "SHAREDMEM", handle });
  }

  #detach(attachment: Attachment): boolean {
    const { handle, memory } = attachment;
    const key = formatHandle(handle);
    const attachments = this.#attachments.get(key);
    if (attachments === undefined || !attachment.attached) return false;
    attachment.attached = false;
    this.#forgotten.unregister(attachment);
    try {
      // If the broker dies meanwhile, this attachment is among those announced to the next one, which then takes it off.
      if (this.#session.closed) return false;
      return this.#session.request({ operation: "region.detach", handle }, "detach", { handle }).result.last;
    } catch (error) {
      // Without a broker, or with one that does not know of it, it is detached all the same.
      if (!(error instanceof VmciError)) throw error;
      const { size, creatorOnly, ticket } = attachments;
      if (error.code === "UNAVAILABLE") this.#untold.set(key, { handle, count: 0, size, creatorOnly, ticket });
      return false;
    } finally {
      attachments.all.delete(attachment);
      const last = attachments.all.size === 0;
      if (last) {
        this.#attachments.delete(key);
        this.#watchers.delete(key);
        this.#peers.delete(key);
      }
      // Further attachments of a creator that alone may write share one mapping.
      const sharedStill = [...attachments.all].some((other) => other.memory === memory);
      if (!sharedStill && !memory.close()) this.#emit({ type: "buffer-transferred", handle });
      if (last) this.#session.forget("SHAREDMEM", handle);
    }
  }

  #watch(subject: Subject & { readonly handle: Handle }): void {
    const { handle } = subject;
    const attachments = this.#attachments.get(formatHandle(handle))!;
    if (attachments.watching) return;
    this.#session.request(subject, "watch_region", { handle });
    attachments.watching = true;
  }

  #notify(handle: Handle): void {
    this.#session.refresh();
    for (const number of this.#watchers.get(formatHandle(handle)) ?? []) {
      this.#session.peer(number)?.nudge();
    }
    this.#session.self.nudge();
  }

  #announce(): void {
    const operation = "announce";
    for (const [key, none] of [...this.#untold]) {
      if (!this.#attachments.has(key)) this.#session.request({ operation }, "announce_attachment", none);
      this.#untold.delete(key);
    }
    for (const { size, creatorOnly, ticket, all, watching } of this.#attachments.values()) {
      const { handle } = [...all][0]!;
      const attachment = { handle, count: all.size, size, creatorOnly, ticket };
      const { accepted } = this.#session.request({ operation, handle }, "announce_attachment", attachment).result;
      // A broker that does not believe it does not know of it; the memory stays all the same.
      if (accepted && watching) this.#session.request({ operation, handle }, "watch_region", { handle });
    }
  }
}

function assertHandle(operation: string, handle: Handle): void {
  if (isHandle(handle)) return;
  throw new VmciError("INVALID_ARGS", {
    operation,
    reason: "that is not a handle: { context, resource }, both unsigned 32-bit numbers",
  });
}

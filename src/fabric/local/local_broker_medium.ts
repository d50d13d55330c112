/**
 * What a broker asks for on one machine: it makes lanes and bells, and checks the memory that clients hand in.
 *
 * @module
 */

import { VmciError } from "../../error.ts";
import { LANE_SIZE } from "../../lane/ring.ts";
import { closeDescriptor, closedOnFailure, describe } from "../../../ffi/descriptor.ts";
import { SystemError } from "../../../ffi/libc.ts";
import { addSeals, createMemfd, Seal, seals } from "../../../ffi/memfd.ts";
import { streamPair } from "../../../ffi/unix_socket.ts";
import type { BrokerMedium, RegionAccess, Share } from "../medium.ts";
import { isReserved } from "./descriptor_reserve.ts";
import { FIXED_SIZE_SEALS, WORD_SIZE } from "./local_memory.ts";
import type { NumberMark } from "./run_directory.ts";

/** See the module's comment. */
export class LocalBrokerMedium implements BrokerMedium {
  readonly #numbers: NumberMark | undefined;

  constructor(numbers: NumberMark | undefined) {
    this.#numbers = numbers;
  }

  makeLane(): Share {
    const fd = createMemfd("vmci-lane", LANE_SIZE);
    closedOnFailure(fd, () => addSeals(fd, FIXED_SIZE_SEALS));
    return fd;
  }

  makeBell(): readonly [Share, Share] {
    return streamPair();
  }

  checkRegion(share: Share, size: number, writers: RegionAccess): void {
    const wanted = writers === "creator" ? FIXED_SIZE_SEALS | Seal.FUTURE_WRITE : FIXED_SIZE_SEALS;
    this.#check("region", share as number, size, wanted);
    if (!isReserved(share as number)) return;
    throw new VmciError("NO_RESOURCES", {
      operation: "keep memory",
      reason: "the broker has few file descriptors left, and keeps them for those who connect and send",
    });
  }

  checkAttention(share: Share): void {
    this.#check("attention word", share as number, WORD_SIZE, FIXED_SIZE_SEALS | Seal.FUTURE_WRITE);
  }

  reserveNumbers(mark: number): void {
    this.#numbers?.write(mark);
  }

  /** If a descriptor cannot be closed, as files on a file system of its own may, it is closed all the same. */
  release(share: Share): void {
    try {
      closeDescriptor(share as number);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
    }
  }

  #check(what: string, fd: number, size: number, wanted: number): void {
    const actual = seals(fd);
    const writable = (actual ?? 0) & (Seal.FUTURE_WRITE | Seal.WRITE);
    const sealed = actual !== undefined && (actual & wanted) === wanted && writable === (wanted & Seal.FUTURE_WRITE);
    if (sealed && describe(fd).size === size) return;
    throw new VmciError("INVALID_ARGS", {
      operation: "check memory",
      reason: `the ${what}'s memory is not a memfd of ${size} bytes with the seals ${wanted}`,
    });
  }
}

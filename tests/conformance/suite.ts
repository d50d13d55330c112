/**
 * What every medium must keep: one suite against the public facets, written once.
 *
 * Each test has a fabric of its own and plays with two parties, as a rule the host in this process and a virtual machine
 * that may be in another one. So whatever the second party does is awaited.
 *
 * @module
 */

import { contextHandle, type Handle, type OpenOptions, type PrivilegeName, type Vmci } from "../../mod.ts";
import type { Agent, Remote } from "../support/remote.ts";
import type { Scenes } from "../support/scenes.ts";

/** The second party. */
export type Party = Remote<Vmci>;

/** What a medium can. */
export interface Traits {
  /** Its name, for the tests'. */
  readonly name: string;
  /** Whether others go on while this thread waits, so that waiting without turning the event loop makes sense. */
  readonly concurrent: boolean;
  /** Whether the kernel keeps those who may only read from writing. */
  readonly enforcesReaders: boolean;
  /** Whether a region's buffer can be transferred away; one that is made without raw pointers cannot. */
  readonly transfersBuffers: boolean;
  /** Whether the second party is in another process. */
  readonly processes: boolean;
  /** How many are many: turns of two threads, names in a list. */
  readonly many: number;
}

/** How a party joins, but for where. */
export type JoinOptions = Omit<OpenOptions, "device">;

/** One test's own fabric; at its end everybody leaves. */
export interface Fabric extends AsyncDisposable {
  /** The device's name. */
  readonly device: string;
  /** Joins here. */
  open(options?: JoinOptions): Promise<Vmci>;
  /** Joins as the second party does. */
  join(options?: JoinOptions): Promise<Party>;
  /** What the second party can do by itself. */
  readonly scenes: Remote<Scenes>;
  /** A process of this test's own, that may be killed; only where there are processes. */
  spawn(): Agent;
}

/** A medium: what it can, and how a fabric on it is had. */
export interface MediumUnderTest extends Traits {
  /** Makes a fabric. */
  create(): Promise<Fabric>;
}

/** A test's body. */
export type Body = (fabric: Fabric) => Promise<void>;

/** Declares one test. */
export interface Declare {
  (name: string, body: Body): void;
  /** One in which the second party does nothing: where that is in another process it need not be run again. */
  alone(name: string, body: Body): void;
}

/** One facet's tests. */
export type Facet = (test: Declare, traits: Traits) => void;

/** Declares the tests of some facets on a medium. */
export function conformance(medium: MediumUnderTest, facets: Readonly<Record<string, Facet>>): void {
  for (const [facet, declare] of Object.entries(facets)) {
    const test = (name: string, body: Body) =>
      Deno.test(`${medium.name}: ${facet}: ${name}`, async () => {
        await using fabric = await medium.create();
        await body(fabric);
      });
    const declared: Declare = Object.assign(test.bind(undefined), { alone: medium.processes ? () => {} : test });
    declare(declared, medium);
  }
}

/** The first virtual machine's context. */
export const VM = 16;

/** The usual two: the host here, and the first virtual machine. */
export async function hostAndGuest(fabric: Fabric): Promise<{ readonly host: Vmci; readonly guest: Party }> {
  return { host: await fabric.open(), guest: await fabric.join({ contextId: VM }) };
}

/** Lets the first virtual machine do something with a resource of `owner`. */
export function allow(owner: Vmci, resource: Handle, ...privileges: PrivilegeName[]): void {
  owner.access.addClientPrivileges(resource, contextHandle(VM), { allow: privileges });
}

/** Bytes of a text. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** The text of bytes. */
export function text(payload: Uint8Array): string {
  return new TextDecoder().decode(payload);
}

/** Why a promise was rejected. */
export async function reasonOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (reason) {
    return reason;
  }
  throw new Error("That should have been rejected");
}

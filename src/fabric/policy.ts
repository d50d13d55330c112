/**
 * Who may be what in a daemon's fabric: a text file, one rule a line.
 *
 * ```text
 * # Who may be which contexts; users and groups by number. What no line allows is refused.
 * allow uid 1000 context 16-31
 * allow gid 100 context 2,40
 * allow any context 50
 *
 * # Coarse flags of contexts: restricted or trusted.
 * flags restricted context 50
 *
 * # What a context, or everybody, may hold.
 * quota lanes 64
 * quota regionBytes 1048576 context 50
 *
 * # What is granted on every new resource of some contexts (or all), to a context or to everybody.
 * grant DG_SEND on DATAGRAM of 16-31 to 2
 * grant SM_ATTACH on SHAREDMEM to public
 * ```
 *
 * @module
 */

import { VmciError } from "../error.ts";
import { contextHandle, type ContextId, FIRST_VM_CONTEXT, type Handle, HOST_CONTEXT, INVALID_ID } from "../handle.ts";
import {
  PrivilegeFlags,
  type PrivilegeName,
  ResourceType,
  type ResourceTypeName,
  validPrivileges,
} from "../privilege.ts";
import { DEFAULT_QUOTA, type Quota } from "./quota.ts";

/** Some contexts: ranges with both ends, or all. */
export type ContextSet = readonly (readonly [first: ContextId, last: ContextId])[] | "all";

/** A process, as the kernel knows it. */
export interface Subject {
  /** Its user. */
  readonly uid: number;
  /** Its group. */
  readonly gid: number;
}

/** Something granted on every new resource. */
export interface DefaultGrant {
  /** What kind of resource. */
  readonly type: ResourceTypeName;
  /** Whose. */
  readonly owners: ContextSet;
  /** To whom: a context, or the public group where it is `undefined`. */
  readonly client: Handle | undefined;
  /** What. */
  readonly privilege: PrivilegeName;
}

interface AllowRule {
  readonly kind: "uid" | "gid" | "any";
  readonly id: number;
  readonly contexts: ContextSet;
}

/** A policy that was read. */
export class Policy {
  readonly #allows: AllowRule[] = [];
  readonly #flags: { readonly flags: number; readonly contexts: ContextSet }[] = [];
  readonly #quotas: { readonly name: keyof Quota; readonly value: number; readonly contexts: ContextSet }[] = [];
  readonly #grants: DefaultGrant[] = [];

  /**
   * Reads a policy.
   *
   * @param text The file's text.
   * @param name The file's name, for errors.
   * @returns The policy.
   * @throws {VmciError} INVALID_ARGS with the file, the line and what is wrong with it.
   */
  static parse(text: string, name: string): Policy {
    const policy = new Policy();
    for (const [index, line] of text.split("\n").entries()) {
      const words = line.replace(/#.*/, "").trim().split(/\s+/).filter((word) => word !== "");
      if (words.length === 0) continue;
      try {
        policy.#add(words);
      } catch (error) {
        if (!(error instanceof Mistake)) throw error;
        throw new VmciError("INVALID_ARGS", {
          operation: "read the policy",
          reason: `${name}:${index + 1}: ${error.message}`,
        });
      }
    }
    return policy;
  }

  /**
   * Which contexts a process may be.
   *
   * @param subject The process.
   * @returns The contexts that some line allows; empty when none does.
   */
  contextsOf(subject: Subject): ContextSet {
    const rules = this.#allows.filter(({ kind, id }) => kind === "any" || subject[kind] === id);
    if (rules.some(({ contexts }) => contexts === "all")) return "all";
    return rules.flatMap(({ contexts }) => contexts === "all" ? [] : contexts);
  }

  /** The coarse flags of a context, or `undefined` when no line names it. */
  flagsOf(context: ContextId): number | undefined {
    return this.#flags.findLast(({ contexts }) => includesContext(contexts, context))?.flags;
  }

  /**
   * What a context may hold: the last line that fits counts.
   *
   * @param context The context.
   * @param common What it may hold where no line says more.
   */
  quotaOf(context: ContextId, common: Quota = DEFAULT_QUOTA): Quota {
    const quota: Record<keyof Quota, number> = { ...common };
    for (const { name, value, contexts } of this.#quotas) {
      if (includesContext(contexts, context)) quota[name] = value;
    }
    return quota;
  }

  /** What is granted on a new resource of a context. */
  grantsFor(type: ResourceTypeName, owner: ContextId): DefaultGrant[] {
    return this.#grants.filter((grant) => grant.type === type && includesContext(grant.owners, owner));
  }

  #add(words: readonly string[]): void {
    const line = new Words(words);
    switch (line.next("a rule: allow, flags, quota or grant")) {
      case "allow": {
        const kind = line.oneOf("uid", "gid", "any");
        const id = kind === "any" ? 0 : line.number(`a ${kind}`, INVALID_ID);
        line.expect("context");
        this.#allows.push({ kind, id, contexts: line.contexts() });
        break;
      }
      case "flags": {
        const flags = line.oneOf("none", "restricted", "trusted");
        line.expect("context");
        this.#flags.push({
          flags: PrivilegeFlags[flags.toUpperCase() as keyof typeof PrivilegeFlags],
          contexts: line.contexts(),
        });
        break;
      }
      case "quota": {
        const name = line.oneOf(...Object.keys(DEFAULT_QUOTA) as (keyof Quota)[]);
        const value = line.number("a number", Number.MAX_SAFE_INTEGER);
        this.#quotas.push({ name, value, contexts: line.optional("context") ? line.contexts() : "all" });
        break;
      }
      case "grant":
        this.#addGrant(line);
        break;
      default:
        throw new Mistake(`'${words[0]}' is no rule: there are allow, flags, quota and grant`);
    }
    line.end();
  }

  #addGrant(line: Words): void {
    const privilege = line.next("a privilege") as PrivilegeName;
    line.expect("on");
    const type = line.oneOf(...Object.keys(ResourceType) as ResourceTypeName[]);
    if (!validPrivileges[type].includes(privilege)) {
      throw new Mistake(`${privilege} is no privilege of ${type}: it has ${validPrivileges[type].join(", ")}`);
    }
    const owners = line.optional("of") ? line.contexts() : "all";
    line.expect("to");
    const client = line.optional("public") ? undefined : contextHandle(line.context());
    this.#grants.push({ type, owners, client, privilege });
  }
}

/** Whether a context is among some. */
export function includesContext(contexts: ContextSet, context: ContextId): boolean {
  return contexts === "all" || contexts.some(([first, last]) => first <= context && context <= last);
}

/** Some contexts as a policy writes them. */
export function formatContexts(contexts: ContextSet): string {
  if (contexts === "all") return "all";
  return contexts.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`).join(",");
}

/** What is wrong with a line. */
class Mistake extends Error {}

/** The words of one line, taken from the left. */
class Words {
  readonly #words: readonly string[];
  #at = 0;

  constructor(words: readonly string[]) {
    this.#words = words;
  }

  next(what: string): string {
    const word = this.#words[this.#at++];
    if (word === undefined) throw new Mistake(`the line ends where ${what} should be`);
    return word;
  }

  expect(word: string): void {
    const found = this.next(`'${word}'`);
    if (found !== word) throw new Mistake(`'${word}' should be where '${found}' is`);
  }

  optional(word: string): boolean {
    if (this.#words[this.#at] !== word) return false;
    this.#at++;
    return true;
  }

  oneOf<T extends string>(...choices: readonly T[]): T {
    const word = this.next(`one of ${choices.join(", ")}`);
    if (!choices.includes(word as T)) throw new Mistake(`'${word}' should be one of ${choices.join(", ")}`);
    return word as T;
  }

  number(what: string, most: number): number {
    const word = this.next(what);
    const value = /^\d{1,16}$/.test(word) ? Number(word) : NaN;
    if (!(value <= most)) throw new Mistake(`'${word}' should be ${what} of at most ${most}`);
    return value;
  }

  context(): ContextId {
    return checkContext(this.next("a context"));
  }

  contexts(): ContextSet {
    const word = this.next("contexts, as 16-31,40, or all");
    if (word === "all") return "all";
    return word.split(",").map((range) => {
      const ends = range.split("-");
      if (ends.length > 2) throw new Mistake(`'${range}' should be one context or a range, as 16-31`);
      const [first, last] = [checkContext(ends[0]!), checkContext(ends.at(-1)!)];
      if (first > last) throw new Mistake(`the range ${range} ends before it begins`);
      return [first, last] as const;
    });
  }

  end(): void {
    const word = this.#words[this.#at];
    if (word !== undefined) throw new Mistake(`'${word}' is one word too many`);
  }
}

function checkContext(word: string): ContextId {
  const context = /^\d{1,10}$/.test(word) ? Number(word) : NaN;
  const valid = context === HOST_CONTEXT || (context >= FIRST_VM_CONTEXT && context < INVALID_ID);
  if (!valid) throw new Mistake(`'${word}' is no context: the host is 2, virtual machines have 16 and up`);
  return context;
}

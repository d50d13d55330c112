/**
 * What the broker should decide, said once more and as simply as can be: lists are searched, nothing is cached, and
 * what follows from something is computed from it each time.
 *
 * @module
 */

import { type ErrorCodeName, formatHandle, type Handle, HOST_CONTEXT, type PrivilegeName } from "../../mod.ts";
import type { AccessDecision, ResourceTypeName } from "../../mod.ts";
import { PUBLIC_GROUP } from "../../src/fabric/broker.ts";
import type { Quota } from "../../src/fabric/quota.ts";

/** A process. */
export interface Process {
  readonly context: number;
}

/** A resource: its owner is undefined when only others are still attached to it. */
export interface ModelResource {
  readonly type: ResourceTypeName;
  readonly handle: Handle;
  readonly context: number;
  readonly size: number;
  owner: Process | undefined;
}

interface ModelLane {
  readonly sender: Process;
  readonly destination: ModelResource;
}

interface Entry {
  readonly resource: ModelResource;
  readonly client: string;
  readonly privilege: PrivilegeName;
  readonly allowed: boolean;
}

interface Member {
  readonly group: string;
  readonly context: number;
  readonly canAssign: boolean;
}

/** What the model refuses, by its code. */
export class Refused extends Error {
  constructor(readonly code: ErrorCodeName) {
    super(code);
  }
}

const VALID: Readonly<Record<ResourceTypeName, readonly PrivilegeName[]>> = {
  DATAGRAM: ["CH_PRIV", "DESTROY_RESOURCE", "DG_SEND"],
  SHAREDMEM: ["CH_PRIV", "DESTROY_RESOURCE", "SM_ATTACH"],
  GROUP: ["CH_PRIV", "DESTROY_RESOURCE", "ASSIGN_CLIENT"],
};

const [RESTRICTED, TRUSTED] = [1, 2];
const HYPERVISOR = 0;

function refuse(when: boolean, code: ErrorCodeName): void {
  if (when) throw new Refused(code);
}

/** See the module's comment. */
export class BrokerModel {
  processes: Process[] = [];
  resources: ModelResource[] = [
    { type: "GROUP", handle: PUBLIC_GROUP, context: HYPERVISOR, size: 0, owner: undefined },
  ];
  names: { readonly name: string; readonly resource: ModelResource }[] = [
    { name: "vmci public group", resource: this.resources[0]! },
  ];
  attachments: { readonly process: Process; readonly region: ModelResource }[] = [];
  lanes: ModelLane[] = [];
  /** Where lanes led that are over and that their receivers have not read. */
  unread: ModelResource[] = [];
  /** In the order they were set. */
  #entries: Entry[] = [];
  /** In the order they joined. */
  #members: Member[] = [];

  constructor(readonly quota: Quota, readonly flags: Readonly<Record<number, number>>) {}

  // --- Who is there ---------------------------------------------------------------------------------------------------

  join(context: number): Process {
    const inIt = this.processes.filter((process) => process.context === context).length;
    const contexts = new Set(this.processes.map((process) => process.context));
    refuse(inIt === 0 && contexts.size >= this.quota.contexts, "NO_RESOURCES");
    refuse(inIt >= this.quota.clients, "NO_RESOURCES");
    if (inIt === 0) this.#members.unshift({ group: formatHandle(PUBLIC_GROUP), context, canAssign: true });
    const process = { context };
    this.processes.push(process);
    return process;
  }

  leave(process: Process): void {
    this.#end(({ sender }) => sender === process);
    for (const { region } of this.attachments.filter((it) => it.process === process)) this.#detach(process, region);
    for (const resource of this.resources.filter(({ owner }) => owner === process)) this.#remove(resource);
    this.processes = this.processes.filter((it) => it !== process);
    if (!this.#isThere(process.context)) this.#members = this.#members.filter((it) => it.context !== process.context);
    this.#dropLanes();
  }

  /** Another broker decides now: nothing that somebody owns is lost. */
  takeOver(): void {
    // What was left unread under the one before is not known to this one.
    this.unread = [];
    // Who had left the public group is in it again.
    const joined = this.#members.filter(({ group }) => group !== formatHandle(PUBLIC_GROUP));
    const contexts = new Set(this.processes.map(({ context }) => context));
    const everybody = [...contexts].map((context) => ({ group: formatHandle(PUBLIC_GROUP), context, canAssign: true }));
    this.#members = [...everybody, ...joined];
  }

  #isThere(context: number): boolean {
    return this.processes.some((process) => process.context === context);
  }

  // --- Resources ------------------------------------------------------------------------------------------------------

  /** Whether another one may be made. */
  mayCreate({ context }: Process, size: number): void {
    const own = this.resources.filter(({ owner }) => owner?.context === context);
    refuse(own.length >= this.quota.resources, "NO_RESOURCES");
    if (size === 0) return;
    refuse(own.filter(({ type }) => type === "SHAREDMEM").length >= this.quota.regions, "NO_RESOURCES");
    const bytes = own.reduce((sum, resource) => sum + pages(resource.size), 0);
    refuse(bytes + pages(size) > this.quota.regionBytes, "NO_RESOURCES");
    refuse(this.#attachmentsOf(context) >= this.quota.attachments, "NO_RESOURCES");
  }

  create(owner: Process, type: ResourceTypeName, handle: Handle, size: number): void {
    const resource = { type, handle, context: owner.context, size, owner };
    this.resources.push(resource);
    if (type === "SHAREDMEM") this.attachments.push({ process: owner, region: resource });
  }

  destroy(process: Process, resource: ModelResource): void {
    refuse(!this.resources.includes(resource), "NOT_FOUND");
    refuse(resource.type === "SHAREDMEM", "INVALID_RESOURCE");
    this.#demand(process, resource, "DESTROY_RESOURCE");
    this.#remove(resource);
    this.#dropLanes();
  }

  #remove(resource: ModelResource): void {
    resource.owner = undefined;
    this.#entries = this.#entries.filter((it) => it.resource !== resource);
    this.names = this.names.filter((it) => it.resource !== resource);
    this.lanes = this.lanes.filter(({ destination }) => destination !== resource);
    this.unread = this.unread.filter((destination) => destination !== resource);
    this.#members = this.#members.filter(({ group }) => group !== formatHandle(resource.handle));
    if (!this.attachments.some(({ region }) => region === resource)) {
      this.resources = this.resources.filter((it) => it !== resource);
    }
  }

  attach(process: Process, region: ModelResource): void {
    refuse(!this.resources.includes(region) || region.type !== "SHAREDMEM", "NOT_FOUND");
    refuse(region.owner === undefined, "UNAVAILABLE");
    this.#demand(process, region, "SM_ATTACH");
    refuse(this.#attachmentsOf(process.context) >= this.quota.attachments, "NO_RESOURCES");
    this.attachments.push({ process, region });
  }

  /** Whether it was the last one. */
  detach(process: Process, region: ModelResource): boolean {
    refuse(!this.resources.includes(region) || region.type !== "SHAREDMEM", "NOT_FOUND");
    refuse(!this.attachments.some((it) => it.process === process && it.region === region), "INVALID_ARGS");
    return this.#detach(process, region);
  }

  #detach(process: Process, region: ModelResource): boolean {
    this.attachments.splice(this.attachments.findIndex((it) => it.process === process && it.region === region), 1);
    const left = this.attachments.filter((it) => it.region === region);
    if (region.owner === process && !left.some((it) => it.process === process)) this.#remove(region);
    if (region.owner === undefined && left.length === 0) this.resources = this.resources.filter((it) => it !== region);
    return left.length === 0;
  }

  #attachmentsOf(context: number): number {
    return this.attachments.filter(({ process }) => process.context === context).length;
  }

  // --- Access ---------------------------------------------------------------------------------------------------------

  /** What a check says of a context or a group. */
  decide(client: Handle, resource: ModelResource, privilege: PrivilegeName): AccessDecision {
    const isContext = client.resource === 0;
    if (isContext && client.context === resource.context) {
      return { granted: true, code: "SUCCESS_ACCESS_GRANTED", via: "owner", decidedBy: client };
    }
    if (isContext && this.#isThere(client.context) && resource.owner !== undefined) {
      const sides = [this.flags[client.context]!, this.flags[resource.owner.context]!];
      const apart = sides.some((flags, i) => flags === RESTRICTED && sides[1 - i] !== TRUSTED);
      if (apart) return { granted: false, code: "NO_ACCESS", via: "flags", decidedBy: undefined };
    }
    const groups = this.#members.filter(({ context }) => isContext && context === client.context);
    const absent = isContext && !this.#isThere(client.context) ? [formatHandle(PUBLIC_GROUP)] : [];
    for (const candidate of [formatHandle(client), ...absent, ...groups.map(({ group }) => group)]) {
      const isIt = (it: Entry) => it.resource === resource && it.client === candidate && it.privilege === privilege;
      const allowed = this.#entries.findLast(isIt)?.allowed ??
        (privilege === "ASSIGN_CLIENT" ? this.#memberOf(resource, candidate)?.canAssign : undefined);
      if (allowed === undefined) continue;
      const [context, number] = candidate.split(":").map(Number) as [number, number];
      return {
        granted: allowed,
        code: allowed ? "SUCCESS_ACCESS_GRANTED" : "NO_ACCESS",
        via: candidate === formatHandle(client) ? "own" : "group",
        decidedBy: { context, resource: number },
      };
    }
    return { granted: false, code: "INVALID_PRIV", via: "nothing", decidedBy: undefined };
  }

  check(resource: ModelResource, client: Handle, privilege: PrivilegeName): AccessDecision {
    refuse(!this.resources.includes(resource), "INVALID_ARGS");
    refuse(!VALID[resource.type].includes(privilege), "INVALID_PRIV");
    refuse(!this.#isClient(client), "INVALID_ARGS");
    return this.decide(client, resource, privilege);
  }

  grant(
    process: Process,
    resource: ModelResource,
    client: Handle,
    allow: readonly PrivilegeName[],
    deny: readonly PrivilegeName[],
  ): void {
    this.#mayChange(process, resource, [...allow, ...deny]);
    refuse(!this.#isClient(client), "INVALID_ARGS");
    refuse(resource.owner === undefined, "UNAVAILABLE");
    const isKnown = this.#entries.some((it) => it.resource === resource && it.client === formatHandle(client));
    refuse(!isKnown && this.#grantsOf(resource.owner!.context) >= this.quota.grants, "NO_RESOURCES");
    if (client.resource !== 0) this.#mayAssign(process, client);
    this.#unset(resource, client, [...allow, ...deny]);
    for (const privilege of new Set([...allow, ...deny])) {
      this.#entries.push({ resource, client: formatHandle(client), privilege, allowed: !deny.includes(privilege) });
    }
    this.#dropLanes();
  }

  /** How many entries the access lists of a context's resources have. */
  #grantsOf(context: number): number {
    const own = this.#entries.filter(({ resource }) => resource.owner?.context === context);
    return new Set(own.map(({ resource, client }) => `${resource.type} ${formatHandle(resource.handle)} ${client}`))
      .size;
  }

  /** Without privileges: all of them. */
  revoke(process: Process, resource: ModelResource, client: Handle, privileges?: readonly PrivilegeName[]): void {
    this.#mayChange(process, resource, privileges ?? ["CH_PRIV"]);
    const own = this.#entries.some((it) => it.resource === resource && it.client === formatHandle(client));
    refuse(!own, "INVALID_ARGS");
    this.#unset(resource, client, privileges ?? VALID[resource.type]);
    this.#dropLanes();
  }

  #unset(resource: ModelResource, client: Handle, privileges: readonly PrivilegeName[]): void {
    this.#entries = this.#entries.filter((it) =>
      it.resource !== resource || it.client !== formatHandle(client) || !privileges.includes(it.privilege)
    );
  }

  #mayChange(process: Process, resource: ModelResource, privileges: readonly PrivilegeName[]): void {
    refuse(!this.resources.includes(resource), "INVALID_ARGS");
    this.#demand(process, resource, "CH_PRIV");
    refuse(privileges.some((privilege) => !VALID[resource.type].includes(privilege)), "INVALID_PRIV");
    refuse(privileges.length === 0, "INVALID_ARGS");
  }

  #mayAssign({ context }: Process, handle: Handle): void {
    refuse(!this.decide({ context, resource: 0 }, this.#groupOf(handle)!, "ASSIGN_CLIENT").granted, "NO_ACCESS");
  }

  #memberOf(group: ModelResource, client: string): Member | undefined {
    return this.#members.find((it) => it.group === formatHandle(group.handle) && `${it.context}:0` === client);
  }

  #demand({ context }: Process, resource: ModelResource, privilege: PrivilegeName): void {
    refuse(!this.decide({ context, resource: 0 }, resource, privilege).granted, "NO_ACCESS");
  }

  #isClient(client: Handle): boolean {
    return client.resource === 0 || this.#groupOf(client) !== undefined;
  }

  #groupOf(handle: Handle): ModelResource | undefined {
    return this.resources.find((it) => it.type === "GROUP" && formatHandle(it.handle) === formatHandle(handle));
  }

  // --- Groups ---------------------------------------------------------------------------------------------------------

  addMember(process: Process, group: ModelResource, context: number, canAssign: boolean): void {
    refuse(!this.resources.includes(group) || group.type !== "GROUP", "INVALID_ARGS");
    const isPublic = group === this.resources[0];
    if (isPublic) refuse(context !== process.context, "NO_ACCESS");
    else this.#demand(process, group, "CH_PRIV");
    refuse(!this.#isThere(context), "INVALID_ARGS");
    const member = { group: formatHandle(group.handle), context, canAssign: isPublic || canAssign };
    const place = this.#members.findIndex((it) => it.group === member.group && it.context === context);
    if (place < 0) this.#members.push(member);
    else this.#members[place] = member;
    this.#dropLanes();
  }

  removeMember(process: Process, group: ModelResource, context: number): void {
    refuse(!this.resources.includes(group) || group.type !== "GROUP", "INVALID_ARGS");
    if (context !== process.context) this.#demand(process, group, "CH_PRIV");
    const isIt = (it: Member) => it.group === formatHandle(group.handle) && it.context === context;
    refuse(!this.#members.some(isIt), "INVALID_ARGS");
    this.#members = this.#members.filter((it) => !isIt(it));
    this.#dropLanes();
  }

  // --- Names and lanes ------------------------------------------------------------------------------------------------

  register(process: Process, name: string, resource: ModelResource): void {
    refuse(!this.resources.includes(resource), "INVALID_ARGS");
    refuse(resource.context !== process.context, "NO_ACCESS");
    refuse(this.names.some((it) => it.name === name), "ALREADY_EXISTS");
    refuse(resource.owner === undefined, "UNAVAILABLE");
    const own = this.names.filter((it) => it.resource.context === process.context);
    refuse(own.length >= this.quota.names, "NO_RESOURCES");
    this.names.push({ name, resource });
  }

  lookup(name: string): Handle {
    const found = this.names.find((it) => it.name === name);
    refuse(found === undefined, "NOT_FOUND");
    return found!.resource.handle;
  }

  unregister(process: Process, name: string): void {
    const found = this.names.find((it) => it.name === name);
    refuse(found === undefined, "NOT_FOUND");
    const { context } = found!.resource;
    refuse(context === HYPERVISOR || (context !== process.context && process.context !== HOST_CONTEXT), "NO_ACCESS");
    this.names = this.names.filter((it) => it !== found);
  }

  openLane(sender: Process, destination: ModelResource): void {
    refuse(!this.resources.includes(destination) || destination.type !== "DATAGRAM", "INVALID_ARGS");
    this.#demand(sender, destination, "DG_SEND");
    const into = [...this.lanes.map((it) => it.destination), ...this.unread];
    refuse(into.filter(({ owner }) => owner === destination.owner).length >= this.quota.lanes, "NO_RESOURCES");
    this.#end((it) => it.sender === sender && it.destination === destination);
    this.lanes.push({ sender, destination });
  }

  /** A lane lives as long as its sender may send. */
  #dropLanes(): void {
    this.#end(({ sender, destination }) =>
      !this.decide({ context: sender.context, resource: 0 }, destination, "DG_SEND").granted
    );
  }

  /** Lanes are over; what is left in them is still to be read. */
  #end(which: (lane: ModelLane) => boolean): void {
    this.unread.push(...this.lanes.filter(which).map(({ destination }) => destination));
    this.lanes = this.lanes.filter((lane) => !which(lane));
  }

  /** A process reads all that is left. */
  read(process: Process): void {
    this.unread = this.unread.filter(({ owner }) => owner !== process);
  }
}

function pages(size: number): number {
  return Math.ceil(size / 4096) * 4096;
}

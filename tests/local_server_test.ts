/** The broker's server, as its clients meet it: what it makes of packets that are none, and of clients that do not read. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { connectSeqpacket, PacketSocket, waitReadable } from "../ffi/unix_socket.ts";
import { contextHandle, openVmci } from "../mod.ts";
import { type DaemonOptions, FabricDaemon } from "../src/fabric/local/daemon.ts";
import { decodeMessage, encodeMessage } from "../src/fabric/local/packet_codec.ts";
import type { Message } from "../src/fabric/protocol.ts";
import { DEFAULT_QUOTA } from "../src/fabric/quota.ts";
import "./ffi/support.ts";
import { fails, failsSync } from "./support/failure.ts";
import { makeRunDirectory } from "./support/media.ts";
import { RawClient } from "./support/raw_client.ts";

/** Milliseconds after which a test has failed. */
const PATIENCE = 10_000;

/** A daemon in this process, in a directory of its own. */
async function serving(test: (path: string) => Promise<void>): Promise<void> {
  const path = await makeRunDirectory();
  await test(path);
  await Deno.remove(path, { recursive: true });
}

function start(path: string, options: Partial<DaemonOptions> = {}): Promise<FabricDaemon> {
  return FabricDaemon.start({
    directory: undefined,
    socket: `${path}/main`,
    contexts: [],
    quota: DEFAULT_QUOTA,
    policy: undefined,
    audit: undefined,
    ...options,
  });
}

/** Reads until the other end closes; gives what came. */
function readToEnd(socket: PacketSocket): Message[] {
  const all: Message[] = [];
  for (;;) {
    if (waitReadable([socket.fd], PATIENCE) === 0) throw new Error("the connection is still open");
    const packet = socket.receive();
    if (packet === undefined) continue;
    if (packet.end) return all;
    packet.descriptors.forEach(closeDescriptor);
    all.push(decodeMessage(packet.bytes)!);
  }
}

Deno.test("local server: a policy, contexts' sockets and an audit log, and another policy while it runs", () =>
  serving(async (path) => {
    const name = `${path}/policy`;
    const policy = { text: "allow any context 16-18\nflags restricted context 17\n", name };
    const audit = `${path}/audit`;
    {
      await using daemon = await start(path, { contexts: [{ context: 17, path: `${path}/vm17` }], policy, audit });
      assertEquals(daemon.listening.map(({ context }) => context), [undefined, 17]);
      using host = await openVmci({ device: `${path}/main` });
      using guest = await openVmci({ device: `${path}/vm17` });
      assertEquals([host.contextId, guest.contextId], [2, 17]);
      await fails("NO_ACCESS", () => openVmci({ device: `${path}/vm17`, contextId: 18 }));
      using endpoint = host.datagrams.create();
      host.access.addClientPrivileges(endpoint.handle, contextHandle(17), { allow: ["DG_SEND"] });
      failsSync("NO_ACCESS", () => guest.datagrams.sendTo(endpoint.handle, new Uint8Array(1)));
      daemon.setPolicy({ text: "allow any context 16-18\nflags none context 17\n", name });
      assertEquals(guest.datagrams.sendTo(endpoint.handle, new Uint8Array(1)), 1);
      assertStringIncludes(failsSync("INVALID_ARGS", () => daemon.setPolicy({ text: "allow", name })).message, ":1:");
      await fails("ALREADY_EXISTS", () => start(path));
      await fails("INVALID_ARGS", () => start(`${path}/other`, { policy: { text: "nonsense", name } }));
    }
    const entries = Deno.readTextFileSync(audit).trim().split("\n").map((line) => JSON.parse(line).event);
    assert(entries.includes("denied"), `${entries}`);
  }));

Deno.test("local server: a policy that is larger than a packet is put in force at the start, and later", () =>
  serving(async (path) => {
    const name = `${path}/policy`;
    const large = "# a comment that stands here for a line of a policy\n".repeat(20_000);
    const policy = { text: `${large}quota names 1`, name };
    await using daemon = await start(path, { policy });
    using vmci = await openVmci({ device: `${path}/main` });
    using endpoint = vmci.datagrams.create();
    vmci.discovery.register("first", endpoint.handle);
    failsSync("NO_RESOURCES", () => vmci.discovery.register("second", endpoint.handle));
    daemon.setPolicy({ text: `${large}quota names 2`, name });
    vmci.discovery.register("second", endpoint.handle);
    failsSync("NO_RESOURCES", () => vmci.discovery.register("third", endpoint.handle));
    daemon.setPolicy({ text: "", name });
    vmci.discovery.register("third", endpoint.handle);
  }));

Deno.test("local server: a run directory, in which there is one daemon", () =>
  serving(async (path) => {
    await using daemon = await start(path, { directory: path, socket: undefined });
    assertEquals(daemon.listening.length, 1);
    using host = await openVmci({ device: path });
    assertEquals(host.contextId, 2);
    await fails("ALREADY_EXISTS", () => start(path, { directory: path, socket: undefined }));
  }));

Deno.test("local server: who sends what is no message is let go, and the others are served", () =>
  serving(async (path) => {
    await using _daemon = await start(path);
    using other = new RawClient(`${path}/main`);
    other.hello();
    for (const text of ["", "{", "[]", "7", "\xff"]) {
      const socket = new PacketSocket(connectSeqpacket(`${path}/main`));
      const bytes = text === "" ? Uint8Array.of(0) : new TextEncoder().encode(text);
      socket.send(bytes);
      assertEquals(readToEnd(socket), [], text);
      closeDescriptor(socket.fd);
    }
    assertEquals(other.ask("lookup", { name: "vmci public group" }).error, undefined);
  }));

Deno.test("local server: who reads late gets all of it, who does not read is let go", () =>
  serving(async (path) => {
    await using _daemon = await start(path);
    using other = new RawClient(`${path}/main`);
    other.hello();
    for (const [requests, patient] of [[3_000, true], [200_000, false]] as const) {
      const socket = new PacketSocket(connectSeqpacket(`${path}/main`));
      let sent = 0;
      const message = (id: number) => encodeMessage({ id, op: "lookup", args: { name: "nobody" } });
      try {
        while (sent < requests) {
          if (socket.send(message(sent + 1))) sent++;
          else if (patient) other.ask("lookup", { name: "nobody" });
          // It does not take any more: the server has let go, or is busy with what there is.
          else other.ask("lookup", { name: "nobody" });
        }
      } catch (error) {
        if (patient) throw error;
      }
      if (patient) {
        for (let id = 1; id <= requests;) {
          assert(waitReadable([socket.fd], PATIENCE) > 0, `only ${id} of ${requests} were answered`);
          const packet = socket.receive();
          if (packet === undefined) continue;
          assertEquals([packet.end, packet.end ? 0 : decodeMessage(packet.bytes)?.id], [false, id]);
          id++;
        }
      } else assert(sent < requests, "it was let go");
      closeDescriptor(socket.fd);
    }
    assertEquals(other.ask("lookup", { name: "vmci public group" }).error, undefined);
  }));

// deno run --allow-ffi examples/datagram_app.ts -s --context 2
// deno run --allow-ffi examples/datagram_app.ts -c --context 16    (in another terminal, three times)

/**
 * The SDK's datagramApp: the server answers three queries, a client sends one and prints the answer.
 *
 * @module
 */

import { contextHandle, openVmci, PUBLIC_GROUP_NAME, type Vmci } from "@vmci/vmci";
import { giveUp, report, sampleOptions } from "./_sample.ts";

const SERVICE_NAME = "HOST INFO";
const BUFFER_SIZE = 4096;
const QUERIES = 3;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Answers everybody's queries, each to whom it came from. */
async function server(vmci: Vmci): Promise<void> {
  using endpoint = vmci.datagrams.create();

  // Other contexts may not send to it until they are told that they may.
  const everybody = vmci.discovery.lookup(PUBLIC_GROUP_NAME);
  vmci.access.addClientPrivileges(endpoint.handle, everybody, { allow: ["DG_SEND"] });
  vmci.discovery.register(SERVICE_NAME, endpoint.handle);

  console.log(`Answering ${QUERIES} queries to '${SERVICE_NAME}'.`);
  const buffer = new Uint8Array(BUFFER_SIZE);
  for (let query = 0; query < QUERIES; query++) {
    const size = await endpoint.receiveInto(buffer);
    console.log(`Received: ${decoder.decode(buffer.subarray(0, size))}`);
    endpoint.sendTo(endpoint.source, encoder.encode("HELLO, CLIENT!"));
  }
  vmci.discovery.unregister(SERVICE_NAME);
}

/** Sends one query and waits for the answer. */
async function client(vmci: Vmci): Promise<void> {
  const service = vmci.discovery.lookup(SERVICE_NAME);
  using endpoint = vmci.datagrams.create();

  // The answer comes from the server's context, which may not send here either, unless we say so before we ask.
  vmci.access.addClientPrivileges(endpoint.handle, contextHandle(service.context), { allow: ["DG_SEND"] });
  endpoint.sendTo(service, encoder.encode("HELLO, SERVER!"));

  const buffer = new Uint8Array(BUFFER_SIZE);
  const size = await endpoint.receiveInto(buffer);
  console.log(`Received: ${decoder.decode(buffer.subarray(0, size))}`);
}

const { device, contextId, role } = sampleOptions("datagram_app.ts");
await using vmci = await openVmci({ device, contextId }).catch(giveUp);
await report(role === "server" ? server(vmci) : client(vmci));

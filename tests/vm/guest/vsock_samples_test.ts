/** The sample application between processes: its server on the host's sockets and its clients as contexts, and back. */

import { assertEquals } from "@std/assert";
import { contextHandle, openVmci } from "@vmci/vmci";
import { guestTest } from "./support/guest.ts";
import { NAMES, serveNames } from "./support/names.ts";

await serveNames();

const HOST = ["-d", `vsock:${NAMES}`];
const context = (id: number) => ["-d", `/dev/vmci,${NAMES}`, "--context", `${id}`];

function start(...args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--no-lock", "--cached-only", "examples/datagram_app.ts", ...args],
    cwd: "/app",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function printed(child: Deno.ChildProcess): Promise<string> {
  const { stdout, stderr } = await child.output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

/** Runs a server while somebody asks it. */
async function serve(server: string[], ask: () => Promise<void>): Promise<void> {
  const serving = start("-s", ...server);
  const [first, rest] = serving.stdout.tee();
  const reader = first.getReader();
  await reader.read();
  // Done with when the other half is, too.
  const cancelled = reader.cancel();
  const served = Promise.all([new Response(rest).text(), new Response(serving.stderr).text(), serving.status]);
  await ask();
  const [out, errors, { code }] = await served;
  await cancelled;
  assertEquals([out, errors, code], [
    "Answering 3 queries to 'HOST INFO'.\n" + "Received: HELLO, SERVER!\n".repeat(3),
    "",
    0,
  ]);
}

guestTest(
  "vsock samples: datagram_app with its server on the host and clients that are contexts",
  () =>
    serve(HOST, async () => {
      const clients = [401, 402, 403].map((id) => printed(start("-c", ...context(id))));
      assertEquals(await Promise.all(clients), clients.map(() => "Received: HELLO, CLIENT!\n"));
    }),
);

guestTest(
  "vsock samples: datagram_app with its server in a context, asked by the host",
  () =>
    serve(context(404), async () => {
      assertEquals(await printed(start("-c", ...HOST)), "Received: HELLO, CLIENT!\n");
      await using vmci = await openVmci({ device: `vsock:${NAMES}` });
      const service = vmci.discovery.lookup("HOST INFO");
      using endpoint = vmci.datagrams.create();
      vmci.access.addClientPrivileges(endpoint.handle, contextHandle(service.context), { allow: ["DG_SEND"] });
      for (let query = 0; query < 2; query++) {
        endpoint.sendTo(service, new TextEncoder().encode("HELLO, SERVER!"));
        const { source, payload } = await endpoint.receive({ timeout: 20000 });
        assertEquals([source, new TextDecoder().decode(payload)], [service, "HELLO, CLIENT!"]);
      }
    }),
);

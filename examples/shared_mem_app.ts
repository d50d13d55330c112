// deno run --allow-ffi examples/shared_mem_app.ts -s --context 2
// deno run --allow-ffi examples/shared_mem_app.ts -c --context 16    (in another terminal, within ten seconds)

/**
 * The SDK's sharedMemApp: the server keeps the time in a shared region for ten seconds, a client reads it three times.
 *
 * @module
 */

import { openVmci, PUBLIC_GROUP_NAME, type Vmci } from "@vmci/vmci";
import { giveUp, report, sampleOptions } from "./_sample.ts";

const SERVICE_NAME = "HOST TIME";
const REGION_SIZE = 128;
const SERVER_ROUNDS = 10;
const CLIENT_ROUNDS = 3;

/** Shares the time with everybody, anew each second. */
async function server(vmci: Vmci): Promise<void> {
  // A region begins as zeroes. Only its creator writes to this one: the kernel sees to that.
  using region = vmci.sharedMemory.create(REGION_SIZE, { writers: "creator" });
  const writeTime = () => new TextEncoder().encodeInto(dateText(new Date()), region.bytes);
  writeTime();

  // Other contexts may do nothing with it until they are told that they may.
  const everybody = vmci.discovery.lookup(PUBLIC_GROUP_NAME);
  vmci.access.addClientPrivileges(region.handle, everybody, { allow: ["SM_ATTACH"] });
  vmci.discovery.register(SERVICE_NAME, region.handle);

  console.log(`Sharing the time as '${SERVICE_NAME}' for ${SERVER_ROUNDS} seconds.`);
  for (let round = 0; round < SERVER_ROUNDS; round++) {
    writeTime();
    await aSecond();
    Deno.stderr.writeSync(new TextEncoder().encode(`${round}.`));
  }
  console.error();
  vmci.discovery.unregister(SERVICE_NAME);
}

/** Reads the time where the server keeps it: after the attach no call is made, and nothing is copied. */
async function client(vmci: Vmci): Promise<void> {
  const handle = vmci.discovery.lookup(SERVICE_NAME);
  const size = vmci.sharedMemory.query(handle);
  if (size !== REGION_SIZE) {
    console.error(`The region '${SERVICE_NAME}' should have ${REGION_SIZE} bytes, but has ${size}.`);
    return;
  }
  using region = vmci.sharedMemory.attach(handle);
  for (let round = 0; round < CLIENT_ROUNDS; round++) {
    console.log(textIn(region.bytes));
    await aSecond();
  }
}

/** A time as C's `strftime` writes it with `%a %b %d %H:%M:%S %Z %Y`. */
function dateText(time: Date): string {
  const [weekday, month, day, year, clock] = time.toString().split(" ");
  const zone = new Intl.DateTimeFormat("en-US", { timeZoneName: "short" })
    .formatToParts(time).find(({ type }) => type === "timeZoneName")?.value;
  return `${weekday} ${month} ${day} ${clock} ${zone} ${year}`;
}

/** The text that ends at the first zero. */
function textIn(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function aSecond(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000));
}

const { device, contextId, role } = sampleOptions("shared_mem_app.ts");
await using vmci = await openVmci({ device, contextId }).catch(giveUp);
await report(role === "server" ? server(vmci) : client(vmci));

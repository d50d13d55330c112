/** The conformance suite on real devices, for the facets that they have. */

import { access } from "../../conformance/access.ts";
import { datagrams } from "../../conformance/datagrams.ts";
import { discovery } from "../../conformance/discovery.ts";
import { lifecycle } from "../../conformance/lifecycle.ts";
import type { Body, Declare, Facet } from "../../conformance/suite.ts";
import { devices } from "./support/device_fabric.ts";
import { guestTest } from "./support/guest.ts";
import { serveNames } from "./support/names.ts";

await serveNames();

const facets: Readonly<Record<string, Facet>> = { lifecycle, datagrams, access, discovery };

/**
 * What holds on devices too. The rest is about shared memory, about several programs in one context, about who is told
 * of what others do, about senders without a handle, or about a refusal that the sender hears at once: here every sender
 * has a handle, and it is the receiver who refuses.
 */
const everywhere: readonly string[] = [
  "who says nothing is the host",
  "options that make no sense",
  "a signal that is aborted keeps a program out",
  "nothing of access control works on a closed Vmci",
  "waiting for ever is no time at all",
  "a handle is of the creator's context, with an id that was never given",
  "a well-known id must be an id",
  "destroying by handle closes the endpoint and ends its waits",
  "a datagram arrives whole, with its source; sending gives the payload's size",
  "a datagram to oneself arrives",
  "a payload has 0 to 69608 bytes",
  "the payload is copied on both sides",
  "each source's datagrams arrive in its order",
  "senders are served in turn, however much one has queued",
  "a buffer too small is NO_MEM, and that datagram stays the next one",
  "a receive that waits gets what comes later",
  "several receives get one datagram each, in order",
  "a datagram without payload is received into an empty buffer",
  "a receive ends by time and by signal, and loses nothing",
  "what is there comes without waiting, whatever the timeout",
  "receiving without turning the event loop",
  "iterating gives what comes, until the endpoint is closed",
  "an iterator that waits ends when the endpoint or its Vmci is closed",
  "several iterators share the datagrams between them",
  "closing drops what is queued and ends every wait",
  "nothing works on a closed endpoint",
  "nothing works on an endpoint of a closed Vmci",
  "an endpoint declared with using is closed at the end",
  "what a closed source had sent is still delivered",
  "allow, deny, both, and back to not set",
  "an entry without anything set vanishes",
  "a client may be a context that is not there yet",
  "the own entry decides before any group",
  "of several groups, the one joined first that has the privilege set decides",
  "names are compared byte by byte",
  "names that are none",
  "first come, first served",
  "an unregistered name is free again, and the handle stays",
  "a list is in the order of bytes, by prefix",
  "who waits for a name gets it when it is there",
  "a wait for a name ends by time, signal and close",
  "a watch that begins with very many names tells all of them",
  "watches go on side by side, each with its prefix",
  "a watch ends by signal and close",
  "nothing works on a closed Vmci",
  "a client finds its server, and asks it for an answer",
];

/** What is about how datagrams get there; and what holds only where a full queue holds the sender back. */
const withNumbers: readonly string[] = [
  "destroying by handle closes the endpoint and ends its waits",
  "a datagram arrives whole, with its source; sending gives the payload's size",
  "a datagram to oneself arrives",
  "a payload has 0 to 69608 bytes",
  "the payload is copied on both sides",
  "each source's datagrams arrive in its order",
  "senders are served in turn, however much one has queued",
  "a buffer too small is NO_MEM, and that datagram stays the next one",
  "a receive that waits gets what comes later",
  "receiving without turning the event loop",
  "closing drops what is queued and ends every wait",
  "what a closed source had sent is still delivered",
  "a client finds its server, and asks it for an answer",
  "whatever the sizes, all arrives in order and intact",
  "who waits for room goes on when the receiver has read",
];

for (const reliable of [false, true]) {
  const medium = devices(reliable);
  const wanted = new Set(reliable ? withNumbers : everywhere);
  for (const [facet, declare] of Object.entries(facets)) {
    const test = (name: string, body: Body): void => {
      if (!wanted.delete(name)) return;
      guestTest(`${medium.name}: ${facet}: ${name}`, async () => {
        await using fabric = await medium.create();
        await body(fabric);
      });
    };
    const declared: Declare = Object.assign(test.bind(undefined), { alone: test });
    declare(declared, medium);
  }
  // A test that was given another name must not be left out silently.
  if (wanted.size > 0) throw new Error(`the suite has no tests ${[...wanted].join("; ")}`);
}

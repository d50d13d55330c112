/**
 * The broker's server when the system fails it: it runs in the test's own thread, and whenever it has nothing left to do
 * the test takes its next step. So everything comes in one order, and what is counted is counted in between.
 */

import { assertEquals, assertGreater, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { closeDescriptor } from "../ffi/descriptor.ts";
import { interposeLibc, type LibcCall, setErrno, SystemError } from "../ffi/libc.ts";
import { ResourceLimit } from "../ffi/resource_limit.ts";
import { writeAt } from "../ffi/file.ts";
import { addSeals, createMemfd, Seal } from "../ffi/memfd.ts";
import { connectSeqpacket, listenSeqpacket, PacketSocket, seqpacketPair, streamPair } from "../ffi/unix_socket.ts";
import { type Handle, INVALID_HANDLE, type VmciError } from "../mod.ts";
import type { BrokerThreadConfig } from "../src/fabric/local/broker_thread_config.ts";
import { isSameProcess } from "../src/fabric/local/client_ledger.ts";
import { LocalServer } from "../src/fabric/local/local_server.ts";
import { decodeMessage, encodeMessage } from "../src/fabric/local/packet_codec.ts";
import { RunDirectory } from "../src/fabric/local/run_directory.ts";
import type { Message } from "../src/fabric/protocol.ts";
import { countDescriptors, inDirectory, test, withFailures } from "./ffi/support.ts";
import { failsSync } from "./support/failure.ts";
import { helloArgs } from "./support/broker_world.ts";
import { TestClock } from "./support/test_clock.ts";

const EIO = 5;
const EMFILE = 24;
const ENOSPC = 28;
const ETOOMANYREFS = 109;
const FIXED = Seal.SHRINK | Seal.GROW | Seal.SEAL;

/** A step of the test's, which is told this process' connection; `idle` lets the server's patience pass first. */
type Step = (lifeline: number) => void | "idle";

/** A server in a directory of its own, and those who come to it. */
class Served implements Disposable {
  readonly #path: string;
  readonly #clients: Client[] = [];
  /** What stands in for calls of the server's. */
  readonly #instead = new Map<string, (call: LibcCall) => LibcCall>();
  #stepping = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Sockets that it is to attend to as well; it closes them. */
  readonly sockets: BrokerThreadConfig["sockets"][number][] = [];

  /** Somebody who connects. */
  connect(socket = "socket"): Client {
    const client = new Client(`${this.#path}/${socket}`);
    this.#clients.push(client);
    return client;
  }

  /** The next call of that symbol by the server fails. */
  fail(symbol: string, errno: number): void {
    this.instead(symbol, () => () => failed(errno));
  }

  /** The next call of that symbol by the server is this one. */
  instead(symbol: string, replace: (call: LibcCall) => LibcCall): void {
    this.#instead.set(symbol, replace);
  }

  /** From now on whoever connects is another user, for the server. */
  pretendUser(uid: number): void {
    const pretend = (call: LibcCall): LibcCall => (...args) => {
      const result = call(...args);
      (args[3] as Uint32Array)[1] = uid;
      this.instead("getsockopt", pretend);
      return result;
    };
    this.instead("getsockopt", pretend);
  }

  /** From now on the server may have so many descriptors, as it sees it. */
  pretendLimit(limit: number): void {
    const pretend = (call: LibcCall): LibcCall => (...args) => {
      const result = call(...args);
      if (args[0] === ResourceLimit.NOFILE) (args[1] as BigUint64Array).fill(BigInt(limit));
      this.instead("getrlimit", pretend);
      return result;
    };
    this.instead("getrlimit", pretend);
  }

  /** Serves until the steps are done. */
  serve(steps: readonly Step[], config: Partial<BrokerThreadConfig> = {}): void {
    const [lifeline, connection] = seqpacketPair();
    let left: readonly Step[] = [...steps, () => closeDescriptor(lifeline)];
    interposeLibc((name, call) => (...args) => {
      if (this.#stepping) return call(...args);
      if (name !== "epoll_wait") {
        const replace = this.#instead.get(name);
        this.#instead.delete(name);
        return replace === undefined ? call(...args) : replace(call)(...args);
      }
      for (;;) {
        const count = call(args[0], args[1], args[2], 0);
        if (count !== 0) return count;
        const [step, ...rest] = left;
        left = rest;
        if (step === undefined) throw new Error("the server goes on though its process has let go");
        this.#stepping = true;
        try {
          if (step(lifeline) === "idle") return 0;
        } finally {
          this.#stepping = false;
        }
      }
    });
    try {
      const lock = new RunDirectory(this.#path).tryLock()!;
      new LocalServer({ ...DAEMON, directory: this.#path, sockets: this.sockets, lock, connection, ...config }).run();
    } finally {
      interposeLibc(undefined);
    }
    assertEquals(left, []);
  }

  /** All who came leave. */
  [Symbol.dispose](): void {
    for (const client of this.#clients) client.close();
  }
}

const DAEMON: Omit<BrokerThreadConfig, "lock" | "connection"> = {
  kind: "daemon",
  directory: undefined,
  sockets: [],
  quota: undefined,
  spins: false,
  state: undefined,
  policy: undefined,
  audit: undefined,
};

function failed(errno: number): number {
  setErrno(errno);
  return -1;
}

/** Runs a test with a server's directory. */
function serving(act: (served: Served, path: string) => void): () => void {
  return () =>
    inDirectory((path) => {
      Deno.chmodSync(path, 0o700);
      using served = new Served(path);
      act(served, path);
    });
}

/** A client that says things and looks later what came. */
class Client {
  readonly #socket: PacketSocket;
  #requests = 0;
  #open = true;

  constructor(path: string) {
    this.#socket = new PacketSocket(connectSeqpacket(path));
  }

  /** Asks; `false` when there is no room for it. */
  ask(op: string, args: unknown = {}, descriptors: readonly number[] = []): boolean {
    return this.#socket.send(encodeMessage({ id: ++this.#requests, op, args }), descriptors);
  }

  /** Sends bytes that may be no message. */
  say(bytes: Uint8Array): void {
    this.#socket.send(bytes);
  }

  /** Says hello. */
  hello(context: number | null = null, more: Message = {}): void {
    const attention = createMemfd("attention", 4096);
    addSeals(attention, FIXED | Seal.FUTURE_WRITE);
    this.ask("hello", { ...helloArgs(), context, ...more }, [attention]);
    closeDescriptor(attention);
  }

  /** What came next: a message, the end, or nothing. */
  next(): Message | "end" | undefined {
    const packet = this.#socket.receive();
    if (packet === undefined) return undefined;
    packet.descriptors.forEach(closeDescriptor);
    return packet.end ? "end" : decodeMessage(packet.bytes)!;
  }

  /** All that came. */
  all(): (Message | "end")[] {
    const all: (Message | "end")[] = [];
    for (let next = this.next(); next !== undefined; next = this.next()) {
      all.push(next);
      if (next === "end") break;
    }
    return all;
  }

  /** The last result, of the kind that is expected. */
  result<T>(): T {
    const last = this.all().at(-1) as Message;
    assertEquals(last.error, undefined);
    return last.result as T;
  }

  /** The codes and names of what came. */
  heard(): unknown[] {
    return this.all().map((it) => it === "end" ? it : (it.error as VmciError)?.code ?? it.notice ?? "ok");
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeDescriptor(this.#socket.fd);
  }
}

const lookup = { name: "vmci public group" };

// --- Beginning and end ------------------------------------------------------------------------------------------------

test(
  "local server: one that cannot begin leaves nothing behind, and says why",
  serving((_served, path) => {
    const begin = (symbol: string, config: Partial<BrokerThreadConfig> = {}, nth = 1) => {
      const [lifeline, connection] = seqpacketPair();
      const lock = new RunDirectory(path).tryLock()!;
      let calls = 0;
      interposeLibc((name, call) => (...args) => name === symbol && ++calls === nth ? failed(EMFILE) : call(...args));
      try {
        new LocalServer({ ...DAEMON, directory: path, lock, connection, ...config });
      } finally {
        interposeLibc(undefined);
        [lifeline, connection, lock].forEach(closeDescriptor);
      }
    };
    const listens = () => [...Deno.readDirSync(path)].filter(({ name }) => name.startsWith("socket"));
    for (const symbol of ["epoll_create1", "epoll_ctl", "bind", "listen", "rename", "getsockopt"]) {
      assertThrows(() => begin(symbol), SystemError, "EMFILE", symbol);
      assertEquals(listens(), [], symbol);
    }
    // It cannot attend to its own socket; and it listens in its directory already, and cannot at the second socket.
    const descriptor = listenSeqpacket(`${path}/second`, 8);
    const sockets = [{ descriptor, context: 16 }];
    for (const nth of [2, 3]) assertThrows(() => begin("epoll_ctl", { sockets }, nth), SystemError, "EMFILE");
    assertEquals(listens(), []);
    closeDescriptor(descriptor);
    assertThrows(() => begin("none", { audit: `${path}/none/audit` }), SystemError, "ENOENT");
    failsSync("INVALID_ARGS", () => begin("none", { policy: { text: "nonsense", name: "policy" } }));
  }),
);

test(
  "local server: when it ends its clients hear that, and nobody is told that the others are gone",
  serving((served) => {
    let [client, other]: Client[] = [];
    served.serve([
      () => {
        client = served.connect();
        other = served.connect();
        client.hello();
        other.hello(16);
        other.ask("subscribe");
      },
      () => assertEquals([client!.heard(), other!.heard()], [["ok"], ["ok", "ok"]]),
    ]);
    assertEquals([client!.all(), other!.all()], [["end"], ["end"]]);
  }),
);

// --- Coming -----------------------------------------------------------------------------------------------------------

test(
  "local server: who cannot be let in for want of descriptors waits, the others are served meanwhile",
  serving((served) => {
    let [client, other]: Client[] = [];
    served.serve([
      () => (client = served.connect()).hello(),
      () => {
        assertEquals(client!.heard(), ["ok"]);
        served.fail("accept4", EMFILE);
        (other = served.connect()).hello();
      },
      () => {
        assertEquals(other!.all(), []);
        served.fail("accept4", EMFILE);
        client!.ask("lookup", lookup);
      },
      () => {
        assertEquals([client!.heard(), other!.heard()], [["ok"], []]);
        return "idle";
      },
      () => assertEquals(other!.heard(), ["ok"]),
    ]);
  }),
);

test(
  "local server: what a welcome needs and the system lacks is said, and the client goes",
  serving((served) => {
    const clients: Client[] = [];
    const failing = (symbol: string): Step[] => [
      () => {
        clients.push(served.connect());
        served.fail(symbol, EMFILE);
        clients.at(-1)!.hello();
      },
      () => {
        const [reply, end] = clients.at(-1)!.all() as [Message, string];
        const { code, reason } = reply.error as VmciError;
        assertEquals([code, end], ["NO_RESOURCES", "end"]);
        assertStringIncludes(reason, "the broker cannot make what this needs");
      },
    ];
    served.serve([...failing("memfd_create"), ...failing("socketpair"), ...failing("mmap")]);
  }),
);

test(
  "local server: another user is told that nobody lets him in, at his first word, and it is in the audit log",
  serving((served, path) => {
    const audit = `${path}/audit`;
    let [mute, client]: Client[] = [];
    served.serve([
      () => {
        served.pretendUser(4321);
        mute = served.connect();
        client = served.connect();
        client.hello(17);
        client.ask("lookup", lookup);
      },
      () => {
        const [reply, end] = client!.all() as [Message, string];
        const { code, reason } = reply.error as VmciError;
        assertEquals([code, end, mute!.all()], ["NO_ACCESS", "end", []]);
        assertStringIncludes(reason, `process ${Deno.pid} is user 4321's, whom no policy lets in`);
      },
    ], { audit });
    const lines = Deno.readTextFileSync(audit).trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(lines.map(({ event, op, uid }) => [event, op, uid]), [
      ["denied", "connect", 4321],
      ["denied", "connect", 4321],
    ]);
  }),
);

/** Runs a test with a server that has a context's socket too. */
function servingContext(context: number, act: (served: Served, others: () => Client) => void): () => void {
  return serving((served, path) => {
    const descriptor = listenSeqpacket(`${path}/vm`, 256);
    served.sockets.push({ descriptor, context });
    act(served, () => served.connect("vm"));
  });
}

test(
  "local server: who only connects is let go when there are too many of him; who says hello is not",
  servingContext(16, (served, another) => {
    const silent: Client[] = [];
    const talking: Client[] = [];
    let own: Client;
    served.serve([
      // More than may be silent, all at once.
      () => {
        for (let i = 0; i < 100; i++) {
          talking.push(another());
          talking.at(-1)!.hello();
        }
      },
      () => assertEquals(talking.map((it) => it.heard()), talking.map(() => ["ok"])),
      () => {
        for (let i = 0; i < 70; i++) silent.push(another());
      },
      () => {
        assertEquals(silent.map((it) => it.heard().length), [...new Array(64).fill(0), ...new Array(6).fill(1)]);
        assertEquals(silent.at(-1)!.heard(), ["end"]);
        // The broker's own user comes in all the same, and so does who knows to say hello.
        (own = served.connect()).hello();
        silent[0]!.hello();
        talking.push(another());
      },
      () => {
        assertEquals([own!.heard(), silent[0]!.heard(), talking.at(-1)!.heard()], [["ok"], ["ok"], []]);
        for (const it of silent) it.close();
      },
      () => {
        for (let i = 0; i < 63; i++) talking.push(another());
      },
      () => assertEquals(talking.slice(100).flatMap((it) => it.heard()), []),
    ]);
  }),
);

test(
  "local server: while descriptors are scarce, nobody but the broker's own user has more than a few connections",
  servingContext(16, (served, another) => {
    const clients: Client[] = [];
    served.serve([
      () => {
        served.pretendLimit(countDescriptors());
        for (let i = 0; i < 9; i++) {
          clients.push(another());
          clients.at(-1)!.hello();
        }
        for (let i = 0; i < 9; i++) {
          clients.push(served.connect());
          clients.at(-1)!.hello();
        }
      },
      () => {
        const heard = clients.map((it) => it.heard()[0]);
        assertEquals(heard, clients.map((_, i) => i === 8 ? "end" : "ok"));
      },
    ]);
  }),
);

test(
  "local server: users whom no policy lets in share a few places until they speak",
  serving((served) => {
    const clients: Client[] = [];
    served.serve([
      () => {
        served.pretendUser(4321);
        for (let i = 0; i < 65; i++) clients.push(served.connect());
      },
      () => {
        assertEquals(clients.map((it) => it.heard().length), [...new Array(64).fill(0), 1]);
        clients[0]!.hello();
      },
      () => {
        assertEquals(clients[0]!.heard(), ["NO_ACCESS", "end"]);
        clients.push(served.connect());
      },
      () => assertEquals(clients.at(-1)!.heard(), []),
    ]);
  }),
);

test(
  "local server: a policy lets another user into some contexts, and into no others",
  serving((served) => {
    let client: Client;
    const policy = { text: "allow uid 4321 context 17-18\n", name: "policy" };
    served.serve([
      () => {
        served.pretendUser(4321);
        client = served.connect();
        client.hello(16);
        client.hello(18);
        client.ask("lookup", lookup);
      },
      () => assertEquals(client.heard(), ["NO_ACCESS", "ok", "ok"]),
    ], { policy });
  }),
);

// --- Packets ----------------------------------------------------------------------------------------------------------

test(
  "local server: a connection that cannot be read is let go, the others are served",
  serving((served) => {
    let [client, other]: Client[] = [];
    served.serve([
      () => {
        client = served.connect();
        other = served.connect();
        client.hello(16);
        other.hello(17);
      },
      () => {
        assertEquals([client!.heard(), other!.heard()], [["ok"], ["ok"]]);
        served.fail("recvmsg", EIO);
        client!.ask("lookup", lookup);
      },
      () => void other!.ask("lookup", lookup),
      () => assertEquals([client!.heard(), other!.heard()], [["end"], ["ok"]]),
    ]);
  }),
);

test(
  "local server: a request whose descriptors could not be taken in is refused, and none of them is kept",
  serving((served) => {
    let client: Client;
    let before: number;
    const region = createMemfd("region", 4096);
    served.serve([
      () => (client = served.connect()).hello(),
      () => {
        assertEquals(client.heard(), ["ok"]);
        before = countDescriptors();
        // Room for one descriptor and not for two, as where the process has no more.
        served.instead("recvmsg", (call) => (...args) => {
          (args[1] as DataView).setBigUint64(40, 20n, true);
          return call(...args);
        });
        client.ask("create_region", { size: 4096, creatorOnly: false }, [region, region]);
      },
      () => {
        assertEquals([client.heard(), countDescriptors()], [["NO_RESOURCES"], before]);
        client.ask("lookup", lookup);
      },
      () => assertEquals(client.heard(), ["ok"]),
    ]);
    closeDescriptor(region);
  }),
);

test(
  "local server: memory that is not what its creator says is refused, and given back",
  serving((served) => {
    const [socket, end] = streamPair();
    const memfd = (size: number, seals: number) => {
      const fd = createMemfd("region", size);
      addSeals(fd, seals);
      return fd;
    };
    const wrong = [socket, end, memfd(8192, FIXED), memfd(4096, Seal.SHRINK), memfd(4096, FIXED | Seal.WRITE)];
    wrong.push(memfd(4096, FIXED | Seal.FUTURE_WRITE));
    const right = memfd(4096, FIXED);
    let client: Client;
    let before = 0;
    const create = (fd: number) => client.ask("create_region", { size: 4096, creatorOnly: false }, [fd]);
    served.serve([
      () => (client = served.connect()).hello(),
      () => {
        assertEquals(client.heard(), ["ok"]);
        before = countDescriptors();
        wrong.forEach(create);
      },
      () => {
        assertEquals([client.heard(), countDescriptors()], [wrong.map(() => "INVALID_ARGS"), before]);
        create(right);
      },
      () => assertEquals([client.heard(), countDescriptors()], [["ok"], before + 1]),
    ]);
    [...wrong, right].forEach(closeDescriptor);
  }),
);

test(
  "local server: who is gone when he should be told something is let go, though it was about to look at him",
  serving((served) => {
    let [watcher, client, guest]: Client[] = [];
    served.serve([
      () => {
        [watcher, client, guest] = [served.connect(), served.connect(), served.connect()];
        watcher.hello();
        client.hello();
      },
      () => void watcher!.ask("subscribe"),
      () => {
        assertEquals([watcher!.heard(), client!.heard()], [["ok", "ok"], ["ok"]]);
        // Both are seen at once: the guest comes first, and of that the watcher should be told.
        guest!.hello(16);
        watcher!.close();
      },
      () => {
        assertEquals(guest!.heard(), ["ok"]);
        client!.ask("inspect", { topic: "contexts", after: 0 });
      },
      () => {
        const { entries } = client!.result<{ entries: Message[] }>();
        assertEquals(entries.map(({ context, clients }) => [context, clients]), [[2, 1], [16, 1]]);
      },
    ]);
  }),
);

/** The handle that a message brings. */
function handlesIn({ result }: Message): Handle[] {
  const { handle } = (result ?? {}) as { handle?: Handle };
  return handle === undefined ? [] : [handle];
}

/** Fills a client's socket with answers that it does not read. */
function fill(client: Client, answers: number): void {
  for (let sent = 0; sent < answers && client.ask("lookup", lookup); sent++);
}

test(
  "local server: what waits for a client that does not read comes with its descriptors and in its order",
  serving((served) => {
    let [reader, writer]: Client[] = [];
    let handle: Handle;
    let waiting = 0;
    const came: (Message | "end")[] = [];
    served.serve([
      () => {
        [reader, writer] = [served.connect(), served.connect()];
        for (const client of [reader, writer]) client.hello();
        const memory = createMemfd("region", 4096);
        addSeals(memory, FIXED);
        reader.ask("create_region", { size: 4096, creatorOnly: false }, [memory]);
        closeDescriptor(memory);
      },
      () => void ({ handle } = reader!.result<{ handle: Handle }>()),
      ...Array.from({ length: 5 }, () => () => fill(reader!, 200)),
      () => {
        waiting = countDescriptors();
        writer!.ask("attach", { handle });
        writer!.ask("watch_region", { handle });
      },
      () => {
        assertEquals(writer!.heard(), ["ok", "ok", "peer", "ok"]);
        // A bell and the watcher's attention word.
        assertEquals(countDescriptors(), waiting + 2);
      },
      ...Array.from({ length: 20 }, () => () => void came.push(...reader!.all())),
      () => {
        const kinds = (came as Message[]).map(({ notice }) => notice ?? "reply");
        assertEquals(kinds.slice(1000), ["region_peer", "peer", "watcher"]);
        assertEquals(countDescriptors(), waiting);
      },
    ]);
  }),
);

test(
  "local server: of lanes that who does not read cannot be handed he hears nothing, and each sender gets an error",
  serving((served) => {
    let [reader, sender]: Client[] = [];
    const ends: Handle[] = [];
    const open = (destination: Handle) => sender!.ask("open_lane", { source: INVALID_HANDLE, destination });
    served.serve([
      () => {
        [reader, sender] = [served.connect(), served.connect()];
        reader.hello();
        sender.hello();
        for (let i = 0; i < 2; i++) reader.ask("create_endpoint", { resource: null, wellKnown: false });
      },
      () => {
        for (const it of reader!.all()) ends.push(...handlesIn(it as Message));
        sender!.all();
        fill(reader!, 1);
      },
      ...Array.from({ length: 5 }, () => () => fill(reader!, 200)),
      () => {
        for (let i = 0; i < 50; i++) open(ends[i % 2]!);
      },
      () => {
        const replies = (sender!.all() as Message[]).filter(({ notice }) => notice === undefined);
        assertEquals(replies.map(({ error }) => (error as VmciError).code), new Array(50).fill("NO_RESOURCES"));
      },
      ...Array.from(
        { length: 20 },
        () => () => assertEquals(new Set(reader!.heard()).difference(new Set(["ok"])).size, 0),
      ),
      // Nothing of them counts against him.
      () => {
        for (const end of ends) open(end);
      },
      () => assertEquals(sender!.heard(), ["ok", "ok"]),
    ]);
  }),
);

test(
  "local server: whom no more descriptors can be sent hears of it without them, and nobody is let go",
  serving((served) => {
    let [reader, sender]: Client[] = [];
    let destination: Handle;
    served.serve([
      () => {
        [reader, sender] = [served.connect(), served.connect()];
        reader.hello();
        sender.hello();
        reader.ask("create_endpoint", { resource: null, wellKnown: false });
      },
      () => {
        [destination] = reader!.all().flatMap((it) => handlesIn(it as Message)) as [Handle];
        sender!.all();
        served.fail("sendmsg", ETOOMANYREFS);
        sender!.ask("open_lane", { source: INVALID_HANDLE, destination });
      },
      () => {
        const [lane] = reader!.all() as [Message];
        assertEquals([lane.notice, lane.incomplete], ["lane", true]);
        reader!.ask("forget_peer", { peer: lane.peer });
        assertEquals(sender!.heard(), ["ok"]);
      },
      () => assertEquals([reader!.heard(), sender!.heard()], [["lane_closed", "ok"], ["peer_gone", "lane_closed"]]),
    ]);
  }),
);

test(
  "local server: who cannot be sent what waited for him is let go, with all that was kept for him",
  serving((served) => {
    let [reader, sender]: Client[] = [];
    let before = 0;
    served.serve([
      () => {
        [reader, sender] = [served.connect(), served.connect()];
        reader.hello();
        sender.hello();
      },
      ...Array.from({ length: 5 }, () => () => fill(reader!, 200)),
      () => {
        before = countDescriptors();
        served.fail("sendmsg", EIO);
        assertGreater(reader!.all().length, 100);
      },
      () => {
        assertEquals(reader!.all(), ["end"]);
        // Its connection, its bell and its attention word.
        assertEquals(countDescriptors(), before - 3);
        sender!.ask("lookup", lookup);
      },
      () => assertEquals(sender!.heard(), ["ok", "ok"]),
    ]);
  }),
);

// --- After another broker ---------------------------------------------------------------------------------------------

test(
  "local server: nobody is told a false no while somebody may come back, until he is gone",
  serving((served, path) => {
    const { fd: survivor } = new RunDirectory(path).takeSlot();
    using clock = new TestClock();
    let client: Client;
    served.serve([
      () => {
        client = served.connect();
        client.hello();
        client.ask("lookup", { name: "of the survivor" });
        client.ask("lookup", lookup);
      },
      () => {
        assertEquals(client.all().map((it) => (it as Message).id), [1, 3]);
        clock.now += 20;
        return "idle";
      },
      () => {
        assertEquals(client.all(), []);
        closeDescriptor(survivor);
        clock.now += 20;
        return "idle";
      },
      () => assertEquals(client.heard(), ["settled", "NOT_FOUND"]),
    ]);
  }),
);

test(
  "local server: who lives and does not come back is waited for so long, in time in which the server runs",
  serving((served, path) => {
    const { fd: survivor } = new RunDirectory(path).takeSlot();
    using clock = new TestClock();
    let client: Client;
    const waits = (milliseconds: number): Step => () => {
      assertEquals(client.all(), []);
      clock.now += milliseconds;
      return "idle";
    };
    try {
      served.serve([
        () => {
          client = served.connect();
          client.hello();
          client.ask("lookup", { name: "of the survivor" });
        },
        () => assertEquals(client.heard(), ["ok"]),
        // A process that was stopped for a minute has not waited for a minute.
        waits(60_000),
        ...Array.from({ length: 29 }, () => waits(100)),
        // And those that are waited for are looked at every 20 milliseconds.
        waits(19),
        waits(1),
        () => assertEquals(client.heard(), ["settled", "NOT_FOUND"]),
      ]);
    } finally {
      closeDescriptor(survivor);
    }
  }),
);

test(
  "local server: who is waited for is looked at now and then, each process once, whatever is asked meanwhile",
  serving((served, path) => {
    const before = new RunDirectory(path).openLedger();
    // Somebody else's process, that lives as long as the test.
    for (let number = 2000; number < 2010; number++) before.add(number, 1);
    before.close();
    let looks = 0;
    const looking = (call: LibcCall): LibcCall => (...args) => {
      if (new TextDecoder().decode(args[0] as Uint8Array).startsWith("/proc/1/stat")) looks++;
      served.instead("open", looking);
      return call(...args);
    };
    served.instead("open", looking);
    using clock = new TestClock();
    let client: Client;
    const seen = (count: number): Step => () => {
      assertEquals(looks, count);
      looks = 0;
    };
    const waits = (milliseconds: number): Step => () => {
      clock.now += milliseconds;
      return "idle";
    };
    served.serve([
      seen(1),
      () => (client = served.connect()).hello(),
      () => assertEquals(client.heard(), ["ok"]),
      seen(0),
      ...Array.from({ length: 40 }, (): Step => () => void client.ask("lookup", lookup)),
      () => assertEquals(client.heard().length, 40),
      seen(0),
      waits(20),
      seen(1),
      waits(19),
      seen(0),
      waits(1),
      seen(1),
    ], { state: path });
  }),
);

test(
  "local server: a daemon waits for the clients of the one before, and forgets those that are gone",
  serving((served, path) => {
    const state = new RunDirectory(path);
    const before = state.openLedger();
    before.add(2000, Deno.pid);
    before.close();
    let client: Client;
    using clock = new TestClock();
    const wait: Step = () => {
      clock.now += 100;
      return "idle";
    };
    served.serve([
      () => {
        client = served.connect();
        client.hello();
        client.ask("lookup", { name: "of the one before" });
      },
      () => assertEquals(client.heard(), ["ok"]),
      ...Array.from({ length: 32 }, () => wait),
      () => assertEquals(client.heard(), ["settled", "NOT_FOUND"]),
    ], { state: path });
    const after = state.openLedger();
    // The daemon ended with one client: that one is whom the next waits for.
    assertEquals(after.readSurvivors().map(({ client, pid }) => [client !== 2000, pid]), [[true, Deno.pid]]);
    after.close();
  }),
);

// --- The audit log ----------------------------------------------------------------------------------------------------

test(
  "local server: what one origin has refused again and again is counted in the audit log, whoever connects again",
  serving((served, path) => {
    const audit = `${path}/audit`;
    served.sockets.push({ descriptor: listenSeqpacket(`${path}/vm`, 8), context: 16 });
    const guess = { handle: { context: 2, resource: 4000 } };
    let client: Client;
    const flood: Step[] = Array.from({ length: 15 }, () => [
      () => {
        client = served.connect("vm");
        client.hello();
        for (let i = 0; i < 100; i++) client.ask("attach", guess);
      },
      () => {
        assertEquals(client.heard(), ["ok", ...new Array(100).fill("NOT_FOUND")]);
        client.close();
      },
    ]).flat();
    served.serve([
      ...flood,
      () => (client = served.connect("vm")).hello(),
      () => {
        client.ask("register", { name: "x", handle: guess.handle });
        client.ask("lookup", { name: "nobody's" });
      },
    ], { audit });
    const lines = Deno.readTextFileSync(audit).trim().split("\n").map((line) => JSON.parse(line));
    const refused = lines.filter(({ op, event }) => op === "attach" && event === "denied");
    const omitted = lines.filter(({ event }) => event === "omitted");
    // However long this took, there is one more for each second.
    assertGreater(1100, refused.length);
    assertEquals(omitted.map(({ kind }) => kind).at(-1), "denied attach by context 16");
    assertEquals(refused.length + omitted.reduce((sum, { lines }) => sum + lines, 0), 1500);
    const others = lines.filter(({ op, event }) => event === "denied" && op !== "attach");
    assertEquals(others.map(({ op, code }) => [op, code]), [["register", "INVALID_ARGS"]]);
  }),
);

test(
  "local server: who is let go is in the audit log with the reason, who leaves is not",
  serving((served, path) => {
    const audit = `${path}/audit`;
    const clients: Client[] = [];
    served.serve([
      () => {
        for (let i = 0; i < 3; i++) (clients[i] = served.connect()).hello();
      },
      () => {
        clients[0]!.say(new Uint8Array([123]));
        clients[1]!.close();
      },
      () => {
        served.fail("recvmsg", EIO);
        clients[2]!.ask("lookup", lookup);
      },
      () => assertEquals(clients[2]!.heard(), ["ok", "end"]),
    ], { audit });
    const lines = Deno.readTextFileSync(audit).trim().split("\n").map((line) => JSON.parse(line));
    const dropped = lines.filter(({ event }) => event === "dropped").map(({ context, reason }) => [context, reason]);
    assertEquals(dropped.length, 2);
    assertEquals(dropped[0], [2, "what it sent is no message"]);
    assertMatch(dropped[1]![1], /^it cannot be read: .*EIO/);
  }),
);

// --- A file system that fails -----------------------------------------------------------------------------------------

/** Notes what is complained of while something runs. */
function complaints(act: () => void): string[] {
  const said: string[] = [];
  const real = console.error;
  console.error = (text: string) => void said.push(text);
  try {
    act();
  } finally {
    console.error = real;
  }
  return said;
}

test(
  "local server: whom the next daemon could not know is not let in, and whoever cannot be forgotten harms nobody",
  serving((served, path) => {
    const clients: Client[] = [];
    const come = (nth: number) => (clients[nth] = served.connect()).hello();
    let before = 0;
    const said = complaints(() =>
      served.serve([
        () => come(0),
        () => {
          assertEquals(clients[0]!.heard(), ["ok"]);
          before = countDescriptors();
          served.fail("pwrite", ENOSPC);
          come(1);
        },
        () => {
          assertEquals(clients[1]!.heard(), ["NO_RESOURCES", "end"]);
          clients[1]!.close();
          assertEquals(countDescriptors(), before);
          come(1);
        },
        () => {
          assertEquals(clients[1]!.heard(), ["ok"]);
          served.fail("pwrite", EIO);
          clients[1]!.close();
        },
        () => come(1),
        () => assertEquals(clients[1]!.heard(), ["ok"]),
        () => clients[0]!.ask("lookup", lookup),
        () => assertEquals(clients[0]!.heard(), ["ok"]),
      ], { state: path })
    );
    assertEquals(said.length, 1);
    assertMatch(said[0]!, /^vmci: cannot write that client \d+ left: .*EIO/);
    const ledger = new RunDirectory(path).openLedger();
    assertEquals(ledger.readSurvivors().length, 2, "the place of who left was the next one's");
    ledger.close();
  }),
);

test(
  "local server: a daemon that cannot forget who did not come back goes on",
  serving((served, path) => {
    const before = new RunDirectory(path).openLedger();
    // Somebody else's process, that lives as long as the test.
    before.add(2000, 1);
    before.close();
    let client: Client;
    using clock = new TestClock();
    const said = complaints(() =>
      served.serve([
        () => (client = served.connect()).hello(),
        () => {
          assertEquals(client.heard(), ["ok"]);
          served.fail("pwrite", EIO);
        },
        ...Array.from({ length: 32 }, (): Step => () => {
          clock.now += 100;
          return "idle";
        }),
        () => void client.ask("lookup", { name: "of the one before" }),
        () => assertEquals(client.heard(), ["settled", "NOT_FOUND"]),
      ], { state: path })
    );
    assertMatch(said.join(), /^vmci: cannot write that client 2000 left: .*EIO[^,]*$/);
  }),
);

test(
  "local server: numbers that cannot be reserved are given to nobody, until they can",
  serving((served) => {
    const clients: Client[] = [];
    const come = (nth: number) => (clients[nth] = served.connect()).hello();
    served.serve([
      () => {
        served.fail("pwrite", ENOSPC);
        come(0);
      },
      () => {
        assertEquals(clients[0]!.heard(), ["NO_RESOURCES"]);
        come(1);
      },
      () => assertEquals(clients[1]!.heard(), ["ok"]),
    ]);
  }),
);

test(
  "local server: what a client hands in may fail to close, and that is nobody's harm",
  serving((served) => {
    let client: Client;
    const file = createMemfd("region", 4096);
    addSeals(file, FIXED);
    const failClose = () =>
      served.instead("close", (call) => (...args) => {
        call(...args);
        return failed(EIO);
      });
    const create = () => client.ask("create_region", { size: 4096, creatorOnly: true }, [file]);
    served.serve([
      () => (client = served.connect()).hello(),
      () => {
        assertEquals(client.heard(), ["ok"]);
        failClose();
        create();
      },
      () => {
        assertEquals(client.heard(), ["INVALID_ARGS"]);
        client.ask("lookup", lookup);
      },
      () => assertEquals(client.heard(), ["ok"]),
    ]);
    closeDescriptor(file);
  }),
);

test("local server: whose process cannot be seen for want of descriptors is waited for", () => {
  const entry = { client: 2000, pid: 1, started: 0n };
  assertEquals(isSameProcess(entry), false);
  assertEquals(withFailures("open", EMFILE, 1, () => isSameProcess(entry)), true);
  assertEquals(isSameProcess({ ...entry, pid: 2 ** 30 }), false);
});

test(
  "local server: a policy that cannot be taken over is refused with the reason, and the next one is taken",
  serving((served) => {
    const set = (lifeline: number, id: number, text: string | undefined) => {
      const bytes = new TextEncoder().encode(text ?? "x");
      const fd = createMemfd("policy", bytes.length);
      writeAt(fd, bytes, 0);
      const message = encodeMessage({ id, op: "set_policy", args: {} });
      new PacketSocket(lifeline).send(message, text === undefined ? [] : [fd, fd]);
      closeDescriptor(fd);
    };
    const replied = (lifeline: number) => decodeMessage(new PacketSocket(lifeline).receive()!.bytes)!;
    const name = "the policy";
    const policy = JSON.stringify({ name, text: "allow any context 16" });
    const refusals: readonly (readonly [string | undefined, string, RegExp])[] = [
      [policy, "NO_RESOURCES", /^statx failed: .*EMFILE/],
      [undefined, "INVALID_ARGS", /^what was handed over is no policy$/],
      ["no message", "INVALID_ARGS", /^what was handed over is no policy$/],
      [JSON.stringify({ name }), "INVALID_ARGS", /^what was handed over is no policy$/],
      [JSON.stringify({ name, text: "nonsense" }), "INVALID_ARGS", /^the policy:1: 'nonsense' is no rule/],
    ];
    let descriptors = 0;
    served.serve([
      () => {
        served.fail("statx", EMFILE);
        descriptors = countDescriptors();
      },
      ...refusals.flatMap(([text, code, reason], i): Step[] => [
        (lifeline) => set(lifeline, i + 1, text),
        (lifeline) => {
          const { id, error } = replied(lifeline) as { id: number; error: { code: string; reason: string } };
          assertEquals([id, error.code], [i + 1, code]);
          assertMatch(error.reason, reason);
        },
      ]),
      (lifeline) => set(lifeline, 9, policy),
      (lifeline) => {
        assertEquals(replied(lifeline), { id: 9, result: {} });
        assertEquals(countDescriptors(), descriptors);
      },
    ]);
  }),
);

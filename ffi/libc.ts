/**
 * The C library of Linux: its symbols, its errno, and the errors made of them.
 *
 * Binding a symbol costs 0.2 ms, since Deno compiles a way into it, whether it is bound alone or with others. So each is
 * bound when it is first looked up, and nothing is opened when this module is imported.
 *
 * Two habits of the declarations: `size_t`, `off_t` and addresses are always passed as bigint; and a result that the
 * kernel bounds below 2^31 (every `ssize_t` here) is declared `i32`, which returns a number without allocating. An
 * allocation between a call and the look at errno may collect garbage, and that may change errno.
 *
 * A program may be allowed this one library by its absolute path (`--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6`). Then
 * Deno refuses it raw pointers, and what they do here the library's own `memcpy` does.
 *
 * @module
 */

import { getSystemErrorMap } from "node:util";

const LIBRARY = "libc.so.6";

/** Where it is, on the distributions there are; a program that is allowed one path is allowed just that spelling. */
const LIBRARY_PATHS = [`/lib/${Deno.build.arch}-linux-gnu`, "/lib64", "/lib"]
  .flatMap((directory) => [`${directory}/${LIBRARY}`, `/usr${directory}/${LIBRARY}`]);

/** What is bound, by the name in {@linkcode libc}. */
const symbols = {
  // --- Descriptors, whatever is behind them

  // int *__errno_location(void);
  __errno_location: { parameters: [], result: "pointer" },
  // int close(int fd);
  close: { parameters: ["i32"], result: "i32" },
  // int fcntl(int fd, int op, ... /* arg */);   with a number: F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS
  fcntl: { parameters: ["i32", "i32", "u64"], result: "i32" },
  // int fcntl(int fd, int op, ... /* arg */);   with a struct flock *: F_OFD_SETLK, F_OFD_GETLK
  fcntl_flock: { name: "fcntl", parameters: ["i32", "i32", "buffer"], result: "i32" },
  // int statx(int dirfd, const char *restrict path, int flags, unsigned int mask, struct statx *restrict statxbuf);
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },

  // --- Shared memory and its mappings

  // int memfd_create(const char *name, unsigned int flags);
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  // int fallocate(int fd, int mode, off_t offset, off_t size);
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  // void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);   MAP_FAILED is (void *) -1
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "isize" },
  // int madvise(void *addr, size_t length, int advice);
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // int munmap(void *addr, size_t length);
  munmap: { parameters: ["usize", "usize"], result: "i32" },
  // int getrlimit(int resource, struct rlimit *rlim);
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },

  // void *mremap(void *old_address, size_t old_size, size_t new_size, int flags, ... /* void *new_address */);
  mremap: { parameters: ["usize", "usize", "usize", "i32", "usize"], result: "isize" },

  // --- Unix sockets

  // int socket(int domain, int type, int protocol);
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int socketpair(int domain, int type, int protocol, int sv[2]);
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen);
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // ssize_t send(int sockfd, const void *buf, size_t len, int flags);
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // ssize_t recv(int sockfd, void *buf, size_t len, int flags);
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags);
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags);
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // int poll(struct pollfd *fds, nfds_t nfds, int timeout);
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },

  // --- The listening end of a Unix socket

  // int bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen);
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int listen(int sockfd, int backlog);
  listen: { parameters: ["i32", "i32"], result: "i32" },
  // int accept4(int sockfd, struct sockaddr *restrict addr, socklen_t *restrict addrlen, int flags);
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" },
  // int getsockopt(int sockfd, int level, int optname, void *restrict optval, socklen_t *restrict optlen);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int epoll_create1(int flags);
  epoll_create1: { parameters: ["i32"], result: "i32" },
  // int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },

  // --- Files and directories

  // int open(const char *path, int flags, ... /* mode_t mode */);
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // ssize_t pread(int fd, void *buf, size_t count, off_t offset);
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  // ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset);
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  // int ftruncate(int fd, off_t length);
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  // int flock(int fd, int op);
  flock: { parameters: ["i32", "i32"], result: "i32" },
  // int mkdir(const char *path, mode_t mode);
  mkdir: { parameters: ["buffer", "u32"], result: "i32" },
  // int unlink(const char *path);
  unlink: { parameters: ["buffer"], result: "i32" },
  // int rename(const char *oldpath, const char *newpath);
  rename: { parameters: ["buffer", "buffer"], result: "i32" },
  // int fchmod(int fd, mode_t mode);
  fchmod: { parameters: ["i32", "u32"], result: "i32" },

  // DIR *opendir(const char *name);
  opendir: { parameters: ["buffer"], result: "pointer" },
  // struct dirent *readdir(DIR *dirp);   with 64-bit offsets on every 64-bit machine
  readdir: { parameters: ["pointer"], result: "pointer" },
  // int closedir(DIR *dirp);
  closedir: { parameters: ["pointer"], result: "i32" },
  // ssize_t readlink(const char *restrict path, char *restrict buf, size_t bufsiz);
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "i32" },
  // char *realpath(const char *restrict path, char *restrict resolved_path);   with room of PATH_MAX bytes
  realpath: { parameters: ["buffer", "buffer"], result: "pointer" },
  // int faccessat(int dirfd, const char *path, int mode, int flags);
  faccessat: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  // int fsync(int fd);
  fsync: { parameters: ["i32"], result: "i32" },
  // int fchown(int fd, uid_t owner, gid_t group);
  fchown: { parameters: ["i32", "u32", "u32"], result: "i32" },

  // --- What a process knows about itself

  // char *getenv(const char *name);
  getenv: { parameters: ["buffer"], result: "pointer" },
  // uid_t geteuid(void);
  geteuid: { parameters: [], result: "u32" },
  // int sched_yield(void);
  sched_yield: { parameters: [], result: "i32" },

  // int setrlimit(int resource, const struct rlimit *rlim);
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },

  // --- Sockets whose peers have addresses that are read and written

  // ssize_t sendto(int sockfd, const void *buf, size_t len, int flags, const struct sockaddr *addr, socklen_t addrlen);
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "i32" },
  // ssize_t recvfrom(int sockfd, void *restrict buf, size_t len, int flags, struct sockaddr *restrict addr,
  //   socklen_t *restrict addrlen);
  recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "i32" },
  // int accept4(int sockfd, struct sockaddr *restrict addr, socklen_t *restrict addrlen, int flags);
  accept4_from: { name: "accept4", parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  // int getsockname(int sockfd, struct sockaddr *restrict addr, socklen_t *restrict addrlen);
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int getpeername(int sockfd, struct sockaddr *restrict addr, socklen_t *restrict addrlen);
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // int shutdown(int sockfd, int how);
  shutdown: { parameters: ["i32", "i32"], result: "i32" },

  // --- Requests to drivers

  // int ioctl(int fd, unsigned long op, ... /* arg */);   with the address of a structure, or of none
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },

  // --- Waiting for descriptors in a thread of Deno's pool

  // int poll(struct pollfd *fds, nfds_t nfds, int timeout);   errno is lost
  poll_elsewhere: { name: "poll", parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
  // int eventfd(unsigned int initval, int flags);
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // int eventfd_read(int fd, eventfd_t *value);
  eventfd_read: { parameters: ["i32", "buffer"], result: "i32" },
  // int eventfd_write(int fd, eventfd_t value);
  eventfd_write: { parameters: ["i32", "u64"], result: "i32" },
} as const;

/** In place of raw pointers. None of these can fail, so that no interposer needs to see them. */
const pointerlessSymbols = {
  // void *memcpy(void *restrict dest, const void *restrict src, size_t n);   of 0 bytes: only for its result
  address_of: { name: "memcpy", parameters: ["buffer", "buffer", "usize"], result: "usize" },
  address_at: { name: "memcpy", parameters: ["pointer", "pointer", "usize"], result: "usize" },
  copy_out: { name: "memcpy", parameters: ["buffer", "usize", "usize"], result: "void" },
  copy_in: { name: "memcpy", parameters: ["usize", "buffer", "usize"], result: "void" },
  // size_t strlen(const char *s);
  strlen: { parameters: ["usize"], result: "usize" },
} as const;

/** The symbols of {@linkcode libc} with their types. */
export type Libc = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** A symbol as an interposer sees it. */
export type LibcCall = (...args: unknown[]) => unknown;

/**
 * The bound C library. Looking up a symbol for the first time binds it.
 *
 * @throws {UnsupportedPlatformError} At that first look-up, where there is no such library or symbol.
 * @throws {Deno.errors.NotCapable} At that first look-up, without `--allow-ffi`, and without one of the library's paths
 * in it.
 */
export const libc: Libc = {} as Libc;

type Pointerless = Deno.DynamicLibrary<typeof pointerlessSymbols>["symbols"];

let pointerlessCalls: Pointerless | undefined;

/** The symbols as Deno bound them, so that each is bound once however often it is interposed. */
const bound = new Map<string, LibcCall>();

let interposer: ((name: string, call: LibcCall) => LibcCall) | undefined;

/** What the library was opened by. */
let library: string | undefined;

/** This thread's errno; a word of our own until the first symbol is bound, for then there was no call to set it. */
let errnoWord = new Int32Array(1);

/** Where errno is, when `errnoWord` is a copy of it. */
let errnoAddress: bigint | undefined;

const ERRNO_SIZE = 4n;

let raw: boolean | undefined;

deferBinding();

/** Makes the first look-up of each symbol bind it. From then on a call costs one load more than the symbol. */
function deferBinding(): void {
  for (const name of Object.keys(symbols) as (keyof Libc)[]) {
    Object.defineProperty(libc, name, {
      configurable: true,
      enumerable: true,
      get(): LibcCall {
        const call = bindSymbol(name);
        const value = interposer === undefined ? call : interposer(name, call);
        Object.defineProperty(libc, name, { configurable: true, enumerable: true, value });
        return value;
      },
    });
  }
}

function bindSymbol(name: keyof Libc): LibcCall {
  let call = bound.get(name);
  if (call === undefined) {
    call = open({ [name]: symbols[name] })[name] as LibcCall;
    const first = bound.size === 0;
    bound.set(name, call);
    // Every call that can fail needs errno afterwards, and looking for it only then could change it.
    if (first) locateErrno();
  }
  return call;
}

function open<T extends Deno.ForeignLibraryInterface>(declarations: T): Deno.DynamicLibrary<T>["symbols"] {
  if (Deno.build.os !== "linux") {
    throw new UnsupportedPlatformError(`Cannot open ${LIBRARY}: this is ${Deno.build.os}, not Linux`);
  }
  let failure: unknown;
  for (const path of library === undefined ? libraryNames() : [library]) {
    try {
      const { symbols } = Deno.dlopen(path, declarations);
      library = path;
      return symbols;
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
      failure = error;
    }
  }
  throw new UnsupportedPlatformError(`Cannot open ${LIBRARY}: ${(failure as Error).message}`, { cause: failure });
}

/** What to open: what is allowed already, or else what a terminal is asked for. */
function libraryNames(): readonly string[] {
  const { state, partial } = Deno.permissions.querySync({ name: "ffi" });
  // A name without a path is looked for by the loader only if every library is allowed.
  if (state === "granted" && !partial) return [LIBRARY];
  const allowed = LIBRARY_PATHS.filter((path) => Deno.permissions.querySync({ name: "ffi", path }).state === "granted");
  return allowed.length > 0 ? allowed : [LIBRARY];
}

/**
 * Whether this program may use raw pointers: it is allowed every library. It is not asked for.
 *
 * @returns The same for the thread's whole life.
 */
export function rawPointers(): boolean {
  return raw ??= Deno.permissions.querySync({ name: "ffi" }).state === "granted";
}

function pointerless(): Pointerless {
  return pointerlessCalls ??= open(pointerlessSymbols);
}

/** errno is one word a thread, and a thread runs one instance of this module: its address need be asked for once. */
function locateErrno(): void {
  const location = bindSymbol("__errno_location")() as Deno.PointerObject;
  if (rawPointers()) {
    errnoWord = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, Int32Array.BYTES_PER_ELEMENT));
  } else {
    errnoAddress = pointerless().address_at(location, location, 0n);
  }
}

/**
 * Puts a function of the caller's around every symbol, for tests of error paths: it may count, record, call on, or
 * fail in the kernel's stead by {@linkcode setErrno} and a result of -1. Without one, nothing stands between a caller
 * and the symbol.
 *
 * @param wrap Is given each symbol's name in {@linkcode libc} and the symbol, and answers what to call instead;
 * `undefined` takes the interposer away.
 */
export function interposeLibc(wrap: ((name: string, call: LibcCall) => LibcCall) | undefined): void {
  interposer = wrap;
  deferBinding();
}

/**
 * The error number of the last failed call. Right only in the very next expression after it: whatever allocates in
 * between may change it.
 *
 * @returns The number, such as 2 for ENOENT.
 */
export function errno(): number {
  if (errnoAddress !== undefined) pointerless().copy_out(errnoWord, errnoAddress, ERRNO_SIZE);
  return errnoWord[0]!;
}

/**
 * Sets the error number, for an interposer that fails a call.
 *
 * @param number The number, such as 2 for ENOENT.
 */
export function setErrno(number: number): void {
  errnoWord[0] = number;
  if (errnoAddress !== undefined) pointerless().copy_in(errnoAddress, errnoWord, ERRNO_SIZE);
}

/** The error numbers that code here and above decides on; the same on x86-64 and aarch64. */
export const Errno = {
  /** Operation not permitted. */
  EPERM: 1,
  /** No such file or directory. */
  ENOENT: 2,
  /** A signal handler ran before there was a result. */
  EINTR: 4,
  /** Not an open descriptor. */
  EBADF: 9,
  /** Not now, but perhaps later. */
  EAGAIN: 11,
  /** Not enough memory. */
  ENOMEM: 12,
  /** Permission denied. */
  EACCES: 13,
  /** The file is there already. */
  EEXIST: 17,
  /** Not a valid argument. */
  EINVAL: 22,
  /** Too many open descriptors in this process. */
  EMFILE: 24,
  /** A file is too large. */
  EFBIG: 27,
  /** Nobody reads at the other end. */
  EPIPE: 32,
  /** A path is too long. */
  ENAMETOOLONG: 36,
  /** A message is too long. */
  EMSGSIZE: 90,
  /** An accepted connection was gone before it was accepted. */
  ECONNABORTED: 103,
  /** The other end closed with something unread. */
  ECONNRESET: 104,
  /** Not enough memory for what goes through a socket. */
  ENOBUFS: 105,
  /** Too many descriptors of this user are on their way through sockets. */
  ETOOMANYREFS: 109,
  /** Nobody listens at the other end. */
  ECONNREFUSED: 111,
} as const;

/** A call of the C library that failed. */
export class SystemError extends Error {
  /** The name of the class. */
  override readonly name = "SystemError";
  /** The error number, such as 2. */
  readonly errno: number;
  /** The name of the error number, such as `"ENOENT"`. */
  readonly code: string;
  /** The call that failed, such as `"mmap"`. */
  readonly call: string;

  /**
   * Makes an error.
   *
   * @param errno The error number.
   * @param call The call that failed.
   */
  constructor(errno: number, call: string) {
    // The map has libuv's numbers, which are the kernel's with a minus, and not all of them.
    const own = Object.entries(Errno).find(([, number]) => number === errno)?.[0];
    const [code, text] = getSystemErrorMap().get(-errno) ?? [own ?? `E${errno}`, `error ${errno}`];
    super(`${call} failed: ${text} (${code})`);
    this.errno = errno;
    this.code = code;
    this.call = call;
  }
}

/** This machine has no C library that the code here can use: the reason is in the message. */
export class UnsupportedPlatformError extends Error {
  /** The name of the class. */
  override readonly name = "UnsupportedPlatformError";
}

/**
 * The result of a call, or the error it stands for.
 *
 * @param result What the call returned, as the argument's own expression: `check(libc.close(fd), "close")`.
 * @param call The name of the call, for the message.
 * @returns The result as a number.
 * @throws {SystemError} When the result is -1.
 */
export function check(result: number | bigint, call: string): number {
  const error = errno();
  if (result === -1 || result === -1n) throw new SystemError(error, call);
  return Number(result);
}

/**
 * The result of a call that is made again as long as a signal handler interrupts it.
 *
 * @param call The name of the call, for the message.
 * @param attempt Makes the call; its last expression is the call itself.
 * @returns The result.
 * @throws {SystemError} When the result is -1 and not for a signal.
 */
export function uninterrupted(call: string, attempt: () => number): number {
  while (true) {
    const result = attempt();
    const error = errno();
    if (result !== -1) return result;
    if (error !== Errno.EINTR) throw new SystemError(error, call);
  }
}

/**
 * Whether the kernel lacks the memory for what is over in a moment: then the call may be made again.
 *
 * @param error The error number.
 */
export function isShortage(error: number): boolean {
  return error === Errno.ENOMEM || error === Errno.ENOBUFS;
}

/** Holds the thread for a millisecond, without asking the kernel for memory. */
export function pause(): void {
  Atomics.wait(pauseWord, 0, 0, 1);
}

const pauseWord = new Int32Array(new SharedArrayBuffer(4));

/**
 * The result of a call that waits; interrupted by a signal handler, or refused for want of memory, it is made again with
 * the time that is left.
 *
 * @param call The name of the call, for the message.
 * @param timeoutMs How long to wait at most, in milliseconds; -1 is for ever.
 * @param wait Makes the call with a timeout as `poll` takes it: whole milliseconds that fit into an `int`, or -1.
 * @returns The result; 0 when the time is over.
 * @throws {SystemError} When the result is -1 for another reason.
 */
export function waitThroughSignals(call: string, timeoutMs: number, wait: (timeoutMs: number) => number): number {
  const deadline = timeoutMs < 0 ? Infinity : performance.now() + timeoutMs;
  let remaining = timeoutMs;
  while (true) {
    // Rounded up, for a wait that ends early would be repeated by the caller without sleeping.
    const result = wait(remaining < 0 ? -1 : Math.min(Math.ceil(remaining), 0x7fffffff));
    const error = errno();
    if (result !== -1) return result;
    if (isShortage(error)) {
      if (remaining === 0) return 0;
      pause();
    } else if (error !== Errno.EINTR) {
      throw new SystemError(error, call);
    }
    if (timeoutMs >= 0) remaining = Math.max(0, deadline - performance.now());
  }
}

const encoder = new TextEncoder();

/**
 * Text as C takes it: UTF-8 with a NUL behind it.
 *
 * @param text The text.
 * @returns The bytes.
 * @throws {TypeError} When the text has a NUL in it, where C would end it.
 */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) throw new TypeError(`Cannot pass ${JSON.stringify(text)} to C: it has a NUL in it`);
  return encoder.encode(text + "\0");
}

/**
 * The address of a buffer that outlives its use, for structures that point to each other. Only for views on an
 * `ArrayBuffer` made as such: the engine may move what a typed array allocated for itself.
 *
 * @param view The view whose first byte is meant; keep it reachable as long as the address is in use.
 * @returns The address.
 */
export function addressOf(view: Uint8Array<ArrayBuffer>): bigint {
  return rawPointers()
    ? Deno.UnsafePointer.value(Deno.UnsafePointer.of(view))
    : pointerless().address_of(view, view, 0n);
}

/**
 * Text of C's that ends with a NUL.
 *
 * @param pointer Where it is.
 * @param offset How many bytes behind that.
 * @returns The text.
 * @throws {TypeError} When it is not UTF-8.
 */
export function textAt(pointer: Deno.PointerObject, offset = 0): string {
  if (rawPointers()) return Deno.UnsafePointerView.getCString(pointer, offset);
  const { address_at, copy_out, strlen } = pointerless();
  const address = address_at(pointer, pointer, 0n) + BigInt(offset);
  const length = strlen(address);
  const bytes = new Uint8Array(Number(length));
  copy_out(bytes, address, length);
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

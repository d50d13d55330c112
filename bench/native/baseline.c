/*
 * What the machine can do: the same work in C, over shared memory and over a Unix socket.
 *
 *     baseline spin MS BATCH SIZE              round trips over two rings, both sides spin
 *     baseline unix MS BATCH SIZE IDLE         round trips over a Unix socket, both sides block; IDLE ms between two
 *     baseline ring MS SIZE...                 one way through a ring with memcpy, both sides spin
 *     baseline unix-flow MS SIZE...            one way through a Unix socket
 *     baseline copy MS BLOCK SIZE...           memcpy of blocks into, and out of, shared memory
 *
 * Each prints one line of JSON: nanoseconds per operation, messages a second, or bytes a second.
 */

#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define RING_SIZE (256u * 1024)
#define STOP 0xff
#define MOST_SAMPLES 200000

/* One producer, one consumer; each counter on a cache line of its own. Each side keeps what it needs to know beside. */
struct ring {
  _Alignas(64) _Atomic uint32_t tail;
  _Alignas(64) _Atomic uint32_t head;
  _Alignas(64) uint8_t bytes[RING_SIZE];
  /* The producer's own: its tail, and the head as it last saw it. */
  _Alignas(64) uint32_t own_tail, seen_head;
  /* The consumer's own: its head, and the tail as it last saw it. */
  _Alignas(64) uint32_t own_head, seen_tail;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *shared(size_t size) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) exit(1);
  memset(at, 0, size);
  return at;
}

/* A record is its length in four bytes and the payload, padded to eight; it never wraps: a length of ~0 skips the rest. */
static uint32_t padded(uint32_t size) { return (size + 4 + 7) & ~7u; }

static void put(struct ring *ring, const void *payload, uint32_t size) {
  uint32_t tail = ring->own_tail;
  uint32_t need = padded(size), at = tail % RING_SIZE;
  uint32_t gap = at + need > RING_SIZE ? RING_SIZE - at : 0;
  while (RING_SIZE - (tail - ring->seen_head) < gap + need) {
    ring->seen_head = atomic_load_explicit(&ring->head, memory_order_acquire);
  }
  if (gap > 0) {
    uint32_t skip = ~0u;
    memcpy(ring->bytes + at, &skip, 4);
    tail += gap;
    at = 0;
  }
  memcpy(ring->bytes + at, &size, 4);
  memcpy(ring->bytes + at + 4, payload, size);
  atomic_store_explicit(&ring->tail, ring->own_tail = tail + need, memory_order_release);
}

static uint32_t take(struct ring *ring, void *into) {
  uint32_t head = ring->own_head, size;
  for (;;) {
    while (ring->seen_tail == head) ring->seen_tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint32_t at = head % RING_SIZE;
    memcpy(&size, ring->bytes + at, 4);
    head += size == ~0u ? RING_SIZE - at : padded(size);
    if (size != ~0u) memcpy(into, ring->bytes + at + 4, size);
    atomic_store_explicit(&ring->head, ring->own_head = head, memory_order_release);
    if (size != ~0u) return size;
  }
}

/* With PIN in the environment each party stays on a core of its own: the one that measures on 1. */
static void stay_on(int core) {
  if (getenv("PIN") == NULL) return;
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  sched_setaffinity(0, sizeof cores, &cores);
}

static double *samples;
static int count;

static void say_samples(void) {
  printf("[");
  for (int i = 0; i < count; i++) printf(i ? ",%.1f" : "%.1f", samples[i]);
  printf("]\n");
}

static void fork_party(void (*party)(void *), void *argument) {
  if (fork() != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  stay_on(0);
  party(argument);
  _exit(0);
}

/* --- Round trips --- */

struct rings {
  struct ring there, back;
};

static void echo_rings(void *argument) {
  struct rings *rings = argument;
  static uint8_t buffer[65536];
  do put(&rings->back, buffer, take(&rings->there, buffer)); while (buffer[0] != STOP);
}

static void read_all(int socket, uint8_t *into, size_t size) {
  while (size > 0) {
    ssize_t n = read(socket, into, size);
    if (n <= 0) _exit(0);
    into += n;
    size -= n;
  }
}

static void write_all(int socket, const uint8_t *from, size_t size) {
  while (size > 0) {
    ssize_t n = write(socket, from, size);
    if (n <= 0) _exit(0);
    from += n;
    size -= n;
  }
}

struct ends {
  int mine;
  uint32_t size;
};

static void echo_socket(void *argument) {
  struct ends *ends = argument;
  static uint8_t buffer[65536];
  for (;;) {
    read_all(ends->mine, buffer, ends->size);
    write_all(ends->mine, buffer, ends->size);
  }
}

static void round_trips(struct rings *rings, int socket, double ms, int batch, uint32_t size, int idle) {
  static uint8_t buffer[65536];
  memset(buffer, 1, sizeof buffer);
  double start = now(), warm = start + ms * 0.5e6, end = warm + ms * 1e6;
  for (double before = start; before < end && count < MOST_SAMPLES;) {
    if (idle > 0) usleep(idle * 1000);
    before = now();
    for (int i = 0; i < batch; i++) {
      if (rings != NULL) {
        put(&rings->there, buffer, size);
        take(&rings->back, buffer);
      } else {
        write_all(socket, buffer, size);
        read_all(socket, buffer, size);
      }
    }
    double after = now();
    if (before > warm) samples[count++] = (after - before) / batch;
  }
  if (rings != NULL) {
    buffer[0] = STOP;
    put(&rings->there, buffer, size);
  }
}

/* --- One way --- */

struct flow {
  struct ring *ring;
  int socket;
  uint32_t size;
};

static void pour(void *argument) {
  struct flow *flow = argument;
  static uint8_t buffer[65536];
  memset(buffer, 1, sizeof buffer);
  for (;;) {
    if (flow->ring != NULL) put(flow->ring, buffer, flow->size);
    else write_all(flow->socket, buffer, flow->size);
  }
}

/* Messages a second, as the receiver counts them. */
static double flow_rate(struct flow *flow, double ms) {
  static uint8_t buffer[65536];
  double start = 0, warm = now() + ms * 0.3e6, end = warm + ms * 1e6, at;
  uint64_t bytes = 0;
  for (;;) {
    for (int i = 0; i < 64; i++) {
      if (flow->ring != NULL) bytes += take(flow->ring, buffer);
      else {
        ssize_t n = read(flow->socket, buffer, sizeof buffer);
        if (n <= 0) exit(1);
        bytes += n;
      }
    }
    at = now();
    if (start > 0 && at > end) break;
    if (start > 0 || at < warm) continue;
    start = at;
    end = at + ms * 1e6;
    bytes = 0;
  }
  return bytes / (double)flow->size / ((at - start) / 1e9);
}

static void flows(int use_ring, double ms, int sizes, char **texts) {
  printf("[");
  for (int i = 0; i < sizes; i++) {
    struct flow flow = { .size = atoi(texts[i]) };
    int ends[2];
    if (use_ring) flow.ring = shared(sizeof *flow.ring);
    else if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) exit(1);
    flow.socket = use_ring ? -1 : ends[1];
    int child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      stay_on(0);
      pour(&flow);
    }
    if (!use_ring) flow.socket = ends[0];
    printf(i ? ",%.0f" : "%.0f", flow_rate(&flow, ms));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    if (!use_ring) {
      close(ends[0]);
      close(ends[1]);
    } else munmap(flow.ring, sizeof *flow.ring);
  }
  printf("]\n");
}

/* --- Copies --- */

static int by_size(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* Bytes a second, of the block whose time is the median. */
static double copy_rate(uint8_t *region, uint8_t *own, size_t size, size_t block, double ms, int out) {
  double warm = now() + ms * 0.5e6, end = warm + ms * 1e6, before;
  size_t offset = 0;
  count = 0;
  do {
    before = now();
    if (out) memcpy(own, region + offset, block);
    else memcpy(region + offset, own, block);
    __asm__ volatile("" ::: "memory");
    double after = now();
    if (before > warm) samples[count++] = after - before;
    offset = offset + 2 * block <= size ? offset + block : 0;
  } while (count == 0 || (before < end && count < MOST_SAMPLES));
  qsort(samples, count, sizeof *samples, by_size);
  return block / (samples[(count - 1) / 2] / 1e9);
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  const char *what = argv[1];
  double ms = atof(argv[2]);
  stay_on(1);
  samples = malloc(MOST_SAMPLES * sizeof *samples);
  signal(SIGCHLD, SIG_DFL);
  if (strcmp(what, "spin") == 0) {
    struct rings *rings = shared(sizeof *rings);
    fork_party(echo_rings, rings);
    round_trips(rings, -1, ms, atoi(argv[3]), atoi(argv[4]), 0);
    say_samples();
  } else if (strcmp(what, "unix") == 0) {
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) return 1;
    struct ends ends = { sockets[1], atoi(argv[4]) };
    fork_party(echo_socket, &ends);
    close(sockets[1]);
    round_trips(NULL, sockets[0], ms, atoi(argv[3]), ends.size, atoi(argv[5]));
    say_samples();
  } else if (strcmp(what, "ring") == 0) {
    flows(1, ms, argc - 3, argv + 3);
  } else if (strcmp(what, "unix-flow") == 0) {
    flows(0, ms, argc - 3, argv + 3);
  } else if (strcmp(what, "copy") == 0) {
    size_t block = atol(argv[3]);
    uint8_t *own = malloc(block);
    memset(own, 1, block);
    printf("[");
    for (int i = 4; i < argc; i++) {
      size_t size = atol(argv[i]);
      uint8_t *region = shared(size);
      double in = copy_rate(region, own, size, block, ms, 0);
      printf(i > 4 ? ",%.0f,%.0f" : "%.0f,%.0f", in, copy_rate(region, own, size, block, ms, 1));
      munmap(region, size);
    }
    printf("]\n");
  } else return 2;
  return 0;
}

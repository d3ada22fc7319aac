/* A plugin for qemu-user 7.x: counts what a guest executes and misses in its regions of interest.
 *
 *   -plugin file=counter.so,out=FILE,mode=count|cache[,l1i=BYTES/WAYS,l1d=BYTES/WAYS,l2=BYTES/WAYS...]
 *
 * A region opens at the unallocated hint 0x55, which any core takes for a NOP, and closes at 0x56. FILE gets
 * one JSON object: {"regions": [{"instructions": ..., "load": ..., ...}, ...]} in the order of execution.
 * `count` is cheap; `cache` also plays every access, from the first region on, against set-associative LRU
 * caches with 64-byte lines that start empty (write-allocate; no prefetcher, no TLB, no write-back traffic).
 * Several geometries are played side by side: each `l1d` begins another, each `l2` after it is one more second
 * level of the same L1D, seeing what L1D and L1I miss; the misses stand in "l1d" and "l2" in the order given.
 * A miss is `sequential` when the line before it was one of the last sixteen streams of misses: what a
 * stride prefetcher would have fetched. For single-threaded guests: the counters are not atomic.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the part of qemu's plugin API, version 1, that is needed ------------------------------------------- */

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
  const char *target_name;
  struct { int min, cur; } version;
  bool system_emulation;
  int smp_vcpus, max_vcpus;
} qemu_info_t;
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3, ADD_U64 = 0 };
typedef void (*on_execution)(unsigned vcpu, void *user);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                           void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, on_execution, int flags, void *user);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *at, uint64_t by);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, on_execution, int flags, void *user);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
                                      void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *), int flags,
                                      int which, void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

/* --- counters ------------------------------------------------------------------------------------------- */

enum { LOAD, LOAD_VECTOR, STORE, STORE_VECTOR, MULTIPLY_FLOAT, MULTIPLY_INT, DIVIDE, VECTOR, BRANCH, OTHER, CLASSES };
static const char *const CLASS_NAMES[CLASSES] = {
    "load",   "load_vector", "store",  "store_vector", "multiply_float", "multiply_int",
    "divide", "vector",      "branch", "other"};
enum { MAX_L1D = 4, MAX_L2 = 16, MAX_CACHES = 1 + MAX_L1D + MAX_L2, COUNTERS = CLASSES + 2 * MAX_CACHES };
static uint64_t counters[COUNTERS];
static bool is_a64, plays_caches;

enum { MAX_REGIONS = 4096 };
static uint64_t regions[MAX_REGIONS][COUNTERS];
static size_t region_count;
static bool in_region, has_begun;

/* --- caches --------------------------------------------------------------------------------------------- */

enum { LINE_SHIFT = 6, STREAMS = 16 };
typedef struct {
  uint64_t sets, ways;
  uint64_t *lines;            /* sets x ways, newest first in each set; line number + 1, 0 = empty */
  uint64_t streams[STREAMS];  /* the last line missed of each */
  uint64_t next_stream;
  uint64_t *misses, *sequential;
} Cache;
static Cache caches[MAX_CACHES], *const l1i = &caches[0], *const l1d = &caches[1], *const l2 = &caches[1 + MAX_L1D];
static size_t l1d_count, l2_count;
static size_t parent_of[MAX_L2]; /* the L1D that each L2 stands behind */

static void note_miss(Cache *cache, uint64_t line) {
  ++*cache->misses;
  for (int i = 0; i < STREAMS; i++) {
    if (cache->streams[i] + 1 != line) continue;
    cache->streams[i] = line;
    ++*cache->sequential;
    return;
  }
  cache->streams[cache->next_stream++ % STREAMS] = line;
}

/* Returns whether the line was there, and makes it the newest of its set. */
static inline bool touch(Cache *cache, uint64_t line) {
  uint64_t *set = cache->lines + (line % cache->sets) * cache->ways, wanted = line + 1, way = 0;
  if (set[0] == wanted) return true;
  while (way < cache->ways - 1 && set[way] != wanted) way++;
  bool hit = set[way] == wanted;
  memmove(set + 1, set, way * sizeof *set);
  set[0] = wanted;
  if (!hit) note_miss(cache, line);
  return hit;
}

static void fetch_line(uint64_t line) {
  if (touch(l1i, line)) return;
  for (size_t i = 0; i < l2_count; i++) touch(&l2[i], line);
}

static void access_line(uint64_t line) {
  bool hit[MAX_L1D];
  for (size_t i = 0; i < l1d_count; i++) hit[i] = touch(&l1d[i], line);
  for (size_t i = 0; i < l2_count; i++)
    if (!hit[parent_of[i]]) touch(&l2[i], line);
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *user) {
  (void)vcpu, (void)user;
  if (!has_begun) return;
  uint64_t last = (address + (UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1) >> LINE_SHIFT;
  for (uint64_t line = address >> LINE_SHIFT; line <= last; line++) access_line(line);
}

typedef struct {
  uint64_t address, bytes;
} Code;

static void on_block(unsigned vcpu, void *user) {
  const Code *code = user;
  (void)vcpu;
  if (!has_begun) return;
  uint64_t last = (code->address + code->bytes - 1) >> LINE_SHIFT;
  for (uint64_t line = code->address >> LINE_SHIFT; line <= last; line++) fetch_line(line);
}

/* --- regions -------------------------------------------------------------------------------------------- */

/* A block adds all of its instructions when it is entered; a mark inside it takes back those that have not
 * run yet, so that a region holds exactly what lies between its marks. */
typedef struct {
  bool opens;
  uint64_t ahead[COUNTERS];
} Mark;

static void on_mark(unsigned vcpu, void *user) {
  const Mark *mark = user;
  (void)vcpu;
  if (mark->opens == in_region || region_count == MAX_REGIONS) return;
  uint64_t *region = regions[region_count];
  for (int i = 0; i < COUNTERS; i++) {
    uint64_t now = counters[i] - mark->ahead[i];
    region[i] = mark->opens ? now : now - region[i];
  }
  has_begun = true;
  in_region = mark->opens;
  region_count += !mark->opens;
}

/* --- translation ---------------------------------------------------------------------------------------- */

static uint32_t opcode(const struct qemu_plugin_insn *insn) {
  uint32_t word = 0;
  size_t size = qemu_plugin_insn_size(insn);
  memcpy(&word, qemu_plugin_insn_data(insn), size < sizeof word ? size : sizeof word);
  return word;
}

static uint32_t bits(uint32_t word, int high, int low) { return (word >> low) & ((2u << (high - low)) - 1); }
static bool fits(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

/* Pairs, structures and exclusives say in bit 22 whether they load; so do plain accesses, but for the
 * sign-extending loads of general registers (and prefetches, which are told with them). */
static int class_of_access(uint32_t word) {
  bool vector = bits(word, 26, 26), plain = bits(word, 29, 27) == 7, literal = fits(word, 0x3b000000, 0x18000000);
  bool load = literal || bits(word, 22, 22) || (plain && !vector && bits(word, 23, 23));
  return load ? (vector ? LOAD_VECTOR : LOAD) : (vector ? STORE_VECTOR : STORE);
}

/* SIMD and floating point, by the sub-tables of the Arm ARM, C4.1: what multiplies (with or without an
 * addition), what divides or takes a root, and the rest. */
static int class_of_vector(uint32_t word) {
  if (fits(word, 0x9f000400, 0x0f000000)) { /* vector x one element */
    uint32_t op = bits(word, 15, 12);
    return op == 1 || op == 5 || op == 9 ? MULTIPLY_FLOAT : MULTIPLY_INT;
  }
  if (fits(word, 0x9f208400, 0x0e008400)) return MULTIPLY_INT; /* dot products, matrix multiplies */
  if (fits(word, 0x9f60c400, 0x0e400400)) {                    /* three the same, half precision */
    uint32_t op = bits(word, 13, 11);
    return op == 1 || op == 3 ? MULTIPLY_FLOAT : op == 7 && bits(word, 29, 29) ? DIVIDE : VECTOR;
  }
  if (fits(word, 0x9f200400, 0x0e200400)) { /* three the same */
    uint32_t op = bits(word, 15, 11);
    if (op == 31 && bits(word, 29, 29) && !bits(word, 23, 23)) return DIVIDE;
    if (op == 25 || op == 27) return MULTIPLY_FLOAT;
    return op == 18 || op == 19 || op == 22 ? MULTIPLY_INT : VECTOR;
  }
  if (fits(word, 0x9f200c00, 0x0e200000)) { /* three different */
    uint32_t op = bits(word, 15, 12);
    return op >= 8 && op <= 14 ? MULTIPLY_INT : VECTOR;
  }
  if (fits(word, 0xbfbffc00, 0x2ea1f800) || fits(word, 0xbffffc00, 0x2ef9f800)) return DIVIDE; /* fsqrt */
  if (fits(word, 0x5f000000, 0x1f000000)) return MULTIPLY_FLOAT;                     /* scalar fmadd and kin */
  if (fits(word, 0x5f20fc00, 0x1e200800)) return MULTIPLY_FLOAT;                     /* scalar fmul */
  if (fits(word, 0x5f20fc00, 0x1e201800) || fits(word, 0xff3ffc00, 0x1e21c000)) return DIVIDE;
  return VECTOR;
}

/* The top level of the A64 encoding (bits 28..25), two groups of it taken apart; 32-bit code is not sorted. */
static int class_of(uint32_t word) {
  uint32_t group = bits(word, 28, 25);
  if (!is_a64) return OTHER;
  if ((group & 5) == 4) return class_of_access(word);
  if ((group & 7) == 7) return class_of_vector(word);
  if ((group & 14) == 10) return BRANCH;
  return fits(word, 0x7fe0f800, 0x1ac00800) ? DIVIDE : OTHER;
}

static bool is_mark(const struct qemu_plugin_insn *insn, bool opens) {
  uint32_t hint = is_a64 ? (opens ? 0xd5032abf : 0xd5032adf) : (opens ? 0xe320f055 : 0xe320f056);
  return qemu_plugin_insn_size(insn) == 4 && opcode(insn) == hint;
}

static void place_mark(const struct qemu_plugin_tb *block, size_t at, bool opens) {
  Mark *mark = calloc(1, sizeof *mark);
  mark->opens = opens;
  for (size_t i = at + opens; i < qemu_plugin_tb_n_insns(block); i++)
    mark->ahead[class_of(opcode(qemu_plugin_tb_get_insn(block, i)))]++;
  qemu_plugin_register_vcpu_insn_exec_cb(qemu_plugin_tb_get_insn(block, at), on_mark, NO_REGISTERS, mark);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  uint64_t per_class[CLASSES] = {0};
  Code *code = plays_caches ? calloc(1, sizeof *code) : NULL;
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
    per_class[class_of(opcode(insn))]++;
    if (is_mark(insn, true)) place_mark(block, i, true);
    if (is_mark(insn, false)) place_mark(block, i, false);
    if (!plays_caches) continue;
    code->bytes += qemu_plugin_insn_size(insn);
    qemu_plugin_register_vcpu_mem_cb(insn, on_access, NO_REGISTERS, READS_AND_WRITES, NULL);
  }
  for (int i = 0; i < CLASSES; i++)
    if (per_class[i]) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &counters[i], per_class[i]);
  if (!plays_caches) return;
  code->address = qemu_plugin_tb_vaddr(block);
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, NO_REGISTERS, code);
}

/* --- start and end -------------------------------------------------------------------------------------- */

static void write_misses(FILE *out, const char *name, const Cache *first, size_t count, const uint64_t *region) {
  fprintf(out, ", \"%s\": [", name);
  for (const Cache *cache = first; cache < first + count; cache++)
    fprintf(out, "%s{\"misses\": %" PRIu64 ", \"sequential\": %" PRIu64 "}", cache == first ? "" : ", ",
            region[cache->misses - counters], region[cache->sequential - counters]);
  fprintf(out, "]");
}

static void on_exit_of_guest(qemu_plugin_id_t id, void *user) {
  FILE *out = fopen(user, "w");
  (void)id;
  if (!out) return;
  fprintf(out, "{\"regions\": [");
  for (size_t i = 0; i < region_count; i++) {
    const uint64_t *region = regions[i];
    uint64_t instructions = 0;
    for (int class = 0; class < CLASSES; class ++) instructions += region[class];
    fprintf(out, "%s{\"instructions\": %" PRIu64, i ? ", " : "", instructions);
    for (int class = 0; class < CLASSES; class ++)
      fprintf(out, ", \"%s\": %" PRIu64, CLASS_NAMES[class], region[class]);
    write_misses(out, "l1i", l1i, plays_caches, region);
    write_misses(out, "l1d", l1d, l1d_count, region);
    write_misses(out, "l2", l2, l2_count, region);
    fprintf(out, "}");
  }
  fprintf(out, "]}\n");
  fclose(out);
}

static bool shape(Cache *cache, const char *geometry) {
  char *slash;
  uint64_t bytes = strtoull(geometry, &slash, 10);
  cache->ways = *slash == '/' ? strtoull(slash + 1, NULL, 10) : 0;
  cache->sets = cache->ways ? (bytes >> LINE_SHIFT) / cache->ways : 0;
  if (cache->sets == 0) return false;
  cache->misses = &counters[CLASSES + 2 * (cache - caches)];
  cache->sequential = cache->misses + 1;
  cache->lines = calloc(cache->sets * cache->ways, sizeof *cache->lines);
  return cache->lines != NULL;
}

static bool add_l1d(const char *geometry) {
  return l1d_count < MAX_L1D && shape(&l1d[l1d_count], geometry) && ++l1d_count;
}

static bool add_l2(const char *geometry) {
  if (l1d_count == 0 || l2_count == MAX_L2 || !shape(&l2[l2_count], geometry)) return false;
  parent_of[l2_count++] = l1d_count - 1;
  return true;
}

static bool take(char *word, char **out) {
  char *value = strchr(word, '=');
  if (!value) return false;
  *value++ = 0;
  if (strcmp(word, "out") == 0) return (*out = strdup(value)) != NULL;
  if (strcmp(word, "mode") == 0) return (plays_caches = strcmp(value, "cache") == 0) || strcmp(value, "count") == 0;
  if (strcmp(word, "l1i") == 0) return shape(l1i, value);
  if (strcmp(word, "l1d") == 0) return add_l1d(value);
  return strcmp(word, "l2") == 0 && add_l2(value);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
                                                               int argc, char **argv) {
  char *out = NULL;
  for (int i = 0; i < argc; i++) {
    if (take(argv[i], &out)) continue;
    fprintf(stderr, "counter: cannot take the argument %s\n", argv[i]);
    return 1;
  }
  if (!out || (plays_caches && !(l1i->lines && l1d_count && l2_count))) {
    fprintf(stderr, "counter: `out`, or the geometry of a cache, is missing\n");
    return 1;
  }
  is_a64 = strcmp(info->target_name, "aarch64") == 0;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_guest, out);
  return 0;
}

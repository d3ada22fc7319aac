/* Runs a TFLite model in this process through LiteRT's C API and XNNPACK, one thread, row by row.
 *
 *   driver [--time RUNS] MODEL INPUTS OUTPUTS ROWS PAGES NAME:COLUMNS ...
 *   driver each COUNT INPUTS NAME:COLUMNS ...
 *
 * INPUTS holds, for each NAME in turn, ROWS x COLUMNS int32; OUTPUTS gets ROWS x (V + 1) float32, both
 * little endian. Every invocation is one region of interest for counter.c. One JSON object goes to stdout:
 *
 *   heap_peak_bytes       high-water mark of what malloc, its kin and anonymous mmap were holding (usable
 *                         size of each block); the code and the static data of libraries are not in it
 *   model_bytes           the model file, which is mapped and never copied
 *   model_pages           pages of that mapping read up to the end, when PAGES is 1 (else 0): the mapping
 *                         starts unreadable, and the first read of a page faults and is counted
 *   page_bytes            how big these pages are
 *
 * With --time the rows are followed by RUNS more invocations that go round the same rows, and the object holds
 * one entry for each of the ROWS + RUNS invocations, in their order:
 *
 *   wall_ns, cpu_ns       CLOCK_MONOTONIC and CLOCK_THREAD_CPUTIME_ID across the invocation alone
 *   processor             the processor that it ended on, -1 if the kernel does not say
 *
 * `each` runs the COUNT models 1, 2 ... of this folder one after the other, whatever they put out: two
 * inferences of each on the same row. One JSON list a model goes to stdout: the numbers of the operators that
 * XNNPACK took.
 *
 * Exit status 3 is a model outside the contract, 4 a runtime that failed; stderr says which and why.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_INPUTS 8
enum { BROKEN_CONTRACT = 3, RUNTIME_FAILED = 4 };

/* The part of TensorFlow Lite's C API that is needed; its types are opaque here. */
typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteTensor TfLiteTensor;
typedef struct TfLiteContext TfLiteContext;
typedef struct TfLiteDelegate {
  void *data;
  int (*prepare)(TfLiteContext *, struct TfLiteDelegate *);
} TfLiteDelegate; /* and more */
typedef struct {
  int size, data[];
} TfLiteIntArray;
struct TfLiteContext {
  size_t tensors_size;
  void *others[7];
  /* The registration is passed by value; on AArch64 that is a pointer to the caller's copy. */
  int (*replace_nodes)(TfLiteContext *, void *registration, const TfLiteIntArray *, TfLiteDelegate *);
}; /* and more */
/* Returned by value, and longer in each version than in the last: only the first member is ours. */
typedef struct {
  int32_t num_threads;
  uint8_t rest[1020];
} XnnpackOptions;
enum { TYPE_FLOAT32 = 1, TYPE_INT32 = 2 };

TfLiteModel *TfLiteModelCreate(const void *bytes, size_t size);
TfLiteInterpreterOptions *TfLiteInterpreterOptionsCreate(void);
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions *, int32_t);
void TfLiteInterpreterOptionsAddDelegate(TfLiteInterpreterOptions *, TfLiteDelegate *);
void TfLiteInterpreterOptionsSetErrorReporter(TfLiteInterpreterOptions *,
                                              void (*)(void *, const char *, va_list), void *);
TfLiteInterpreter *TfLiteInterpreterCreate(const TfLiteModel *, const TfLiteInterpreterOptions *);
void TfLiteInterpreterDelete(TfLiteInterpreter *);
int TfLiteInterpreterAllocateTensors(TfLiteInterpreter *);
int TfLiteInterpreterInvoke(TfLiteInterpreter *);
int32_t TfLiteInterpreterGetInputTensorCount(const TfLiteInterpreter *);
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter *);
TfLiteTensor *TfLiteInterpreterGetInputTensor(const TfLiteInterpreter *, int32_t);
const TfLiteTensor *TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter *, int32_t);
int TfLiteTensorType(const TfLiteTensor *);
size_t TfLiteTensorByteSize(const TfLiteTensor *);
void *TfLiteTensorData(const TfLiteTensor *);
const char *TfLiteTensorName(const TfLiteTensor *);
XnnpackOptions TfLiteXNNPackDelegateOptionsDefault(void);
TfLiteDelegate *TfLiteXNNPackDelegateCreate(const XnnpackOptions *);
void TfLiteXNNPackDelegateDelete(TfLiteDelegate *);

/* --- the heap: this program's definitions come before libc's, and keep count --------------------------- */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static int64_t heap_bytes, heap_peak_bytes;

static void held(int64_t change) {
  heap_bytes += change;
  if (heap_bytes > heap_peak_bytes) heap_peak_bytes = heap_bytes;
}

static void *counted(void *block) {
  if (block) held((int64_t)malloc_usable_size(block));
  return block;
}

void *malloc(size_t size) { return counted(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return counted(__libc_calloc(count, size)); }
void *memalign(size_t alignment, size_t size) { return counted(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
  *block = memalign(alignment, size);
  return *block ? 0 : ENOMEM;
}

void free(void *block) {
  if (block) held(-(int64_t)malloc_usable_size(block));
  __libc_free(block);
}

void *realloc(void *block, size_t size) {
  int64_t before = block ? (int64_t)malloc_usable_size(block) : 0;
  void *moved = __libc_realloc(block, size);
  if (moved || size == 0) held((moved ? (int64_t)malloc_usable_size(moved) : 0) - before);
  return moved;
}

/* Only the libraries' own calls come here; malloc's are inside libc and are counted above. */
void *mmap(void *where, size_t size, int protection, int flags, int file, off_t offset) {
  void *at = (void *)syscall(SYS_mmap, where, size, protection, flags, file, offset);
  if (at != MAP_FAILED && (flags & MAP_ANONYMOUS) && protection != PROT_NONE) held((int64_t)size);
  return at;
}

/* --- pages of the model that are ever read -------------------------------------------------------------- */

static uint8_t *model_bytes;
static size_t model_size;
static int64_t model_pages;
static size_t page_bytes; /* 4 KiB under emulation; phones have 16 KiB ones, too */

static void on_first_read(int signal_number, siginfo_t *info, void *context) {
  uint8_t *at = info->si_addr;
  (void)context;
  if (at < model_bytes || at >= model_bytes + model_size) {
    signal(signal_number, SIG_DFL); /* a fault of the runtime's own: let it die of it */
    return;
  }
  model_pages++;
  mprotect((void *)((uintptr_t)at & ~(uintptr_t)(page_bytes - 1)), page_bytes, PROT_READ);
}

/* --- the run -------------------------------------------------------------------------------------------- */

static void fail(int status, const char *message, const char *about) {
  fprintf(stderr, "driver: %s%s\n", message, about);
  _exit(status);
}

static void report(void *unused, const char *format, va_list facts) {
  (void)unused;
  vfprintf(stderr, format, facts);
  fputc('\n', stderr);
}

static void map_model(const char *path, int watch_pages) {
  struct stat facts;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &facts) < 0) fail(RUNTIME_FAILED, "cannot open ", path);
  model_size = (size_t)facts.st_size;
  page_bytes = (size_t)sysconf(_SC_PAGESIZE);
  model_bytes = mmap(NULL, model_size, watch_pages ? PROT_NONE : PROT_READ, MAP_PRIVATE, file, 0);
  if (model_bytes == MAP_FAILED) fail(RUNTIME_FAILED, "cannot map ", path);
  if (watch_pages) {
    struct sigaction action = {.sa_sigaction = on_first_read, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
  }
}

static TfLiteDelegate *create_xnnpack(void) {
  XnnpackOptions xnnpack = TfLiteXNNPackDelegateOptionsDefault();
  xnnpack.num_threads = 1;
  return TfLiteXNNPackDelegateCreate(&xnnpack);
}

static TfLiteInterpreter *load(TfLiteDelegate *delegate) {
  TfLiteModel *model = TfLiteModelCreate(model_bytes, model_size);
  if (!model) fail(RUNTIME_FAILED, "not a TFLite model", "");
  TfLiteInterpreterOptions *options = TfLiteInterpreterOptionsCreate();
  TfLiteInterpreterOptionsSetNumThreads(options, 1);
  TfLiteInterpreterOptionsSetErrorReporter(options, report, NULL);
  TfLiteInterpreterOptionsAddDelegate(options, delegate);
  TfLiteInterpreter *interpreter = TfLiteInterpreterCreate(model, options);
  if (!interpreter || TfLiteInterpreterAllocateTensors(interpreter) != 0)
    fail(RUNTIME_FAILED, "the runtime cannot load this model", "");
  return interpreter;
}

/* Tensors are asked for by their number each time: the runtime moves them when an inference adds one. */
typedef struct {
  int32_t number;
  const int32_t *values; /* ROWS x columns */
  size_t columns;
} Input;

/* Converters call the input `history` serving_default_history:0, or anything they like when it is alone. */
static int32_t input_named(TfLiteInterpreter *interpreter, const char *name, size_t length) {
  int32_t count = TfLiteInterpreterGetInputTensorCount(interpreter);
  static const char prefix[] = "serving_default_";
  for (int32_t i = 0; i < count; i++) {
    const char *found = TfLiteTensorName(TfLiteInterpreterGetInputTensor(interpreter, i));
    if (strncmp(found, prefix, sizeof prefix - 1) == 0) found += sizeof prefix - 1;
    int same = strncmp(found, name, length) == 0 && (found[length] == 0 || found[length] == ':');
    if (same || count == 1) return i;
  }
  fail(BROKEN_CONTRACT, "the model has no input called ", name);
  return -1;
}

static int read_inputs(TfLiteInterpreter *interpreter, const char *path, size_t rows, char **specs, int count,
                       Input *inputs) {
  if (count > MAX_INPUTS || count != TfLiteInterpreterGetInputTensorCount(interpreter))
    fail(BROKEN_CONTRACT, "the model has another number of inputs than is fed", "");
  FILE *file = fopen(path, "rb");
  if (!file) fail(RUNTIME_FAILED, "cannot open ", path);
  for (int i = 0; i < count; i++) {
    size_t name_length = strcspn(specs[i], ":");
    inputs[i].columns = strtoul(specs[i] + name_length + 1, NULL, 10);
    inputs[i].number = input_named(interpreter, specs[i], name_length);
    const TfLiteTensor *tensor = TfLiteInterpreterGetInputTensor(interpreter, inputs[i].number);
    if (TfLiteTensorType(tensor) != TYPE_INT32 ||
        TfLiteTensorByteSize(tensor) != inputs[i].columns * sizeof(int32_t))
      fail(BROKEN_CONTRACT, "an input is not int32 [1, COLUMNS]; fed was ", specs[i]);
    int32_t *values = malloc(rows * inputs[i].columns * sizeof(int32_t));
    if (fread(values, inputs[i].columns * sizeof(int32_t), rows, file) != rows)
      fail(RUNTIME_FAILED, "short input file ", path);
    inputs[i].values = values;
  }
  fclose(file);
  return count;
}

/* The region is closed assembly, so that it holds the same instructions whichever compiler built this. */
static int invoke_in_region(TfLiteInterpreter *interpreter) {
#ifdef __aarch64__
  register TfLiteInterpreter *argument __asm__("x0") = interpreter;
  register int (*callee)(TfLiteInterpreter *) __asm__("x9") = TfLiteInterpreterInvoke;
  __asm__ volatile("hint #0x55\n\tblr x9\n\thint #0x56"
                   : "+r"(argument), "+r"(callee)
                   :
                   : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x10", "x11", "x12", "x13", "x14", "x15",
                     "x16", "x17", "x30", "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",
                     "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
                     "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
  return (int)(intptr_t)argument;
#else
  return TfLiteInterpreterInvoke(interpreter);
#endif
}

/* --- clocks --------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t wall_ns, cpu_ns;
  int processor;
} Sample;

static int64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The thread's own clock is a system call: it stands outside of the wall clock's two readings. */
static int invoke_timed(TfLiteInterpreter *interpreter, Sample *sample) {
  int64_t cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID), wall_ns = now_ns(CLOCK_MONOTONIC);
  int status = invoke_in_region(interpreter);
  sample->wall_ns = now_ns(CLOCK_MONOTONIC) - wall_ns;
  sample->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
  sample->processor = sched_getcpu();
  return status;
}

static void print_samples(const Sample *samples, size_t count) {
  printf(", \"wall_ns\": [");
  for (size_t i = 0; i < count; i++) printf("%s%lld", i ? ", " : "", (long long)samples[i].wall_ns);
  printf("], \"cpu_ns\": [");
  for (size_t i = 0; i < count; i++) printf("%s%lld", i ? ", " : "", (long long)samples[i].cpu_ns);
  printf("], \"processor\": [");
  for (size_t i = 0; i < count; i++) printf("%s%d", i ? ", " : "", samples[i].processor);
  printf("]");
}

static void feed(TfLiteInterpreter *interpreter, const Input *inputs, int count, size_t row) {
  for (int i = 0; i < count; i++)
    memcpy(TfLiteTensorData(TfLiteInterpreterGetInputTensor(interpreter, inputs[i].number)),
           inputs[i].values + row * inputs[i].columns, inputs[i].columns * sizeof(int32_t));
}

/* --- many models in one process --------------------------------------------------------------------------- */

static int (*xnnpack_prepare)(TfLiteContext *, TfLiteDelegate *);
static int (*replace_nodes)(TfLiteContext *, void *, const TfLiteIntArray *, TfLiteDelegate *);

static int tell_nodes(TfLiteContext *context, void *registration, const TfLiteIntArray *nodes,
                      TfLiteDelegate *delegate) {
  for (int i = 0; i < nodes->size; i++) printf("%s%d", i ? ", " : "", nodes->data[i]);
  return replace_nodes(context, registration, nodes, delegate);
}

/* The C API does not tell which operators a delegate takes; this listens when XNNPACK asks for them. */
static int prepare_telling(TfLiteContext *context, TfLiteDelegate *delegate) {
  replace_nodes = context->replace_nodes;
  context->replace_nodes = tell_nodes;
  int status = xnnpack_prepare(context, delegate);
  context->replace_nodes = replace_nodes;
  return status;
}

static int run_each(int models, const char *input_path, char **specs, int count) {
  for (int number = 1; number <= models; number++) {
    Input inputs[MAX_INPUTS];
    char path[16];
    snprintf(path, sizeof path, "%d", number);
    map_model(path, 0);
    TfLiteDelegate *delegate = create_xnnpack();
    xnnpack_prepare = delegate->prepare;
    delegate->prepare = prepare_telling;
    printf("[");
    TfLiteInterpreter *interpreter = load(delegate);
    printf("]\n");
    read_inputs(interpreter, input_path, 1, specs, count, inputs);
    for (int run = 0; run < 2; run++) {
      feed(interpreter, inputs, count, 0);
      if (invoke_in_region(interpreter) != 0) fail(RUNTIME_FAILED, "the model cannot be run", "");
    }
    TfLiteInterpreterDelete(interpreter);
    TfLiteXNNPackDelegateDelete(delegate);
    munmap(model_bytes, model_size);
  }
  return 0;
}

int main(int argc, char **argv) {
  Input inputs[MAX_INPUTS];
  if (argc >= 5 && strcmp(argv[1], "each") == 0) return run_each(atoi(argv[2]), argv[3], argv + 4, argc - 4);
  int timed = argc > 2 && strcmp(argv[1], "--time") == 0;
  size_t runs = timed ? strtoul(argv[2], NULL, 10) : 0;
  argv += 2 * timed;
  argc -= 2 * timed;
  if (argc < 7)
    fail(RUNTIME_FAILED, "usage: driver [--time RUNS] MODEL INPUTS OUTPUTS ROWS PAGES NAME:COLUMNS ...", "");
  size_t rows = strtoul(argv[4], NULL, 10);
  map_model(argv[1], atoi(argv[5]));
  TfLiteInterpreter *interpreter = load(create_xnnpack());
  int64_t before = heap_bytes;
  int count = read_inputs(interpreter, argv[2], rows, argv + 6, argc - 6, inputs);
  Sample *samples = timed ? calloc(rows + runs, sizeof(Sample)) : NULL;
  held(before - heap_bytes); /* rows and samples lie there for our convenience; an app holds one row */
  const TfLiteTensor *scores = TfLiteInterpreterGetOutputTensor(interpreter, 0);
  if (TfLiteInterpreterGetOutputTensorCount(interpreter) != 1 || TfLiteTensorType(scores) != TYPE_FLOAT32)
    fail(BROKEN_CONTRACT, "the model has not one float32 output", "");
  FILE *outputs = fopen(argv[3], "wb");
  for (size_t run = 0; outputs && run < rows + runs; run++) {
    feed(interpreter, inputs, count, run % rows);
    int status = timed ? invoke_timed(interpreter, samples + run) : invoke_in_region(interpreter);
    if (status != 0) fail(RUNTIME_FAILED, "the model cannot be run", "");
    scores = TfLiteInterpreterGetOutputTensor(interpreter, 0);
    if (run < rows && fwrite(TfLiteTensorData(scores), TfLiteTensorByteSize(scores), 1, outputs) != 1)
      fail(RUNTIME_FAILED, "cannot write ", argv[3]);
  }
  if (!outputs || fclose(outputs) != 0) fail(RUNTIME_FAILED, "cannot write ", argv[3]);
  printf("{\"heap_peak_bytes\": %lld, \"model_bytes\": %zu, \"model_pages\": %lld, \"page_bytes\": %zu",
         (long long)heap_peak_bytes, model_size, (long long)model_pages, page_bytes);
  if (timed) print_samples(samples, rows + runs);
  printf("}\n");
  return 0;
}

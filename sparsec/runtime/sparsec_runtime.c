/* Runs a model: reserves its memory, fills in the addresses of its tensors and calls its kernels in order. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sparsec_cpu.h"
#include "sparsec_memory.h"
#include "sparsec_model.h"
#include "sparsec_threads.h"

enum { ALIGNMENT = 64, MAX_THREADS = 1024 };

static const sparsec_model *const model = &sparsec_the_model;

struct sparsec_context {
  sparsec_pool *pool;
  int threads;
  pid_t process; /* threads do not survive a fork */
  int profiling;
  clockid_t clock; /* that steps are timed by */
  atomic_flag busy;
  sparsec_memory memory; /* arena, staging, workspaces */
  const unsigned char *weights; /* where the streamed ones are; NULL before it holds them */
  char **staging;  /* for inputs, then outputs, that the caller did not align */
  void **tensors;  /* the address of each tensor; those of inputs and outputs are set by each run */
  int64_t *symbols, *dims;
  int64_t *new_symbols, *new_dims; /* that sparsec_set_shapes has yet to check */
  int num_dims;
  int64_t **shapes; /* of inputs, then outputs: into dims */
  uint64_t *nanoseconds;
};

static _Thread_local char last_error[512];

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return -1;
}

int sparsec_abi_version(void) { return SPARSEC_ABI_VERSION; }
const char *sparsec_manifest(void) { return model->manifest; }
const char *sparsec_last_error(void) { return last_error; }
int sparsec_num_inputs(void) { return model->num_inputs; }
int sparsec_num_outputs(void) { return model->num_outputs; }
int sparsec_num_steps(void) { return model->num_steps; }

const sparsec_tensor *sparsec_input(int index) {
  return index >= 0 && index < model->num_inputs ? &model->inputs[index] : NULL;
}

const sparsec_tensor *sparsec_output(int index) {
  return index >= 0 && index < model->num_outputs ? &model->outputs[index] : NULL;
}

/* Input or output number `index`, outputs after inputs. */
static const sparsec_tensor *port(int index) {
  return index < model->num_inputs ? &model->inputs[index] : &model->outputs[index - model->num_inputs];
}

static int num_ports(void) { return model->num_inputs + model->num_outputs; }

static size_t shape_bytes(const sparsec_tensor *tensor, const int64_t *shape) {
  size_t bytes = tensor->itemsize;
  for (int axis = 0; axis < tensor->rank; axis++) bytes *= (size_t)shape[axis];
  return bytes;
}

static int default_threads(void) {
  const char *text = getenv("SPARSEC_NUM_THREADS");
  if (!text || !*text) return sparsec_cpu_cores();
  char *end;
  long threads = strtol(text, &end, 10);
  if (*end || threads < 1 || threads > MAX_THREADS)
    return fail("SPARSEC_NUM_THREADS is '%s'; set it to a number from 1 to %d", text, MAX_THREADS);
  return (int)threads;
}

static int check_cpu(void) {
  for (int i = 0; i < model->num_probes; i++)
    if (!sparsec_cpu_has(&model->probes[i]))
      return fail("this processor lacks %s, which the model was compiled for; compile it again for this machine, or for "
                  "a smaller target such as x86-64-v3 or aarch64",
                  model->probes[i].name);
  return 0;
}

/* Small tables of a context, in one block. */
static int allocate_tables(sparsec_context *ctx) {
  int num_dims = 0;
  for (int i = 0; i < num_ports(); i++) num_dims += port(i)->rank;
  ctx->num_dims = num_dims;
  size_t words = (size_t)(2 * num_ports() + model->num_tensors + 2 * model->num_symbols + 2 * num_dims + model->num_steps);
  uint64_t *table = calloc(words + 1, sizeof *table);
  if (!table) return fail("out of memory");
  ctx->tensors = (void **)table, table += model->num_tensors;
  ctx->staging = (char **)table, table += num_ports();
  ctx->shapes = (int64_t **)table, table += num_ports();
  ctx->symbols = (int64_t *)table, table += model->num_symbols;
  ctx->new_symbols = (int64_t *)table, table += model->num_symbols;
  ctx->new_dims = (int64_t *)table, table += num_dims;
  ctx->nanoseconds = table, table += model->num_steps;
  ctx->dims = (int64_t *)table;
  for (int i = 0, next = 0; i < num_ports(); next += port(i)->rank, i++) ctx->shapes[i] = ctx->dims + next;
  return 0;
}

/* Reserves arena, staging and workspaces, and finds the weights; returns the workspaces, or NULL. */
static char *allocate_memory(sparsec_context *ctx) {
  size_t arena = round_up(model->arena_bytes, ALIGNMENT), staging = 0;
  for (int i = 0; i < num_ports(); i++) staging += round_up(shape_bytes(port(i), port(i)->max_shape), ALIGNMENT);
  size_t beside = staging + (size_t)ctx->threads * model->workspace_bytes + ALIGNMENT;
  if (sparsec_reserve(&ctx->memory, arena, beside)) {
    fail("cannot reserve %zu bytes for the intermediate tensors of the model", arena + beside);
    return NULL;
  }
  ctx->weights = sparsec_share_weights(model->constants, model->streamed_bytes);
  char *next = ctx->memory.start + arena;
  for (int i = 0; i < num_ports(); i++) {
    ctx->staging[i] = next;
    next += round_up(shape_bytes(port(i), port(i)->max_shape), ALIGNMENT);
  }
  for (int i = 0; i < model->num_tensors; i++) {
    const sparsec_storage *storage = &model->tensors[i];
    if (storage->kind == SPARSEC_CODE) ctx->tensors[i] = (void *)(model->code + storage->offset);
    if (storage->kind == SPARSEC_ARENA) ctx->tensors[i] = ctx->memory.start + storage->offset;
    if (storage->kind != SPARSEC_CONSTANT) continue;
    const unsigned char *start = storage->offset < model->streamed_bytes ? ctx->weights : model->constants;
    ctx->tensors[i] = (void *)(start + storage->offset);
  }
  return next;
}

sparsec_context *sparsec_create(int threads) {
  if (check_cpu()) return NULL;
  if (threads == 0) threads = default_threads();
  if (threads == -1) return NULL;
  if (threads < 1 || threads > MAX_THREADS) {
    fail("%d threads were asked for; the number must be from 1 to %d", threads, MAX_THREADS);
    return NULL;
  }
  sparsec_context *ctx = calloc(1, sizeof *ctx);
  if (!ctx) {
    fail("out of memory");
    return NULL;
  }
  ctx->threads = threads;
  ctx->process = getpid();
  char *workspaces = allocate_tables(ctx) ? NULL : allocate_memory(ctx);
  if (workspaces && !(ctx->pool = sparsec_pool_create(threads, workspaces, model->workspace_bytes)))
    fail("cannot start %d threads", threads);
  if (!ctx->pool) {
    sparsec_destroy(ctx);
    return NULL;
  }
  for (int i = 0; i < model->num_symbols; i++) ctx->symbols[i] = model->symbols[i].upper;
  model->shapes(ctx->symbols, ctx->dims);
  return ctx;
}

void sparsec_destroy(sparsec_context *ctx) {
  if (!ctx) return;
  if (ctx->pool && ctx->process == getpid()) sparsec_pool_destroy(ctx->pool);
  if (ctx->weights) sparsec_leave_weights();
  sparsec_release(&ctx->memory);
  free(ctx->tensors); /* the start of the tables */
  free(ctx);
}

int sparsec_num_threads(const sparsec_context *ctx) { return ctx->threads; }

const int64_t *sparsec_input_shape(const sparsec_context *ctx, int index) {
  return sparsec_input(index) ? ctx->shapes[index] : NULL;
}

const int64_t *sparsec_output_shape(const sparsec_context *ctx, int index) {
  return sparsec_output(index) ? ctx->shapes[model->num_inputs + index] : NULL;
}

/* Makes the context this thread's until `give_back`. */
static int take(sparsec_context *ctx) {
  if (atomic_flag_test_and_set(&ctx->busy))
    return fail("the context is running in another thread; create one context for each thread");
  return 0;
}

static void give_back(sparsec_context *ctx) { atomic_flag_clear(&ctx->busy); }

static int choose_shapes(sparsec_context *ctx, const int64_t *const *shapes) {
  for (int i = 0; i < model->num_symbols; i++) {
    const sparsec_symbol *symbol = &model->symbols[i];
    int64_t value = shapes[symbol->input][symbol->axis];
    if (value < symbol->lower || value > symbol->upper)
      return fail("axis %d of input '%s' is %lld; the model was compiled for %s from %lld to %lld", symbol->axis,
                  model->inputs[symbol->input].name, (long long)value, symbol->name, (long long)symbol->lower,
                  (long long)symbol->upper);
    ctx->new_symbols[i] = value;
  }
  model->shapes(ctx->new_symbols, ctx->new_dims);
  const int64_t *expected = ctx->new_dims;
  for (int i = 0; i < model->num_inputs; i++)
    for (int axis = 0; axis < model->inputs[i].rank; axis++, expected++)
      if (shapes[i][axis] != *expected)
        return fail("axis %d of input '%s' is %lld; expected %lld", axis, model->inputs[i].name,
                    (long long)shapes[i][axis], (long long)*expected);
  memcpy(ctx->symbols, ctx->new_symbols, (size_t)model->num_symbols * sizeof *ctx->symbols);
  memcpy(ctx->dims, ctx->new_dims, (size_t)ctx->num_dims * sizeof *ctx->dims);
  return 0;
}

int sparsec_set_shapes(sparsec_context *ctx, const int64_t *const *shapes) {
  if (take(ctx)) return -1;
  int status = choose_shapes(ctx, shapes);
  give_back(ctx);
  return status;
}

static int is_aligned(const void *pointer) { return (uintptr_t)pointer % ALIGNMENT == 0; }

/* Bytes of one slice of an input or output; the whole where the steps run once. */
static size_t slice_bytes(const sparsec_context *ctx, int index) {
  return shape_bytes(port(index), ctx->shapes[index]) / (size_t)model->slices;
}

static char *slice_of(const sparsec_context *ctx, int index, const void *whole, int slice) {
  return (char *)whole + (size_t)slice * slice_bytes(ctx, index);
}

static int check_ports(const sparsec_context *ctx, const void *const *inputs, void *const *outputs) {
  for (int i = 0; i < num_ports(); i++) {
    int is_output = i >= model->num_inputs;
    const void *pointer = is_output ? outputs[i - model->num_inputs] : inputs[i];
    if (!pointer && slice_bytes(ctx, i))
      return fail("%s '%s' is NULL", is_output ? "output" : "input", port(i)->name);
  }
  return 0;
}

/* Points the tensors that lie in inputs and outputs to a slice of the caller's memory, or to a copy where that is not
 * aligned. */
static void bind_slice(sparsec_context *ctx, const void *const *inputs, void *const *outputs, int slice) {
  for (int i = 0; i < model->num_inputs; i++) {
    const char *pointer = slice_of(ctx, i, inputs[i], slice);
    if (!is_aligned(pointer)) memcpy(ctx->staging[i], pointer, slice_bytes(ctx, i));
  }
  for (int i = 0; i < model->num_tensors; i++) {
    const sparsec_storage *storage = &model->tensors[i];
    if (storage->kind != SPARSEC_INPUT && storage->kind != SPARSEC_OUTPUT) continue;
    int is_output = storage->kind == SPARSEC_OUTPUT, index = storage->index + (is_output ? model->num_inputs : 0);
    char *pointer = slice_of(ctx, index, is_output ? outputs[storage->index] : inputs[storage->index], slice);
    ctx->tensors[i] = is_aligned(pointer) ? pointer : ctx->staging[index];
  }
}

static void copy_outputs(const sparsec_context *ctx, void *const *outputs, int slice) {
  for (int i = 0; i < model->num_outputs; i++) {
    int p = model->num_inputs + i;
    char *pointer = slice_of(ctx, p, outputs[i], slice);
    if (!is_aligned(pointer)) memcpy(pointer, ctx->staging[p], slice_bytes(ctx, p));
  }
}

static uint64_t now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* One thread is timed by what it takes of a processor, so that other programs which hold that meanwhile do not count;
 * some systems know that to milliseconds only. */
static clockid_t choose_clock(int threads) {
  uint64_t start = now(CLOCK_MONOTONIC), taken = now(CLOCK_THREAD_CPUTIME_ID);
  while (now(CLOCK_MONOTONIC) - start < 10000) continue;
  return threads == 1 && now(CLOCK_THREAD_CPUTIME_ID) != taken ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
}

static int run_steps(sparsec_context *ctx) {
  uint64_t before = ctx->profiling ? now(ctx->clock) : 0;
  for (int i = 0; i < model->num_steps; i++) {
    if (model->steps[i].call(ctx->tensors, ctx->symbols)) {
      const char *why = sparsec_pool_error(ctx->pool);
      return fail("step '%s' (kernel %s) failed: %s", model->steps[i].label, model->steps[i].kernel,
                  *why ? why : "its workspace is too small");
    }
    if (ctx->profiling) {
      uint64_t after = now(ctx->clock);
      ctx->nanoseconds[i] += after - before;
      before = after;
    }
  }
  return 0;
}

static int run_slices(sparsec_context *ctx, const void *const *inputs, void *const *outputs) {
  for (int slice = 0; slice < model->slices; slice++) {
    bind_slice(ctx, inputs, outputs, slice);
    if (run_steps(ctx)) return -1;
    copy_outputs(ctx, outputs, slice);
  }
  return 0;
}

int sparsec_run(sparsec_context *ctx, const void *const *inputs, void *const *outputs) {
  if (ctx->threads > 1 && ctx->process != getpid())
    return fail("the context was created before a fork; create one in this process");
  if (take(ctx)) return -1;
  int status = check_ports(ctx, inputs, outputs);
  if (!status) {
    if (ctx->profiling) memset(ctx->nanoseconds, 0, (size_t)model->num_steps * sizeof *ctx->nanoseconds);
    void *outer = sparsec_pool_enter(ctx->pool);
    status = run_slices(ctx, inputs, outputs);
    sparsec_pool_leave(outer);
  }
  give_back(ctx);
  return status;
}

void sparsec_set_profiling(sparsec_context *ctx, int on) {
  ctx->profiling = on;
  if (on) ctx->clock = choose_clock(ctx->threads);
}

const char *sparsec_step_label(int step) {
  return step >= 0 && step < model->num_steps ? model->steps[step].label : NULL;
}

const char *sparsec_step_kernel(int step) {
  return step >= 0 && step < model->num_steps ? model->steps[step].kernel : NULL;
}

uint64_t sparsec_step_nanoseconds(const sparsec_context *ctx, int step) {
  return step >= 0 && step < model->num_steps ? ctx->nanoseconds[step] : 0;
}

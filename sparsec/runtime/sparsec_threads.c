/* The pool forks and joins once for each parallel loop, many times in a millisecond. Workers spin for a while before
 * they sleep, and the caller works too. Tasks are claimed one by one and a loop is over when its tasks are done, not when
 * every worker has come by: where other programs hold a processor, the threads that do run take over the work.
 *
 * Threads are not pinned: the process has other work that only the scheduler knows, and two contexts pinned to the same
 * cores would halve each other's speed. But threads that all have work look alike to a scheduler, which may leave two of
 * them on one processor for seconds while another is idle: so a worker that finds itself beside another one moves away,
 * unless SPARSEC_MOVE_THREADS is 0. */
#define _GNU_SOURCE
#include "sparsec_fragments.h"
#include "sparsec_threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  CACHE_LINE = 64,
  SPIN_NANOSECONDS = 100000,
  TASKS_PER_THREAD = 8, /* so that one slow thread does not hold up the others, and few iterations are shared evenly */
};

/* These three are TVM's (c_backend_api.h). */
typedef struct {
  void *sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*parallel_task)(int task, TVMParallelGroupEnv *env, void *data);

typedef struct {
  /* The number of the job (32 bits), the end (16) and the start (16) of the tasks of its share that are not claimed. */
  _Alignas(CACHE_LINE) atomic_uint_least64_t share;
  _Alignas(CACHE_LINE) sparsec_pool *pool;
  pthread_t handle;
  int in_task;
  atomic_int processor; /* that the thread was last seen on */
  char *workspace; /* a stack */
  size_t workspace_bytes, workspace_used;
} worker;

struct sparsec_pool {
  /* The job. Who has claimed one of its tasks may read it: it does not change before all its tasks are done. */
  parallel_task task;
  void *data;
  TVMParallelGroupEnv env;
  _Alignas(CACHE_LINE) atomic_uint_least32_t job; /* its number */
  _Alignas(CACHE_LINE) atomic_int done;
  atomic_int failed;
  _Alignas(CACHE_LINE) atomic_int sleepers;
  atomic_bool stop, stay;
  atomic_flag error_written;
  char error[256];
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  int threads;
  worker workers[];
};

static _Thread_local worker *self;

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static uint64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t current_job(sparsec_pool *pool) { return atomic_load_explicit(&pool->job, memory_order_acquire); }

/* Spins until there is another job than `seen`; gives up after SPIN_NANOSECONDS. */
static int spin_for_job(sparsec_pool *pool, uint32_t seen) {
  uint64_t start = nanoseconds();
  do {
    for (int i = 0; i < 64; i++) {
      if (current_job(pool) != seen) return 1;
      relax();
    }
  } while (nanoseconds() - start < SPIN_NANOSECONDS);
  return 0;
}

/* A task of a share of this job, its first or its last one, or -1 if all are taken. */
static int claim_of(worker *owner, uint32_t job, int last) {
  uint64_t share = atomic_load_explicit(&owner->share, memory_order_acquire);
  for (;;) {
    int start = (int)(share & 0xFFFF), end = (int)(share >> 16 & 0xFFFF);
    if (share >> 32 != job || start >= end) return -1;
    uint64_t left = last ? share - 0x10000 : share + 1;
    if (atomic_compare_exchange_weak_explicit(&owner->share, &share, left, memory_order_acq_rel, memory_order_acquire))
      return last ? end - 1 : start;
  }
}

/* A task of this job, or -1 if all are taken. The tasks of a share follow each other: what one asks for ahead of time the
 * next one needs, and what a thread wrote in a loop is mostly in its own cache when it works on the same part of the next
 * loop. Who is done with its own share takes from the end of the others. */
static int claim(worker *me, uint32_t job) {
  sparsec_pool *pool = me->pool;
  int mine = (int)(me - pool->workers), task = -1;
  for (int n = 0; n < pool->threads && task < 0; n++)
    task = claim_of(&pool->workers[(mine + n) % pool->threads], job, n > 0);
  return task;
}

static void run_tasks(worker *me, uint32_t job) {
  sparsec_pool *pool = me->pool;
  size_t workspace_used = me->workspace_used;
  me->in_task = sparsec_others_wrote = 1;
  for (int task; (task = claim(me, job)) >= 0;) {
    if (pool->task(task, &pool->env, pool->data)) {
      atomic_store(&pool->failed, 1);
      me->workspace_used = workspace_used; /* a task that fails frees nothing */
    }
    atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
  }
  me->in_task = 0;
}

/* Says which processor this thread is on. A worker that finds itself on that of a thread before it moves to one that is
 * free, if there is any, and may be moved from there again. */
static void spread_out(worker *me) {
  sparsec_pool *pool = me->pool;
  int mine = sched_getcpu(), shared = 0;
  for (worker *other = pool->workers; other < me; other++)
    shared |= mine >= 0 && atomic_load_explicit(&other->processor, memory_order_relaxed) == mine;
  atomic_store_explicit(&me->processor, mine, memory_order_relaxed);
  if (!shared || atomic_load_explicit(&pool->stay, memory_order_relaxed)) return;

  cpu_set_t allowed, unused, chosen;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  unused = allowed;
  for (int i = 0; i < pool->threads; i++) {
    int taken = atomic_load_explicit(&pool->workers[i].processor, memory_order_relaxed);
    if (taken >= 0 && taken < CPU_SETSIZE) CPU_CLR(taken, &unused);
  }
  int skipped = CPU_COUNT(&unused) ? (int)(me - pool->workers) % CPU_COUNT(&unused) : 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &unused) || skipped--) continue; /* workers that move at once choose others */
    CPU_ZERO(&chosen);
    CPU_SET(cpu, &chosen);
    if (!sched_setaffinity(0, sizeof chosen, &chosen)) atomic_store_explicit(&me->processor, cpu, memory_order_relaxed);
    else atomic_store(&pool->stay, 1);
    if (sched_setaffinity(0, sizeof allowed, &allowed)) atomic_store(&pool->stay, 1);
    return;
  }
}

static void *work(void *argument) {
  worker *me = argument;
  sparsec_pool *pool = me->pool;
  uint32_t seen = 0;
  self = me;
  while (!atomic_load(&pool->stop)) {
    if (!spin_for_job(pool, seen)) {
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->job) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
    }
    seen = current_job(pool);
    spread_out(me);
    run_tasks(me, seen);
  }
  return NULL;
}

/* A worker that is about to sleep counts itself before it looks at the job, and this looks at the count after it changed
 * the job: one of the two sees the other. */
static uint32_t start_job(sparsec_pool *pool, int num_task) {
  uint32_t job = current_job(pool) + 1;
  for (int i = 0; i < pool->threads; i++) {
    uint64_t start = (uint64_t)num_task * (unsigned)i / (unsigned)pool->threads;
    uint64_t end = (uint64_t)num_task * (unsigned)(i + 1) / (unsigned)pool->threads;
    atomic_store_explicit(&pool->workers[i].share, (uint64_t)job << 32 | end << 16 | start, memory_order_release);
  }
  atomic_store(&pool->job, job);
  if (atomic_load(&pool->sleepers)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
  return job;
}

static int parallel_launch(parallel_task task, void *data, int num_task) {
  sparsec_pool *pool = self->pool;
  if (num_task == 0) num_task = pool->threads * TASKS_PER_THREAD;
  if (self->in_task || pool->threads == 1 || num_task > 0xFFFF) { /* nested, or nobody to share with */
    TVMParallelGroupEnv alone = {NULL, 1};
    return task(0, &alone, data);
  }
  pool->task = task;
  pool->data = data;
  pool->env = (TVMParallelGroupEnv){NULL, num_task};
  atomic_store_explicit(&pool->failed, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
  atomic_store_explicit(&self->processor, sched_getcpu(), memory_order_relaxed);
  run_tasks(self, start_job(pool, num_task));
  for (int spins = 0; atomic_load_explicit(&pool->done, memory_order_acquire) < num_task; spins++)
    if (spins < 4096) relax();
    else sched_yield(); /* the others may be waiting for this processor */
  return atomic_load_explicit(&pool->failed, memory_order_relaxed) ? -1 : 0;
}

static void *alloc_workspace(int device_type, int device_id, uint64_t nbytes, int dtype_code, int dtype_bits) {
  (void)device_type, (void)device_id, (void)dtype_code, (void)dtype_bits;
  size_t rounded = (nbytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
  if (self->workspace_used + rounded > self->workspace_bytes) return NULL;
  char *block = self->workspace + self->workspace_used;
  self->workspace_used += rounded;
  return block;
}

/* Blocks that end together are freed in any order, so the top of the stack is the lowest of them. */
static int free_workspace(int device_type, int device_id, void *block) {
  (void)device_type, (void)device_id;
  size_t offset = (size_t)((char *)block - self->workspace);
  if (offset < self->workspace_used) self->workspace_used = offset;
  return 0;
}

/* Generated code declares these as weak variables, to be filled by whoever loads it. */
int (*__TVMBackendParallelLaunch)(parallel_task, void *, int) = parallel_launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = alloc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;

/* An assertion in generated code failed. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t num_parts) {
  sparsec_pool *pool = self->pool;
  if (atomic_flag_test_and_set(&pool->error_written)) return;
  int length = snprintf(pool->error, sizeof pool->error, "%s: ", kind);
  for (int32_t i = 0; i < num_parts && length < (int)sizeof pool->error; i++)
    if (parts[i]) length += snprintf(pool->error + length, sizeof pool->error - (size_t)length, "%s", parts[i]);
}

void *sparsec_pool_enter(sparsec_pool *pool) {
  void *outer = self;
  self = &pool->workers[0];
  self->workspace_used = 0;
  pool->error[0] = 0;
  atomic_flag_clear(&pool->error_written);
  return outer;
}

void sparsec_pool_leave(void *outer) { self = outer; }

const char *sparsec_pool_error(const sparsec_pool *pool) { return pool->error; }

sparsec_pool *sparsec_pool_create(int threads, char *workspace, size_t workspace_bytes) {
  size_t size = sizeof(sparsec_pool) + (size_t)threads * sizeof(worker);
  sparsec_pool *pool = aligned_alloc(CACHE_LINE, (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
  if (!pool) return NULL;
  const char *move = getenv("SPARSEC_MOVE_THREADS");
  *pool = (sparsec_pool){.threads = 1, .stay = move && !strcmp(move, "0")};
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  for (int i = 0; i < threads; i++) {
    worker *w = &pool->workers[i];
    *w = (worker){.pool = pool, .processor = -1, .workspace_bytes = workspace_bytes};
    w->workspace = workspace + (size_t)i * workspace_bytes;
  }
  for (; pool->threads < threads; pool->threads++)
    if (pthread_create(&pool->workers[pool->threads].handle, NULL, work, &pool->workers[pool->threads])) {
      sparsec_pool_destroy(pool);
      return NULL;
    }
  return pool;
}

void sparsec_pool_destroy(sparsec_pool *pool) {
  atomic_store(&pool->stop, 1);
  start_job(pool, 0);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i].handle, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

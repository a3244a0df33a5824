/* Huge pages: a table of addresses that covers 2 MB at a time costs fewer walks through it than one of 4 KB. */
#define _GNU_SOURCE
#include "sparsec_memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, LEAST_WEIGHTS = 2 * HUGE_PAGE };

int sparsec_reserve(sparsec_memory *memory, size_t first, size_t beside) {
  size_t huge = (first + HUGE_PAGE / 2) / HUGE_PAGE * HUGE_PAGE, bytes = first + beside;
  size_t unit = huge ? HUGE_PAGE : 1;
  memory->mapping_bytes = (bytes < huge ? huge : bytes) + (unit - 1);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *mapping = mmap(NULL, memory->mapping_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapping == MAP_FAILED) return -1;
  memory->mapping = mapping;
  memory->start = (char *)round_up((uintptr_t)mapping, unit);
  if (huge) madvise(memory->start, huge, MADV_HUGEPAGE);
  return 0;
}

void sparsec_release(sparsec_memory *memory) {
  if (memory->start) munmap(memory->mapping, memory->mapping_bytes);
  *memory = (sparsec_memory){0};
}

/* The copy that all contexts share. The last context frees it: a destructor would do so at the exit of a program, when
 * other threads may still run. */
static struct {
  pthread_mutex_t lock;
  int users;
  sparsec_memory copy;
} weights = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What the system says of its huge pages; nothing where it says nothing. */
static void read_about_huge_pages(const char *path, char *text, int bytes) {
  FILE *file = fopen(path, "re");
  if (!file || !fgets(text, bytes, file)) *text = 0;
  if (file) fclose(file);
}

/* Whether whoever asks for huge pages may get some, and these are as large as they are taken to be here. */
static int has_huge_pages(void) {
  char enabled[64], size[64];
  read_about_huge_pages("/sys/kernel/mm/transparent_hugepage/enabled", enabled, sizeof enabled);
  read_about_huge_pages("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", size, sizeof size);
  return *enabled && !strstr(enabled, "[never]") && atol(size) == HUGE_PAGE;
}

static int may_copy(void) {
  const char *text = getenv("SPARSEC_COPY_WEIGHTS");
  return (!text || strcmp(text, "0") != 0) && has_huge_pages();
}

/* Copies the weights, and drops what was copied from memory: the system can read it from the file again. */
static sparsec_memory copy_weights(const unsigned char *file, size_t bytes) {
  sparsec_memory copy = {0};
  if (sparsec_reserve(&copy, bytes, 0)) return copy;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  uintptr_t dropped = round_up((uintptr_t)file, page);
  for (size_t done = 0; done < bytes;) {
    size_t part = bytes - done < HUGE_PAGE ? bytes - done : HUGE_PAGE;
    memcpy(copy.start + done, file + done, part);
    done += part;
    uintptr_t end = ((uintptr_t)file + done) / page * page;
    if (end > dropped) madvise((void *)dropped, end - dropped, MADV_DONTNEED);
    dropped = end;
  }
  mprotect(copy.mapping, copy.mapping_bytes, PROT_READ);
  return copy;
}

/* Counts a user, and returns what there is of a copy: `made`, if none was there before. */
static const char *share(sparsec_memory *made, int more_users) {
  pthread_mutex_lock(&weights.lock);
  weights.users += more_users;
  if (!weights.copy.start && made) weights.copy = *made, *made = (sparsec_memory){0};
  const char *start = weights.copy.start;
  pthread_mutex_unlock(&weights.lock);
  return start;
}

/* Nothing is copied under the lock: a child that is forked meanwhile would find it taken for ever. */
const unsigned char *sparsec_share_weights(const unsigned char *file, size_t bytes) {
  const char *start = share(NULL, 1);
  if (!start && bytes >= LEAST_WEIGHTS && may_copy()) {
    sparsec_memory made = copy_weights(file, bytes);
    start = share(&made, 0);
    sparsec_release(&made); /* where another thread was faster */
  }
  return start ? (const unsigned char *)start : file;
}

void sparsec_leave_weights(void) {
  sparsec_memory unused = {0};
  pthread_mutex_lock(&weights.lock);
  if (!--weights.users) unused = weights.copy, weights.copy = (sparsec_memory){0};
  pthread_mutex_unlock(&weights.lock);
  sparsec_release(&unused);
}

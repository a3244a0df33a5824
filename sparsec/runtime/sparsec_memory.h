/* Memory of a model beside its library: that of contexts, and weights on huge pages. */
#ifndef SPARSEC_MEMORY_H
#define SPARSEC_MEMORY_H

#include <stddef.h>

typedef struct {
  char *start; /* at a huge page, where there are some; NULL without memory */
  void *mapping;
  size_t mapping_bytes;
} sparsec_memory;

static inline size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/* Reserves `first` bytes, in huge pages where these are mostly of them, and more bytes behind. Pages come zeroed and only
 * when touched, so what no run needs costs no memory. Returns -1 where there is none. */
int sparsec_reserve(sparsec_memory *memory, size_t first, size_t beside);
void sparsec_release(sparsec_memory *memory);

/* Where the first `bytes` of the constants in the file are to be read: on huge pages, where they are worth that and the
 * system has some, and else where they are. Each call must be answered by one of sparsec_leave_weights. */
const unsigned char *sparsec_share_weights(const unsigned char *file, size_t bytes);
void sparsec_leave_weights(void);

#endif

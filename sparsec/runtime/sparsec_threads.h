/* A pool of threads that run one function together, and the calls of TVM's generated code that need it. */
#ifndef SPARSEC_THREADS_H
#define SPARSEC_THREADS_H

#include <stddef.h>

typedef struct sparsec_pool sparsec_pool;

/* A pool of `threads` (the caller is one of them), each with `workspace_bytes` at `workspace + i * workspace_bytes`.
 * NULL if memory or threads cannot be had. */
sparsec_pool *sparsec_pool_create(int threads, char *workspace, size_t workspace_bytes);
void sparsec_pool_destroy(sparsec_pool *pool);

/* Between enter and leave, generated code that the calling thread runs uses this pool. leave gives back what enter
 * returned, so that a model may run inside another. */
void *sparsec_pool_enter(sparsec_pool *pool);
void sparsec_pool_leave(void *outer);

/* What generated code reported since enter, or "". */
const char *sparsec_pool_error(const sparsec_pool *pool);

#endif

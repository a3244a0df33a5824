/* The C interface of a model compiled by sparsec.
 *
 *     sparsec_context *ctx = sparsec_create(0);
 *     if (!ctx) { fprintf(stderr, "%s\n", sparsec_last_error()); exit(1); }
 *     const void *inputs[] = {x};
 *     void *outputs[] = {y};
 *     if (sparsec_run(ctx, inputs, outputs)) { ... }
 *     sparsec_destroy(ctx);
 *
 * Tensors are dense and row-major. Pointers may have any alignment; a tensor at a multiple of 64 bytes is used where it
 * lies, another one is copied. Contexts share nothing but the weights: use one per thread. Functions that return int
 * return 0 on success; after a failure sparsec_last_error says what happened.
 */
#ifndef SPARSEC_H
#define SPARSEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPARSEC_ABI_VERSION 2

#if defined(__GNUC__)
#define SPARSEC_API __attribute__((visibility("default")))
#else
#define SPARSEC_API
#endif

typedef struct sparsec_context sparsec_context;

/* An input or output. A dimension is fixed where min_shape equals max_shape, and chosen by sparsec_set_shapes elsewhere,
 * between the two. */
typedef struct {
  const char *name;
  const char *dtype; /* as NumPy and ml_dtypes write it: "float32", "bfloat16", "bool", ... */
  size_t itemsize;   /* bytes of one element */
  int32_t rank;
  const int64_t *min_shape;
  const int64_t *max_shape;
} sparsec_tensor;

/* The SPARSEC_ABI_VERSION that the library was built with. */
SPARSEC_API int sparsec_abi_version(void);

/* What the library was compiled from and for, as JSON. */
SPARSEC_API const char *sparsec_manifest(void);

/* The last failure in the calling thread, or "". */
SPARSEC_API const char *sparsec_last_error(void);

SPARSEC_API int sparsec_num_inputs(void);
SPARSEC_API int sparsec_num_outputs(void);

/* Descriptions, or NULL if there is no such index. */
SPARSEC_API const sparsec_tensor *sparsec_input(int index);
SPARSEC_API const sparsec_tensor *sparsec_output(int index);

/* Reserve all memory that runs will need and start threads - 1 threads; the caller of sparsec_run is the other one.
 * threads = 0 takes SPARSEC_NUM_THREADS from the environment, or else the physical cores that the process may use.
 * NULL if the processor lacks an extension that the library was compiled for, or memory or threads cannot be had. */
SPARSEC_API sparsec_context *sparsec_create(int threads);
SPARSEC_API void sparsec_destroy(sparsec_context *context);
SPARSEC_API int sparsec_num_threads(const sparsec_context *context);

/* Choose the shapes of all inputs: shapes[i] has as many dimensions as input i. A new context has the shapes where every
 * symbol is at its upper bound. */
SPARSEC_API int sparsec_set_shapes(sparsec_context *context, const int64_t *const *shapes);
SPARSEC_API const int64_t *sparsec_input_shape(const sparsec_context *context, int index);
SPARSEC_API const int64_t *sparsec_output_shape(const sparsec_context *context, int index);

/* Run the model once. Allocates nothing. Outputs must not overlap inputs or each other. */
SPARSEC_API int sparsec_run(sparsec_context *context, const void *const *inputs, void *const *outputs);

/* Time each step of the runs that follow. */
SPARSEC_API void sparsec_set_profiling(sparsec_context *context, int on);
SPARSEC_API int sparsec_num_steps(void);
SPARSEC_API const char *sparsec_step_label(int step);
SPARSEC_API const char *sparsec_step_kernel(int step);
/* Nanoseconds that a step took in the last run that was profiled: with one thread of its own, and not while others held
 * its processor, where the system can tell. */
SPARSEC_API uint64_t sparsec_step_nanoseconds(const sparsec_context *context, int step);

#ifdef __cplusplus
}
#endif
#endif

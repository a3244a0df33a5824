/* Fragments are code for blocks of weights, which kernels call. */
#ifndef SPARSEC_FRAGMENTS_H
#define SPARSEC_FRAGMENTS_H

#include <stdint.h>

/* Runs the fragment of this index on so many panels, which start `x_step` bytes apart, and their sums, where the results
 * go, the bytes of a `vector`; returns 0.
 *
 * `starts` has a pair for each fragment, and one for the end: bytes of code, and values of `itemsize` bytes, before it.
 * Sums may start from an element for each of the `rows` and from `elements` like them, and columns of 4 bytes say
 * whether they are `valid`; what a fragment does not read may be any address. `lanes` are the bits of those lanes of a
 * panel that are stored. All of the panels lie within `extent` bytes, if that is not 0, and take most of these. */
int32_t sparsec_run_fragments(const uint8_t *code, const int32_t *starts, int32_t index, const void *values,
                              int32_t itemsize, const void *x, int32_t x_step, void *sums, const void *rows,
                              const void *elements, const void *valid, int32_t lanes, int32_t panels,
                              int32_t vector, int32_t extent);

/* Whether other threads may have written what this one reads since it ran its last fragment. */
extern _Thread_local int sparsec_others_wrote;

#endif

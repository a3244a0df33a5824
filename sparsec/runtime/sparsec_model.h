/* The tables of one model: generated C fills them, sparsec_runtime.c walks them. */
#ifndef SPARSEC_MODEL_H
#define SPARSEC_MODEL_H

#include "sparsec.h"

enum { SPARSEC_INPUT, SPARSEC_OUTPUT, SPARSEC_CONSTANT, SPARSEC_CODE, SPARSEC_ARENA };

typedef struct {
  int32_t kind;
  int32_t index;   /* of an input or output */
  uint64_t offset; /* bytes into the constants, the code or the arena */
} sparsec_storage;

typedef struct {
  const char *label;
  const char *kernel;
  /* Calls the kernel with the addresses of all tensors and the values of all symbols. */
  int32_t (*call)(void *const *tensors, const int64_t *symbols);
} sparsec_step;

/* A symbol takes its value from one axis of one input. */
typedef struct {
  const char *name;
  int64_t lower, upper;
  int32_t input, axis;
} sparsec_symbol;

/* Where the processor reports an extension, and the register state (XCR0) that the system must keep for it. */
typedef struct {
  const char *name;
  uint32_t leaf, subleaf, reg, bit, state;
} sparsec_probe;

typedef struct {
  const char *manifest;
  const sparsec_probe *probes;
  const sparsec_symbol *symbols;
  const sparsec_tensor *inputs, *outputs;
  const sparsec_storage *tensors;
  const sparsec_step *steps;
  const unsigned char *constants;
  const unsigned char *code; /* that kernels call */
  uint64_t streamed_bytes; /* of the constants: weights, which come first and are read whole */
  /* Writes the dimensions of all inputs, then of all outputs. */
  void (*shapes)(const int64_t *symbols, int64_t *dims);
  uint64_t arena_bytes;
  uint64_t workspace_bytes; /* for each thread */
  int32_t slices;           /* of inputs and outputs: the steps run for one after the other */
  int32_t num_probes, num_symbols, num_inputs, num_outputs, num_tensors, num_steps;
} sparsec_model;

extern const sparsec_model sparsec_the_model;

#endif

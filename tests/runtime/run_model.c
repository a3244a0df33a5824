/* Run a model: run_model INPUTS OUTPUTS reads the inputs, and writes the outputs, as raw elements one after another. */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

static size_t elements(const sparsec_tensor *tensor, const int64_t *shape) {
  size_t count = 1;
  for (int axis = 0; axis < tensor->rank; axis++) count *= (size_t)shape[axis];
  return count;
}

static void die(const char *message) {
  fprintf(stderr, "%s\n", message);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 3) die("usage: run_model INPUTS OUTPUTS");
  FILE *file = fopen(argv[1], "rb");
  sparsec_context *ctx = sparsec_create(1);
  if (!file || !ctx) die(ctx ? "cannot open the inputs" : sparsec_last_error());

  const void *inputs[64];
  void *outputs[64];
  for (int i = 0; i < sparsec_num_inputs(); i++) {
    const sparsec_tensor *tensor = sparsec_input(i);
    size_t count = elements(tensor, sparsec_input_shape(ctx, i));
    void *data = malloc(count * tensor->itemsize);
    if (fread(data, tensor->itemsize, count, file) != count) die("the inputs are too short");
    inputs[i] = data;
  }
  for (int i = 0; i < sparsec_num_outputs(); i++) {
    const sparsec_tensor *tensor = sparsec_output(i);
    outputs[i] = malloc(elements(tensor, sparsec_output_shape(ctx, i)) * tensor->itemsize);
  }
  if (sparsec_run(ctx, inputs, outputs)) die(sparsec_last_error());
  file = fopen(argv[2], "wb");
  if (!file) die("cannot open the outputs");
  for (int i = 0; i < sparsec_num_outputs(); i++) {
    const sparsec_tensor *tensor = sparsec_output(i);
    size_t count = elements(tensor, sparsec_output_shape(ctx, i));
    if (fwrite(outputs[i], tensor->itemsize, count, file) != count) die("cannot write the outputs");
  }
  if (fclose(file)) die("cannot write the outputs");
  sparsec_destroy(ctx);
  return 0;
}

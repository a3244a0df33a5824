/* Runs fragments: code that was written for the entries of a block of a weight. */
#include "sparsec_fragments.h"

#include <stddef.h>

enum { LINE = 64, MOST_NEAR = 1 << 19 };

_Thread_local int sparsec_others_wrote;

/* What a fragment reads beside a panel: what sums start from, which columns are valid, and the lanes to store. */
typedef struct {
  const char *rows, *elements, *valid;
  uint64_t lanes;
} beside;

/* Takes a panel of X, the stored values and the sums, and what of the code and of the values of the next fragment it is
 * to ask for. */
typedef void fragment(const char *x, const char *values, char *sums, const char *next_code, const char *next_values,
                      const beside *beside);

/* What each of so many passes is to ask for: a number of whole lines. */
static size_t share(ptrdiff_t bytes, int32_t passes) {
  size_t lines = ((size_t)bytes + LINE - 1) / LINE;
  return (lines + (size_t)passes - 1) / (size_t)passes * LINE;
}

/* Asks for what caches of other processors may hold, in order: a fragment needs a line here and there, and would wait for
 * each more than twice as long. */
static void bring_near(const char *first, int32_t extent) {
  if (!sparsec_others_wrote || !extent || extent > MOST_NEAR) return;
  sparsec_others_wrote = 0;
  for (int32_t at = 0; at < extent; at += LINE) __builtin_prefetch(first + at, 0, 2);
}

int32_t sparsec_run_fragments(const uint8_t *code, const int32_t *starts, int32_t index, const void *values,
                              int32_t itemsize, const void *x, int32_t x_step, void *sums, const void *rows,
                              const void *elements, const void *valid, int32_t lanes, int32_t panels,
                              int32_t vector, int32_t extent) {
  const int32_t *here = starts + 2 * (ptrdiff_t)index, *next = here + 2;
  const char *data = (const char *)values, *panel = x;
  const char *next_code = (const char *)code + next[0], *next_values = data + (ptrdiff_t)next[1] * itemsize;
  /* The next fragment is about as long as this one. */
  size_t code_share = share(next[0] - here[0], panels);
  size_t value_share = share((ptrdiff_t)(next[1] - here[1]) * itemsize, panels);
  data += (ptrdiff_t)here[1] * itemsize;
  fragment *run = (fragment *)(uintptr_t)(code + here[0]);
  char *place = sums;
  bring_near(x, extent);
  beside more = {rows, elements, valid, (uint64_t)lanes};
  for (int32_t n = 0; n < panels; n++) {
    run(panel, data, place, next_code, next_values, &more);
    panel += x_step, next_code += code_share, next_values += value_share;
    place += vector, more.elements += vector, more.valid += vector;
  }
  return 0;
}

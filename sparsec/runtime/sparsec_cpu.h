/* What the processor and the system offer. */
#ifndef SPARSEC_CPU_H
#define SPARSEC_CPU_H

#include "sparsec_model.h"

/* Whether the processor has an extension and the system keeps its registers. */
int sparsec_cpu_has(const sparsec_probe *probe);

/* Physical cores that this process may use, at least 1. */
int sparsec_cpu_cores(void);

#endif

#define _GNU_SOURCE
#include "sparsec_cpu.h"

#include <sched.h>
#include <stdio.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux, Documentation/arch/x86/xstate.rst: the registers of tiles are kept for processes that ask for it. */
enum { TILE_DATA = 18, ARCH_REQ_XCOMP_PERM = 0x1023 };

int sparsec_cpu_has(const sparsec_probe *probe) {
  unsigned regs[4];
  if (__get_cpuid_max(probe->leaf & 0x80000000u, NULL) < probe->leaf) return 0;
  if (probe->subleaf) {
    __cpuid_count(probe->leaf, 0, regs[0], regs[1], regs[2], regs[3]);
    if (regs[0] < probe->subleaf) return 0;
  }
  __cpuid_count(probe->leaf, probe->subleaf, regs[0], regs[1], regs[2], regs[3]);
  if (!(regs[probe->reg] >> probe->bit & 1)) return 0;
  if (!probe->state) return 1;
  __cpuid(1, regs[0], regs[1], regs[2], regs[3]);
  if (!(regs[2] >> 27 & 1)) return 0; /* the system does not use XSAVE */
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & probe->state) != probe->state) return 0;
  return !(probe->state >> TILE_DATA & 1) || !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

int sparsec_cpu_has(const sparsec_probe *probe) { return getauxval(probe->leaf) >> probe->bit & 1; }

#endif

/* The first processor that shares a core with this one. */
static int first_sibling(int cpu) {
  char path[96];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  FILE *file = fopen(path, "r");
  int first = cpu;
  if (file) {
    if (fscanf(file, "%d", &first) != 1) first = cpu;
    fclose(file);
  }
  return first;
}

int sparsec_cpu_cores(void) {
  cpu_set_t allowed, cores;
  CPU_ZERO(&allowed);
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return 1;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(first_sibling(cpu), &cores);
  int count = CPU_COUNT(&cores);
  return count ? count : 1;
}

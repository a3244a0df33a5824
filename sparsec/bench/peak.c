/* Loops over registers alone, one for each instruction that adds up products: as fast as a core can carry it out.
 *
 * A loop adds to so many sums that do not depend on one another that the latency of an instruction is hidden. Every
 * function names the extensions that it needs, so that one file is compiled for any processor of its architecture. */

typedef float vector_128 __attribute__((vector_size(16)));
typedef float vector_256 __attribute__((vector_size(32)));
typedef float vector_512 __attribute__((vector_size(64)));

#define LOOP(name, extensions, vector, step) \
  __attribute__((target(extensions))) void name(long rounds) { \
    vector x = {0}, s0 = x, s1 = x, s2 = x, s3 = x, s4 = x, s5 = x, s6 = x, s7 = x, s8 = x, s9 = x, s10 = x, s11 = x; \
    MORE_SUMS(vector) \
    while (rounds-- > 0) { \
      step(s0) step(s1) step(s2) step(s3) step(s4) step(s5) step(s6) step(s7) step(s8) step(s9) step(s10) step(s11) \
      MORE_STEPS(step) \
    } \
  }

#if defined(__x86_64__)

const int sums = 12; /* in 16 registers */
#define MORE_SUMS(vector)
#define MORE_STEPS(step)

#define STEP(s, text) __asm__ volatile(text : "+v"(s) : "v"(x));
#define STEP_BY_WAY_OF(t, s, text) { t between; __asm__ volatile(text : "+v"(s), "=&v"(between) : "v"(x)); }

#define FMA(s) STEP(s, "vfmadd231ps %1, %1, %0")
#define MULPS_ADDPS(s) STEP_BY_WAY_OF(vector_128, s, "movaps %2, %1\nmulps %2, %1\naddps %1, %0")
#define VPDPBUSD(s) STEP(s, "vpdpbusd %1, %1, %0")
#define VEX_VPDPBUSD(s) STEP(s, "%{vex%} vpdpbusd %1, %1, %0")
#define VDPBF16PS(s) STEP(s, "vdpbf16ps %1, %1, %0")
#define ADD_WORDS "vpmaddwd %2, %2, %1\nvpaddd %1, %0, %0"
#define VPMADDWD_256(s) STEP_BY_WAY_OF(vector_256, s, ADD_WORDS)
#define VPMADDWD_512(s) STEP_BY_WAY_OF(vector_512, s, ADD_WORDS)
#define VPOPCNTD(s) STEP_BY_WAY_OF(vector_512, s, "vpandd %2, %2, %1\nvpopcntd %1, %1\nvpaddd %1, %0, %0")

LOOP(mulps_addps_128, "sse2", vector_128, MULPS_ADDPS)
LOOP(fma_256, "avx2,fma", vector_256, FMA)
LOOP(fma_512, "avx512f", vector_512, FMA)
LOOP(vpmaddwd_256, "avx2", vector_256, VPMADDWD_256)
LOOP(vpmaddwd_512, "avx512bw", vector_512, VPMADDWD_512)
LOOP(vex_vpdpbusd_256, "avxvnni", vector_256, VEX_VPDPBUSD)
LOOP(vpdpbusd_256, "avx512vnni,avx512vl", vector_256, VPDPBUSD)
LOOP(vpdpbusd_512, "avx512vnni", vector_512, VPDPBUSD)
LOOP(vdpbf16ps_256, "avx512bf16,avx512vl", vector_256, VDPBF16PS)
LOOP(vdpbf16ps_512, "avx512bf16", vector_512, VDPBF16PS)
LOOP(vpopcntd_512, "avx512vpopcntdq", vector_512, VPOPCNTD)

/* Tiles are numbered and no variables. Linux keeps them for those that ask; what finds the loop knows that it does. */
#define FOUR_TILES(name) \
  name " %%tmm6, %%tmm4, %%tmm0\n" name " %%tmm7, %%tmm4, %%tmm1\n" \
  name " %%tmm6, %%tmm5, %%tmm2\n" name " %%tmm7, %%tmm5, %%tmm3\n"
#define TILES(name, instruction) \
  __attribute__((target("amx-tile"))) void name(long rounds) { \
    enum { ARCH_PRCTL = 158, ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 }; \
    unsigned char tiles[64] = {[0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, \
                               [30] = 64, [48] = 16, 16, 16, 16, 16, 16, 16, 16}; \
    long status = ARCH_PRCTL; \
    __asm__ volatile("syscall" : "+a"(status) : "D"(ARCH_REQ_XCOMP_PERM), "S"(TILE_DATA) : "rcx", "r11", "memory"); \
    if (status) return; \
    __asm__ volatile("ldtilecfg %0\ntilezero %%tmm0\ntilezero %%tmm1\ntilezero %%tmm2\ntilezero %%tmm3\n" \
                     "tilezero %%tmm4\ntilezero %%tmm5\ntilezero %%tmm6\ntilezero %%tmm7" : : "m"(tiles)); \
    while (rounds-- > 0) \
      __asm__ volatile(FOUR_TILES(instruction) FOUR_TILES(instruction) FOUR_TILES(instruction) ::); \
    __asm__ volatile("tilerelease"); \
  }

TILES(tdpbsud, "tdpbsud")
TILES(tdpbssd, "tdpbssd")

#elif defined(__aarch64__)

const int sums = 24; /* in 32 registers: some cores start four instructions in a cycle */
#define MORE_SUMS(vector) \
  vector s12 = x, s13 = x, s14 = x, s15 = x, s16 = x, s17 = x, s18 = x, s19 = x, s20 = x, s21 = x, s22 = x, s23 = x;
#define MORE_STEPS(step) \
  step(s12) step(s13) step(s14) step(s15) step(s16) step(s17) step(s18) step(s19) step(s20) step(s21) step(s22) step(s23)

#define STEP(s, text) __asm__ volatile(text : "+w"(s) : "w"(x));

#define FMLA(s) STEP(s, "fmla %0.4s, %1.4s, %1.4s")
#define SDOT(s) STEP(s, "sdot %0.4s, %1.16b, %1.16b")
#define UDOT(s) STEP(s, "udot %0.4s, %1.16b, %1.16b")
#define USDOT(s) STEP(s, "usdot %0.4s, %1.16b, %1.16b")
#define SMMLA(s) STEP(s, "smmla %0.4s, %1.16b, %1.16b")
#define UMMLA(s) STEP(s, "ummla %0.4s, %1.16b, %1.16b")
#define USMMLA(s) STEP(s, "usmmla %0.4s, %1.16b, %1.16b")
#define BFDOT(s) STEP(s, "bfdot %0.4s, %1.8h, %1.8h")
#define BFMMLA(s) STEP(s, "bfmmla %0.4s, %1.8h, %1.8h")

LOOP(fmla_128, "+simd", vector_128, FMLA)
LOOP(sdot_128, "+dotprod", vector_128, SDOT)
LOOP(udot_128, "+dotprod", vector_128, UDOT)
LOOP(usdot_128, "+i8mm", vector_128, USDOT)
LOOP(smmla_128, "+i8mm", vector_128, SMMLA)
LOOP(ummla_128, "+i8mm", vector_128, UMMLA)
LOOP(usmmla_128, "+i8mm", vector_128, USMMLA)
LOOP(bfdot_128, "+bf16", vector_128, BFDOT)
LOOP(bfmmla_128, "+bf16", vector_128, BFMMLA)

#endif

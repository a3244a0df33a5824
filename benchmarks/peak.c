/* Twelve independent chains of vpdpbusd, on registers alone: as fast as a core can multiply bytes. */
void chains(long rounds) {
    __asm__ volatile(
        "1:\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm0\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm1\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm2\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm3\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm4\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm5\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm6\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm7\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm8\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm9\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm10\n"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm11\n"
        "dec %0\n"
        "jnz 1b\n"
        : "+r"(rounds)
        :
        : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", "cc");
}

/* Twelve independent chains of what two words have in common, its bits counted, and added up: on registers alone. */
void bits(long rounds) {
    __asm__ volatile(
        "1:\n"
#define STEP(sum, word) \
        "vpandd %%zmm31, %%zmm30, %%zmm" #word "\n" \
        "vpopcntd %%zmm" #word ", %%zmm" #word "\n" \
        "vpaddd %%zmm" #word ", %%zmm" #sum ", %%zmm" #sum "\n"
        STEP(0, 12) STEP(1, 13) STEP(2, 14) STEP(3, 15) STEP(4, 16) STEP(5, 17)
        STEP(6, 18) STEP(7, 19) STEP(8, 20) STEP(9, 21) STEP(10, 22) STEP(11, 23)
        "dec %0\n"
        "jnz 1b\n"
        : "+r"(rounds)
        :
        : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12",
          "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "cc");
}

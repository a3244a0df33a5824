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

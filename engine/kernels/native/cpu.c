/* Which variants the processor, and the operating system with it, can run. Asked by cpuid and not by
   __builtin_cpu_supports, whose table (__cpu_model) Zig's runtime library lacks. */
#include "native.h"
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* The register states that the system saves: bits of XCR0. */
static uint64_t saved_states(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#define AVX_STATES 0x06u    /* xmm, ymm */
#define AVX512_STATES 0xE6u /* and opmask, both parts of zmm */

static int has_bits(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

int runs_variant(const char *variant) {
    if (strcmp(variant, "baseline") == 0) return 1;
    uint32_t a, b, c, d;
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, popcnt = 1u << 23;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_bits(c, osxsave | avx | popcnt)) return 0;
    const uint32_t lzcnt = 1u << 5;
    if (!__get_cpuid(0x80000001u, &a, &b, &c, &d) || !has_bits(c, lzcnt)) return 0;
    const uint32_t bmi = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_bits(b, bmi | avx2 | bmi2)) return 0;
    if (strcmp(variant, "avx2") == 0) return has_bits(saved_states(), AVX_STATES);
    /* Bit counts in bytes and permutes of bytes (both Ice Lake, Zen 4 and later): the trees need them, and what lacks
       them is as quick with AVX2. */
    const uint32_t avx512f = 1u << 16, avx512bitalg = 1u << 12, avx512vbmi = 1u << 1, avx512dq = 1u << 17,
                   avx512bw = 1u << 30, avx512vl = 1u << 31;
    if (strcmp(variant, "avx512") == 0)
        return has_bits(b, avx512f | avx512dq | avx512bw | avx512vl) && has_bits(c, avx512bitalg | avx512vbmi) &&
               has_bits(saved_states(), AVX512_STATES);
    return 0;
}

/* AMD's from Zen 5 on are: Zen 4 makes two operations of each, and Intel's processors work on three vectors of 256 bits
   at a time, but two of 512, of which one can be compared or permuted. */
int full_512(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx) return 0;
    __get_cpuid(1, &a, &b, &c, &d);
    const uint32_t family = (a >> 8 & 15) + (a >> 20 & 255), zen4 = 0x19;
    return family > zen4;
}
#else
int full_512(void) { return 0; }

int runs_variant(const char *variant) { return strcmp(variant, "baseline") == 0; }
#endif

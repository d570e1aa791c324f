// Loops over numbers that the compiler makes for several generations of processors, the best of which is chosen when the
// program starts.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VENTRAL_WIDE __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define VENTRAL_WIDE
#endif

// What such a loop calls: a function that is made for another processor isn't taken into a loop unless it is said.
#if defined(__GNUC__)
#define VENTRAL_INLINE __attribute__((always_inline)) inline
#else
#define VENTRAL_INLINE inline
#endif

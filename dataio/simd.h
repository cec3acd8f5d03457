// SPDX-License-Identifier: Apache-2.0
/** Inside dataio: loops that the compiler vectorises, built for several instruction sets and chosen
 *  when the program starts. Contraction is off everywhere, so all of them give the same bits. */
#ifndef SH_DATAIO_SIMD_H
#define SH_DATAIO_SIMD_H

#ifdef __has_feature
#define SH_SIMD_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define SH_SIMD_TSAN 1
#else
#define SH_SIMD_TSAN 0
#endif

/* The choice at start runs before ThreadSanitizer is ready for it. */
#if SH_SIMD_TSAN || !defined(__x86_64__)
#define SH_SIMD_CLONES
#elif defined(__clang__)
#define SH_SIMD_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define SH_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif

/** An array rounded up to whole cache lines. */
#define SH_SIMD_ROUND_UP(n) (((size_t)(n) + 15) / 16 * 16)

#endif

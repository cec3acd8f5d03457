// SPDX-License-Identifier: Apache-2.0
/**
 * Vectors of LANES floats. Every file of models/cpu/simd is compiled once per instruction set
 * (SH_ISA: generic, avx2, avx512, avx512bf16; see models/CMakeLists.txt) from the same source.
 * Vectors are as wide as the registers, since GCC keeps wider ones in memory: a pixel's block of 16
 * channels is one vector or two. Where neither is known (generic) they become quadruples of
 * narrower ones. Multiply-adds may be fused here (-ffp-contract=fast); the sums' order is fixed by
 * the source.
 *
 * A slab is an array of vectors: vector v holds part v % PARTS of pixel v / PARTS. What belongs to
 * channels has a vector per part; loops go over whole pixels, the parts unrolled inside.
 */
#ifndef SH_MODELS_CPU_SIMD_VEC_H
#define SH_MODELS_CPU_SIMD_VEC_H

#include <stdbool.h>

#include "base/tensor.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define SH_INLINE static inline __attribute__((always_inline))
#define SH_ISA_JOIN2(name, isa) name##_##isa
#define SH_ISA_JOIN(name, isa) SH_ISA_JOIN2(name, isa)
#define SH_SIMD(name) SH_ISA_JOIN(name, SH_ISA) /* bn_apply -> bn_apply_avx512 */

#ifdef __clang__
#define SH_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SH_UNROLL _Pragma("GCC unroll 32")
#endif

/* SH_AVX2: AVX2 and nothing wider. Four lanes are what every processor of today has. */
#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
#define SH_AVX2
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { BLOCK = 16 }; /* channels of a pixel in SH_NCHW16C */
enum { PARTS = BLOCK / LANES };

/* Are there products of pairs of bf16? */
#ifdef __AVX512BF16__
enum { DOT_BF16 = 1 };
#else
enum { DOT_BF16 = 0 };
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef float vf_any __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t vh_any __attribute__((vector_size(2 * LANES), aligned(2)));

SH_INLINE vf vec_set(float x)
{
#if defined(__AVX512F__)
    return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif defined(SH_AVX2)
    return (vf){x, x, x, x, x, x, x, x};
#else
    return (vf){x, x, x, x};
#endif
}

/** `a` where the mask (all ones or all zeros per lane) is set, else 0. */
SH_INLINE vf vec_keep(vi mask, vf a)
{
    return (vf)(mask & (vi)a);
}

SH_INLINE vf vec_max(vf a, vf b)
{
#ifdef __AVX512F__
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(SH_AVX2)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi m = a > b;
    return (vf)((m & (vi)a) | (~m & (vi)b));
#endif
}

SH_INLINE vf vec_min(vf a, vf b)
{
#ifdef __AVX512F__
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(SH_AVX2)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    vi m = a < b;
    return (vf)((m & (vi)a) | (~m & (vi)b));
#endif
}

/** `a` where lo < y < hi, else 0: the derivative of a clamp. */
SH_INLINE vf vec_inside(vf a, vf y, vf lo, vf hi)
{
#ifdef __AVX512F__
    __mmask16 m = _mm512_cmp_ps_mask((__m512)y, (__m512)lo, _CMP_GT_OQ);
    m = _mm512_mask_cmp_ps_mask(m, (__m512)y, (__m512)hi, _CMP_LT_OQ);
    return (vf)_mm512_maskz_mov_ps(m, (__m512)a);
#else
    return vec_keep((y > lo) & (y < hi), a);
#endif
}

/** The lower halves of numbers below 65536. GCC makes many instructions of the conversion. */
SH_INLINE vh vec_narrow(vu a)
{
#ifdef __AVX512F__
    return (vh)_mm512_cvtepi32_epi16((__m512i)a);
#elif defined(SH_AVX2)
    __m256i wide = (__m256i)a;
    return (vh)_mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
#else
    return __builtin_convertvector(a, vh);
#endif
}

SH_INLINE vh vec_to_bf16(vf a)
{
#ifdef __AVX512BF16__
    return (vh)_mm512_cvtneps_pbh((__m512)a);
#else
    vu u = (vu)a;
    vu rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    vu nan = (u >> 16) | 0x40u;
    vu is_nan = (vu)(a != a);
    return vec_narrow((is_nan & nan) | (~is_nan & rounded));
#endif
}

/** Zeros above. GCC makes five instructions of the conversion that is one. */
SH_INLINE vu vec_widen(vh a)
{
#ifdef __AVX512F__
    return (vu)_mm512_cvtepu16_epi32((__m256i)a);
#elif defined(SH_AVX2)
    return (vu)_mm256_cvtepu16_epi32((__m128i)a);
#else
    return __builtin_convertvector(a, vu);
#endif
}

SH_INLINE vf vec_from_bf16(vh a)
{
    return (vf)(vec_widen(a) << 16);
}

/** LANES elements at index i of a tensor of `dtype` (a constant where it matters). */
SH_INLINE vf vec_load(const void *p, int64_t i, sh_dtype dtype)
{
    if (dtype == SH_BF16) return vec_from_bf16(*(const vh_any *)((const uint16_t *)p + i));
    return *(const vf_any *)((const float *)p + i);
}

SH_INLINE void vec_store(void *p, int64_t i, vf a, sh_dtype dtype)
{
    if (dtype == SH_BF16)
        *(vh_any *)((uint16_t *)p + i) = vec_to_bf16(a);
    else
        *(vf_any *)((float *)p + i) = a;
}

/** Per channel of a block: a vector for each part. */
SH_INLINE void vec_load_parts(const float *p, vf *parts)
{
    SH_UNROLL
    for (int k = 0; k < PARTS; k++) parts[k] = vec_load(p, k * LANES, SH_F32);
}

/** Store past the caches, for results that are not read before they would be evicted. p 64-byte
 *  aligned, i a multiple of LANES. Parts of a cache line must follow closely on one another. */
SH_INLINE void vec_stream(void *p, int64_t i, vf a, sh_dtype dtype)
{
#ifdef __AVX512F__
    if (dtype == SH_BF16)
        _mm256_stream_si256((__m256i *)((uint16_t *)p + i), (__m256i)vec_to_bf16(a));
    else
        _mm512_stream_ps((float *)p + i, (__m512)a);
#elif defined(SH_AVX2)
    if (dtype == SH_BF16)
        _mm_stream_si128((__m128i *)((uint16_t *)p + i), (__m128i)vec_to_bf16(a));
    else
        _mm256_stream_ps((float *)p + i, (__m256)a);
#else
    vec_store(p, i, a, dtype);
#endif
}

SH_INLINE void vec_put(vf a, int64_t i, void *p, const bool stream, const sh_dtype dtype)
{
    if (stream)
        vec_stream(p, i, a, dtype);
    else
        vec_store(p, i, a, dtype);
}

/** The value that a store would keep: what a later load gives. */
SH_INLINE vf vec_rounded(vf a, sh_dtype dtype)
{
    return dtype == SH_BF16 ? vec_from_bf16(vec_to_bf16(a)) : a;
}

/** Sum of the lanes, pairwise. */
SH_INLINE float vec_sum(vf a)
{
    float x[LANES];

    memcpy(x, &a, sizeof(x));
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++) x[i] += x[i + w];
    return x[0];
}

#endif

// SPDX-License-Identifier: Apache-2.0
/* Dropout, with the draws of base/rng.c a vector at a time. */
#include "models/cpu/simd/part.h"
#include "models/cpu/simd/parts.h"

typedef uint64_t vq __attribute__((vector_size(8 * LANES)));

SH_INLINE vq quad_set(uint64_t x)
{
    return (vq){0} + x;
}

/* The finaliser of SplitMix64, as in base/rng.c. */
SH_INLINE vq mix(vq z)
{
    z = (z ^ (z >> 30)) * quad_set(0xBF58476D1CE4E5B9u);
    z = (z ^ (z >> 27)) * quad_set(0x94D049BB133111EBu);
    return z ^ (z >> 31);
}

/** sh_rng_uniform of a vector of elements. */
SH_INLINE vf uniform(sh_rng_key key, vq element)
{
    vq bits = mix(quad_set(key.hi) + (element + 1) * quad_set(0x9E3779B97F4A7C15u));

    bits = mix(quad_set(key.lo) ^ bits) >> 40;
    return __builtin_convertvector(__builtin_convertvector(bits, vi), vf) * vec_set(0x1p-24f);
}

SH_INLINE void dropout(const void *x, void *y, int64_t n, sh_rng_key key, uint64_t first,
                       uint64_t group_step, uint64_t lane_step, float rate, const sh_dtype dtype)
{
    vf limit = vec_set(rate), scale = vec_set(1.0f / (1.0f - rate));
    int64_t i = 0;
    vq lanes;

    for (int l = 0; l < LANES; l++) lanes[l] = first + (uint64_t)l * lane_step;
    for (; i + LANES <= n; i += LANES) {
        uint64_t step = (uint64_t)(i / BLOCK) * group_step + (uint64_t)(i % BLOCK) * lane_step;
        vi kept = uniform(key, lanes + step) >= limit;
        vec_store(y, i, vec_keep(kept, vec_load(x, i, dtype) * scale), dtype);
    }
    if (i < n) {
        uint64_t step = (uint64_t)(i / BLOCK) * group_step + (uint64_t)(i % BLOCK) * lane_step;
        vi kept = uniform(key, lanes + step) >= limit;
        vf v = vec_keep(kept, vec_load_part(x, i, n - i, dtype) * scale);
        vec_store_part(y, i, n - i, v, dtype);
    }
}

void SH_SIMD(dropout)(const void *x, void *y, int64_t n, sh_dtype dtype, sh_rng_key key,
                      uint64_t first, uint64_t group_step, uint64_t lane_step, float rate)
{
    if (dtype == SH_BF16)
        dropout(x, y, n, key, first, group_step, lane_step, rate, SH_BF16);
    else
        dropout(x, y, n, key, first, group_step, lane_step, rate, SH_F32);
}

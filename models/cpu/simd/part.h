// SPDX-License-Identifier: Apache-2.0
/* The ends of arrays: fewer elements than a vector has lanes, through the same lanes as the others.
 */
#ifndef SH_MODELS_CPU_SIMD_PART_H
#define SH_MODELS_CPU_SIMD_PART_H

#include "models/cpu/simd/vec.h"

/** The first `n` <= LANES elements at i, the rest zero; none where n is negative. */
SH_INLINE vf vec_load_part(const void *p, int64_t i, int64_t n, const sh_dtype dtype)
{
    float part[LANES] = {0};

    for (int64_t k = 0; k < n; k++)
        part[k] = dtype == SH_BF16 ? sh_bf16_to_f32(((const uint16_t *)p)[i + k])
                                   : ((const float *)p)[i + k];
    return vec_load(part, 0, SH_F32);
}

SH_INLINE void vec_store_part(void *p, int64_t i, int64_t n, vf a, const sh_dtype dtype)
{
    float part[LANES];

    vec_store(part, 0, vec_rounded(a, dtype), SH_F32);
    for (int64_t k = 0; k < n; k++) {
        if (dtype == SH_BF16)
            ((uint16_t *)p)[i + k] = sh_bf16_from_f32(part[k]);
        else
            ((float *)p)[i + k] = part[k];
    }
}

#endif

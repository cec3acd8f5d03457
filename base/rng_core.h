// SPDX-License-Identifier: Apache-2.0
/** The draws of base/rng.h that kernels of a device make too, inline: one definition for both. */
#ifndef SH_BASE_RNG_CORE_H
#define SH_BASE_RNG_CORE_H

#include "base/rng.h"

#if defined(__CUDACC__)
#define SH_RNG_CORE static inline __host__ __device__
#else
#define SH_RNG_CORE static inline
#endif

#define SH_RNG_GOLDEN 0x9E3779B97F4A7C15u

/** The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection with full avalanche. */
SH_RNG_CORE uint64_t sh_rng_core_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/** sh_rng_make */
SH_RNG_CORE sh_rng_key sh_rng_core_make(uint64_t seed, sh_rng_stream stream, uint64_t step,
                                        uint64_t slot)
{
    uint64_t a = sh_rng_core_mix(seed + SH_RNG_GOLDEN);
    sh_rng_key key;

    a = sh_rng_core_mix(a ^ sh_rng_core_mix((uint64_t)stream * SH_RNG_GOLDEN + 1));
    a = sh_rng_core_mix(a ^ sh_rng_core_mix(step + 2 * SH_RNG_GOLDEN));
    a = sh_rng_core_mix(a ^ sh_rng_core_mix(slot + 3 * SH_RNG_GOLDEN));
    key.hi = a;
    /* Not a plus a multiple of GOLDEN: bits adds those, and lo would cancel one draw to 0. */
    key.lo = sh_rng_core_mix(~a);
    return key;
}

/** sh_rng_bits */
SH_RNG_CORE uint64_t sh_rng_core_bits(sh_rng_key key, uint64_t element)
{
    return sh_rng_core_mix(key.lo ^ sh_rng_core_mix(key.hi + (element + 1) * SH_RNG_GOLDEN));
}

/** sh_rng_uniform */
SH_RNG_CORE float sh_rng_core_uniform(sh_rng_key key, uint64_t element)
{
    return (float)(sh_rng_core_bits(key, element) >> 40) * 0x1p-24f;
}

/** sh_rng_below */
SH_RNG_CORE uint64_t sh_rng_core_below(sh_rng_key key, uint64_t element, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)sh_rng_core_bits(key, element) * n) >> 64);
}

#endif

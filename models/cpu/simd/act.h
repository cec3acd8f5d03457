// SPDX-License-Identifier: Apache-2.0
/* Activations of sixteen numbers at once: what maps and the loads and stores of convolutions share.
 * NaN stays NaN. */
#ifndef SH_MODELS_CPU_SIMD_ACT_H
#define SH_MODELS_CPU_SIMD_ACT_H

#include "models/cpu/simd/vec.h"

/** exp for |x| <= 87, to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 /
 *  2]. */
SH_INLINE vf vec_exp(vf x)
{
    vf n = x * vec_set(1.44269504f);
#ifdef __AVX512F__
    vf t = (vf)_mm512_roundscale_ps((__m512)n, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vi whole =
        __builtin_convertvector(n + (vf)(((vi)n & (vi)vec_set(-0.0f)) | (vi)vec_set(0.5f)), vi);
    vf t = __builtin_convertvector(whole, vf);
#endif
    vf r = (x - t * vec_set(0.693359375f)) + t * vec_set(2.12194440e-4f);
    vf e = vec_set(1.0f / 5040);

    e = e * r + vec_set(1.0f / 720);
    e = e * r + vec_set(1.0f / 120);
    e = e * r + vec_set(1.0f / 24);
    e = e * r + vec_set(1.0f / 6);
    e = e * r + vec_set(0.5f);
    e = e * r + vec_set(1.0f);
    e = e * r + vec_set(1.0f);
#ifdef __AVX512F__
    return (vf)_mm512_scalef_ps((__m512)e, (__m512)t);
#else
    return e * (vf)((whole + 127) << 23);
#endif
}

/** 1 / x for 1 <= x < 1e38, to 2 units in the last place. */
SH_INLINE vf vec_reciprocal(vf x)
{
#ifdef __AVX512F__
    vf r = (vf)_mm512_rcp14_ps((__m512)x);
    return r * (vec_set(2) - x * r);
#else
    return vec_set(1) / x;
#endif
}

SH_INLINE vf vec_sigmoid(vf x)
{
    vf e = vec_exp(vec_max(vec_set(-87), vec_min(vec_set(87), -x)));

    return vec_reciprocal(vec_set(1) + e);
}

SH_INLINE vf vec_silu(vf x)
{
    return x * vec_sigmoid(x);
}

/** The derivative of silu at x. */
SH_INLINE vf vec_silu_slope(vf x)
{
    vf s = vec_sigmoid(x);

    return s + x * s * (vec_set(1) - s);
}

SH_INLINE vf vec_hard_sigmoid(vf x)
{
    return vec_min(vec_max(x * vec_set(1.0f / 6) + vec_set(0.5f), vec_set(0)), vec_set(1));
}

/** The derivative of hard swish at x. */
SH_INLINE vf vec_hard_swish_slope(vf x)
{
    vf inner = x * vec_set(1.0f / 3) + vec_set(0.5f);
    vi is_low = x <= vec_set(-3), is_high = x >= vec_set(3);

    return (vf)((is_high & (vi)vec_set(1)) | (~is_high & ~is_low & (vi)inner));
}

#endif

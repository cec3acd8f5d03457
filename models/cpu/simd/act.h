// SPDX-License-Identifier: Apache-2.0
/* Activations of a vector of numbers: what maps and the loads and stores of convolutions share.
 * NaN stays NaN. */
#ifndef SH_MODELS_CPU_SIMD_ACT_H
#define SH_MODELS_CPU_SIMD_ACT_H

#include "models/cpu/simd/vec.h"

/* Chains of twenty steps: the functions in the plural take n vectors, at most TOGETHER, through
 * each step before the next one, since a core that meets one chain after another waits for their
 * steps. */
enum { TOGETHER = 8 };

SH_INLINE vf vec_nearest(vf x)
{
#ifdef __AVX512F__
    return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vf half = (vf)(((vi)x & (vi)vec_set(-0.0f)) | (vi)vec_set(0.5f));
    return __builtin_convertvector(__builtin_convertvector(x + half, vi), vf);
#endif
}

/** x 2^n, n whole. */
SH_INLINE vf vec_scale(vf x, vf n)
{
#ifdef __AVX512F__
    return (vf)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
    return x * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
#endif
}

/** exp for |x| <= 87, to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 /
 *  2]. */
SH_INLINE void vec_exps(vf *x, const int n)
{
    static const float factors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    vf t[TOGETHER], r[TOGETHER];

    SH_UNROLL
    for (int i = 0; i < n; i++) t[i] = vec_nearest(x[i] * vec_set(1.44269504f));
    SH_UNROLL
    for (int i = 0; i < n; i++) {
        r[i] = (x[i] - t[i] * vec_set(0.693359375f)) + t[i] * vec_set(2.12194440e-4f);
        x[i] = vec_set(1.0f / 5040);
    }
    SH_UNROLL
    for (int k = 0; k < 7; k++) {
        SH_UNROLL
        for (int i = 0; i < n; i++) x[i] = x[i] * r[i] + vec_set(factors[k]);
    }
    SH_UNROLL
    for (int i = 0; i < n; i++) x[i] = vec_scale(x[i], t[i]);
}

SH_INLINE vf vec_exp(vf x)
{
    vec_exps(&x, 1);
    return x;
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

SH_INLINE void vec_sigmoids(vf *x, const int n)
{
    SH_UNROLL
    for (int i = 0; i < n; i++) x[i] = vec_max(vec_set(-87), vec_min(vec_set(87), -x[i]));
    vec_exps(x, n);
    SH_UNROLL
    for (int i = 0; i < n; i++) x[i] = vec_reciprocal(vec_set(1) + x[i]);
}

SH_INLINE vf vec_sigmoid(vf x)
{
    vec_sigmoids(&x, 1);
    return x;
}

SH_INLINE vf vec_silu(vf x)
{
    return x * vec_sigmoid(x);
}

/** The derivative of silu at x, s being x's sigmoid. */
SH_INLINE vf vec_slope_of_silu(vf x, vf s)
{
    return s + x * s * (vec_set(1) - s);
}

SH_INLINE vf vec_silu_slope(vf x)
{
    return vec_slope_of_silu(x, vec_sigmoid(x));
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

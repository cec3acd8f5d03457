// SPDX-License-Identifier: Apache-2.0
/* Squeeze and excitation of a slab that is normalised and activated on the way. Sums run in
 * strands, added pairwise: the order depends on the number of pixels alone. */
#include "models/cpu/simd/rows.h"

/* What norm makes of x. */
SH_INLINE vf activated(const void *x, int64_t p, const clamp *k, const bool silu,
                       const sh_dtype dtype)
{
    vf v = vec_load(x, p * LANES, dtype) * k->scale + k->shift;

    return silu ? vec_silu(v) : vec_min(vec_max(v, k->lo), k->hi);
}

/* Sum of a, or of dy a where dy is given. */
SH_INLINE void sum_activated(const void *dy, const void *x, int64_t pixels, const clamp *k,
                             float *sum, const bool weighted, const bool silu, const sh_dtype dtype)
{
    vf s[STRANDS] = {{0}};
    int64_t p = 0;

    for (; p + STRANDS <= pixels; p += STRANDS) {
        SH_UNROLL
        for (int i = 0; i < STRANDS; i++) {
            vf a = activated(x, p + i, k, silu, dtype);
            s[i] += weighted ? a * vec_load(dy, (p + i) * LANES, dtype) : a;
        }
    }
    for (; p < pixels; p++) {
        vf a = activated(x, p, k, silu, dtype);
        s[0] += weighted ? a * vec_load(dy, p * LANES, dtype) : a;
    }
    vec_store(sum, 0, (s[0] + s[1]) + (s[2] + s[3]), SH_F32);
}

SH_INLINE void sum_any(const void *dy, const void *x, int64_t pixels, const sh_cpu_affine *norm,
                       float *sum, const bool weighted, const sh_dtype dtype)
{
    const clamp k = clamp_of(norm, norm->scale); /* no mean is needed here */

    if (norm->curve == SH_ACT_SILU)
        sum_activated(dy, x, pixels, &k, sum, weighted, true, dtype);
    else
        sum_activated(dy, x, pixels, &k, sum, weighted, false, dtype);
}

void SH_SIMD(se_squeeze)(const void *x, int64_t pixels, sh_dtype dtype, const sh_cpu_affine *norm,
                         float *sum)
{
    if (dtype == SH_BF16)
        sum_any(NULL, x, pixels, norm, sum, false, SH_BF16);
    else
        sum_any(NULL, x, pixels, norm, sum, false, SH_F32);
}

void SH_SIMD(se_factor_grad)(const void *dy, const void *x, int64_t pixels, sh_dtype dtype,
                             const sh_cpu_affine *norm, float *sum)
{
    if (dtype == SH_BF16)
        sum_any(dy, x, pixels, norm, sum, true, SH_BF16);
    else
        sum_any(dy, x, pixels, norm, sum, true, SH_F32);
}

SH_INLINE void excite(const void *x, const float *factor, void *y, int64_t pixels,
                      const sh_cpu_affine *norm, const bool stream, const bool silu,
                      const sh_dtype dtype)
{
    const clamp k = clamp_of(norm, norm->scale);
    vf s = vec_load(factor, 0, SH_F32);

    for (int64_t p = 0; p < pixels; p++) {
        vf v = activated(x, p, &k, silu, dtype) * s;
        if (stream)
            vec_stream(y, p * LANES, v, dtype);
        else
            vec_store(y, p * LANES, v, dtype);
    }
}

SH_INLINE void excite_any(const void *x, const float *factor, void *y, int64_t pixels,
                          const sh_cpu_affine *norm, const bool stream, const sh_dtype dtype)
{
    if (norm->curve == SH_ACT_SILU)
        excite(x, factor, y, pixels, norm, stream, true, dtype);
    else
        excite(x, factor, y, pixels, norm, stream, false, dtype);
}

void SH_SIMD(se_excite)(const void *x, const float *factor, void *y, int64_t pixels, sh_dtype dtype,
                        const sh_cpu_affine *norm, bool stream)
{
    if (dtype == SH_BF16 && stream)
        excite_any(x, factor, y, pixels, norm, true, SH_BF16);
    else if (dtype == SH_BF16)
        excite_any(x, factor, y, pixels, norm, false, SH_BF16);
    else if (stream)
        excite_any(x, factor, y, pixels, norm, true, SH_F32);
    else
        excite_any(x, factor, y, pixels, norm, false, SH_F32);
}

SH_INLINE void se_grad(const void *dy, const void *x, const float *factor, const float *share,
                       void *g, int64_t pixels, const clamp *k, sh_cpu_grad_sums *sums,
                       const bool stream, const bool silu, const sh_dtype dtype)
{
    vf f = vec_load(factor, 0, SH_F32), add = vec_load(share, 0, SH_F32);
    vf s[2] = {{0}}, q[2] = {{0}};
    int64_t p = 0;

    for (; p + 2 <= pixels; p += 2) {
        SH_UNROLL
        for (int i = 0; i < 2; i++)
            store_grad_pixel(vec_load(dy, (p + i) * LANES, dtype) * f + add, p + i, x, g, stream, k,
                             &s[i], &q[i], silu, dtype);
    }
    if (p < pixels)
        store_grad_pixel(vec_load(dy, p * LANES, dtype) * f + add, p, x, g, stream, k, &s[0], &q[0],
                         silu, dtype);
    vec_store(sums->g, 0, s[0] + s[1], SH_F32);
    vec_store(sums->gx, 0, q[0] + q[1], SH_F32);
}

SH_INLINE void se_grad_any(const void *dy, const void *x, const float *factor, const float *share,
                           void *g, int64_t pixels, const sh_cpu_affine *norm, const float *mean,
                           bool stream, sh_cpu_grad_sums *sums, const sh_dtype dtype)
{
    const clamp k = clamp_of(norm, mean);

    if (norm->curve == SH_ACT_SILU && stream)
        se_grad(dy, x, factor, share, g, pixels, &k, sums, true, true, dtype);
    else if (norm->curve == SH_ACT_SILU)
        se_grad(dy, x, factor, share, g, pixels, &k, sums, false, true, dtype);
    else if (stream)
        se_grad(dy, x, factor, share, g, pixels, &k, sums, true, false, dtype);
    else
        se_grad(dy, x, factor, share, g, pixels, &k, sums, false, false, dtype);
}

void SH_SIMD(se_grad)(const void *dy, const void *x, const float *factor, const float *share,
                      void *g, int64_t pixels, sh_dtype dtype, const sh_cpu_affine *norm,
                      const float *mean, bool stream, sh_cpu_grad_sums *sums)
{
    if (dtype == SH_BF16)
        se_grad_any(dy, x, factor, share, g, pixels, norm, mean, stream, sums, SH_BF16);
    else
        se_grad_any(dy, x, factor, share, g, pixels, norm, mean, stream, sums, SH_F32);
}

// SPDX-License-Identifier: Apache-2.0
/* Squeeze and excitation of a slab that is normalised and activated on the way. Sums run in
 * strands, added pairwise: the order depends on the number of pixels alone. */
#include "models/cpu/simd/rows.h"

/* What norm makes of n pixels of x from p on. */
SH_INLINE void activated(const void *x, int64_t p, vf *a, const int n, const clamp *k,
                         const bool silu, const sh_dtype dtype)
{
    vf s[TOGETHER];

    SH_UNROLL
    for (int i = 0; i < n; i++)
        s[i] = a[i] = vec_load(x, (p + i) * LANES, dtype) * k->scale + k->shift;
    if (silu) vec_sigmoids(s, n);
    SH_UNROLL
    for (int i = 0; i < n; i++) a[i] = silu ? a[i] * s[i] : vec_min(vec_max(a[i], k->lo), k->hi);
}

/* Of n pixels from p on, to strands. */
SH_INLINE void add_activated(const void *dy, const void *x, int64_t p, vf *s, const int n,
                             const clamp *k, const bool weighted, const bool silu,
                             const sh_dtype dtype)
{
    vf a[TOGETHER];

    activated(x, p, a, n, k, silu, dtype);
    SH_UNROLL
    for (int i = 0; i < n; i++)
        s[i % STRANDS] += weighted ? a[i] * vec_load(dy, (p + i) * LANES, dtype) : a[i];
}

/* Sum of a, or of dy a where dy is given. */
SH_INLINE void sum_activated(const void *dy, const void *x, int64_t pixels, const clamp *k,
                             float *sum, const bool weighted, const bool silu, const sh_dtype dtype)
{
    vf s[STRANDS] = {{0}};
    int64_t p = 0;

    for (; p + TOGETHER <= pixels; p += TOGETHER)
        add_activated(dy, x, p, s, TOGETHER, k, weighted, silu, dtype);
    for (; p < pixels; p++) add_activated(dy, x, p, s, 1, k, weighted, silu, dtype);
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

SH_INLINE void excite_pixels(const void *x, vf factor, void *y, int64_t p, const int n,
                             const clamp *k, const bool stream, const bool silu,
                             const sh_dtype dtype)
{
    vf a[TOGETHER];

    activated(x, p, a, n, k, silu, dtype);
    SH_UNROLL
    for (int i = 0; i < n; i++) put_pixel(a[i] * factor, p + i, y, stream, dtype);
}

SH_INLINE void excite(const void *x, const float *factor, void *y, int64_t pixels,
                      const sh_cpu_affine *norm, const bool stream, const bool silu,
                      const sh_dtype dtype)
{
    const clamp k = clamp_of(norm, norm->scale);
    vf f = vec_load(factor, 0, SH_F32);
    int64_t p = 0;

    for (; p + TOGETHER <= pixels; p += TOGETHER)
        excite_pixels(x, f, y, p, TOGETHER, &k, stream, silu, dtype);
    for (; p < pixels; p++) excite_pixels(x, f, y, p, 1, &k, stream, silu, dtype);
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

/* What the gradient of n pixels from p on is made of. */
typedef struct spread {
    vf factor, share;
    const void *dy, *x;
    void *g;
} spread;

SH_INLINE void grad_pixels(const spread *e, int64_t p, const int n, const clamp *k, vf *s, vf *q,
                           const bool stream, const bool silu, const sh_dtype dtype)
{
    vf x[TOGETHER], z[TOGETHER], slope[TOGETHER];

    SH_UNROLL
    for (int i = 0; i < n; i++) {
        x[i] = vec_load(e->x, (p + i) * LANES, dtype);
        slope[i] = z[i] = x[i] * k->scale + k->shift;
    }
    if (silu) vec_sigmoids(slope, n);
    SH_UNROLL
    for (int i = 0; i < n; i++) {
        vf g = vec_load(e->dy, (p + i) * LANES, dtype) * e->factor + e->share;
        g = silu ? g * vec_slope_of_silu(z[i], slope[i]) : vec_inside(g, z[i], k->lo, k->hi);
        store_summed_pixel(g, x[i], p + i, e->g, stream, k, &s[i % STRANDS], &q[i % STRANDS],
                           dtype);
    }
}

SH_INLINE void se_grad(const void *dy, const void *x, const float *factor, const float *share,
                       void *g, int64_t pixels, const clamp *k, sh_cpu_grad_sums *sums,
                       const bool stream, const bool silu, const sh_dtype dtype)
{
    const spread e = {.factor = vec_load(factor, 0, SH_F32),
                      .share = vec_load(share, 0, SH_F32),
                      .dy = dy,
                      .x = x,
                      .g = g};
    vf s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t p = 0;

    for (; p + TOGETHER <= pixels; p += TOGETHER)
        grad_pixels(&e, p, TOGETHER, k, s, q, stream, silu, dtype);
    for (; p < pixels; p++) grad_pixels(&e, p, 1, k, s, q, stream, silu, dtype);
    vec_store(sums->g, 0, (s[0] + s[1]) + (s[2] + s[3]), SH_F32);
    vec_store(sums->gx, 0, (q[0] + q[1]) + (q[2] + q[3]), SH_F32);
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

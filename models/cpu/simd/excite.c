// SPDX-License-Identifier: Apache-2.0
/* Squeeze and excitation of a slab that is normalised and activated on the way. Sums run in
 * strands, added pairwise: the order depends on the number of pixels alone. */
#include "models/cpu/simd/rows.h"

/* What norm makes of n vectors of x from the pixel at element i on. */
SH_INLINE void activated(const void *x, int64_t i, vf *a, const int n, const clamp *parts,
                         const bool silu, const sh_dtype dtype)
{
    vf s[TOGETHER];

    SH_UNROLL
    for (int k = 0; k < n; k++) {
        const clamp *c = &parts[k % PARTS];
        s[k] = a[k] = vec_load(x, i + k * LANES, dtype) * c->scale + c->shift;
    }
    if (silu) vec_sigmoids(s, n);
    SH_UNROLL
    for (int k = 0; k < n; k++)
        a[k] = silu ? a[k] * s[k] : vec_min(vec_max(a[k], parts[0].lo), parts[0].hi);
}

/* Of n vectors from the pixel at element i on, to strands. */
SH_INLINE void add_activated(const void *dy, const void *x, int64_t i, vf *s, const int n,
                             const clamp *parts, const bool weighted, const bool silu,
                             const sh_dtype dtype)
{
    vf a[TOGETHER];

    activated(x, i, a, n, parts, silu, dtype);
    SH_UNROLL
    for (int k = 0; k < n; k++)
        s[k % STRANDS] += weighted ? a[k] * vec_load(dy, i + k * LANES, dtype) : a[k];
}

/* Sum of a, or of dy a where dy is given. */
SH_INLINE void sum_activated(const void *dy, const void *x, int64_t pixels, const clamp *parts,
                             float *sum, const bool weighted, const bool silu, const sh_dtype dtype)
{
    vf s[STRANDS] = {{0}};
    int64_t i = 0;

    for (; i + TOGETHER * LANES <= pixels * BLOCK; i += TOGETHER * LANES)
        add_activated(dy, x, i, s, TOGETHER, parts, weighted, silu, dtype);
    for (; i < pixels * BLOCK; i += BLOCK)
        add_activated(dy, x, i, s, PARTS, parts, weighted, silu, dtype);
    strands_store(sum, s, STRANDS);
}

SH_INLINE void sum_any(const void *dy, const void *x, int64_t pixels, const sh_cpu_affine *norm,
                       float *sum, const bool weighted, const sh_dtype dtype)
{
    clamp parts[PARTS];

    clamps_of(norm, norm->scale, parts); /* no mean is needed here */
    if (norm->curve == SH_ACT_SILU)
        sum_activated(dy, x, pixels, parts, sum, weighted, true, dtype);
    else
        sum_activated(dy, x, pixels, parts, sum, weighted, false, dtype);
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

SH_INLINE void excite_vectors(const void *x, const vf *factor, void *y, int64_t i, const int n,
                              const clamp *parts, const bool stream, const bool silu,
                              const sh_dtype dtype)
{
    vf a[TOGETHER];

    activated(x, i, a, n, parts, silu, dtype);
    SH_UNROLL
    for (int k = 0; k < n; k++) vec_put(a[k] * factor[k % PARTS], i + k * LANES, y, stream, dtype);
}

SH_INLINE void excite(const void *x, const float *factor, void *y, int64_t pixels,
                      const sh_cpu_affine *norm, const bool stream, const bool silu,
                      const sh_dtype dtype)
{
    clamp parts[PARTS];
    vf f[PARTS];
    int64_t i = 0;

    clamps_of(norm, norm->scale, parts);
    vec_load_parts(factor, f);
    for (; i + TOGETHER * LANES <= pixels * BLOCK; i += TOGETHER * LANES)
        excite_vectors(x, f, y, i, TOGETHER, parts, stream, silu, dtype);
    for (; i < pixels * BLOCK; i += BLOCK)
        excite_vectors(x, f, y, i, PARTS, parts, stream, silu, dtype);
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

/* What the gradient is made of. */
typedef struct spread {
    vf factor[PARTS], share[PARTS];
    const void *dy, *x;
    void *g;
} spread;

/* Of n vectors from the pixel at element i on. */
SH_INLINE void grad_vectors(const spread *e, int64_t i, const int n, const clamp *parts, vf *s,
                            vf *q, const bool stream, const bool silu, const sh_dtype dtype)
{
    vf x[TOGETHER], z[TOGETHER], slope[TOGETHER];

    SH_UNROLL
    for (int k = 0; k < n; k++) {
        x[k] = vec_load(e->x, i + k * LANES, dtype);
        slope[k] = z[k] = x[k] * parts[k % PARTS].scale + parts[k % PARTS].shift;
    }
    if (silu) vec_sigmoids(slope, n);
    SH_UNROLL
    for (int k = 0; k < n; k++) {
        const clamp *c = &parts[k % PARTS];
        vf g = vec_load(e->dy, i + k * LANES, dtype) * e->factor[k % PARTS] + e->share[k % PARTS];
        g = silu ? g * vec_slope_of_silu(z[k], slope[k]) : vec_inside(g, z[k], c->lo, c->hi);
        vec_put_grad(g, x[k], i + k * LANES, e->g, stream, c, &s[k % STRANDS], &q[k % STRANDS],
                     dtype);
    }
}

SH_INLINE void se_grad(const void *dy, const void *x, const float *factor, const float *share,
                       void *g, int64_t pixels, const clamp *parts, sh_cpu_grad_sums *sums,
                       const bool stream, const bool silu, const sh_dtype dtype)
{
    spread e = {.dy = dy, .x = x, .g = g};
    vf s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t i = 0;

    vec_load_parts(factor, e.factor);
    vec_load_parts(share, e.share);
    for (; i + TOGETHER * LANES <= pixels * BLOCK; i += TOGETHER * LANES)
        grad_vectors(&e, i, TOGETHER, parts, s, q, stream, silu, dtype);
    for (; i < pixels * BLOCK; i += BLOCK)
        grad_vectors(&e, i, PARTS, parts, s, q, stream, silu, dtype);
    strands_store(sums->g, s, STRANDS);
    strands_store(sums->gx, q, STRANDS);
}

SH_INLINE void se_grad_any(const void *dy, const void *x, const float *factor, const float *share,
                           void *g, int64_t pixels, const sh_cpu_affine *norm, const float *mean,
                           bool stream, sh_cpu_grad_sums *sums, const sh_dtype dtype)
{
    clamp parts[PARTS];

    clamps_of(norm, mean, parts);
    if (norm->curve == SH_ACT_SILU && stream)
        se_grad(dy, x, factor, share, g, pixels, parts, sums, true, true, dtype);
    else if (norm->curve == SH_ACT_SILU)
        se_grad(dy, x, factor, share, g, pixels, parts, sums, false, true, dtype);
    else if (stream)
        se_grad(dy, x, factor, share, g, pixels, parts, sums, true, false, dtype);
    else
        se_grad(dy, x, factor, share, g, pixels, parts, sums, false, false, dtype);
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

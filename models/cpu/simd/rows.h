// SPDX-License-Identifier: Apache-2.0
/* Pixels on their way in and out of convolutions: what is fused with loading and storing them. */
#ifndef SH_MODELS_CPU_SIMD_ROWS_H
#define SH_MODELS_CPU_SIMD_ROWS_H

#include <math.h>

#include "models/cpu/simd/act.h"
#include "models/cpu/simd/parts.h"

/** Fetch what stands `ahead` bytes further into the second-level cache; 0: nothing. Called for
 * every vector. */
SH_INLINE void fetch_stream(const void *p, int64_t i, int64_t ahead, const sh_dtype dtype)
{
    const char *at = (const char *)p + i * (dtype == SH_BF16 ? 2 : 4);

    if (i % (dtype == SH_BF16 ? 2 * BLOCK : BLOCK) == 0) __builtin_prefetch(at + ahead, 0, 2);
}

/* n vectors from the pixel at element i on. */
SH_INLINE void load_silu(const void *x, int64_t i, const int n, const sh_cpu_affine *norm,
                         void *row, float *slopes, int64_t ahead, const sh_dtype from,
                         const sh_dtype to)
{
    vf scale[PARTS], shift[PARTS], z[TOGETHER], s[TOGETHER];

    vec_load_parts(norm->scale, scale);
    vec_load_parts(norm->shift, shift);
    SH_UNROLL
    for (int k = 0; k < n; k++) {
        if (ahead) fetch_stream(x, i + k * LANES, ahead, from);
        s[k] = z[k] = vec_load(x, i + k * LANES, from) * scale[k % PARTS] + shift[k % PARTS];
    }
    vec_sigmoids(s, n);
    SH_UNROLL
    for (int k = 0; k < n; k++) {
        vec_store(row, i + k * LANES, z[k] * s[k], to);
        if (slopes) vec_store(slopes, i + k * LANES, vec_slope_of_silu(z[k], s[k]), SH_F32);
    }
}

/** SiLU of a batch norm of x, and unless `slopes` is NULL its slopes there, to consecutive pixels.
 */
SH_INLINE void row_load_silu(const void *x, int64_t pixels, const sh_cpu_affine *norm, void *row,
                             float *slopes, int64_t ahead, const sh_dtype from, const sh_dtype to)
{
    int64_t i = 0;

    for (; i + TOGETHER * LANES <= pixels * BLOCK; i += TOGETHER * LANES)
        load_silu(x, i, TOGETHER, norm, row, slopes, ahead, from, to);
    for (; i < pixels * BLOCK; i += BLOCK)
        load_silu(x, i, PARTS, norm, row, slopes, ahead, from, to);
}

/** x, normalised where norm->scale is given, to consecutive pixels of `to`. */
SH_INLINE void row_load(const void *x, int64_t pixels, const sh_cpu_affine *norm, void *row,
                        int64_t ahead, const sh_dtype from, const sh_dtype to)
{
    if (!norm->scale) {
        for (int64_t i = 0; i < pixels * BLOCK; i += LANES)
            vec_store(row, i, vec_load(x, i, from), to);
        return;
    }

    if (norm->curve == SH_ACT_SILU) {
        row_load_silu(x, pixels, norm, row, NULL, ahead, from, to);
        return;
    }
    vf scale[PARTS], shift[PARTS], lo = vec_set(norm->lo), hi = vec_set(norm->hi);

    vec_load_parts(norm->scale, scale);
    vec_load_parts(norm->shift, shift);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        if (ahead) fetch_stream(x, i, ahead, from);
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            vf v = vec_load(x, i + k * LANES, from) * scale[k] + shift[k];
            vec_store(row, i + k * LANES, vec_min(vec_max(v, lo), hi), to);
        }
    }
}

/** The gradient g, or where grad is given a g + b y + c, to consecutive pixels of `to`. */
SH_INLINE void row_load_grad(const void *g, const void *y, int64_t pixels,
                             const sh_cpu_bn_grad *grad, void *row, int64_t ahead,
                             const sh_dtype from, const sh_dtype to)
{
    if (!grad) {
        for (int64_t i = 0; i < pixels * BLOCK; i += LANES)
            vec_store(row, i, vec_load(g, i, from), to);
        return;
    }
    vf a[PARTS], b[PARTS], c[PARTS];

    vec_load_parts(grad->a, a);
    vec_load_parts(grad->b, b);
    vec_load_parts(grad->c, c);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        if (ahead) {
            fetch_stream(g, i, ahead, from);
            fetch_stream(y, i, ahead, from);
        }
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            int64_t at = i + k * LANES;
            vec_store(row, at, a[k] * vec_load(g, at, from) + (b[k] * vec_load(y, at, from) + c[k]),
                      to);
        }
    }
}

/** v to element i, with moments. */
SH_INLINE void vec_put_summed(vf v, int64_t i, void *y, const bool stream, vf shift, vf *s, vf *q,
                              const sh_dtype dtype)
{
    vec_put(v, i, y, stream, dtype);
    v = vec_rounded(v, dtype) - shift;
    *s += v;
    *q += v * v;
}

SH_INLINE vf finished(vf v, vf lo, vf hi, const bool silu)
{
    return silu ? vec_silu(v) : vec_min(vec_max(v, lo), hi);
}

SH_INLINE void row_finish_as(const float *c, int64_t pixels, const sh_cpu_finish *f, void *y,
                             const bool stream, const bool residual, const bool silu,
                             const sh_dtype dtype)
{
    vf add[PARTS] = {{0}}, lo = vec_set(f->lo), hi = vec_set(f->hi);

    if (f->bias) vec_load_parts(f->bias, add);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            int64_t at = i + k * LANES;
            vf v = vec_load(c, at, SH_F32) + add[k];
            if (residual) v += vec_load(f->residual, at, dtype);
            vec_put(finished(v, lo, hi, silu), at, y, stream, dtype);
        }
    }
}

SH_INLINE void row_finish(const float *c, int64_t pixels, const sh_cpu_finish *f, void *y,
                          const bool stream, const sh_dtype dtype)
{
    if (f->silu && f->residual)
        row_finish_as(c, pixels, f, y, stream, true, true, dtype);
    else if (f->silu)
        row_finish_as(c, pixels, f, y, stream, false, true, dtype);
    else if (f->residual)
        row_finish_as(c, pixels, f, y, stream, true, false, dtype);
    else
        row_finish_as(c, pixels, f, y, stream, false, false, dtype);
}

/* n vectors from the pixel at element i on, each to its strand. */
SH_INLINE void put_summed(const float *c, int64_t i, const int n, const vf *add, void *y,
                          const bool stream, const vf *shift, vf *s, vf *q, const sh_dtype dtype)
{
    SH_UNROLL
    for (int k = 0; k < n; k++)
        vec_put_summed(vec_load(c, i + k * LANES, SH_F32) + add[k % PARTS], i + k * LANES, y,
                       stream, shift[k % PARTS], &s[k], &q[k], dtype);
}

SH_INLINE void row_store_any(const float *c, int64_t pixels, const sh_cpu_finish *f, void *y,
                             sh_cpu_moments *m, const bool stream, const sh_dtype dtype)
{
    if (!m) {
        row_finish(c, pixels, f, y, stream, dtype);
        return;
    }
    vf add[PARTS] = {{0}}, shift[PARTS], s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t i = 0;

    if (f->bias) vec_load_parts(f->bias, add);
    if (m->count == 0) {
        memset(m, 0, sizeof(*m));
        for (int k = 0; k < PARTS; k++) {
            vf first = vec_load(c, k * LANES, SH_F32) + add[k];
            vec_store(m->shift, k * LANES, vec_rounded(first, dtype), SH_F32);
        }
    }
    vec_load_parts(m->shift, shift);
    for (; i + STRANDS * LANES <= pixels * BLOCK; i += STRANDS * LANES)
        put_summed(c, i, STRANDS, add, y, stream, shift, s, q, dtype);
    for (; i < pixels * BLOCK; i += BLOCK)
        put_summed(c, i, PARTS, add, y, stream, shift, s, q, dtype);
    moments_add(m, s, q, STRANDS, pixels);
}

/** c to a slab: finished, or with moments of what was stored. */
SH_INLINE void row_store(const float *c, int64_t pixels, const sh_cpu_finish *f, void *y,
                         bool stream, sh_cpu_moments *m, const sh_dtype dtype)
{
    if (stream)
        row_store_any(c, pixels, f, y, m, true, dtype);
    else
        row_store_any(c, pixels, f, y, m, false, dtype);
}

/* Of one part: a batch norm and its activation, and the mean of what it normalises. */
typedef struct clamp {
    vf scale, shift, lo, hi, mean;
} clamp;

SH_INLINE void clamps_of(const sh_cpu_affine *norm, const float *mean, clamp *parts)
{
    SH_UNROLL
    for (int k = 0; k < PARTS; k++)
        parts[k] = (clamp){.scale = vec_load(norm->scale, k * LANES, SH_F32),
                           .shift = vec_load(norm->shift, k * LANES, SH_F32),
                           .lo = vec_set(norm->lo),
                           .hi = vec_set(norm->hi),
                           .mean = vec_load(mean, k * LANES, SH_F32)};
}

/** The gradient before an activation whose input is a, from c behind it. */
SH_INLINE vf through_act(vf c, vf a, const clamp *k, const bool silu)
{
    return silu ? c * vec_silu_slope(a) : vec_inside(c, a, k->lo, k->hi);
}

/** The gradient g before an activation to element i, summed as it was stored; v is x there. */
SH_INLINE void vec_put_grad(vf g, vf v, int64_t i, void *dx, const bool stream, const clamp *k,
                            vf *s, vf *q, const sh_dtype dtype)
{
    vec_put(g, i, dx, stream, dtype);
    g = vec_rounded(g, dtype);
    *s += g;
    *q += g * (v - k->mean);
}

SH_INLINE void vec_put_through(vf c, int64_t i, const void *x, void *dx, const bool stream,
                               const clamp *k, vf *s, vf *q, const bool silu, const sh_dtype dtype)
{
    vf v = vec_load(x, i, dtype);

    vec_put_grad(through_act(c, v * k->scale + k->shift, k, silu), v, i, dx, stream, k, s, q,
                 dtype);
}

SH_INLINE void row_store_grad_any(const float *c, int64_t pixels, const void *x, void *dx,
                                  const sh_cpu_affine *norm, const float *mean,
                                  sh_cpu_grad_sums *sums, const bool stream, const bool silu,
                                  const sh_dtype dtype)
{
    clamp parts[PARTS];
    vf s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t i = 0;

    clamps_of(norm, mean, parts);
    for (; i + STRANDS * LANES <= pixels * BLOCK; i += STRANDS * LANES) {
        SH_UNROLL
        for (int k = 0; k < STRANDS; k++)
            vec_put_through(vec_load(c, i + k * LANES, SH_F32), i + k * LANES, x, dx, stream,
                            &parts[k % PARTS], &s[k], &q[k], silu, dtype);
    }
    for (; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++)
            vec_put_through(vec_load(c, i + k * LANES, SH_F32), i + k * LANES, x, dx, stream,
                            &parts[k], &s[k], &q[k], silu, dtype);
    }
    strands_add(sums->g, s, STRANDS);
    strands_add(sums->gx, q, STRANDS);
}

/** The gradient c to a slab; with sums, led back through norm's activation of x, and summed as it
 *  was stored. */
SH_INLINE void row_store_grad(const float *c, int64_t pixels, const void *x, void *dx, bool stream,
                              const sh_cpu_affine *norm, const float *mean, sh_cpu_grad_sums *sums,
                              const sh_dtype dtype)
{
    if (!sums) {
        const sh_cpu_finish plain = {.lo = -INFINITY, .hi = INFINITY};
        row_store(c, pixels, &plain, dx, stream, NULL, dtype);
        return;
    }
    if (norm->curve == SH_ACT_SILU && stream)
        row_store_grad_any(c, pixels, x, dx, norm, mean, sums, true, true, dtype);
    else if (norm->curve == SH_ACT_SILU)
        row_store_grad_any(c, pixels, x, dx, norm, mean, sums, false, true, dtype);
    else if (stream)
        row_store_grad_any(c, pixels, x, dx, norm, mean, sums, true, false, dtype);
    else
        row_store_grad_any(c, pixels, x, dx, norm, mean, sums, false, false, dtype);
}

#endif

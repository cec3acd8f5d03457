// SPDX-License-Identifier: Apache-2.0
/* Pixels on their way in and out of convolutions: what is fused with loading and storing them. */
#ifndef SH_MODELS_CPU_SIMD_ROWS_H
#define SH_MODELS_CPU_SIMD_ROWS_H

#include <math.h>

#include "models/cpu/simd/act.h"
#include "models/cpu/simd/parts.h"

/** Fetch what stands `ahead` bytes further into the second-level cache; 0: nothing. Called for
 * every 16 elements. */
SH_INLINE void fetch_stream(const void *p, int64_t i, int64_t ahead, const sh_dtype dtype)
{
    const char *at = (const char *)p + i * (dtype == SH_BF16 ? 2 : 4);

    if (dtype == SH_F32 || i % (2 * LANES) == 0) __builtin_prefetch(at + ahead, 0, 2);
}

/* n pixels from the one at element i on. */
SH_INLINE void load_silu(const void *x, int64_t i, const int n, const sh_cpu_affine *norm,
                         void *row, float *slopes, int64_t ahead, const sh_dtype from,
                         const sh_dtype to)
{
    vf scale = vec_load(norm->scale, 0, SH_F32), shift = vec_load(norm->shift, 0, SH_F32);
    vf z[TOGETHER], s[TOGETHER];

    SH_UNROLL
    for (int k = 0; k < n; k++) {
        if (ahead) fetch_stream(x, i + k * LANES, ahead, from);
        s[k] = z[k] = vec_load(x, i + k * LANES, from) * scale + shift;
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

    for (; i + TOGETHER * LANES <= pixels * LANES; i += TOGETHER * LANES)
        load_silu(x, i, TOGETHER, norm, row, slopes, ahead, from, to);
    for (; i < pixels * LANES; i += LANES) load_silu(x, i, 1, norm, row, slopes, ahead, from, to);
}

/** x, normalised where norm->scale is given, to consecutive pixels of `to`. */
SH_INLINE void row_load(const void *x, int64_t pixels, const sh_cpu_affine *norm, void *row,
                        int64_t ahead, const sh_dtype from, const sh_dtype to)
{
    if (!norm->scale) {
        for (int64_t i = 0; i < pixels * LANES; i += LANES)
            vec_store(row, i, vec_load(x, i, from), to);
        return;
    }
    vf scale = vec_load(norm->scale, 0, SH_F32), shift = vec_load(norm->shift, 0, SH_F32);
    vf lo = vec_set(norm->lo), hi = vec_set(norm->hi);

    if (norm->curve == SH_ACT_SILU) {
        row_load_silu(x, pixels, norm, row, NULL, ahead, from, to);
        return;
    }
    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        if (ahead) fetch_stream(x, i, ahead, from);
        vf v = vec_load(x, i, from) * scale + shift;
        vec_store(row, i, vec_min(vec_max(v, lo), hi), to);
    }
}

/** The gradient g, or where grad is given a g + b y + c, to consecutive pixels of `to`. */
SH_INLINE void row_load_grad(const void *g, const void *y, int64_t pixels,
                             const sh_cpu_bn_grad *grad, void *row, int64_t ahead,
                             const sh_dtype from, const sh_dtype to)
{
    if (!grad) {
        for (int64_t i = 0; i < pixels * LANES; i += LANES)
            vec_store(row, i, vec_load(g, i, from), to);
        return;
    }
    vf a = vec_load(grad->a, 0, SH_F32), b = vec_load(grad->b, 0, SH_F32);
    vf c = vec_load(grad->c, 0, SH_F32);

    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        if (ahead) {
            fetch_stream(g, i, ahead, from);
            fetch_stream(y, i, ahead, from);
        }
        vec_store(row, i, a * vec_load(g, i, from) + (b * vec_load(y, i, from) + c), to);
    }
}

/* Sums run in strands that the compiler keeps in registers, whatever the number of pixels. */
enum { STRANDS = 4 };

SH_INLINE void put_pixel(vf v, int64_t p, void *y, const bool stream, const sh_dtype dtype)
{
    if (stream)
        vec_stream(y, p * LANES, v, dtype);
    else
        vec_store(y, p * LANES, v, dtype);
}

/** v to pixel p, with moments. */
SH_INLINE void store_pixel(vf v, int64_t p, void *y, const bool stream, vf shift, vf *s, vf *q,
                           const sh_dtype dtype)
{
    put_pixel(v, p, y, stream, dtype);
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
    vf add = f->bias ? vec_load(f->bias, 0, SH_F32) : (vf){0};
    vf lo = vec_set(f->lo), hi = vec_set(f->hi);

    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        vf v = vec_load(c, i, SH_F32) + add;
        if (residual) v += vec_load(f->residual, i, dtype);
        put_pixel(finished(v, lo, hi, silu), i / LANES, y, stream, dtype);
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

SH_INLINE void row_store_any(const float *c, int64_t pixels, const sh_cpu_finish *f, void *y,
                             sh_cpu_moments *m, const bool stream, const sh_dtype dtype)
{
    if (!m) {
        row_finish(c, pixels, f, y, stream, dtype);
        return;
    }
    vf add = f->bias ? vec_load(f->bias, 0, SH_F32) : (vf){0};

    if (m->count == 0) {
        memset(m, 0, sizeof(*m));
        vec_store(m->shift, 0, vec_rounded(vec_load(c, 0, SH_F32) + add, dtype), SH_F32);
    }
    vf shift = vec_load(m->shift, 0, SH_F32), s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t p = 0;
    for (; p + STRANDS <= pixels; p += STRANDS) {
        SH_UNROLL
        for (int i = 0; i < STRANDS; i++)
            store_pixel(vec_load(c, (p + i) * LANES, SH_F32) + add, p + i, y, stream, shift, &s[i],
                        &q[i], dtype);
    }
    for (; p < pixels; p++)
        store_pixel(vec_load(c, p * LANES, SH_F32) + add, p, y, stream, shift, &s[0], &q[0], dtype);
    moments_add(m, (s[0] + s[1]) + (s[2] + s[3]), (q[0] + q[1]) + (q[2] + q[3]), pixels);
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

/* A batch norm and its activation, and the mean of what it normalises. */
typedef struct clamp {
    vf scale, shift, lo, hi, mean;
} clamp;

SH_INLINE clamp clamp_of(const sh_cpu_affine *norm, const float *mean)
{
    return (clamp){.scale = vec_load(norm->scale, 0, SH_F32),
                   .shift = vec_load(norm->shift, 0, SH_F32),
                   .lo = vec_set(norm->lo),
                   .hi = vec_set(norm->hi),
                   .mean = vec_load(mean, 0, SH_F32)};
}

/** The gradient before an activation whose input is a, from c behind it. */
SH_INLINE vf through_act(vf c, vf a, const clamp *k, const bool silu)
{
    return silu ? c * vec_silu_slope(a) : vec_inside(c, a, k->lo, k->hi);
}

/** The gradient g before an activation to pixel p, summed as it was stored; v is x there. */
SH_INLINE void store_summed_pixel(vf g, vf v, int64_t p, void *dx, const bool stream,
                                  const clamp *k, vf *s, vf *q, const sh_dtype dtype)
{
    put_pixel(g, p, dx, stream, dtype);
    g = vec_rounded(g, dtype);
    *s += g;
    *q += g * (v - k->mean);
}

SH_INLINE void store_grad_pixel(vf c, int64_t p, const void *x, void *dx, const bool stream,
                                const clamp *k, vf *s, vf *q, const bool silu, const sh_dtype dtype)
{
    vf v = vec_load(x, p * LANES, dtype);

    store_summed_pixel(through_act(c, v * k->scale + k->shift, k, silu), v, p, dx, stream, k, s, q,
                       dtype);
}

SH_INLINE void row_store_grad_any(const float *c, int64_t pixels, const void *x, void *dx,
                                  const clamp k, sh_cpu_grad_sums *sums, const bool stream,
                                  const bool silu, const sh_dtype dtype)
{
    vf s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t p = 0;

    for (; p + STRANDS <= pixels; p += STRANDS) {
        SH_UNROLL
        for (int i = 0; i < STRANDS; i++)
            store_grad_pixel(vec_load(c, (p + i) * LANES, SH_F32), p + i, x, dx, stream, &k, &s[i],
                             &q[i], silu, dtype);
    }
    for (; p < pixels; p++)
        store_grad_pixel(vec_load(c, p * LANES, SH_F32), p, x, dx, stream, &k, &s[0], &q[0], silu,
                         dtype);
    vf g = (s[0] + s[1]) + (s[2] + s[3]), gx = (q[0] + q[1]) + (q[2] + q[3]);
    vec_store(sums->g, 0, vec_load(sums->g, 0, SH_F32) + g, SH_F32);
    vec_store(sums->gx, 0, vec_load(sums->gx, 0, SH_F32) + gx, SH_F32);
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
    const clamp k = clamp_of(norm, mean);
    if (norm->curve == SH_ACT_SILU && stream)
        row_store_grad_any(c, pixels, x, dx, k, sums, true, true, dtype);
    else if (norm->curve == SH_ACT_SILU)
        row_store_grad_any(c, pixels, x, dx, k, sums, false, true, dtype);
    else if (stream)
        row_store_grad_any(c, pixels, x, dx, k, sums, true, false, dtype);
    else
        row_store_grad_any(c, pixels, x, dx, k, sums, false, false, dtype);
}

#endif

// SPDX-License-Identifier: Apache-2.0
/* Pixels on their way in and out of convolutions: what is fused with loading and storing them. */
#ifndef SH_MODELS_CPU_SIMD_ROWS_H
#define SH_MODELS_CPU_SIMD_ROWS_H

#include "models/cpu/simd/parts.h"

/** x, normalised where norm->scale is given, to consecutive pixels of `to`. */
SH_INLINE void row_load(const void *x, int64_t pixels, const sh_cpu_affine *norm, void *row,
                        const sh_dtype from, const sh_dtype to)
{
    if (!norm->scale) {
        for (int64_t i = 0; i < pixels * LANES; i += LANES)
            vec_store(row, i, vec_load(x, i, from), to);
        return;
    }
    vf scale = vec_load(norm->scale, 0, SH_F32), shift = vec_load(norm->shift, 0, SH_F32);
    vf lo = vec_set(norm->lo), hi = vec_set(norm->hi);

    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        vf v = vec_load(x, i, from) * scale + shift;
        vec_store(row, i, vec_min(vec_max(v, lo), hi), to);
    }
}

/** The gradient g, or where grad is given a g + b y + c, to consecutive pixels of `to`. */
SH_INLINE void row_load_grad(const void *g, const void *y, int64_t pixels,
                             const sh_cpu_bn_grad *grad, void *row, const sh_dtype from,
                             const sh_dtype to)
{
    if (!grad) {
        for (int64_t i = 0; i < pixels * LANES; i += LANES)
            vec_store(row, i, vec_load(g, i, from), to);
        return;
    }
    vf a = vec_load(grad->a, 0, SH_F32), b = vec_load(grad->b, 0, SH_F32);
    vf c = vec_load(grad->c, 0, SH_F32);

    for (int64_t i = 0; i < pixels * LANES; i += LANES)
        vec_store(row, i, a * vec_load(g, i, from) + (b * vec_load(y, i, from) + c), to);
}

/** c + bias to a slab; the moments are those of what was stored. */
SH_INLINE void row_store(const float *c, int64_t pixels, const float *bias, void *y, bool stream,
                         sh_cpu_moments *m, const sh_dtype dtype)
{
    vf add = bias ? vec_load(bias, 0, SH_F32) : (vf){0};

    if (!m) {
        for (int64_t i = 0; i < pixels * LANES; i += LANES) {
            vf v = vec_load(c, i, SH_F32) + add;
            if (stream)
                vec_stream(y, i, v, dtype);
            else
                vec_store(y, i, v, dtype);
        }
        return;
    }
    if (m->count == 0) {
        memset(m, 0, sizeof(*m));
        vec_store(m->shift, 0, vec_rounded(vec_load(c, 0, SH_F32) + add, dtype), SH_F32);
    }
    vf shift = vec_load(m->shift, 0, SH_F32), s[2] = {{0}}, q[2] = {{0}};
    for (int64_t p = 0; p < pixels; p++) {
        vf v = vec_load(c, p * LANES, SH_F32) + add;
        if (stream)
            vec_stream(y, p * LANES, v, dtype);
        else
            vec_store(y, p * LANES, v, dtype);
        v = vec_rounded(v, dtype) - shift;
        s[p & 1] += v;
        q[p & 1] += v * v;
    }
    moments_add(m, s[0] + s[1], q[0] + q[1], pixels);
}

/** The gradient c to a slab; with sums, masked where norm's activation of x was clamped, and summed
 *  as it was stored. */
SH_INLINE void row_store_grad(const float *c, int64_t pixels, const void *x, void *dx, bool stream,
                              const sh_cpu_affine *norm, const float *mean, sh_cpu_grad_sums *sums,
                              const sh_dtype dtype)
{
    if (!sums) {
        row_store(c, pixels, NULL, dx, stream, NULL, dtype);
        return;
    }
    vf scale = vec_load(norm->scale, 0, SH_F32), shift = vec_load(norm->shift, 0, SH_F32);
    vf lo = vec_set(norm->lo), hi = vec_set(norm->hi), m = vec_load(mean, 0, SH_F32);
    vf s[2] = {{0}}, q[2] = {{0}};

    for (int64_t p = 0; p < pixels; p++) {
        vf v = vec_load(x, p * LANES, dtype);
        vf g = vec_inside(vec_load(c, p * LANES, SH_F32), v * scale + shift, lo, hi);
        if (stream)
            vec_stream(dx, p * LANES, g, dtype);
        else
            vec_store(dx, p * LANES, g, dtype);
        g = vec_rounded(g, dtype);
        s[p & 1] += g;
        q[p & 1] += g * (v - m);
    }
    vec_store(sums->g, 0, vec_load(sums->g, 0, SH_F32) + (s[0] + s[1]), SH_F32);
    vec_store(sums->gx, 0, vec_load(sums->gx, 0, SH_F32) + (q[0] + q[1]), SH_F32);
}

#endif

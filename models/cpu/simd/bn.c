// SPDX-License-Identifier: Apache-2.0
/* Batch norm over slabs. Sums run in four interleaved strands, added pairwise: the order depends on
 * the number of pixels alone. */
#include "models/cpu/simd/rows.h"

/* Operands come from memory in several streams at once, more than the processor follows by itself
 * from page to page. */
enum { AHEAD_BYTES = 2048 };

SH_INLINE vf load_ahead(const void *p, int64_t i, const sh_dtype dtype)
{
    fetch_stream(p, i, AHEAD_BYTES, dtype);
    return vec_load(p, i, dtype);
}

/* n vectors from the pixel at element i on, each to its strand. */
SH_INLINE void add_moments(const void *x, int64_t i, const int n, const vf *shift, vf *s, vf *q,
                           const sh_dtype dtype)
{
    SH_UNROLL
    for (int k = 0; k < n; k++) {
        vf v = vec_load(x, i + k * LANES, dtype) - shift[k % PARTS];
        s[k] += v;
        q[k] += v * v;
    }
}

SH_INLINE void moments(const void *x, int64_t pixels, sh_cpu_moments *m, const sh_dtype dtype)
{
    vf shift[PARTS], s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t i = 0;

    if (m->count == 0) {
        memset(m, 0, sizeof(*m));
        for (int k = 0; k < PARTS; k++)
            vec_store(m->shift, k * LANES, vec_load(x, k * LANES, dtype), SH_F32);
    }
    vec_load_parts(m->shift, shift);
    for (; i + STRANDS * LANES <= pixels * BLOCK; i += STRANDS * LANES)
        add_moments(x, i, STRANDS, shift, s, q, dtype);
    for (; i < pixels * BLOCK; i += BLOCK) add_moments(x, i, PARTS, shift, s, q, dtype);
    moments_add(m, s, q, STRANDS, pixels);
}

void SH_SIMD(moments)(const void *x, int64_t pixels, sh_dtype dtype, sh_cpu_moments *m)
{
    if (dtype == SH_BF16)
        moments(x, pixels, m, SH_BF16);
    else
        moments(x, pixels, m, SH_F32);
}

SH_INLINE void bn_apply(const void *x, const void *residual, void *y, int64_t pixels,
                        const sh_cpu_affine *norm, bool stream, const sh_dtype dtype,
                        const bool has_residual, const sh_act curve)
{
    vf scale[PARTS], shift[PARTS], lo = vec_set(norm->lo), hi = vec_set(norm->hi);

    vec_load_parts(norm->scale, scale);
    vec_load_parts(norm->shift, shift);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            int64_t at = i + k * LANES;
            vf v = load_ahead(x, at, dtype) * scale[k] + shift[k];
            if (has_residual) v += load_ahead(residual, at, dtype);
            v = curve == SH_ACT_SILU         ? vec_silu(v)
                : curve == SH_ACT_HARD_SWISH ? v * vec_hard_sigmoid(v)
                                             : vec_min(vec_max(v, lo), hi);
            vec_put(v, at, y, stream && y != x, dtype);
        }
    }
}

SH_INLINE void bn_apply_act(const void *x, const void *residual, void *y, int64_t pixels,
                            const sh_cpu_affine *norm, bool stream, const sh_dtype dtype,
                            const bool has_residual)
{
    if (norm->curve == SH_ACT_SILU)
        bn_apply(x, residual, y, pixels, norm, stream, dtype, has_residual, SH_ACT_SILU);
    else if (norm->curve == SH_ACT_HARD_SWISH)
        bn_apply(x, residual, y, pixels, norm, stream, dtype, has_residual, SH_ACT_HARD_SWISH);
    else
        bn_apply(x, residual, y, pixels, norm, stream, dtype, has_residual, SH_ACT_NONE);
}

void SH_SIMD(bn_apply)(const void *x, const void *residual, void *y, int64_t pixels, sh_dtype dtype,
                       const sh_cpu_affine *norm, bool stream)
{
    if (dtype == SH_BF16 && residual)
        bn_apply_act(x, residual, y, pixels, norm, stream, SH_BF16, true);
    else if (dtype == SH_BF16)
        bn_apply_act(x, residual, y, pixels, norm, stream, SH_BF16, false);
    else if (residual)
        bn_apply_act(x, residual, y, pixels, norm, stream, SH_F32, true);
    else
        bn_apply_act(x, residual, y, pixels, norm, stream, SH_F32, false);
}

/* How the gradient gets through the activation: by its input, recomputed from x (a clamp, SiLU or
 * hard swish), or by y, the output of a clamp. */
typedef enum mask { FROM_X, FROM_X_SILU, FROM_X_HARD_SWISH, FROM_Y } mask;

SH_INLINE mask mask_of(const sh_cpu_affine *norm, const void *y)
{
    if (norm->curve == SH_ACT_SILU) return FROM_X_SILU;
    if (norm->curve == SH_ACT_HARD_SWISH) return FROM_X_HARD_SWISH;
    return y ? FROM_Y : FROM_X;
}

SH_INLINE vf masked(const void *dy, const void *y, vf v, int64_t i, const clamp *k,
                    const sh_dtype dtype, const mask how)
{
    vf a = how == FROM_Y ? load_ahead(y, i, dtype) : v * k->scale + k->shift;
    vf g = load_ahead(dy, i, dtype);

    if (how == FROM_X_HARD_SWISH) return g * vec_hard_swish_slope(a);
    return through_act(g, a, k, how == FROM_X_SILU);
}

/* The vector at element i. */
SH_INLINE void reduce(const void *dy, const void *x, const void *y, int64_t i, const clamp *k,
                      vf *s, vf *q, const sh_dtype dtype, const mask how)
{
    vf v = load_ahead(x, i, dtype);
    vf g = masked(dy, y, v, i, k, dtype, how);

    *s += g;
    *q += g * (v - k->mean);
}

enum { REDUCED = PARTS > 2 ? PARTS : 2 }; /* vectors at a time, each to its strand */

SH_INLINE void bn_grad_reduce(const void *dy, const void *x, const void *y, int64_t pixels,
                              const sh_cpu_affine *norm, const float *mean, sh_cpu_grad_sums *sums,
                              const sh_dtype dtype, const mask how)
{
    clamp parts[PARTS];
    vf s[REDUCED] = {{0}}, q[REDUCED] = {{0}};
    int64_t i = 0;

    clamps_of(norm, mean, parts);
    for (; i + REDUCED * LANES <= pixels * BLOCK; i += REDUCED * LANES) {
        SH_UNROLL
        for (int k = 0; k < REDUCED; k++)
            reduce(dy, x, y, i + k * LANES, &parts[k % PARTS], &s[k], &q[k], dtype, how);
    }
    if (i < pixels * BLOCK) reduce(dy, x, y, i, &parts[0], &s[0], &q[0], dtype, how);
    strands_add(sums->g, s, REDUCED);
    strands_add(sums->gx, q, REDUCED);
}

SH_INLINE void bn_grad_reduce_any(const void *dy, const void *x, const void *y, int64_t pixels,
                                  const sh_cpu_affine *norm, const float *mean,
                                  sh_cpu_grad_sums *sums, const sh_dtype dtype)
{
    switch (mask_of(norm, y)) {
    case FROM_X: bn_grad_reduce(dy, x, y, pixels, norm, mean, sums, dtype, FROM_X); break;
    case FROM_X_SILU: bn_grad_reduce(dy, x, y, pixels, norm, mean, sums, dtype, FROM_X_SILU); break;
    case FROM_X_HARD_SWISH:
        bn_grad_reduce(dy, x, y, pixels, norm, mean, sums, dtype, FROM_X_HARD_SWISH);
        break;
    case FROM_Y: bn_grad_reduce(dy, x, y, pixels, norm, mean, sums, dtype, FROM_Y); break;
    }
}

void SH_SIMD(bn_grad_reduce)(const void *dy, const void *x, const void *y, int64_t pixels,
                             sh_dtype dtype, const sh_cpu_affine *norm, const float *mean,
                             sh_cpu_grad_sums *sums)
{
    if (dtype == SH_BF16)
        bn_grad_reduce_any(dy, x, y, pixels, norm, mean, sums, SH_BF16);
    else
        bn_grad_reduce_any(dy, x, y, pixels, norm, mean, sums, SH_F32);
}

SH_INLINE void bn_grad_apply(const void *dy, const void *x, const void *y, void *dx,
                             void *dresidual, int64_t pixels, const sh_cpu_affine *norm,
                             const sh_cpu_bn_grad *grad, bool stream, const sh_dtype dtype,
                             const mask how)
{
    clamp parts[PARTS];
    vf a[PARTS], b[PARTS], c[PARTS];

    clamps_of(norm, norm->scale, parts); /* no mean is needed here */
    vec_load_parts(grad->a, a);
    vec_load_parts(grad->b, b);
    vec_load_parts(grad->c, c);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            int64_t at = i + k * LANES;
            vf v = load_ahead(x, at, dtype);
            vf g = masked(dy, y, v, at, &parts[k], dtype, how);
            if (dresidual) vec_put(g, at, dresidual, stream, dtype);
            vec_put(a[k] * g + (b[k] * v + c[k]), at, dx, stream && dx != dy, dtype);
        }
    }
}

SH_INLINE void bn_grad_apply_any(const void *dy, const void *x, const void *y, void *dx,
                                 void *dresidual, int64_t pixels, const sh_cpu_affine *norm,
                                 const sh_cpu_bn_grad *grad, bool stream, const sh_dtype dtype)
{
    switch (mask_of(norm, y)) {
    case FROM_X:
        bn_grad_apply(dy, x, y, dx, dresidual, pixels, norm, grad, stream, dtype, FROM_X);
        break;
    case FROM_X_SILU:
        bn_grad_apply(dy, x, y, dx, dresidual, pixels, norm, grad, stream, dtype, FROM_X_SILU);
        break;
    case FROM_X_HARD_SWISH:
        bn_grad_apply(dy, x, y, dx, dresidual, pixels, norm, grad, stream, dtype,
                      FROM_X_HARD_SWISH);
        break;
    case FROM_Y:
        bn_grad_apply(dy, x, y, dx, dresidual, pixels, norm, grad, stream, dtype, FROM_Y);
        break;
    }
}

void SH_SIMD(bn_grad_apply)(const void *dy, const void *x, const void *y, void *dx, void *dresidual,
                            int64_t pixels, sh_dtype dtype, const sh_cpu_affine *norm,
                            const sh_cpu_bn_grad *grad, bool stream)
{
    if (dtype == SH_BF16)
        bn_grad_apply_any(dy, x, y, dx, dresidual, pixels, norm, grad, stream, SH_BF16);
    else
        bn_grad_apply_any(dy, x, y, dx, dresidual, pixels, norm, grad, stream, SH_F32);
}

void SH_SIMD(pool)(const void *x, int64_t pixels, sh_dtype dtype, float *sum)
{
    vf s[PARTS] = {{0}};

    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) s[k] += vec_load(x, i + k * LANES, dtype);
    }
    for (int k = 0; k < PARTS; k++) vec_store(sum, k * LANES, s[k], SH_F32);
}

void SH_SIMD(fill)(const float *value, void *y, int64_t pixels, sh_dtype dtype)
{
    vf v[PARTS];

    vec_load_parts(value, v);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) vec_store(y, i + k * LANES, v[k], dtype);
    }
}

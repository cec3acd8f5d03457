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

SH_INLINE void put(void *p, int64_t i, vf v, bool stream, const sh_dtype dtype)
{
    if (stream)
        vec_stream(p, i, v, dtype);
    else
        vec_store(p, i, v, dtype);
}

SH_INLINE void moments(const void *x, int64_t pixels, sh_cpu_moments *m, const sh_dtype dtype)
{
    vf s[STRANDS] = {{0}}, q[STRANDS] = {{0}};
    int64_t p = 0;

    if (m->count == 0) {
        memset(m, 0, sizeof(*m));
        vec_store(m->shift, 0, vec_load(x, 0, dtype), SH_F32);
    }
    vf shift = vec_load(m->shift, 0, SH_F32);
    for (; p + STRANDS <= pixels; p += STRANDS) {
        SH_UNROLL
        for (int i = 0; i < STRANDS; i++) {
            vf v = vec_load(x, (p + i) * LANES, dtype) - shift;
            s[i] += v;
            q[i] += v * v;
        }
    }
    for (; p < pixels; p++) {
        vf v = vec_load(x, p * LANES, dtype) - shift;
        s[0] += v;
        q[0] += v * v;
    }
    moments_add(m, (s[0] + s[1]) + (s[2] + s[3]), (q[0] + q[1]) + (q[2] + q[3]), pixels);
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
    vf scale = vec_load(norm->scale, 0, SH_F32), shift = vec_load(norm->shift, 0, SH_F32);
    vf lo = vec_set(norm->lo), hi = vec_set(norm->hi);

    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        vf v = load_ahead(x, i, dtype) * scale + shift;
        if (has_residual) v += load_ahead(residual, i, dtype);
        v = curve == SH_ACT_SILU         ? vec_silu(v)
            : curve == SH_ACT_HARD_SWISH ? v * vec_hard_sigmoid(v)
                                         : vec_min(vec_max(v, lo), hi);
        put(y, i, v, stream && y != x, dtype);
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

SH_INLINE void reduce_pixel(const void *dy, const void *x, const void *y, int64_t p, const clamp *k,
                            vf *s, vf *q, const sh_dtype dtype, const mask how)
{
    vf v = load_ahead(x, p * LANES, dtype);
    vf g = masked(dy, y, v, p * LANES, k, dtype, how);

    *s += g;
    *q += g * (v - k->mean);
}

SH_INLINE void bn_grad_reduce(const void *dy, const void *x, const void *y, int64_t pixels,
                              const sh_cpu_affine *norm, const float *mean, sh_cpu_grad_sums *sums,
                              const sh_dtype dtype, const mask how)
{
    const clamp k = clamp_of(norm, mean);
    vf s[2] = {{0}}, q[2] = {{0}};
    int64_t p = 0;

    for (; p + 2 <= pixels; p += 2) {
        reduce_pixel(dy, x, y, p, &k, &s[0], &q[0], dtype, how);
        reduce_pixel(dy, x, y, p + 1, &k, &s[1], &q[1], dtype, how);
    }
    if (p < pixels) reduce_pixel(dy, x, y, p, &k, &s[0], &q[0], dtype, how);
    vec_store(sums->g, 0, vec_load(sums->g, 0, SH_F32) + (s[0] + s[1]), SH_F32);
    vec_store(sums->gx, 0, vec_load(sums->gx, 0, SH_F32) + (q[0] + q[1]), SH_F32);
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
    const clamp k = clamp_of(norm, norm->scale); /* no mean is needed here */
    vf a = vec_load(grad->a, 0, SH_F32), b = vec_load(grad->b, 0, SH_F32);
    vf c = vec_load(grad->c, 0, SH_F32);

    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        vf v = load_ahead(x, i, dtype);
        vf g = masked(dy, y, v, i, &k, dtype, how);
        if (dresidual) put(dresidual, i, g, stream, dtype);
        put(dx, i, a * g + (b * v + c), stream && dx != dy, dtype);
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
    vf s = {0};

    for (int64_t p = 0; p < pixels; p++) s += vec_load(x, p * LANES, dtype);
    vec_store(sum, 0, s, SH_F32);
}

void SH_SIMD(fill)(const float *value, void *y, int64_t pixels, sh_dtype dtype)
{
    vf v = vec_load(value, 0, SH_F32);

    for (int64_t p = 0; p < pixels; p++) vec_store(y, p * LANES, v, dtype);
}

// SPDX-License-Identifier: Apache-2.0
/* Maps over flat arrays. The last elements go through the same lanes as the others, so that
 * an element's bits do not depend on where it stands. */
#include "models/cpu/simd/math.h"
#include "models/cpu/simd/part.h"
#include "models/cpu/simd/parts.h"
#include "models/ops.h"

/** Near 0, 2 sigmoid(2 x) - 1 cancels; an odd polynomial takes over. */
SH_INLINE vf vec_tanh(vf x)
{
    vf far = vec_set(2) * vec_sigmoid(vec_set(2) * x) - vec_set(1);
    vf s = x * x;
    vf p = vec_set(-17.0f / 315) + s * vec_set(62.0f / 2835);
    vf near = x + x * s * (vec_set(-1.0f / 3) + s * (vec_set(2.0f / 15) + s * p));
    vi small = s < vec_set(0.04f);

    return (vf)((small & (vi)near) | (~small & (vi)far));
}

SH_INLINE vf act_forward(vf x, const int act)
{
    switch (act) {
    case SH_ACT_RELU: return vec_max(x, vec_set(0));
    case SH_ACT_RELU6: return vec_min(vec_max(x, vec_set(0)), vec_set(6));
    case SH_ACT_SIGMOID: return vec_sigmoid(x);
    case SH_ACT_TANH: return vec_tanh(x);
    case SH_ACT_SILU: return vec_silu(x);
    case SH_ACT_GELU: return vec_gelu(x);
    case SH_ACT_HARD_SIGMOID: return vec_hard_sigmoid(x);
    case SH_ACT_HARD_SWISH: return x * vec_hard_sigmoid(x);
    default: return x;
    }
}

SH_INLINE vf act_backward(vf dy, vf y, const int act)
{
    switch (act) {
    case SH_ACT_RELU: return vec_keep(y > vec_set(0), dy);
    case SH_ACT_RELU6: return vec_inside(dy, y, vec_set(0), vec_set(6));
    case SH_ACT_SIGMOID: return dy * (y * (vec_set(1) - y));
    case SH_ACT_TANH: return dy * (vec_set(1) - y * y);
    case SH_ACT_SILU:
        return dy * vec_silu_slope(y); /* from here y is the input, but for hard sigmoid */
    case SH_ACT_GELU: return dy * vec_gelu_slope(y);
    case SH_ACT_HARD_SIGMOID: return vec_inside(dy * vec_set(1.0f / 6), y, vec_set(0), vec_set(1));
    case SH_ACT_HARD_SWISH: return dy * vec_hard_swish_slope(y);
    default: return dy;
    }
}

SH_INLINE void act_any(const void *x, void *y, int64_t n, const sh_dtype dtype, const int act)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        vec_store(y, i, act_forward(vec_load(x, i, dtype), act), dtype);
    if (i < n)
        vec_store_part(y, i, n - i, act_forward(vec_load_part(x, i, n - i, dtype), act), dtype);
}

/* One loop per activation: chosen once, not per element. */
#define EACH_ACT(X)                                                                                \
    X(SH_ACT_NONE)                                                                                 \
    X(SH_ACT_RELU)                                                                                 \
    X(SH_ACT_RELU6)                                                                                \
    X(SH_ACT_SIGMOID)                                                                              \
    X(SH_ACT_TANH) X(SH_ACT_SILU) X(SH_ACT_GELU) X(SH_ACT_HARD_SIGMOID) X(SH_ACT_HARD_SWISH)

SH_INLINE void act_chosen(const void *x, void *y, int64_t n, const sh_dtype dtype, int act)
{
    switch (act) {
#define FORWARD(one)                                                                               \
    case one: act_any(x, y, n, dtype, one); break;
        EACH_ACT(FORWARD)
    default: break;
    }
}

void SH_SIMD(act)(const void *x, void *y, int64_t n, sh_dtype dtype, int act)
{
    if (dtype == SH_BF16)
        act_chosen(x, y, n, SH_BF16, act);
    else
        act_chosen(x, y, n, SH_F32, act);
}

SH_INLINE void act_grad_any(const void *dy, const void *y, void *dx, int64_t n,
                            const sh_dtype dtype, const int act)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        vec_store(dx, i, act_backward(vec_load(dy, i, dtype), vec_load(y, i, dtype), act), dtype);
    if (i < n) {
        vf g = act_backward(vec_load_part(dy, i, n - i, dtype), vec_load_part(y, i, n - i, dtype),
                            act);
        vec_store_part(dx, i, n - i, g, dtype);
    }
}

SH_INLINE void act_grad_chosen(const void *dy, const void *y, void *dx, int64_t n,
                               const sh_dtype dtype, int act)
{
    switch (act) {
#define BACKWARD(one)                                                                              \
    case one: act_grad_any(dy, y, dx, n, dtype, one); break;
        EACH_ACT(BACKWARD)
    default: break;
    }
}

void SH_SIMD(act_grad)(const void *dy, const void *y, void *dx, int64_t n, sh_dtype dtype, int act)
{
    if (dtype == SH_BF16)
        act_grad_chosen(dy, y, dx, n, SH_BF16, act);
    else
        act_grad_chosen(dy, y, dx, n, SH_F32, act);
}

SH_INLINE void add_any(const void *a, const void *b, void *y, int64_t n, const sh_dtype dtype)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        vec_store(y, i, vec_load(a, i, dtype) + vec_load(b, i, dtype), dtype);
    if (i < n)
        vec_store_part(y, i, n - i,
                       vec_load_part(a, i, n - i, dtype) + vec_load_part(b, i, n - i, dtype),
                       dtype);
}

void SH_SIMD(add)(const void *a, const void *b, void *y, int64_t n, sh_dtype dtype)
{
    if (dtype == SH_BF16)
        add_any(a, b, y, n, SH_BF16);
    else
        add_any(a, b, y, n, SH_F32);
}

SH_INLINE void cast_any(const void *x, void *y, int64_t n, const sh_dtype from, const sh_dtype to)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES) vec_store(y, i, vec_load(x, i, from), to);
    if (i < n) vec_store_part(y, i, n - i, vec_load_part(x, i, n - i, from), to);
}

void SH_SIMD(cast)(const void *x, sh_dtype from, void *y, sh_dtype to, int64_t n)
{
    if (from == to)
        memmove(y, x, (size_t)n * sh_dtype_size(from));
    else if (from == SH_F32)
        cast_any(x, y, n, SH_F32, SH_BF16);
    else
        cast_any(x, y, n, SH_BF16, SH_F32);
}

float SH_SIMD(dot)(const void *a, sh_dtype a_dtype, const float *b, int64_t n)
{
    vf s[4] = {{0}};
    int64_t i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        SH_UNROLL
        for (int k = 0; k < 4; k++)
            s[k] += vec_load(a, i + k * LANES, a_dtype) * vec_load(b, i + k * LANES, SH_F32);
    }
    for (; i + LANES <= n; i += LANES) s[0] += vec_load(a, i, a_dtype) * vec_load(b, i, SH_F32);
    if (i < n) s[1] += vec_load_part(a, i, n - i, a_dtype) * vec_load_part(b, i, n - i, SH_F32);
    return vec_sum((s[0] + s[1]) + (s[2] + s[3]));
}

void SH_SIMD(axpy)(float alpha, const void *x, sh_dtype dtype, float *y, int64_t n)
{
    vf a = vec_set(alpha);
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        vec_store(y, i, a * vec_load(x, i, dtype) + vec_load(y, i, SH_F32), SH_F32);
    if (i < n)
        vec_store_part(y, i, n - i,
                       a * vec_load_part(x, i, n - i, dtype) + vec_load_part(y, i, n - i, SH_F32),
                       SH_F32);
}

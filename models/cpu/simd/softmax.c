// SPDX-License-Identifier: Apache-2.0
/* Softmax over the keys of attention. Scores are tiles [key blocks][queries][16]: a query's are
 * spread over the blocks, so a few queries go through all of them at a time. Vectors of a query are
 * counted through its blocks: vector v begins at key v * LANES. */
#include "models/cpu/simd/math.h"
#include "models/cpu/simd/parts.h"

enum { QUERIES = 4 };

SH_INLINE int64_t vectors_of(int64_t n_keys)
{
    return (n_keys + BLOCK - 1) / BLOCK * PARTS;
}

/** Where vector v of query q stands. */
SH_INLINE int64_t vector_at(int64_t v, int64_t q, int64_t queries)
{
    return (v / PARTS * queries + q) * BLOCK + v % PARTS * LANES;
}

/** Lanes of vector v that hold keys. */
SH_INLINE vi lanes_of(int64_t v, int64_t n_keys)
{
    int32_t lane[LANES];
    vi mask;

    for (int i = 0; i < LANES; i++) lane[i] = v * LANES + i < n_keys ? -1 : 0;
    memcpy(&mask, lane, sizeof(mask));
    return mask;
}

SH_INLINE float vec_largest(vf a)
{
    float x[LANES];

    memcpy(x, &a, sizeof(x));
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++) x[i] = x[i] > x[i + w] ? x[i] : x[i + w];
    return x[0];
}

/* exp of what is not positive, down to 0. */
SH_INLINE vf vec_exp_below(vf x)
{
    return vec_exp(vec_max(vec_set(-87), x));
}

SH_INLINE void forward(const float *s, int64_t q, int64_t queries, int64_t n_keys, float scale,
                       void *p, float *inverse, float *lse, const int N, const sh_dtype dtype)
{
    int64_t n = vectors_of(n_keys), full = n_keys / LANES;
    vf top[QUERIES], sum[QUERIES];

    for (int i = 0; i < N; i++) top[i] = vec_set(-__builtin_inff()), sum[i] = (vf){0};
    for (int64_t v = 0; v < n; v++) {
        SH_UNROLL
        for (int i = 0; i < N; i++) {
            vf e = vec_load(s, vector_at(v, q + i, queries), SH_F32);
            if (v >= full) e = vec_choose(lanes_of(v, n_keys), e, vec_set(-__builtin_inff()));
            top[i] = vec_max(top[i], e);
        }
    }
    for (int i = 0; i < N; i++) top[i] = vec_set(vec_largest(top[i]));
    for (int64_t v = 0; v < n; v++) {
        SH_UNROLL
        for (int i = 0; i < N; i++) {
            int64_t at = vector_at(v, q + i, queries);
            vf e = vec_exp_below((vec_load(s, at, SH_F32) - top[i]) * vec_set(scale));
            if (v >= full) e = vec_keep(lanes_of(v, n_keys), e);
            vec_store(p, at, e, dtype);
            sum[i] += e;
        }
    }
    for (int i = 0; i < N; i++) {
        float total = vec_sum(sum[i]);
        float ln[LANES];
        vec_store(ln, 0, vec_log(vec_set(total)), SH_F32);
        inverse[q + i] = 1 / total;
        lse[q + i] = top[i][0] * scale + ln[0];
    }
}

SH_INLINE void softmax(const float *s, int64_t queries, int64_t n_keys, float scale, void *p,
                       float *inverse, float *lse, const sh_dtype dtype)
{
    int64_t q = 0;

    for (; q + QUERIES <= queries; q += QUERIES)
        forward(s, q, queries, n_keys, scale, p, inverse, lse, QUERIES, dtype);
    for (; q < queries; q++) forward(s, q, queries, n_keys, scale, p, inverse, lse, 1, dtype);
}

void SH_SIMD(softmax)(const float *s, int64_t queries, int64_t n_keys, float scale, void *p,
                      sh_dtype dtype, float *inverse, float *lse)
{
    if (dtype == SH_BF16)
        softmax(s, queries, n_keys, scale, p, inverse, lse, SH_BF16);
    else
        softmax(s, queries, n_keys, scale, p, inverse, lse, SH_F32);
}

SH_INLINE void softmax_grad(const float *s, const float *dp, int64_t queries, int64_t n_keys,
                            float scale, const float *lse, const float *dots, void *p, void *ds,
                            const sh_dtype dtype)
{
    for (int64_t v = 0; v < vectors_of(n_keys); v++) {
        vi mask = lanes_of(v, n_keys);
        for (int64_t q = 0; q < queries; q++) {
            int64_t at = vector_at(v, q, queries);
            vf e = vec_exp_below(vec_load(s, at, SH_F32) * vec_set(scale) - vec_set(lse[q]));
            e = vec_keep(mask, e);
            vf d = e * (vec_load(dp, at, SH_F32) - vec_set(dots[q])) * vec_set(scale);
            vec_store(p, at, e, dtype);
            vec_store(ds, at, d, dtype);
        }
    }
}

void SH_SIMD(softmax_grad)(const float *s, const float *dp, int64_t queries, int64_t n_keys,
                           float scale, const float *lse, const float *dots, void *p, void *ds,
                           sh_dtype dtype)
{
    if (dtype == SH_BF16)
        softmax_grad(s, dp, queries, n_keys, scale, lse, dots, p, ds, SH_BF16);
    else
        softmax_grad(s, dp, queries, n_keys, scale, lse, dots, p, ds, SH_F32);
}

void SH_SIMD(scale_pixels)(const float *c, const float *factor, void *y, int64_t pixels,
                           sh_dtype dtype)
{
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = p * BLOCK; i < (p + 1) * BLOCK; i += LANES)
            vec_store(y, i, vec_load(c, i, SH_F32) * vec_set(factor[p]), dtype);
}

void SH_SIMD(pixel_dots)(const void *a, const void *b, int64_t n_blocks, int64_t block_stride,
                         int64_t pixels, sh_dtype dtype, float *dots)
{
    for (int64_t p = 0; p < pixels; p++) {
        vf sum = {0};
        for (int64_t v = 0; v < n_blocks * PARTS; v++) {
            int64_t at = v / PARTS * block_stride + p * BLOCK + v % PARTS * LANES;
            sum += vec_load(a, at, dtype) * vec_load(b, at, dtype);
        }
        dots[p] = vec_sum(sum);
    }
}

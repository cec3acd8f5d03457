// SPDX-License-Identifier: Apache-2.0
/* Layer norm: a few pixels at a time go through all blocks of channels while they are in the first
 * cache. Two passes for the moments, like the reference, so that squares do not cancel. */
#include "models/cpu/simd/parts.h"

enum { TOKENS = 8 };

/* Vectors of a pixel are counted through its blocks: vector v begins at channel v * LANES. */

/** Where vector v of pixel p stands. */
SH_INLINE int64_t vector_at(const sh_cpu_layer_norm *ln, int64_t v, int64_t p)
{
    return (v / PARTS * ln->pixels + p) * BLOCK + v % PARTS * LANES;
}

/** Set where the last block has channels. */
SH_INLINE void last_lanes(const sh_cpu_layer_norm *ln, vi *parts)
{
    int32_t lane[BLOCK];

    for (int i = 0; i < BLOCK; i++)
        lane[i] = (ln->n_blocks - 1) * BLOCK + i < ln->n_channels ? -1 : 0;
    memcpy(parts, lane, sizeof(lane));
}

/** Set where vector v has channels. */
SH_INLINE vi lanes_of(const sh_cpu_layer_norm *ln, const vi *last, int64_t v)
{
    return v / PARTS + 1 == ln->n_blocks ? last[v % PARTS] : ~(vi){0};
}

/** Mean and 1 / standard deviation of N pixels. */
SH_INLINE void moments_of(const sh_cpu_layer_norm *ln, const void *x, int64_t p, float *mean,
                          float *rstd, const int N, const sh_dtype dtype)
{
    vf sum[TOKENS] = {{0}}, square[TOKENS] = {{0}};
    float n = (float)ln->n_channels;
    vi last[PARTS];

    last_lanes(ln, last);
    for (int64_t v = 0; v < ln->n_blocks * PARTS; v++) {
        int64_t at = vector_at(ln, v, p);
        SH_UNROLL
        for (int i = 0; i < N; i++) sum[i] += vec_load(x, at + i * BLOCK, dtype);
    }
    for (int i = 0; i < N; i++) mean[i] = vec_sum(sum[i]) / n;
    for (int64_t v = 0; v < ln->n_blocks * PARTS; v++) {
        vi mask = lanes_of(ln, last, v);
        int64_t at = vector_at(ln, v, p);
        SH_UNROLL
        for (int i = 0; i < N; i++) {
            vf d = vec_load(x, at + i * BLOCK, dtype) - vec_set(mean[i]);
            square[i] += vec_keep(mask, d * d);
        }
    }
    for (int i = 0; i < N; i++) rstd[i] = 1 / __builtin_sqrtf(vec_sum(square[i]) / n + ln->eps);
}

SH_INLINE void forward_tile(const sh_cpu_layer_norm *ln, const void *x, const float *gamma,
                            const float *beta, void *y, int64_t p, const int N,
                            const sh_dtype dtype)
{
    float mean[TOKENS], rstd[TOKENS];

    moments_of(ln, x, p, mean, rstd, N, dtype);
    for (int64_t v = 0; v < ln->n_blocks * PARTS; v++) {
        vf g = vec_load(gamma, v * LANES, SH_F32), shift = vec_load(beta, v * LANES, SH_F32);
        SH_UNROLL
        for (int i = 0; i < N; i++) {
            int64_t at = vector_at(ln, v, p + i);
            vf xhat = (vec_load(x, at, dtype) - vec_set(mean[i])) * vec_set(rstd[i]);
            vec_store(y, at, xhat * g + shift, dtype);
        }
    }
}

SH_INLINE void forward(const sh_cpu_layer_norm *ln, const void *x, const float *gamma,
                       const float *beta, void *y, int64_t begin, int64_t end, const sh_dtype dtype)
{
    for (; begin + TOKENS <= end; begin += TOKENS)
        forward_tile(ln, x, gamma, beta, y, begin, TOKENS, dtype);
    for (; begin < end; begin++) forward_tile(ln, x, gamma, beta, y, begin, 1, dtype);
}

void SH_SIMD(layer_norm)(const sh_cpu_layer_norm *ln, const void *x, const float *gamma,
                         const float *beta, void *y, int64_t begin, int64_t end)
{
    if (ln->dtype == SH_BF16)
        forward(ln, x, gamma, beta, y, begin, end, SH_BF16);
    else
        forward(ln, x, gamma, beta, y, begin, end, SH_F32);
}

SH_INLINE void backward_tile(const sh_cpu_layer_norm *ln, const void *dy, const void *x,
                             const float *gamma, void *dx, float *dgamma, float *dbeta, int64_t p,
                             const int N, const sh_dtype dtype)
{
    float mean[TOKENS], rstd[TOKENS], mean_g[TOKENS], mean_gx[TOKENS];
    vf sum_g[TOKENS] = {{0}}, sum_gx[TOKENS] = {{0}};
    float n = (float)ln->n_channels;
    vi last[PARTS];

    last_lanes(ln, last);
    moments_of(ln, x, p, mean, rstd, N, dtype);
    for (int64_t v = 0; v < ln->n_blocks * PARTS; v++) {
        vf scale = vec_load(gamma, v * LANES, SH_F32);
        vf to_gamma = vec_load(dgamma, v * LANES, SH_F32);
        vf to_beta = vec_load(dbeta, v * LANES, SH_F32);
        SH_UNROLL
        for (int i = 0; i < N; i++) {
            int64_t at = vector_at(ln, v, p + i);
            vf xhat = (vec_load(x, at, dtype) - vec_set(mean[i])) * vec_set(rstd[i]);
            vf d = vec_load(dy, at, dtype), g = d * scale;
            sum_g[i] += g;
            sum_gx[i] += g * xhat;
            to_gamma += d * xhat;
            to_beta += d;
        }
        vec_store(dgamma, v * LANES, to_gamma, SH_F32);
        vec_store(dbeta, v * LANES, to_beta, SH_F32);
    }
    for (int i = 0; i < N; i++) mean_g[i] = vec_sum(sum_g[i]) / n;
    for (int i = 0; i < N; i++) mean_gx[i] = vec_sum(sum_gx[i]) / n;
    for (int64_t v = 0; v < ln->n_blocks * PARTS; v++) {
        vf scale = vec_load(gamma, v * LANES, SH_F32);
        vi mask = lanes_of(ln, last, v);
        SH_UNROLL
        for (int i = 0; i < N; i++) {
            int64_t at = vector_at(ln, v, p + i);
            vf xhat = (vec_load(x, at, dtype) - vec_set(mean[i])) * vec_set(rstd[i]);
            vf g = vec_load(dy, at, dtype) * scale;
            g = vec_set(rstd[i]) * (g - vec_set(mean_g[i]) - xhat * vec_set(mean_gx[i]));
            vec_store(dx, at, vec_keep(mask, g), dtype);
        }
    }
}

SH_INLINE void backward(const sh_cpu_layer_norm *ln, const void *dy, const void *x,
                        const float *gamma, void *dx, float *dgamma, float *dbeta,
                        const sh_dtype dtype)
{
    int64_t p = 0;

    for (; p + TOKENS <= ln->pixels; p += TOKENS)
        backward_tile(ln, dy, x, gamma, dx, dgamma, dbeta, p, TOKENS, dtype);
    for (; p < ln->pixels; p++) backward_tile(ln, dy, x, gamma, dx, dgamma, dbeta, p, 1, dtype);
}

void SH_SIMD(layer_norm_grad)(const sh_cpu_layer_norm *ln, const void *dy, const void *x,
                              const float *gamma, void *dx, float *dgamma, float *dbeta)
{
    if (ln->dtype == SH_BF16)
        backward(ln, dy, x, gamma, dx, dgamma, dbeta, SH_BF16);
    else
        backward(ln, dy, x, gamma, dx, dgamma, dbeta, SH_F32);
}

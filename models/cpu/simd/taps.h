// SPDX-License-Identifier: Apache-2.0
/* Rows of a depthwise convolution's outputs: sums over K x K taps, and how they end. */
#ifndef SH_MODELS_CPU_SIMD_TAPS_H
#define SH_MODELS_CPU_SIMD_TAPS_H

#include "models/cpu/simd/rows.h"

/* Where a row of outputs goes: plainly, finished by bias and a clamp or SiLU, with moments, or as a
 * summed gradient, led back through a clamp or by slopes that are known. */
typedef enum ending { PLAIN, FINISH, SILU_FINISH, MOMENTS, GRADIENT, SLOPE_GRADIENT } ending;

typedef struct row_end {
    void *y;
    const void *x;       /* gradients */
    const float *slopes; /* SLOPE_GRADIENT */
    clamp k[PARTS];      /* FINISH: shift is the bias */
    vf shift[PARTS];     /* MOMENTS */
    vf sum[PARTS], square[PARTS];
} row_end;

/* The sum over K x K taps of one part of pixel ox, in K strands. */
SH_INLINE vf taps(const float *const *rows, const float *weights, const vf *held, int64_t ox,
                  const int K, const int64_t stride, const int64_t dilation)
{
    vf a[5];

    SH_UNROLL
    for (int i = 0; i < K; i++) {
        const float *r = rows[i] + ox * stride * BLOCK;
        SH_UNROLL
        for (int j = 0; j < K; j++) {
            vf w = held ? held[i * K + j] : vec_load(weights, (i * K + j) * BLOCK, SH_F32);
            vf v = vec_load(r, j * dilation * BLOCK, SH_F32);
            a[i] = j == 0 ? v * w : a[i] + v * w;
        }
    }
    vf sum = a[0] + (a[1] + a[2]);
    return K == 5 ? sum + (a[3] + a[4]) : sum;
}

/* A result, at element `at` of the row. */
SH_INLINE void end_vector(vf sum, int64_t at, const row_end *e, const int part, vf *s, vf *q,
                          const ending end, const bool stream, const sh_dtype dtype)
{
    const clamp *k = &e->k[part];

    if (end == GRADIENT)
        vec_put_through(sum, at, e->x, e->y, stream, k, s, q, false, dtype);
    else if (end == SLOPE_GRADIENT)
        vec_put_grad(sum * vec_load(e->slopes, at, SH_F32), vec_load(e->x, at, dtype), at, e->y,
                     stream, k, s, q, dtype);
    else if (end == MOMENTS)
        vec_put_summed(sum, at, e->y, stream, e->shift[part], s, q, dtype);
    else if (end == FINISH || end == SILU_FINISH)
        vec_put(finished(sum + k->shift, k->lo, k->hi, end == SILU_FINISH), at, e->y, stream,
                dtype);
    else
        vec_put(sum, at, e->y, stream, dtype);
}

/* One row of outputs, from registers. */
SH_INLINE void forward_row(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                           const int K, const int64_t stride, const int64_t dilation,
                           const ending end, const bool stream, const sh_dtype dtype)
{
    vf w[25], s = {0}, q = {0};

    SH_UNROLL
    for (int i = 0; i < K * K; i++) w[i] = vec_load(weights, i * BLOCK, SH_F32);
    for (int64_t ox = 0; ox < ow; ox++)
        end_vector(taps(rows, weights, w, ox, K, stride, dilation), ox * BLOCK, e, 0, &s, &q, end,
                   stream, dtype);
    e->sum[0] += s;
    e->square[0] += q;
}

/* Where registers hold half a pixel, and nine weights at most, sums of a run of pixels come by way
 * of the first-level cache: part by part, then ended pixel by pixel. */
enum { RUN = 16 };

SH_INLINE void sum_run_of(const float *const *rows, const float *weights, int64_t ox, int64_t n,
                          float *sums, const int K, const int64_t stride, const int64_t dilation)
{
    for (int skip = 0; skip < BLOCK; skip += LANES) {
        const float *from[5];
        vf w[9];
        for (int i = 0; i < K; i++) from[i] = rows[i] + ox * stride * BLOCK + skip;
        SH_UNROLL
        for (int i = 0; K == 3 && i < 9; i++) w[i] = vec_load(weights, i * BLOCK + skip, SH_F32);
        for (int64_t p = 0; p < n; p++) {
            vf sum = taps(from, weights + skip, K == 3 ? w : NULL, p, K, stride, dilation);
            vec_store(sums, p * BLOCK + skip, sum, SH_F32);
        }
    }
}

static __attribute__((noinline)) void sum_run(const float *const *rows, const float *weights,
                                              int64_t ox, int64_t n, float *sums, int side,
                                              int64_t stride, int64_t dilation)
{
    if (side == 3 && stride == 1 && dilation == 1)
        sum_run_of(rows, weights, ox, n, sums, 3, 1, 1);
    else if (side == 3)
        sum_run_of(rows, weights, ox, n, sums, 3, stride, dilation);
    else
        sum_run_of(rows, weights, ox, n, sums, 5, stride, dilation);
}

/* One row of outputs, from runs. */
SH_INLINE void forward_runs(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                            int side, int64_t stride, int64_t dilation, const ending end,
                            const bool stream, const sh_dtype dtype)
{
    vf s[PARTS] = {{0}}, q[PARTS] = {{0}};

    for (int64_t ox = 0; ox < ow; ox += RUN) {
        int64_t n = ow - ox < RUN ? ow - ox : RUN;
        float sums[RUN * BLOCK];
        sum_run(rows, weights, ox, n, sums, side, stride, dilation);
        for (int64_t i = 0; i < n * BLOCK; i += BLOCK) {
            SH_UNROLL
            for (int k = 0; k < PARTS; k++)
                end_vector(vec_load(sums, i + k * LANES, SH_F32), ox * BLOCK + i + k * LANES, e, k,
                           &s[k], &q[k], end, stream, dtype);
        }
    }
    SH_UNROLL
    for (int k = 0; k < PARTS; k++) e->sum[k] += s[k], e->square[k] += q[k];
}

SH_INLINE void forward_any(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                           const int K, int64_t stride, int64_t dilation, const ending end,
                           const bool stream, const sh_dtype dtype)
{
    if (PARTS > 1)
        forward_runs(rows, weights, e, ow, K, stride, dilation, end, stream, dtype);
    else if (stride == 1 && dilation == 1)
        forward_row(rows, weights, e, ow, K, 1, 1, end, stream, dtype);
    else
        forward_row(rows, weights, e, ow, K, stride, dilation, end, stream, dtype);
}

SH_INLINE void forward_end(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                           const int K, int64_t stride, int64_t dilation, ending end, bool stream,
                           const sh_dtype dtype)
{
    if (end == PLAIN)
        forward_any(rows, weights, e, ow, K, stride, dilation, PLAIN, false, dtype);
    else if (end == FINISH && stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, FINISH, true, dtype);
    else if (end == FINISH)
        forward_any(rows, weights, e, ow, K, stride, dilation, FINISH, false, dtype);
    else if (end == SILU_FINISH && stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, SILU_FINISH, true, dtype);
    else if (end == SILU_FINISH)
        forward_any(rows, weights, e, ow, K, stride, dilation, SILU_FINISH, false, dtype);
    else if (end == MOMENTS && stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, MOMENTS, true, dtype);
    else if (end == MOMENTS)
        forward_any(rows, weights, e, ow, K, stride, dilation, MOMENTS, false, dtype);
    else if (end == SLOPE_GRADIENT && stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, SLOPE_GRADIENT, true, dtype);
    else if (end == SLOPE_GRADIENT)
        forward_any(rows, weights, e, ow, K, stride, dilation, SLOPE_GRADIENT, false, dtype);
    else if (stream)
        forward_any(rows, weights, e, ow, K, stride, dilation, GRADIENT, true, dtype);
    else
        forward_any(rows, weights, e, ow, K, stride, dilation, GRADIENT, false, dtype);
}

/* The same, once for all kernels, since only runs depend on them. */
static __attribute__((noinline)) void forward_any_end(const float *const *rows,
                                                      const float *weights, row_end *e, int64_t ow,
                                                      int side, int64_t stride, int64_t dilation,
                                                      ending end, bool stream, sh_dtype dtype)
{
    if (dtype == SH_BF16)
        forward_end(rows, weights, e, ow, side, stride, dilation, end, stream, SH_BF16);
    else
        forward_end(rows, weights, e, ow, side, stride, dilation, end, stream, SH_F32);
}

SH_INLINE void forward(const float *const *rows, const float *weights, row_end *e, int64_t ow,
                       const int K, int64_t stride, int64_t dilation, ending end, bool stream,
                       const sh_dtype dtype)
{
    if (PARTS > 1)
        forward_any_end(rows, weights, e, ow, K, stride, dilation, end, stream, dtype);
    else
        forward_end(rows, weights, e, ow, K, stride, dilation, end, stream, dtype);
}

#endif

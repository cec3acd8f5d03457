// SPDX-License-Identifier: Apache-2.0
/** Sums over the rows of a map, one per channel: pieces first, then the pieces in fixed order. */
#ifndef SH_MODELS_CUDA_REDUCE_H
#define SH_MODELS_CUDA_REDUCE_H

#include "models/cuda/device.h"

enum { SH_FINISH_LANES = 32, SH_FINISH_DEPTH = SH_BLOCK / SH_FINISH_LANES, SH_MAX_SUMS = 3 };

/** Where the sums go: float [C] each; NULL: not wanted. A table [n_rows][columns] of sums, C in
 *  all, may be written transposed. */
struct sums_out {
    float *at[SH_MAX_SUMS];
    int64_t n_rows; /* 0: as they come */
};

__device__ static inline int64_t sum_place(const sums_out &out, int64_t C, int64_t i)
{
    if (out.n_rows == 0) return i;
    const int64_t columns = C / out.n_rows;
    return i % columns * out.n_rows + i / columns;
}

static inline dim3 finish_grid(int64_t C)
{
    return dim3((unsigned)((C + SH_FINISH_LANES - 1) / SH_FINISH_LANES));
}

/** partial: [pieces][n][C]. Added in f64: they are few. */
template <int n>
__global__ void finish_sums(const float *partial, int pieces, int64_t C, sums_out out)
{
    SH_SHARED(double, shared); /* [SH_FINISH_DEPTH][SH_FINISH_LANES] */
    const int64_t c = (int64_t)blockIdx.x * SH_FINISH_LANES + threadIdx.x;
    const unsigned at = threadIdx.y * SH_FINISH_LANES + threadIdx.x;

    for (int k = 0; k < n; k++) {
        double sum = 0;
        for (int p = (int)threadIdx.y; p < pieces && c < C; p += SH_FINISH_DEPTH)
            sum += partial[((int64_t)p * n + k) * C + c];
        shared[at] = sum;
        __syncthreads();
        if (threadIdx.y == 0 && c < C && out.at[k] != nullptr) {
            for (unsigned d = 1; d < SH_FINISH_DEPTH; d++)
                sum += shared[d * SH_FINISH_LANES + threadIdx.x];
            out.at[k][sum_place(out, C, c)] = (float)sum;
        }
        __syncthreads();
    }
}

/** The block's n sums of each channel, [n][V] in every thread, as its piece of partial. */
template <int n, int V>
__device__ static inline void put_piece(float *shared, float *sums, int64_t C, int64_t c0,
                                        float *partial)
{
    sum_depth<n * V>(shared, sums);
    if (threadIdx.y > 0 || c0 >= C) return;
    for (int i = 0; i < n * V; i++) partial[(n * blockIdx.y + i / V) * C + c0 + i % V] = sums[i];
}

template <int n>
static inline void launch_finish_sums(const float *partial, unsigned pieces, int64_t C,
                                      sums_out out)
{
    SH_LAUNCH(finish_sums<n>, finish_grid(C), dim3(SH_FINISH_LANES, SH_FINISH_DEPTH),
              SH_BLOCK * sizeof(double), partial, (int)pieces, C, out);
}

/** Sums over rows of x. */
template <typename T, int V>
__global__ void __launch_bounds__(SH_BLOCK) column_sums(const T *x, tiling t, float *partial)
{
    SH_SHARED(float, shared); /* [V][SH_BLOCK] */
    const int64_t c0 = first_channel<V>();
    float sums[V] = {};

    for (int64_t row = first_row(); row < t.rows && c0 < t.C; row += row_step()) {
        float v[V];
        load<V>(x + row * t.C + c0, v);
#pragma unroll
        for (int i = 0; i < V; i++) sums[i] += v[i];
    }
    put_piece<1, V>(shared, sums, t.C, c0, partial);
}

/** sums[C] of x[rows][C]; scratch: column_sums_bytes(rows, C). */
struct launch_column_sums {
    const void *x;
    int64_t rows, C;
    void *scratch;
    float *sums;

    template <typename T, int V> void run() const
    {
        const tiling t = tiling_of<V>(rows, C);
        float *partial = static_cast<float *>(scratch);

        SH_LAUNCH((column_sums<T, V>), t.grid(), t.block(), V * SH_BLOCK * sizeof(float),
                  static_cast<const T *>(x), t, partial);
        launch_finish_sums<1>(partial, t.pieces, C, sums_out{{sums, nullptr, nullptr}, 0});
    }
};

static inline size_t column_sums_bytes(int64_t rows, int64_t C)
{
    const tiling t = C % 8 == 0 ? tiling_of<8>(rows, C) : tiling_of<1>(rows, C);

    return t.pieces * (size_t)C * sizeof(float);
}

/** partial: [pieces][C]; mean and biased variance [C]. */
template <int unused> /* a template, so that files without statistics do without it */
__global__ void finish_moments(const moments *partial, int pieces, int64_t C, float *mean,
                               float *var)
{
    SH_SHARED(double, shared); /* [3][SH_FINISH_DEPTH][SH_FINISH_LANES]: n, mean, m2 */
    const int64_t c = (int64_t)blockIdx.x * SH_FINISH_LANES + threadIdx.x;
    const unsigned at = threadIdx.y * SH_FINISH_LANES + threadIdx.x;
    double n = 0, mu = 0, m2 = 0;

    for (int p = (int)threadIdx.y; p < pieces && c < C; p += SH_FINISH_DEPTH) {
        const moments b = partial[(int64_t)p * C + c];
        if (!(b.n > 0)) continue;
        double d = b.mean - mu;
        m2 += b.m2 + d * d * n * b.n / (n + b.n);
        mu += d * b.n / (n + b.n);
        n += b.n;
    }
    shared[at] = n;
    shared[SH_BLOCK + at] = mu;
    shared[2 * SH_BLOCK + at] = m2;
    __syncthreads();
    if (threadIdx.y > 0 || c >= C) return;
    for (unsigned k = 1; k < SH_FINISH_DEPTH; k++) {
        const double *other = shared + k * SH_FINISH_LANES + threadIdx.x;
        if (!(other[0] > 0)) continue;
        double d = other[SH_BLOCK] - mu, both = n + other[0];
        m2 += other[2 * SH_BLOCK] + d * d * n * other[0] / both;
        mu += d * other[0] / both;
        n = both;
    }
    mean[c] = (float)mu;
    var[c] = (float)(m2 / n);
}

static inline void launch_finish_moments(const moments *partial, unsigned pieces, int64_t C,
                                         float *mean, float *var)
{
    SH_LAUNCH(finish_moments<0>, finish_grid(C), dim3(SH_FINISH_LANES, SH_FINISH_DEPTH),
              3 * SH_BLOCK * sizeof(double), partial, (int)pieces, C, mean, var);
}

#endif

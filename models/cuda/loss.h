// SPDX-License-Identifier: Apache-2.0
/** What the kernels of losses share: where things lie in their scratch, sums over rows, functions
 * of one number. */
#ifndef SH_MODELS_CUDA_LOSS_H
#define SH_MODELS_CUDA_LOSS_H

#include <math.h>

#include "models/cuda/device.h"
#include "models/cuda/losses.h"

enum {
    SH_MINE_TILE = 64,   /* rows, and columns, of a tile of distances */
    SH_MINE_PIECES = 16, /* at most so many runs of tiles share a row's columns */
    SH_SUM_ROWS = 64,    /* rows of one partial sum for the mean */
    SH_SORT_TILE = 2048, /* slots that one block sorts */
    WARP = 32,
    WARPS = SH_BLOCK / WARP,
    ROW_THREADS = 128, /* of a row's gradient: neighbouring dimensions */
};

static inline int64_t pieces_of(int64_t n_items, int64_t each)
{
    return (n_items + each - 1) / each;
}

/** Deals out a scratch; without one, counts its bytes. */
struct carver {
    char *base;
    size_t n_bytes;

    template <typename T> T *take(int64_t n)
    {
        T *at = base != nullptr ? reinterpret_cast<T *>(base + n_bytes) : nullptr;

        n_bytes += ((size_t)n * sizeof(T) + 63) / 64 * 64;
        return at;
    }
};

/** What Scratch.carve(carver, config, n, dim, max_others) takes of a batch's scratch. */
template <class Scratch> static inline Scratch scratch_of(const sh_device_batch *batch)
{
    carver c = {static_cast<char *>(batch->scratch), 0};
    Scratch s;

    s.carve(&c, batch->config, batch->n, batch->dim, batch->max_others);
    return s;
}

/** sh_loss_kernels.scratch_bytes of that. */
template <class Scratch>
static inline size_t scratch_bytes_of(const sh_loss_config *config, int64_t n, int64_t dim, int64_t,
                                      int64_t max_others)
{
    carver c = {nullptr, 0};
    Scratch s;

    s.carve(&c, config, n, dim, max_others);
    return c.n_bytes;
}

/** Rows of length 1, with cosine only; choose and apply both make them. */
struct unit_scratch {
    float *rows;         /* [n, dim] */
    float *inverse_norm; /* [n] */
};

static inline unit_scratch take_unit(carver *c, const sh_loss_config *config, int64_t n,
                                     int64_t dim)
{
    const int64_t n_rows = config->distance == SH_COSINE ? n : 0;
    float *rows = c->take<float>(n_rows * dim);

    return unit_scratch{rows, c->take<float>(n_rows)};
}

/** Rows of length 1, as F.normalize has them; returns what distances are between. */
const float *sh_cuda_rows(const unit_scratch &unit, const sh_device_batch *batch);

/* ---- what rows add up to: loss.cu ---- */

/** What each row contributes, [n] each, and by what gradients are multiplied. */
struct row_sums {
    double *loss;
    int32_t *pairs;    /* its positives */
    int32_t *triplets; /* formed, or pairs taken */
    int32_t *active;
    double *scale; /* [1] of all rows; NaN where an embedding is not finite */
};

static inline row_sums take_row_sums(carver *c, int64_t n)
{
    row_sums r;

    r.loss = c->take<double>(n);
    r.pairs = c->take<int32_t>(n);
    r.triplets = c->take<int32_t>(n);
    r.active = c->take<int32_t>(n);
    r.scale = c->take<double>(1);
    return r;
}

/** What a loss is divided by. */
enum divisor { OVER_PAIRS, OVER_ROWS, OVER_TRIPLETS, OVER_ACTIVE, OVER_ONE };

static inline divisor divisor_of(sh_reduction reduction)
{
    return reduction == SH_SUM ? OVER_ONE : reduction == SH_MEAN ? OVER_TRIPLETS : OVER_ACTIVE;
}

/** The sums of all rows, the loss in the order of base/tree.h; r.loss is used up, r.scale is made.
 */
void sh_cuda_sum_rows(const row_sums &r, int64_t n, divisor over, sh_loss_stats *stats);

/** From sums of terms w (x_i - x_j) to the gradient of the embeddings of these rows: times the
 *  scale, and back from rows of length 1. */
void sh_cuda_finish_gradient(const sh_device_batch *batch, const unit_scratch &unit,
                             int64_t row_begin, int64_t n_rows, const double *scale, float *grad);

/** Its last step alone: back from rows of length 1, if there are such. */
void sh_cuda_unit_gradient(const sh_device_batch *batch, const unit_scratch &unit,
                           int64_t row_begin, int64_t n_rows, float *grad);

/** 0 where the row is finite, NaN where it is not; in all lanes of the warp that calls it. */
__device__ static inline float row_fault(const float *x, int64_t row, int64_t n, int64_t dim)
{
    float bad = 0; /* x - x is NaN for NaN and infinities */

    for (int64_t k = threadIdx.x % WARP; k < dim && row < n; k += WARP)
        bad += x[row * dim + k] - x[row * dim + k];
    return warp_sum(bad);
}

/** Sums of n counts over a block's threads, in all of them. shared: [n][SH_BLOCK]. */
template <int n> __device__ static inline void sum_counts(int64_t *shared, int64_t *counts)
{
    const unsigned at = threadIdx.x;

    for (int i = 0; i < n; i++) shared[i * SH_BLOCK + at] = counts[i];
    for (unsigned half = SH_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int i = 0; i < n && at < half; i++)
            shared[i * SH_BLOCK + at] += shared[i * SH_BLOCK + at + half];
    }
    __syncthreads();
    for (int i = 0; i < n; i++) counts[i] = shared[i * SH_BLOCK];
}

/** terms [n], in memory, become partial sums, the first of them that of all: by the tree of
 *  base/tree.h, neighbours first, then neighbouring pairs; what has none is carried up. The threads
 *  of one block call it, after a barrier; the first thread has the result. */
__device__ static inline void sum_tree(double *terms, int64_t n)
{
    for (int64_t step = 1; step < n; step *= 2) {
        for (int64_t i = threadIdx.x * 2 * step; i + step < n; i += SH_BLOCK * 2 * step)
            terms[i] += terms[i + step];
        __syncthreads();
    }
}

/* ---- functions of one number: models/loss/internal.h ---- */

__device__ static inline double softplus(double v)
{
    return (v > 0 ? v : 0) + log1p(exp(-fabs(v)));
}

__device__ static inline double logistic(double v)
{
    return v >= 0 ? 1 / (1 + exp(-v)) : exp(v) / (1 + exp(v));
}

/** c in: d distance(x, y) / dx = c (x - y); 0 at Euclidean distance 0. */
__device__ static inline double slope_of(sh_distance distance, double d)
{
    if (distance == SH_EUCLIDEAN) return d == 0 ? 0 : 1 / d;
    return distance == SH_SQUARED ? 2 : 1;
}

/* ---- rows of one label: models/loss/groups.h ---- */

__device__ static inline int64_t others_of(const sh_row_tables &rows, int64_t i)
{
    return rows.end[i] - rows.begin[i] - 1;
}

__device__ static inline int32_t other_of(const sh_row_tables &rows, int64_t i, int64_t slot)
{
    const int64_t at = rows.begin[i] + slot;

    return rows.order[at < rows.place[i] ? at : at + 1];
}

__device__ static inline int64_t slot_of(const sh_row_tables &rows, int64_t i, int64_t j)
{
    return rows.place[j] - rows.begin[i] - (rows.place[j] > rows.place[i]);
}

#endif

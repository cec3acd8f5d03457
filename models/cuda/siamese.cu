// SPDX-License-Identifier: Apache-2.0
/** Contrastive loss over the pairs (2i, 2i + 1): models/loss/pairs.c on a device, where it is
 *  defined. */
#include "models/cuda/loss.h"
#include "models/cuda/memory.h"

static const double pair_epsilon = 1e-6; /* models/loss/pairs.c: PAIR_EPSILON */

struct siamese_scratch {
    unit_scratch unit;
    row_sums sums;
    double *distance, *derivative; /* [n] of the pair that a row begins: d cost / d distance */

    void carve(carver *c, const sh_loss_config *config, int64_t n, int64_t dim, int64_t)
    {
        unit = take_unit(c, config, n, dim);
        sums = take_row_sums(c, n);
        distance = c->take<double>(n);
        derivative = c->take<double>(n);
    }
};

/** A batch as the kernels see it. */
struct pairing {
    const float *x; /* [n, dim] embeddings, or rows of length 1 */
    sh_row_tables rows;
    int64_t n, dim;
    sh_distance distance;
    float margin;
    double epsilon; /* what is added to each difference */

    /** Is this row the first of a pair that counts? */
    __device__ bool begins(int64_t i) const
    {
        return i % 2 == 0 && i + 1 < n &&
               (rows.labels[i] == rows.labels[i + 1] || rows.fish[i] != rows.fish[i + 1]);
    }
};

/** In the host's order: one after another with an epsilon, in SH_LANES lanes without. */
__device__ static inline double pair_distance(const pairing &p, int64_t i)
{
    const float *x = p.x + i * p.dim, *y = x + p.dim;
    double lanes[SH_LANES] = {}, sum = 0;

    if (p.epsilon != 0) {
        for (int64_t k = 0; k < p.dim; k++) {
            const double difference = (double)x[k] - y[k] + p.epsilon;
            sum += difference * difference;
        }
        return sqrt(sum);
    }
    for (int64_t k0 = 0; k0 < p.dim; k0 += SH_LANES)
#pragma unroll
        for (int l = 0; l < SH_LANES; l++) {
            const double difference = k0 + l < p.dim ? x[k0 + l] - y[k0 + l] : 0.0f;
            lanes[l] += difference * difference;
        }
#pragma unroll
    for (int l = 0; l < SH_LANES; l++) sum += lanes[l];
    return (float)(p.distance == SH_SQUARED ? sum : 0.5 * sum);
}

__global__ void __launch_bounds__(SH_BLOCK) cost_siamese(pairing p, siamese_scratch s)
{
    const int64_t i = item_index();

    if (i >= p.n) return;
    s.sums.loss[i] = 0;
    s.sums.pairs[i] = s.sums.triplets[i] = s.sums.active[i] = 0;
    if (!p.begins(i)) return;
    const bool same = p.rows.labels[i] == p.rows.labels[i + 1];
    const double d = pair_distance(p, i), shortfall = p.margin - d;
    const double cost = same ? d * d : shortfall <= 0 ? 0 : shortfall * shortfall;

    s.sums.loss[i] = cost;
    s.sums.pairs[i] = same;
    s.sums.triplets[i] = 1;
    s.sums.active[i] = cost > 0;
    s.derivative[i] = same ? 2 * d : shortfall <= 0 ? 0 : -2 * shortfall;
    s.distance[i] = d;
}

/** A warp per row: is its embedding finite? */
__global__ void __launch_bounds__(SH_BLOCK)
    find_faults(row_sums sums, const float *embeddings, int64_t n, int64_t dim)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    const float fault = row_fault(embeddings, row, n, dim);

    if (threadIdx.x % WARP == 0 && row < n && !(fault == 0)) sums.loss[row] = NAN;
}

/** A thread per number of the gradient. */
__global__ void __launch_bounds__(SH_BLOCK)
    gradient_siamese(pairing p, siamese_scratch s, int64_t row_begin, int64_t n_rows, float *grad)
{
    const int64_t item = item_index(), row = row_begin + item / p.dim, k = item % p.dim;
    const int64_t i = row / 2 * 2;
    const double scale = *s.sums.scale;

    if (item >= n_rows * p.dim) return;
    if (!p.begins(i)) {
        grad[item] = (float)(0 * scale); /* NaN stays */
        return;
    }
    const double weight = scale * s.derivative[i] * slope_of(p.distance, s.distance[i]);
    const double pull = (double)p.x[i * p.dim + k] - p.x[(i + 1) * p.dim + k] + p.epsilon;
    grad[item] = (float)((row == i ? weight : -weight) * pull);
}

static sh_status apply(const sh_device_batch *batch, const void *, int64_t row_begin,
                       int64_t row_end, sh_loss_stats *stats, float *grad)
{
    const sh_loss_config *config = batch->config;
    const int64_t n = batch->n, n_own = row_end - row_begin;
    const siamese_scratch s = scratch_of<siamese_scratch>(batch);
    const pairing p = {sh_cuda_rows(s.unit, batch),
                       batch->rows,
                       n,
                       batch->dim,
                       config->distance,
                       config->margin,
                       config->distance == SH_EUCLIDEAN ? pair_epsilon : 0};

    SH_LAUNCH(cost_siamese, item_grid(n), dim3(SH_BLOCK), 0, p, s);
    SH_LAUNCH(find_faults, dim3((unsigned)pieces_of(n, WARPS)), dim3(SH_BLOCK), 0, s.sums,
              batch->embeddings, n, batch->dim);
    sh_cuda_sum_rows(s.sums, n, OVER_TRIPLETS, stats);
    if (grad != nullptr && n_own > 0) {
        SH_LAUNCH(gradient_siamese, item_grid(n_own * batch->dim), dim3(SH_BLOCK), 0, p, s,
                  row_begin, n_own, grad);
        sh_cuda_unit_gradient(batch, s.unit, row_begin, n_own, grad);
    }
    return sh_cuda_launched("contrastive pairs");
}

const sh_loss_kernels sh_cuda_siamese = {scratch_bytes_of<siamese_scratch>, nullptr, apply};

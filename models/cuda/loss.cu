// SPDX-License-Identifier: Apache-2.0
/** What losses on a device begin and end with: rows of length 1, sums over rows, the last steps of
 * a gradient. */
#include "models/cuda/loss.h"
#include "models/cuda/memory.h"
#include "models/ops.h"

/* ---- rows of length 1 ---- */

__global__ void __launch_bounds__(SH_BLOCK)
    unit_rows(unit_scratch unit, const float *x, int64_t n, int64_t dim)
{
    const int64_t i = item_index();
    double sum = 0;

    if (i >= n) return;
    for (int64_t k = 0; k < dim; k++) sum += (double)x[i * dim + k] * x[i * dim + k];
    const double inverse = 1 / fmax(sqrt(sum), SH_L2_NORM_EPS);
    for (int64_t k = 0; k < dim; k++) unit.rows[i * dim + k] = (float)(x[i * dim + k] * inverse);
    unit.inverse_norm[i] = (float)inverse;
}

const float *sh_cuda_rows(const unit_scratch &unit, const sh_device_batch *batch)
{
    if (batch->config->distance != SH_COSINE) return batch->embeddings;
    SH_LAUNCH(unit_rows, item_grid(batch->n), dim3(SH_BLOCK), 0, unit, batch->embeddings, batch->n,
              batch->dim);
    return unit.rows;
}

/* ---- sums over rows ---- */

/** One block. */
__global__ void __launch_bounds__(SH_BLOCK)
    sum_rows(row_sums r, int64_t n, divisor over, sh_loss_stats *stats)
{
    SH_SHARED(int64_t, shared); /* [3][SH_BLOCK] */
    int64_t counts[3] = {0, 0, 0};

    for (int64_t row = threadIdx.x; row < n; row += SH_BLOCK) {
        counts[0] += r.pairs[row];
        counts[1] += r.triplets[row];
        counts[2] += r.active[row];
    }
    sum_counts<3>(shared, counts);
    sum_tree(r.loss, n);
    if (threadIdx.x > 0) return;
    const int64_t denominator = over == OVER_PAIRS      ? counts[0]
                                : over == OVER_ROWS     ? (counts[0] > 0 ? n : 0)
                                : over == OVER_TRIPLETS ? counts[1]
                                : over == OVER_ACTIVE   ? counts[2]
                                                        : 1;
    double scale = denominator > 0 ? 1.0 / (double)denominator : 0;
    const double loss = r.loss[0] * scale;
    if (loss != loss) scale = NAN;
    *r.scale = scale;
    *stats = sh_loss_stats{loss, counts[0], counts[1], counts[2]};
}

void sh_cuda_sum_rows(const row_sums &r, int64_t n, divisor over, sh_loss_stats *stats)
{
    SH_LAUNCH(sum_rows, dim3(1), dim3(SH_BLOCK), 3 * SH_BLOCK * sizeof(int64_t), r, n, over, stats);
}

/* ---- the end of a gradient ---- */

__global__ void __launch_bounds__(SH_BLOCK)
    scale_gradient(float *grad, int64_t n, const double *scale)
{
    const int64_t i = item_index();

    if (i < n) grad[i] = (float)(grad[i] * *scale);
}

/** The gradient of a row of length 1 becomes that of its embedding. */
__global__ void __launch_bounds__(SH_BLOCK)
    unit_gradients(unit_scratch unit, int64_t row_begin, int64_t n_rows, int64_t dim, float *all)
{
    const int64_t i = item_index();
    double along = 0;

    if (i >= n_rows) return;
    const float *u = unit.rows + (row_begin + i) * dim;
    float *grad = all + i * dim;
    for (int64_t k = 0; k < dim; k++) along += (double)grad[k] * u[k];
    for (int64_t k = 0; k < dim; k++)
        grad[k] = (float)((grad[k] - along * u[k]) * unit.inverse_norm[row_begin + i]);
}

void sh_cuda_unit_gradient(const sh_device_batch *batch, const unit_scratch &unit,
                           int64_t row_begin, int64_t n_rows, float *grad)
{
    if (batch->config->distance == SH_COSINE)
        SH_LAUNCH(unit_gradients, item_grid(n_rows), dim3(SH_BLOCK), 0, unit, row_begin, n_rows,
                  batch->dim, grad);
}

void sh_cuda_finish_gradient(const sh_device_batch *batch, const unit_scratch &unit,
                             int64_t row_begin, int64_t n_rows, const double *scale, float *grad)
{
    const int64_t n = n_rows * batch->dim;

    SH_LAUNCH(scale_gradient, item_grid(n), dim3(SH_BLOCK), 0, grad, n, scale);
    sh_cuda_unit_gradient(batch, unit, row_begin, n_rows, grad);
}

// SPDX-License-Identifier: Apache-2.0
/** Rows centred on the mean of the batch and packed for tiles of distances (tiles.h). */
#include "models/cuda/memory.h"
#include "models/cuda/tiles.h"

tile_scratch sh_cuda_take_tiles(carver *c, const sh_loss_config *config, int64_t n, int64_t dim,
                                int64_t lists)
{
    const int64_t padded = pieces_of(n, TILE) * TILE;
    tile_scratch s;

    s.unit = take_unit(c, config, n, dim);
    s.partial = c->take<double>(pieces_of(n, SH_SUM_ROWS) * dim);
    s.mean = c->take<float>(dim);
    s.packed = c->take<float>(dim * padded);
    s.norms = c->take<float>(padded);
    s.positives = c->take<float>(lists * n);
    return s;
}

/** partial [pieces, dim]: sums over SH_SUM_ROWS rows. */
__global__ void __launch_bounds__(SH_BLOCK)
    partial_means(double *partial, const float *x, int64_t n, int64_t dim)
{
    const int64_t item = item_index(), k = item % dim, first = item / dim * SH_SUM_ROWS;
    double sum = 0;

    if (first >= n) return;
    for (int64_t i = first; i < n && i < first + SH_SUM_ROWS; i++) sum += x[i * dim + k];
    partial[item] = sum;
}

__global__ void __launch_bounds__(SH_BLOCK)
    finish_means(float *mean, const double *partial, int64_t n_pieces, int64_t n, int64_t dim)
{
    const int64_t k = item_index();
    double sum = 0;

    if (k >= dim) return;
    for (int64_t piece = 0; piece < n_pieces; piece++) sum += partial[piece * dim + k];
    mean[k] = (float)(sum / (double)n);
}

__global__ void __launch_bounds__(SH_BLOCK)
    pack_rows(float *packed, float *norms, const float *x, const float *mean, int64_t n,
              int64_t padded, int64_t dim)
{
    const int64_t i = item_index();
    float norm = 0;

    if (i >= padded) return;
    for (int64_t k = 0; k < dim; k++) {
        const float centred = i < n ? x[i * dim + k] - mean[k] : 0;

        packed[k * padded + i] = centred;
        norm = fmaf(centred, centred, norm);
    }
    norms[i] = i < n ? norm : NAN;
}

packed_rows sh_cuda_pack(const tile_scratch &s, const sh_device_batch *batch, const float *x)
{
    const int64_t n = batch->n, dim = batch->dim, padded = pieces_of(n, TILE) * TILE;
    const int64_t n_sums = pieces_of(n, SH_SUM_ROWS);

    SH_LAUNCH(partial_means, item_grid(n_sums * dim), dim3(SH_BLOCK), 0, s.partial, x, n, dim);
    SH_LAUNCH(finish_means, item_grid(dim), dim3(SH_BLOCK), 0, s.mean, s.partial, n_sums, n, dim);
    SH_LAUNCH(pack_rows, item_grid(padded), dim3(SH_BLOCK), 0, s.packed, s.norms, x, s.mean, n,
              padded, dim);
    return packed_rows{s.packed, s.norms, batch->rows, n, padded, dim};
}

/** Distances of the anchors to their positives, squared or of the loss, [lists, anchors]. */
__global__ void __launch_bounds__(SH_BLOCK)
    positive_distances(float *positives, packed_rows p, anchors who, int64_t lists, bool squared,
                       sh_distance distance)
{
    const int64_t item = item_index(), list = item / who.n(), row = who.begin + item % who.n();
    float dot = 0;

    if (list >= lists || list >= others_of(p.rows, row)) return;
    const int64_t other = other_of(p.rows, row, list);
    for (int64_t k = 0; k < p.dim; k++)
        dot = fmaf(p.x[k * p.padded + row], p.x[k * p.padded + other], dot);
    const float d2 = squared_distance(dot, p.norms[row], p.norms[other]);
    positives[item] = squared ? d2 : metric_of(distance, d2);
}

void sh_cuda_positives(const tile_scratch &s, const packed_rows &p, const anchors &who,
                       int64_t lists, bool squared, sh_distance distance)
{
    if (lists > 0)
        SH_LAUNCH(positive_distances, item_grid(who.n() * lists), dim3(SH_BLOCK), 0, s.positives, p,
                  who, lists, squared, distance);
}

// SPDX-License-Identifier: Apache-2.0
/**
 * Gradients in which a row has a term for each of its positives and for any number of its
 * negatives: row i sums up w(i, j) (x_i - x_j), first over its positives by slot, then over all
 * columns, ascending, as the host does (models/loss/internal.h: sh_terms). Weights are made a tile
 * of 64 x 64 at a time, from distances that are made again.
 *
 * A weigher has
 *   float positive(int64_t row, int64_t at, int64_t slot)    the row is anchor `at` of the launch
 *   float negative(int64_t row, int64_t column, float d2)    d2 squared; column a negative of row
 */
#ifndef SH_MODELS_CUDA_PULL_H
#define SH_MODELS_CUDA_PULL_H

#include "models/cuda/tiles.h"

/** Rows that are pulled at, and by which. */
struct pulled_rows {
    const float *x; /* [n, dim] embeddings, or rows of length 1 */
    float *grad;    /* [anchors, dim] */
};

/** A block per row. shared: [ROW_THREADS] weights. */
template <class Weigher>
__global__ void __launch_bounds__(ROW_THREADS)
    pull_positives(packed_rows p, anchors who, pulled_rows r, Weigher weigher)
{
    SH_SHARED(float, weights);
    const int64_t at = blockIdx.x, row = who.begin + at, n_others = others_of(p.rows, row);
    const float *own = r.x + row * p.dim;
    float *grad = r.grad + at * p.dim;

    for (int64_t k = threadIdx.x; k < p.dim; k += ROW_THREADS) grad[k] = 0;
    for (int64_t first = 0; first < n_others; first += ROW_THREADS) {
        const int64_t left = n_others - first;
        const int n = left < ROW_THREADS ? (int)left : (int)ROW_THREADS;

        __syncthreads();
        if ((int)threadIdx.x < n)
            weights[threadIdx.x] = weigher.positive(row, at, first + threadIdx.x);
        __syncthreads();
        for (int64_t k = threadIdx.x; k < p.dim; k += ROW_THREADS) {
            float sum = grad[k];

            for (int q = 0; q < n; q++)
                sum += weights[q] * (own[k] - r.x[other_of(p.rows, row, first + q) * p.dim + k]);
            grad[k] = sum;
        }
    }
}

/** Add to TILE rows, and TILE dimensions from k0 on, the terms of a tile's columns; weights
 *  [TILE][STRIDE], columns [TILE][TILE]. All threads of the block call it. */
__device__ static inline void pull_tile(const packed_rows &p, const anchors &who,
                                        const pulled_rows &r, int64_t at0, int64_t column0,
                                        int64_t k0, const float *weights, float *columns)
{
    const int r0 = (int)threadIdx.x / SIDE * EACH, c0 = (int)threadIdx.x % SIDE * EACH;
    float own[EACH][EACH], sums[EACH][EACH];

    __syncthreads();
    for (int i = (int)threadIdx.x; i < TILE * TILE; i += SH_BLOCK) {
        const int64_t column = column0 + i / TILE, k = k0 + i % TILE;

        columns[i] = column < p.n && k < p.dim ? r.x[column * p.dim + k] : 0;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int64_t at = at0 + r0 + i, k = k0 + c0 + j;
            const bool is_there = at < who.n() && k < p.dim;

            own[i][j] = is_there ? r.x[(who.begin + at) * p.dim + k] : 0;
            sums[i][j] = is_there ? r.grad[at * p.dim + k] : 0;
        }
    __syncthreads();
    for (int column = 0; column < TILE; column++) {
        float other[EACH];

        load<EACH>(columns + column * TILE + c0, other);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const float weight = weights[(r0 + i) * STRIDE + column];
#pragma unroll
            for (int j = 0; j < EACH; j++) sums[i][j] += weight * (own[i][j] - other[j]);
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int64_t at = at0 + r0 + i, k = k0 + c0 + j;

            if (at < who.n() && k < p.dim) r.grad[at * p.dim + k] = sums[i][j];
        }
}

/** A block has TILE rows and all columns, in order. shared: tile_bytes. */
template <class Weigher>
__global__ void __launch_bounds__(SH_BLOCK)
    pull_negatives(packed_rows p, anchors who, pulled_rows r, Weigher weigher)
{
    SH_SHARED(float, shared);
    float *d = shared + 2 * DEPTH * TILE;
    const int64_t at0 = (int64_t)blockIdx.x * TILE;

    for (int64_t column0 = 0; column0 < p.padded; column0 += TILE) {
        distance_tile(p, who.begin + at0, column0, shared, d);
        for (int i = (int)threadIdx.x; i < TILE * TILE; i += SH_BLOCK) {
            float *const value = &d[i / TILE * STRIDE + i % TILE];
            const bool takes = *value == *value; /* NaN: no negative of the row */

            *value = takes
                         ? weigher.negative(who.begin + at0 + i / TILE, column0 + i % TILE, *value)
                         : 0;
        }
        for (int64_t k0 = 0; k0 < p.dim; k0 += TILE)
            pull_tile(p, who, r, at0, column0, k0, d, shared);
        __syncthreads();
    }
}

/** The gradient of the anchors, not yet scaled. */
template <class Weigher>
static void launch_pull(const packed_rows &p, const anchors &who, const pulled_rows &r,
                        const Weigher &weigher)
{
    SH_LAUNCH(pull_positives<Weigher>, dim3((unsigned)who.n()), dim3(ROW_THREADS),
              ROW_THREADS * sizeof(float), p, who, r, weigher);
    SH_LAUNCH(pull_negatives<Weigher>, dim3((unsigned)pieces_of(who.n(), TILE)), dim3(SH_BLOCK),
              tile_bytes, p, who, r, weigher);
}

#endif

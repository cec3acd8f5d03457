// SPDX-License-Identifier: Apache-2.0
/**
 * Distances between the rows of a batch on a device, a tile at a time, never all of them.
 *
 * They are the chains of fused multiply-adds of models/loss/tile.h, so they have the host's bits
 * where the mean of the batch has (it is added up in another order, in f64).
 */
#ifndef SH_MODELS_CUDA_TILES_H
#define SH_MODELS_CUDA_TILES_H

#include "models/cuda/loss.h"

enum {
    TILE = SH_MINE_TILE,
    DEPTH = 32, /* dimensions of a tile in shared memory at a time */
    EACH = 4,   /* a thread has EACH x EACH distances */
    SIDE = TILE / EACH,
    STRIDE = TILE + 1, /* threads of a warp read one column of distances: rows in other banks */
};

static const size_t tile_bytes = (2 * DEPTH * TILE + TILE * STRIDE) * sizeof(float);

/** The batch as tiles see it. */
struct packed_rows {
    const float *x;     /* [dim][padded] */
    const float *norms; /* [padded] */
    sh_row_tables rows;
    int64_t n, padded, dim;
};

/** Which anchors are looked at. */
struct anchors {
    int64_t begin, end;

    __host__ __device__ int64_t n() const
    {
        return end - begin;
    }
};

/** What tiles are made of. */
struct tile_scratch {
    unit_scratch unit;
    double *partial;  /* [pieces of SH_SUM_ROWS rows, dim] */
    float *mean;      /* [dim] */
    float *packed;    /* [dim, padded n] centred rows */
    float *norms;     /* [padded n] NaN beyond n */
    float *positives; /* [lists, anchors] distances to positives */
};

/** lists: one for each positive that an anchor may have. */
tile_scratch sh_cuda_take_tiles(carver *c, const sh_loss_config *config, int64_t n, int64_t dim,
                                int64_t lists);

/** Centre and pack x, which distances are between. */
packed_rows sh_cuda_pack(const tile_scratch &s, const sh_device_batch *batch, const float *x);

/** Fill s.positives, squared or as the loss has them. */
void sh_cuda_positives(const tile_scratch &s, const packed_rows &p, const anchors &who,
                       int64_t lists, bool squared, sh_distance distance);

__device__ static inline float squared_distance(float dot, float norm_i, float norm_j)
{
    const float d2 = fmaf(-2.0f, dot, norm_i + norm_j);

    return d2 < 0 ? 0 : d2; /* NaN stays */
}

__device__ static inline float metric_of(sh_distance distance, float d2)
{
    return distance == SH_EUCLIDEAN ? sqrtf(d2) : distance == SH_SQUARED ? d2 : 0.5f * d2;
}

__device__ static inline bool is_negative(const packed_rows &p, int64_t row, int64_t column)
{
    return row < p.n && column < p.n && p.rows.labels[row] != p.rows.labels[column] &&
           p.rows.fish[row] != p.rows.fish[column];
}

/** Squared distances of 64 rows to 64 columns, NaN where the column is no negative of the row, into
 *  d [TILE][STRIDE]. All threads of the block call it. shared: 2 DEPTH * TILE floats. */
__device__ static inline void distance_tile(const packed_rows &p, int64_t row0, int64_t column0,
                                            float *shared, float *d)
{
    float *a = shared, *b = shared + DEPTH * TILE;
    const int r0 = (int)threadIdx.x / SIDE * EACH, c0 = (int)threadIdx.x % SIDE * EACH;
    float dots[EACH][EACH] = {};

    for (int64_t k0 = 0; k0 < p.dim; k0 += DEPTH) {
        const int depth = p.dim - k0 < DEPTH ? (int)(p.dim - k0) : (int)DEPTH;

        for (int i = (int)threadIdx.x; i < depth * TILE; i += SH_BLOCK) {
            const float *line = p.x + (k0 + i / TILE) * p.padded;
            const int64_t row = row0 + i % TILE;

            a[i] = row < p.padded ? line[row] : 0;
            b[i] = line[column0 + i % TILE];
        }
        __syncthreads();
        for (int k = 0; k < depth; k++) {
            float u[EACH], v[EACH];

            load<EACH>(a + k * TILE + r0, u);
            load<EACH>(b + k * TILE + c0, v);
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) dots[i][j] = fmaf(u[i], v[j], dots[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int64_t row = row0 + r0 + i, column = column0 + c0 + j;

            d[(r0 + i) * STRIDE + c0 + j] =
                is_negative(p, row, column)
                    ? squared_distance(dots[i][j], p.norms[row], p.norms[column])
                    : NAN;
        }
    __syncthreads();
}

/** task.n_lists(rows): lists of an anchor in this batch. task.look(row - begin, list, first column,
 * distances to TILE columns, is the piece's first tile) for every anchor and list, tile after tile;
 * a block has TILE anchors and one piece of the columns. */
template <class Task>
__global__ void __launch_bounds__(SH_BLOCK) over_tiles(packed_rows p, anchors who, Task task)
{
    SH_SHARED(float, shared); /* tile_bytes */
    float *d = shared + 2 * DEPTH * TILE;
    const int64_t at0 = (int64_t)blockIdx.x * TILE, n_tiles = p.padded / TILE;
    const int64_t first = n_tiles * blockIdx.y / gridDim.y;
    const int64_t last = n_tiles * (blockIdx.y + 1) / gridDim.y;
    const int64_t n_lists = task.n_lists(p.rows);

    for (int64_t tile = first; tile < last; tile++) {
        distance_tile(p, who.begin + at0, tile * TILE, shared, d);
        for (int64_t item = threadIdx.x; item < TILE * n_lists; item += SH_BLOCK) {
            const int64_t at = at0 + item % TILE, list = item / TILE;

            if (at < who.n() && task.has(p.rows, who.begin + at, list))
                task.look(at, list, tile * TILE, d + item % TILE * STRIDE, tile == first);
        }
        __syncthreads();
    }
}

static inline unsigned pieces_of_columns(int64_t n)
{
    const int64_t n_tiles = pieces_of(n, TILE);

    return (unsigned)(n_tiles < SH_MINE_PIECES ? n_tiles : (int64_t)SH_MINE_PIECES);
}

/** In `pieces` runs of columns: pieces_of_columns(n), or 1 where a task wants them in order. */
template <class Task>
static void launch_over_tiles(const packed_rows &p, const anchors &who, unsigned pieces,
                              const Task &task)
{
    SH_LAUNCH(over_tiles<Task>, dim3((unsigned)pieces_of(who.n(), TILE), pieces), dim3(SH_BLOCK),
              tile_bytes, p, who, task);
}

#endif

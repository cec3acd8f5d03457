// SPDX-License-Identifier: Apache-2.0
/** What the kernels of mined triplets share: where things lie in their scratch. */
#ifndef SH_MODELS_CUDA_LOSS_H
#define SH_MODELS_CUDA_LOSS_H

#include "models/cuda/device.h"
#include "models/loss/kernels.h"

enum {
    SH_MINE_TILE = 64,   /* rows, and columns, of a tile of distances */
    SH_MINE_PIECES = 16, /* at most so many runs of tiles share a row's columns */
    SH_SUM_ROWS = 64,    /* rows of one partial sum for the mean */
    SH_SORT_TILE = 2048, /* slots that one block sorts */
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

/** mine.cu; lists: one for each positive that an anchor may have. */
struct choose_scratch {
    unit_scratch unit;
    double *partial; /* [pieces of SH_SUM_ROWS rows, dim] */
    float *mean;     /* [dim] */
    float *packed;   /* [dim, padded n] centred rows */
    float *norms;    /* [padded n] NaN beyond n */
    float *above;    /* [lists, rows] distances to positives */
    uint64_t *best;  /* [SH_MINE_PIECES, lists + 1, rows] keys; the last list: the farthest */
    int32_t *found;  /* [lists, rows] Algorithm 1: the column drawn */
};

/** triplets.cu */
struct apply_scratch {
    unit_scratch unit;
    float *weights[2];     /* [n, slots] of d(a, p) and of d(a, n) */
    double *row_loss;      /* [n] */
    int32_t *row_triplets; /* [n] */
    int32_t *row_active;   /* [n] */
    int32_t *rank;         /* [n, slots] among the slots of its tile with the same negative */
    int32_t *table;        /* [tiles of SH_SORT_TILE slots, n] */
    int32_t *list_at;      /* [n + 1] where each row's list begins */
    int32_t *list;         /* [n, slots] slots by their negative */
};

choose_scratch sh_cuda_choose_scratch(carver *c, const sh_loss_config *config, int64_t n,
                                      int64_t dim, int64_t lists);
apply_scratch sh_cuda_apply_scratch(carver *c, const sh_loss_config *config, int64_t n, int64_t dim,
                                    int64_t slots);

/** Rows of length 1, as F.normalize has them; returns what distances are between. */
const float *sh_cuda_rows(const unit_scratch &unit, const sh_triplet_batch *batch);

sh_status sh_cuda_choose(const sh_triplet_batch *batch, int64_t row_begin, int64_t row_end,
                         sh_triplet *choices);

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

// SPDX-License-Identifier: Apache-2.0
/**
 * Losses over embeddings in the memory of a backend that the host's loops cannot reach: what such a
 * backend brings (sh_backend.loss). models/loss/device.c calls it.
 *
 * Choices and gradients are those of the host's loops where distances are the same, and distances
 * are made by the same chains of operations (models/loss/tile.h). Pointers are the backend's; work
 * is queued in order with its kernels.
 */
#ifndef SH_MODELS_LOSS_KERNELS_H
#define SH_MODELS_LOSS_KERNELS_H

#include "models/loss/loss.h"
#include "models/loss/tile.h"

SH_C_BEGIN

/* ---- choices, as they are gathered ---- */

/** A mined triplet. Distances are those of the loss, from direct differences. */
typedef struct sh_triplet {
    int32_t positive; /* -1: none, the anchor stands for itself at distance d_ap */
    int32_t negative; /* -1: none */
    float d_ap, d_an;
    /* A slot without a triplet has d_ap = SH_NO_TRIPLET. */
} sh_triplet;

#define SH_NO_TRIPLET (-1.0f)

/** What a row is to all others: with it, both rows of a pair know what the pair costs each. */
typedef struct sh_pair_sums {
    double loss[2];      /* of positives, of negatives; not yet divided */
    double weight[2];    /* the kind's own; what slopes are made of */
    float bound[2];      /* the kind's own; which pairs are taken */
    int32_t n_taken[2];  /* pairs in the loss */
    int32_t n_active[2]; /* of these, with a loss above zero */
} sh_pair_sums;

/* ---- a batch ---- */

/** What changes from batch to batch beside its rows. */
typedef struct sh_batch_now {
    uint64_t step;       /* Algorithm 1: of the draws */
    int64_t most_others; /* positives that an anchor of this batch has, at most */
} sh_batch_now;

enum { SH_ROW_TABLES = 6 };

/** What is known of a batch, in the backend's memory: of its rows SH_ROW_TABLES tables, each [n].
 *  The last four: models/loss/groups.h, of the labels. */
typedef struct sh_row_tables {
    const sh_batch_now *now;
    const int32_t *labels, *fish, *order, *begin, *end, *place;
} sh_row_tables;

/** The same for all batches of one size, but for what its pointers lead to: so that what is
 * launched for one can be launched for the next. */
typedef struct sh_device_batch {
    const sh_loss_config *config; /* the host's */
    int64_t n, dim;
    int64_t slots;           /* choices per anchor: 0, 1, or max_others */
    int64_t max_others;      /* positives that an anchor of any batch may have */
    sh_gap_rule rule;        /* which triplets count, where not one is mined per slot */
    const float *embeddings; /* [n, dim] */
    sh_row_tables rows;
    void *scratch; /* scratch_bytes for at least n rows */
} sh_device_batch;

/* Calls queue kernels and do nothing else, so that they can be recorded. */
typedef struct sh_loss_kernels {
    /** For batches of up to n rows, each with up to max_others positives. */
    size_t (*scratch_bytes)(const sh_loss_config *config, int64_t n, int64_t dim, int64_t slots,
                            int64_t max_others);

    /** Not called where there is nothing to choose. choices [row_end - row_begin, slots] of the
     * anchors row_begin .. row_end - 1. */
    sh_status (*choose)(const sh_device_batch *batch, int64_t row_begin, int64_t row_end,
                        void *choices);

    /** From the choices of all n rows: their stats, and the gradient of the rows row_begin ..
     *  row_end - 1, grad [row_end - row_begin, dim] (NULL: stats only). */
    sh_status (*apply)(const sh_device_batch *batch, const void *choices, int64_t row_begin,
                       int64_t row_end, sh_loss_stats *stats, float *grad);
} sh_loss_kernels;

SH_C_END

#endif

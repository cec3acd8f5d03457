// SPDX-License-Identifier: Apache-2.0
/**
 * Triplets mined one per slot, and their gradient, in the memory of a backend that the host's loops
 * cannot reach: what such a backend brings (sh_backend.loss). models/loss/device.c calls it.
 *
 * The choices are those of the host's loops where distances are the same, and distances are made
 * by the same chains of operations (models/loss/tile.h). Pointers are the backend's; work is queued
 * in order with its kernels.
 */
#ifndef SH_MODELS_LOSS_KERNELS_H
#define SH_MODELS_LOSS_KERNELS_H

#include "models/loss/loss.h"

SH_C_BEGIN

/** A mined triplet, as it is gathered. Distances are those of the loss, from direct differences. */
typedef struct sh_triplet {
    int32_t positive; /* -1: none, the anchor stands for itself at distance d_ap */
    int32_t negative; /* -1: none */
    float d_ap, d_an;
    /* A slot without a triplet has d_ap = SH_NO_TRIPLET. */
} sh_triplet;

#define SH_NO_TRIPLET (-1.0f)

/** What is known of the rows of a batch, each [n]. The last four: models/loss/groups.h, of the
 *  labels. */
typedef struct sh_row_tables {
    const int32_t *labels, *fish, *order, *begin, *end, *place;
} sh_row_tables;

enum { SH_ROW_TABLES = sizeof(sh_row_tables) / sizeof(const int32_t *) };

typedef struct sh_triplet_batch {
    const sh_loss_config *config; /* the host's */
    int64_t n, dim;
    int64_t slots;       /* choices per anchor: 1, or as many as it may have positives */
    int64_t most_others; /* positives that an anchor of this batch has */
    int64_t n_pairs;     /* ordered positive pairs */
    int64_t denominator; /* of the loss; 0: as many as there are triplets, by config->reduction */
    float above, upto;   /* Algorithm 1: above < d(a, n) - d(a, p) <= upto is drawn from */
    uint64_t step;       /* Algorithm 1: of the draws */
    const float *embeddings; /* [n, dim] */
    sh_row_tables rows;
    void *scratch; /* scratch_bytes for at least n rows */
} sh_triplet_batch;

typedef struct sh_triplet_sums {
    double loss;  /* NaN where an embedding is not finite */
    double scale; /* by which the rows' gradients are multiplied */
    int64_t n_triplets, n_active;
} sh_triplet_sums;

typedef struct sh_loss_kernels {
    /** NULL: choose and apply do this loss. Otherwise the reason, a static string. */
    const char *(*why_not)(const sh_loss_config *config);

    /** For batches of up to n rows, each with up to max_others positives. */
    size_t (*scratch_bytes)(const sh_loss_config *config, int64_t n, int64_t dim, int64_t slots,
                            int64_t max_others);

    /** choices [row_end - row_begin, slots] of the anchors row_begin .. row_end - 1. */
    sh_status (*choose)(const sh_triplet_batch *batch, int64_t row_begin, int64_t row_end,
                        sh_triplet *choices);

    /** From the choices of all n rows: their sums, and the gradient of the rows row_begin ..
     *  row_end - 1, grad [row_end - row_begin, dim] (NULL: sums only). */
    sh_status (*apply)(const sh_triplet_batch *batch, const sh_triplet *choices, int64_t row_begin,
                       int64_t row_end, sh_triplet_sums *sums, float *grad);
} sh_loss_kernels;

SH_C_END

#endif

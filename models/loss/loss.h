// SPDX-License-Identifier: Apache-2.0
/**
 * Losses and mining over the whole global batch.
 *
 * Every rank holds all embeddings (gathered) and owns a range of rows. It computes the terms of the
 * anchors in its rows, and the gradient with respect to the embeddings in its rows - where a row
 * also receives terms as positive and as negative of other ranks' anchors. Results are exact: the
 * bytes of loss and gradient depend neither on the number of ranks nor of threads.
 *
 *   begin    which rows there are
 *   choose   for the owned anchors: which negatives (and positives) make triplets
 *   gather   choices of all ranks (the caller, through comm)
 *   apply    loss, and gradient of the owned rows, from all choices
 *
 * Memory: rows x columns is tiled, never stored; no list of all triplets.
 *
 * Where: in host memory, or in that of a backend with kernels for losses (models/loss/kernels.h),
 * so that embeddings and gradients need not leave it. Embeddings, choices, stats and gradients are
 * in the one or the other; labels and fish in the host's always. In a backend's memory nothing here
 * waits for it, and choose and apply do nothing but launch kernels, the same for all batches of one
 * size: they can be recorded (sh_backend.recorder).
 */
#ifndef SH_MODELS_LOSS_H
#define SH_MODELS_LOSS_H

#include <stdbool.h>
#include <stdint.h>

#include "models/backend.h"

SH_C_BEGIN

typedef enum sh_loss_kind {
    SH_LOSS_SEMI_HARD,   /* TensorFlow Addons TripletSemiHardLoss */
    SH_LOSS_BATCH_HARD,  /* TensorFlow Addons TripletHardLoss */
    SH_LOSS_ALGORITHM1,  /* FishNet: per (anchor, positive) one random negative of the violating */
    SH_LOSS_BATCH_ALL,   /* every triplet with d(a,n) - d(a,p) < margin */
    SH_LOSS_CONTRASTIVE, /* rows 2i, 2i+1 are a pair (harveyslash) */
    SH_LOSS_PML_SEMI_HARD, /* pytorch-metric-learning: all triplets with d(a,p) < d(a,n) < d(a,p) +
                              margin */
    SH_LOSS_PML_HARD,      /* pytorch-metric-learning: all triplets with d(a,n) <= d(a,p) */
    SH_LOSS_MULTI_SIMILARITY, /* Wang et al. 2019: mined pairs, cosine */
    SH_LOSS_NT_XENT,          /* every positive pair against all negatives of its anchor, cosine */
    SH_LOSS_CONTRASTIVE_ALL,  /* pytorch-metric-learning's ContrastiveLoss over all pairs */
    SH_LOSS_KINDS
} sh_loss_kind;

typedef enum sh_distance { SH_EUCLIDEAN, SH_SQUARED, SH_COSINE } sh_distance;
typedef enum sh_reduction { SH_MEAN, SH_NONZERO_MEAN, SH_SUM } sh_reduction;

typedef struct sh_loss_config {
    sh_loss_kind kind;
    sh_distance distance;
    float margin;
    bool soft;              /* log(1 + exp(violation)) instead of max(0, violation + margin) */
    sh_reduction reduction; /* over triplets; TFA losses fix their own */
    int64_t max_per_label;  /* most rows of one label in any batch: sizes the choices (K of P x K).
                               0: any number, so choices take n_max x n_max places */
    /* Multi-similarity: exponents of positives and negatives (up to 300: beyond, exp overflows in
     * f64), their shift (-1 to 1), the miner's slack */
    float alpha, beta, base, epsilon;
    float temperature; /* NT-Xent */
    uint64_t seed; /* Algorithm 1's draws, keyed by (seed, SH_RNG_MINING, step, anchor, positive) */
} sh_loss_config;

/** The batch as every rank sees it. Not owned. */
typedef struct sh_loss_batch {
    const float *embeddings; /* [n, dim], row-major; in the loss's memory */
    const int32_t *labels;   /* [n] class of the loss: equal labels are positives */
    const int32_t *fish;     /* [n] individual: rows of one fish are never negatives of each other,
                                even where their labels (sides) differ. May equal labels. */
    int64_t n, dim;
    uint64_t step;
} sh_loss_batch;

typedef struct sh_loss_stats {
    double loss;
    int64_t n_pairs;    /* anchor-positive pairs considered */
    int64_t n_triplets; /* triplets formed (losses over pairs: pairs taken) */
    int64_t n_active;   /* of these, with a loss above zero */
} sh_loss_stats;

typedef struct sh_loss sh_loss; /* scratch for one batch size, reused from step to step */

/** The backend in whose memory losses work when `backend` (NULL: none) runs the network: `backend`,
 *  or NULL for the host's memory, where it has no kernels for them. */
const sh_backend *sh_loss_memory(const sh_backend *backend);

/** Allocate for batches of up to n_max rows of dim, in the memory that sh_loss_memory says. The
 *  caller owns *out. */
SH_MUST_CHECK sh_status sh_loss_create(const sh_loss_config *config, const sh_backend *backend,
                                       int64_t n_max, int64_t dim, sh_loss **out);
void sh_loss_destroy(sh_loss **loss);

/** "semi-hard", "batch-hard", "algorithm1", "batch-all", "contrastive", ...: a static string. */
const char *sh_loss_kind_name(sh_loss_kind kind);

/** Bytes that a loss holds, choices and gradient not among them. */
size_t sh_loss_bytes(const sh_loss *loss);

/** Bytes that each row's choices take in the exchange; constant for a loss. 0: nothing to gather.
 */
size_t sh_loss_choice_bytes(const sh_loss *loss);

/** Here are the rows of the next batch; its embeddings may still be missing. Where losses work in a
 *  backend's memory, labels and fish are sent there without waiting: the backend has been waited
 * for since the batch before began, as whoever read its stats has. */
SH_MUST_CHECK sh_status sh_loss_begin(sh_loss *loss, const sh_loss_batch *batch);

/** Mine the anchors row_begin .. row_end - 1 of the batch that has begun; writes their choices,
 *  (row_end - row_begin) * choice_bytes, into choices, in the loss's memory. */
SH_MUST_CHECK sh_status sh_loss_choose(sh_loss *loss, const sh_loss_batch *batch, int64_t row_begin,
                                       int64_t row_end, void *choices);

/** From the choices of all n rows: stats of the whole batch (the same on every rank), and the
 *  gradient of the owned rows, grad [row_end - row_begin, dim] (NULL: stats only), both in the
 *  loss's memory. Where an embedding is not finite, neither are they. */
SH_MUST_CHECK sh_status sh_loss_apply(sh_loss *loss, const sh_loss_batch *batch,
                                      const void *choices, int64_t row_begin, int64_t row_end,
                                      sh_loss_stats *stats, float *grad);

/** Algorithm 1 in host memory only, for looking: counts [n, n] of the negatives that violate the
 * margin for each (anchor, positive), as the miner counts them before it draws; 0 where the column
 * is no positive.
 */
SH_MUST_CHECK sh_status sh_loss_count_candidates(sh_loss *loss, const sh_loss_batch *batch,
                                                 int32_t *counts);

SH_C_END

#endif

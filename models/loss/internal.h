// SPDX-License-Identifier: Apache-2.0
/**
 * What the files of models/loss share. A kind of loss is one row of a table (loss.c): how large its
 * choices are, how it chooses, how it applies them.
 *
 *   rows.c      distances of whole rows, negatives only; the scratch of a thread
 *   mine.c      choose: semi-hard, batch-hard, Algorithm 1: one triplet per slot
 *   triplets.c  apply for these
 *   dense.c     choose and apply where every triplet that fits a rule counts
 *   pairs.c     contrastive pairs
 *   all_pairs.c choose and apply of multi-similarity, NT-Xent, contrastive over all pairs
 *   device.c    choose and apply in a backend's memory
 */
#ifndef SH_MODELS_LOSS_INTERNAL_H
#define SH_MODELS_LOSS_INTERNAL_H

#include <math.h>

#include "models/loss/groups.h"
#include "models/loss/kernels.h"
#include "models/loss/tile.h"

SH_C_BEGIN

/** When a kind computes tiles of distances, and whether it needs whole rows of them. */
enum { SH_TILES_CHOOSE = 1, SH_TILES_APPLY = 2, SH_TILES_ROWS = 4, SH_TILES_ALL = 7 };

typedef struct sh_loss_ops {
    const char *name;
    size_t slot_bytes; /* of a choice; 0: nothing is chosen */
    bool one_slot;     /* a choice per anchor, not per (anchor, positive) */
    bool cosine;       /* defined for cosine similarity only */
    unsigned tiles;    /* SH_TILES_* */
    /* NULL: nothing to choose */
    void (*choose)(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                   void *choices);
    void (*apply)(sh_loss *loss, const sh_loss_batch *batch, const void *choices, int64_t begin,
                  int64_t end, sh_loss_stats *stats, float *grad);
} sh_loss_ops;

typedef struct sh_loss_device sh_loss_device;

struct sh_loss {
    sh_loss_config config;
    const sh_loss_ops *ops;
    sh_loss_device *device; /* NULL: in host memory, with all that follows below `slots` */
    const sh_tile_kernels *kernels;
    int64_t n_max, dim;
    int64_t max_positives; /* of one anchor */
    int64_t slots;         /* choices per anchor: 1 or max_positives */
    int n_threads;

    sh_groups labels, fish;
    bool fish_are_labels; /* in this batch: one group serves as both */
    const float *x;       /* [n, dim] rows that distances are between: embeddings, or unit rows */
    float *unit;          /* [n_max, dim] cosine only */
    float *inverse_norm;  /* [n_max] cosine only */
    sh_packed packed;
    sh_gap_rule rule;

    size_t bytes;  /* held in all */
    char *scratch; /* [n_threads, scratch_bytes] */
    size_t scratch_bytes;

    double *row_loss;       /* [n_max] */
    int64_t *row_triplets;  /* [n_max] */
    int64_t *row_active;    /* [n_max] */
    float *slot_weights[2]; /* [n_max * slots] of d(a, p) and of d(a, n) */
    int32_t *inverse[2];    /* [n_max * slots] slots by their positive, by their negative */
    int64_t *inverse_at[2]; /* [n_max + 1] where each row's slots begin */
    float *other_positive;  /* [max_positives, padded n_max]: d(j, positive q of j); NaN where there
                               is none */
};

/* mine.c, triplets.c */
void sh_mine_semi_hard(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                       void *choices);
void sh_mine_batch_hard(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                        void *choices);
void sh_mine_algorithm1(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                        void *choices);
void sh_mine_count(const sh_loss *loss, int32_t *counts);
size_t sh_mine_scratch_bytes(const sh_loss *loss);
void sh_triplets_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                       int64_t begin, int64_t end, sh_loss_stats *stats, float *grad);

/* device.c */
sh_status sh_loss_device_create(sh_loss *loss, const sh_backend *backend, sh_loss_device **out);
void sh_loss_device_destroy(sh_loss_device **device);
sh_status sh_loss_device_begin(sh_loss *loss, const sh_loss_batch *batch);
sh_status sh_loss_device_choose(sh_loss *loss, const sh_loss_batch *batch, int64_t begin,
                                int64_t end, void *choices);
sh_status sh_loss_device_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                               int64_t begin, int64_t end, sh_loss_stats *stats, float *grad);

/* dense.c */
void sh_dense_choose(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                     void *choices);
void sh_dense_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices, int64_t begin,
                    int64_t end, sh_loss_stats *stats, float *grad);

/* pairs.c */
void sh_pairs_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices, int64_t begin,
                    int64_t end, sh_loss_stats *stats, float *grad);

/* all_pairs.c */

void sh_all_pairs_choose(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin,
                         int64_t end, void *choices);
void sh_all_pairs_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                        int64_t begin, int64_t end, sh_loss_stats *stats, float *grad);

/* ---- functions of one number ---- */

/** log(1 + exp(v)) without overflow. */
static inline double sh_loss_softplus(double v)
{
    return (v > 0 ? v : 0) + log1p(exp(-fabs(v)));
}

static inline double sh_loss_sigmoid(double v)
{
    return v >= 0 ? 1 / (1 + exp(-v)) : exp(v) / (1 + exp(v));
}

/** The configured distance from a squared one (of unit rows, for cosine: 1 - cos = d2 / 2). */
static inline float sh_loss_metric(sh_distance distance, float d2)
{
    return distance == SH_EUCLIDEAN ? sqrtf(d2) : distance == SH_SQUARED ? d2 : 0.5f * d2;
}

/** c in: d distance(x, y) / dx = c (x - y). At distance 0 the Euclidean gradient is taken as 0. */
static inline double sh_loss_slope(sh_distance distance, double d)
{
    if (distance == SH_EUCLIDEAN) return d == 0 ? 0 : 1 / d;
    return distance == SH_SQUARED ? 2 : 1;
}

/** The configured distance of two rows from their differences, f64 inside. */
float sh_loss_distance(const sh_loss *loss, int64_t i, int64_t j);

/** Sum and counts of row_* over all n rows, and their positive pairs; the loss is not yet scaled.
 */
void sh_loss_sum_rows(const sh_loss *loss, int64_t n, sh_loss_stats *stats);

/** 1 / denominator of the configured reduction; 0 where there is nothing to average. */
double sh_loss_scale(const sh_loss *loss, int64_t n_triplets, int64_t n_active);

/** The gradient of one row, gathered term by term: weight * (x[row] - x[other]). */
typedef struct sh_terms {
    const sh_loss *loss;
    int64_t row;
    float *grad; /* [dim] */
    int n;
    int32_t others[256];
    float weights[256];
} sh_terms;

void sh_terms_start(sh_terms *terms, const sh_loss *loss, int64_t row, float *grad);
void sh_terms_add(sh_terms *terms, int32_t other, float weight);

/** Turn the gradient of a unit row into that of its embedding (cosine; else nothing). */
void sh_loss_unit_backward(const sh_loss *loss, int64_t row, float *grad);

/** Multiply by scale; for cosine, go from the unit row back to the embedding. */
void sh_terms_finish(sh_terms *terms, double scale);

/* ---- rows.c ---- */

enum {
    SH_ROWS_BLOCK = 16, /* whole rows at a time: 16 x 8192 distances stay in the L2 cache */
};

/** Bytes of the scratch that sh_rows_visit needs per thread, of which the visitor's share begins at
 *  the pointer it is given. */
size_t sh_rows_scratch_bytes(int64_t n_max, int64_t max_positives, size_t visitor_bytes);

/** Squared distances of rows row .. row + n_rows - 1 (multiples of SH_TILE_ROWS) to the columns of
 *  n_panels panels, NaN where the column is no negative of the row. */
void sh_rows_tile(const sh_loss *loss, int64_t row, int64_t n_rows, int64_t panel, int64_t n_panels,
                  float *out, int64_t stride);

/** Squared distances, as the tiles have them, to the other rows of row i's label, in slot order. */
void sh_rows_positives(const sh_loss *loss, int64_t i, float *out);

/** One row: d [padded n] to its negatives (NaN elsewhere) and positives [others], configured
 *  distance. */
typedef void sh_rows_visitor(const sh_loss *loss, int64_t row, const float *d,
                             const float *positives, void *scratch, void *context);

/** Visit rows begin .. end - 1, threaded; each row once, by any thread. */
void sh_rows_visit(const sh_loss *loss, int64_t begin, int64_t end, sh_rows_visitor *visit,
                   void *context);

SH_C_END

#endif

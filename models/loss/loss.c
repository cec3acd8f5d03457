// SPDX-License-Identifier: Apache-2.0
#include "models/loss/loss.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/tree.h"
#include "models/loss/internal.h"
#include "models/ops.h"

/* Families of kinds, each with its files (internal.h). */
#define TRIPLETS .slot_bytes = sizeof(sh_triplet), .apply = sh_triplets_apply
#define DENSE                                                                                      \
    .slot_bytes = sizeof(sh_gap_sum), .tiles = SH_TILES_ALL, .choose = sh_dense_choose,            \
    .apply = sh_dense_apply
#define ALL_PAIRS                                                                                  \
    .slot_bytes = sizeof(sh_pair_sums), .one_slot = true, .tiles = SH_TILES_ALL,                   \
    .choose = sh_all_pairs_choose, .apply = sh_all_pairs_apply

static const sh_loss_ops kinds[] = {
    [SH_LOSS_SEMI_HARD] = {.name = "semi-hard",
                           TRIPLETS,
                           .tiles = SH_TILES_CHOOSE,
                           .choose = sh_mine_semi_hard},
    [SH_LOSS_BATCH_HARD] = {.name = "batch-hard",
                            TRIPLETS,
                            .one_slot = true,
                            .tiles = SH_TILES_CHOOSE,
                            .choose = sh_mine_batch_hard},
    [SH_LOSS_ALGORITHM1] = {.name = "algorithm1",
                            TRIPLETS,
                            .tiles = SH_TILES_CHOOSE | SH_TILES_ROWS,
                            .choose = sh_mine_algorithm1},
    [SH_LOSS_BATCH_ALL] = {.name = "batch-all", DENSE},
    [SH_LOSS_CONTRASTIVE] = {.name = "contrastive", .apply = sh_pairs_apply},
    [SH_LOSS_PML_SEMI_HARD] = {.name = "pml-semi-hard", DENSE},
    [SH_LOSS_PML_HARD] = {.name = "pml-hard", DENSE},
    [SH_LOSS_MULTI_SIMILARITY] = {.name = "multi-similarity", .cosine = true, ALL_PAIRS},
    [SH_LOSS_NT_XENT] = {.name = "nt-xent", .cosine = true, ALL_PAIRS},
    [SH_LOSS_CONTRASTIVE_ALL] = {.name = "contrastive-all", ALL_PAIRS},
};

const char *sh_loss_kind_name(sh_loss_kind kind)
{
    return kinds[kind].name;
}

/* ---- shared by the kinds ---- */

float sh_loss_distance(const sh_loss *loss, int64_t i, int64_t j)
{
    double d2 = loss->kernels->direct(loss->x + i * loss->dim, loss->x + j * loss->dim, loss->dim);

    switch (loss->config.distance) {
    case SH_EUCLIDEAN: return (float)sqrt(d2);
    case SH_SQUARED: return (float)d2;
    case SH_COSINE: break;
    }
    return (float)(0.5 * d2);
}

void sh_loss_sum_rows(const sh_loss *loss, int64_t n, sh_loss_stats *stats)
{
    *stats = (sh_loss_stats){.loss = sh_tree_sum(loss->row_loss, n)};
    for (int64_t i = 0; i < n; i++) {
        stats->n_pairs += sh_groups_others(&loss->labels, i);
        stats->n_triplets += loss->row_triplets[i];
        stats->n_active += loss->row_active[i];
    }
}

double sh_loss_scale(const sh_loss *loss, int64_t n_triplets, int64_t n_active)
{
    int64_t denominator = loss->config.reduction == SH_NONZERO_MEAN ? n_active : n_triplets;

    if (loss->config.reduction == SH_SUM) return 1;
    return denominator > 0 ? 1.0 / (double)denominator : 0;
}

void sh_loss_unit_backward(const sh_loss *loss, int64_t row, float *grad)
{
    const float *u = loss->x + row * loss->dim;
    double along = 0;

    if (loss->config.distance != SH_COSINE) return;
    for (int64_t k = 0; k < loss->dim; k++) along += (double)grad[k] * u[k];
    for (int64_t k = 0; k < loss->dim; k++)
        grad[k] = (float)((grad[k] - along * u[k]) * loss->inverse_norm[row]);
}

void sh_terms_start(sh_terms *terms, const sh_loss *loss, int64_t row, float *grad)
{
    terms->loss = loss;
    terms->row = row;
    terms->grad = grad;
    terms->n = 0;
    memset(grad, 0, (size_t)loss->dim * sizeof(float));
}

static void flush_terms(sh_terms *terms)
{
    const sh_loss *loss = terms->loss;

    loss->kernels->pull(terms->grad, loss->x, loss->dim, terms->row, terms->others, terms->weights,
                        terms->n);
    terms->n = 0;
}

void sh_terms_add(sh_terms *terms, int32_t other, float weight)
{
    if (terms->n == (int)SH_COUNT(terms->others)) flush_terms(terms);
    terms->others[terms->n] = other;
    terms->weights[terms->n++] = weight;
}

void sh_terms_finish(sh_terms *terms, double scale)
{
    flush_terms(terms);
    for (int64_t k = 0; k < terms->loss->dim; k++) terms->grad[k] = (float)(terms->grad[k] * scale);
    sh_loss_unit_backward(terms->loss, terms->row, terms->grad);
}

/* ---- before choose and apply ---- */

/* Rows of length 1, as F.normalize has them: x / max(|x|, SH_L2_NORM_EPS). */
static void fill_unit_rows(sh_loss *loss, const sh_loss_batch *batch)
{
    int64_t dim = loss->dim;

#pragma omp parallel for schedule(static) num_threads(loss->n_threads)
    for (int64_t i = 0; i < batch->n; i++) {
        const float *x = batch->embeddings + i * dim;
        double sum = 0;

        for (int64_t k = 0; k < dim; k++) sum += (double)x[k] * x[k];
        double inverse = 1 / fmax(sqrt(sum), SH_L2_NORM_EPS);

        for (int64_t k = 0; k < dim; k++) loss->unit[i * dim + k] = (float)(x[k] * inverse);
        loss->inverse_norm[i] = (float)inverse;
    }
}

/* Is this the batch that has begun? */
static sh_status check_rows(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin,
                            int64_t end)
{
    sh_status st = SH_OK;

    SH_CHECK(batch->n == loss->labels.n, SH_ERR_MISMATCH,
             "loss: a batch of %lld rows where one of %lld has begun", (long long)batch->n,
             (long long)loss->labels.n);
    SH_CHECK(begin >= 0 && begin <= end && end <= batch->n, SH_ERR_MISMATCH,
             "loss: rows %lld to %lld of a batch of %lld", (long long)begin, (long long)end,
             (long long)batch->n);
out:
    return st;
}

/* Is this a batch as was agreed on? Its rows, label by label. */
static sh_status group_rows(sh_loss *loss, const sh_loss_batch *batch)
{
    sh_status st = SH_OK;

    SH_CHECK(batch->n >= 1 && batch->n <= loss->n_max && batch->dim == loss->dim, SH_ERR_MISMATCH,
             "loss: a batch of %lld x %lld where up to %lld x %lld was agreed", (long long)batch->n,
             (long long)batch->dim, (long long)loss->n_max, (long long)loss->dim);
    sh_groups_fill(&loss->labels, batch->labels, batch->n);
    for (int64_t i = 0; i < batch->n && loss->slots > 0; i++)
        SH_CHECK(sh_groups_others(&loss->labels, i) <= loss->max_positives, SH_ERR_MISMATCH,
                 "loss: label %d has %lld rows, max_per_label allows %lld", (int)batch->labels[i],
                 (long long)sh_groups_others(&loss->labels, i) + 1,
                 (long long)loss->max_positives + 1);
out:
    return st;
}

/* What the host's loops begin with. */
static void prepare(sh_loss *loss, const sh_loss_batch *batch, bool tiles)
{
    loss->fish_are_labels =
        memcmp(batch->fish, batch->labels, (size_t)batch->n * sizeof(int32_t)) == 0;
    if (!loss->fish_are_labels) sh_groups_fill(&loss->fish, batch->fish, batch->n);
    loss->x = batch->embeddings;
    if (loss->config.distance == SH_COSINE) {
        fill_unit_rows(loss, batch);
        loss->x = loss->unit;
    }
    if (tiles) sh_packed_fill(&loss->packed, loss->kernels, loss->x, batch->n, loss->n_threads);
}

/* x - x is 0 for a number, NaN for NaN and infinities. */
static bool all_finite(const float *x, int64_t n)
{
    float sum = 0;

    for (int64_t i = 0; i < n; i++) sum += x[i] - x[i];
    return sum == 0;
}

/* ---- public ---- */

size_t sh_loss_choice_bytes(const sh_loss *loss)
{
    return (size_t)loss->slots * loss->ops->slot_bytes;
}

sh_status sh_loss_begin(sh_loss *loss, const sh_loss_batch *batch)
{
    sh_status st = SH_OK;

    SH_TRY(group_rows(loss, batch));
    if (loss->device != NULL) SH_TRY(sh_loss_device_begin(loss, batch));
out:
    if (st != SH_OK) loss->labels.n = 0; /* no batch has begun */
    return st;
}

sh_status sh_loss_choose(sh_loss *loss, const sh_loss_batch *batch, int64_t row_begin,
                         int64_t row_end, void *choices)
{
    sh_status st = SH_OK;

    if (loss->ops->choose == NULL) goto out;
    SH_TRY(check_rows(loss, batch, row_begin, row_end));
    if (loss->device != NULL) {
        SH_TRY(sh_loss_device_choose(loss, batch, row_begin, row_end, choices));
    } else {
        prepare(loss, batch, true);
        loss->ops->choose(loss, batch, row_begin, row_end, choices);
    }
out:
    return st;
}

sh_status sh_loss_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                        int64_t row_begin, int64_t row_end, sh_loss_stats *stats, float *grad)
{
    sh_status st = SH_OK;
    bool tiles = (loss->ops->tiles & SH_TILES_APPLY) != 0 && grad != NULL;

    SH_TRY(check_rows(loss, batch, row_begin, row_end));
    if (loss->device != NULL) {
        SH_TRY(sh_loss_device_apply(loss, batch, choices, row_begin, row_end, stats, grad));
        goto out;
    }
    prepare(loss, batch, tiles);
    loss->ops->apply(loss, batch, choices, row_begin, row_end, stats, grad);
    if (!all_finite(batch->embeddings, batch->n * batch->dim)) {
        stats->loss = NAN;
        for (int64_t k = 0; grad != NULL && k < (row_end - row_begin) * loss->dim; k++)
            grad[k] = NAN;
    }
out:
    return st;
}

sh_status sh_loss_count_candidates(sh_loss *loss, const sh_loss_batch *batch, int32_t *counts)
{
    sh_status st = SH_OK;

    SH_CHECK(loss->config.kind == SH_LOSS_ALGORITHM1 && loss->device == NULL, SH_ERR_USAGE,
             "loss: %s has no candidates to count here, Algorithm 1 has in host memory",
             loss->ops->name);
    SH_TRY(group_rows(loss, batch));
    prepare(loss, batch, true);
    memset(counts, 0, (size_t)(batch->n * batch->n) * sizeof(int32_t));
    sh_mine_count(loss, counts);
out:
    return st;
}

/* ---- create, destroy ---- */

static void *reserve(sh_loss *loss, bool *failed, size_t count, size_t size)
{
    size_t bytes = (count * size + 63) / 64 * 64 + 64; /* rounded up to lines, and never nothing */
    void *p = aligned_alloc(64, bytes);

    if (p == NULL) *failed = true;
    loss->bytes += bytes;
    return p;
}

/* batch-all: gap < margin; pytorch-metric-learning: gap <= margin and gap > 0, or gap <= 0. */
static sh_gap_rule rule_of(const sh_loss_config *config)
{
    sh_gap_rule rule = {
        .above = -INFINITY, .upto = config->margin, .margin = config->margin, .soft = config->soft};

    if (config->kind == SH_LOSS_PML_SEMI_HARD) {
        rule.above = 0;
    } else if (config->kind == SH_LOSS_PML_HARD) {
        rule.upto = 0;
    } else {
        rule.upto = nextafterf(config->margin, -INFINITY);
    }
    return rule;
}

static bool reserve_all(sh_loss *loss)
{
    bool failed = false;
    unsigned tiles = loss->ops->tiles;
    size_t n = (size_t)loss->n_max, n_slots = n * (size_t)loss->slots;
    size_t padded = n + SH_TILE_COLS;

    loss->row_loss = reserve(loss, &failed, n, sizeof(double));
    loss->row_triplets = reserve(loss, &failed, n, sizeof(int64_t));
    loss->row_active = reserve(loss, &failed, n, sizeof(int64_t));
    if (loss->config.distance == SH_COSINE) {
        loss->unit = reserve(loss, &failed, n * (size_t)loss->dim, sizeof(float));
        loss->inverse_norm = reserve(loss, &failed, n, sizeof(float));
    }
    if (loss->ops->apply == sh_triplets_apply)
        for (int side = 0; side < 2; side++) {
            loss->slot_weights[side] = reserve(loss, &failed, n_slots, sizeof(float));
            loss->inverse[side] = reserve(loss, &failed, n_slots, sizeof(int32_t));
            loss->inverse_at[side] = reserve(loss, &failed, n + 1, sizeof(int64_t));
        }
    if (loss->ops->apply == sh_dense_apply)
        loss->other_positive =
            reserve(loss, &failed, (size_t)loss->max_positives * padded, sizeof(float));
    if (tiles & SH_TILES_ROWS) {
        loss->scratch_bytes =
            sh_rows_scratch_bytes(loss->n_max, loss->max_positives, padded * sizeof(float));
    } else if (tiles != 0) {
        loss->scratch_bytes = sh_mine_scratch_bytes(loss);
    }
    loss->scratch_bytes = (loss->scratch_bytes + 63) / 64 * 64;
    loss->scratch = reserve(loss, &failed, (size_t)loss->n_threads, loss->scratch_bytes);
    return !failed;
}

const sh_backend *sh_loss_memory(const sh_backend *backend)
{
    return backend != NULL && backend->loss != NULL ? backend : NULL;
}

/* What the host's loops need of memory. */
static sh_status reserve_host(sh_loss *loss)
{
    sh_status st = SH_OK;

    SH_CHECK(reserve_all(loss), SH_ERR_NO_MEMORY, "loss: %zu bytes for batches of %lld x %lld",
             loss->bytes, (long long)loss->n_max, (long long)loss->dim);
    SH_TRY(sh_groups_create(loss->n_max, &loss->fish));
    if (loss->ops->tiles != 0) {
        SH_TRY(sh_packed_create(loss->n_max, loss->dim, &loss->packed));
        loss->bytes += sh_packed_bytes(loss->n_max, loss->dim);
    }
out:
    return st;
}

sh_status sh_loss_create(const sh_loss_config *config, const sh_backend *backend, int64_t n_max,
                         int64_t dim, sh_loss **out)
{
    sh_status st = SH_OK;
    sh_loss *loss = NULL;
    const sh_tile_kernels *list[SH_TILE_MAX_KERNELS];

    SH_CHECK((size_t)config->kind < SH_COUNT(kinds), SH_ERR_USAGE, "loss: no kind %d",
             (int)config->kind);
    SH_CHECK(!kinds[config->kind].cosine || config->distance == SH_COSINE, SH_ERR_USAGE,
             "loss: %s is defined for cosine similarity only", kinds[config->kind].name);
    SH_CHECK(n_max >= 1 && dim >= 1 && config->max_per_label >= 0, SH_ERR_USAGE,
             "loss: a batch of %lld x %lld with up to %lld rows of one label", (long long)n_max,
             (long long)dim, (long long)config->max_per_label);
    loss = calloc(1, sizeof(*loss));
    SH_CHECK(loss != NULL, SH_ERR_NO_MEMORY, "loss");
    loss->config = *config;
    loss->ops = &kinds[config->kind];
    loss->n_max = n_max;
    loss->dim = dim;
    loss->n_threads = omp_get_max_threads();
    loss->rule = rule_of(config);
    sh_tile_kernels_list(list);
    loss->kernels = list[0];

    int64_t most = config->max_per_label > 0 ? config->max_per_label : n_max;

    loss->max_positives = most > n_max ? n_max - 1 : most - 1;
    if (loss->ops->slot_bytes > 0) loss->slots = loss->ops->one_slot ? 1 : loss->max_positives;
    SH_CHECK(n_max * loss->slots < INT32_MAX, SH_ERR_USAGE,
             "loss: %lld rows with up to %lld positives each are too many for one batch; set how "
             "many rows a label can have",
             (long long)n_max, (long long)loss->max_positives);
    SH_TRY(sh_groups_create(n_max, &loss->labels));

    const sh_backend *memory = sh_loss_memory(backend);

    if (memory != NULL) {
        SH_TRY(sh_loss_device_create(loss, memory, &loss->device));
    } else {
        SH_TRY(reserve_host(loss));
    }
    *out = loss;
    loss = NULL;
out:
    sh_loss_destroy(&loss);
    return st;
}

size_t sh_loss_bytes(const sh_loss *loss)
{
    return loss->bytes;
}

void sh_loss_destroy(sh_loss **loss)
{
    sh_loss *l = *loss;

    if (l == NULL) return;
    sh_loss_device_destroy(&l->device);
    sh_groups_clear(&l->labels);
    sh_groups_clear(&l->fish);
    sh_packed_clear(&l->packed);
    free(l->unit);
    free(l->inverse_norm);
    free(l->scratch);
    free(l->row_loss);
    free(l->row_triplets);
    free(l->row_active);
    for (int side = 0; side < 2; side++) {
        free(l->slot_weights[side]);
        free(l->inverse[side]);
        free(l->inverse_at[side]);
    }
    free(l->other_positive);
    free(l);
    *loss = NULL;
}

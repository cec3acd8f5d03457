// SPDX-License-Identifier: Apache-2.0
/**
 * Losses in which every triplet counts whose gap d(a, n) - d(a, p) fits a rule.
 *
 * No triplet is ever listed. Row i needs, towards every row j, the sum of d loss / d d(i, j) over
 * the triplets with i and j in them:
 *   j is a positive of i: all triplets (i, j, .) and (j, i, .): their sums are what choose found
 *                         per (anchor, positive), and what is gathered
 *   j is a negative of i: triplets (i, p, j) over i's positives and (j, q, i) over j's: both need
 *                         only d(i, j), computed again, and the distances between positives
 * A distance has the same bits from both sides, so both rows agree on which triplets there are.
 */
#include "models/loss/internal.h"

typedef struct dense_context {
    sh_gap_sum *choices;   /* choose: [rows, slots] written */
    const sh_gap_sum *all; /* apply: [n, slots] */
    int64_t begin;
    double scale;
    float *grad;
} dense_context;

static void sum_row(const sh_loss *loss, int64_t row, const float *d, const float *positives,
                    void *scratch, void *context)
{
    const dense_context *c = context;
    sh_gap_sum *out = c->choices + (row - c->begin) * loss->slots;
    int64_t stride = loss->packed.n_panels * SH_TILE_COLS;

    (void)scratch;
    for (int64_t q = 0; q < loss->slots; q++) {
        out[q] = (sh_gap_sum){0};
        if (q < sh_groups_others(&loss->labels, row))
            loss->kernels->gaps(d, stride, positives[q], &loss->rule, &out[q]);
    }
}

void sh_dense_choose(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                     void *choices)
{
    dense_context context = {.choices = choices, .begin = begin};

    (void)batch;
    sh_rows_visit(loss, begin, end, sum_row, &context);
}

/* Distances of every row to its positives, slot by slot, so that columns stay side by side. */
static void fill_other_positives(sh_loss *loss, int64_t n)
{
    int64_t stride = loss->packed.n_panels * SH_TILE_COLS;

    for (int64_t q = 0; q < loss->max_positives; q++)
        for (int64_t j = 0; j < stride; j++) loss->other_positive[q * stride + j] = NAN;
#pragma omp parallel for schedule(dynamic, 64) num_threads(loss->n_threads)
    for (int64_t j = 0; j < n; j++) {
        float d[64];
        int64_t n_others = sh_groups_others(&loss->labels, j);

        for (int64_t first = 0; first < n_others; first += 64) {
            int64_t m = n_others - first < 64 ? n_others - first : 64;
            int32_t columns[64];

            for (int64_t q = 0; q < m; q++)
                columns[q] = sh_groups_other(&loss->labels, j, first + q);
            loss->kernels->pairs(&loss->packed, j, columns, m, d);
            for (int64_t q = 0; q < m; q++)
                loss->other_positive[(first + q) * stride + j] =
                    sh_loss_metric(loss->config.distance, d[q]);
        }
    }
}

static void pull_row(const sh_loss *loss, int64_t row, const float *d, const float *positives,
                     void *scratch, void *context)
{
    const dense_context *c = context;
    const sh_groups *g = &loss->labels;
    int64_t stride = loss->packed.n_panels * SH_TILE_COLS, n_others = sh_groups_others(g, row);
    sh_distance distance = loss->config.distance;
    float *weight = scratch;
    sh_terms terms;

    for (int64_t j = 0; j < stride; j++) weight[j] = 0;
    for (int64_t q = 0; q < n_others; q++)
        loss->kernels->weigh(d, stride, &positives[q], 0, &loss->rule, weight);
    for (int64_t q = 0; q < loss->max_positives; q++)
        loss->kernels->weigh(d, stride, loss->other_positive + q * stride, 1, &loss->rule, weight);
    sh_terms_start(&terms, loss, row, c->grad + (row - c->begin) * loss->dim);
    for (int64_t q = 0; q < n_others; q++) {
        int32_t j = sh_groups_other(g, row, q);
        double both = c->all[row * loss->slots + q].weight +
                      c->all[j * loss->slots + sh_groups_slot(g, j, row)].weight;

        if (both != 0)
            sh_terms_add(&terms, j, (float)(both * sh_loss_slope(distance, positives[q])));
    }
    for (int64_t j = 0; j < loss->packed.n; j++)
        if (weight[j] != 0)
            sh_terms_add(&terms, (int32_t)j, (float)(-weight[j] * sh_loss_slope(distance, d[j])));
    sh_terms_finish(&terms, c->scale);
}

void sh_dense_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices, int64_t begin,
                    int64_t end, sh_loss_stats *stats, float *grad)
{
    const sh_gap_sum *all = choices;

    for (int64_t i = 0; i < batch->n; i++) {
        loss->row_loss[i] = 0;
        loss->row_triplets[i] = loss->row_active[i] = 0;
        for (int64_t s = i * loss->slots; s < (i + 1) * loss->slots; s++) {
            loss->row_loss[i] += all[s].loss;
            loss->row_triplets[i] += all[s].n_triplets;
            loss->row_active[i] += all[s].n_active;
        }
    }
    sh_loss_sum_rows(loss, batch->n, stats);
    double scale = sh_loss_scale(loss, stats->n_triplets, stats->n_active);

    stats->loss *= scale;
    if (grad == NULL) return;
    fill_other_positives(loss, batch->n);
    dense_context context = {.all = all, .begin = begin, .scale = scale, .grad = grad};

    sh_rows_visit(loss, begin, end, pull_row, &context);
}

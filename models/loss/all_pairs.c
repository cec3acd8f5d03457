// SPDX-License-Identifier: Apache-2.0
/**
 * Losses over all pairs of the batch, in which a pair costs an anchor what follows from the pair's
 * distance and a few numbers of the anchor. s = 1 - d is the cosine similarity.
 *
 *   multi-similarity  (Wang et al. 2019, eq. 3, 4, 7) mean over rows of
 *                     log(1 + sum_p exp(-alpha (s - base))) / alpha +
 *                     log(1 + sum_n exp( beta (s - base))) / beta
 *                     over the positives with s - epsilon < the largest s of a negative, and the
 *                     negatives with s + epsilon > the smallest s of a positive
 *   NT-Xent           mean over positive pairs of -log(e_p / (e_p + sum_n e_n)), e = exp(s / t)
 *   contrastive       mean over positive pairs with d > 0 of d, plus mean over negative pairs
 *                     with d < margin of margin - d
 *
 * Choose sums up the rows that it owns, once over their columns; these sums are gathered. In apply
 * a row's gradient takes every pair twice, by its own sums and by those of the other row: the
 * distance has the same bits from both sides, so both agree on which pairs are taken.
 */
#include "models/loss/internal.h"

enum { POSITIVE, NEGATIVE };

typedef void row_summer(const sh_loss *loss, const float *positives, int64_t n_positives,
                        const float *negatives, int64_t n_negatives, sh_pair_sums *out);

/** d cost / d distance of one pair, as its anchor with these sums has it; 0 where not taken. */
typedef double pair_slope(const sh_loss *loss, const sh_pair_sums *anchor, float d);

/** What positives' and negatives' costs are multiplied by. */
typedef void pair_scales(int64_t n, const sh_loss_stats *stats, const int64_t n_active[2],
                         double scales[2]);

typedef struct pair_kind {
    row_summer *sum;
    pair_slope *slopes[2];
    pair_scales *scale;
} pair_kind;

static double inverse(int64_t n)
{
    return n > 0 ? 1.0 / (double)n : 0;
}

/* ---- multi-similarity ---- */

/* bound[side] is the similarity to pass, weight[side] is 1 + the sum of exponentials. */

static double similarity_term(const sh_loss *loss, int side, float d)
{
    double shifted = 1.0 - d - loss->config.base;

    return side == POSITIVE ? exp(-loss->config.alpha * shifted) : exp(loss->config.beta * shifted);
}

static bool similarity_takes(const sh_loss *loss, const sh_pair_sums *anchor, int side, float d)
{
    float s = 1 - d, slack = loss->config.epsilon;

    return side == POSITIVE ? s - slack < anchor->bound[POSITIVE]
                            : s + slack > anchor->bound[NEGATIVE];
}

static void similarity_sum(const sh_loss *loss, const float *positives, int64_t n_positives,
                           const float *negatives, int64_t n_negatives, sh_pair_sums *out)
{
    const float *lists[2] = {positives, negatives};
    const int64_t counts[2] = {n_positives, n_negatives};
    const float exponents[2] = {loss->config.alpha, loss->config.beta};

    /* Without positives, or without negatives, no pair passes. */
    out->bound[POSITIVE] = -INFINITY;
    out->bound[NEGATIVE] = INFINITY;
    for (int64_t j = 0; j < n_negatives; j++)
        if (1 - negatives[j] > out->bound[POSITIVE]) out->bound[POSITIVE] = 1 - negatives[j];
    for (int64_t q = 0; q < n_positives; q++)
        if (1 - positives[q] < out->bound[NEGATIVE]) out->bound[NEGATIVE] = 1 - positives[q];
    for (int side = 0; side < 2; side++) {
        double sum = 0;

        for (int64_t k = 0; k < counts[side]; k++) {
            if (!similarity_takes(loss, out, side, lists[side][k])) continue;
            sum += similarity_term(loss, side, lists[side][k]);
            out->n_taken[side]++;
        }
        out->weight[side] = 1 + sum;
        out->loss[side] = log1p(sum) / exponents[side];
        out->n_active[side] = out->n_taken[side];
    }
}

static double similarity_slope_positive(const sh_loss *loss, const sh_pair_sums *anchor, float d)
{
    if (!similarity_takes(loss, anchor, POSITIVE, d)) return 0;
    return similarity_term(loss, POSITIVE, d) / anchor->weight[POSITIVE];
}

static double similarity_slope_negative(const sh_loss *loss, const sh_pair_sums *anchor, float d)
{
    if (!similarity_takes(loss, anchor, NEGATIVE, d)) return 0;
    return -similarity_term(loss, NEGATIVE, d) / anchor->weight[NEGATIVE];
}

static void scale_by_rows(int64_t n, const sh_loss_stats *stats, const int64_t n_active[2],
                          double scales[2])
{
    (void)stats;
    (void)n_active;
    scales[POSITIVE] = scales[NEGATIVE] = inverse(n);
}

/* ---- NT-Xent ---- */

/* weight = {log of the sum of e_n, sum over positives of the softmax's share of negatives} */

static void xent_sum(const sh_loss *loss, const float *positives, int64_t n_positives,
                     const float *negatives, int64_t n_negatives, sh_pair_sums *out)
{
    double t = loss->config.temperature, sum = 0, nearest = INFINITY;

    for (int64_t j = 0; j < n_negatives; j++) nearest = fmin(nearest, negatives[j]);
    for (int64_t j = 0; j < n_negatives; j++) sum += exp((nearest - negatives[j]) / t);
    double log_sum = n_negatives > 0 ? (1.0 - nearest) / t + log(sum) : -INFINITY;

    out->weight[0] = log_sum;
    for (int64_t q = 0; q < n_positives; q++) {
        double cost = sh_loss_softplus(log_sum - (1.0 - positives[q]) / t);

        out->loss[POSITIVE] += cost;
        out->weight[1] += sh_loss_sigmoid(log_sum - (1.0 - positives[q]) / t);
        out->n_active[POSITIVE] += cost > 0;
    }
    out->n_taken[POSITIVE] = (int32_t)n_positives;
}

static double xent_slope_positive(const sh_loss *loss, const sh_pair_sums *anchor, float d)
{
    double t = loss->config.temperature;

    return sh_loss_sigmoid(anchor->weight[0] - (1.0 - d) / t) / t;
}

static double xent_slope_negative(const sh_loss *loss, const sh_pair_sums *anchor, float d)
{
    double t = loss->config.temperature;

    if (anchor->weight[1] == 0) return 0;
    return -exp((1.0 - d) / t - anchor->weight[0]) * anchor->weight[1] / t;
}

static void scale_by_pairs(int64_t n, const sh_loss_stats *stats, const int64_t n_active[2],
                           double scales[2])
{
    (void)n;
    (void)n_active;
    scales[POSITIVE] = scales[NEGATIVE] = inverse(stats->n_pairs);
}

/* ---- contrastive over all pairs ---- */

static void contrastive_sum(const sh_loss *loss, const float *positives, int64_t n_positives,
                            const float *negatives, int64_t n_negatives, sh_pair_sums *out)
{
    for (int64_t q = 0; q < n_positives; q++) {
        out->loss[POSITIVE] += positives[q];
        out->n_active[POSITIVE] += positives[q] > 0;
    }
    for (int64_t j = 0; j < n_negatives; j++) {
        double shortfall = (double)loss->config.margin - negatives[j];

        if (shortfall <= 0) continue;
        out->loss[NEGATIVE] += shortfall;
        out->n_active[NEGATIVE]++;
    }
    out->n_taken[POSITIVE] = (int32_t)n_positives;
    out->n_taken[NEGATIVE] = (int32_t)n_negatives;
}

static double contrastive_slope_positive(const sh_loss *loss, const sh_pair_sums *anchor, float d)
{
    (void)loss;
    (void)anchor;
    return d > 0;
}

static double contrastive_slope_negative(const sh_loss *loss, const sh_pair_sums *anchor, float d)
{
    (void)anchor;
    return d < loss->config.margin ? -1 : 0;
}

static void scale_by_active(int64_t n, const sh_loss_stats *stats, const int64_t n_active[2],
                            double scales[2])
{
    (void)n;
    (void)stats;
    for (int side = 0; side < 2; side++) scales[side] = inverse(n_active[side]);
}

/* ---- all of them ---- */

static const pair_kind kinds[SH_LOSS_KINDS] = {
    [SH_LOSS_MULTI_SIMILARITY] = {similarity_sum,
                                  {similarity_slope_positive, similarity_slope_negative},
                                  scale_by_rows},
    [SH_LOSS_NT_XENT] = {xent_sum, {xent_slope_positive, xent_slope_negative}, scale_by_pairs},
    [SH_LOSS_CONTRASTIVE_ALL] = {contrastive_sum,
                                 {contrastive_slope_positive, contrastive_slope_negative},
                                 scale_by_active},
};

typedef struct pairs_context {
    sh_pair_sums *choices;   /* choose: [rows] written */
    const sh_pair_sums *all; /* apply: [n] */
    int64_t begin;
    double scales[2];
    float *grad;
} pairs_context;

static void sum_row(const sh_loss *loss, int64_t row, const float *d, const float *positives,
                    void *scratch, void *context)
{
    const pairs_context *c = context;
    sh_pair_sums *out = &c->choices[row - c->begin];
    float *negatives = scratch;
    int64_t n_negatives = 0;

    for (int64_t j = 0; j < loss->packed.n; j++)
        if (!isnan(d[j])) negatives[n_negatives++] = d[j];
    *out = (sh_pair_sums){0};
    kinds[loss->config.kind].sum(loss, positives, sh_groups_others(&loss->labels, row), negatives,
                                 n_negatives, out);
}

void sh_all_pairs_choose(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin,
                         int64_t end, void *choices)
{
    pairs_context context = {.choices = choices, .begin = begin};

    (void)batch;
    sh_rows_visit(loss, begin, end, sum_row, &context);
}

static void pull_row(const sh_loss *loss, int64_t row, const float *d, const float *positives,
                     void *scratch, void *context)
{
    const pairs_context *c = context;
    const pair_kind *kind = &kinds[loss->config.kind];
    const sh_pair_sums *all = c->all, *own = &all[row];
    sh_distance distance = loss->config.distance;
    sh_terms terms;

    (void)scratch;
    sh_terms_start(&terms, loss, row, c->grad + (row - c->begin) * loss->dim);
    for (int64_t q = 0; q < sh_groups_others(&loss->labels, row); q++) {
        int32_t j = sh_groups_other(&loss->labels, row, q);
        double slope = kind->slopes[POSITIVE](loss, own, positives[q]) +
                       kind->slopes[POSITIVE](loss, &all[j], positives[q]);

        slope *= c->scales[POSITIVE] * sh_loss_slope(distance, positives[q]);
        if (slope != 0) sh_terms_add(&terms, j, (float)slope);
    }
    for (int64_t j = 0; j < loss->packed.n; j++) {
        if (isnan(d[j])) continue;
        double slope =
            kind->slopes[NEGATIVE](loss, own, d[j]) + kind->slopes[NEGATIVE](loss, &all[j], d[j]);

        slope *= c->scales[NEGATIVE] * sh_loss_slope(distance, d[j]);
        if (slope != 0) sh_terms_add(&terms, (int32_t)j, (float)slope);
    }
    sh_terms_finish(&terms, 1);
}

void sh_all_pairs_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                        int64_t begin, int64_t end, sh_loss_stats *stats, float *grad)
{
    pairs_context context = {.all = choices, .begin = begin, .grad = grad};
    int64_t n_active[2] = {0, 0};

    for (int64_t i = 0; i < batch->n; i++) {
        const sh_pair_sums *s = &context.all[i];

        loss->row_triplets[i] = s->n_taken[POSITIVE] + s->n_taken[NEGATIVE];
        loss->row_active[i] = s->n_active[POSITIVE] + s->n_active[NEGATIVE];
        loss->row_loss[i] = 0;
        for (int side = 0; side < 2; side++) n_active[side] += s->n_active[side];
    }
    sh_loss_sum_rows(loss, batch->n, stats); /* the counts, which the scales are made of */
    kinds[loss->config.kind].scale(batch->n, stats, n_active, context.scales);
    for (int64_t i = 0; i < batch->n; i++)
        for (int side = 0; side < 2; side++)
            loss->row_loss[i] += context.scales[side] * context.all[i].loss[side];
    sh_loss_sum_rows(loss, batch->n, stats);
    if (grad != NULL) sh_rows_visit(loss, begin, end, pull_row, &context);
}

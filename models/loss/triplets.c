// SPDX-License-Identifier: Apache-2.0
/**
 * Loss and gradient of mined triplets.
 *
 * Row i is anchor in its own slots, positive in some, negative in others: the latter two are found
 * through inverse lists, made by counting sort. Its gradient adds, in this order, the terms of its
 * own slots, those of the slots that have it as positive, and those that have it as negative, each
 * by ascending slot (anchor x slots + slot): an order that no rank or thread has a say in.
 */
#include <string.h>

#include "models/loss/internal.h"

static void cost_of_row(sh_loss *loss, int64_t anchor, const sh_triplet *triplets)
{
    double sum = 0;
    int64_t n_triplets = 0, n_active = 0;

    for (int64_t s = 0; s < loss->slots; s++) {
        const sh_triplet *t = &triplets[s];
        float *weight_ap = &loss->slot_weights[0][anchor * loss->slots + s];
        float *weight_an = &loss->slot_weights[1][anchor * loss->slots + s];
        double gap = (double)t->d_ap - t->d_an, violation = gap + loss->config.margin;

        *weight_ap = *weight_an = 0;
        if (t->d_ap == SH_NO_TRIPLET) continue;
        /* Written so that a NaN is passed on rather than taken as no violation. */
        double cost = loss->config.soft ? sh_loss_softplus(gap) : violation <= 0 ? 0 : violation;
        double slope = loss->config.soft ? sh_loss_sigmoid(gap) : violation <= 0 ? 0 : 1;
        bool formed = t->positive >= 0 && t->negative >= 0;

        sum += cost;
        n_triplets += formed;
        n_active += formed && cost > 0;
        if (t->positive >= 0)
            *weight_ap = (float)(slope * sh_loss_slope(loss->config.distance, t->d_ap));
        if (t->negative >= 0)
            *weight_an = (float)(-slope * sh_loss_slope(loss->config.distance, t->d_an));
    }
    loss->row_loss[anchor] = sum;
    loss->row_triplets[anchor] = n_triplets;
    loss->row_active[anchor] = n_active;
}

/* Slots that pull at rows begin .. end - 1 as their positive (side 0) or negative (side 1). */
static void invert(sh_loss *loss, const sh_triplet *triplets, int side, int64_t n, int64_t begin,
                   int64_t end)
{
    const float *weights = loss->slot_weights[side];
    int64_t n_slots = n * loss->slots, *at = loss->inverse_at[side];

    memset(at, 0, (size_t)(n + 1) * sizeof(*at));
    for (int64_t s = 0; s < n_slots; s++)
        if (weights[s] != 0) at[side == 0 ? triplets[s].positive : triplets[s].negative]++;
    for (int64_t i = 0, sum = 0; i <= n; i++) {
        int64_t count = i >= begin && i < end ? at[i] : 0;

        at[i] = sum;
        sum += count;
    }
    /* Filling advances at[i] to the end of its list, which is the beginning of the next one. */
    for (int64_t s = 0; s < n_slots; s++) {
        int64_t i = side == 0 ? triplets[s].positive : triplets[s].negative;

        if (weights[s] != 0 && i >= begin && i < end) loss->inverse[side][at[i]++] = (int32_t)s;
    }
}

static void gradient_of_row(const sh_loss *loss, const sh_triplet *triplets, int64_t row,
                            int64_t begin, double scale, float *grad)
{
    sh_terms terms;

    sh_terms_start(&terms, loss, row, grad);
    for (int64_t s = row * loss->slots; s < (row + 1) * loss->slots; s++) {
        if (loss->slot_weights[0][s] != 0)
            sh_terms_add(&terms, triplets[s].positive, loss->slot_weights[0][s]);
        if (loss->slot_weights[1][s] != 0)
            sh_terms_add(&terms, triplets[s].negative, loss->slot_weights[1][s]);
    }
    for (int side = 0; side < 2; side++) {
        const int64_t *end_at = loss->inverse_at[side];

        for (int64_t at = row == begin ? 0 : end_at[row - 1]; at < end_at[row]; at++) {
            int32_t s = loss->inverse[side][at];

            sh_terms_add(&terms, (int32_t)(s / loss->slots), loss->slot_weights[side][s]);
        }
    }
    sh_terms_finish(&terms, scale);
}

/* TFA's losses divide by the ordered positive pairs (semi-hard) or by the rows (batch-hard). */
static double scale_of(const sh_loss *loss, const sh_loss_batch *batch, const sh_loss_stats *stats)
{
    if (stats->n_pairs == 0) return 0;
    switch (loss->config.kind) {
    case SH_LOSS_SEMI_HARD: return 1.0 / (double)stats->n_pairs;
    case SH_LOSS_BATCH_HARD: return 1.0 / (double)batch->n;
    default: return sh_loss_scale(loss, stats->n_triplets, stats->n_active);
    }
}

void sh_triplets_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices,
                       int64_t begin, int64_t end, sh_loss_stats *stats, float *grad)
{
    const sh_triplet *triplets = choices;

#pragma omp parallel for schedule(static) num_threads(loss->n_threads)
    for (int64_t i = 0; i < batch->n; i++) cost_of_row(loss, i, triplets + i * loss->slots);
    sh_loss_sum_rows(loss, batch->n, stats);
    double scale = scale_of(loss, batch, stats);

    stats->loss *= scale;
    if (grad == NULL) return;
    for (int side = 0; side < 2; side++) invert(loss, triplets, side, batch->n, begin, end);
#pragma omp parallel for schedule(dynamic, 16) num_threads(loss->n_threads)
    for (int64_t i = begin; i < end; i++)
        gradient_of_row(loss, triplets, i, begin, scale, grad + (i - begin) * loss->dim);
}

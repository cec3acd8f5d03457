// SPDX-License-Identifier: Apache-2.0
/**
 * Contrastive loss over the pairs (2i, 2i + 1) of the siamese face network:
 *
 *   mean over pairs of  same: D^2,  different: max(0, margin - D)^2,  D = |x - y + 1e-6|
 *
 * The 1e-6 is PyTorch's pairwise_distance, and is there for the Euclidean distance only. A last row
 * without a partner, and a pair of one fish with two labels, contribute nothing.
 */
#include <string.h>

#include "models/loss/internal.h"

#define PAIR_EPSILON 1e-6

static bool counts(const sh_loss_batch *batch, int64_t i)
{
    return batch->labels[i] == batch->labels[i + 1] || batch->fish[i] != batch->fish[i + 1];
}

/* Distance of rows i and i + 1, and what is added to each difference. */
static double pair_distance(const sh_loss *loss, int64_t i, double *epsilon)
{
    const float *x = loss->x + i * loss->dim, *y = x + loss->dim;

    *epsilon = loss->config.distance == SH_EUCLIDEAN ? PAIR_EPSILON : 0;
    if (*epsilon == 0) return sh_loss_distance(loss, i, i + 1);
    double sum = 0;

    for (int64_t k = 0; k < loss->dim; k++) {
        double difference = (double)x[k] - y[k] + *epsilon;

        sum += difference * difference;
    }
    return sqrt(sum);
}

static double pair_cost(const sh_loss *loss, bool same, double d, double *derivative)
{
    double shortfall = loss->config.margin - d;

    if (same) {
        *derivative = 2 * d;
        return d * d;
    }
    *derivative = shortfall <= 0 ? 0 : -2 * shortfall;
    return shortfall <= 0 ? 0 : shortfall * shortfall;
}

static void pair_gradient(const sh_loss *loss, const sh_loss_batch *batch, int64_t row,
                          double scale, float *grad)
{
    int64_t i = row / 2 * 2, dim = loss->dim;
    const float *x = loss->x + i * dim, *y = x + dim;
    double epsilon, derivative, d = pair_distance(loss, i, &epsilon);

    pair_cost(loss, batch->labels[i] == batch->labels[i + 1], d, &derivative);
    double weight = scale * derivative * sh_loss_slope(loss->config.distance, d);

    if (row != i) weight = -weight;
    for (int64_t k = 0; k < dim; k++) grad[k] = (float)(weight * ((double)x[k] - y[k] + epsilon));
    sh_loss_unit_backward(loss, row, grad);
}

void sh_pairs_apply(sh_loss *loss, const sh_loss_batch *batch, const void *choices, int64_t begin,
                    int64_t end, sh_loss_stats *stats, float *grad)
{
    int64_t n_same = 0;

    (void)choices;
    for (int64_t i = 0; i < batch->n; i++) {
        double epsilon, derivative;
        bool pair = i % 2 == 0 && i + 1 < batch->n && counts(batch, i);
        bool same = pair && batch->labels[i] == batch->labels[i + 1];
        double cost =
            pair ? pair_cost(loss, same, pair_distance(loss, i, &epsilon), &derivative) : 0;

        loss->row_loss[i] = cost;
        loss->row_triplets[i] = pair;
        loss->row_active[i] = cost > 0;
        n_same += same;
    }
    sh_loss_sum_rows(loss, batch->n, stats);
    double scale = stats->n_triplets > 0 ? 1.0 / (double)stats->n_triplets : 0;

    stats->n_pairs = n_same;
    stats->loss *= scale;
    if (grad == NULL) return;
    for (int64_t row = begin; row < end; row++) {
        float *g = grad + (row - begin) * loss->dim;

        memset(g, 0, (size_t)loss->dim * sizeof(float));
        if (loss->row_triplets[row / 2 * 2]) pair_gradient(loss, batch, row, scale, g);
    }
}

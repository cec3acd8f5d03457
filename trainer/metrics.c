// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_pairs(const void *x, const void *y)
{
    const sh_pair *p = x, *q = y;

    return (p->distance > q->distance) - (p->distance < q->distance);
}

void sh_pairs_sort(sh_pair *pairs, int64_t n)
{
    if (n > 1) qsort(pairs, (size_t)n, sizeof(*pairs), compare_pairs);
}

static sh_status allocate(int64_t n, sh_levels *out)
{
    sh_status st = SH_OK;

    *out = (sh_levels){.n = n};
    out->distance = malloc((size_t)n * sizeof(float) + 1);
    out->same = malloc((size_t)n * sizeof(double) + 1);
    out->diff = malloc((size_t)n * sizeof(double) + 1);
    SH_CHECK(out->distance != NULL && out->same != NULL && out->diff != NULL, SH_ERR_NO_MEMORY,
             "%lld distance levels", (long long)n);
out:
    if (st != SH_OK) sh_levels_clear(out);
    return st;
}

static double weight_of(const sh_pair *p, sh_pair_weights w)
{
    if (p->a == p->b) return w.same != NULL ? w.same[p->a] : 1.0;
    return w.diff != NULL ? w.diff[p->a] * w.diff[p->b] : 1.0;
}

sh_status sh_levels_from_pairs(const sh_pair *sorted, int64_t n, sh_pair_weights weights,
                               sh_levels *out)
{
    sh_status st = SH_OK;
    sh_levels levels = {0};
    int64_t n_levels = 0, at = -1;

    for (int64_t i = 0; i < n; i++)
        n_levels += i == 0 || sorted[i].distance != sorted[i - 1].distance;
    SH_TRY(allocate(n_levels, &levels));
    for (int64_t i = 0; i < n; i++) {
        double w = weight_of(&sorted[i], weights);

        if (i == 0 || sorted[i].distance != sorted[i - 1].distance) {
            at++;
            levels.distance[at] = sorted[i].distance;
            levels.same[at] = levels.diff[at] = 0;
        }
        if (sorted[i].a == sorted[i].b) {
            levels.same[at] += w;
            levels.n_same++;
        } else {
            levels.diff[at] += w;
            levels.n_diff++;
        }
    }
    for (int64_t i = 0; i < n_levels; i++) {
        levels.total_same += levels.same[i];
        levels.total_diff += levels.diff[i];
    }
    *out = levels;
    levels = (sh_levels){0};
out:
    sh_levels_clear(&levels);
    return st;
}

sh_status sh_levels_from_bins(const double *same, const double *diff, int64_t n_bins,
                              double max_distance, sh_levels *out)
{
    sh_status st = SH_OK;
    int64_t n_levels = 0, at = 0;

    for (int64_t i = 0; i < n_bins; i++) n_levels += same[i] != 0 || diff[i] != 0;
    SH_TRY(allocate(n_levels, out));
    out->binned = true;
    for (int64_t i = 0; i < n_bins; i++) {
        if (same[i] == 0 && diff[i] == 0) continue;
        out->distance[at] = (float)((double)(i + 1) * max_distance / (double)n_bins);
        out->same[at] = same[i];
        out->diff[at] = diff[i];
        out->total_same += same[i];
        out->total_diff += diff[i];
        at++;
    }
out:
    return st;
}

void sh_levels_clear(sh_levels *levels)
{
    free(levels->distance);
    free(levels->same);
    free(levels->diff);
    *levels = (sh_levels){0};
}

static bool has_both(const sh_levels *l)
{
    return l->total_same > 0 && l->total_diff > 0;
}

double sh_levels_auc(const sh_levels *levels)
{
    double below = 0, area = 0; /* pairs of one fish under this level */

    if (!has_both(levels)) return NAN;
    for (int64_t i = 0; i < levels->n; i++) {
        area += levels->diff[i] * (below + 0.5 * levels->same[i]);
        below += levels->same[i];
    }
    return area / (levels->total_same * levels->total_diff);
}

double sh_levels_tpr_at_fpr(const sh_levels *levels, double fpr)
{
    double same = 0, diff = 0, best = 0;

    if (!has_both(levels)) return NAN;
    for (int64_t i = 0; i < levels->n; i++) {
        same += levels->same[i];
        diff += levels->diff[i];
        if (diff > fpr * levels->total_diff) break;
        best = same;
    }
    return best / levels->total_same;
}

double sh_levels_equal_error(const sh_levels *levels)
{
    double fpr = 0, miss = 1;

    if (!has_both(levels)) return NAN;
    for (int64_t i = 0; i < levels->n; i++) {
        double next_fpr = fpr + levels->diff[i] / levels->total_diff;
        double next_miss = miss - levels->same[i] / levels->total_same;

        if (next_fpr >= next_miss) {
            double before = miss - fpr, after = next_fpr - next_miss;
            double share = before + after > 0 ? before / (before + after) : 0;

            return fpr + share * (next_fpr - fpr);
        }
        fpr = next_fpr;
        miss = next_miss;
    }
    return fpr;
}

double sh_levels_threshold(const sh_levels *levels, double fpr)
{
    double diff = 0, best = NAN;

    if (!has_both(levels)) return NAN;
    best = nextafterf(levels->distance[0], -INFINITY);
    for (int64_t i = 0; i < levels->n; i++) {
        diff += levels->diff[i];
        if (diff > fpr * levels->total_diff) break;
        best = levels->distance[i];
    }
    return best;
}

double sh_levels_threshold_for_tpr(const sh_levels *levels, double tpr)
{
    double same = 0;

    if (!has_both(levels)) return NAN;
    for (int64_t i = 0; i < levels->n; i++) {
        same += levels->same[i];
        /* the sum of the weights carries rounding errors of its own */
        if (same >= tpr * levels->total_same * (1 - 1e-12)) return levels->distance[i];
    }
    return levels->distance[levels->n - 1];
}

sh_threshold_point sh_levels_at(const sh_levels *levels, double threshold)
{
    double same = 0, diff = 0;

    if (!has_both(levels)) return (sh_threshold_point){threshold, NAN, NAN, NAN};
    for (int64_t i = 0; i < levels->n && levels->distance[i] <= threshold; i++) {
        same += levels->same[i];
        diff += levels->diff[i];
    }
    return (sh_threshold_point){
        .threshold = threshold,
        .total = (same + levels->total_diff - diff) / (levels->total_same + levels->total_diff),
        .same = same / levels->total_same,
        .different = 1 - diff / levels->total_diff,
    };
}

int sh_levels_curve(const sh_levels *levels, int max_points, double *fpr, double *tpr)
{
    double same = 0, diff = 0;
    double step = 2.0 / (max_points - 2), kept_tpr = 0, kept_log = -6; /* half the points each */
    int n = 0;

    if (!has_both(levels) || max_points < 4) return 0;
    fpr[n] = tpr[n] = 0;
    n++;
    for (int64_t i = 0; i < levels->n; i++) {
        same += levels->same[i];
        diff += levels->diff[i];

        double x = diff / levels->total_diff, y = same / levels->total_same;
        double log_x = x > 1e-6 ? log10(x) : -6;
        bool last = i + 1 == levels->n;

        if (!last && (y - kept_tpr < step && log_x - kept_log < 6 * step)) continue;
        if (!last && n + 1 >= max_points) continue;
        fpr[n] = last ? 1 : x;
        tpr[n] = last ? 1 : y;
        kept_tpr = y;
        kept_log = log_x;
        n++;
    }
    return n;
}

void sh_pairs_figures(const sh_pair *sorted, int64_t n, sh_pair_weights weights, const double *fpr,
                      int n_fpr, double *auc, double *tpr)
{
    double total_same = 0, total_diff = 0, same = 0, diff = 0, area = 0;
    int at = 0;

    for (int64_t i = 0; i < n; i++) {
        double w = weight_of(&sorted[i], weights);

        *(sorted[i].a == sorted[i].b ? &total_same : &total_diff) += w;
    }
    for (int64_t i = 0; i < n;) {
        double level_same = 0, level_diff = 0;
        float distance = sorted[i].distance;

        for (; i < n && sorted[i].distance == distance; i++) {
            double w = weight_of(&sorted[i], weights);

            *(sorted[i].a == sorted[i].b ? &level_same : &level_diff) += w;
        }
        area += level_diff * (same + 0.5 * level_same);
        diff += level_diff;
        /* rates are ascending: those that this level breaks keep the TPR reached before it */
        while (at < n_fpr && diff > fpr[at] * total_diff) tpr[at++] = same / total_same;
        same += level_same;
    }
    while (at < n_fpr) tpr[at++] = same / total_same;
    *auc = area / (total_same * total_diff);
}

void sh_classify_score(const int32_t *truth, const int32_t *predicted, int64_t n, int n_classes,
                       int64_t *confusion, sh_classification *out)
{
    int64_t hits = 0;
    int n_present = 0;

    memset(confusion, 0, sizeof(*confusion) * (size_t)n_classes * (size_t)n_classes);
    for (int64_t i = 0; i < n; i++) {
        confusion[(int64_t)truth[i] * n_classes + predicted[i]]++;
        hits += truth[i] == predicted[i];
    }
    *out = (sh_classification){.accuracy = n > 0 ? (double)hits / (double)n : NAN};
    for (int c = 0; c < n_classes; c++) {
        int64_t n_true = 0, n_predicted = 0, n_right = confusion[(int64_t)c * n_classes + c];

        for (int k = 0; k < n_classes; k++) {
            n_true += confusion[(int64_t)c * n_classes + k];
            n_predicted += confusion[(int64_t)k * n_classes + c];
        }
        if (n_true + n_predicted == 0) continue;
        n_present++;
        out->macro_precision += n_predicted > 0 ? (double)n_right / (double)n_predicted : 0;
        out->macro_recall += n_true > 0 ? (double)n_right / (double)n_true : 0;
        out->macro_f1 += 2.0 * (double)n_right / (double)(n_true + n_predicted);
    }
    if (n_present > 0) {
        out->macro_precision /= n_present;
        out->macro_recall /= n_present;
        out->macro_f1 /= n_present;
    }
}

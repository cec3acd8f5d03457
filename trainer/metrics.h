// SPDX-License-Identifier: Apache-2.0
/**
 * Scores as pure functions of distances and labels: no files, no networks. Not collective.
 *
 * Verification asks "are these two images of one fish?": a pair is accepted when its distance is at
 * most a threshold. With S the pairs of one fish and D the pairs of two,
 *
 *   TPR(t) = |{p in S: d(p) <= t}| / |S|      FPR(t) = |{p in D: d(p) <= t}| / |D|
 *
 * over the distinct distances t, from the point (0, 0). AUC is the area under that line, which
 * equals P(d(S) < d(D)) + P(d(S) = d(D)) / 2. TPR at FPR f is the largest TPR whose FPR <= f: no
 * interpolation. Every pair may carry a weight; counts then become sums of weights.
 */
#ifndef SH_TRAINER_METRICS_H
#define SH_TRAINER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** Two images. a == b: one individual. */
typedef struct sh_pair {
    float distance;
    int32_t a, b; /* individuals */
} sh_pair;

/** Pairs collected by distance, ascending: all that a ROC needs. */
typedef struct sh_levels {
    int64_t n;                     /* distinct distances */
    float *distance;               /* [n] */
    double *same, *diff;           /* [n] weight of the pairs at exactly that distance */
    double total_same, total_diff; /* sums of the two */
    int64_t n_same, n_diff;        /* pairs, whatever their weight */
    bool binned;                   /* distances were rounded to a grid: too many pairs to keep */
} sh_levels;

/** Weights of pairs: same[a] for a pair of one fish, diff[a] * diff[b] for two. NULL members: 1. */
typedef struct sh_pair_weights {
    const double *same, *diff; /* [individuals] */
} sh_pair_weights;

/** Sort by distance, ascending, in place. Distances must not be NaN or negative. */
void sh_pairs_sort(sh_pair *pairs, int64_t n);

/** Collect sorted pairs. The caller owns *out (sh_levels_clear). */
SH_MUST_CHECK sh_status sh_levels_from_pairs(const sh_pair *sorted, int64_t n,
                                             sh_pair_weights weights, sh_levels *out);

/** Collect pairs that were never stored: n_bins cells of equal width from 0 to max_distance, with
 *  the weights already summed. Cells without pairs are left out; a level's distance is the upper
 *  edge of its cell. Copies; n_same and n_diff are left 0 for the caller to fill. */
SH_MUST_CHECK sh_status sh_levels_from_bins(const double *same, const double *diff, int64_t n_bins,
                                            double max_distance, sh_levels *out);
void sh_levels_clear(sh_levels *levels);

/** NaN where either kind of pair is missing; the same for the functions below. */
double sh_levels_auc(const sh_levels *levels);
double sh_levels_tpr_at_fpr(const sh_levels *levels, double fpr);

/** The error at which FPR = 1 - TPR, linear between the two levels around the crossing. */
double sh_levels_equal_error(const sh_levels *levels);

/** The largest distance at which FPR <= fpr; a little under the smallest distance (and FPR 0) where
 *  even that accepts too many. */
double sh_levels_threshold(const sh_levels *levels, double fpr);

/** The smallest distance at which TPR >= tpr. */
double sh_levels_threshold_for_tpr(const sh_levels *levels, double tpr);

/** What happens at a threshold: shares of accepted pairs of one fish (`same`, the TPR), of refused
 *  pairs of two (`different`, 1 - FPR), and of right decisions over all pairs (`total`). */
typedef struct sh_threshold_point {
    double threshold, total, same, different;
} sh_threshold_point;
sh_threshold_point sh_levels_at(const sh_levels *levels, double threshold);

/** Up to max_points of the curve, evenly spread by TPR and by log FPR, ends included, ascending.
 *  Writes fpr[] and tpr[]; returns how many. */
int sh_levels_curve(const sh_levels *levels, int max_points, double *fpr, double *tpr);

/** AUC, and TPR at n_fpr rates, straight from sorted pairs without storing levels (resampling). */
void sh_pairs_figures(const sh_pair *sorted, int64_t n, sh_pair_weights weights, const double *fpr,
                      int n_fpr, double *auc, double *tpr);

/** Classification over n predictions; macro means are over the classes that occur as truth or as
 *  prediction, and a class without predictions (or truths) counts 0, as scikit-learn does. */
typedef struct sh_classification {
    double accuracy, macro_precision, macro_recall, macro_f1;
} sh_classification;

/** confusion [n_classes, n_classes], row = truth, column = prediction, is written. */
void sh_classify_score(const int32_t *truth, const int32_t *predicted, int64_t n, int n_classes,
                       int64_t *confusion, sh_classification *out);

SH_C_END

#endif

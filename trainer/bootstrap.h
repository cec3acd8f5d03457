// SPDX-License-Identifier: Apache-2.0
/**
 * Intervals by resampling individuals: as many are drawn, with replacement, as there are; the
 * spread of a score over the draws is how much it depends on which fish happened to be tested.
 * Images of one fish are never treated as independent.
 *
 * An interval is [2.5 %, 97.5 %] of SH_BOOTSTRAP_DRAWS draws, keyed by (seed, SH_RNG_BOOTSTRAP,
 * draw): the same numbers on every machine. Fewer than SH_BOOTSTRAP_MIN individuals: NaN, NaN.
 * SH_BOOTSTRAP_PAIRS pairs are plenty: what an interval shows is the spread between individuals.
 */
#ifndef SH_TRAINER_BOOTSTRAP_H
#define SH_TRAINER_BOOTSTRAP_H

#include "trainer/metrics.h"

SH_C_BEGIN

enum { SH_BOOTSTRAP_DRAWS = 1000, SH_BOOTSTRAP_MIN = 3, SH_BOOTSTRAP_PAIRS = 1 << 19 };

typedef struct sh_interval {
    double lo, hi;
} sh_interval;

/** Interval of the mean of values[n], one per individual; NaN entries are individuals without one.
 */
SH_MUST_CHECK sh_status sh_bootstrap_mean(const double *values, int n, uint64_t seed,
                                          sh_interval *out);

/** Intervals of AUC and of TPR at n_fpr ascending rates, over sorted pairs. A fish that is drawn
 *  m times weighs m among its own pairs and m m' among its pairs with a fish drawn m' times: its
 *  copies are never compared with each other. Individuals are those that occur in the pairs. */
SH_MUST_CHECK sh_status sh_bootstrap_pairs(const sh_pair *sorted, int64_t n, int n_individuals,
                                           sh_pair_weights weights, const double *fpr, int n_fpr,
                                           uint64_t seed, sh_interval *auc, sh_interval *tpr);

SH_C_END

#endif

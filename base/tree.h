// SPDX-License-Identifier: Apache-2.0
/**
 * Sums in one fixed order, whoever computes them:
 *
 *   T(lo, hi) = T(lo, mid) + T(mid, hi), mid = lo + the largest power of two below hi - lo
 *
 * Ranks that each hold a part of the terms can add up the whole subtrees inside their part and
 * still reach the same bytes as one process that holds all of them.
 */
#ifndef SH_BASE_TREE_H
#define SH_BASE_TREE_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** Sum of n f64 terms by the tree; 0 for n = 0. Pure. */
double sh_tree_sum(const double *terms, int64_t n);

SH_C_END

#endif

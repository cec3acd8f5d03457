// SPDX-License-Identifier: Apache-2.0
#include "base/tree.h"

/* The recursion is log2(n) deep; the largest power of two below n leaves the right part smaller. */
double sh_tree_sum(const double *terms, int64_t n)
{
    int64_t half = 1;

    if (n <= 0) return 0;
    if (n == 1) return terms[0];
    while (2 * half < n) half *= 2;
    return sh_tree_sum(terms, half) + sh_tree_sum(terms + half, n - half);
}

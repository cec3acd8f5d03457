// SPDX-License-Identifier: Apache-2.0
#include "trainer/bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static int compare_doubles(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* Percentiles of draws[n], linear between order statistics; NaN draws (no pair was left) are out.
 */
static sh_interval interval_of(double *draws, int n)
{
    int kept = 0;

    for (int i = 0; i < n; i++)
        if (!isnan(draws[i])) draws[kept++] = draws[i];
    if (kept < n / 2 || kept == 0) return (sh_interval){NAN, NAN};
    qsort(draws, (size_t)kept, sizeof(*draws), compare_doubles);

    double bound[2], share[2] = {0.025, 0.975};

    for (int i = 0; i < 2; i++) {
        double at = share[i] * (kept - 1);
        int below = (int)at;
        int above = below + 1 < kept ? below + 1 : below;

        bound[i] = draws[below] + (at - below) * (draws[above] - draws[below]);
    }
    return (sh_interval){bound[0], bound[1]};
}

sh_status sh_bootstrap_mean(const double *values, int n, uint64_t seed, sh_interval *out)
{
    sh_status st = SH_OK;
    double *present = malloc((size_t)n * sizeof(double) + 1);
    double *draws = malloc(SH_BOOTSTRAP_DRAWS * sizeof(double));
    int n_present = 0;

    *out = (sh_interval){NAN, NAN};
    SH_CHECK(present != NULL && draws != NULL, SH_ERR_NO_MEMORY, "bootstrap");
    for (int i = 0; i < n; i++)
        if (!isnan(values[i])) present[n_present++] = values[i];
    if (n_present >= SH_BOOTSTRAP_MIN) {
        for (int d = 0; d < SH_BOOTSTRAP_DRAWS; d++) {
            sh_rng_key key = sh_rng_make(seed, SH_RNG_BOOTSTRAP, 0, (uint64_t)d);
            double sum = 0;

            for (int i = 0; i < n_present; i++)
                sum += present[sh_rng_below(key, (uint64_t)i, (uint64_t)n_present)];
            draws[d] = sum / n_present;
        }
        *out = interval_of(draws, SH_BOOTSTRAP_DRAWS);
    }
out:
    free(present);
    free(draws);
    return st;
}

/* Individuals that occur in the pairs, ascending, into list. */
static int list_individuals(const sh_pair *pairs, int64_t n, int n_individuals, int32_t *list)
{
    int n_found = 0;

    for (int i = 0; i < n_individuals; i++) list[i] = 0;
    for (int64_t i = 0; i < n; i++) list[pairs[i].a] = list[pairs[i].b] = 1;
    for (int i = 0; i < n_individuals; i++)
        if (list[i]) list[n_found++] = i;
    return n_found;
}

typedef struct pair_draws {
    const sh_pair *sorted;
    int64_t n;
    int n_individuals, n_present, n_fpr;
    const int32_t *present;
    sh_pair_weights weights;
    const double *fpr;
    uint64_t seed;
    double *auc, *tpr; /* [draws], [n_fpr][draws] */
} pair_draws;

/* One draw: weights of its individuals in scratch [3 n_individuals + n_fpr]. */
static void draw_pairs(const pair_draws *p, int draw, double *scratch)
{
    int n = p->n_individuals;
    double *times = scratch, *same = scratch + n, *diff = scratch + 2 * n, *tpr = scratch + 3 * n;
    sh_rng_key key = sh_rng_make(p->seed, SH_RNG_BOOTSTRAP, 0, (uint64_t)draw);

    for (int i = 0; i < n; i++) times[i] = 0;
    for (int i = 0; i < p->n_present; i++)
        times[p->present[sh_rng_below(key, (uint64_t)i, (uint64_t)p->n_present)]] += 1;
    for (int i = 0; i < n; i++) {
        same[i] = times[i] * (p->weights.same != NULL ? p->weights.same[i] : 1);
        diff[i] = times[i] * (p->weights.diff != NULL ? p->weights.diff[i] : 1);
    }
    sh_pairs_figures(p->sorted, p->n, (sh_pair_weights){same, diff}, p->fpr, p->n_fpr,
                     &p->auc[draw], tpr);
    for (int i = 0; i < p->n_fpr; i++) p->tpr[i * SH_BOOTSTRAP_DRAWS + draw] = tpr[i];
}

sh_status sh_bootstrap_pairs(const sh_pair *sorted, int64_t n, int n_individuals,
                             sh_pair_weights weights, const double *fpr, int n_fpr, uint64_t seed,
                             sh_interval *auc, sh_interval *tpr)
{
    sh_status st = SH_OK;
    bool short_of_memory = false;
    int32_t *present = malloc((size_t)n_individuals * sizeof(*present) + 1);
    double *draws = malloc((size_t)(n_fpr + 1) * SH_BOOTSTRAP_DRAWS * sizeof(double));

    *auc = (sh_interval){NAN, NAN};
    for (int i = 0; i < n_fpr; i++) tpr[i] = *auc;
    SH_CHECK(present != NULL && draws != NULL, SH_ERR_NO_MEMORY, "bootstrap");

    pair_draws p = {.sorted = sorted,
                    .n = n,
                    .n_individuals = n_individuals,
                    .n_present = list_individuals(sorted, n, n_individuals, present),
                    .n_fpr = n_fpr,
                    .present = present,
                    .weights = weights,
                    .fpr = fpr,
                    .seed = seed,
                    .auc = draws,
                    .tpr = draws + SH_BOOTSTRAP_DRAWS};

    if (p.n_present < SH_BOOTSTRAP_MIN) goto out;
#pragma omp parallel reduction(|| : short_of_memory)
    {
        double *scratch = malloc(((size_t)n_individuals * 3 + (size_t)n_fpr) * sizeof(double));

        short_of_memory = scratch == NULL;
#pragma omp for schedule(dynamic, 8)
        for (int d = 0; d < SH_BOOTSTRAP_DRAWS; d++)
            if (scratch != NULL) draw_pairs(&p, d, scratch);
        free(scratch);
    }
    SH_CHECK(!short_of_memory, SH_ERR_NO_MEMORY, "bootstrap of %d individuals", n_individuals);
    *auc = interval_of(p.auc, SH_BOOTSTRAP_DRAWS);
    for (int i = 0; i < n_fpr; i++)
        tpr[i] = interval_of(p.tpr + i * SH_BOOTSTRAP_DRAWS, SH_BOOTSTRAP_DRAWS);
out:
    free(present);
    free(draws);
    return st;
}

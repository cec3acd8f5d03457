// SPDX-License-Identifier: Apache-2.0
/* Verification pairs of an evaluation set: all of them as levels, or a part of them as pairs. */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "dataio/dataset.h"
#include "trainer/retrieval.h"

enum { N_BINS = 1 << 20, BLOCK = 128 }; /* cells; rows whose distances are held at once */

static bool counts(const sh_eval_set *set, sh_pair_rule rule, int64_t a, int64_t b)
{
    if (rule.sides != SH_ANY_SIDE) {
        int x = set->side != NULL ? set->side[a] : SH_SIDE_UNKNOWN;
        int y = set->side != NULL ? set->side[b] : SH_SIDE_UNKNOWN;

        if (x == SH_SIDE_UNKNOWN || y == SH_SIDE_UNKNOWN) return false;
        if ((x == y) != (rule.sides == SH_SAME_SIDE)) return false;
    }
    if (set->individual[a] != set->individual[b] || rule.everything || set->within_recording)
        return true;
    return set->recording[a] >= 0 && set->recording[b] >= 0 &&
           set->recording[a] != set->recording[b];
}

static float distance_of(const sh_eval_set *set, int64_t a, int64_t b)
{
    return sqrtf(sh_squared_distance(set->embeddings + a * set->dim, set->embeddings + b * set->dim,
                                     set->dim));
}

static void count_pairs(const sh_eval_set *set, sh_pair_rule rule, int64_t *n_same, int64_t *n_diff)
{
    *n_same = *n_diff = 0;
    for (int64_t a = 0; a < set->n; a++)
        for (int64_t b = a + 1; b < set->n; b++)
            if (counts(set, rule, a, b))
                ++*(set->individual[a] == set->individual[b] ? n_same : n_diff);
}

/* Share of n pairs to keep so that chance does not overfill the room. */
static float share_of(int64_t room, int64_t n)
{
    return n <= room ? 1.0f : (float)(0.99 * (double)room / (double)n);
}

sh_status sh_retrieval_pairs(const sh_eval_set *set, sh_pair_rule rule, int64_t max_pairs,
                             sh_pair **pairs, int64_t *n_pairs)
{
    sh_status st = SH_OK;
    int64_t n = 0, n_same, n_diff;
    sh_pair *list = NULL;

    count_pairs(set, rule, &n_same, &n_diff);

    int64_t room = n_same + n_diff < max_pairs ? n_same + n_diff : max_pairs;
    int64_t room_same = n_diff < room / 2 ? room - n_diff : n_same < room / 2 ? n_same : room / 2;
    float keep_same = share_of(room_same, n_same), keep_diff = share_of(room - room_same, n_diff);

    list = malloc((size_t)room * sizeof(*list) + 1);
    SH_CHECK(list != NULL, SH_ERR_NO_MEMORY, "%lld pairs", (long long)room);
    for (int64_t a = 0; a < set->n; a++) {
        sh_rng_key key = sh_rng_make(0, SH_RNG_BOOTSTRAP, UINT64_MAX, (uint64_t)a);

        for (int64_t b = a + 1; b < set->n && n < room; b++) {
            if (!counts(set, rule, a, b)) continue;

            float keep = set->individual[a] == set->individual[b] ? keep_same : keep_diff;

            if (keep < 1.0f && sh_rng_uniform(key, (uint64_t)b) >= keep) continue;
            list[n++] = (sh_pair){distance_of(set, a, b), set->individual[a], set->individual[b]};
        }
    }
    sh_pairs_sort(list, n);
    *pairs = list;
    *n_pairs = n;
    list = NULL;
out:
    free(list);
    return st;
}

void sh_retrieval_balance(const sh_eval_set *set, const sh_pair *pairs, int64_t n_pairs,
                          double *same, double *diff)
{
    for (int i = 0; i < set->n_individuals; i++) same[i] = diff[i] = 0;
    for (int64_t i = 0; i < n_pairs; i++)
        if (pairs[i].a == pairs[i].b) same[pairs[i].a] += 1;
    for (int64_t i = 0; i < set->n; i++) diff[set->individual[i]] += 1;
    for (int i = 0; i < set->n_individuals; i++) {
        same[i] = same[i] > 0 ? 1 / same[i] : 0;
        diff[i] = diff[i] > 0 ? 1 / diff[i] : 0;
    }
}

/* Too many pairs to keep: two histograms over [0, an upper bound of the distance]. */
static sh_status levels_from_grid(const sh_eval_set *set, sh_pair_rule rule, const double *same_w,
                                  const double *diff_w, sh_levels *out)
{
    sh_status st = SH_OK;
    double *same = calloc(N_BINS, sizeof(double)), *diff = calloc(N_BINS, sizeof(double));
    float *block = malloc((size_t)(BLOCK * set->n) * sizeof(*block) + 1);
    double longest = 0;
    int64_t n_same = 0, n_diff = 0;

    SH_CHECK(same != NULL && diff != NULL && block != NULL, SH_ERR_NO_MEMORY, "distance histogram");
    for (int64_t i = 0; i < set->n; i++) {
        double norm = 0;

        for (int64_t k = 0; k < set->dim; k++) {
            double v = set->embeddings[i * set->dim + k];

            norm += v * v;
        }
        longest = fmax(longest, sqrt(norm));
    }
    longest = longest > 0 ? 2.0001 * longest : 1; /* triangle inequality, and rounding */
    for (int64_t first = 0; first < set->n; first += BLOCK) {
        int64_t end = first + BLOCK < set->n ? first + BLOCK : set->n;

        /* threads compute distances; weights are added by one, in one order */
#pragma omp parallel for schedule(dynamic, 4)
        for (int64_t a = first; a < end; a++)
            for (int64_t b = a + 1; b < set->n; b++)
                block[(a - first) * set->n + b] = distance_of(set, a, b);
        for (int64_t a = first; a < end; a++) {
            for (int64_t b = a + 1; b < set->n; b++) {
                if (!counts(set, rule, a, b)) continue;

                float d = block[(a - first) * set->n + b];
                int64_t bin = (int64_t)((double)d / longest * N_BINS);
                int32_t x = set->individual[a], y = set->individual[b];

                if (x == y) {
                    same[bin] += same_w != NULL ? same_w[x] : 1;
                    n_same++;
                } else {
                    diff[bin] += diff_w != NULL ? diff_w[x] * diff_w[y] : 1;
                    n_diff++;
                }
            }
        }
    }
    SH_TRY(sh_levels_from_bins(same, diff, N_BINS, longest, out));
    out->n_same = n_same;
    out->n_diff = n_diff;
out:
    free(block);
    free(same);
    free(diff);
    return st;
}

/* sh_retrieval_balance without a list of pairs. */
static void balance_all(const sh_eval_set *set, sh_pair_rule rule, double *same, double *diff)
{
    sh_retrieval_balance(set, NULL, 0, same, diff);
    for (int64_t a = 0; a < set->n; a++)
        for (int64_t b = a + 1; b < set->n; b++)
            if (set->individual[a] == set->individual[b] && counts(set, rule, a, b))
                same[set->individual[a]] += 1;
    for (int i = 0; i < set->n_individuals; i++) same[i] = same[i] > 0 ? 1 / same[i] : 0;
}

sh_status sh_retrieval_levels(const sh_eval_set *set, sh_pair_rule rule, bool balanced,
                              sh_levels *out)
{
    sh_status st = SH_OK;
    sh_pair *pairs = NULL;
    int64_t n_pairs = 0, n_same, n_diff;
    size_t n_fish = (size_t)set->n_individuals + 1;
    double *same = malloc(n_fish * sizeof(double)), *diff = malloc(n_fish * sizeof(double));

    SH_CHECK(same != NULL && diff != NULL, SH_ERR_NO_MEMORY, "pair weights");
    count_pairs(set, rule, &n_same, &n_diff);
    if (n_same + n_diff > SH_MAX_STORED_PAIRS) {
        if (balanced) balance_all(set, rule, same, diff);
        SH_TRY(levels_from_grid(set, rule, balanced ? same : NULL, balanced ? diff : NULL, out));
    } else {
        SH_TRY(sh_retrieval_pairs(set, rule, SH_MAX_STORED_PAIRS, &pairs, &n_pairs));
        if (balanced) sh_retrieval_balance(set, pairs, n_pairs, same, diff);
        SH_TRY(sh_levels_from_pairs(
            pairs, n_pairs, (sh_pair_weights){balanced ? same : NULL, balanced ? diff : NULL},
            out));
    }
out:
    free(pairs);
    free(same);
    free(diff);
    return st;
}

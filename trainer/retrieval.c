// SPDX-License-Identifier: Apache-2.0
#include "trainer/retrieval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/dataset.h"

const char *const sh_gap_names[SH_N_GAPS] = {"same day",   "1-7 days",    "8-30 days",
                                             "31-90 days", "91-365 days", "more than a year"};
static const double gap_days[SH_N_GAPS] = {1, 8, 31, 91, 366, INFINITY};

enum { LANES = 16 };

float sh_squared_distance(const float *a, const float *b, int64_t dim)
{
    float lane[LANES] = {0}, sum = 0;
    int64_t i = 0;

    for (; i + LANES <= dim; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            float d = a[i + k] - b[i + k];

            lane[k] += d * d;
        }
    }
    for (; i < dim; i++) lane[i % LANES] += (a[i] - b[i]) * (a[i] - b[i]);
    for (int k = 0; k < LANES; k++) sum += lane[k];
    return sum;
}

static int side_of(const sh_eval_set *set, int64_t row)
{
    return set->side != NULL ? set->side[row] : SH_SIDE_UNKNOWN;
}

static bool sides_fit(const sh_eval_set *set, sh_side_rule rule, int64_t a, int64_t b)
{
    int x = side_of(set, a), y = side_of(set, b);

    if (rule == SH_ANY_SIDE) return true;
    if (x == SH_SIDE_UNKNOWN || y == SH_SIDE_UNKNOWN) return false;
    return (x == y) == (rule == SH_SAME_SIDE);
}

/* May b stand as a match of a, both of one individual? */
static bool across_recordings(const sh_eval_set *set, int64_t a, int64_t b)
{
    if (set->within_recording) return true;
    return set->recording[a] >= 0 && set->recording[b] >= 0 &&
           set->recording[a] != set->recording[b];
}

static int gap_of(const sh_eval_set *set, int64_t a, int64_t b)
{
    if (set->time == NULL || set->time[a] == SH_NO_TIME || set->time[b] == SH_NO_TIME) return -1;

    double days = fabs((double)set->time[a] - (double)set->time[b]) / 86400.0;
    int gap = 0;

    while (days >= gap_days[gap]) gap++;
    return gap;
}

/* Scratch of one thread. */
typedef struct scratch {
    float *right, *wrong; /* [n] distances of one query's gallery */
    float *nearest;       /* [n_individuals] */
    int64_t *between;     /* [n + 1] wrong images in front of each right one */
} scratch;

static bool scratch_create(const sh_eval_set *set, scratch *s)
{
    size_t n = (size_t)set->n + 1;

    s->right = malloc(n * sizeof(float));
    s->wrong = malloc(n * sizeof(float));
    s->between = malloc(n * sizeof(int64_t));
    s->nearest = malloc(((size_t)set->n_individuals + 1) * sizeof(float));
    return s->right != NULL && s->wrong != NULL && s->between != NULL && s->nearest != NULL;
}

static void scratch_clear(scratch *s)
{
    free(s->right);
    free(s->wrong);
    free(s->between);
    free(s->nearest);
}

static int compare_floats(const void *x, const void *y)
{
    float a = *(const float *)x, b = *(const float *)y;

    return (a > b) - (a < b);
}

/* AP and first rank from the distances of right and wrong images, in any order. */
static void score_list(scratch *s, int64_t n_wrong, sh_query *q)
{
    int64_t n = q->n_matches, in_front = 0;
    double sum = 0;

    qsort(s->right, (size_t)n, sizeof(float), compare_floats);
    memset(s->between, 0, (size_t)(n + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < n_wrong; i++) {
        int64_t lo = 0, hi = n; /* first right image that is not nearer */

        while (lo < hi) {
            int64_t mid = (lo + hi) / 2;

            if (s->right[mid] < s->wrong[i])
                lo = mid + 1;
            else
                hi = mid;
        }
        s->between[lo]++;
    }
    for (int64_t i = 0; i < n; i++) {
        in_front += s->between[i];
        if (i == 0) q->first_rank = in_front + 1;
        sum += (double)(i + 1) / (double)(in_front + i + 1);
    }
    q->ap = sum / (double)n;
}

static void take(sh_query *q, int64_t row, float distance, bool right)
{
    float *best = right ? &q->right_distance : &q->wrong_distance;
    int64_t *where = right ? &q->nearest_right : &q->nearest_wrong;

    if (distance < *best) {
        *best = distance;
        *where = row;
    }
}

static void run_query(const sh_eval_set *set, const sh_gallery_rule *rule, scratch *s, sh_query *q)
{
    int64_t row = q->row, n_wrong = 0;
    int32_t own = set->individual[row];
    const float *e = set->embeddings + row * set->dim;

    for (int i = 0; i < set->n_individuals; i++) s->nearest[i] = INFINITY;
    for (int64_t g = 0; g < set->n; g++) {
        int32_t fish = set->individual[g];

        if (g == row || (rule->individuals != NULL && !rule->individuals[fish])) continue;
        if (!sides_fit(set, rule->sides, row, g)) continue;
        if (fish == own && !across_recordings(set, row, g)) continue;

        float d = sqrtf(sh_squared_distance(e, set->embeddings + g * set->dim, set->dim));

        q->n_gallery++;
        take(q, g, d, fish == own);
        if (d < s->nearest[fish]) s->nearest[fish] = d;
        if (fish != own) {
            s->wrong[n_wrong++] = d;
            continue;
        }
        s->right[q->n_matches++] = d;

        int gap = gap_of(set, row, g);

        if (gap >= 0 && d < q->gap_distance[gap]) q->gap_distance[gap] = d;
    }
    for (int i = 0; i < set->n_individuals; i++) {
        if (i == own || isinf(s->nearest[i])) continue;
        q->n_others++;
        q->n_beating += s->nearest[i] <= q->right_distance;
    }
    if (q->n_matches > 0) score_list(s, n_wrong, q);
    bool wrong_first = q->nearest_wrong >= 0 && q->wrong_distance <= q->right_distance;

    q->nearest = wrong_first ? q->nearest_wrong : q->nearest_right;
    q->distance = wrong_first ? q->wrong_distance : q->right_distance;
}

sh_status sh_retrieve(const sh_eval_set *set, const sh_gallery_rule *rule, sh_query *queries)
{
    sh_status st = SH_OK;
    bool short_of_memory = false;

    for (int64_t i = 0; i < set->n * set->dim; i++)
        SH_CHECK(isfinite(set->embeddings[i]), SH_ERR_FORMAT,
                 "embedding of image %lld holds a NaN or an infinity: the training diverged",
                 (long long)(i / set->dim));
#pragma omp parallel reduction(|| : short_of_memory)
    {
        scratch s = {0};

        short_of_memory = !scratch_create(set, &s);
#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < set->n; i++) {
            queries[i] = (sh_query){.row = i,
                                    .nearest = -1,
                                    .nearest_right = -1,
                                    .nearest_wrong = -1,
                                    .distance = INFINITY,
                                    .right_distance = INFINITY,
                                    .wrong_distance = INFINITY};
            for (int g = 0; g < SH_N_GAPS; g++) queries[i].gap_distance[g] = INFINITY;
            if (!short_of_memory) run_query(set, rule, &s, &queries[i]);
        }
        scratch_clear(&s);
    }
    SH_CHECK(!short_of_memory, SH_ERR_NO_MEMORY, "ranking of %lld images", (long long)set->n);
out:
    return st;
}

/* ---- averages ---- */

/* What is averaged: up to four numbers of one query; false: the query has none. */
typedef bool measure(const sh_query *q, const void *argument, double value[4]);

/* Mean by group, then over groups. sums [n_groups][5]: four sums and the count. */
static sh_status average(const sh_query *queries, int64_t n, const int32_t *group, int n_groups,
                         measure *of, const void *argument, sh_rank_scores *out,
                         sh_rank_scores *per_group)
{
    sh_status st = SH_OK;
    double(*sums)[5] = NULL;
    double total[4] = {0};

    *out = (sh_rank_scores){0};
    sums = calloc((size_t)(group != NULL ? n_groups : 1) + 1, sizeof(*sums));
    SH_CHECK(sums != NULL, SH_ERR_NO_MEMORY, "averages of %d groups", n_groups);
    for (int64_t i = 0; i < n; i++) {
        double value[4] = {0};

        if (!of(&queries[i], argument, value)) {
            out->n_unmatched++;
            continue;
        }
        double *sum = sums[group != NULL ? group[queries[i].row] : 0];

        for (int k = 0; k < 4; k++) sum[k] += value[k];
        sum[4] += 1;
        out->n_queries++;
    }
    for (int g = 0; g < (group != NULL ? n_groups : 1); g++) {
        double mean[4] = {NAN, NAN, NAN, NAN};

        for (int k = 0; k < 4 && sums[g][4] > 0; k++) {
            mean[k] = sums[g][k] / sums[g][4];
            total[k] += mean[k];
        }
        out->n_groups += sums[g][4] > 0;
        if (per_group != NULL)
            per_group[g] = (sh_rank_scores){.rank1 = mean[0],
                                            .rank5 = mean[1],
                                            .rank10 = mean[2],
                                            .map = mean[3],
                                            .n_queries = (int64_t)sums[g][4]};
    }
    out->rank1 = total[0] / out->n_groups;
    out->rank5 = total[1] / out->n_groups;
    out->rank10 = total[2] / out->n_groups;
    out->map = total[3] / out->n_groups;
out:
    free(sums);
    return st;
}

static bool measure_ranks(const sh_query *q, const void *argument, double value[4])
{
    (void)argument;
    value[0] = q->first_rank <= 1;
    value[1] = q->first_rank <= 5;
    value[2] = q->first_rank <= 10;
    value[3] = q->ap;
    return q->n_matches > 0;
}

sh_status sh_rank_average(const sh_query *queries, int64_t n, const int32_t *group, int n_groups,
                          sh_rank_scores *out, sh_rank_scores *per_group)
{
    return average(queries, n, group, n_groups, measure_ranks, NULL, out, per_group);
}

/* P(at least one of `right` among the first k of `all` in random order). */
static double chance_in_first(int64_t all, int64_t right, int k)
{
    double none = 1;

    for (int i = 0; i < k && i < all; i++)
        none *= fmax(0, (double)(all - right - i)) / (double)(all - i);
    return 1 - none;
}

static bool measure_chance(const sh_query *q, const void *argument, double value[4])
{
    const double *harmonic = argument; /* H_N */
    double all = (double)q->n_gallery, right = (double)q->n_matches;

    if (q->n_matches == 0) return false;
    value[0] = chance_in_first(q->n_gallery, q->n_matches, 1);
    value[1] = chance_in_first(q->n_gallery, q->n_matches, 5);
    value[2] = chance_in_first(q->n_gallery, q->n_matches, 10);
    double spread = all > 1 ? (right - 1) * (all - harmonic[q->n_gallery]) / (all - 1) : 0;

    value[3] = (harmonic[q->n_gallery] + spread) / all;
    return true;
}

sh_status sh_rank_chance(const sh_query *queries, int64_t n, const int32_t *group, int n_groups,
                         sh_rank_scores *out)
{
    sh_status st = SH_OK;
    double *harmonic = malloc((size_t)(n + 1) * sizeof(double));

    SH_CHECK(harmonic != NULL, SH_ERR_NO_MEMORY, "harmonic numbers");
    harmonic[0] = 0;
    for (int64_t i = 1; i <= n; i++) harmonic[i] = harmonic[i - 1] + 1.0 / (double)i;
    SH_TRY(average(queries, n, group, n_groups, measure_chance, harmonic, out, NULL));
out:
    free(harmonic);
    return st;
}

static bool measure_gallery(const sh_query *q, const void *argument, double value[4])
{
    int others = *(const int *)argument - 1;

    if (q->n_matches == 0 || q->n_others < others) return false;
    value[0] = 1;
    for (int i = 0; i < others; i++)
        value[0] *= fmax(0, (double)(q->n_others - q->n_beating - i)) / (double)(q->n_others - i);
    return true;
}

sh_status sh_rank_at_gallery(const sh_query *queries, int64_t n, const int32_t *group, int n_groups,
                             int n_fish, double *out)
{
    sh_rank_scores scores;
    sh_status st = average(queries, n, group, n_groups, measure_gallery, &n_fish, &scores, NULL);

    *out = scores.rank1;
    return st;
}

static bool measure_gap(const sh_query *q, const void *argument, double value[4])
{
    float d = q->gap_distance[*(const int *)argument];

    value[0] = d < q->wrong_distance;
    return isfinite(d);
}

sh_status sh_rank_at_gap(const sh_query *queries, int64_t n, const int32_t *group, int n_groups,
                         int gap, double *rank1, int64_t *n_queries)
{
    sh_rank_scores scores;
    sh_status st = average(queries, n, group, n_groups, measure_gap, &gap, &scores, NULL);

    *rank1 = scores.rank1;
    *n_queries = scores.n_queries;
    return st;
}

void sh_nearest(const float *query, const float *gallery, int64_t n_gallery, int64_t dim,
                const uint8_t *skip, int k, int64_t *rows, float *distances)
{
    for (int i = 0; i < k; i++) {
        rows[i] = -1;
        distances[i] = INFINITY;
    }
    for (int64_t g = 0; g < n_gallery; g++) {
        if (skip != NULL && skip[g]) continue;

        float d = sqrtf(sh_squared_distance(query, gallery + g * dim, dim));
        int at = k;

        while (at > 0 && d < distances[at - 1]) at--;
        if (at == k) continue;
        memmove(rows + at + 1, rows + at, (size_t)(k - 1 - at) * sizeof(*rows));
        memmove(distances + at + 1, distances + at, (size_t)(k - 1 - at) * sizeof(*distances));
        rows[at] = g;
        distances[at] = d;
    }
}

// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/* Metric functions against brute force, hand-made cases and laws that must hold. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataio/dataset.h"
#include "trainer/bootstrap.h"
#include "trainer/metrics.h"
#include "trainer/retrieval.h"

/* cmocka compares as f32; scores are compared as they are */
#define assert_close(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

enum { N = 90, DIM = 19, FISH = 7 };

typedef struct world {
    float e[N * DIM];
    int32_t fish[N], recording[N];
    uint8_t side[N];
    int64_t time[N];
    sh_eval_set set;
} world;

/* Clustered embeddings with two to four recordings per fish, keyed by seed. */
static world *make_world(uint64_t seed)
{
    world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    for (int i = 0; i < N; i++) {
        sh_rng_key key = sh_rng_make(seed, SH_RNG_TEST, 0, (uint64_t)i);

        w->fish[i] = (int32_t)sh_rng_below(key, 0, FISH);
        w->recording[i] = (int32_t)sh_rng_below(key, 1, 4);
        w->side[i] = (uint8_t)sh_rng_below(key, 2, 3);
        w->time[i] = (int64_t)w->recording[i] * 40 * 86400;
        for (int k = 0; k < DIM; k++) {
            sh_rng_key centre = sh_rng_make(seed, SH_RNG_TEST, 1, (uint64_t)w->fish[i]);

            w->e[i * DIM + k] =
                (float)(sh_rng_normal(centre, (uint64_t)k) + 1.5 * sh_rng_normal(key, 9 + k));
        }
    }
    w->set = (sh_eval_set){.n = N,
                           .dim = DIM,
                           .embeddings = w->e,
                           .individual = w->fish,
                           .recording = w->recording,
                           .side = w->side,
                           .time = w->time,
                           .n_individuals = FISH};
    return w;
}

static void auc__equals_the_share_of_ordered_pairs_with_ties_half(void **state)
{
    (void)state;
    sh_pair p[60];
    double ordered = 0;
    int64_t n_same = 0, n_diff = 0;
    sh_levels levels = {0};
    sh_rng_key key = sh_rng_make(3, SH_RNG_TEST, 0, 0);

    for (int i = 0; i < 60; i++) {
        bool same = i % 3 == 0;

        p[i] = (sh_pair){(float)sh_rng_below(key, (uint64_t)i, 9) + (same ? 0 : 2), 0, !same};
        n_same += same;
        n_diff += !same;
    }
    for (int i = 0; i < 60; i++) {
        for (int j = 0; j < 60; j++) {
            if (p[i].b != 0 || p[j].b != 1) continue;
            ordered += p[i].distance < p[j].distance ? 1 : p[i].distance == p[j].distance ? 0.5 : 0;
        }
    }
    sh_pairs_sort(p, 60);
    assert_int_equal(sh_levels_from_pairs(p, 60, (sh_pair_weights){0}, &levels), SH_OK);
    assert_int_equal(levels.n_same, n_same);
    assert_int_equal(levels.n_diff, n_diff);
    assert_true(levels.n <= 11);
    assert_close(sh_levels_auc(&levels), ordered / (double)(n_same * n_diff), 1e-12);
    sh_levels_clear(&levels);
}

static void tpr_at_fpr__never_exceeds_the_rate_and_is_the_largest(void **state)
{
    (void)state;
    /* distance: 1 same, 2 same, 3 diff, 4 same, 5 diff, 5 same */
    sh_pair p[] = {{1, 0, 0}, {2, 0, 0}, {3, 0, 1}, {4, 0, 0}, {5, 0, 1}, {5, 0, 0}};
    sh_levels l = {0};

    assert_int_equal(sh_levels_from_pairs(p, 6, (sh_pair_weights){0}, &l), SH_OK);
    assert_close(sh_levels_tpr_at_fpr(&l, 0), 0.5, 0);
    assert_close(sh_levels_tpr_at_fpr(&l, 0.49), 0.5, 0);
    assert_close(sh_levels_tpr_at_fpr(&l, 0.5), 0.75, 0);
    assert_close(sh_levels_tpr_at_fpr(&l, 1), 1, 0);
    assert_close(sh_levels_threshold(&l, 0.49), 2, 0);
    assert_close(sh_levels_threshold(&l, 0.5), 4, 0);

    sh_threshold_point at = sh_levels_at(&l, 4);

    assert_close(at.same, 0.75, 1e-12);
    assert_close(at.different, 0.5, 1e-12);
    assert_close(at.total, 4.0 / 6, 1e-12);
    sh_levels_clear(&l);
}

static void threshold__refuses_everything_when_the_nearest_pair_is_a_false_match(void **state)
{
    (void)state;
    sh_pair p[] = {{1, 0, 1}, {2, 0, 0}, {3, 0, 1}};
    sh_levels l = {0};

    assert_int_equal(sh_levels_from_pairs(p, 3, (sh_pair_weights){0}, &l), SH_OK);
    assert_true(sh_levels_threshold(&l, 0.1) < 1);
    assert_close(sh_levels_at(&l, sh_levels_threshold(&l, 0.1)).different, 1, 0);
    sh_levels_clear(&l);
}

static void equal_error__meets_both_errors(void **state)
{
    (void)state;
    sh_pair p[] = {{1, 0, 0}, {2, 0, 0}, {3, 0, 0}, {4, 0, 1},
                   {5, 0, 0}, {6, 0, 1}, {7, 0, 1}, {8, 0, 1}};
    sh_levels l = {0};

    assert_int_equal(sh_levels_from_pairs(p, 8, (sh_pair_weights){0}, &l), SH_OK);
    assert_close(sh_levels_equal_error(&l), 0.25, 1e-12);
    sh_levels_clear(&l);
}

static void curve__starts_at_0_0_ends_at_1_1_and_never_falls(void **state)
{
    (void)state;
    world *w = make_world(5);
    sh_levels l = {0};
    double fpr[200], tpr[200];

    assert_int_equal(sh_retrieval_levels(&w->set, (sh_pair_rule){0}, false, &l), SH_OK);

    int n = sh_levels_curve(&l, 200, fpr, tpr);

    assert_true(n > 20 && n <= 200);
    assert_true(fpr[0] == 0 && tpr[0] == 0 && fpr[n - 1] == 1 && tpr[n - 1] == 1);
    for (int i = 1; i < n; i++) assert_true(fpr[i] >= fpr[i - 1] && tpr[i] >= tpr[i - 1]);
    sh_levels_clear(&l);
    free(w);
}

static void pairs_figures__agree_with_levels_under_any_weights(void **state)
{
    (void)state;
    world *w = make_world(6);
    sh_pair *pairs = NULL;
    int64_t n = 0;
    double same[FISH], diff[FISH], fpr[3] = {0.001, 0.01, 0.1}, tpr[3], auc;

    assert_int_equal(sh_retrieval_pairs(&w->set, (sh_pair_rule){0}, 1 << 20, &pairs, &n), SH_OK);
    for (int trial = 0; trial < 2; trial++) {
        sh_pair_weights weights = {0};
        sh_levels l = {0};

        if (trial == 1) {
            sh_retrieval_balance(&w->set, pairs, n, same, diff);
            weights = (sh_pair_weights){same, diff};
        }
        assert_int_equal(sh_levels_from_pairs(pairs, n, weights, &l), SH_OK);
        sh_pairs_figures(pairs, n, weights, fpr, 3, &auc, tpr);
        assert_close(auc, sh_levels_auc(&l), 1e-12);
        for (int i = 0; i < 3; i++) assert_close(tpr[i], sh_levels_tpr_at_fpr(&l, fpr[i]), 1e-9);
        sh_levels_clear(&l);
    }
    free(pairs);
    free(w);
}

static void bins__approach_the_exact_figures(void **state)
{
    (void)state;
    world *w = make_world(7);
    sh_pair *pairs = NULL;
    int64_t n = 0;
    enum { BINS = 1 << 16 };
    double *same = calloc(BINS, sizeof(double)), *diff = calloc(BINS, sizeof(double));
    sh_levels exact = {0}, binned = {0};

    assert_int_equal(sh_retrieval_pairs(&w->set, (sh_pair_rule){0}, 1 << 20, &pairs, &n), SH_OK);
    assert_int_equal(sh_levels_from_pairs(pairs, n, (sh_pair_weights){0}, &exact), SH_OK);
    for (int64_t i = 0; i < n; i++)
        (pairs[i].a == pairs[i].b ? same : diff)[(int)(pairs[i].distance / 32 * BINS)] += 1;
    assert_int_equal(sh_levels_from_bins(same, diff, BINS, 32, &binned), SH_OK);
    assert_true(binned.binned);
    assert_close(sh_levels_auc(&binned), sh_levels_auc(&exact), 1e-4);
    sh_threshold_point at = sh_levels_at(&exact, sh_levels_threshold(&binned, 0.05));

    assert_true(1 - at.different <= 0.05);
    assert_close(at.same, sh_levels_tpr_at_fpr(&exact, 0.05), 0.01);
    sh_levels_clear(&exact);
    sh_levels_clear(&binned);
    free(same);
    free(diff);
    free(pairs);
    free(w);
}

/* rank and AP of one query by sorting a plain list; wrong images first among equals */
static void brute_query(const world *w, int q, int64_t *first, double *ap, int *n_matches)
{
    double d[N];
    int order[N], n = 0;

    for (int g = 0; g < N; g++) {
        double s = 0;

        if (g == q || (w->fish[g] == w->fish[q] && w->recording[g] == w->recording[q])) continue;
        for (int k = 0; k < DIM; k++) {
            double x = (double)w->e[q * DIM + k] - (double)w->e[g * DIM + k];

            s += x * x;
        }
        d[g] = s;
        int at = n++;

        while (at > 0 && (d[order[at - 1]] > s ||
                          (d[order[at - 1]] == s && w->fish[order[at - 1]] == w->fish[q]))) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = g;
    }
    *first = 0;
    *ap = 0;
    *n_matches = 0;
    for (int i = 0; i < n; i++) {
        if (w->fish[order[i]] != w->fish[q]) continue;
        *n_matches += 1;
        if (*first == 0) *first = i + 1;
        *ap += (double)*n_matches / (i + 1);
    }
    if (*n_matches > 0) *ap /= *n_matches;
}

static void retrieve__equals_a_sorted_list_without_own_recording(void **state)
{
    (void)state;
    world *w = make_world(11);
    sh_query q[N];

    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, q), SH_OK);
    for (int i = 0; i < N; i++) {
        int64_t first;
        double ap;
        int n_matches;

        brute_query(w, i, &first, &ap, &n_matches);
        assert_int_equal(q[i].n_matches, n_matches);
        assert_int_equal(q[i].first_rank, first);
        assert_close(q[i].ap, ap, 1e-12);
        if (n_matches == 0) continue;
        assert_int_not_equal(w->recording[q[i].nearest_right], w->recording[i]);
        assert_int_equal(first == 1, q[i].nearest == q[i].nearest_right);
    }
    free(w);
}

static void retrieve__keeps_other_fish_of_the_same_recording_as_distractors(void **state)
{
    (void)state;
    /* query 0: fish 0, recording 0; its match lies at 2, a fish of its own recording at 1 */
    float e[] = {0, 0.5f, 2, 1};
    int32_t fish[] = {0, 0, 0, 1}, recording[] = {0, 0, 1, 0};
    sh_eval_set set = {.n = 4,
                       .dim = 1,
                       .embeddings = e,
                       .individual = fish,
                       .recording = recording,
                       .n_individuals = 2};
    sh_query q[4];

    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, q), SH_OK);
    assert_int_equal(q[0].n_gallery, 2);
    assert_int_equal(q[0].first_rank, 2);
    assert_int_equal(q[0].nearest, 3);
    assert_int_equal(q[3].n_matches, 0);
    assert_int_equal(q[3].first_rank, 0);
    recording[1] = -1; /* not known to be another recording: no match either */
    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, q), SH_OK);
    assert_int_equal(q[0].n_matches, 1);
    assert_int_equal(q[1].n_matches, 0);
}

static void retrieve__gives_nothing_to_embeddings_that_are_all_the_same(void **state)
{
    (void)state;
    world *w = make_world(12);
    sh_query q[N];
    sh_rank_scores s, chance;

    memset(w->e, 0, sizeof(w->e));
    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, q), SH_OK);
    assert_int_equal(sh_rank_average(q, N, w->fish, FISH, &s, NULL), SH_OK);
    assert_int_equal(sh_rank_chance(q, N, w->fish, FISH, &chance), SH_OK);
    assert_close(s.rank10, 0, 0);
    assert_true(s.map < chance.map);
    w->e[5] = NAN;
    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, q), SH_ERR_FORMAT);
    free(w);
}

static void chance__is_the_mean_over_random_embeddings(void **state)
{
    (void)state;
    world *w = make_world(13);
    sh_query q[N];
    sh_rank_scores s, chance;
    double rank1 = 0, map = 0, rank5 = 0;
    enum { TRIALS = 300 };

    for (int t = 0; t < TRIALS; t++) {
        for (int i = 0; i < N * DIM; i++)
            w->e[i] = (float)sh_rng_normal(sh_rng_make(t, SH_RNG_TEST, 7, 0), (uint64_t)i);
        assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, q), SH_OK);
        assert_int_equal(sh_rank_average(q, N, w->fish, FISH, &s, NULL), SH_OK);
        rank1 += s.rank1 / TRIALS;
        rank5 += s.rank5 / TRIALS;
        map += s.map / TRIALS;
    }
    assert_int_equal(sh_rank_chance(q, N, w->fish, FISH, &chance), SH_OK);
    assert_close(chance.rank1, rank1, 0.01); /* about 4 standard errors of 300 trials */
    assert_close(chance.rank5, rank5, 0.015);
    assert_close(chance.map, map, 0.005);
    free(w);
}

static void average__weighs_individuals_equally_whatever_their_number_of_images(void **state)
{
    (void)state;
    sh_query q[4] = {{.row = 0, .n_matches = 1, .first_rank = 1, .ap = 1},
                     {.row = 1, .n_matches = 1, .first_rank = 1, .ap = 1},
                     {.row = 2, .n_matches = 1, .first_rank = 3, .ap = 0.25},
                     {.row = 3, .n_matches = 0}};
    int32_t fish[] = {0, 0, 1, 2};
    sh_rank_scores s, each[3];

    assert_int_equal(sh_rank_average(q, 4, fish, 3, &s, each), SH_OK);
    assert_close(s.rank1, 0.5, 1e-12);
    assert_close(s.rank5, 1, 1e-12);
    assert_close(s.map, 0.625, 1e-12);
    assert_int_equal(s.n_queries, 3);
    assert_int_equal(s.n_unmatched, 1);
    assert_int_equal(s.n_groups, 2);
    assert_int_equal(each[2].n_queries, 0);
    assert_int_equal(sh_rank_average(q, 4, NULL, 0, &s, NULL), SH_OK);
    assert_close(s.rank1, 2.0 / 3, 1e-12);
}

static void gallery_size__falls_from_one_to_the_full_gallery(void **state)
{
    (void)state;
    world *w = make_world(14);
    sh_query q[N];
    sh_rank_scores s;
    double before = 2, at = 0;

    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, q), SH_OK);
    assert_int_equal(sh_rank_average(q, N, w->fish, FISH, &s, NULL), SH_OK);
    for (int g = 1; g <= FISH; g++) {
        assert_int_equal(sh_rank_at_gallery(q, N, w->fish, FISH, g, &at), SH_OK);
        if (g == 1) assert_close(at, 1, 0);
        assert_true(at <= before);
        before = at;
    }
    assert_close(at, s.rank1, 1e-12);
    assert_int_equal(sh_rank_at_gallery(q, N, w->fish, FISH, FISH + 1, &at), SH_OK);
    assert_true(isnan(at));
    free(w);
}

static void sides__split_the_gallery_without_losing_an_image(void **state)
{
    (void)state;
    world *w = make_world(15);
    sh_query all[N], same[N], cross[N];

    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, all), SH_OK);
    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){.sides = SH_SAME_SIDE}, same), SH_OK);
    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){.sides = SH_CROSS_SIDE}, cross),
                     SH_OK);
    for (int i = 0; i < N; i++) {
        int64_t unknown = 0;

        for (int g = 0; g < N; g++)
            unknown += w->side[g] == SH_SIDE_UNKNOWN && w->fish[g] == w->fish[i] &&
                       w->recording[g] != w->recording[i];
        if (w->side[i] == SH_SIDE_UNKNOWN) {
            assert_int_equal(same[i].n_gallery + cross[i].n_gallery, 0);
        } else {
            assert_int_equal(same[i].n_matches + cross[i].n_matches + unknown, all[i].n_matches);
        }
    }
    free(w);
}

static void gaps__count_only_matches_that_many_days_away(void **state)
{
    (void)state;
    world *w = make_world(16); /* recordings are 40 days apart: gaps of 40, 80, 120 days */
    sh_query q[N];
    double rank1;
    int64_t n[SH_N_GAPS];

    assert_int_equal(sh_retrieve(&w->set, &(sh_gallery_rule){0}, q), SH_OK);
    for (int g = 0; g < SH_N_GAPS; g++)
        assert_int_equal(sh_rank_at_gap(q, N, w->fish, FISH, g, &rank1, &n[g]), SH_OK);
    assert_int_equal(n[0] + n[1] + n[2] + n[5], 0);
    assert_true(n[3] > N / 2 && n[4] > N / 4);
    free(w);
}

static void pairs__of_one_fish_are_kept_where_only_a_part_has_room(void **state)
{
    (void)state;
    world *w = make_world(19);
    sh_pair *all = NULL, *part = NULL;
    int64_t n_all = 0, n_part = 0, n_same[2] = {0};

    assert_int_equal(sh_retrieval_pairs(&w->set, (sh_pair_rule){0}, 1 << 20, &all, &n_all), SH_OK);
    assert_int_equal(sh_retrieval_pairs(&w->set, (sh_pair_rule){0}, 1500, &part, &n_part), SH_OK);
    assert_true(n_all > 3000 && n_part <= 1500 && n_part > 1350);
    for (int64_t i = 0; i < n_all; i++) n_same[0] += all[i].a == all[i].b;
    for (int64_t i = 0; i < n_part; i++) n_same[1] += part[i].a == part[i].b;
    assert_int_equal(n_same[0], n_same[1]);
    for (int64_t i = 1; i < n_part; i++) assert_true(part[i].distance >= part[i - 1].distance);
    free(all);
    free(part);
    free(w);
}

static void balance__gives_every_individual_the_same_say(void **state)
{
    (void)state;
    world *w = make_world(17);
    sh_levels l = {0};

    assert_int_equal(sh_retrieval_levels(&w->set, (sh_pair_rule){0}, true, &l), SH_OK);
    assert_close(l.total_same, FISH, 1e-9);
    assert_close(l.total_diff, FISH * (FISH - 1) / 2, 1e-9);
    sh_levels_clear(&l);
    free(w);
}

static void bootstrap__interval_covers_the_mean_and_narrows_with_more_fish(void **state)
{
    (void)state;
    double few[10], many[1000];
    sh_interval a, b, again;

    for (int i = 0; i < 1000; i++) {
        many[i] = sh_rng_uniform(sh_rng_make(1, SH_RNG_TEST, 0, 0), (uint64_t)i);
        if (i < 10) few[i] = many[i];
    }
    assert_int_equal(sh_bootstrap_mean(few, 10, 1, &a), SH_OK);
    assert_int_equal(sh_bootstrap_mean(many, 1000, 1, &b), SH_OK);
    assert_int_equal(sh_bootstrap_mean(many, 1000, 1, &again), SH_OK);
    assert_true(b.lo < 0.5 && b.hi > 0.5 && a.hi - a.lo > 4 * (b.hi - b.lo));
    /* uniform: standard error sqrt(1/12/1000) = 0.00913, interval 3.92 of it wide */
    assert_close(b.hi - b.lo, 0.0358, 0.004);
    assert_memory_equal(&b, &again, sizeof(b));
    assert_int_equal(sh_bootstrap_mean(few, SH_BOOTSTRAP_MIN - 1, 1, &a), SH_OK);
    assert_true(isnan(a.lo) && isnan(a.hi));
}

static void bootstrap__pairs_cover_the_point_estimate(void **state)
{
    (void)state;
    world *w = make_world(18);
    sh_pair *pairs = NULL;
    int64_t n = 0;
    double fpr[] = {0.1}, tpr, auc;
    sh_interval auc_interval, tpr_interval;

    assert_int_equal(sh_retrieval_pairs(&w->set, (sh_pair_rule){0}, 1 << 20, &pairs, &n), SH_OK);
    sh_pairs_figures(pairs, n, (sh_pair_weights){0}, fpr, 1, &auc, &tpr);
    assert_int_equal(sh_bootstrap_pairs(pairs, n, FISH, (sh_pair_weights){0}, fpr, 1, 1,
                                        &auc_interval, &tpr_interval),
                     SH_OK);
    assert_true(auc_interval.lo < auc && auc < auc_interval.hi);
    assert_true(tpr_interval.lo < tpr && tpr < tpr_interval.hi);
    assert_true(auc_interval.hi - auc_interval.lo < 0.5);
    free(pairs);
    free(w);
}

static void nearest__lists_ascending_and_leaves_out_what_is_skipped(void **state)
{
    (void)state;
    float gallery[] = {3, 1, 2, 1, 9};
    uint8_t skip[] = {0, 0, 1, 0, 0};
    float zero = 0, d[6];
    int64_t rows[6];

    sh_nearest(&zero, gallery, 5, 1, skip, 6, rows, d);
    assert_int_equal(rows[0], 1);
    assert_int_equal(rows[1], 3);
    assert_int_equal(rows[2], 0);
    assert_int_equal(rows[3], 4);
    assert_int_equal(rows[4], -1);
    assert_true(isinf(d[5]));
}

static void classification__counts_absent_predictions_as_zero(void **state)
{
    (void)state;
    int32_t truth[] = {0, 0, 1, 2}, predicted[] = {0, 1, 1, 1};
    int64_t confusion[16];
    sh_classification c;

    sh_classify_score(truth, predicted, 4, 4, confusion, &c); /* class 3 occurs nowhere */
    assert_close(c.accuracy, 0.5, 1e-12);
    assert_close(c.macro_recall, (0.5 + 1 + 0) / 3, 1e-12);
    assert_close(c.macro_precision, (1 + 1.0 / 3 + 0) / 3, 1e-12);
    assert_int_equal(confusion[0 * 4 + 1], 1);
    assert_int_equal(confusion[2 * 4 + 1], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auc__equals_the_share_of_ordered_pairs_with_ties_half),
        cmocka_unit_test(tpr_at_fpr__never_exceeds_the_rate_and_is_the_largest),
        cmocka_unit_test(threshold__refuses_everything_when_the_nearest_pair_is_a_false_match),
        cmocka_unit_test(equal_error__meets_both_errors),
        cmocka_unit_test(curve__starts_at_0_0_ends_at_1_1_and_never_falls),
        cmocka_unit_test(pairs_figures__agree_with_levels_under_any_weights),
        cmocka_unit_test(bins__approach_the_exact_figures),
        cmocka_unit_test(retrieve__equals_a_sorted_list_without_own_recording),
        cmocka_unit_test(retrieve__keeps_other_fish_of_the_same_recording_as_distractors),
        cmocka_unit_test(retrieve__gives_nothing_to_embeddings_that_are_all_the_same),
        cmocka_unit_test(chance__is_the_mean_over_random_embeddings),
        cmocka_unit_test(average__weighs_individuals_equally_whatever_their_number_of_images),
        cmocka_unit_test(gallery_size__falls_from_one_to_the_full_gallery),
        cmocka_unit_test(sides__split_the_gallery_without_losing_an_image),
        cmocka_unit_test(gaps__count_only_matches_that_many_days_away),
        cmocka_unit_test(pairs__of_one_fish_are_kept_where_only_a_part_has_room),
        cmocka_unit_test(balance__gives_every_individual_the_same_say),
        cmocka_unit_test(bootstrap__interval_covers_the_mean_and_narrows_with_more_fish),
        cmocka_unit_test(bootstrap__pairs_cover_the_point_estimate),
        cmocka_unit_test(nearest__lists_ascending_and_leaves_out_what_is_skipped),
        cmocka_unit_test(classification__counts_absent_predictions_as_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

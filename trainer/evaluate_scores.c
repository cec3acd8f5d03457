// SPDX-License-Identifier: Apache-2.0
/* The sections of an evaluation, each from embeddings or from queries to one JSON object. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/bootstrap.h"
#include "trainer/evaluate.h"

static const double fpr_rates[] = {1e-4, 1e-3, 1e-2, 1e-1};
enum { N_RATES = SH_COUNT(fpr_rates), CURVE_POINTS = 240, SWEEP_POINTS = 41 };

static json_t *scores_object(const sh_rank_scores *s)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:i}", "rank1", sh_json_number(s->rank1),
                     "rank5", sh_json_number(s->rank5), "rank10", sh_json_number(s->rank10), "map",
                     sh_json_number(s->map), "queries", (json_int_t)s->n_queries, "unmatched",
                     (json_int_t)s->n_unmatched, "groups", s->n_groups);
}

static json_t *interval_object(sh_interval interval)
{
    return json_pack("[o, o]", sh_json_number(interval.lo), sh_json_number(interval.hi));
}

/* Interval of one of the scores over individuals. */
static sh_status add_interval(const sh_rank_scores *per_fish, int n, size_t offset,
                              const char *name, uint64_t seed, json_t *object)
{
    sh_status st = SH_OK;
    double *values = malloc((size_t)n * sizeof(*values) + 1);
    sh_interval interval;

    SH_CHECK(values != NULL, SH_ERR_NO_MEMORY, "interval of %d individuals", n);
    for (int i = 0; i < n; i++) values[i] = *(const double *)((const char *)&per_fish[i] + offset);
    SH_TRY(sh_bootstrap_mean(values, n, seed, &interval));
    json_object_set_new(object, name, interval_object(interval));
out:
    free(values);
    return st;
}

sh_status sh_eval_identification(const sh_eval_data *data, const sh_query *queries, uint64_t seed,
                                 json_t **out, sh_rank_scores *per_fish)
{
    sh_status st = SH_OK;
    sh_rank_scores fish, track, image;
    json_t *root = json_object(), *headline = NULL;
    sh_rank_scores *each = per_fish;

    if (each == NULL) each = malloc(((size_t)data->n_individuals + 1) * sizeof(*each));
    SH_CHECK(each != NULL, SH_ERR_NO_MEMORY, "scores per individual");
    SH_TRY(sh_rank_average(queries, data->n, data->individual, data->n_individuals, &fish, each));
    SH_TRY(sh_rank_average(queries, data->n, data->track, data->n_tracks, &track, NULL));
    SH_TRY(sh_rank_average(queries, data->n, NULL, 0, &image, NULL));
    headline = scores_object(&fish);
    json_object_set_new(root, "per_individual", headline);
    SH_TRY(add_interval(each, data->n_individuals, offsetof(sh_rank_scores, rank1),
                        "rank1_interval", seed, headline));
    SH_TRY(add_interval(each, data->n_individuals, offsetof(sh_rank_scores, map), "map_interval",
                        seed, headline));
    json_object_set_new(root, "per_track", scores_object(&track));
    json_object_set_new(root, "per_image", scores_object(&image));
    *out = root;
    root = NULL;
out:
    if (each != per_fish) free(each);
    json_decref(root);
    return st;
}

/* ---- verification ---- */

static json_t *sweep_array(const sh_levels *levels)
{
    json_t *sweep = json_array();
    double top = levels->n > 0 ? levels->distance[levels->n - 1] : 0;

    for (int i = 0; i < SWEEP_POINTS; i++) {
        sh_threshold_point p = sh_levels_at(levels, top * i / (SWEEP_POINTS - 1));

        json_array_append_new(
            sweep, json_pack("{s:o, s:o, s:o, s:o}", "threshold", sh_json_number(p.threshold),
                             "total", sh_json_number(p.total), "same", sh_json_number(p.same),
                             "different", sh_json_number(p.different)));
    }
    return sweep;
}

static json_t *curve_object(const sh_levels *levels)
{
    double fpr[CURVE_POINTS], tpr[CURVE_POINTS];
    int n = sh_levels_curve(levels, CURVE_POINTS, fpr, tpr);
    json_t *x = json_array(), *y = json_array();

    for (int i = 0; i < n; i++) {
        json_array_append_new(x, json_real(fpr[i]));
        json_array_append_new(y, json_real(tpr[i]));
    }
    return json_pack("{s:o, s:o}", "fpr", x, "tpr", y);
}

/* With intervals where they are given. */
static json_t *rates_array(const sh_levels *levels, const sh_interval *intervals,
                           double n_independent)
{
    json_t *rates = json_array();

    for (int i = 0; i < N_RATES; i++) {
        json_t *rate = json_pack("{s:f, s:o, s:b}", "fpr", fpr_rates[i], "tpr",
                                 sh_json_number(sh_levels_tpr_at_fpr(levels, fpr_rates[i])),
                                 "estimable", fpr_rates[i] * n_independent >= 1);

        if (intervals != NULL) json_object_set_new(rate, "interval", interval_object(intervals[i]));
        json_array_append_new(rates, rate);
    }
    return rates;
}

static json_t *verification_object(const sh_levels *levels, const sh_interval *auc,
                                   const sh_interval *tpr, double n_independent)
{
    json_t *root =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:b}", "auc", sh_json_number(sh_levels_auc(levels)),
                  "equal_error", sh_json_number(sh_levels_equal_error(levels)), "tpr_at_fpr",
                  rates_array(levels, tpr, n_independent), "curve", curve_object(levels), "sweep",
                  sweep_array(levels), "binned", levels->binned);

    if (auc != NULL) json_object_set_new(root, "auc_interval", interval_object(*auc));
    return root;
}

sh_status sh_eval_verification(const sh_eval_data *data, const sh_eval_set *set, uint64_t seed,
                               json_t **out)
{
    sh_status st = SH_OK;
    sh_levels balanced = {0}, plain = {0}, leaking = {0};
    sh_pair *pairs = NULL;
    int64_t n_pairs = 0;
    double *weights = malloc(((size_t)set->n_individuals * 2 + 1) * sizeof(double));
    sh_interval auc, tpr[N_RATES];
    double n_fish = data->n_individuals, n_independent = n_fish * (n_fish - 1) / 2;
    json_t *root = json_object();

    SH_CHECK(weights != NULL, SH_ERR_NO_MEMORY, "pair weights");
    SH_TRY(sh_retrieval_levels(set, (sh_pair_rule){0}, true, &balanced));
    SH_TRY(sh_retrieval_levels(set, (sh_pair_rule){0}, false, &plain));
    SH_TRY(sh_retrieval_levels(set, (sh_pair_rule){.everything = true}, false, &leaking));
    SH_TRY(sh_retrieval_pairs(set, (sh_pair_rule){0}, SH_BOOTSTRAP_PAIRS, &pairs, &n_pairs));
    sh_retrieval_balance(set, pairs, n_pairs, weights, weights + set->n_individuals);
    SH_TRY(sh_bootstrap_pairs(pairs, n_pairs, set->n_individuals,
                              (sh_pair_weights){weights, weights + set->n_individuals}, fpr_rates,
                              N_RATES, seed, &auc, tpr));
    json_object_set_new(root, "per_individual",
                        verification_object(&balanced, &auc, tpr, n_independent));
    json_object_set_new(root, "per_image_pair",
                        verification_object(&plain, NULL, NULL, n_independent));
    json_object_set_new(root, "all_pairs_leaking",
                        verification_object(&leaking, NULL, NULL, n_independent));
    json_object_set_new(root, "same_pairs", json_integer(plain.n_same));
    json_object_set_new(root, "different_pairs", json_integer(plain.n_diff));
    json_object_set_new(root, "pairs_of_individuals", json_integer((json_int_t)n_independent));
    *out = root;
    root = NULL;
out:
    json_decref(root);
    free(weights);
    free(pairs);
    sh_levels_clear(&balanced);
    sh_levels_clear(&plain);
    sh_levels_clear(&leaking);
    return st;
}

/* ---- gallery size, sides, time ---- */

sh_status sh_eval_gallery(const sh_eval_data *data, const sh_query *queries, json_t **out)
{
    sh_status st = SH_OK;
    json_t *root = json_array();
    int n_max = 0;

    for (int64_t i = 0; i < data->n; i++)
        if (queries[i].n_matches > 0 && queries[i].n_others + 1 > n_max)
            n_max = queries[i].n_others + 1;
    for (int n = 2; n <= n_max; n = n < n_max && n * 3 / 2 > n_max ? n_max : n * 3 / 2 + (n == 2)) {
        double rank1;

        SH_TRY(
            sh_rank_at_gallery(queries, data->n, data->individual, data->n_individuals, n, &rank1));
        json_array_append_new(
            root, json_pack("{s:i, s:o}", "individuals", n, "rank1", sh_json_number(rank1)));
        if (n == n_max) break;
    }
    *out = root;
    root = NULL;
out:
    json_decref(root);
    return st;
}

static sh_status side_scores(const sh_eval_data *data, const sh_eval_set *set, sh_side_rule rule,
                             sh_query *queries, json_t **out)
{
    sh_status st = SH_OK;
    sh_levels levels = {0};
    sh_rank_scores scores;

    SH_TRY(sh_retrieve(set, &(sh_gallery_rule){.sides = rule}, queries));
    SH_TRY(sh_rank_average(queries, set->n, data->individual, data->n_individuals, &scores, NULL));
    SH_TRY(sh_retrieval_levels(set, (sh_pair_rule){.sides = rule}, false, &levels));
    *out = scores_object(&scores);
    json_object_set_new(*out, "auc", sh_json_number(sh_levels_auc(&levels)));
out:
    sh_levels_clear(&levels);
    return st;
}

sh_status sh_eval_sides(const sh_eval_data *data, const sh_eval_set *set, json_t **out)
{
    sh_status st = SH_OK;
    json_t *same = NULL, *cross = NULL;
    sh_query *queries = malloc((size_t)set->n * sizeof(*queries) + 1);

    SH_CHECK(queries != NULL, SH_ERR_NO_MEMORY, "queries by side");
    *out = NULL;
    if (data->has_sides) {
        SH_TRY(side_scores(data, set, SH_SAME_SIDE, queries, &same));
        SH_TRY(side_scores(data, set, SH_CROSS_SIDE, queries, &cross));
        *out = json_pack("{s:O, s:O}", "same_side", same, "cross_side", cross);
    } else {
        *out = json_null();
    }
out:
    json_decref(same);
    json_decref(cross);
    free(queries);
    return st;
}

sh_status sh_eval_time(const sh_eval_data *data, const sh_query *queries, json_t **out)
{
    sh_status st = SH_OK;
    json_t *root = data->has_times ? json_array() : json_null();

    for (int gap = 0; data->has_times && gap < SH_N_GAPS; gap++) {
        double rank1;
        int64_t n;

        SH_TRY(sh_rank_at_gap(queries, data->n, data->individual, data->n_individuals, gap, &rank1,
                              &n));
        if (n == 0) continue;
        json_array_append_new(root, json_pack("{s:s, s:o, s:I}", "gap", sh_gap_names[gap], "rank1",
                                              sh_json_number(rank1), "queries", (json_int_t)n));
    }
    *out = root;
    root = NULL;
out:
    json_decref(root);
    return st;
}

/* ---- floors, individuals ---- */

sh_status sh_eval_floor(const sh_eval_data *data, const float *embeddings, int64_t dim,
                        json_t **out)
{
    sh_status st = SH_OK;
    sh_eval_set set = sh_eval_data_set(data, embeddings, dim);
    sh_levels levels = {0};
    sh_rank_scores scores;
    float *zeros = NULL;
    sh_query *queries = malloc((size_t)data->n * sizeof(*queries) + 1);
    double auc = 0.5;

    SH_CHECK(queries != NULL, SH_ERR_NO_MEMORY, "queries of a floor");
    if (embeddings == NULL) {
        zeros = calloc((size_t)data->n + 1, sizeof(*zeros));
        SH_CHECK(zeros != NULL, SH_ERR_NO_MEMORY, "queries of a floor");
        set.embeddings = zeros; /* only who is in whose gallery matters */
        set.dim = 1;
        SH_TRY(sh_retrieve(&set, &(sh_gallery_rule){0}, queries));
        SH_TRY(sh_rank_chance(queries, data->n, data->individual, data->n_individuals, &scores));
    } else {
        SH_TRY(sh_retrieve(&set, &(sh_gallery_rule){0}, queries));
        SH_TRY(sh_rank_average(queries, data->n, data->individual, data->n_individuals, &scores,
                               NULL));
        SH_TRY(sh_retrieval_levels(&set, (sh_pair_rule){0}, true, &levels));
        auc = sh_levels_auc(&levels);
    }
    *out = scores_object(&scores);
    json_object_set_new(*out, "auc", sh_json_number(auc));
out:
    free(zeros);
    free(queries);
    sh_levels_clear(&levels);
    return st;
}

/* Whom the queries of `individual` were answered with instead, most often; -1: nobody. */
static int32_t most_confused(const sh_eval_data *data, const sh_query *queries, int32_t individual,
                             int64_t *counts, int64_t *n)
{
    int32_t worst = -1;

    memset(counts, 0, (size_t)data->n_individuals * sizeof(*counts));
    for (int64_t i = 0; i < data->n; i++) {
        if (data->individual[i] != individual || queries[i].n_matches == 0) continue;
        if (queries[i].nearest == queries[i].nearest_wrong)
            counts[data->individual[queries[i].nearest]]++;
    }
    for (int32_t k = 0; k < data->n_individuals; k++)
        if (counts[k] > 0 && (worst < 0 || counts[k] > counts[worst])) worst = k;
    *n = worst >= 0 ? counts[worst] : 0;
    return worst;
}

sh_status sh_eval_individuals(const sh_eval_data *data, const sh_query *queries,
                              const sh_rank_scores *per_fish, json_t **out)
{
    sh_status st = SH_OK;
    size_t n_fish = (size_t)data->n_individuals + 1;
    int64_t *counts = malloc(n_fish * sizeof(*counts));
    int64_t *n_crops = calloc(n_fish, sizeof(*n_crops)),
            *n_tracks = calloc(n_fish, sizeof(int64_t));
    int32_t *last_track = malloc((size_t)data->n_tracks * sizeof(*last_track) + 1);
    json_t *root = json_array();

    SH_CHECK(counts != NULL && n_crops != NULL && n_tracks != NULL && last_track != NULL,
             SH_ERR_NO_MEMORY, "scores per individual");
    for (int t = 0; t < data->n_tracks; t++) last_track[t] = -1;
    for (int64_t i = 0; i < data->n; i++) {
        n_crops[data->individual[i]]++;
        if (last_track[data->track[i]] < 0) n_tracks[data->individual[i]]++;
        last_track[data->track[i]] = data->individual[i];
    }
    for (int32_t f = 0; f < data->n_individuals; f++) {
        int64_t n_worst = 0;
        int32_t worst = most_confused(data, queries, f, counts, &n_worst);
        json_t *fish = scores_object(&per_fish[f]);

        json_object_del(fish, "unmatched");
        json_object_del(fish, "groups");
        json_object_set_new(fish, "name", json_string(sh_eval_data_name(data, f)));
        json_object_set_new(fish, "crops", json_integer(n_crops[f]));
        json_object_set_new(fish, "recordings", json_integer(n_tracks[f]));
        if (worst >= 0) {
            json_object_set_new(fish, "taken_for", json_string(sh_eval_data_name(data, worst)));
            json_object_set_new(fish, "taken_for_queries", json_integer(n_worst));
        }
        json_array_append_new(root, fish);
    }
    *out = root;
    root = NULL;
out:
    json_decref(root);
    free(counts);
    free(n_crops);
    free(n_tracks);
    free(last_track);
    return st;
}

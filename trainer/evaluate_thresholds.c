// SPDX-License-Identifier: Apache-2.0
/* Choosing the operating thresholds, what they do elsewhere, and unknown fish. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "trainer/bootstrap.h"
#include "trainer/embedder.h"
#include "trainer/evaluate.h"
#include "trainer/run.h"

/* Answers of searches as pairs: (i, i) for a search whose fish is in the gallery, (i, nobody) for
 * one whose fish is not, nobody = n_individuals. Each individual weighs 1 on either side. */
typedef struct searches {
    sh_pair *list;
    int64_t n;
    double *same, *diff; /* [n_individuals + 1] */
    int n_individuals;
} searches;

static sh_status searches_create(int n_individuals, int64_t room, searches *out)
{
    sh_status st = SH_OK;
    size_t n = (size_t)n_individuals + 1;

    *out = (searches){.n_individuals = n_individuals};
    out->list = malloc((size_t)room * sizeof(*out->list) + 1);
    out->same = calloc(n, sizeof(double));
    out->diff = calloc(n, sizeof(double));
    SH_CHECK(out->list != NULL && out->same != NULL && out->diff != NULL, SH_ERR_NO_MEMORY,
             "%lld searches", (long long)room);
out:
    return st;
}

static void searches_clear(searches *s)
{
    free(s->list);
    free(s->same);
    free(s->diff);
    *s = (searches){0};
}

static void add_search(searches *s, float distance, int32_t individual, bool known)
{
    s->list[s->n++] = (sh_pair){distance, individual, known ? individual : s->n_individuals};
    (known ? s->same : s->diff)[individual] += 1;
}

static sh_status searches_levels(searches *s, sh_levels *out)
{
    for (int i = 0; i < s->n_individuals; i++) {
        s->same[i] = s->same[i] > 0 ? 1 / s->same[i] : 0;
        s->diff[i] = s->diff[i] > 0 ? 1 / s->diff[i] : 0;
    }
    s->diff[s->n_individuals] = 1;
    sh_pairs_sort(s->list, s->n);
    return sh_levels_from_pairs(s->list, s->n, (sh_pair_weights){s->same, s->diff}, out);
}

/* Every image searches the others twice: as a fish that is there, and as one that is not. */
static sh_status validation_searches(const sh_eval_set *set, sh_levels *out)
{
    sh_status st = SH_OK;
    searches s = {0};
    sh_query *queries = malloc((size_t)set->n * sizeof(*queries) + 1);

    SH_CHECK(queries != NULL, SH_ERR_NO_MEMORY, "%lld searches", (long long)set->n);
    SH_TRY(sh_retrieve(set, &(sh_gallery_rule){0}, queries));
    SH_TRY(searches_create(set->n_individuals, 2 * set->n, &s));
    for (int64_t i = 0; i < set->n; i++) {
        const sh_query *q = &queries[i];

        if (q->nearest_right >= 0) add_search(&s, q->right_distance, set->individual[i], true);
        if (q->nearest_wrong >= 0) add_search(&s, q->wrong_distance, set->individual[i], false);
    }
    SH_TRY(searches_levels(&s, out));
out:
    searches_clear(&s);
    free(queries);
    return st;
}

sh_status sh_thresholds_choose(const sh_eval_set *validation, double rate, sh_thresholds *out)
{
    sh_status st = SH_OK;
    sh_levels pairs = {0}, search = {0};
    int64_t n = validation->n_individuals;

    SH_TRY(sh_retrieval_levels(validation, (sh_pair_rule){0}, true, &pairs));
    SH_TRY(validation_searches(validation, &search));
    SH_CHECK(pairs.total_same > 0 && pairs.total_diff > 0, SH_ERR_NOT_FOUND,
             "no threshold: the %lld validation individuals give %lld pairs of one fish and %lld "
             "of two (one fish needs two recordings)",
             (long long)n, (long long)pairs.n_same, (long long)pairs.n_diff);

    double strict = sh_levels_threshold(&search, rate);
    double generous = sh_levels_threshold_for_tpr(&search, 1 - SH_THRESHOLD_MISSES);

    *out = (sh_thresholds){.rate = rate,
                           .pair = sh_levels_threshold(&pairs, rate),
                           .accept = fmin(strict, generous),
                           .reject = fmax(strict, generous),
                           .n_individuals = (int)n,
                           .n_pairs_of_individuals = n * (n - 1) / 2,
                           .n_images = validation->n};
    out->pair_misses = 1 - sh_levels_at(&pairs, out->pair).same;
    out->search_misses = 1 - sh_levels_at(&search, out->accept).same;
out:
    sh_levels_clear(&pairs);
    sh_levels_clear(&search);
    return st;
}

/* ---- kept with the run ---- */

sh_status sh_eval_model_hash(const char *run, char text[33])
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *data = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_run_path(run, "model.safetensors", path));
    SH_TRY(sh_file_get(path, (size_t)16 << 30, &data, &n_bytes));
    sh_hash_format(sh_hash_content(data, n_bytes), text);
out:
    free(data);
    return st;
}

/* Names and places of the stored numbers. */
static const struct {
    const char *name;
    size_t offset;
} stored_reals[] = {
    {"false_match_rate", offsetof(sh_thresholds, rate)},
    {"pair", offsetof(sh_thresholds, pair)},
    {"accept", offsetof(sh_thresholds, accept)},
    {"reject", offsetof(sh_thresholds, reject)},
    {"validation_pair_misses", offsetof(sh_thresholds, pair_misses)},
    {"validation_search_misses", offsetof(sh_thresholds, search_misses)},
};

static sh_status write_thresholds(const char *run, const char *model, const sh_thresholds *t)
{
    sh_status st = SH_OK;
    json_t *root = json_object();

    json_object_set_new(root, "model", json_string(model));
    for (size_t i = 0; i < SH_COUNT(stored_reals); i++) {
        double value = *(const double *)((const char *)t + stored_reals[i].offset);

        json_object_set_new(root, stored_reals[i].name, sh_json_number(value));
    }
    json_object_set_new(root, "individuals", json_integer(t->n_individuals));
    json_object_set_new(root, "pairs_of_individuals", json_integer(t->n_pairs_of_individuals));
    json_object_set_new(root, "images", json_integer(t->n_images));
    SH_TRY(sh_run_put_json(run, "threshold.json", root));
out:
    json_decref(root);
    return st;
}

/* SH_ERR_NOT_FOUND: absent, or of another model. */
static sh_status read_thresholds(const char *run, const char *model, sh_thresholds *out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    json_t *root = NULL;

    SH_TRY(sh_run_path(run, "threshold.json", path));
    SH_CHECK(sh_file_exists(path), SH_ERR_NOT_FOUND, "%s is absent", path);
    SH_TRY(sh_run_get_json(run, "threshold.json", &root));

    const char *of = json_string_value(json_object_get(root, "model"));

    SH_CHECK(of != NULL && strcmp(of, model) == 0, SH_ERR_NOT_FOUND, "%s is of another model",
             path);
    *out = (sh_thresholds){0};
    for (size_t i = 0; i < SH_COUNT(stored_reals); i++) {
        const json_t *value = json_object_get(root, stored_reals[i].name);

        SH_CHECK(json_is_number(value), SH_ERR_FORMAT,
                 "%s: \"%s\" is missing; delete the file to choose thresholds anew", path,
                 stored_reals[i].name);
        *(double *)((char *)out + stored_reals[i].offset) = json_number_value(value);
    }
    out->n_individuals = (int)json_integer_value(json_object_get(root, "individuals"));
    out->n_pairs_of_individuals = json_integer_value(json_object_get(root, "pairs_of_individuals"));
    out->n_images = json_integer_value(json_object_get(root, "images"));
out:
    json_decref(root);
    return st;
}

static sh_status make_thresholds(const char *run, int threads, sh_thresholds *out)
{
    sh_status st = SH_OK;
    sh_dataset *dataset = NULL;
    sh_split split = {0};
    sh_embedder *embedder = NULL;
    sh_eval_data data = {0};
    int64_t *crops = NULL, n = 0;
    sh_config *config = malloc(sizeof(*config));

    SH_CHECK(config != NULL, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(sh_run_load_config(run, config));
    SH_TRY(sh_run_open_data(run, config, &dataset, &split));
    SH_TRY(sh_eval_select(dataset, split.part, SH_PART_VAL, &crops, &n));
    SH_CHECK(n > 0, SH_ERR_NOT_FOUND,
             "no threshold: the split of %s has no validation individuals (split.val)", run);
    SH_TRY(sh_eval_data_create(dataset, crops, n, &data));
    SH_TRY(sh_embedder_create(run, false, threads, &embedder));
    data.dim = sh_embedder_dim(embedder);
    data.embeddings = malloc((size_t)(data.n * data.dim) * sizeof(float) + 1);
    SH_CHECK(data.embeddings != NULL, SH_ERR_NO_MEMORY, "embeddings");
    SH_TRY(sh_embedder_run(embedder, dataset, data.crops, data.n, "validation crops",
                           data.embeddings));

    sh_eval_set set = sh_eval_data_set(&data, data.embeddings, data.dim);

    SH_TRY(sh_thresholds_choose(&set, config->validate.false_match_rate, out));
out:
    free(config);
    free(crops);
    sh_eval_data_clear(&data);
    sh_embedder_destroy(&embedder);
    sh_split_clear(&split);
    sh_dataset_close(&dataset);
    return st;
}

sh_status sh_thresholds_of_run(const char *run, int threads, sh_thresholds *out)
{
    sh_status st = SH_OK;
    char model[33];

    SH_TRY(sh_eval_model_hash(run, model));
    st = read_thresholds(run, model, out);
    if (st == SH_ERR_NOT_FOUND) {
        sh_error_clear();
        SH_TRY(make_thresholds(run, threads, out));
        SH_TRY(write_thresholds(run, model, out));
    }
out:
    return st;
}

/* ---- what they do ---- */

sh_status sh_eval_thresholds(const sh_eval_set *set, const sh_query *queries,
                             const sh_thresholds *thresholds, json_t **out)
{
    sh_status st = SH_OK;
    sh_levels balanced = {0};
    int64_t n = 0, right = 0, wrong = 0, look = 0, refused = 0;

    SH_TRY(sh_retrieval_levels(set, (sh_pair_rule){0}, true, &balanced));
    for (int64_t i = 0; i < set->n; i++) {
        const sh_query *q = &queries[i];

        if (q->n_matches == 0) continue;
        n++;
        if (q->distance > thresholds->reject)
            refused++;
        else if (q->distance > thresholds->accept)
            look++;
        else if (q->nearest == q->nearest_right)
            right++;
        else
            wrong++;
    }

    sh_threshold_point at = sh_levels_at(&balanced, thresholds->pair);
    double share = n > 0 ? 1.0 / (double)n : NAN;

    *out = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:i, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "chosen_at",
        sh_json_number(thresholds->rate), "pair", sh_json_number(thresholds->pair), "accept",
        sh_json_number(thresholds->accept), "reject", sh_json_number(thresholds->reject),
        "validation_misses", sh_json_number(thresholds->pair_misses), "validation_individuals",
        thresholds->n_individuals, "validation_pairs_of_individuals",
        (json_int_t)thresholds->n_pairs_of_individuals, "rate_estimable",
        thresholds->rate * (double)thresholds->n_pairs_of_individuals >= 1, "false_matches",
        sh_json_number(1 - at.different), "misses", sh_json_number(1 - at.same), "search_right",
        sh_json_number((double)right * share), "search_wrong",
        sh_json_number((double)wrong * share), "search_look", sh_json_number((double)look * share),
        "search_refused", sh_json_number((double)refused * share));
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "threshold figures");
out:
    sh_levels_clear(&balanced);
    return st;
}

/* ---- unknown fish ---- */

/* Per individual: searches, and those that ended in an error. */
typedef struct tally {
    double *n, *errors; /* [n_individuals] */
} tally;

static sh_status tally_share(const tally *t, int n_individuals, uint64_t seed, json_t **out)
{
    sh_status st = SH_OK;
    double *rates = malloc(((size_t)n_individuals + 1) * sizeof(double));
    double sum = 0;
    int n_present = 0;
    sh_interval interval;

    SH_CHECK(rates != NULL, SH_ERR_NO_MEMORY, "rates");
    for (int i = 0; i < n_individuals; i++) {
        rates[i] = t->n[i] > 0 ? t->errors[i] / t->n[i] : NAN;
        if (t->n[i] > 0) {
            sum += rates[i];
            n_present++;
        }
    }
    SH_TRY(sh_bootstrap_mean(rates, n_individuals, seed, &interval));
    *out = json_pack("{s:o, s:o, s:o}", "value", sh_json_number(sum / n_present), "lo",
                     sh_json_number(interval.lo), "hi", sh_json_number(interval.hi));
out:
    free(rates);
    return st;
}

enum { UNKNOWN_FOLDS = 3, N_TALLIES = 3 }; /* false matches, misses, wrong fish */

/* Gallery mask of one third: `order` is a keyed shuffle of the individuals. */
static void hold_out(const int64_t *order, int n, int fold, uint8_t *known)
{
    for (int i = 0; i < n; i++) known[order[i]] = i % UNKNOWN_FOLDS != fold;
}

static void count_third(const sh_eval_set *set, const sh_query *queries, const uint8_t *known,
                        const sh_thresholds *thresholds, searches *s, tally tallies[N_TALLIES])
{
    double accept = thresholds != NULL ? thresholds->accept : NAN;

    for (int64_t i = 0; i < set->n; i++) {
        const sh_query *q = &queries[i];
        int32_t own = set->individual[i];
        bool accepted = q->distance <= accept;

        if (q->nearest < 0 || (known[own] && q->n_matches == 0)) continue;
        add_search(s, q->distance, own, known[own]);
        if (!known[own]) {
            tallies[0].n[own] += 1;
            tallies[0].errors[own] += accepted;
        } else {
            tallies[1].n[own] += 1;
            tallies[1].errors[own] += !accepted;
            tallies[2].n[own] += 1;
            tallies[2].errors[own] += accepted && q->nearest == q->nearest_wrong;
        }
    }
}

static const char *const tally_names[N_TALLIES] = {"false_matches", "misses", "wrong_fish"};

sh_status sh_eval_unknown(const sh_eval_set *set, const sh_thresholds *thresholds, uint64_t seed,
                          json_t **out)
{
    sh_status st = SH_OK;
    int n = set->n_individuals;
    searches s = {0};
    sh_levels levels = {0};
    json_t *root = NULL;
    uint8_t *known = malloc((size_t)n + 1);
    int64_t *order = malloc(((size_t)n + 1) * sizeof(*order));
    double *counts = calloc((size_t)n * 2 * N_TALLIES + 1, sizeof(*counts));
    sh_query *queries = malloc((size_t)set->n * sizeof(*queries) + 1);
    tally tallies[N_TALLIES];

    SH_CHECK(known != NULL && order != NULL && counts != NULL && queries != NULL, SH_ERR_NO_MEMORY,
             "unknown fish");
    if (n < UNKNOWN_FOLDS) {
        *out = json_null();
        goto out;
    }
    for (int i = 0; i < n; i++) order[i] = i;
    sh_rng_shuffle(sh_rng_make(seed, SH_RNG_OPEN_SET, 0, 0), order, n);
    for (int t = 0; t < N_TALLIES; t++)
        tallies[t] = (tally){counts + (size_t)(2 * t) * n, counts + (size_t)(2 * t + 1) * n};
    SH_TRY(searches_create(n, UNKNOWN_FOLDS * set->n, &s));
    for (int fold = 0; fold < UNKNOWN_FOLDS; fold++) {
        hold_out(order, n, fold, known);
        SH_TRY(sh_retrieve(set, &(sh_gallery_rule){.individuals = known}, queries));
        count_third(set, queries, known, thresholds, &s, tallies);
    }
    SH_TRY(searches_levels(&s, &levels));
    root =
        json_pack("{s:o, s:i, s:I, s:I}", "detection_auc", sh_json_number(sh_levels_auc(&levels)),
                  "held_out_individuals", (n + UNKNOWN_FOLDS - 1) / UNKNOWN_FOLDS, "known_searches",
                  (json_int_t)levels.n_same, "unknown_searches", (json_int_t)levels.n_diff);
    for (int t = 0; thresholds != NULL && t < N_TALLIES; t++) {
        json_t *share = NULL;

        SH_TRY(tally_share(&tallies[t], n, seed, &share));
        json_object_set_new(root, tally_names[t], share);
    }
    *out = root;
    root = NULL;
out:
    json_decref(root);
    sh_levels_clear(&levels);
    searches_clear(&s);
    free(known);
    free(order);
    free(counts);
    free(queries);
    return st;
}

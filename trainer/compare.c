// SPDX-License-Identifier: Apache-2.0
#include "trainer/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "dataio/csv.h"
#include "trainer/evaluate.h"
#include "trainer/run.h"

static const char *const columns[] = {"name",    "individual", "recording", "gallery",
                                      "matches", "first_rank", "ap"};
enum { NAME, INDIVIDUAL, RECORDING, GALLERY, MATCHES, FIRST_RANK, AP, N_COLUMNS };

static sh_status find_columns(char **fields, int n_fields, const char *path, int at[N_COLUMNS])
{
    sh_status st = SH_OK;

    for (int c = 0; c < N_COLUMNS; c++) {
        at[c] = -1;
        for (int i = 0; i < n_fields; i++)
            if (strcmp(fields[i], columns[c]) == 0) at[c] = i;
        SH_CHECK(at[c] >= 0, SH_ERR_FORMAT, "%s has no column \"%s\"; run shoal eval again", path,
                 columns[c]);
    }
out:
    return st;
}

static sh_status append(sh_compare_group *group, char **fields, const int at[N_COLUMNS])
{
    sh_status st = SH_OK;
    sh_compared_query *q = NULL;

    if (group->n == group->capacity) {
        int64_t capacity = group->capacity > 0 ? 2 * group->capacity : 1024;
        sh_compared_query *grown =
            realloc(group->queries, (size_t)capacity * sizeof(*group->queries));

        SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "%lld queries", (long long)capacity);
        group->queries = grown;
        group->capacity = capacity;
    }
    q = &group->queries[group->n++];
    *q = (sh_compared_query){.name = strdup(fields[at[NAME]]),
                             .individual = strdup(fields[at[INDIVIDUAL]]),
                             .recording = strdup(fields[at[RECORDING]]),
                             .n_gallery = strtoll(fields[at[GALLERY]], NULL, 10),
                             .n_matches = strtoll(fields[at[MATCHES]], NULL, 10),
                             .rank1 = strcmp(fields[at[FIRST_RANK]], "1") == 0,
                             .ap = strtod(fields[at[AP]], NULL)};
    SH_CHECK(q->name != NULL && q->individual != NULL && q->recording != NULL, SH_ERR_NO_MEMORY,
             "queries");
out:
    return st;
}

/* An evaluation of weights that the run no longer has would be compared under its name. A folder
 * without a model, as other software may write one, has nothing to be stale against. */
static sh_status check_current(const char *run, const char *folder)
{
    sh_status st = SH_OK;
    json_t *evaluation = NULL;
    char model[33], path[SH_RUN_PATH];

    SH_TRY(sh_run_path(run, "model.safetensors", path));
    if (!sh_file_exists(path)) goto out;
    SH_TRY(sh_run_get_json(folder, "eval.json", &evaluation));
    SH_TRY(sh_eval_model_hash(run, model));

    const char *of = json_string_value(json_object_get(evaluation, "model"));

    SH_CHECK(of != NULL && strcmp(of, model) == 0, SH_ERR_MISMATCH,
             "the evaluation of %s is of other weights than its model.safetensors; run shoal eval "
             "%s again",
             run, run);
out:
    json_decref(evaluation);
    return st;
}

static sh_status read_run(const char *run, sh_compare_group *group)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH], path[SH_RUN_PATH];
    sh_csv *csv = NULL;
    char **fields = NULL;
    int n_fields = 0, at[N_COLUMNS];

    SH_TRY(sh_run_path(run, "eval", folder));
    SH_TRY(sh_run_path(folder, "queries.csv", path));
    SH_CHECK(sh_file_exists(path), SH_ERR_NOT_FOUND,
             "%s has not been evaluated: run shoal eval %s first", run, run);
    SH_TRY(check_current(run, folder));
    SH_TRY(sh_csv_open(path, ',', &csv));
    SH_TRY(sh_csv_next(csv, &fields, &n_fields));
    SH_TRY(find_columns(fields, n_fields, path, at));

    int n_columns = n_fields;

    for (;;) {
        SH_TRY(sh_csv_next(csv, &fields, &n_fields));
        if (n_fields == 0) break;
        SH_CHECK(n_fields == n_columns, SH_ERR_FORMAT, "%s, line %lld: %d fields instead of %d",
                 path, (long long)sh_csv_line(csv), n_fields, n_columns);
        SH_TRY(append(group, fields, at));
    }
out:
    sh_csv_close(&csv);
    return st;
}

static int compare_queries(const void *x, const void *y)
{
    const sh_compared_query *a = x, *b = y;
    int order = strcmp(a->name, b->name);

    if (order == 0) order = strcmp(a->individual, b->individual);
    if (order == 0) order = strcmp(a->recording, b->recording);
    return order;
}

sh_status sh_compare_read(const char *runs, sh_compare_group *out)
{
    sh_status st = SH_OK;
    sh_compare_group group = {.label = strdup(runs)};
    char *list = strdup(runs);

    SH_CHECK(group.label != NULL && list != NULL, SH_ERR_NO_MEMORY, "runs to compare");
    for (char *save = NULL, *run = strtok_r(list, ",", &save); run != NULL;
         run = strtok_r(NULL, ",", &save))
        SH_TRY(read_run(run, &group));
    SH_CHECK(group.n > 0, SH_ERR_USAGE, "\"%s\" names no queries", runs);
    qsort(group.queries, (size_t)group.n, sizeof(*group.queries), compare_queries);
    for (int64_t i = 1; i < group.n; i++)
        SH_CHECK(compare_queries(&group.queries[i - 1], &group.queries[i]) != 0, SH_ERR_MISMATCH,
                 "%s: %s is a query of two of the runs; folds must not overlap", runs,
                 group.queries[i].name);
    *out = group;
    group = (sh_compare_group){0};
out:
    free(list);
    sh_compare_group_clear(&group);
    return st;
}

void sh_compare_group_clear(sh_compare_group *group)
{
    for (int64_t i = 0; i < group->n; i++) {
        free(group->queries[i].name);
        free(group->queries[i].individual);
        free(group->queries[i].recording);
    }
    free(group->queries);
    free(group->label);
    *group = (sh_compare_group){0};
}

static sh_status check_same(const sh_compare_group *a, const sh_compare_group *b)
{
    sh_status st = SH_OK;

    for (int64_t i = 0; i < a->n && i < b->n; i++) {
        const sh_compared_query *p = &a->queries[i], *q = &b->queries[i];

        SH_CHECK(compare_queries(p, q) == 0, SH_ERR_MISMATCH,
                 "different test sets: %s asks %s (individual \"%s\", recording \"%s\"), %s asks "
                 "%s (individual \"%s\", recording \"%s\")",
                 a->label, p->name, p->individual, p->recording, b->label, q->name, q->individual,
                 q->recording);
        SH_CHECK(p->n_gallery == q->n_gallery && p->n_matches == q->n_matches, SH_ERR_MISMATCH,
                 "different galleries: for %s, %s has %lld images with %lld matches, %s has %lld "
                 "with %lld",
                 p->name, a->label, (long long)p->n_gallery, (long long)p->n_matches, b->label,
                 (long long)q->n_gallery, (long long)q->n_matches);
    }
    SH_CHECK(a->n == b->n, SH_ERR_MISMATCH, "different test sets: %s has %lld queries, %s %lld",
             a->label, (long long)a->n, b->label, (long long)b->n);
out:
    return st;
}

/* ---- averages per individual ---- */

typedef struct fish_scores {
    const char *individual;
    double n, rank1[2], ap[2];
} fish_scores;

static int compare_fish(const void *x, const void *y)
{
    return strcmp(((const fish_scores *)x)->individual, ((const fish_scores *)y)->individual);
}

/* Sums per scored query, sorted by individual and merged in place; returns how many. */
static int merge_individuals(fish_scores *fish, int64_t n)
{
    int n_fish = 0;

    qsort(fish, (size_t)n, sizeof(*fish), compare_fish);
    for (int64_t i = 0; i < n; i++) {
        if (n_fish == 0 || compare_fish(&fish[n_fish - 1], &fish[i]) != 0) {
            fish[n_fish++] = fish[i];
            continue;
        }
        fish[n_fish - 1].n += fish[i].n;
        for (int g = 0; g < 2; g++) {
            fish[n_fish - 1].rank1[g] += fish[i].rank1[g];
            fish[n_fish - 1].ap[g] += fish[i].ap[g];
        }
    }
    return n_fish;
}

static sh_status describe_difference(const double *differences, int n, uint64_t seed,
                                     sh_difference *out)
{
    *out = (sh_difference){0};
    for (int i = 0; i < n; i++) {
        out->mean += differences[i] / n;
        out->n_better += differences[i] > 0;
        out->n_worse += differences[i] < 0;
    }
    return sh_bootstrap_mean(differences, n, seed, &out->interval);
}

sh_status sh_compare(const sh_compare_group *a, const sh_compare_group *b, uint64_t seed,
                     sh_comparison *out)
{
    sh_status st = SH_OK;
    sh_comparison c = {0};
    fish_scores *fish = malloc((size_t)a->n * sizeof(*fish) + 1);
    double *rank1 = malloc((size_t)a->n * sizeof(*rank1) + 1);
    double *ap = malloc((size_t)a->n * sizeof(*ap) + 1);

    SH_CHECK(fish != NULL && rank1 != NULL && ap != NULL, SH_ERR_NO_MEMORY, "comparison");
    SH_TRY(check_same(a, b));
    for (int64_t i = 0; i < a->n; i++) {
        const sh_compared_query *p = &a->queries[i], *q = &b->queries[i];

        if (p->n_matches == 0) continue;
        fish[c.n_queries++] = (fish_scores){.individual = p->individual,
                                            .n = 1,
                                            .rank1 = {p->rank1, q->rank1},
                                            .ap = {p->ap, q->ap}};
    }
    SH_CHECK(c.n_queries > 0, SH_ERR_USAGE, "no query has a match: there is nothing to compare");
    c.n_individuals = merge_individuals(fish, c.n_queries);
    for (int i = 0; i < c.n_individuals; i++) {
        for (int g = 0; g < 2; g++) {
            c.rank1[g] += fish[i].rank1[g] / fish[i].n / c.n_individuals;
            c.map[g] += fish[i].ap[g] / fish[i].n / c.n_individuals;
        }
        rank1[i] = (fish[i].rank1[1] - fish[i].rank1[0]) / fish[i].n;
        ap[i] = (fish[i].ap[1] - fish[i].ap[0]) / fish[i].n;
    }
    SH_TRY(describe_difference(rank1, c.n_individuals, seed, &c.rank1_difference));
    SH_TRY(describe_difference(ap, c.n_individuals, seed, &c.map_difference));
    *out = c;
out:
    free(fish);
    free(rank1);
    free(ap);
    return st;
}

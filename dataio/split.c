// SPDX-License-Identifier: Apache-2.0
/**
 * A split deals units - individuals, recordings, crops - to parts. Units are sorted by name and
 * shuffled by a keyed draw, so that the result depends on names, labels and seed alone, not on the
 * order of packs or crops.
 */
#include "dataio/split.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

const char *sh_part_name(sh_part part)
{
    static const char *const names[] = {[SH_PART_NONE] = "none",
                                        [SH_PART_TRAIN] = "train",
                                        [SH_PART_VAL] = "val",
                                        [SH_PART_TEST] = "test"};

    return names[part];
}

/* Units of one split: ids are dense, from 0; -1 is a crop that belongs to none. A labelled crop
 * without a recording belongs to no recording: it trains, and the split is marked as leaking. */
typedef struct units {
    int64_t n;
    int64_t *of_crop;   /* [n_crops] */
    int64_t *order;     /* [n] units in the order in which parts are dealt */
    const char **names; /* [n] */
    int64_t *times;     /* [n] latest time of the unit, for SH_SPLIT_TIME */
} units;

static void clear_units(units *u)
{
    free(u->of_crop);
    free(u->order);
    free(u->names);
    free(u->times);
    *u = (units){0};
}

static int compare_names(const void *a, const void *b, void *context)
{
    const units *u = context;
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    int by_name = strcmp(u->names[x], u->names[y]);

    return by_name != 0 ? by_name : (x > y) - (x < y);
}

/* Latest first; units of one instant in reverse order of their names. */
static int compare_times(const void *a, const void *b, void *context)
{
    const units *u = context;
    int64_t x = u->times[*(const int64_t *)a], y = u->times[*(const int64_t *)b];

    return x != y ? (x < y) - (x > y) : -compare_names(a, b, context);
}

static int64_t unit_id(const sh_dataset *dataset, int64_t crop, sh_split_by by)
{
    const sh_crop *c = sh_dataset_crop(dataset, crop);

    if (c->individual == SH_NO_LABEL) return -1;
    return by == SH_SPLIT_INDIVIDUAL ? c->individual : by == SH_SPLIT_RANDOM ? crop : c->recording;
}

static const char *unit_name(const sh_dataset *dataset, int64_t id, sh_split_by by)
{
    return by == SH_SPLIT_INDIVIDUAL ? sh_dataset_individual(dataset, (int32_t)id)
           : by == SH_SPLIT_RANDOM   ? sh_dataset_crop(dataset, id)->name
                                     : sh_dataset_recording(dataset, (int32_t)id);
}

/* Only units that have a labelled crop count: the others would be shares of nothing. */
static sh_status gather_units(const sh_dataset *dataset, sh_split_by by, units *out)
{
    sh_status st = SH_OK;
    int64_t n_crops = sh_dataset_n_crops(dataset);
    int64_t n_ids = by == SH_SPLIT_INDIVIDUAL ? sh_dataset_n_individuals(dataset)
                    : by == SH_SPLIT_RANDOM   ? n_crops
                                              : sh_dataset_n_recordings(dataset);
    int64_t *dense = malloc(((size_t)n_ids + 1) * sizeof(*dense));

    out->of_crop = malloc(((size_t)n_crops + 1) * sizeof(*out->of_crop));
    out->order = malloc(((size_t)n_ids + 1) * sizeof(*out->order));
    out->names = malloc(((size_t)n_ids + 1) * sizeof(*out->names));
    out->times = malloc(((size_t)n_ids + 1) * sizeof(*out->times));
    SH_CHECK(dense != NULL && out->of_crop != NULL && out->order != NULL && out->names != NULL &&
                 out->times != NULL,
             SH_ERR_NO_MEMORY, "a split of %lld crops", (long long)n_crops);
    for (int64_t i = 0; i < n_ids; i++) dense[i] = -1;
    for (int64_t i = 0; i < n_crops; i++) {
        int64_t id = unit_id(dataset, i, by), time = sh_dataset_crop(dataset, i)->time;

        out->of_crop[i] = -1;
        if (id < 0) continue;
        if (dense[id] < 0) {
            dense[id] = out->n;
            out->order[out->n] = out->n;
            out->names[out->n] = unit_name(dataset, id, by);
            out->times[out->n++] = SH_NO_TIME;
        }
        out->of_crop[i] = dense[id];
        if (time > out->times[dense[id]]) out->times[dense[id]] = time;
    }
out:
    free(dense);
    return st;
}

static sh_status check_config(const sh_split_config *c)
{
    sh_status st = SH_OK;

    SH_CHECK(c->test >= 0 && c->test < 1 && c->val >= 0 && c->val < 1 && c->test + c->val < 1,
             SH_ERR_USAGE, "split.test=%g and split.val=%g: shares from 0, together below 1",
             (double)c->test, (double)c->val);
    SH_CHECK(c->n_folds == 0 || (c->n_folds >= 2 && c->fold >= 0 && c->fold < c->n_folds),
             SH_ERR_USAGE, "split.fold=%d of split.folds=%d: at least 2 folds, counted from 0",
             c->fold, c->n_folds);
    SH_CHECK(c->n_folds == 0 || c->by != SH_SPLIT_TIME, SH_ERR_USAGE,
             "split.folds does not go with split.by=time, where the latest recordings test");
out:
    return st;
}

static sh_status order_units(const sh_dataset *dataset, const sh_split_config *config, units *u)
{
    sh_status st = SH_OK;

    if (config->by == SH_SPLIT_RECORDING || config->by == SH_SPLIT_TIME)
        SH_CHECK(u->n > 0, SH_ERR_USAGE,
                 "split.by=%s needs recordings, and no labelled crop has one: pack with a pattern "
                 "that has {recording}, or use split.by=individual",
                 config->by == SH_SPLIT_TIME ? "time" : "recording");
    if (config->by != SH_SPLIT_TIME) {
        qsort_r(u->order, (size_t)u->n, sizeof(*u->order), compare_names, u);
        sh_rng_shuffle(sh_rng_make(config->seed, SH_RNG_SPLIT, 0, 0), u->order, u->n);
        goto out;
    }
    for (int64_t i = 0; i < sh_dataset_n_crops(dataset); i++)
        SH_CHECK(u->of_crop[i] < 0 || u->times[u->of_crop[i]] != SH_NO_TIME, SH_ERR_USAGE,
                 "split.by=time: recording %s has no time; pack with {date:...}",
                 u->names[u->of_crop[i]]);
    qsort_r(u->order, (size_t)u->n, sizeof(*u->order), compare_times, u);
out:
    return st;
}

/* At least one unit for a share above zero; fold f takes the f-th of n_folds equal stretches. */
static void deal_parts(const sh_split_config *config, const units *u, uint8_t *part)
{
    int64_t first = 0, n_test = llround((double)config->test * (double)u->n);
    int64_t n_val = llround((double)config->val * (double)u->n);

    if (n_test == 0 && config->test > 0) n_test = 1;
    if (n_val == 0 && config->val > 0) n_val = 1;
    if (config->n_folds > 0) {
        first = u->n * config->fold / config->n_folds;
        n_test = u->n * (config->fold + 1) / config->n_folds - first;
    }
    for (int64_t i = 0; i < u->n; i++) {
        int64_t at = (i - first + u->n) % u->n; /* from the first test unit, around */

        part[u->order[i]] = at < n_test           ? SH_PART_TEST
                            : at < n_test + n_val ? SH_PART_VAL
                                                  : SH_PART_TRAIN;
    }
}

/* Which parts hold crops, and how many individuals each. */
static sh_status check_parts(const sh_dataset *dataset, const sh_split *split, bool wanted[4])
{
    sh_status st = SH_OK;
    int n_ids = sh_dataset_n_individuals(dataset);
    uint8_t *seen = calloc((size_t)n_ids + 1, 1); /* bit p: stands in part p */
    int n_individuals[4] = {0};

    SH_CHECK(seen != NULL, SH_ERR_NO_MEMORY, "%d individuals", n_ids);
    for (int64_t i = 0; i < split->n; i++) {
        int32_t id = sh_dataset_crop(dataset, i)->individual;
        uint8_t bit = (uint8_t)(1u << split->part[i]);

        if (id < 0 || split->part[i] == SH_PART_NONE || (seen[id] & bit)) continue;
        seen[id] |= bit;
        n_individuals[split->part[i]]++;
    }
    for (int p = SH_PART_TRAIN; p <= SH_PART_TEST; p++)
        SH_CHECK(!wanted[p] || n_individuals[p] >= 2, SH_ERR_USAGE,
                 "the %s part of the split has %d individual%s of %d, and needs two at least: "
                 "raise its share (split.%s) or bring more individuals",
                 sh_part_name((sh_part)p), n_individuals[p], n_individuals[p] == 1 ? "" : "s",
                 n_ids, p == SH_PART_VAL ? "val" : "test");
out:
    free(seen);
    return st;
}

/* As the manifest says; a crop without an entry is in no part. */
static sh_status split_by_column(const sh_dataset *dataset, sh_split *split, bool wanted[4])
{
    sh_status st = SH_OK;

    for (int64_t i = 0; i < split->n; i++) {
        const sh_crop *c = sh_dataset_crop(dataset, i);

        split->part[i] = c->split < 0 || c->individual < 0 ? SH_PART_NONE : (uint8_t)c->split;
        wanted[split->part[i]] = true;
    }
    SH_CHECK(wanted[SH_PART_TRAIN], SH_ERR_USAGE,
             "split.by=column, but no crop is marked train: pack with a manifest that has a "
             "split column (train, val, test)");
out:
    return st;
}

/* One stretch of near-duplicates: an individual in a recording; without recordings, an individual.
 */
typedef struct sighting {
    int32_t individual, recording;
    uint8_t part;
} sighting;

static int compare_sightings(const void *a, const void *b)
{
    const sighting *x = a, *y = b;

    if (x->individual != y->individual) return x->individual < y->individual ? -1 : 1;
    return (x->recording > y->recording) - (x->recording < y->recording);
}

sh_status sh_split_find_leaks(const sh_dataset *dataset, sh_split *split)
{
    sh_status st = SH_OK;
    int64_t n = 0;
    sighting *all = malloc(((size_t)split->n + 1) * sizeof(*all));

    SH_CHECK(all != NULL, SH_ERR_NO_MEMORY, "%lld sightings", (long long)split->n);
    for (int64_t i = 0; i < split->n; i++) {
        const sh_crop *c = sh_dataset_crop(dataset, i);

        if (split->part[i] != SH_PART_NONE)
            all[n++] = (sighting){c->individual, c->recording, split->part[i]};
    }
    qsort(all, (size_t)n, sizeof(*all), compare_sightings);
    split->leaks = false;
    for (int64_t i = 0; i < n;) {
        unsigned parts = 0; /* of one individual, bit by bit */
        int64_t first = i;

        for (; i < n && all[i].individual == all[first].individual; i++) {
            parts |= 1u << all[i].part;
            if (i > first && all[i].recording == all[i - 1].recording &&
                all[i].part != all[i - 1].part)
                split->leaks = true;
        }
        if (all[first].recording < 0 && (parts & (parts - 1)) != 0) split->leaks = true;
    }
out:
    free(all);
    return st;
}

static sh_status parts_by_units(const sh_dataset *dataset, const sh_split_config *config,
                                sh_split *split)
{
    sh_status st = SH_OK;
    units u = {0};
    uint8_t *part = NULL;

    SH_TRY(gather_units(dataset, config->by, &u));
    SH_TRY(order_units(dataset, config, &u));
    part = calloc((size_t)u.n + 1, 1);
    SH_CHECK(part != NULL, SH_ERR_NO_MEMORY, "%lld parts", (long long)u.n);
    deal_parts(config, &u, part);
    for (int64_t i = 0; i < split->n; i++)
        split->part[i] = u.of_crop[i] >= 0                              ? part[u.of_crop[i]]
                         : sh_dataset_crop(dataset, i)->individual >= 0 ? SH_PART_TRAIN
                                                                        : SH_PART_NONE;
out:
    clear_units(&u);
    free(part);
    return st;
}

sh_status sh_split_compute(const sh_dataset *dataset, const sh_split_config *config, sh_split *out)
{
    sh_status st = SH_OK;
    sh_split split = {.n = sh_dataset_n_crops(dataset)};
    bool wanted[4] = {[SH_PART_TRAIN] = true,
                      [SH_PART_VAL] = config->val > 0,
                      [SH_PART_TEST] = config->test > 0 || config->n_folds > 0};

    SH_TRY(check_config(config));
    split.part = calloc((size_t)split.n + 1, 1);
    SH_CHECK(split.part != NULL, SH_ERR_NO_MEMORY, "a split of %lld crops", (long long)split.n);
    if (config->by == SH_SPLIT_COLUMN)
        SH_TRY(split_by_column(dataset, &split, wanted));
    else
        SH_TRY(parts_by_units(dataset, config, &split));
    SH_TRY(check_parts(dataset, &split, wanted));
    SH_TRY(sh_split_find_leaks(dataset, &split));
    if (config->by == SH_SPLIT_RANDOM) split.leaks = true;
    *out = split;
    split.part = NULL;
out:
    sh_split_clear(&split);
    return st;
}

sh_status sh_split_verify(const sh_split *split, const sh_dataset *dataset, sh_split_by by)
{
    sh_status st = SH_OK;
    int n_ids = sh_dataset_n_individuals(dataset);
    int64_t *first = malloc(((size_t)n_ids + 1) * sizeof(*first));

    if (by != SH_SPLIT_INDIVIDUAL) goto out;
    SH_CHECK(first != NULL, SH_ERR_NO_MEMORY, "%d individuals", n_ids);
    for (int i = 0; i < n_ids; i++) first[i] = -1;
    for (int64_t i = 0; i < split->n; i++) {
        int32_t id = sh_dataset_crop(dataset, i)->individual;

        if (id < 0 || split->part[i] == SH_PART_NONE) continue;
        if (first[id] < 0) first[id] = i;
        SH_CHECK(split->part[i] == split->part[first[id]], SH_ERR_USAGE,
                 "individual %s stands in two parts of a split by individual: %s in %s, %s in %s",
                 sh_dataset_individual(dataset, id), sh_dataset_crop(dataset, first[id])->name,
                 sh_part_name((sh_part)split->part[first[id]]), sh_dataset_crop(dataset, i)->name,
                 sh_part_name((sh_part)split->part[i]));
    }
out:
    free(first);
    return st;
}

void sh_split_clear(sh_split *split)
{
    free(split->part);
    *split = (sh_split){0};
}

// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/split.h"

json_t *sh_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

sh_status sh_eval_select(const sh_dataset *dataset, const uint8_t *part, int wanted,
                         int64_t **crops, int64_t *n)
{
    sh_status st = SH_OK;
    int64_t n_crops = sh_dataset_n_crops(dataset), n_found = 0;
    int64_t *list = malloc((size_t)n_crops * sizeof(*list) + 1);

    SH_CHECK(list != NULL, SH_ERR_NO_MEMORY, "list of %lld crops", (long long)n_crops);
    for (int64_t i = 0; i < n_crops; i++)
        if (part[i] == wanted && sh_dataset_crop(dataset, i)->individual != SH_NO_LABEL)
            list[n_found++] = i;
    *crops = list;
    *n = n_found;
    list = NULL;
out:
    free(list);
    return st;
}

static sh_status allocate(sh_eval_data *d, int64_t n, int n_fish)
{
    sh_status st = SH_OK;
    size_t rows = (size_t)n + 1;

    d->crops = malloc(rows * sizeof(*d->crops));
    d->rows = malloc(rows * sizeof(*d->rows));
    d->duplicates = malloc(rows * sizeof(*d->duplicates));
    d->individual = malloc(rows * sizeof(*d->individual));
    d->recording = malloc(rows * sizeof(*d->recording));
    d->track = malloc(rows * sizeof(*d->track));
    d->side = malloc(rows * sizeof(*d->side));
    d->time = malloc(rows * sizeof(*d->time));
    d->fish = malloc(((size_t)n_fish + 1) * sizeof(*d->fish));
    SH_CHECK(d->crops != NULL && d->rows != NULL && d->duplicates != NULL &&
                 d->individual != NULL && d->recording != NULL && d->track != NULL &&
                 d->side != NULL && d->time != NULL && d->fish != NULL,
             SH_ERR_NO_MEMORY, "labels of %lld crops", (long long)n);
out:
    return st;
}

/* A crop's place among the tracks: sorted by individual, recording, row. */
typedef struct track_key {
    int32_t individual, recording;
    int64_t row;
} track_key;

static int compare_tracks(const void *x, const void *y)
{
    const track_key *a = x, *b = y;

    if (a->individual != b->individual) return a->individual < b->individual ? -1 : 1;
    if (a->recording != b->recording) return a->recording < b->recording ? -1 : 1;
    return (a->row > b->row) - (a->row < b->row);
}

static sh_status number_tracks(sh_eval_data *d)
{
    sh_status st = SH_OK;
    track_key *keys = malloc((size_t)d->n * sizeof(*keys) + 1);

    SH_CHECK(keys != NULL, SH_ERR_NO_MEMORY, "tracks");
    for (int64_t i = 0; i < d->n; i++) keys[i] = (track_key){d->individual[i], d->recording[i], i};
    if (d->n > 0) qsort(keys, (size_t)d->n, sizeof(*keys), compare_tracks);
    for (int64_t i = 0; i < d->n; i++) {
        bool same = i > 0 && keys[i].individual == keys[i - 1].individual &&
                    keys[i].recording == keys[i - 1].recording;

        d->n_tracks += !same;
        d->track[keys[i].row] = d->n_tracks - 1;
    }
out:
    free(keys);
    return st;
}

/* A picture: whose, of what pixels, at which place of the list. */
typedef struct picture {
    sh_hash128 pixels;
    int32_t individual;
    int64_t place;
} picture;

static int compare_pictures(const void *x, const void *y)
{
    const picture *a = x, *b = y;

    if (a->pixels.hi != b->pixels.hi) return a->pixels.hi < b->pixels.hi ? -1 : 1;
    if (a->pixels.lo != b->pixels.lo) return a->pixels.lo < b->pixels.lo ? -1 : 1;
    if (a->individual != b->individual) return a->individual < b->individual ? -1 : 1;
    return (a->place > b->place) - (a->place < b->place);
}

/* again[i] = 1 where an earlier crop of the list is the same picture of the same fish. */
static sh_status mark_duplicates(const sh_dataset *dataset, const int64_t *crops, int64_t n,
                                 uint8_t *again)
{
    sh_status st = SH_OK;
    picture *pictures = malloc((size_t)n * sizeof(*pictures) + 1);

    SH_CHECK(pictures != NULL, SH_ERR_NO_MEMORY, "pixel hashes of %lld crops", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const sh_crop *crop = sh_dataset_crop(dataset, crops[i]);

        pictures[i] = (picture){crop->pixels, crop->individual, i};
    }
    if (n > 0) qsort(pictures, (size_t)n, sizeof(*pictures), compare_pictures);
    for (int64_t i = 1; i < n; i++) {
        const picture *p = &pictures[i], *q = &pictures[i - 1];

        again[p->place] = p->pixels.hi == q->pixels.hi && p->pixels.lo == q->pixels.lo &&
                          p->individual == q->individual;
    }
out:
    free(pictures);
    return st;
}

/* Append one labelled crop. dense [the dataset's individuals], -1 where not met yet. */
static void append(sh_eval_data *d, int64_t index, int64_t row, int32_t *dense)
{
    const sh_crop *crop = sh_dataset_crop(d->dataset, index);

    if (dense[crop->individual] < 0) {
        dense[crop->individual] = d->n_individuals;
        d->fish[d->n_individuals++] = crop->individual;
    }
    d->crops[d->n] = index;
    d->rows[d->n] = row;
    d->individual[d->n] = dense[crop->individual];
    d->recording[d->n] = crop->recording;
    d->side[d->n] = (uint8_t)crop->side;
    d->time[d->n] = crop->time;
    d->n++;
    d->within_recording = d->within_recording && crop->recording < 0;
    d->has_sides = d->has_sides || crop->side != SH_SIDE_UNKNOWN;
    d->has_times = d->has_times || crop->time != SH_NO_TIME;
}

sh_status sh_eval_data_create(const sh_dataset *dataset, const int64_t *crops, int64_t n,
                              sh_eval_data *out)
{
    sh_status st = SH_OK;
    sh_eval_data d = {.dataset = dataset, .within_recording = true};
    int n_fish = sh_dataset_n_individuals(dataset), n_recordings = sh_dataset_n_recordings(dataset);
    int32_t *dense = malloc(((size_t)n_fish + 1) * sizeof(*dense));
    uint8_t *seen = calloc((size_t)n_recordings + 1, 1), *again = calloc((size_t)n + 1, 1);

    SH_CHECK(dense != NULL && seen != NULL && again != NULL, SH_ERR_NO_MEMORY, "labels");
    SH_TRY(allocate(&d, n, n_fish));
    SH_TRY(mark_duplicates(dataset, crops, n, again));
    for (int i = 0; i < n_fish; i++) dense[i] = -1;
    for (int64_t i = 0; i < n; i++) {
        int32_t recording = sh_dataset_crop(dataset, crops[i])->recording;

        if (sh_dataset_crop(dataset, crops[i])->individual == SH_NO_LABEL) continue;
        if (again[i]) {
            d.duplicates[d.n_duplicates++] = crops[i];
            continue;
        }
        append(&d, crops[i], i, dense);
        if (recording >= 0 && !seen[recording]) {
            seen[recording] = 1;
            d.n_recordings++;
        }
    }
    SH_TRY(number_tracks(&d));
    *out = d;
    d = (sh_eval_data){0};
out:
    free(dense);
    free(seen);
    free(again);
    sh_eval_data_clear(&d);
    return st;
}

void sh_eval_data_clear(sh_eval_data *data)
{
    free(data->crops);
    free(data->rows);
    free(data->duplicates);
    free(data->individual);
    free(data->recording);
    free(data->track);
    free(data->side);
    free(data->time);
    free(data->fish);
    free(data->embeddings);
    *data = (sh_eval_data){0};
}

sh_eval_set sh_eval_data_set(const sh_eval_data *data, const float *embeddings, int64_t dim)
{
    return (sh_eval_set){.n = data->n,
                         .dim = dim,
                         .embeddings = embeddings,
                         .individual = data->individual,
                         .recording = data->recording,
                         .side = data->side,
                         .time = data->time,
                         .n_individuals = data->n_individuals,
                         .within_recording = data->within_recording};
}

const char *sh_eval_data_name(const sh_eval_data *data, int32_t individual)
{
    return sh_dataset_individual(data->dataset, data->fish[individual]);
}

sh_status sh_validate(const sh_dataset *dataset, const int64_t *crops, int64_t n,
                      const float *embeddings, int64_t dim, sh_validation *out)
{
    sh_status st = SH_OK;
    sh_eval_data data = {0};
    sh_levels levels = {0};
    sh_query *queries = NULL;
    sh_rank_scores scores;

    SH_TRY(sh_eval_data_create(dataset, crops, n, &data));
    queries = malloc((size_t)data.n * sizeof(*queries) + 1);
    data.embeddings = malloc((size_t)(data.n * dim) * sizeof(float) + 1);
    SH_CHECK(queries != NULL && data.embeddings != NULL, SH_ERR_NO_MEMORY,
             "validation of %lld crops", (long long)n);
    for (int64_t i = 0; i < data.n; i++)
        memcpy(data.embeddings + i * dim, embeddings + data.rows[i] * dim,
               (size_t)dim * sizeof(float));

    sh_eval_set set = sh_eval_data_set(&data, data.embeddings, dim);

    SH_TRY(sh_retrieve(&set, &(sh_gallery_rule){0}, queries));
    SH_TRY(sh_rank_average(queries, data.n, data.individual, data.n_individuals, &scores, NULL));
    SH_TRY(sh_retrieval_levels(&set, (sh_pair_rule){0}, true, &levels));
    *out = (sh_validation){.rank1 = scores.rank1,
                           .map = scores.map,
                           .auc = sh_levels_auc(&levels),
                           .n_queries = scores.n_queries};
out:
    free(queries);
    sh_levels_clear(&levels);
    sh_eval_data_clear(&data);
    return st;
}

// SPDX-License-Identifier: Apache-2.0
#include "dataio/survey.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts values. The median of an even number is the upper one: a value that occurs. */
static sh_range range_of(double *values, int64_t n)
{
    if (n == 0) return (sh_range){0};
    qsort(values, (size_t)n, sizeof(*values), compare_doubles);
    return (sh_range){values[0], values[n / 2], values[n - 1]};
}

static sh_status measure_sizes(const sh_dataset *d, sh_survey *s)
{
    sh_status st = SH_OK;
    double *values = malloc((size_t)(3 * s->n_crops + 1) * sizeof(*values));

    SH_CHECK(values != NULL, SH_ERR_NO_MEMORY, "sizes of %lld crops", (long long)s->n_crops);
    for (int64_t i = 0; i < s->n_crops; i++) {
        const sh_crop *c = sh_dataset_crop(d, i);

        values[i] = c->width;
        values[s->n_crops + i] = c->height;
        values[2 * s->n_crops + i] = (double)c->width / c->height;
        s->n_small += c->width < SH_SMALL_SIDE || c->height < SH_SMALL_SIDE;
        s->n_labelled += c->individual >= 0;
        s->n_without_recording += c->individual >= 0 && c->recording < 0;
        s->n_by_format[c->format]++;
    }
    s->width = range_of(values, s->n_crops);
    s->height = range_of(values + s->n_crops, s->n_crops);
    s->aspect = range_of(values + 2 * s->n_crops, s->n_crops);
out:
    free(values);
    return st;
}

/* ---- Tables ---- */

typedef enum key { KEY_INDIVIDUAL, KEY_RECORDING, KEY_CAMERA, KEY_SPECIES, N_KEYS } key;

static int32_t key_of(const sh_crop *c, key k)
{
    const int32_t ids[N_KEYS] = {c->individual, c->recording, c->camera, c->species};

    return ids[k];
}

/* Two label indices of a crop, to count distinct pairs. */
typedef struct id_pair {
    int32_t a, b;
} id_pair;

static int compare_pairs(const void *x, const void *y)
{
    const id_pair *p = x, *q = y;

    return p->a != q->a ? (p->a > q->a) - (p->a < q->a) : (p->b > q->b) - (p->b < q->b);
}

/* Add, for each value of key k, how many distinct values of `other` its crops have. */
static sh_status count_distinct(const sh_dataset *d, key k, key other, sh_survey_row *rows,
                                size_t field)
{
    sh_status st = SH_OK;
    int64_t n_crops = sh_dataset_n_crops(d), n = 0;
    id_pair *pairs = malloc(((size_t)n_crops + 1) * sizeof(*pairs));

    SH_CHECK(pairs != NULL, SH_ERR_NO_MEMORY, "labels of %lld crops", (long long)n_crops);
    for (int64_t i = 0; i < n_crops; i++) {
        id_pair pair = {key_of(sh_dataset_crop(d, i), k), key_of(sh_dataset_crop(d, i), other)};

        if (pair.a >= 0 && pair.b >= 0) pairs[n++] = pair;
    }
    qsort(pairs, (size_t)n, sizeof(*pairs), compare_pairs);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || compare_pairs(&pairs[i - 1], &pairs[i]) != 0)
            ++*(int *)((char *)&rows[pairs[i].a] + field);
out:
    free(pairs);
    return st;
}

static int compare_rows(const void *a, const void *b)
{
    return strcmp(((const sh_survey_row *)a)->name, ((const sh_survey_row *)b)->name);
}

static sh_status make_table(const sh_dataset *d, key k, sh_survey_table *out)
{
    static const struct {
        int (*count)(const sh_dataset *);
        const char *(*name)(const sh_dataset *, int32_t);
    } keys[N_KEYS] = {{sh_dataset_n_individuals, sh_dataset_individual},
                      {sh_dataset_n_recordings, sh_dataset_recording},
                      {sh_dataset_n_cameras, sh_dataset_camera},
                      {sh_dataset_n_species, sh_dataset_species}};
    sh_status st = SH_OK;

    out->n = keys[k].count(d);
    out->rows = calloc((size_t)out->n + 1, sizeof(*out->rows));
    SH_CHECK(out->rows != NULL, SH_ERR_NO_MEMORY, "a table of %d names", out->n);
    for (int i = 0; i < out->n; i++) out->rows[i].name = keys[k].name(d, i);
    for (int64_t i = 0; i < sh_dataset_n_crops(d); i++) {
        const sh_crop *c = sh_dataset_crop(d, i);

        if (key_of(c, k) < 0) continue;
        sh_survey_row *row = &out->rows[key_of(c, k)];

        row->n_crops++;
        row->n_left += c->side == SH_SIDE_LEFT;
        row->n_right += c->side == SH_SIDE_RIGHT;
    }
    SH_TRY(count_distinct(d, k, KEY_INDIVIDUAL, out->rows, offsetof(sh_survey_row, n_individuals)));
    SH_TRY(count_distinct(d, k, KEY_RECORDING, out->rows, offsetof(sh_survey_row, n_recordings)));
    SH_TRY(count_distinct(d, k, KEY_CAMERA, out->rows, offsetof(sh_survey_row, n_cameras)));
    qsort(out->rows, (size_t)out->n, sizeof(*out->rows), compare_rows);
out:
    return st;
}

/* ---- Equal pictures ---- */

static int compare_pictures(const void *a, const void *b, void *context)
{
    const sh_dataset *d = context;
    int64_t i = *(const int64_t *)a, k = *(const int64_t *)b;
    const sh_hash128 *x = &sh_dataset_crop(d, i)->pixels, *y = &sh_dataset_crop(d, k)->pixels;

    if (x->hi != y->hi) return x->hi < y->hi ? -1 : 1;
    if (x->lo != y->lo) return x->lo < y->lo ? -1 : 1;
    return (i > k) - (i < k);
}

/* Recordings that hold the same picture are likely one recording under two names: twins. */
static sh_status note_equal(const sh_dataset *d, int64_t first, int64_t again, sh_survey *s,
                            id_pair *twins, int64_t *n_twins)
{
    sh_status st = SH_OK;
    const sh_crop *x = sh_dataset_crop(d, first), *y = sh_dataset_crop(d, again);
    char text[2 * SH_PACK_MAX_NAME + 256];

    if (x->individual != y->individual && x->individual >= 0 && y->individual >= 0) {
        snprintf(text, sizeof(text), "%s, but the same picture as %s, %s",
                 sh_dataset_individual(d, y->individual), x->name,
                 sh_dataset_individual(d, x->individual));
        SH_TRY(sh_drop_list_add(&s->mislabels, y->name, text));
        goto out;
    }
    snprintf(text, sizeof(text), "the same picture as %s", x->name);
    SH_TRY(sh_drop_list_add(&s->duplicates, y->name, text));
    if (x->recording >= 0 && y->recording >= 0 && x->recording != y->recording)
        twins[(*n_twins)++] = x->recording < y->recording ? (id_pair){x->recording, y->recording}
                                                          : (id_pair){y->recording, x->recording};
out:
    return st;
}

static sh_status report_twins(const sh_dataset *d, id_pair *twins, int64_t n, sh_survey *s)
{
    sh_status st = SH_OK;
    char title[2 * SH_PACK_MAX_NAME + 64], text[128];

    qsort(twins, (size_t)n, sizeof(*twins), compare_pairs);
    for (int64_t i = 0, first = 0; i < n; i++) {
        if (i + 1 < n && compare_pairs(&twins[i], &twins[i + 1]) == 0) continue;
        snprintf(title, sizeof(title), "recordings %s and %s", sh_dataset_recording(d, twins[i].a),
                 sh_dataset_recording(d, twins[i].b));
        snprintf(text, sizeof(text),
                 "share %lld identical pictures: likely one recording under two names",
                 (long long)(i + 1 - first));
        SH_TRY(sh_drop_list_add(&s->leaks, title, text));
        first = i + 1;
    }
out:
    return st;
}

static sh_status find_equal_pictures(const sh_dataset *d, sh_survey *s)
{
    sh_status st = SH_OK;
    int64_t n_twins = 0, first = 0;
    int64_t *order = malloc(((size_t)s->n_crops + 1) * sizeof(*order));
    id_pair *twins = malloc(((size_t)s->n_crops + 1) * sizeof(*twins));

    SH_CHECK(order != NULL && twins != NULL, SH_ERR_NO_MEMORY, "pictures of %lld crops",
             (long long)s->n_crops);
    for (int64_t i = 0; i < s->n_crops; i++) order[i] = i;
    qsort_r(order, (size_t)s->n_crops, sizeof(*order), compare_pictures, (void *)d);
    for (int64_t i = 1; i < s->n_crops; i++) {
        const sh_hash128 *x = &sh_dataset_crop(d, order[first])->pixels;
        const sh_hash128 *y = &sh_dataset_crop(d, order[i])->pixels;

        if (x->hi == y->hi && x->lo == y->lo)
            SH_TRY(note_equal(d, order[first], order[i], s, twins, &n_twins));
        else
            first = i;
    }
    SH_TRY(sh_drop_list_sort(&s->duplicates));
    SH_TRY(sh_drop_list_sort(&s->mislabels));
    SH_TRY(report_twins(d, twins, n_twins, s));
out:
    free(order);
    free(twins);
    return st;
}

/* ---- Leaks ---- */

static int compare_tracks(const void *a, const void *b)
{
    const sh_crop *x = *(const sh_crop *const *)a, *y = *(const sh_crop *const *)b;
    const int32_t left[] = {x->individual, x->recording, x->camera, x->frame};
    const int32_t right[] = {y->individual, y->recording, y->camera, y->frame};

    for (int k = 0; k < 4; k++)
        if (left[k] != right[k]) return left[k] < right[k] ? -1 : 1;
    return 0;
}

static sh_status measure_frame_gaps(const sh_dataset *d, sh_survey *s)
{
    sh_status st = SH_OK;
    int64_t n = 0, n_gaps = 0;
    const sh_crop **crops = malloc(((size_t)s->n_crops + 1) * sizeof(*crops));
    double *gaps = malloc(((size_t)s->n_crops + 1) * sizeof(*gaps));

    SH_CHECK(crops != NULL && gaps != NULL, SH_ERR_NO_MEMORY, "tracks of %lld crops",
             (long long)s->n_crops);
    for (int64_t i = 0; i < s->n_crops; i++) {
        const sh_crop *c = sh_dataset_crop(d, i);

        if (c->individual >= 0 && c->recording >= 0 && c->frame >= 0) crops[n++] = c;
    }
    qsort(crops, (size_t)n, sizeof(*crops), compare_tracks);
    for (int64_t i = 1; i < n; i++)
        if (crops[i]->individual == crops[i - 1]->individual &&
            crops[i]->recording == crops[i - 1]->recording &&
            crops[i]->camera == crops[i - 1]->camera)
            gaps[n_gaps++] = crops[i]->frame - crops[i - 1]->frame;
    s->frame_gap = range_of(gaps, n_gaps).median;
out:
    free(crops);
    free(gaps);
    return st;
}

static sh_status add_leak(sh_survey *s, bool present, const char *title, const char *fmt, ...)
    SH_PRINTF(4, 5);

static sh_status add_leak(sh_survey *s, bool present, const char *title, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (!present) return SH_OK;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return sh_drop_list_add(&s->leaks, title, text);
}

static sh_status find_leaks(sh_survey *s)
{
    sh_status st = SH_OK;
    int n_ids = s->individuals.n;

    for (int i = 0; i < n_ids; i++) {
        s->n_single += s->individuals.rows[i].n_crops == 1;
        s->n_one_recording += s->individuals.rows[i].n_recordings <= 1;
    }
    for (int i = 0; i < s->recordings.n; i++)
        s->n_shared += s->recordings.rows[i].n_individuals > 1;
    SH_TRY(add_leak(s, s->n_labelled > 0 && s->n_without_recording > 0, "recordings",
                    "%lld of %lld labelled crops have none: frames of one clip cannot be told "
                    "from sightings, and scores will be 'within recording, optimistic'",
                    (long long)s->n_without_recording, (long long)s->n_labelled));
    SH_TRY(add_leak(s, s->recordings.n > 0 && s->n_one_recording > 0, "individuals",
                    "%d of %d were seen in one recording only: they cannot be scored across "
                    "recordings",
                    s->n_one_recording, n_ids));
    SH_TRY(add_leak(s, s->n_shared > 0, "recordings",
                    "%d of %d hold several individuals: a split by individual leaves their "
                    "background and neighbours on both sides",
                    s->n_shared, s->recordings.n));
    SH_TRY(add_leak(s, s->frame_gap > 0, "frames",
                    "neighbours of one track are %.0f frames apart (median), near-duplicates: a "
                    "random split would leak",
                    s->frame_gap));
out:
    return st;
}

sh_status sh_survey_make(const sh_dataset *dataset, sh_survey *out)
{
    sh_status st = SH_OK;
    sh_survey s = {.n_crops = sh_dataset_n_crops(dataset)};

    SH_TRY(measure_sizes(dataset, &s));
    SH_TRY(make_table(dataset, KEY_INDIVIDUAL, &s.individuals));
    SH_TRY(make_table(dataset, KEY_RECORDING, &s.recordings));
    SH_TRY(make_table(dataset, KEY_CAMERA, &s.cameras));
    SH_TRY(make_table(dataset, KEY_SPECIES, &s.species));
    SH_TRY(find_equal_pictures(dataset, &s));
    SH_TRY(measure_frame_gaps(dataset, &s));
    SH_TRY(find_leaks(&s));
    *out = s;
    s = (sh_survey){0};
out:
    sh_survey_clear(&s);
    return st;
}

void sh_survey_clear(sh_survey *survey)
{
    free(survey->individuals.rows);
    free(survey->recordings.rows);
    free(survey->cameras.rows);
    free(survey->species.rows);
    sh_drop_list_clear(&survey->duplicates);
    sh_drop_list_clear(&survey->mislabels);
    sh_drop_list_clear(&survey->leaks);
    *survey = (sh_survey){0};
}

// SPDX-License-Identifier: Apache-2.0
#include "trainer/classes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataio/csv.h"
#include "trainer/evaluate_known.h"

static const char *const columns[] = {"label", "individual", "side", "crops"};
static const char *const sides[] = {
    [SH_SIDE_UNKNOWN] = "", [SH_SIDE_LEFT] = "left", [SH_SIDE_RIGHT] = "right"};

sh_status sh_classes_write(const sh_sampler *sampler, const sh_dataset *dataset, const char *path)
{
    sh_status st = SH_OK;
    sh_file_writer *writer = NULL;
    bool sided = sh_sampler_sides_are_classes(sampler);

    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_csv_write_row(writer, columns, SH_COUNT(columns)));
    for (int i = 0; i < sh_sampler_n_classes(sampler); i++) {
        const sh_crop *crop = sh_dataset_crop(dataset, sh_sampler_class_crop(sampler, i));
        char label[16], n_crops[32];
        const char *fields[SH_COUNT(columns)] = {label,
                                                 sh_dataset_individual(dataset, crop->individual),
                                                 sided ? sides[crop->side] : "", n_crops};

        snprintf(label, sizeof(label), "%d", i);
        snprintf(n_crops, sizeof(n_crops), "%lld", (long long)sh_sampler_class_size(sampler, i));
        SH_TRY(sh_csv_write_row(writer, fields, SH_COUNT(fields)));
    }
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

sh_status sh_classes_balance(const sh_sampler *sampler, float **out)
{
    sh_status st = SH_OK;
    int n = sh_sampler_n_classes(sampler);
    float *weights = malloc((size_t)n * sizeof(*weights) + 1);
    double n_crops = 0;

    SH_CHECK(weights != NULL, SH_ERR_NO_MEMORY, "weights of %d classes", n);
    for (int i = 0; i < n; i++) n_crops += (double)sh_sampler_class_size(sampler, i);
    for (int i = 0; i < n; i++)
        weights[i] = (float)(n_crops / n / (double)sh_sampler_class_size(sampler, i));
    *out = weights;
out:
    return st;
}

sh_status sh_classes_fish(const sh_sampler *sampler, int32_t **out)
{
    sh_status st = SH_OK;
    int n = sh_sampler_n_classes(sampler);
    int32_t *fish = malloc((size_t)n * sizeof(*fish) + 1);

    SH_CHECK(fish != NULL, SH_ERR_NO_MEMORY, "individuals of %d classes", n);
    for (int i = 0; i < n; i++) fish[i] = sh_sampler_class_fish(sampler, i);
    *out = fish;
out:
    return st;
}

/* Answers for each fish of the dataset that is a class, then their mean. */
static double mean_accuracy(const int64_t *asked, const int64_t *right, int n_fish)
{
    double sum = 0;
    int n = 0;

    for (int i = 0; i < n_fish; i++) {
        if (asked[i] == 0) continue;
        sum += (double)right[i] / (double)asked[i];
        n++;
    }
    return n > 0 ? sum / n : NAN;
}

sh_status sh_classes_accuracy(const sh_sampler *sampler, const sh_dataset *dataset,
                              const sh_class_config *classes, sh_store *store, const int64_t *crops,
                              int64_t n, const float *embeddings, int64_t dim, double *accuracy)
{
    sh_status st = SH_OK;
    int slot = sh_store_find(store, "loss.weight"), n_classes = sh_sampler_n_classes(sampler);
    int64_t n_columns = (int64_t)n_classes * classes->n_centres;
    int n_fish = sh_dataset_n_individuals(dataset);
    float *weights = malloc((size_t)(n_columns * dim) * sizeof(*weights) + 1);
    int64_t *asked = calloc(2 * (size_t)n_fish + 1, sizeof(*asked));
    int32_t *fish_of = malloc((size_t)n_classes * sizeof(*fish_of) + 1); /* the dataset's */
    bool *is_class = calloc((size_t)n_fish + 1, sizeof(*is_class));

    SH_CHECK(weights != NULL && asked != NULL && fish_of != NULL && is_class != NULL,
             SH_ERR_NO_MEMORY, "weights of %d classes", n_classes);
    SH_CHECK(slot >= 0 && sh_store_slot(store, slot)->n_elems == n_columns * dim, SH_ERR_INTERNAL,
             "no class weights for embeddings of %lld numbers", (long long)dim);
    SH_TRY(sh_store_read(store, slot, weights));
    for (int i = 0; i < n_classes; i++) {
        fish_of[i] = sh_dataset_crop(dataset, sh_sampler_class_crop(sampler, i))->individual;
        is_class[fish_of[i]] = true;
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t fish = sh_dataset_crop(dataset, crops[i])->individual;

        if (fish < 0 || !is_class[fish]) continue;
        int64_t column = sh_known_column(embeddings + i * dim, weights, n_columns, dim,
                                         classes->kind == SH_CLASS_ARCFACE);

        asked[fish]++;
        asked[n_fish + fish] += fish_of[column / classes->n_centres] == fish;
    }
    *accuracy = mean_accuracy(asked, asked + n_fish, n_fish);
out:
    free(is_class);
    free(fish_of);
    free(asked);
    free(weights);
    return st;
}

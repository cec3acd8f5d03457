// SPDX-License-Identifier: Apache-2.0
#include "trainer/classes.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataio/csv.h"

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

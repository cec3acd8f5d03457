// SPDX-License-Identifier: Apache-2.0
/** `shoal embed`: embeddings of packs as an HDF5 file that any tool opens. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/file.h"
#include "trainer/commands.h"
#include "trainer/embedder.h"
#include "trainer/run.h"

static sh_status write_matrix(hid_t file, const float *rows, int64_t n, int64_t dim)
{
    sh_status st = SH_OK;
    hsize_t dims[2] = {(hsize_t)n, (hsize_t)dim};
    hid_t space = H5Screate_simple(2, dims, NULL);
    hid_t set =
        H5Dcreate2(file, "embedding", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);

    SH_CHECK(set >= 0 && H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) >= 0,
             SH_ERR_IO, "cannot write dataset \"embedding\"");
out:
    if (set >= 0) H5Dclose(set);
    H5Sclose(space);
    return st;
}

static sh_status write_texts(hid_t file, const char *name, const char **texts, int64_t n)
{
    sh_status st = SH_OK;
    hsize_t dims[1] = {(hsize_t)n};
    hid_t space = H5Screate_simple(1, dims, NULL), type = H5Tcopy(H5T_C_S1), set = -1;

    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    SH_CHECK(set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts) >= 0, SH_ERR_IO,
             "cannot write dataset \"%s\"", name);
out:
    if (set >= 0) H5Dclose(set);
    H5Tclose(type);
    H5Sclose(space);
    return st;
}

static const char *name_of(const sh_dataset *d, const sh_crop *crop)
{
    (void)d;
    return crop->name;
}

static const char *individual_of(const sh_dataset *d, const sh_crop *crop)
{
    return sh_dataset_individual(d, crop->individual);
}

static const char *side_of(const sh_dataset *d, const sh_crop *crop)
{
    static const char *const names[] = {
        [SH_SIDE_UNKNOWN] = "unknown", [SH_SIDE_LEFT] = "left", [SH_SIDE_RIGHT] = "right"};

    (void)d;
    return names[crop->side];
}

static const char *recording_of(const sh_dataset *d, const sh_crop *crop)
{
    return sh_dataset_recording(d, crop->recording);
}

static const struct {
    const char *name;
    const char *(*of)(const sh_dataset *dataset, const sh_crop *crop);
} columns[] = {{"name", name_of},
               {"individual", individual_of},
               {"side", side_of},
               {"recording", recording_of}};

/* Written beside and renamed: `path` is whole or not there. */
static sh_status write_file(const char *path, const sh_dataset *dataset, const float *rows,
                            int64_t dim)
{
    sh_status st = SH_OK;
    char temp[SH_RUN_PATH] = "";
    int64_t n = sh_dataset_n_crops(dataset);
    const char **texts = malloc((size_t)n * sizeof(*texts) + 1);
    hid_t file = -1;

    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    SH_CHECK(texts != NULL, SH_ERR_NO_MEMORY, "labels of %lld crops", (long long)n);
    SH_CHECK(snprintf(temp, sizeof(temp), "%s.tmp.%ld", path, (long)getpid()) < (int)sizeof(temp),
             SH_ERR_USAGE, "path too long: %.200s...", path);
    file = H5Fcreate(temp, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    SH_CHECK(file >= 0, SH_ERR_IO, "cannot create %s", temp);
    SH_TRY(write_matrix(file, rows, n, dim));
    for (size_t c = 0; c < SH_COUNT(columns); c++) {
        for (int64_t i = 0; i < n; i++)
            texts[i] = columns[c].of(dataset, sh_dataset_crop(dataset, i));
        SH_TRY(write_texts(file, columns[c].name, texts, n));
    }
    herr_t closed = H5Fclose(file);

    file = -1;
    SH_CHECK(closed >= 0, SH_ERR_IO, "cannot finish %s", temp);
    SH_TRY(sh_file_rename(temp, path));
out:
    if (file >= 0) H5Fclose(file);
    if (st != SH_OK && temp[0] != '\0') unlink(temp);
    free(texts);
    return st;
}

sh_status sh_cmd_embed(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0}, data = {0};
    sh_embedder *embedder = NULL;
    sh_dataset *dataset = NULL;
    const char *output = NULL;
    int64_t threads = 0, *crops = NULL;
    float *rows = NULL;
    bool helped = false;
    const sh_flag flags[] = {
        {"--data", NULL, SH_FLAG_LIST, &data, "PACK", "what to embed; may be repeated"},
        {"-o", "--output", SH_FLAG_STRING, &output, "FILE", "HDF5 file to write"},
        {"--threads", NULL, SH_FLAG_INT, &threads, "N", "compute threads; default: all granted"},
    };
    const sh_cli cli = {
        .usage = "shoal embed RUN --data PACK... -o e.h5",
        .summary = "Writes the embedding of every crop: datasets embedding [N, D] f32, name, "
                   "individual, side and recording (UTF-8; individual and recording empty where "
                   "unknown), in the order of the packs.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .min_args = 1,
        .max_args = 1,
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(data.n > 0 && output != NULL, SH_ERR_USAGE, "usage: %s", cli.usage);
    SH_TRY(sh_dataset_open(data.items, data.n, &dataset));
    SH_TRY(sh_embedder_create(args.items[0], false, (int)threads, &embedder));

    int64_t n = sh_dataset_n_crops(dataset), dim = sh_embedder_dim(embedder);

    crops = malloc((size_t)n * sizeof(*crops) + 1);
    rows = malloc((size_t)(n * dim) * sizeof(*rows) + 1);
    SH_CHECK(crops != NULL && rows != NULL, SH_ERR_NO_MEMORY, "%lld embeddings", (long long)n);
    for (int64_t i = 0; i < n; i++) crops[i] = i;
    SH_TRY(sh_embedder_run(embedder, dataset, crops, n, "crops", rows));
    SH_TRY(write_file(output, dataset, rows, dim));
    printf("%lld embeddings of %lld numbers in %s\n", (long long)n, (long long)dim, output);
out:
    free(rows);
    free(crops);
    sh_embedder_destroy(&embedder);
    sh_dataset_close(&dataset);
    free(args.items);
    free(data.items);
    return st;
}

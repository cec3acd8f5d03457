// SPDX-License-Identifier: Apache-2.0
#include "trainer/embeddings_file.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

/* The two datasets in memory. */
typedef struct table {
    hsize_t n, dim;
    float *rows;
    char **names;   /* strings owned by HDF5 */
    int64_t *order; /* rows by ascending name */
} table;

static void table_clear(table *t)
{
    for (hsize_t i = 0; t->names != NULL && i < t->n; i++) H5free_memory(t->names[i]);
    free(t->names);
    free(t->rows);
    free(t->order);
}

static sh_status read_rows(hid_t file, const char *path, table *t)
{
    sh_status st = SH_OK;
    hsize_t dims[2] = {0};
    hid_t set = H5Dopen2(file, "embedding", H5P_DEFAULT), space = -1;

    SH_CHECK(set >= 0, SH_ERR_FORMAT, "%s has no dataset \"embedding\"", path);
    space = H5Dget_space(set);
    SH_CHECK(H5Sget_simple_extent_ndims(space) == 2 &&
                 H5Sget_simple_extent_dims(space, dims, NULL) == 2 && dims[0] > 0 && dims[1] > 0 &&
                 dims[0] <= (hsize_t)1 << 32 && dims[1] <= 1 << 20,
             SH_ERR_FORMAT, "%s: \"embedding\" must be a matrix, a row for each crop", path);
    t->n = dims[0];
    t->dim = dims[1];
    t->rows = malloc(t->n * t->dim * sizeof(float));
    SH_CHECK(t->rows != NULL, SH_ERR_NO_MEMORY, "embeddings of %s", path);
    SH_CHECK(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, t->rows) >= 0, SH_ERR_IO,
             "cannot read \"embedding\" of %s", path);
out:
    if (space >= 0) H5Sclose(space);
    if (set >= 0) H5Dclose(set);
    return st;
}

static sh_status read_names(hid_t file, const char *path, table *t)
{
    sh_status st = SH_OK;
    hsize_t n = 0;
    hid_t set = H5Dopen2(file, "name", H5P_DEFAULT), space = -1, stored = -1, type = -1;

    SH_CHECK(set >= 0, SH_ERR_FORMAT, "%s has no dataset \"name\"", path);
    space = H5Dget_space(set);
    stored = H5Dget_type(set);
    SH_CHECK(H5Sget_simple_extent_ndims(space) == 1 &&
                 H5Sget_simple_extent_dims(space, &n, NULL) == 1 && n == t->n &&
                 H5Tis_variable_str(stored) > 0,
             SH_ERR_FORMAT, "%s: \"name\" must hold a variable-length string for each row", path);
    type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5Tget_cset(stored));
    t->names = calloc(n, sizeof(*t->names));
    SH_CHECK(t->names != NULL, SH_ERR_NO_MEMORY, "names of %s", path);
    SH_CHECK(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, t->names) >= 0, SH_ERR_IO,
             "cannot read \"name\" of %s", path);
    for (hsize_t i = 0; i < n; i++)
        SH_CHECK(t->names[i] != NULL, SH_ERR_FORMAT, "%s: row %llu has no name", path,
                 (unsigned long long)i);
out:
    if (type >= 0) H5Tclose(type);
    if (stored >= 0) H5Tclose(stored);
    if (space >= 0) H5Sclose(space);
    if (set >= 0) H5Dclose(set);
    return st;
}

static int by_name(const void *a, const void *b, void *names)
{
    char *const *n = names;

    return strcmp(n[*(const int64_t *)a], n[*(const int64_t *)b]);
}

/* Row of `name`, or -1. */
static int64_t find_row(const table *t, const char *name)
{
    int64_t lo = 0, hi = (int64_t)t->n;

    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;

        if (strcmp(t->names[t->order[mid]], name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < (int64_t)t->n && strcmp(t->names[t->order[lo]], name) == 0 ? t->order[lo] : -1;
}

static sh_status pick(const table *t, const char *path, const sh_dataset *dataset,
                      const int64_t *crops, int64_t n, float *rows)
{
    sh_status st = SH_OK;
    int64_t n_missing = 0;
    const char *first = "";

    for (int64_t i = 0; i < n; i++) {
        const char *name = sh_dataset_crop(dataset, crops[i])->name;
        int64_t row = find_row(t, name);

        if (row >= 0) {
            memcpy(rows + i * (int64_t)t->dim, t->rows + row * (int64_t)t->dim,
                   t->dim * sizeof(float));
        } else if (n_missing++ == 0) {
            first = name;
        }
    }
    SH_CHECK(n_missing == 0, SH_ERR_MISMATCH,
             "%s has no embedding of %lld of the %lld crops to score; the first is %s", path,
             (long long)n_missing, (long long)n, first);
out:
    return st;
}

sh_status sh_embeddings_read(const char *path, const sh_dataset *dataset, const int64_t *crops,
                             int64_t n, float **rows, int64_t *dim)
{
    sh_status st = SH_OK;
    table t = {0};
    float *picked = NULL;
    hid_t file = -1;

    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    SH_CHECK(file >= 0, SH_ERR_FORMAT, "cannot open %s as HDF5", path);
    SH_TRY(read_rows(file, path, &t));
    SH_TRY(read_names(file, path, &t));
    t.order = malloc(t.n * sizeof(*t.order));
    picked = malloc((size_t)n * t.dim * sizeof(float) + 1);
    SH_CHECK(t.order != NULL && picked != NULL, SH_ERR_NO_MEMORY, "embeddings of %s", path);
    for (int64_t i = 0; i < (int64_t)t.n; i++) t.order[i] = i;
    qsort_r(t.order, t.n, sizeof(*t.order), by_name, t.names);
    SH_TRY(pick(&t, path, dataset, crops, n, picked));
    *rows = picked;
    *dim = (int64_t)t.dim;
    picked = NULL;
out:
    free(picked);
    table_clear(&t);
    if (file >= 0) H5Fclose(file);
    return st;
}

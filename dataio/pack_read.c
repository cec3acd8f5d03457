// SPDX-License-Identifier: Apache-2.0
/**
 * One pack file into memory. HDF5 opens it only after its seal was found whole; every number read
 * is still checked against the others, since a seal says that a file is as it was written, not that
 * its writer was right.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/pack_hdf5.h"

#define CHECK_PACK(condition, what)                                                                \
    SH_CHECK(condition, SH_ERR_FORMAT,                                                             \
             "%s is not a pack that this program can read (%s): pack the images again", path,      \
             what)

/* Open a dataset and check its shape: [n_rows] or [n_rows, width]; *n_rows < 0: any, returned. */
static sh_status open_dataset(hid_t file, const char *path, const char *name, int width,
                              H5T_class_t class, int64_t *n_rows, hid_t *out)
{
    sh_status st = SH_OK;
    hid_t space = -1, type = -1;
    hsize_t dims[2] = {0, 1};

    *out = H5Dopen2(file, name, H5P_DEFAULT);
    CHECK_PACK(*out >= 0, name);
    space = H5Dget_space(*out);
    type = H5Dget_type(*out);
    CHECK_PACK(space >= 0 && type >= 0 && H5Tget_class(type) == class, name);
    CHECK_PACK(H5Sget_simple_extent_ndims(space) == (width > 1 ? 2 : 1), name);
    CHECK_PACK(H5Sget_simple_extent_dims(space, dims, NULL) >= 0 && dims[1] == (hsize_t)width,
               name);
    CHECK_PACK(dims[0] <= INT32_MAX, name);
    CHECK_PACK(*n_rows < 0 || dims[0] == (hsize_t)*n_rows, name);
    *n_rows = (int64_t)dims[0];
out:
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return st;
}

/* What is done with each string that is read. */
typedef sh_status (*string_sink)(void *context, int64_t row, const char *text);

static sh_status read_rows(hid_t dataset, const char *path, const char *name, int64_t n_rows,
                           size_t width, string_sink sink, void *context)
{
    sh_status st = SH_OK;
    hid_t type = sh_string_type(width), file_space = H5Dget_space(dataset), memory_space = -1;
    char *rows = malloc(SH_STRING_ROWS * width), *text = malloc(width + 1);

    SH_CHECK(rows != NULL && text != NULL, SH_ERR_NO_MEMORY, "strings of %zu bytes", width);
    CHECK_PACK(type >= 0 && file_space >= 0, name);
    for (hsize_t first = 0; first < (hsize_t)n_rows; first += SH_STRING_ROWS) {
        hsize_t left = (hsize_t)n_rows - first;
        hsize_t n = left < SH_STRING_ROWS ? left : SH_STRING_ROWS;

        memory_space = H5Screate_simple(1, &n, NULL);
        CHECK_PACK(memory_space >= 0 &&
                       H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &first, NULL, &n, NULL) >=
                           0 &&
                       H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, rows) >= 0,
                   name);
        H5Sclose(memory_space);
        memory_space = -1;
        for (hsize_t i = 0; i < n; i++) {
            memcpy(text, rows + i * width, width);
            text[width] = '\0';
            CHECK_PACK(sh_is_utf8(text), name);
            SH_TRY(sink(context, (int64_t)(first + i), text));
        }
    }
out:
    if (memory_space >= 0) H5Sclose(memory_space);
    if (file_space >= 0) H5Sclose(file_space);
    if (type >= 0) H5Tclose(type);
    free(rows);
    free(text);
    return st;
}

static sh_status read_strings(hid_t file, const char *path, const char *name, int64_t *n_rows,
                              string_sink sink, void *context)
{
    sh_status st = SH_OK;
    hid_t dataset = -1, type = -1;

    SH_TRY(open_dataset(file, path, name, 1, H5T_STRING, n_rows, &dataset));
    type = H5Dget_type(dataset);
    CHECK_PACK(type >= 0 && H5Tis_variable_str(type) == 0, name);
    size_t width = H5Tget_size(type);

    CHECK_PACK(width > 0 && width <= 65536, name);
    SH_TRY(read_rows(dataset, path, name, *n_rows, width, sink, context));
out:
    if (type >= 0) H5Tclose(type);
    if (dataset >= 0) H5Dclose(dataset);
    return st;
}

static sh_status sink_to_set(void *context, int64_t row, const char *text)
{
    sh_status st = SH_OK;
    int32_t index = 0;

    SH_TRY(sh_strings_add(context, text, &index, NULL));
    SH_CHECK(index == row, SH_ERR_FORMAT,
             "a pack names '%s' twice: it was not written by this program; pack the images again",
             text);
out:
    return st;
}

static sh_status sink_to_names(void *context, int64_t row, const char *text)
{
    (void)row;
    return sh_drop_list_add(context, text, "");
}

static sh_status sink_to_reasons(void *context, int64_t row, const char *text)
{
    sh_status st = SH_OK;
    sh_drop_list *list = context;
    char *copy = strdup(text);

    SH_CHECK(copy != NULL, SH_ERR_NO_MEMORY, "a reason");
    free(list->reasons[row]);
    list->reasons[row] = copy;
out:
    return st;
}

static sh_status sink_to_shards(void *context, int64_t row, const char *text)
{
    sh_status st = SH_OK;
    sh_pack_tables *tables = context;

    if (row == tables->n_shards) { /* one row at a time; there are few */
        sh_pack_shard *shards = realloc(tables->shards, ((size_t)row + 1) * sizeof(*shards));

        SH_CHECK(shards != NULL, SH_ERR_NO_MEMORY, "shard %s", text);
        tables->shards = shards;
        shards[row] = (sh_pack_shard){.file = strdup(text)};
        tables->n_shards++;
        SH_CHECK(shards[row].file != NULL, SH_ERR_NO_MEMORY, "shard %s", text);
    }
out:
    return st;
}

static sh_status read_column(hid_t file, const char *path, const char *group,
                             const sh_column *column, void *records, size_t record_bytes, int64_t n)
{
    sh_status st = SH_OK;
    hid_t dataset = -1;
    char name[64];
    size_t row_bytes = (size_t)column->width * sh_column_size(column->type);
    char *values = malloc((size_t)n * row_bytes + 1);

    SH_CHECK(values != NULL, SH_ERR_NO_MEMORY, "column %s of %s", column->name, path);
    snprintf(name, sizeof(name), "%s/%s", group, column->name);
    SH_TRY(open_dataset(file, path, name, column->width, H5T_INTEGER, &n, &dataset));
    CHECK_PACK(H5Dread(dataset, sh_column_memory_type(column->type), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                       values) >= 0,
               name);
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)records + (size_t)i * record_bytes + column->offset,
               values + (size_t)i * row_bytes, row_bytes);
out:
    if (dataset >= 0) H5Dclose(dataset);
    free(values);
    return st;
}

static const char *what_is_wrong(const sh_pack_record *r, const sh_pack_tables *tables,
                                 uint64_t images_bytes)
{
    uint64_t n_pixels = (uint64_t)r->size[0] * (uint64_t)r->size[1];

    if (r->length == 0 || r->offset > images_bytes || r->length > images_bytes - r->offset)
        return "its bytes lie outside the images";
    if (r->size[0] <= 0 || r->size[1] <= 0 || r->size[0] > SH_IMAGE_MAX_SIDE ||
        r->size[1] > SH_IMAGE_MAX_SIDE)
        return "its size";
    if (r->format < SH_IMAGE_JPEG || r->format > SH_IMAGE_RAW) return "its image format";
    if (r->format == SH_IMAGE_RAW && r->length != n_pixels && r->length != 3 * n_pixels)
        return "its number of raw pixels";
    for (int m = 0; m < SH_N_MASKS; m++)
        if (r->mask_offset[m] > images_bytes ||
            r->mask_length[m] > images_bytes - r->mask_offset[m])
            return "a mask lies outside the images";
    if (r->side > SH_SIDE_RIGHT) return "its side";
    if (r->split < -1 || r->split > 3) return "its split";
    for (int t = 0; t < SH_N_TABLES; t++)
        if (r->labels[t] < -1 || r->labels[t] >= sh_strings_count(tables->labels[t]))
            return sh_pack_table_names[t];
    return NULL;
}

static sh_status read_crops(hid_t file, const char *path, const sh_seal *seal,
                            sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    hid_t images = -1;
    int64_t n = -1, n_bytes = (int64_t)seal->images_bytes;

    images = H5Dopen2(file, "images", H5P_DEFAULT);
    CHECK_PACK(images >= 0 && H5Dget_offset(images) == seal->images_offset &&
                   H5Dget_storage_size(images) == (hsize_t)n_bytes,
               "images");
    SH_TRY(sh_strings_create(&tables->names));
    SH_TRY(read_strings(file, path, "crops/name", &n, sink_to_set, tables->names));
    for (int t = 0; t < SH_N_TABLES; t++) {
        char name[64];
        int64_t n_labels = -1;

        snprintf(name, sizeof(name), "labels/%s", sh_pack_table_names[t]);
        SH_TRY(sh_strings_create(&tables->labels[t]));
        SH_TRY(read_strings(file, path, name, &n_labels, sink_to_set, tables->labels[t]));
    }
    tables->n_crops = n;
    tables->records = calloc((size_t)n + 1, sizeof(*tables->records));
    SH_CHECK(tables->records != NULL, SH_ERR_NO_MEMORY, "%lld crops", (long long)n);
    for (int i = 0; i < sh_pack_n_columns; i++)
        SH_TRY(read_column(file, path, "crops", &sh_pack_columns[i], tables->records,
                           sizeof(sh_pack_record), n));
    tables->has_masks = H5Lexists(file, "masks", H5P_DEFAULT) > 0;
    for (int i = 0; i < sh_mask_n_columns && tables->has_masks; i++)
        SH_TRY(read_column(file, path, "masks", &sh_mask_columns[i], tables->records,
                           sizeof(sh_pack_record), n));
    for (int64_t i = 0; i < n; i++) {
        const char *wrong = what_is_wrong(&tables->records[i], tables, seal->images_bytes);

        SH_CHECK(wrong == NULL, SH_ERR_FORMAT,
                 "%s: crop %s cannot be right (%s): pack the images again", path,
                 sh_strings_get(tables->names, (int32_t)i), wrong);
    }
out:
    if (images >= 0) H5Dclose(images);
    return st;
}

static sh_status read_shards(hid_t file, const char *path, sh_pack_tables *tables)
{
    static const sh_column columns[] = {
        {"n_crops", SH_COL_I64, 1, offsetof(sh_pack_shard, n_crops)},
        {"file_bytes", SH_COL_U64, 1, offsetof(sh_pack_shard, file_bytes)},
        {"rest_crc32c", SH_COL_U32, 1, offsetof(sh_pack_shard, rest_crc32c)},
    };
    sh_status st = SH_OK;
    int64_t n = -1;

    SH_TRY(read_strings(file, path, "shards/file", &n, sink_to_shards, tables));
    for (size_t i = 0; i < SH_COUNT(columns); i++)
        SH_TRY(read_column(file, path, "shards", &columns[i], tables->shards, sizeof(sh_pack_shard),
                           n));
    for (int64_t i = 0; i < n; i++)
        CHECK_PACK(strchr(tables->shards[i].file, '/') == NULL && tables->shards[i].file[0] != '\0',
                   "the name of a shard");
out:
    return st;
}

sh_status sh_pack_file_read(int fd, const char *path, sh_seal *seal, sh_pack_tables *tables)
{
    sh_status st = SH_OK;
    hid_t file = -1, access = -1;
    int64_t n_dropped = -1;

    SH_TRY(sh_seal_read(fd, path, seal));
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* our messages say it */
    access = H5Pcreate(H5P_FILE_ACCESS);
    /* A pack never changes once renamed, and locks fail on some cluster file systems. */
    CHECK_PACK(access >= 0 && H5Pset_file_locking(access, false, true) >= 0, "HDF5 access");
    file = H5Fopen(path, H5F_ACC_RDONLY, access);
    CHECK_PACK(file >= 0, "HDF5 cannot open it");
    if (seal->kind == SH_PACK_CROPS)
        SH_TRY(read_crops(file, path, seal, tables));
    else
        SH_TRY(read_shards(file, path, tables));
    SH_TRY(read_strings(file, path, "dropped/name", &n_dropped, sink_to_names, &tables->dropped));
    SH_TRY(
        read_strings(file, path, "dropped/reason", &n_dropped, sink_to_reasons, &tables->dropped));
out:
    if (file >= 0) H5Fclose(file);
    if (access >= 0) H5Pclose(access);
    return st;
}
